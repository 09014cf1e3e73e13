// What a map says of one place, as a number: equal where map and log agree.

internal import BlockCore
internal import LogFormat

/// Prints of what lies at a place.
///
/// Summed up for a segment, they compare a map with the log without keeping either in memory. Two
/// that differ have equal sums once in 2^63.
enum MapPrint {
    /// A print that stands for nothing; a print is odd.
    static var none: UInt64 { 0 }

    /// A block of data.
    ///
    /// - Parameters:
    ///   - owner: As ``LayerOwners`` says.
    ///   - block: Counted from the volume's start.
    ///   - entry: Where it is, its checksum, its write's number.
    /// - Returns: The print.
    static func block(_ owner: UInt64, _ block: UInt64, _ entry: MapEntry) -> UInt64 {
        mix(entry, owner, block, kind: 0)
    }

    /// A map page; a page never changes its layer.
    static func page(
        _ layer: UInt64,
        level: UInt8,
        index: UInt64,
        _ entry: MapEntry
    ) -> UInt64 {
        mix(entry, layer, index, kind: 1 + UInt64(level))
    }

    private static func mix(
        _ entry: MapEntry,
        _ layer: UInt64,
        _ place: UInt64,
        kind: UInt64
    ) -> UInt64 {
        var print = scramble(kind ^ entry.word0)
        print = scramble(print ^ entry.word1)
        print = scramble(print ^ layer)
        return scramble(print ^ place) | 1
    }

    /// Source: the finaliser of MurmurHash3.
    private static func scramble(_ value: UInt64) -> UInt64 {
        var value = value
        value ^= value >> 33
        value &*= 0xFF51_AFD7_ED55_8CCD
        value ^= value >> 33
        value &*= 0xC4CE_B9FE_1A85_EC53
        return value ^ value >> 33
    }
}

/// Which layer has the blocks that a record names under another: merging moves entries from a layer
/// to its only child, page by page, and records stay as they are.
///
/// The rule is the cleaner's, and beyond it that deleting a volume drops the layers of a merge under
/// way with the rest. Layers that a merge connects count as one.
struct LayerOwners {
    private var owners: [UInt64: UInt64] = [:]

    /// Every layer is its own.
    init() {}

    init(_ manifest: Manifest) {
        var children: [UInt64: [UInt64]] = [:]
        for layer in manifest.layers {
            children[layer.parent.rawValue, default: []].append(layer.id.rawValue)
        }
        var next: [UInt64: UInt64] = [:]
        for forward in manifest.forwards { next[forward.from.rawValue] = forward.into.rawValue }
        for layer in manifest.layers {
            let below = children[layer.id.rawValue] ?? []
            let mayMerge = layer.role == .unnamed || layer.role == .dropped
            let isMerging = mayMerge && below.count == 1
            next[layer.id.rawValue] = isMerging ? below[0] : nil
        }
        for start in next.keys where owners[start] == nil {
            var path: Set<UInt64> = []
            var current = start
            while owners[current] == nil, let after = next[current],
                path.insert(current).inserted
            {
                current = after
            }
            let owner = owners[current] ?? current
            for id in path { owners[id] = owner }
        }
    }

    /// The layer that has the blocks of records of `layer`.
    func owner(of layer: UInt64) -> UInt64 { owners[layer] ?? layer }
}
