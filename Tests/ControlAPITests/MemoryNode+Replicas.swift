// The part of a node in memory that takes snapshots of replicated volumes and makes replicas of them.

import ControlAPI
import Synchronization

/// What a node reaches of other nodes' replicas, and what it was asked of its own.
final class ReplicaShelf: Sendable {
    private struct State {
        var nodes: [WeakNode] = []
        /// The ids of the snapshots that it was asked for, in order.
        var asked: [UInt64] = []
        /// What the next requests for snapshots are answered, and whether they are taken first.
        var takingErrors: [(error: ControlError, isTaken: Bool)] = []
        /// What the next clones and rollbacks are refused with.
        var refusals: [ControlError] = []
        var counter: UInt64 = 0
    }

    private struct WeakNode: Sendable {
        weak let node: MemoryNode?
    }

    private let state = Mutex(State())
    private let whenTaking = Mutex<(@Sendable () async -> Void)?>(nil)

    /// Tells which nodes there are.
    func connect(_ nodes: [MemoryNode]) {
        state.withLock { $0.nodes = nodes.map { WeakNode(node: $0) } }
    }

    /// All nodes by name that are to be reached.
    var reached: [String: MemoryNode] {
        let nodes = state.withLock { $0.nodes.compactMap(\.node) }
        let there = nodes.filter { $0.shelf.presence == .there }
        return Dictionary(there.map { ($0.name, $0) }) { first, _ in first }
    }

    /// The ids of the snapshots that it was asked for, in order.
    var asked: [UInt64] { state.withLock { $0.asked } }

    /// Answers the next request for a snapshot with an error, after taking it or without.
    func failNextTaking(_ error: ControlError, isTaken: Bool = false) {
        state.withLock { $0.takingErrors.append((error, isTaken)) }
    }

    /// Refuses the next clone or rollback.
    func refuseNext(_ error: ControlError) { state.withLock { $0.refusals.append(error) } }

    /// Has something done when a snapshot is asked for, before it is taken.
    func whenTaking(_ work: (@Sendable () async -> Void)?) { whenTaking.withLock { $0 = work } }

    func noteTaking(_ id: UInt64) async -> (error: ControlError, isTaken: Bool)? {
        if let work = whenTaking.withLock({ $0 }) { await work() }
        return state.withLock { state in
            state.asked.append(id)
            return state.takingErrors.isEmpty ? nil : state.takingErrors.removeFirst()
        }
    }

    func nextCounter() -> UInt64 {
        state.withLock { state in
            state.counter += 1
            return state.counter
        }
    }

    func requireWilling() throws(ControlError) {
        let refusal = state.withLock { $0.refusals.isEmpty ? nil : $0.refusals.removeFirst() }
        if let refusal { throw refusal }
    }
}

extension MemoryNode {
    func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken {
        let failure = await replicas.noteTaking(taking.snapshot)
        if let failure, !failure.isTaken { throw failure.error }
        guard let assignment = shelf.assignments[volume] else {
            throw ControlError(.volumeNotFound, "It is not served here.")
        }
        guard assignment.leaseEpoch == taking.leaseEpoch else {
            throw ControlError(.outdated, "It is served under another lease.")
        }
        let reached = replicas.reached
        let nodes = assignment.placements.compactMap { placement -> MemoryNode? in
            let node = reached[placement.node]
            let held = node?.held[volume]?.creation.replica
            return held?.instance == placement.instance ? node : nil
        }
        guard nodes.count >= assignment.writeQuorum else {
            throw ControlError(.unavailable, "Too few replicas are there.")
        }
        let known = nodes.lazy.compactMap { $0.mark(taking.snapshot, of: volume) }.first
        let number = known ?? (taking.leaseEpoch << 36 | replicas.nextCounter())
        for node in nodes { node.seal(taking.snapshot, number, of: volume) }
        if let failure { throw failure.error }
        return NodeSnapshotTaken(number: number)
    }

    private func mark(_ id: UInt64, of volume: UInt64) -> UInt64? {
        held[volume]?.snapshots.first { $0.replica?.id == id }?.replica?.number
    }

    /// Seals the replica under a snapshot's id, as a primary has it done.
    func seal(_ id: UInt64, _ number: UInt64, of volume: UInt64) {
        change(volume) { held in
            guard !held.snapshots.contains(where: { $0.replica?.id == id }) else { return }
            held.snapshots.append(
                NodeSnapshot(
                    name: "\(String(id, radix: 16))-\(String(number, radix: 16))",
                    layer: number,
                    byteCount: held.creation.byteCount,
                    ownByteCount: 4096,
                    cloneCount: 0,
                    replica: NodeReplicaSnapshot(id: id, number: number)
                )
            )
        }
    }

    func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {
        change(volume) { $0.snapshots.removeAll { $0.replica?.id == snapshot } }
    }

    func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) {
        try replicas.requireWilling()
        if held[creation.volume.id]?.creation.replica?.instance == creation.newInstance { return }
        let parent = try require(volume)
        try requireComplete(parent, creation.instance, snapshot)
        var new = creation.volume
        new.replica = NodeReplicaCreation(instance: creation.newInstance, isReplacement: false)
        var clone = Held(creation: new, epoch: new.epoch ?? 0)
        clone.parent = volume
        clone.promisedEpoch = creation.number >> 36 + 1
        _ = try insert(clone)
    }

    func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) {
        try replicas.requireWilling()
        let present = try require(volume)
        guard present.creation.replica?.instance != rollback.newInstance else { return }
        try requireComplete(present, rollback.instance, snapshot)
        guard present.promisedEpoch < rollback.epoch else {
            throw ControlError(.outdated, "The replica has promised more.")
        }
        change(volume) { held in
            let snapshot = held.snapshots.first { $0.replica?.id == snapshot }
            held.creation.byteCount = snapshot?.byteCount ?? 0
            held.creation.replica?.instance = rollback.newInstance
            held.promisedEpoch = rollback.epoch + 1
            held.rollbacks.append(snapshot?.name ?? "")
        }
    }

    private func requireComplete(
        _ held: Held,
        _ instance: UInt64,
        _ snapshot: UInt64
    ) throws(ControlError) {
        guard let replica = held.creation.replica, replica.instance == instance,
            !replica.isReplacement, !held.isIncomplete,
            held.snapshots.contains(where: { $0.replica?.id == snapshot })
        else { throw ControlError(.notComplete, "The replica lacks something.") }
    }
}
