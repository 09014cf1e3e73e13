// Payloads of reply chunks.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Structured reply types"; branch
// extension-ext-header, "NBD_REPLY_TYPE_BLOCK_STATUS_EXT".

public import BlockCore

/// The start of an OFFSET_DATA payload; the data follows.
///
/// Layout: 8 bytes: the first byte's offset from the start of the export.
@frozen
public struct NBDOffsetData: Hashable, Sendable, BitwiseCopyable {
    /// Bytes before the data.
    @inlinable public static var byteCount: Int { 8 }

    /// Bytes from the start of the export.
    public var offset: UInt64

    /// Creates a payload's start.
    @inlinable
    public init(offset: UInt64) { self.offset = offset }

    /// Decodes the start of `payload`, which is whole.
    ///
    /// - Throws: `malformed` when there is not at least one byte of data.
    @inlinable
    public static func decode(_ payload: ByteRegion) throws(NBDWireError) -> Self {
        guard payload.byteCount > byteCount else { throw .malformed }
        return Self(offset: payload.loadBigEndian(0, as: UInt64.self))
    }

    /// Encodes it at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(offset, at: position)
        return Self.byteCount
    }
}

/// An OFFSET_HOLE payload.
///
/// Layout: 12 bytes: offset 8, byte count 4.
@frozen
public struct NBDOffsetHole: Hashable, Sendable, BitwiseCopyable {
    /// Bytes on the wire.
    @inlinable public static var byteCount: Int { 12 }

    /// Bytes from the start of the export.
    public var offset: UInt64
    /// Bytes that read as zero; not 0.
    public var holeByteCount: UInt32

    /// Creates a payload.
    @inlinable
    public init(offset: UInt64, holeByteCount: UInt32) {
        self.offset = offset
        self.holeByteCount = holeByteCount
    }

    /// Decodes `payload`, which is whole.
    ///
    /// - Throws: `malformed` for another length or an empty hole.
    @inlinable
    public static func decode(_ payload: ByteRegion) throws(NBDWireError) -> Self {
        guard payload.byteCount == byteCount else { throw .malformed }
        let hole = Self(
            offset: payload.loadBigEndian(0, as: UInt64.self),
            holeByteCount: payload.loadBigEndian(8, as: UInt32.self)
        )
        guard hole.holeByteCount > 0 else { throw .malformed }
        return hole
    }

    /// Encodes it at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0) -> Int {
        bytes.storeBigEndian(offset, at: position)
        bytes.storeBigEndian(holeByteCount, at: position + 8)
        return Self.byteCount
    }
}

/// An ERROR or ERROR_OFFSET payload, apart from its text.
///
/// Layout: error 4, text byte count 2, text, and for ERROR_OFFSET the offset 8.
@frozen
public struct NBDErrorPayload: Hashable, Sendable, BitwiseCopyable {
    /// The ``NBDError`` as a number; not 0.
    public var errorCode: UInt32
    /// Bytes of text, from byte 6 of the payload.
    public var textByteCount: Int
    /// The offset it happened at, for ERROR_OFFSET.
    public var offset: UInt64?

    /// Bytes besides the text.
    @inlinable
    public static func fixedByteCount(hasOffset: Bool) -> Int { hasOffset ? 14 : 6 }

    /// Creates a payload without a place for its text.
    @inlinable
    public init(errorCode: UInt32, textByteCount: Int, offset: UInt64?) {
        self.errorCode = errorCode
        self.textByteCount = textByteCount
        self.offset = offset
    }

    /// Decodes `payload`, which is whole.
    ///
    /// - Throws: `malformed` when the lengths contradict each other or the error is 0.
    @inlinable
    public static func decode(_ payload: ByteRegion, hasOffset: Bool) throws(NBDWireError) -> Self {
        let fixed = fixedByteCount(hasOffset: hasOffset)
        guard payload.byteCount >= fixed else { throw .malformed }
        let text = Int(payload.loadBigEndian(4, as: UInt16.self))
        let code = payload.loadBigEndian(0, as: UInt32.self)
        guard text <= payload.byteCount - fixed, code != 0 else { throw .malformed }
        let offset = hasOffset ? payload.loadBigEndian(6 + text, as: UInt64.self) : nil
        return Self(errorCode: code, textByteCount: text, offset: offset)
    }

    /// Encodes the payload with `text` at `position` of `bytes`.
    ///
    /// - Returns: The bytes used.
    /// - Precondition: `text` has at most ``NBDLimits/stringByteCountMax`` bytes.
    @inlinable
    @discardableResult
    public static func encode(
        _ error: NBDError,
        text: String,
        offset: UInt64? = nil,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        let textByteCount = text.utf8.count
        precondition(textByteCount <= NBDLimits.stringByteCountMax, "error text too long")
        bytes.storeBigEndian(error.rawValue, at: position)
        bytes.storeBigEndian(UInt16(truncatingIfNeeded: textByteCount), at: position + 4)
        bytes.copy(utf8: text, at: position + 6)
        if let offset { bytes.storeBigEndian(offset, at: position + 6 + textByteCount) }
        return textByteCount + fixedByteCount(hasOffset: offset != nil)
    }
}

/// The start of a BLOCK_STATUS payload; descriptors follow.
///
/// Layout: context 4, and in the extended form descriptor count 4; then per descriptor byte count
/// and status, 4 + 4 or 8 + 8.
@frozen
public struct NBDBlockStatusHeader: Hashable, Sendable, BitwiseCopyable {
    /// The context's id.
    public var contextID: UInt32
    /// The number of descriptors that follow; not 0.
    public var descriptorCount: Int

    /// Creates a payload's start.
    @inlinable
    public init(contextID: UInt32, descriptorCount: Int) {
        self.contextID = contextID
        self.descriptorCount = descriptorCount
    }

    /// Bytes before the first descriptor.
    @inlinable
    public static func byteCount(isExtended: Bool) -> Int { isExtended ? 8 : 4 }

    /// Bytes in a descriptor.
    @inlinable
    public static func descriptorByteCount(isExtended: Bool) -> Int { isExtended ? 16 : 8 }

    /// Decodes the start of `payload`, which is whole.
    ///
    /// - Throws: `malformed` when length and count contradict each other.
    @inlinable
    public static func decode(_ payload: ByteRegion, isExtended: Bool) throws(NBDWireError) -> Self
    {
        let start = byteCount(isExtended: isExtended)
        let each = descriptorByteCount(isExtended: isExtended)
        guard payload.byteCount >= start + each, (payload.byteCount - start) % each == 0 else {
            throw .malformed
        }
        let count = (payload.byteCount - start) / each
        if isExtended, Int(payload.loadBigEndian(4, as: UInt32.self)) != count { throw .malformed }
        return Self(contextID: payload.loadBigEndian(0, as: UInt32.self), descriptorCount: count)
    }

    /// The descriptor at `index` of `payload`.
    @inlinable
    public static func descriptor(
        _ payload: ByteRegion,
        at index: Int,
        isExtended: Bool
    ) -> (byteCount: UInt64, status: UInt64) {
        let position =
            byteCount(isExtended: isExtended) + index * descriptorByteCount(isExtended: isExtended)
        if isExtended {
            return (
                payload.loadBigEndian(position, as: UInt64.self),
                payload.loadBigEndian(position + 8, as: UInt64.self)
            )
        }
        return (
            UInt64(payload.loadBigEndian(position, as: UInt32.self)),
            UInt64(payload.loadBigEndian(position + 4, as: UInt32.self))
        )
    }

    /// Encodes the start at `position` of `bytes`.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at position: Int = 0, isExtended: Bool) -> Int {
        bytes.storeBigEndian(contextID, at: position)
        if isExtended {
            bytes.storeBigEndian(UInt32(truncatingIfNeeded: descriptorCount), at: position + 4)
        }
        return Self.byteCount(isExtended: isExtended)
    }

    /// Encodes one descriptor at `position` of `bytes`.
    ///
    /// - Precondition: outside the extended form both values fit 32 bits.
    @inlinable
    @discardableResult
    public static func encodeDescriptor(
        byteCount: UInt64,
        status: UInt64,
        into bytes: ByteRegion,
        at position: Int,
        isExtended: Bool
    ) -> Int {
        if isExtended {
            bytes.storeBigEndian(byteCount, at: position)
            bytes.storeBigEndian(status, at: position + 8)
        } else {
            precondition(byteCount <= UInt64(UInt32.max), "extent above 32 bits")
            precondition(status <= UInt64(UInt32.max), "status above 32 bits")
            bytes.storeBigEndian(UInt32(truncatingIfNeeded: byteCount), at: position)
            bytes.storeBigEndian(UInt32(truncatingIfNeeded: status), at: position + 4)
        }
        return descriptorByteCount(isExtended: isExtended)
    }
}
