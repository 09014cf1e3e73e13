// What requests for a status have gathered of a leaf, kept while they wait for pages: a walk that
// began again after each page would never end where the stack has more pages than there are frames.

internal import BlockCore
internal import LogFormat

/// One leaf's status on its way down the stack.
struct StatusWalk: BitwiseCopyable {
    /// It has to begin at the top.
    var isFresh = true
    var leafIndex: UInt64 = 0
    /// The slot of the layer to look at next, or -1 behind the last.
    var layer: Int32 = -1
    /// That layer's depth; 1 is the top.
    var depth: UInt64 = 1
    /// Some layer has the leaf.
    var hasLeaf = false
    /// When none has: the level at which all layers passed have nothing there.
    var skipLevel = MapGeometry.levelMax
}

/// The walks of all requests, and who waits for one.
final class StatusWalks {
    /// Statuses worked out at once; chosen so that their values stay in the processor's cache.
    static let count = 32
    /// The value of a block of which nothing is known yet.
    static let unknown = UInt64.max

    let walks = FixedArray<StatusWalk>(repeating: StatusWalk(), count: count)
    private let values = FixedArray<UInt64>(
        repeating: unknown,
        count: count * MapEntry.countPerPage
    )
    private let links = SlotLinks(count: count)
    private var free = SlotList()
    private var used = SlotList()
    /// Requests that wait for a walk, linked through their slots; -1 for none.
    var firstWaiter: Int32 = -1
    var lastWaiter: Int32 = -1

    init() {
        for walk in 0..<StatusWalks.count { links.append(walk, to: &free) }
    }

    /// Takes a walk, or nil when all are taken.
    func take() -> Int? {
        guard !free.isEmpty else { return nil }
        let walk = Int(free.first)
        links.remove(walk, from: &free)
        links.append(walk, to: &used)
        walks[walk] = StatusWalk()
        return walk
    }

    func give(_ walk: Int) {
        links.remove(walk, from: &used)
        links.append(walk, to: &free)
    }

    /// Begins at the top of a stack.
    func begin(_ walk: Int, leafIndex: UInt64, layer: Int32) {
        walks[walk] = StatusWalk(isFresh: false, leafIndex: leafIndex, layer: layer)
        for index in 0..<MapEntry.countPerPage { self[walk, index] = StatusWalks.unknown }
    }

    /// What is known of one of the leaf's blocks.
    subscript(walk: Int, index: Int) -> UInt64 {
        get { values[walk * MapEntry.countPerPage + index] }
        set { values[walk * MapEntry.countPerPage + index] = newValue }
    }

    // MARK: - Layers that are merged

    /// A leaf's entries moved up one layer, possibly past walks that were there already.
    func onMerge(leafIndex: UInt64) {
        var walk = used.first
        while walk >= 0 {
            let index = Int(walk)
            if walks[index].leafIndex == leafIndex {
                walks[index].isFresh = true
            } else {
                // Of this leaf it holds; of those beside it no longer.
                walks[index].skipLevel = 0
            }
            walk = links.next(index)
        }
    }

    /// A layer without pages left the stack.
    func onRemoval(of layer: Int, parent: Int32) {
        var walk = used.first
        while walk >= 0 {
            if walks[Int(walk)].layer == Int32(layer) { walks[Int(walk)].layer = parent }
            walk = links.next(Int(walk))
        }
    }
}
