// Recently read blocks in memory: eight-way sets, least recently used goes first.

internal import BlockCore

/// A fixed cache of 4 KiB blocks by device location.
///
/// A frame is good while its segment has not been given out again since it was filled.
final class BlockCache {
    private struct Entry: BitwiseCopyable {
        var reuseCount: UInt32 = 0
        var isFilling = false
        var stamp: UInt64 = 0
    }

    private static let ways = 8
    private let memory: ByteRegion
    private let entries: FixedArray<Entry>
    /// What each frame holds, 0 for nothing; apart, so that a look-up reads one cache line a set.
    private let locations: FixedArray<UInt64>
    private let setMask: UInt64
    private var clock: UInt64 = 0
    /// Frames used after this moment may be named by completions not yet taken.
    private var protectedSince: UInt64 = 0

    /// Whether there is a cache at all.
    let isEnabled: Bool

    init(blockCount: Int, arena: MemoryArena) {
        var setCount = 1
        while setCount * 2 * BlockCache.ways <= blockCount { setCount *= 2 }
        isEnabled = blockCount >= BlockCache.ways
        let count = isEnabled ? setCount * BlockCache.ways : 0
        memory = count > 0 ? arena.allocate(byteCount: count * 4096) : .empty
        entries = FixedArray(repeating: Entry(), count: count)
        locations = FixedArray(repeating: 0, count: count)
        setMask = UInt64(setCount - 1)
    }

    func block(_ frame: Int32) -> ByteRegion { memory.slice(Int(frame) &* 4096, 4096) }

    /// The frame that holds `location`, or -1.
    @inline(always)
    func find(_ location: UInt64, reuseCount: UInt32) -> Int32 {
        guard isEnabled else { return -1 }
        let first = Int(hash(location)) &* BlockCache.ways
        for way in 0..<BlockCache.ways {
            guard locations[first &+ way] == location else { continue }
            let entry = entries[first &+ way]
            guard entry.reuseCount == reuseCount, !entry.isFilling else { continue }
            clock &+= 1
            entries[first &+ way].stamp = clock
            return Int32(first &+ way)
        }
        return -1
    }

    /// Takes a frame to be filled with `location`; -1 when all ways of the set are in use.
    func beginFill(_ location: UInt64, reuseCount: UInt32) -> Int32 {
        guard isEnabled else { return -1 }
        let first = Int(hash(location)) &* BlockCache.ways
        var victim = -1
        var oldest: UInt64 = 0
        for way in 0..<BlockCache.ways {
            let entry = entries[first &+ way]
            if entry.isFilling || entry.stamp > protectedSince { continue }
            let age = locations[first &+ way] == 0 ? UInt64.max : clock &- entry.stamp
            if victim < 0 || age > oldest {
                victim = way
                oldest = age
            }
        }
        guard victim >= 0 else { return -1 }
        clock &+= 1
        locations[first &+ victim] = location
        entries[first &+ victim] = Entry(
            reuseCount: reuseCount,
            isFilling: true,
            stamp: clock
        )
        return Int32(first &+ victim)
    }

    /// Says that the owner has taken every completion that names a frame.
    func allTaken() { protectedSince = clock }

    /// Ends a fill; a failed one leaves the frame empty.
    func endFill(_ frame: Int32, isGood: Bool) {
        clock &+= 1
        entries[Int(frame)].isFilling = false
        entries[Int(frame)].stamp = isGood ? clock : 0
        if !isGood { locations[Int(frame)] = 0 }
    }

    @inline(always)
    private func hash(_ location: UInt64) -> UInt64 {
        ((location &* 0x9E37_79B9_7F4A_7C15) >> 24) & setMask
    }
}
