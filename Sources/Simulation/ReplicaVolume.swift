// What a volume whose changes are numbered from outside must hold: a model of every prefix of its
// log that may survive.
//
// Its owner has one change under way at a time, as the owner of a replica's stream does, so the
// order in which changes were submitted is their order in the log. After a crash the volume must be
// what some prefix of them makes of it, at least as long as what is durable: block by block with
// number and content, and with the stream's position and the replica's record.

import BlockCore
import LogStore

/// A block's copy; operation 0 are zeroes.
struct ReplicaCopy: Equatable {
    var number: UInt64
    var operation: UInt32
}

/// One change of a replica's volume.
struct ReplicaChange {
    enum Kind {
        case write
        case trim
        /// Zeroes that stay allocated.
        case zeroes
        /// The replica's own record.
        case record
    }

    var kind: Kind
    var blocks: Range<UInt64> = 0..<0
    var number: UInt64 = 0
    var operation: UInt32 = 0
    var isStreamed = false
    var record: [UInt8] = []
}

/// All that a replica's volume holds.
struct ReplicaState {
    var position: UInt64 = 0
    var record: [UInt8] = []
    var copies: [UInt64: ReplicaCopy] = [:]

    mutating func apply(_ change: ReplicaChange) {
        guard change.kind != .record else {
            record = change.record
            return
        }
        if change.isStreamed { position = change.number }
        for block in change.blocks {
            copies[block] = ReplicaState.applied(change, block, over: copies[block])
        }
    }

    /// What a change makes of a block's copy.
    static func applied(
        _ change: ReplicaChange,
        _ block: UInt64,
        over old: ReplicaCopy?
    ) -> ReplicaCopy? {
        guard change.blocks.contains(block), change.number > old?.number ?? 0 else { return old }
        // Where nothing is, nothing is given up.
        if change.kind == .trim, old == nil { return nil }
        let operation = change.kind == .write ? change.operation : 0
        return ReplicaCopy(number: change.number, operation: operation)
    }
}

/// What was found in a replica's volume.
struct ReplicaFound {
    var position: UInt64 = 0
    var record: [UInt8] = []
    var numbers: [UInt64: UInt64] = [:]
    var operations: [UInt64: UInt32] = [:]
}

/// A replica's volume.
final class ReplicaVolume {
    enum Phase {
        case creating
        case ready
        case deleting
        case gone
        /// It could not be read when it had to be.
        case unknown
    }

    let specification: VolumeSpecification
    var phase = Phase.creating
    var handle: VolumeHandle?
    var stream: ReplicaStream
    /// What surely survives, and the changes made to it, in the order of the log.
    private(set) var base: ReplicaState
    private(set) var changes: [ReplicaChange] = []
    /// Changes in `base`; all others are counted on from here.
    private(set) var baseIndex = 0
    private(set) var durableIndex = 0
    /// Whether the last change has not ended.
    private(set) var isChanging = false

    init(_ specification: VolumeSpecification, stream: ReplicaStream) {
        self.specification = specification
        self.stream = stream
        base = ReplicaState()
        base.record = specification.replica
    }

    var id: UInt64 { specification.id.rawValue }
    var submittedIndex: Int { baseIndex + changes.count }
    var endedIndex: Int { submittedIndex - (isChanging ? 1 : 0) }

    // MARK: - Changes

    func begin(_ change: ReplicaChange) {
        changes.append(change)
        isChanging = true
    }

    func end(isDurable: Bool) {
        isChanging = false
        if isDurable { durableIndex = submittedIndex }
    }

    /// The change under way was refused: it is not in the log.
    func withdraw() -> ReplicaChange {
        isChanging = false
        return changes.removeLast()
    }

    func noteDurable(_ index: Int) { durableIndex = max(durableIndex, index) }

    /// Forgets the order of what is durable, up to where some query began.
    func fold(before oldest: Int) {
        let count = min(durableIndex, oldest) - baseIndex
        guard count > 0 else { return }
        for change in changes[..<count] { base.apply(change) }
        changes.removeFirst(count)
        baseIndex += count
    }

    /// The store is gone: the change under way may be in the log or not.
    func crash() {
        isChanging = false
        handle = nil
    }

    // MARK: - Judging

    /// The copies that a block had after `from` changes and later.
    func copies(_ block: UInt64, from: Int) -> [ReplicaCopy?] {
        var copy = base.copies[block]
        var result = from <= baseIndex ? [copy] : []
        for (position, change) in changes.enumerated() {
            copy = ReplicaState.applied(change, block, over: copy)
            if baseIndex + position + 1 >= from { result.append(copy) }
        }
        return result
    }

    /// Blocks that may have a copy.
    var knownBlocks: Set<UInt64> {
        var blocks = Set(base.copies.keys)
        for change in changes where change.kind != .trim { blocks.formUnion(change.blocks) }
        return blocks
    }

    /// Finds the prefix that what was found is made of.
    ///
    /// - Parameters:
    ///   - found: What the store holds.
    ///   - isWhole: Whether nothing may be missing.
    /// - Returns: What is wrong, or nil: then the prefix is what the volume holds from now on.
    func settle(_ found: ReplicaFound, isWhole: Bool) -> String? {
        var state = base
        var index = baseIndex
        var nearest: String?
        while true {
            if index >= (isWhole ? submittedIndex : durableIndex) {
                let problem = difference(state, found)
                guard problem != nil else {
                    take(state, index)
                    return nil
                }
                // The last that has the position says the most.
                if nearest == nil || state.position == found.position { nearest = problem }
            }
            guard index < submittedIndex else { break }
            state.apply(changes[index - baseIndex])
            index += 1
        }
        return "replica \(id) is no prefix of its log from \(durableIndex) to \(submittedIndex) "
            + "(\(nearest ?? "none")); position \(found.position)"
    }

    private func take(_ state: ReplicaState, _ index: Int) {
        stream.takeBack(changes[(index - baseIndex)...].filter(\.isStreamed))
        base = state
        changes = []
        baseIndex = index
        durableIndex = index
    }

    private func difference(_ state: ReplicaState, _ found: ReplicaFound) -> String? {
        guard state.position == found.position else { return "position \(state.position)" }
        guard state.record == found.record else { return "record \(state.record)" }
        let blocks = Set(state.copies.keys).union(found.numbers.keys)
            .union(found.operations.keys)
        for block in blocks.sorted() {
            let copy = state.copies[block]
            let number = found.numbers[block]
            guard copy?.number == number else {
                return "block \(block) has number \(number ?? 0) instead of \(copy?.number ?? 0)"
            }
            let operation = found.operations[block] ?? 0
            guard copy?.operation ?? 0 == operation else {
                return "block \(block) is of #\(operation) instead of #\(copy?.operation ?? 0)"
            }
        }
        return nil
    }
}
