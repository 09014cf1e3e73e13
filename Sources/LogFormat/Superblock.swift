// The superblock: what the store is, and where its newest checkpoint lies.

public import BlockCore

/// A run of blocks on the device.
@frozen
public struct BlockExtent: BitwiseCopyable, Hashable, Sendable {
    /// First block, counted from the device's start.
    public var location: UInt64
    /// Number of blocks.
    public var blockCount: UInt32

    /// Creates an extent.
    public init(location: UInt64, blockCount: UInt32) {
        self.location = location
        self.blockCount = blockCount
    }
}

/// The root of a store, in four slots: two copies of the newest and two of the one before.
///
/// Generation `g` is written to the slots `2 * (g & 1)` and the next, so that neither a torn
/// write nor one rotten block loses it; the highest generation that verifies wins.
///
/// Layout: 4096 bytes, little-endian; CRC-32C at byte 8 over the rest with the field zero; the
/// version at byte 12. Magic, checksum and version have this place in every version.
/// The slots lie in the device's first MiB; segments begin at byte 1,048,576.
public struct Superblock: Hashable, Sendable {
    /// "CAIRNLOG".
    public static var magic: UInt64 { 0x474F_4C4E_5249_4143 }
    /// The version written, and the only one that is read: nobody has a store of an earlier one.
    public static var version: UInt32 { 3 }
    /// The highest value of what only ever grows (generations, lives, batches, layers' ids): more
    /// than a store comes to, and room for whoever adds to it.
    public static var counterMax: UInt64 { 1 << 62 }
    /// Byte offsets of the four slots.
    public static var slotOffsets: [UInt64] { [0, 32_768, 65_536, 98_304] }

    /// The two slots that a generation is written to.
    public static func slots(generation: UInt64) -> [Int] {
        generation & 1 == 0 ? [0, 1] : [2, 3]
    }
    /// Where segments begin, in bytes.
    public static var segmentAreaOffset: UInt64 { 1 << 20 }
    /// The most extents a manifest may have: what fits in the block.
    public static var manifestExtentCountMax: Int { 256 }

    /// The store's identity.
    public var identity: StoreIdentity
    /// Grows with every superblock written.
    public var generation: UInt64
    /// Bytes of the device when formatted.
    public var deviceByteCount: UInt64
    /// Bytes in a segment; a multiple of 4096.
    public var segmentByteCount: UInt32
    /// Number of segments.
    public var segmentCount: UInt32
    /// The life of the log that batches after this checkpoint belong to.
    public var incarnation: UInt64
    /// How often the store was opened; the next life of the log takes this number.
    public var openCount: UInt64
    /// The last batch that the checkpoint includes.
    public var batchSequence: UInt64
    /// Where the manifest is.
    public var manifestExtents: [BlockExtent]
    /// Bytes of the manifest.
    public var manifestByteCount: UInt32
    /// CRC-32C of the manifest's bytes.
    public var manifestCRC: UInt32

    /// Creates a superblock from its fields.
    public init(
        identity: StoreIdentity,
        generation: UInt64,
        deviceByteCount: UInt64,
        segmentByteCount: UInt32,
        segmentCount: UInt32,
        incarnation: UInt64,
        openCount: UInt64,
        batchSequence: UInt64,
        manifestExtents: [BlockExtent],
        manifestByteCount: UInt32,
        manifestCRC: UInt32
    ) {
        self.identity = identity
        self.generation = generation
        self.deviceByteCount = deviceByteCount
        self.segmentByteCount = segmentByteCount
        self.segmentCount = segmentCount
        self.incarnation = incarnation
        self.openCount = openCount
        self.batchSequence = batchSequence
        self.manifestExtents = manifestExtents
        self.manifestByteCount = manifestByteCount
        self.manifestCRC = manifestCRC
    }

    /// Encodes into the first 4096 bytes of `block`.
    ///
    /// - Precondition: at most ``manifestExtentCountMax`` extents.
    public func encode(into block: ByteRegion) {
        precondition(manifestExtents.count <= Superblock.manifestExtentCountMax)
        block.slice(0, 4096).zero()
        var writer = ByteWriter()
        writer.write(Superblock.magic)
        writer.write(UInt32(0))
        writer.write(Superblock.version)
        writer.write(identity.high)
        writer.write(identity.low)
        writer.write(generation)
        writer.write(deviceByteCount)
        writer.write(segmentByteCount)
        writer.write(segmentCount)
        writer.write(incarnation)
        writer.write(openCount)
        writer.write(batchSequence)
        writer.write(manifestByteCount)
        writer.write(manifestCRC)
        writer.write(UInt32(manifestExtents.count))
        for extent in manifestExtents {
            writer.write(extent.location)
            writer.write(extent.blockCount)
        }
        block.copy(from: writer.bytes)
        block.store(block.slice(0, 4096).crc32c(), at: 8)
    }

    /// Decodes the superblock in the first 4096 bytes of `block`.
    ///
    /// - Parameter block: At least 4096 bytes; changed during the call, restored before it returns.
    /// - Returns: The superblock.
    /// - Throws: ``LogFormatError``: `malformed` when it is no superblock at all.
    public static func decode(_ block: ByteRegion) throws(LogFormatError) -> Superblock {
        guard block.byteCount >= 4096 else { throw .truncated }
        guard block.load(0, as: UInt64.self) == magic else { throw .malformed }
        let stored = block.load(8, as: UInt32.self)
        block.store(UInt32(0), at: 8)
        let actual = block.slice(0, 4096).crc32c()
        block.store(stored, at: 8)
        guard stored == actual else { throw .badChecksum }
        // Only a block that verifies may speak of versions: rot must not look like the future.
        let version = block.load(12, as: UInt32.self)
        guard version <= Superblock.version else { throw .versionTooNew(version) }
        guard version == Superblock.version else { throw .versionTooOld(version) }
        return try decodeFields(block)
    }

    private static func decodeFields(_ block: ByteRegion) throws(LogFormatError) -> Superblock {
        var reader = ByteReader(block.slice(16, 4096 - 16).array())
        var superblock = Superblock(
            identity: StoreIdentity(
                high: try reader.read(UInt64.self),
                low: try reader.read(UInt64.self)
            ),
            generation: try reader.read(UInt64.self),
            deviceByteCount: try reader.read(UInt64.self),
            segmentByteCount: try reader.read(UInt32.self),
            segmentCount: try reader.read(UInt32.self),
            incarnation: try reader.read(UInt64.self),
            openCount: try reader.read(UInt64.self),
            batchSequence: try reader.read(UInt64.self),
            manifestExtents: [],
            manifestByteCount: try reader.read(UInt32.self),
            manifestCRC: try reader.read(UInt32.self)
        )
        let extentCount = Int(try reader.read(UInt32.self))
        guard extentCount <= manifestExtentCountMax else { throw .malformed }
        for _ in 0..<extentCount {
            superblock.manifestExtents.append(
                BlockExtent(
                    location: try reader.read(UInt64.self),
                    blockCount: try reader.read(UInt32.self)
                )
            )
        }
        try superblock.validate()
        return superblock
    }

    private func validate() throws(LogFormatError) {
        guard segmentByteCount >= 65_536, segmentByteCount % 4096 == 0 else { throw .malformed }
        guard segmentCount > 0 else { throw .malformed }
        guard max(generation, incarnation, openCount, batchSequence) <= Superblock.counterMax
        else { throw .malformed }
        let (area, overflow) = UInt64(segmentByteCount)
            .multipliedReportingOverflow(by: UInt64(segmentCount))
        guard !overflow, area <= deviceByteCount,
            deviceByteCount - area >= Superblock.segmentAreaOffset
        else { throw .malformed }
        let endBlock = (Superblock.segmentAreaOffset + area) / 4096
        var blockCount: UInt64 = 0
        for extent in manifestExtents {
            guard extent.location >= Superblock.segmentAreaOffset / 4096,
                extent.location < endBlock,
                UInt64(extent.blockCount) <= endBlock - extent.location
            else { throw .malformed }
            blockCount += UInt64(extent.blockCount)
        }
        guard UInt64(manifestByteCount) <= blockCount * 4096 else { throw .malformed }
    }
}
