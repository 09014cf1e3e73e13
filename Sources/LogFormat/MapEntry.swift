// One entry of a map page: where the newest copy of a block is.

public import BlockCore

/// Where a layer's copy of one block is, with its checksum and its write's number.
///
/// Layout: 16 bytes, two little-endian words.
///
/// | word | bits   | field            | unit                                   |
/// |------|--------|------------------|----------------------------------------|
/// | 0    | 0–39   | location         | 4 KiB blocks from the device's start   |
/// | 0    | 40–63  | sequence, low    | bits 0–23 of the write's number        |
/// | 1    | 0–31   | CRC-32C          | of the block's 4096 bytes              |
/// | 1    | 32–63  | sequence, high   | bits 24–55 of the write's number       |
///
/// In an interior page the entry names a child page; its sequence is 0.
@frozen
public struct MapEntry: BitwiseCopyable, Equatable, Sendable {
    /// The first word, as stored.
    public var word0: UInt64
    /// The second word, as stored.
    public var word1: UInt64

    /// Wire size, in bytes.
    @inlinable public static var byteCount: Int { 16 }
    /// Entries in a page: a page maps 1 MiB at the lowest level.
    @inlinable public static var countPerPage: Int { 256 }
    /// log2 of ``countPerPage``.
    @inlinable public static var pageShift: UInt64 { 8 }

    /// The layer holds nothing here; ask its parent.
    @inlinable public static var absentLocation: UInt64 { 0 }
    /// Reads as zero and takes no space; hides the parent's copy.
    @inlinable public static var holeLocation: UInt64 { 1 }
    /// Reads as zero, reported as allocated; hides the parent's copy.
    @inlinable public static var zeroLocation: UInt64 { 2 }
    /// Locations from here on are real.
    @inlinable public static var dataLocationMin: UInt64 { 16 }
    @usableFromInline static var locationMask: UInt64 { (1 << 40) - 1 }

    /// Creates an entry from its stored words.
    @inlinable
    public init(word0: UInt64, word1: UInt64) {
        self.word0 = word0
        self.word1 = word1
    }

    /// Creates an entry from its fields.
    @inlinable
    public init(location: UInt64, crc: UInt32, sequence: UInt64) {
        word0 = (location & ((1 << 40) - 1)) | (sequence << 40)
        word1 = UInt64(crc) | ((sequence >> 24) << 32)
    }

    /// The entry that says "nothing here".
    @inlinable
    public static var absent: MapEntry { MapEntry(word0: 0, word1: 0) }

    /// The block's place on the device, in blocks; or one of the special locations.
    @inlinable
    public var location: UInt64 { word0 & ((1 << 40) - 1) }

    /// The checksum of the block.
    @inlinable
    public var crc: UInt32 { UInt32(truncatingIfNeeded: word1) }

    /// The number of the write that put the block here (56 bits).
    @inlinable
    public var sequence: UInt64 { (word0 >> 40) | ((word1 >> 32) << 24) }

    /// Whether the entry says nothing.
    @inlinable
    public var isAbsent: Bool { location == 0 }

    /// Whether the entry names a block of the device.
    @inlinable
    public var isData: Bool { location >= MapEntry.dataLocationMin }
}

extension ByteRegion {
    /// The entry at `index` of a map page.
    @inlinable
    public func mapEntry(_ index: Int) -> MapEntry {
        MapEntry(
            word0: load(index &* 16, as: UInt64.self),
            word1: load(index &* 16 &+ 8, as: UInt64.self)
        )
    }

    /// Replaces the entry at `index` of a map page.
    @inlinable
    public func setMapEntry(_ entry: MapEntry, _ index: Int) {
        store(entry.word0, at: index &* 16)
        store(entry.word1, at: index &* 16 &+ 8)
    }
}
