// Messages of the handshake: greeting, option and option reply headers, items of information.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Fixed newstyle negotiation".

public import BlockCore

/// The server's first message.
///
/// Layout: 18 bytes, big-endian: `NBDMAGIC` 8, `IHAVEOPT` 8, handshake flags 2.
@frozen
public struct NBDGreeting: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 18 }

    /// What the server announces.
    public var flags: NBDHandshakeFlags

    /// Creates a greeting.
    @inlinable
    public init(flags: NBDHandshakeFlags) { self.flags = flags }

    /// Decodes the greeting at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        guard bytes.loadBigEndian(0, as: UInt64.self) == NBDMagic.greeting,
            bytes.loadBigEndian(8, as: UInt64.self) == NBDMagic.option
        else { throw .badMagic }
        return Self(
            flags: NBDHandshakeFlags(rawValue: bytes.loadBigEndian(16, as: UInt16.self))
        )
    }

    /// Encodes the greeting at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(NBDMagic.greeting, at: position)
        bytes.storeBigEndian(NBDMagic.option, at: position + 8)
        bytes.storeBigEndian(flags.rawValue, at: position + 16)
        return Self.byteCount
    }
}

/// The header of an option; its data follows.
///
/// Layout: 16 bytes, big-endian: `IHAVEOPT` 8, option 4, data length 4.
@frozen
public struct NBDOptionHeader: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 16 }

    /// The option's number, known or not.
    public var optionCode: UInt32
    /// Bytes of data that follow.
    public var dataByteCount: UInt32

    /// The option, when it is a known one.
    @inlinable
    public var option: NBDOption? { NBDOption(rawValue: optionCode) }

    /// Creates a header.
    @inlinable
    public init(optionCode: UInt32, dataByteCount: UInt32) {
        self.optionCode = optionCode
        self.dataByteCount = dataByteCount
    }

    /// Decodes the header at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        guard bytes.loadBigEndian(0, as: UInt64.self) == NBDMagic.option else { throw .badMagic }
        return Self(
            optionCode: bytes.loadBigEndian(8, as: UInt32.self),
            dataByteCount: bytes.loadBigEndian(12, as: UInt32.self)
        )
    }

    /// Encodes the header at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(NBDMagic.option, at: position)
        bytes.storeBigEndian(optionCode, at: position + 8)
        bytes.storeBigEndian(dataByteCount, at: position + 12)
        return Self.byteCount
    }
}

/// The header of a reply to an option; its data follows.
///
/// Layout: 20 bytes, big-endian: magic 8, option 4, kind 4, data length 4.
@frozen
public struct NBDOptionReplyHeader: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 20 }

    /// The option replied to, as the client sent it.
    public var optionCode: UInt32
    /// The kind's number, known or not.
    public var kindCode: UInt32
    /// Bytes of data that follow.
    public var dataByteCount: UInt32

    /// The kind, when it is a known one.
    @inlinable
    public var kind: NBDOptionReplyKind? { NBDOptionReplyKind(rawValue: kindCode) }

    /// Creates a header.
    @inlinable
    public init(optionCode: UInt32, kind: NBDOptionReplyKind, dataByteCount: UInt32) {
        self.optionCode = optionCode
        kindCode = kind.rawValue
        self.dataByteCount = dataByteCount
    }

    /// Decodes the header at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        guard bytes.loadBigEndian(0, as: UInt64.self) == NBDMagic.optionReply else {
            throw .badMagic
        }
        var header = Self(
            optionCode: bytes.loadBigEndian(8, as: UInt32.self),
            kind: .acknowledgement,
            dataByteCount: bytes.loadBigEndian(16, as: UInt32.self)
        )
        header.kindCode = bytes.loadBigEndian(12, as: UInt32.self)
        return header
    }

    /// Encodes the header at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(NBDMagic.optionReply, at: position)
        bytes.storeBigEndian(optionCode, at: position + 8)
        bytes.storeBigEndian(kindCode, at: position + 12)
        bytes.storeBigEndian(dataByteCount, at: position + 16)
        return Self.byteCount
    }
}

/// Size and flags of an export.
///
/// Layout: 10 bytes, big-endian: size 8, transmission flags 2. Answers EXPORT_NAME as it is, and
/// follows the 2-byte kind in the information item.
@frozen
public struct NBDExportInfo: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 10 }
    /// Zero bytes behind the answer to EXPORT_NAME unless both sides agreed on none.
    @inlinable public static var paddingByteCount: Int { 124 }

    /// The export's size in bytes.
    public var exportByteCount: UInt64
    /// What it can do.
    public var flags: NBDTransmissionFlags

    /// Creates the information.
    @inlinable
    public init(exportByteCount: UInt64, flags: NBDTransmissionFlags) {
        self.exportByteCount = exportByteCount
        self.flags = flags
    }

    /// Decodes the information at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        return Self(
            exportByteCount: bytes.loadBigEndian(0, as: UInt64.self),
            flags: NBDTransmissionFlags(rawValue: bytes.loadBigEndian(8, as: UInt16.self))
        )
    }

    /// Encodes the information at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(exportByteCount, at: position)
        bytes.storeBigEndian(flags.rawValue, at: position + 8)
        return Self.byteCount
    }
}

/// Block and payload sizes of an export.
///
/// Layout: 12 bytes, big-endian: minimum 4, preferred 4, maximum payload 4.
@frozen
public struct NBDBlockSizes: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 12 }

    /// The smallest unit addressed, in bytes; a power of two.
    public var blockByteCountMin: UInt32
    /// The unit that is efficient, in bytes; a power of two.
    public var blockByteCountPreferred: UInt32
    /// The largest payload of a request or reply, in bytes.
    public var payloadByteCountMax: UInt32

    /// Creates the sizes.
    @inlinable
    public init(
        blockByteCountMin: UInt32,
        blockByteCountPreferred: UInt32,
        payloadByteCountMax: UInt32
    ) {
        self.blockByteCountMin = blockByteCountMin
        self.blockByteCountPreferred = blockByteCountPreferred
        self.payloadByteCountMax = payloadByteCountMax
    }

    /// Whether the sizes obey the specification's rules.
    ///
    /// Spec: "Size constraints".
    @inlinable
    public var isValid: Bool {
        func isPowerOfTwo(_ value: UInt32) -> Bool { value != 0 && value & (value - 1) == 0 }
        guard isPowerOfTwo(blockByteCountMin), isPowerOfTwo(blockByteCountPreferred) else {
            return false
        }
        return blockByteCountMin <= NBDLimits.blockByteCountMinMax
            && blockByteCountPreferred >= max(blockByteCountMin, 512)
            && payloadByteCountMax >= blockByteCountPreferred
    }

    /// Decodes the sizes at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        return Self(
            blockByteCountMin: bytes.loadBigEndian(0, as: UInt32.self),
            blockByteCountPreferred: bytes.loadBigEndian(4, as: UInt32.self),
            payloadByteCountMax: bytes.loadBigEndian(8, as: UInt32.self)
        )
    }

    /// Encodes the sizes at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(blockByteCountMin, at: position)
        bytes.storeBigEndian(blockByteCountPreferred, at: position + 4)
        bytes.storeBigEndian(payloadByteCountMax, at: position + 8)
        return Self.byteCount
    }
}
