// Which blocks of a store are live, as its maps say: a bit for each.

internal import BlockCore
internal import LogFormat

/// The places that maps name, each once.
struct BlockClaims {
    /// What came of a claim.
    enum Outcome {
        case taken
        /// Another map, or the manifest, names the place too.
        case twice
        /// It lies outside the segments.
        case outside
    }

    /// Blocks of a piece of the bitmap: 1 GiB.
    private static var pieceShift: UInt64 { 18 }

    let segmentBlockCount: UInt64
    /// Live blocks of each segment.
    private(set) var liveCounts: [UInt32]
    private let manifestExtents: [BlockExtent]
    /// By segment: most have nothing of the manifest.
    private let holdsManifest: [Bool]
    /// By their number; empty until something in one is named.
    private var pieces: [[UInt64]] = []

    static var firstLocation: UInt64 { Superblock.segmentAreaOffset / 4096 }

    /// Nothing in no store.
    init() {
        segmentBlockCount = 1
        liveCounts = []
        manifestExtents = []
        holdsManifest = []
    }

    init(_ superblock: Superblock) {
        let blockCount = UInt64(superblock.segmentByteCount / 4096)
        segmentBlockCount = blockCount
        liveCounts = [UInt32](repeating: 0, count: Int(superblock.segmentCount))
        manifestExtents = superblock.manifestExtents
        var holds = [Bool](repeating: false, count: Int(superblock.segmentCount))
        for extent in superblock.manifestExtents where extent.blockCount > 0 {
            let first = (extent.location - BlockClaims.firstLocation) / blockCount
            let end = extent.location + UInt64(extent.blockCount) - 1
            let last = (end - BlockClaims.firstLocation) / blockCount
            for segment in first...last { holds[Int(segment)] = true }
        }
        holdsManifest = holds
        let end = BlockClaims.firstLocation + blockCount * UInt64(superblock.segmentCount)
        pieces = Array(repeating: [], count: Int(end >> BlockClaims.pieceShift) + 1)
    }

    /// The first block of a segment.
    func location(ofSegment segment: Int) -> UInt64 {
        BlockClaims.firstLocation + UInt64(segment) * segmentBlockCount
    }

    /// The segment of a block, or nil outside of all.
    func segment(of location: UInt64) -> Int? {
        guard location >= BlockClaims.firstLocation else { return nil }
        let segment = (location - BlockClaims.firstLocation) / segmentBlockCount
        return segment < UInt64(liveCounts.count) ? Int(segment) : nil
    }

    /// Whether a map names the block.
    func contains(_ location: UInt64) -> Bool { containsAny(location..<(location + 1)) }

    /// Whether a map names any of the blocks.
    func containsAny(_ locations: Range<UInt64>) -> Bool {
        var location = locations.lowerBound
        while location < locations.upperBound {
            let (piece, word, bit) = BlockClaims.place(of: location)
            let count = min(64 - bit, locations.upperBound - location)
            location += count
            guard piece < pieces.count, !pieces[piece].isEmpty else { continue }
            let mask = (count == 64 ? UInt64.max : 1 << count - 1) << bit
            if pieces[piece][word] & mask != 0 { return true }
        }
        return false
    }

    /// Notes that a map names a block.
    mutating func take(_ location: UInt64) -> Outcome {
        guard let segment = segment(of: location) else { return .outside }
        if holdsManifest[segment], isManifest(location) { return .twice }
        let (piece, word, bit) = BlockClaims.place(of: location)
        if pieces[piece].isEmpty {
            pieces[piece] = [UInt64](repeating: 0, count: 1 << Int(BlockClaims.pieceShift - 6))
        }
        guard pieces[piece][word] & (1 << bit) == 0 else { return .twice }
        pieces[piece][word] |= 1 << bit
        liveCounts[segment] += 1
        return .taken
    }

    private static func place(of location: UInt64) -> (piece: Int, word: Int, bit: UInt64) {
        let inPiece = location & (1 << pieceShift - 1)
        return (Int(location >> pieceShift), Int(inPiece >> 6), inPiece & 63)
    }

    private func isManifest(_ location: UInt64) -> Bool {
        manifestExtents.contains {
            location >= $0.location && location - $0.location < UInt64($0.blockCount)
        }
    }
}
