// What a primary would send to a replica: numbered changes in order, and old ones out of order.

import BlockCore

/// The changes of one volume, as a primary numbers them.
///
/// A number stands for one change for ever: what a replica lost is sent again as it was, and a fill
/// brings blocks of a change, earlier or still to come, under the change's own number.
struct ReplicaStream {
    private var random: SeededRandom
    private var epoch: UInt64 = 1
    private var counter: UInt64 = 0
    private var nextOperation: UInt32 = 1
    /// Numbered and not streamed yet.
    private var planned: [ReplicaChange] = []
    /// Streamed, or never to be.
    private var past: [ReplicaChange] = []
    /// The leaves that are written, and how much of each.
    private let leaves: [UInt64]
    private let spanBlockCount: UInt64
    private let blockCountMax: Int
    /// Whether everything comes in the order of its numbers, and nothing is given up.
    ///
    /// Such a volume may have snapshots: what lies in one is older than what comes after it. A trim
    /// leaves numbers above a snapshot where the model has nothing.
    let isOrdered: Bool

    private static var plannedCount: Int { 12 }
    private static var pastCountMax: Int { 64 }

    /// Begins a stream.
    ///
    /// - Parameters:
    ///   - random: Decides what it writes.
    ///   - leaves: The leaves of the volume to write to.
    ///   - spanBlockCount: Blocks of each that are written.
    ///   - blockCountMax: Blocks of a write at most.
    ///   - isOrdered: Whether there are no fills and no trims.
    init(
        random: SeededRandom,
        leaves: [UInt64],
        spanBlockCount: UInt64,
        blockCountMax: Int,
        isOrdered: Bool
    ) {
        self.random = random
        self.leaves = leaves
        self.spanBlockCount = spanBlockCount
        self.blockCountMax = blockCountMax
        self.isOrdered = isOrdered
    }

    /// The next change of the stream.
    mutating func next() -> ReplicaChange {
        plan()
        // Some the replica never gets in their turn: a primary dropped it.
        while planned.count > 1, random.chance(perMille: 50) { shelve(planned.removeFirst()) }
        var change = planned.removeFirst()
        shelve(change)
        change.isStreamed = true
        return change
    }

    /// Blocks of a change that is past or still to come.
    mutating func fill() -> ReplicaChange {
        plan()
        var change = random.pick(planned + past)
        let count = UInt64(random.within(1...min(16, change.blocks.count)))
        let first =
            change.blocks.lowerBound + random.below(UInt64(change.blocks.count) - count + 1)
        change.blocks = first..<first + count
        return change
    }

    /// Blocks to read or to look for.
    mutating func anyRange() -> Range<UInt64> {
        let leaf = random.pick(leaves) << 8
        let first = random.below(min(256, spanBlockCount))
        let count = min(UInt64(random.within(1...64)), 256 - first)
        return leaf + first..<leaf + first + count
    }

    /// After a crash: what was streamed and lost comes again, or a new epoch begins without it.
    mutating func takeBack(_ lost: [ReplicaChange]) {
        var again = lost
        for index in again.indices { again[index].isStreamed = false }
        planned = again + planned
        guard random.chance(perMille: 300) else { return }
        for change in planned { shelve(change) }
        planned = []
        epoch += 1
        counter = 0
    }

    private mutating func plan() {
        while planned.count < Self.plannedCount { planned.append(make()) }
    }

    private mutating func shelve(_ change: ReplicaChange) {
        past.append(change)
        if past.count > Self.pastCountMax { past.removeFirst() }
    }

    private mutating func make() -> ReplicaChange {
        counter += UInt64(random.within(1...3))
        var kind = random.pick([
            ReplicaChange.Kind.write, .write, .write, .write, .write, .write, .trim, .trim, .zeroes,
        ])
        if isOrdered, kind == .trim { kind = .write }
        var most = random.pick([1, 4, 16, 64])
        most = min(most, kind == .write ? blockCountMax : 256)
        if kind == .trim, random.chance(perMille: 300) { most = 256 }
        let leaf = random.pick(leaves) << 8
        let first = random.below(min(256, spanBlockCount))
        let count = min(UInt64(random.within(1...most)), 256 - first)
        defer { nextOperation += 1 }
        return ReplicaChange(
            kind: kind,
            blocks: leaf + first..<leaf + first + count,
            number: epoch << 36 | counter,
            operation: nextOperation
        )
    }
}
