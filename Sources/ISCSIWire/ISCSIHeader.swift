public import BlockCore

/// A basic header segment: what every PDU begins with.
///
/// Layout: 48 bytes, big-endian.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | bit 6 immediate, bits 5 to 0 the operation code |
/// | 1 | 3 | flags, and what the operation code says |
/// | 4 | 1 | words of additional headers |
/// | 5 | 3 | bytes of data, without padding |
/// | 8 | 8 | LUN, or what the operation code says |
/// | 16 | 4 | initiator task tag |
/// | 20 | 28 | what the operation code says |
///
/// Fields that the operation code says have names of their own here, by offset: the same word is
/// CmdSN of a request and ExpCmdSN's neighbour of a response.
///
/// Spec: RFC 7143, 11.2.1.
@frozen
public struct ISCSIHeader: Sendable, Hashable, BitwiseCopyable {
    /// The operation code as it came.
    public var code: UInt8 = 0
    /// The I bit.
    public var isImmediate = false
    /// Byte 1.
    public var flags: UInt8 = 0
    /// Byte 2.
    public var byte2: UInt8 = 0
    /// Byte 3.
    public var byte3: UInt8 = 0
    /// Words of additional headers.
    public var additionalWordCount: UInt8 = 0
    /// Bytes of data that follow, below 2^24.
    public var dataByteCount: UInt32 = 0
    /// Bytes 8 to 15.
    public var lun: UInt64 = 0
    /// Bytes 16 to 19.
    public var taskTag: UInt32 = 0
    /// Bytes 20 to 23.
    public var word20: UInt32 = 0
    /// Bytes 24 to 27.
    public var word24: UInt32 = 0
    /// Bytes 28 to 31.
    public var word28: UInt32 = 0
    /// Bytes 32 to 39.
    public var long32: UInt64 = 0
    /// Bytes 40 to 47.
    public var long40: UInt64 = 0

    /// A header of zeroes but for its operation code.
    @inlinable
    public init(_ opcode: ISCSIOpcode) { code = opcode.rawValue }

    /// What it is; nil for a code that the protocol does not have.
    @inlinable public var opcode: ISCSIOpcode? { ISCSIOpcode(rawValue: code) }

    /// Spec: the F bit, in login the T bit.
    @inlinable public var isFinal: Bool { flags & 0x80 != 0 }

    /// Spec: the C bit of login and text.
    @inlinable public var continues: Bool { flags & 0x40 != 0 }

    /// Spec: `CmdSN` of what initiators send, `StatSN` of what targets send.
    @inlinable public var commandNumber: UInt32 { word24 }

    /// Spec: `ExpStatSN` of what initiators send.
    @inlinable public var expectedStatus: UInt32 { word28 }

    /// Bytes of the data segment with its padding.
    @inlinable public var paddedByteCount: Int { Int(dataByteCount + 3) & ~3 }

    /// Bytes of the additional headers.
    @inlinable public var additionalByteCount: Int { Int(additionalWordCount) * 4 }

    /// Reads a header; every 48 bytes are one.
    ///
    /// - Precondition: `bytes` has at least ``ISCSILimits/headerByteCount`` bytes.
    @inlinable
    public init(decoding bytes: ByteRegion) {
        let first = bytes.loadBigEndian(0, as: UInt32.self)
        let second = bytes.loadBigEndian(4, as: UInt32.self)
        code = UInt8(first >> 24) & 0x3F
        isImmediate = first & 0x4000_0000 != 0
        flags = UInt8(truncatingIfNeeded: first >> 16)
        byte2 = UInt8(truncatingIfNeeded: first >> 8)
        byte3 = UInt8(truncatingIfNeeded: first)
        additionalWordCount = UInt8(second >> 24)
        dataByteCount = second & 0xFF_FFFF
        lun = bytes.loadBigEndian(8, as: UInt64.self)
        taskTag = bytes.loadBigEndian(16, as: UInt32.self)
        word20 = bytes.loadBigEndian(20, as: UInt32.self)
        word24 = bytes.loadBigEndian(24, as: UInt32.self)
        word28 = bytes.loadBigEndian(28, as: UInt32.self)
        long32 = bytes.loadBigEndian(32, as: UInt64.self)
        long40 = bytes.loadBigEndian(40, as: UInt64.self)
    }

    /// Writes the header.
    ///
    /// - Precondition: `region` has room for ``ISCSILimits/headerByteCount`` bytes, and
    ///   ``dataByteCount`` is below 2^24.
    @inlinable
    public func encode(into region: ByteRegion) {
        precondition(dataByteCount < 1 << 24, "a data segment has 24 bits of length")
        region.store((isImmediate ? 0x40 : 0) | code & 0x3F, at: 0)
        region.store(flags, at: 1)
        region.store(byte2, at: 2)
        region.store(byte3, at: 3)
        region.storeBigEndian(UInt32(additionalWordCount) << 24 | dataByteCount, at: 4)
        region.storeBigEndian(lun, at: 8)
        region.storeBigEndian(taskTag, at: 16)
        region.storeBigEndian(word20, at: 20)
        region.storeBigEndian(word24, at: 24)
        region.storeBigEndian(word28, at: 28)
        region.storeBigEndian(long32, at: 32)
        region.storeBigEndian(long40, at: 40)
    }
}

/// CRC-32C as a digest on the wire: the least significant byte first.
///
/// Spec: RFC 7143, 13.1 and appendix A.4.
public enum ISCSIDigest {
    /// Writes a digest behind what it covers.
    @inlinable
    public static func store(_ checksum: UInt32, into region: ByteRegion, at offset: Int) {
        region.store(checksum, at: offset)
    }

    /// Reads a digest.
    @inlinable
    public static func load(_ region: ByteRegion, at offset: Int) -> UInt32 {
        region.load(offset, as: UInt32.self)
    }
}

/// The additional headers that a command can have.
///
/// Spec: RFC 7143, 11.2.2.
public enum ISCSIAdditionalHeader {
    private static var expectedReadType: UInt8 { 0x02 }

    /// The read length of a bidirectional command; nil when nothing says it.
    ///
    /// Segments whose lengths contradict the whole end the search.
    public static func expectedReadByteCount(_ bytes: ByteRegion) -> UInt32? {
        var offset = 0
        while bytes.byteCount - offset >= 4 {
            let byteCount = Int(bytes.loadBigEndian(offset, as: UInt16.self))
            let kind = bytes.load(offset + 2, as: UInt8.self)
            // The length leaves out itself and the type; each segment is padded to a word.
            let end = offset + (3 + byteCount + 3) & ~3
            guard end <= bytes.byteCount, end > offset else { return nil }
            if kind == expectedReadType, byteCount == 5 {
                return bytes.loadBigEndian(offset + 4, as: UInt32.self)
            }
            offset = end
        }
        return nil
    }
}
