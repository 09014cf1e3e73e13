// Reply headers of the transmission phase: the simple reply and the chunk, compact or extended.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Simple reply message", "Structured reply chunk
// message"; branch extension-ext-header, "Extended reply chunk message".

public import BlockCore

/// A simple reply; the data of a successful READ follows it.
///
/// Layout: 16 bytes, big-endian: magic 4, error 4, cookie 8.
@frozen
public struct NBDSimpleReplyHeader: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 16 }

    /// 0, or the ``NBDError`` as a number.
    public var errorCode: UInt32
    /// The request's cookie.
    public var cookie: UInt64

    /// Creates a header; nil means success.
    @inlinable
    public init(error: NBDError?, cookie: UInt64) {
        errorCode = error?.rawValue ?? 0
        self.cookie = cookie
    }

    /// Decodes the header at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`.
    @inlinable
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> Self {
        try bytes.require(byteCount)
        guard bytes.loadBigEndian(0, as: UInt32.self) == NBDMagic.simpleReply else {
            throw .badMagic
        }
        var header = Self(error: nil, cookie: bytes.loadBigEndian(8, as: UInt64.self))
        header.errorCode = bytes.loadBigEndian(4, as: UInt32.self)
        return header
    }

    /// Encodes the header at `offset` of `bytes`.
    ///
    /// - Returns: The bytes used, 16.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at offset: Int = 0) -> Int {
        bytes.storeBigEndian(NBDMagic.simpleReply, at: offset)
        bytes.storeBigEndian(errorCode, at: offset + 4)
        bytes.storeBigEndian(cookie, at: offset + 8)
        return Self.byteCount
    }
}

/// What a chunk's payload is.
@frozen
public enum NBDChunkKind: UInt16, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Nothing: ends a reply (`NBD_REPLY_TYPE_NONE`).
    case none = 0
    /// Offset 8, then data (`NBD_REPLY_TYPE_OFFSET_DATA`).
    case offsetData = 1
    /// Offset 8, byte count 4 (`NBD_REPLY_TYPE_OFFSET_HOLE`).
    case offsetHole = 2
    /// Context 4, then descriptors of 4 + 4 (`NBD_REPLY_TYPE_BLOCK_STATUS`).
    case blockStatus = 5
    /// Context 4, count 4, then descriptors of 8 + 8 (`NBD_REPLY_TYPE_BLOCK_STATUS_EXT`).
    case blockStatusExtended = 6
    /// Error 4, text length 2, text (`NBD_REPLY_TYPE_ERROR`).
    case error = 0x8001
    /// Error 4, text length 2, text, offset 8 (`NBD_REPLY_TYPE_ERROR_OFFSET`).
    case errorOffset = 0x8002
}

/// The header of a reply chunk.
///
/// Layout: 20 bytes (structured) or 32 (extended), big-endian, no padding.
///
/// | field   | structured | extended | unit                              |
/// |---------|------------|----------|-----------------------------------|
/// | magic   | 0, 4       | 0, 4     | `0x668E_33EF` or `0x6E8A_278C`    |
/// | flags   | 4, 2       | 4, 2     | bit set                           |
/// | kind    | 6, 2       | 6, 2     | `NBD_REPLY_TYPE_*`                |
/// | cookie  | 8, 8       | 8, 8     | the request's                     |
/// | offset  | absent     | 16, 8    | the request's                     |
/// | length  | 16, 4      | 24, 8    | bytes of payload that follow      |
@frozen
public struct NBDChunkHeader: Hashable, Sendable, BitwiseCopyable {
    /// Properties.
    public var flags: NBDChunkFlags
    /// The kind's number, known or not.
    public var kindCode: UInt16
    /// The request's cookie.
    public var cookie: UInt64
    /// The request's offset; 0 when decoded from a structured chunk, which has none.
    public var requestOffset: UInt64
    /// Bytes of payload that follow.
    public var payloadByteCount: UInt64

    /// The kind, when it is a known one.
    @inlinable
    public var kind: NBDChunkKind? { NBDChunkKind(rawValue: kindCode) }

    /// Creates a header.
    @inlinable
    public init(
        _ kind: NBDChunkKind,
        flags: NBDChunkFlags,
        cookie: UInt64,
        requestOffset: UInt64,
        payloadByteCount: UInt64
    ) {
        self.flags = flags
        kindCode = kind.rawValue
        self.cookie = cookie
        self.requestOffset = requestOffset
        self.payloadByteCount = payloadByteCount
    }

    /// Bytes on the wire: 20 or 32.
    @inlinable
    public static func byteCount(isExtended: Bool) -> Int { isExtended ? 32 : 20 }

    /// Decodes the header at the start of `bytes`.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`.
    @inlinable
    public static func decode(
        _ bytes: ByteRegion,
        isExtended: Bool
    ) throws(NBDWireError) -> Self {
        try bytes.require(byteCount(isExtended: isExtended))
        let magic = bytes.loadBigEndian(0, as: UInt32.self)
        guard magic == (isExtended ? NBDMagic.extendedReply : NBDMagic.structuredReply) else {
            throw .badMagic
        }
        var header = Self(
            .none,
            flags: NBDChunkFlags(rawValue: bytes.loadBigEndian(4, as: UInt16.self)),
            cookie: bytes.loadBigEndian(8, as: UInt64.self),
            requestOffset: isExtended ? bytes.loadBigEndian(16, as: UInt64.self) : 0,
            payloadByteCount: isExtended
                ? bytes.loadBigEndian(24, as: UInt64.self)
                : UInt64(bytes.loadBigEndian(16, as: UInt32.self))
        )
        header.kindCode = bytes.loadBigEndian(6, as: UInt16.self)
        return header
    }

    /// Encodes the header at `offset` of `bytes`.
    ///
    /// - Returns: The bytes used, 20 or 32.
    /// - Precondition: a structured payload's length fits 32 bits; `bytes` has room.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at offset: Int = 0, isExtended: Bool) -> Int {
        bytes.storeBigEndian(
            isExtended ? NBDMagic.extendedReply : NBDMagic.structuredReply,
            at: offset
        )
        bytes.storeBigEndian(flags.rawValue, at: offset + 4)
        bytes.storeBigEndian(kindCode, at: offset + 6)
        bytes.storeBigEndian(cookie, at: offset + 8)
        if isExtended {
            bytes.storeBigEndian(requestOffset, at: offset + 16)
            bytes.storeBigEndian(payloadByteCount, at: offset + 24)
        } else {
            precondition(payloadByteCount <= UInt64(UInt32.max), "chunk above 32 bits")
            bytes.storeBigEndian(UInt32(truncatingIfNeeded: payloadByteCount), at: offset + 16)
        }
        return Self.byteCount(isExtended: isExtended)
    }
}

extension ByteRegion {
    /// Throws `needMoreBytes` unless the region has `byteCount` bytes.
    @inlinable
    @inline(always)
    package func require(_ byteCount: Int) throws(NBDWireError) {
        guard self.byteCount >= byteCount else {
            let missing = UInt32(clamping: byteCount - self.byteCount)
            throw .needMoreBytes(missingByteCount: missing)
        }
    }
}
