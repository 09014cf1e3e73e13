// The part of a node in memory that serves replicated volumes, and nodes that are not there.

import ControlAPI
import Synchronization

/// What a node serves of replicated volumes.
final class ServiceShelf: Sendable {
    /// Whether a node is to be reached.
    enum Presence: Sendable {
        case there
        /// Nothing answers.
        case dead
        /// Connections are taken, and that is all.
        case frozen
    }

    private struct State {
        var presence = Presence.there
        var assignments: [UInt64: NodeServiceAssignment] = [:]
        /// All that was asked for, in order.
        var asked: [NodeServiceAssignment] = []
        var stops: [UInt64] = []
        /// Nodes whose replicas are not to be reached.
        var unlinked: Set<String> = []
        /// Nodes whose replicas are not complete.
        var incomplete: Set<String> = []
        /// Nodes whose replicas have no room.
        var roomless: Set<String> = []
        var needsEpoch: Set<UInt64> = []
        var refusalCount = 0
        /// The session that it has registered with.
        var session: UInt64?
    }

    private let state = Mutex(State())
    private let whenServing = Mutex<(@Sendable (NodeServiceAssignment) async -> Void)?>(nil)

    var presence: Presence {
        get { state.withLock { $0.presence } }
        set { state.withLock { $0.presence = newValue } }
    }

    var session: UInt64? {
        get { state.withLock { $0.session } }
        set { state.withLock { $0.session = newValue } }
    }

    /// All assignments that it got, in order.
    var asked: [NodeServiceAssignment] { state.withLock { $0.asked } }

    /// What it serves.
    var assignments: [UInt64: NodeServiceAssignment] { state.withLock { $0.assignments } }

    /// The volumes that it was asked to stop serving, in order.
    var stops: [UInt64] { state.withLock { $0.stops } }

    /// Its process was started anew: it serves nothing.
    func restart() {
        state.withLock { state in
            state.assignments = [:]
            state.needsEpoch = []
            state.session = nil
        }
    }

    /// Says which nodes' replicas are not to be reached, and which lack something.
    func setReplicas(unlinked: Set<String> = [], incomplete: Set<String> = []) {
        state.withLock { state in
            state.unlinked = unlinked
            state.incomplete = incomplete
        }
    }

    /// Has the stores of replicas on these nodes have no room.
    func setRoomless(_ nodes: Set<String>) { state.withLock { $0.roomless = nodes } }

    /// Has a volume's primary stop for want of another epoch.
    func requireEpoch(_ volume: UInt64) {
        state.withLock { _ = $0.needsEpoch.insert(volume) }
    }

    /// Refuses so many assignments.
    func refuse(_ count: Int) { state.withLock { $0.refusalCount = count } }

    /// Has something done when an assignment has come, before it is taken.
    func whenServing(_ work: @escaping @Sendable (NodeServiceAssignment) async -> Void) {
        whenServing.withLock { $0 = work }
    }

    var statuses: [NodeServiceStatus] {
        state.withLock { state in
            state.assignments.values.map { Self.status($0, state) }.sorted { $0.name < $1.name }
        }
    }

    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        if let work = whenServing.withLock({ $0 }) { await work(assignment) }
        let result = state.withLock { state -> Result<NodeServiceStatus, ControlError> in
            if state.refusalCount > 0 {
                state.refusalCount -= 1
                return .failure(ControlError(.limitReached, "Not now."))
            }
            if let session = state.session, session != assignment.session {
                return .failure(ControlError(.unavailable, "This is another process."))
            }
            let present = state.assignments[assignment.volume]?.leaseEpoch ?? 0
            guard assignment.leaseEpoch >= present else {
                return .failure(ControlError(.outdated, "There is a later primary."))
            }
            if assignment.leaseEpoch > present { state.needsEpoch.remove(assignment.volume) }
            state.asked.append(assignment)
            state.assignments[assignment.volume] = assignment
            return .success(Self.status(assignment, state))
        }
        return try result.get()
    }

    func stop(_ volume: UInt64, _ leaseEpoch: UInt64) {
        state.withLock { state in
            state.stops.append(volume)
            guard let present = state.assignments[volume], present.leaseEpoch <= leaseEpoch
            else { return }
            state.assignments[volume] = nil
        }
    }

    private static func status(
        _ assignment: NodeServiceAssignment,
        _ state: State
    ) -> NodeServiceStatus {
        let isStopped = state.needsEpoch.contains(assignment.volume)
        let linkedCount = assignment.placements.count { !state.unlinked.contains($0.node) }
        return NodeServiceStatus(
            volume: assignment.volume,
            name: assignment.name,
            leaseEpoch: assignment.leaseEpoch,
            exportEpoch: assignment.exportEpoch,
            access: assignment.access,
            state: isStopped
                ? .stopped : linkedCount < assignment.writeQuorum ? .suspended : .serving,
            needsEpoch: isStopped,
            refusesWrites: assignment.placements.count - state.roomless.count
                < assignment.writeQuorum ? true : nil,
            replicas: assignment.placements.map { peer($0, state) },
            move: assignment.move.map { move in
                var replica = peer(move.to, state)
                guard replica.isComplete else {
                    replica.resync = "missing"
                    replica.resyncDoneCount = 64
                    replica.resyncTotalCount = 256
                    return NodeMoveStatus(phase: .filling, replica: replica)
                }
                return NodeMoveStatus(
                    phase: move.joins == true ? .ready : .filled,
                    replica: replica
                )
            }
        )
    }

    private static func peer(_ placement: NodePlacement, _ state: State) -> NodePeerStatus {
        NodePeerStatus(
            node: placement.node,
            instance: placement.instance,
            isLinked: !state.unlinked.contains(placement.node),
            isComplete: !state.unlinked.union(state.incomplete).contains(placement.node),
            behindCount: state.incomplete.contains(placement.node) ? 5 : 0,
            lacksRoom: state.roomless.contains(placement.node) ? true : nil
        )
    }
}

/// A node that is not to be reached.
struct AbsentNode: NodeService {
    let presence: ServiceShelf.Presence

    init(_ presence: ServiceShelf.Presence) { self.presence = presence }

    private func nothing<Value>() async throws(ControlError) -> Value {
        if presence == .frozen {
            // Longer than any test; ends when whoever waits gives up.
            try? await Task.sleep(for: .seconds(3600))
            throw ControlError(.outcomeUnknown, "nobody knows")
        }
        throw ControlError(.unreachable, "nothing answers")
    }

    func report() async throws(ControlError) -> NodeReport { try await nothing() }
    func statistics() async throws(ControlError) -> NodeStatistics { try await nothing() }
    func volumes() async throws(ControlError) -> [NodeVolume] { try await nothing() }
    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume { try await nothing() }
    func createVolume(
        _ creation: NodeVolumeCreation
    ) async throws(ControlError) -> NodeVolume { try await nothing() }
    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume { try await nothing() }
    func deleteVolume(_ id: UInt64) async throws(ControlError) { try await nothing() as Void }
    func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot { try await nothing() }
    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        try await nothing() as Void
    }
    func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume { try await nothing() }
    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume { try await nothing() }
    func services() async throws(ControlError) -> [NodeServiceStatus] { try await nothing() }
    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus { try await nothing() }
    func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        try await nothing() as Void
    }
    func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken { try await nothing() }
    func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) { try await nothing() as Void }
    func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) { try await nothing() as Void }
    func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) { try await nothing() as Void }
}
