// Formatting: an empty store as a list of writes.

public import BlockCore
internal import LogFormat
public import StorageIO

/// Why a device cannot be formatted.
public enum StoreFormatError: Error, Sendable, Hashable {
    /// Fewer bytes than the smallest store.
    case tooSmall(byteCountMin: UInt64)
    /// Not a power of two from 64 KiB to 256 MiB.
    case badSegmentSize
    /// Segments so small that a checkpoint could not say what is in each; at least so many bytes.
    case tooManySegments(segmentByteCountMin: UInt32)
}

/// Lays an empty store out on a device.
public enum StoreFormat {
    /// The smallest store: 24 segments of 64 KiB and the superblocks.
    public static var byteCountMin: UInt64 {
        Superblock.segmentAreaOffset + UInt64(segmentCountMin) * 65_536
    }
    /// Fewer segments than this would be reserve for the most part.
    public static var segmentCountMin: UInt32 { 24 }

    /// The segment size used when none is asked for: at most about 16,384 segments, between
    /// 1 and 256 MiB, less on tiny devices.
    public static func segmentByteCount(deviceByteCount: UInt64) -> UInt32 {
        var size: UInt64 = 4 << 20
        while deviceByteCount / size > 16_384, size < 256 << 20 { size *= 2 }
        while deviceByteCount / size < 128, size > 65_536 { size /= 2 }
        return UInt32(size)
    }

    /// Bytes of the largest manifest that a superblock can point to.
    ///
    /// A manifest is written as batches go: full ones, and what is left of each segment, so that at
    /// worst every other extent is short.
    static func manifestByteCountMax(segmentByteCount: UInt32) -> Int {
        let batchBlockCount = min(
            Int(segmentByteCount) / 4096 - 1,
            LogWriter.payloadBlockCountMax
        )
        return Superblock.manifestExtentCountMax / 2 * batchBlockCount * 4096
    }

    /// Whether there is room for as much again about volumes and snapshots.
    private static func fits(_ segmentCount: UInt64, of segmentByteCount: UInt32) -> Bool {
        segmentCount * UInt64(SegmentUsage.byteCount)
            <= UInt64(manifestByteCountMax(segmentByteCount: segmentByteCount) / 2)
    }

    /// The writes that make an empty store; flush after them.
    ///
    /// - Parameters:
    ///   - identity: The new store's identity.
    ///   - geometry: The device.
    ///   - segmentByteCount: Bytes per segment, or nil for the default.
    /// - Returns: Offsets in bytes and what to write there; each a multiple of 4096 bytes.
    /// - Throws: ``StoreFormatError``.
    public static func plan(
        identity: StoreIdentity,
        geometry: DeviceGeometry,
        segmentByteCount: UInt32? = nil
    ) throws(StoreFormatError) -> [(offset: UInt64, bytes: [UInt8])] {
        guard geometry.byteCount >= byteCountMin else {
            throw .tooSmall(byteCountMin: byteCountMin)
        }
        let size =
            segmentByteCount ?? StoreFormat.segmentByteCount(deviceByteCount: geometry.byteCount)
        guard size >= 65_536, size <= 256 << 20, size & (size - 1) == 0 else {
            throw .badSegmentSize
        }
        let area = geometry.byteCount - Superblock.segmentAreaOffset
        guard fits(area / UInt64(size), of: size) else {
            var needed = size
            while needed < 256 << 20, !fits(area / UInt64(needed), of: needed) { needed *= 2 }
            throw .tooManySegments(segmentByteCountMin: needed)
        }
        let segmentCount = UInt32(area / UInt64(size))
        guard segmentCount >= segmentCountMin else {
            throw .tooSmall(
                byteCountMin: Superblock.segmentAreaOffset + UInt64(segmentCountMin) * UInt64(size)
            )
        }
        var manifest = Manifest()
        manifest.usage = [SegmentUsage](
            repeating: SegmentUsage(liveBlockCount: 0, lastBatchSequence: 0),
            count: Int(segmentCount)
        )
        return layOut(manifest, identity, geometry, size, segmentCount)
    }

    private static func layOut(
        _ manifest: Manifest,
        _ identity: StoreIdentity,
        _ geometry: DeviceGeometry,
        _ segmentByteCount: UInt32,
        _ segmentCount: UInt32
    ) -> [(offset: UInt64, bytes: [UInt8])] {
        let bytes = manifest.encode()
        let manifestCRC = MemoryArena.withTemporary(byteCount: bytes.count) { region in
            region.copy(from: bytes)
            return region.crc32c()
        }
        var writes: [(offset: UInt64, bytes: [UInt8])] = []
        var extents: [BlockExtent] = []
        var offset = 0
        var location = Superblock.segmentAreaOffset / 4096
        let pieceByteCount = min(Int(segmentByteCount), 1 << 20)
        while offset < bytes.count {
            let count = min(pieceByteCount, bytes.count - offset)
            var piece = Array(bytes[offset..<(offset + count)])
            piece += [UInt8](repeating: 0, count: (4096 - count % 4096) % 4096)
            writes.append((location * 4096, piece))
            extents.append(
                BlockExtent(location: location, blockCount: UInt32(piece.count / 4096))
            )
            location += UInt64(piece.count / 4096)
            offset += count
        }
        for generation in 0...1 as ClosedRange<UInt64> {
            let superblock = Superblock(
                identity: identity,
                generation: generation,
                deviceByteCount: geometry.byteCount,
                segmentByteCount: segmentByteCount,
                segmentCount: segmentCount,
                incarnation: 0,
                openCount: 0,
                batchSequence: 0,
                manifestExtents: extents,
                manifestByteCount: UInt32(bytes.count),
                manifestCRC: manifestCRC
            )
            let block = MemoryArena.withTemporary(byteCount: 4096) { region in
                superblock.encode(into: region)
                return region.array()
            }
            for slot in Superblock.slots(generation: generation) {
                writes.append((Superblock.slotOffsets[slot], block))
            }
        }
        return writes
    }
}
