// Offline verification of a store: every checksum, map against log, leaks.
//
// It looks at the newest checkpoint as it lies on the device. A store that was not closed has
// log behind it: `StoreOverlay` replays that in memory first, and the check then sees the result.
// Not verified: that contents are what a client wrote (only the client knows), and blocks that
// nothing names.

public import BlockCore
internal import LogFormat

/// One thing wrong with a store.
public enum StoreProblem: Hashable, Sendable {
    /// No superblock can be used.
    case unusable(StoreError)
    /// A copy of the superblock is damaged; the other copies are not.
    case superblockDamaged(offset: UInt64)
    /// The device could not be read.
    case unreadable(offset: UInt64, errno: Int32)
    /// The manifest does not verify.
    case manifestDamaged(offset: UInt64)
    /// A layer's parent, or a volume's top layer, does not exist.
    case danglingLayer(id: UInt64)
    /// A map page does not verify.
    case pageDamaged(layer: UInt64, level: UInt8, index: UInt64, offset: UInt64)
    /// A map names a place outside the segments.
    case badLocation(layer: UInt64, block: UInt64, location: UInt64)
    /// A block's bytes do not have their checksum.
    case blockDamaged(layer: UInt64, block: UInt64, offset: UInt64)
    /// Two maps name one place.
    case claimedTwice(layer: UInt64, block: UInt64, offset: UInt64)
    /// A segment's count of live blocks is wrong: too high is a leak, too low loses data.
    case usageWrong(segment: Int, recorded: UInt32, found: UInt32)
    /// A layer's count of its blocks is wrong.
    case layerCountWrong(layer: UInt64, recorded: UInt64, found: UInt64)
}

/// What a check found.
public struct StoreCheckReport: Sendable, Hashable {
    /// The store, when a superblock could be read.
    public var identity: StoreIdentity?
    /// What is wrong, at most ``problemCountMax``.
    public var problems: [StoreProblem] = []
    /// Problems found, those not listed included.
    public var problemCount = 0
    /// Volumes.
    public var volumeCount = 0
    /// Layers.
    public var layerCount = 0
    /// Map pages verified.
    public var pageCount: UInt64 = 0
    /// Blocks verified.
    public var blockCount: UInt64 = 0

    /// Problems listed one by one.
    public static var problemCountMax: Int { 1000 }

    /// Creates an empty report.
    public init() {}
}

/// Verifies a store, reading through a closure.
public struct StoreCheck {
    /// Reads the region's length of bytes at an offset; 0, or an errno.
    public typealias Reader = (_ offset: UInt64, _ region: ByteRegion) -> Int32

    private let read: Reader
    private let progress: (UInt64, UInt64) -> Void
    private var report = StoreCheckReport()
    private var superblock: Superblock?
    private var manifest = Manifest()
    private var found: [UInt32] = []
    private var claims: [UInt64: [UInt64]] = [:]
    private var expectedBlockCount: UInt64 = 0
    private let arena = MemoryArena(byteCount: 2 << 20)

    /// Creates a check.
    ///
    /// - Parameters:
    ///   - read: How bytes are read.
    ///   - progress: Called now and then with blocks verified and blocks expected.
    public init(
        read: @escaping Reader,
        progress: @escaping (UInt64, UInt64) -> Void = { _, _ in }
    ) {
        self.read = read
        self.progress = progress
    }

    /// Runs the whole check.
    public mutating func run() -> StoreCheckReport {
        defer { withExtendedLifetime(arena) {} }
        guard readSuperblocks(), readManifest(), let superblock else { return report }
        report.volumeCount = manifest.volumes.count
        report.layerCount = manifest.layers.count
        found = [UInt32](repeating: 0, count: Int(superblock.segmentCount))
        expectedBlockCount = manifest.usage.reduce(0) { $0 + UInt64($1.liveBlockCount) }
        checkCatalogue()
        for layer in manifest.layers { checkLayer(layer) }
        for segment in 0..<found.count {
            let recorded = manifest.usage[segment].liveBlockCount
            if recorded != found[segment] {
                note(.usageWrong(segment: segment, recorded: recorded, found: found[segment]))
            }
        }
        return report
    }

    private mutating func note(_ problem: StoreProblem) {
        report.problemCount += 1
        if report.problems.count < StoreCheckReport.problemCountMax {
            report.problems.append(problem)
        }
    }

    // MARK: - Roots

    private mutating func readSuperblocks() -> Bool {
        var best: Superblock?
        var isForeign = true
        var newer: UInt32?
        for offset in Superblock.slotOffsets {
            let block = arena.region.slice(0, 4096)
            let errno = read(offset, block)
            guard errno == 0 else {
                note(.unreadable(offset: offset, errno: errno))
                isForeign = false
                continue
            }
            do throws(LogFormatError) {
                let found = try Superblock.decode(block)
                isForeign = false
                if best == nil || found.generation > best?.generation ?? 0 { best = found }
            } catch {
                if case .versionTooNew(let version) = error { newer = version }
                if case .badChecksum = error { isForeign = false }
                note(.superblockDamaged(offset: offset))
            }
        }
        if let newer {
            report.problems = []
            report.problemCount = 0
            note(.unusable(.versionTooNew(found: newer, supported: Superblock.version)))
            return false
        }
        guard let best else {
            report.problems = []
            report.problemCount = 0
            note(.unusable(isForeign ? .notAStore : .corrupt(offset: 0)))
            return false
        }
        superblock = best
        report.identity = best.identity
        return true
    }

    private mutating func readManifest() -> Bool {
        guard let superblock else { return false }
        var bytes: [UInt8] = []
        for extent in superblock.manifestExtents {
            for block in 0..<UInt64(extent.blockCount) {
                let region = arena.region.slice(0, 4096)
                let offset = (extent.location + block) * 4096
                let errno = read(offset, region)
                guard errno == 0 else {
                    note(.unreadable(offset: offset, errno: errno))
                    return false
                }
                bytes += region.array()
            }
        }
        let offset = (superblock.manifestExtents.first?.location ?? 0) * 4096
        bytes.removeLast(max(0, bytes.count - Int(superblock.manifestByteCount)))
        let crc = MemoryArena.withTemporary(byteCount: max(bytes.count, 1)) { region in
            region.copy(from: bytes)
            return region.slice(0, bytes.count).crc32c()
        }
        guard crc == superblock.manifestCRC,
            let decoded = try? Manifest.decode(bytes, segmentCount: superblock.segmentCount)
        else {
            note(.manifestDamaged(offset: offset))
            return false
        }
        manifest = decoded
        return true
    }

    private mutating func checkCatalogue() {
        let ids = Set(manifest.layers.map(\.id))
        for layer in manifest.layers where layer.parent != .none && !ids.contains(layer.parent) {
            note(.danglingLayer(id: layer.parent.rawValue))
        }
        for volume in manifest.volumes where !ids.contains(volume.topLayer) {
            note(.danglingLayer(id: volume.topLayer.rawValue))
        }
    }

    // MARK: - Maps

    private mutating func checkLayer(_ layer: LayerRecord) {
        guard !layer.root.isAbsent else {
            if layer.ownBlockCount != 0 {
                note(
                    .layerCountWrong(
                        layer: layer.id.rawValue,
                        recorded: layer.ownBlockCount,
                        found: 0
                    )
                )
            }
            return
        }
        let before = report.blockCount
        checkPage(layer.id.rawValue, level: layer.rootLevel, index: 0, layer.root)
        let found = report.blockCount - before
        if found != layer.ownBlockCount {
            note(
                .layerCountWrong(
                    layer: layer.id.rawValue,
                    recorded: layer.ownBlockCount,
                    found: found
                )
            )
        }
    }

    private mutating func checkPage(
        _ layer: UInt64,
        level: UInt8,
        index: UInt64,
        _ link: MapEntry
    ) {
        guard claim(layer, block: index, link.location) else { return }
        report.pageCount += 1
        let region = arena.region.slice(4096 * (1 + Int(level)), 4096)
        let offset = link.location * 4096
        let errno = read(offset, region)
        guard errno == 0 else {
            note(.unreadable(offset: offset, errno: errno))
            return
        }
        guard region.crc32c() == link.crc else {
            note(.pageDamaged(layer: layer, level: level, index: index, offset: offset))
            return
        }
        guard level > 0 else {
            checkBlocks(layer, index, region)
            return
        }
        for position in 0..<MapEntry.countPerPage {
            let entry = region.mapEntry(position)
            guard !entry.isAbsent else { continue }
            let child = index << MapEntry.pageShift | UInt64(position)
            checkPage(layer, level: level - 1, index: child, entry)
        }
    }

    private mutating func checkBlocks(_ layer: UInt64, _ leafIndex: UInt64, _ page: ByteRegion) {
        let data = arena.region.slice(1 << 20, 1 << 20)
        var position = 0
        while position < MapEntry.countPerPage {
            let entry = page.mapEntry(position)
            guard entry.isData else {
                position += 1
                continue
            }
            var count = 1
            while position + count < MapEntry.countPerPage,
                page.mapEntry(position + count).location == entry.location + UInt64(count)
            {
                count += 1
            }
            let first = leafIndex << MapEntry.pageShift | UInt64(position)
            checkRun(layer, first, page, position, count, data.slice(0, count * 4096))
            position += count
        }
        progress(report.blockCount, expectedBlockCount)
    }

    private mutating func checkRun(
        _ layer: UInt64,
        _ firstBlock: UInt64,
        _ page: ByteRegion,
        _ position: Int,
        _ count: Int,
        _ data: ByteRegion
    ) {
        let location = page.mapEntry(position).location
        for offset in 0..<count {
            let block = firstBlock + UInt64(offset)
            guard claim(layer, block: block, location + UInt64(offset)) else { return }
        }
        report.blockCount += UInt64(count)
        let errno = read(location * 4096, data)
        guard errno == 0 else {
            note(.unreadable(offset: location * 4096, errno: errno))
            return
        }
        for offset in 0..<count
        where data.slice(offset * 4096, 4096).crc32c() != page.mapEntry(position + offset).crc {
            note(
                .blockDamaged(
                    layer: layer,
                    block: firstBlock + UInt64(offset),
                    offset: (location + UInt64(offset)) * 4096
                )
            )
        }
    }

    /// Counts a place as used, once.
    private mutating func claim(_ layer: UInt64, block: UInt64, _ location: UInt64) -> Bool {
        guard let superblock else { return false }
        let blocksPerSegment = UInt64(superblock.segmentByteCount / 4096)
        let firstBlock = Superblock.segmentAreaOffset / 4096
        guard location >= firstBlock,
            location < firstBlock + blocksPerSegment * UInt64(superblock.segmentCount)
        else {
            note(.badLocation(layer: layer, block: block, location: location))
            return false
        }
        let word = location >> 18
        let bit = Int(location & ((1 << 18) - 1))
        var bits = claims.removeValue(forKey: word) ?? [UInt64](repeating: 0, count: 4096)
        let mask: UInt64 = 1 << UInt64(bit & 63)
        let isTaken = bits[bit >> 6] & mask != 0
        bits[bit >> 6] |= mask
        claims[word] = bits
        if isTaken {
            note(.claimedTwice(layer: layer, block: block, offset: location * 4096))
            return false
        }
        found[Int((location - firstBlock) / blocksPerSegment)] += 1
        return true
    }
}
