// Faults at the n-th step: a process that dies, or one message that is lost. Steps are changes of
// the metadata and calls of the node; both are counted by one plan.

import ControlAPI
import Foundation
import Metadata
import Synchronization

/// What goes wrong, and when.
final class FaultPlan: Sendable {
    /// What goes wrong.
    enum Kind: String, CaseIterable, Sendable, CustomStringConvertible {
        /// The process dies just before the step.
        case crashBefore
        /// The process dies just after it.
        case crashAfter
        /// A call never arrives and says so; steps of the metadata are spared.
        case unreachable
        /// A call never arrives, and the caller cannot know.
        case lostRequest
        /// A call is carried out, and its answer is lost.
        case lostAnswer

        var description: String { rawValue }
        var isCrash: Bool { self == .crashBefore || self == .crashAfter }
    }

    private struct State {
        var kind: Kind?
        var remainingCount = 0
        var isDead = false
        var hasStruck = false
    }

    private let state = Mutex(State())

    /// Lets step `step` (from 1) fail.
    func arm(_ kind: Kind, step: Int) {
        state.withLock { $0 = State(kind: kind, remainingCount: step) }
    }

    /// Whether the fault has happened.
    var hasStruck: Bool { state.withLock { $0.hasStruck } }

    /// What a step does.
    enum Verdict {
        case proceed
        case failBefore
        case failAfter
    }

    /// Counts a step.
    func step(isNodeCall: Bool) -> (Verdict, Kind?) {
        state.withLock { state in
            if state.isDead { return (.failBefore, state.kind) }
            guard let kind = state.kind, !state.hasStruck else { return (.proceed, nil) }
            guard kind.isCrash || isNodeCall else { return (.proceed, nil) }
            state.remainingCount -= 1
            guard state.remainingCount == 0 else { return (.proceed, nil) }
            state.hasStruck = true
            state.isDead = kind.isCrash
            let isAfter = kind == .crashAfter || kind == .lostAnswer
            return (isAfter ? .failAfter : .failBefore, kind)
        }
    }
}

/// The metadata store of a process that may die.
struct FaultyStore: MetaStore {
    let store: any MetaStore
    let faults: FaultPlan

    func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        guard transaction.success.contains(where: \.isChange) else {
            return try await store.transact(transaction)
        }
        let (verdict, _) = faults.step(isNodeCall: false)
        if verdict == .failBefore { throw .storeFailed("the process is dead") }
        let result = try await store.transact(transaction)
        if verdict == .failAfter { throw .storeFailed("the process is dead") }
        return result
    }

    func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease {
        try await store.grantLease(milliseconds: milliseconds)
    }

    func keepAlive(_ lease: MetaLease) async throws(MetadataError) {
        try await store.keepAlive(lease)
    }

    func revoke(_ lease: MetaLease) async throws(MetadataError) {
        try await store.revoke(lease)
    }

    func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch> {
        try await store.watch(prefix: prefix, after: revision)
    }

    func maintain() async throws(MetadataError) { try await store.maintain() }
}

/// The network between the service and a node.
struct FaultyNode: NodeService {
    let node: MemoryNode
    let faults: FaultPlan

    private func call<Value: Sendable>(
        _ body: @autoclosure () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        let (verdict, kind) = faults.step(isNodeCall: true)
        let error =
            kind == .unreachable
            ? ControlError(.unreachable, "nothing was sent")
            : ControlError(.outcomeUnknown, "nobody knows")
        if verdict == .failBefore { throw error }
        let value = try await body()
        if verdict == .failAfter { throw error }
        return value
    }

    // Reads are not steps: they change nothing, so a crash at one is a crash at the next change.
    func report() async throws(ControlError) -> NodeReport { try await node.report() }
    func statistics() async throws(ControlError) -> NodeStatistics {
        try await node.statistics()
    }
    func volumes() async throws(ControlError) -> [NodeVolume] { try await node.volumes() }
    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        try await node.volume(id)
    }

    func createVolume(
        _ creation: NodeVolumeCreation
    ) async throws(ControlError) -> NodeVolume {
        try await call(await node.createVolume(creation))
    }

    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        try await call(await node.updateVolume(id, update))
    }

    func deleteVolume(_ id: UInt64) async throws(ControlError) {
        try await call(await node.deleteVolume(id))
    }

    func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot {
        try await call(await node.createSnapshot(volume: id, name: name))
    }

    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        try await call(await node.deleteSnapshot(volume: id, name: name))
    }

    func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume {
        try await call(await node.rollback(volume: id, snapshot: name))
    }

    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        try await call(await node.clone(volume: id, snapshot: name, creation))
    }

    func services() async throws(ControlError) -> [NodeServiceStatus] {
        try await node.services()
    }

    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        try await call(await node.serve(assignment))
    }

    func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        try await call(await node.stopServing(volume, leaseEpoch: leaseEpoch))
    }

    func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken {
        try await call(await node.takeSnapshot(of: volume, taking))
    }

    func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {
        try await call(await node.deleteReplicaSnapshot(of: volume, snapshot))
    }

    func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) {
        try await call(await node.cloneReplica(of: volume, snapshot, creation))
    }

    func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) {
        try await call(await node.rollBackReplica(of: volume, snapshot, rollback))
    }
}
