// Judges what clients saw, knowing nothing of how it came about.
//
// Per block, values are unique, so a history of reads and writes is linearizable exactly when its
// values' zones fit together (Gibbons and Korach, "Testing shared memories", 1997): a value's zone
// lies between the first end and the last start of the requests that wrote or read it. A zone that
// runs forward is a time in which the block had that value and no other.

internal import BlockCore

/// A log of clients' requests, and the judgement on it.
struct ReplicationChecker {
    /// A write, or a trim, of a client.
    private struct Write {
        var epoch: UInt64
        var start: UInt64
        var end = UInt64.max
        /// When it was promised to survive everything.
        var hardened = UInt64.max
        var block: UInt64
    }
    private struct Read {
        var epoch: UInt64
        var start: UInt64
        var end: UInt64
        var value: UInt64
    }

    /// Steps of the simulation count time here: no two things happen at once.
    private var writes: [UInt64: Write] = [:]
    private var reads: [UInt64: [Read]] = [:]
    private var valuesOfBlock: [UInt64: [UInt64]] = [:]
    private var unhardened: [UInt64] = []
    /// Epochs in the order in which they began to serve, with when.
    private var servings: [(epoch: UInt64, step: UInt64)] = []
    /// Blocks of which a crash lost copies that nobody promised to keep.
    private var weakened: Set<UInt64> = []
    /// Epochs from which on such a block may have an older value.
    private var eras: [UInt64: [UInt64]] = [:]
    /// Blocks that were given up, with when that began.
    ///
    /// From its end on they read as zeroes, or as what was written later.
    private var trims: [UInt64: UInt64] = [:]
    /// What was read otherwise.
    private var trimFault: String?
    /// Whether a crash may lose what was not flushed at all.
    let forgivesCrashes: Bool

    init(forgivesCrashes: Bool) { self.forgivesCrashes = forgivesCrashes }

    mutating func beginWrite(value: UInt64, block: UInt64, epoch: UInt64, step: UInt64) {
        writes[value] = Write(epoch: epoch, start: step, block: block)
        valuesOfBlock[block, default: []].append(value)
    }

    mutating func endWrite(value: UInt64, isDurable: Bool, step: UInt64) {
        writes[value]?.end = step
        if isDurable { writes[value]?.hardened = step } else { unhardened.append(value) }
    }

    /// A write ended without having happened: whoever reads it reads what nobody wrote.
    mutating func refuse(value: UInt64) {
        guard let write = writes.removeValue(forKey: value) else { return }
        valuesOfBlock[write.block]?.removeAll { $0 == value }
    }

    /// A block was given up, by a trim that began at a step and has ended.
    mutating func trim(block: UInt64, start: UInt64) { trims[block] = start }

    /// A flush ended: what its primary, or an earlier one, had acknowledged before it is durable.
    mutating func endFlush(epoch: UInt64, start: UInt64, step: UInt64) {
        var rest: [UInt64] = []
        for value in unhardened {
            if let write = writes[value], write.end < start, write.epoch <= epoch {
                writes[value]?.hardened = step
            } else {
                rest.append(value)
            }
        }
        unhardened = rest
    }

    mutating func endRead(block: UInt64, value: UInt64, epoch: UInt64, start: UInt64, step: UInt64)
    {
        if let trim = trims[block], start > trim {
            let isNewer = writes[value].map { $0.block == block && $0.start > trim } ?? false
            if value != 0, !isNewer {
                trimFault = "block \(block): read \(value) after it was given up"
            }
            return
        }
        reads[block, default: []].append(Read(epoch: epoch, start: start, end: step, value: value))
    }

    /// A crash lost a copy of a value.
    mutating func lost(block: UInt64, value: UInt64) {
        guard forgivesCrashes, let write = writes[value], write.hardened == .max else { return }
        weakened.insert(block)
    }

    /// A primary begins to answer clients.
    mutating func beginServing(epoch: UInt64, step: UInt64) {
        guard servings.last.map({ $0.epoch < epoch }) ?? true else { return }
        servings.append((epoch, step))
        for block in weakened { eras[block, default: []].append(epoch) }
        // What may be lost cannot be made durable any more.
        unhardened.removeAll { writes[$0].map { weakened.contains($0.block) } ?? true }
        weakened.removeAll()
    }

    /// Whether an older value was ever allowed for a block.
    func mayHaveLost(_ block: UInt64) -> Bool { eras[block] != nil || weakened.contains(block) }

    // MARK: - Judgement

    /// - Returns: What is wrong, or nil.
    func verify() -> String? {
        if let trimFault { return trimFault }
        for block in reads.keys.sorted() {
            if let fault = verify(block) { return "block \(block): \(fault)" }
        }
        return nil
    }

    /// Whether a value may be in a snapshot that was taken between two steps.
    ///
    /// - Returns: What is wrong, or nil.
    func verifySnapshot(block: UInt64, value: UInt64, start: UInt64, end: UInt64) -> String? {
        guard !mayHaveLost(block) else { return nil }
        let origin = writes[value]
        if value != 0, origin?.block != block { return "\(value) was never written there" }
        if let origin, origin.start > end { return "\(value) was written after it" }
        let seen = origin?.end ?? 0
        for other in valuesOfBlock[block] ?? [] where other != value {
            guard let write = writes[other], write.start > seen, write.end < start else { continue }
            return "\(value), but \(other) had overwritten it before"
        }
        return nil
    }

    private func era(_ block: UInt64, _ epoch: UInt64) -> Int {
        (eras[block] ?? []).count { $0 <= epoch }
    }

    /// When the first later epoch served: then it was decided whether a write had happened.
    private func decided(_ write: Write) -> UInt64 {
        let next = servings.first { $0.epoch > write.epoch }?.step ?? .max
        return min(write.end, max(next, write.start))
    }

    private func verify(_ block: UInt64) -> String? {
        let eraCount = (eras[block]?.count ?? 0) + 1
        var carried: [UInt64?] = Array(repeating: nil, count: eraCount)
        for era in 0..<eraCount {
            let inEra = (reads[block] ?? []).filter { self.era(block, $0.epoch) == era }
            var zones: [UInt64: (first: UInt64, last: UInt64)] = [:]
            for value in valuesOfBlock[block] ?? [] {
                guard let write = writes[value], self.era(block, write.epoch) == era else {
                    continue
                }
                let isSeen = write.end != .max || inEra.contains { $0.value == value }
                if isSeen { zones[value] = (decided(write), write.start) }
            }
            for read in inEra {
                let origin = writes[read.value].map { self.era(block, $0.epoch) } ?? 0
                if read.value != 0, writes[read.value]?.block != block {
                    return "read \(read.value), which was never written there"
                }
                if origin > era { return "read \(read.value) before it was written" }
                if origin < era || read.value == 0 {
                    if let fault = carry(read, origin, era, block, &carried) { return fault }
                }
                if let write = writes[read.value], read.end < write.start {
                    return "read \(read.value) before it was written"
                }
                var zone = zones[read.value] ?? (0, 0)
                zone.first = min(zone.first, read.end)
                zone.last = max(zone.last, read.start)
                zones[read.value] = zone
            }
            if let fault = conflict(zones) { return fault }
        }
        return nil
    }

    /// Checks a value that an era began with: one and the same, and nothing durable overwrote it.
    private func carry(
        _ read: Read,
        _ origin: Int,
        _ era: Int,
        _ block: UInt64,
        _ carried: inout [UInt64?]
    ) -> String? {
        for between in origin + 1..<max(era + 1, origin + 1) where carried[between] != nil {
            if carried[between] != read.value {
                return
                    "read \(read.value) in epoch \(read.epoch) after older \(carried[between] ?? 0)"
            }
        }
        carried[era] = read.value
        let end = writes[read.value].map(decided) ?? 0
        for value in valuesOfBlock[block] ?? [] {
            guard let write = writes[value], self.era(block, write.epoch) < era else { continue }
            if write.hardened != .max, write.hardened < read.start, write.start > end {
                return "read \(read.value), but \(value) overwrote it durably"
            }
        }
        return nil
    }

    private func conflict(_ zones: [UInt64: (first: UInt64, last: UInt64)]) -> String? {
        let forward = zones.filter { $0.value.first < $0.value.last }
            .sorted { ($0.value.first, $0.key) < ($1.value.first, $1.key) }
        for (left, right) in zip(forward, forward.dropFirst())
        where right.value.first < left.value.last {
            return "\(left.key) and \(right.key) were both the latest value"
        }
        let backward = zones.filter { $0.value.first >= $0.value.last }
        for (value, zone) in backward.sorted(by: { $0.key < $1.key }) {
            for other in forward
            where other.value.first < zone.last && zone.first < other.value.last {
                return "\(value) was seen while \(other.key) was the latest value"
            }
        }
        return nil
    }
}
