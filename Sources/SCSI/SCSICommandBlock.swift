public import BlockCore

/// A command descriptor block: up to 16 bytes as an initiator sent them, trusted in nothing.
///
/// Two words instead of an array, so that it travels in registers and never allocates. Bytes beyond
/// the ones given read as zero.
///
/// Spec: SPC-4, section 4.3.
@frozen
public struct SCSICommandBlock: Sendable, Hashable, BitwiseCopyable {
    /// Bytes 0 to 7, big-endian.
    @usableFromInline var high: UInt64
    /// Bytes 8 to 15, big-endian.
    @usableFromInline var low: UInt64

    /// The most bytes of a command that it keeps; longer ones (operation code 7Fh) are not served,
    /// and their first byte says so.
    @inlinable
    public static var byteCountMax: Int { 16 }

    /// Creates a block from its two words.
    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Creates a block from the first 16 bytes of `bytes`, fewer when it is shorter.
    @inlinable
    public init(_ bytes: ByteRegion) {
        guard bytes.byteCount < 16 else {
            self.init(
                high: bytes.loadBigEndian(0, as: UInt64.self),
                low: bytes.loadBigEndian(8, as: UInt64.self)
            )
            return
        }
        self.init(high: 0, low: 0)
        for index in 0..<bytes.byteCount { set(bytes.load(index, as: UInt8.self), at: index) }
    }

    /// Creates a block from the first 16 bytes of `bytes`; for tests and cold paths.
    @inlinable
    public init(_ bytes: [UInt8]) {
        self.init(high: 0, low: 0)
        for index in 0..<min(bytes.count, 16) { set(bytes[index], at: index) }
    }

    /// The operation code: byte 0.
    @inlinable
    public var operationCode: UInt8 { UInt8(truncatingIfNeeded: high >> 56) }

    /// The byte at `index`, 0 to 15.
    @inlinable
    public subscript(index: Int) -> UInt8 {
        precondition(index >= 0 && index < 16, "a command has 16 bytes")
        let word = index < 8 ? high : low
        return UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * (index & 7)))
    }

    /// The big-endian 16-bit field at `index`.
    @inlinable
    public func field16(_ index: Int) -> UInt16 {
        UInt16(self[index]) << 8 | UInt16(self[index + 1])
    }

    /// The big-endian 32-bit field at `index`.
    @inlinable
    public func field32(_ index: Int) -> UInt32 {
        UInt32(field16(index)) << 16 | UInt32(field16(index + 2))
    }

    /// The big-endian 64-bit field at `index`.
    @inlinable
    public func field64(_ index: Int) -> UInt64 {
        UInt64(field32(index)) << 32 | UInt64(field32(index + 4))
    }

    @usableFromInline
    mutating func set(_ byte: UInt8, at index: Int) {
        let shift = UInt64(56 - 8 * (index & 7))
        let mask = ~(UInt64(0xFF) << shift)
        if index < 8 {
            high = high & mask | UInt64(byte) << shift
        } else {
            low = low & mask | UInt64(byte) << shift
        }
    }
}

/// A command as it arrived over a nexus.
///
/// The front keeps it until the command's end: what is collected for it comes back with it.
@frozen
public struct SCSICommand: Sendable, Hashable, BitwiseCopyable {
    /// The command descriptor block.
    public var block: SCSICommandBlock
    /// Bytes the initiator is ready to send; the transport's expected data transfer length with
    /// the W bit, 0 without.
    public var dataOutByteCount: UInt32
    /// Bytes the initiator has room for; the expected data transfer length with the R bit (or that
    /// of the additional header for bidirectional commands), 0 without.
    public var dataInByteCount: UInt32
    /// The nexus it came over.
    public var nexus: NexusIndex

    /// Creates a command.
    @inlinable
    public init(
        block: SCSICommandBlock,
        nexus: NexusIndex,
        dataOutByteCount: UInt32,
        dataInByteCount: UInt32
    ) {
        self.block = block
        self.nexus = nexus
        self.dataOutByteCount = dataOutByteCount
        self.dataInByteCount = dataInByteCount
    }
}
