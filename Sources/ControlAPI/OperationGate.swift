// The order of a volume's changes on its node, kept against requests that arrive late and against
// a metadata service that knows less than the node.

internal import Synchronization

/// What a change of a volume is part of.
public struct NodeOperation: Sendable, Hashable {
    /// When the metadata service that asks was started, in milliseconds since 1970.
    ///
    /// Revisions alone would not do: they begin anew where an old copy of the metadata was
    /// restored.
    public var term: UInt64
    /// The revision of the metadata that is carried out; repetitions have the same.
    public var revision: UInt64
    /// The highest epoch of the volume that the metadata knows of.
    public var epochMax: UInt64

    /// Creates the description of an operation.
    public init(term: UInt64, revision: UInt64, epochMax: UInt64) {
        self.term = term
        self.revision = revision
        self.epochMax = epochMax
    }

    /// `TERM.REVISION.EPOCH`, as the header Cairn-Operation has it.
    var headerText: String { "\(term).\(revision).\(epochMax)" }

    /// Parses ``headerText``; nil when it is none.
    init?(headerText: String) {
        let numbers = headerText.split(separator: ".", omittingEmptySubsequences: false).map {
            UInt64($0)
        }
        guard numbers.count == 3, let term = numbers[0], let revision = numbers[1],
            let epochMax = numbers[2]
        else { return nil }
        self.init(term: term, revision: revision, epochMax: epochMax)
    }
}

/// Lets the changes of each volume through one at a time, and none that is older than the last.
///
/// A client that gives a request up closes its connection, but the node may read it afterwards.
/// Not covered: something between the two that keeps requests for longer than
/// ``rememberedSeconds``.
package final class OperationGate: Sendable {
    /// How long the last operation of a volume is remembered: as soon as the node runs it reads
    /// what has arrived, within seconds.
    package static let rememberedSeconds: Int64 = 600
    /// How many are remembered before old ones are looked for.
    package static let sweepCountMin = 1024

    private struct Admission {
        var operation: NodeOperation
        var time: ContinuousClock.Instant
    }

    private struct State {
        var last: [UInt64: Admission] = [:]
        var sweepCount = OperationGate.sweepCountMin
    }

    private let locks = KeyedLocks<UInt64>()
    private let state = Mutex(State())
    private let now: @Sendable () -> ContinuousClock.Instant

    /// Creates a gate that has let nothing through.
    ///
    /// - Parameter now: Tells the time.
    package init(now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }) {
        self.now = now
    }

    /// How many volumes it remembers an operation of.
    package var rememberedCount: Int { state.withLock { $0.last.count } }

    /// The node behind the gate, for one operation.
    ///
    /// - Parameters:
    ///   - operation: What its changes are part of; nil to ask for no order.
    ///   - node: The node.
    /// - Returns: The node, with the same methods.
    package func admit<Node: NodeService>(
        _ operation: NodeOperation?,
        to node: Node
    ) -> GatedNode<Node> {
        GatedNode(node: node, gate: self, operation: operation)
    }

    fileprivate func change<Value: Sendable>(
        _ volume: UInt64,
        _ operation: NodeOperation?,
        _ body: @escaping @Sendable () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await locks.withLock(volume) { [self] () throws(ControlError) in
            if let operation { try requireOrder(operation, volume) }
            return try await body()
        }
    }

    /// For primaries, whose changes are not those of the node's copy: an order of their own, and
    /// nobody waits, since their lease epochs tell the node which of two counts.
    fileprivate func service<Value: Sendable>(
        _ volume: UInt64,
        _ operation: NodeOperation?,
        _ body: () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        if let operation { try requireOrder(operation, volume | Self.serviceMark) }
        return try await body()
    }

    /// Tells a volume's service from its copy; ids of volumes are below it.
    private static let serviceMark: UInt64 = 1 << 63

    private func requireOrder(
        _ operation: NodeOperation,
        _ volume: UInt64
    ) throws(ControlError) {
        let now = now()
        let isLate = state.withLock { state in
            if let last = state.last[volume],
                now - last.time < .seconds(Self.rememberedSeconds),
                (operation.term, operation.revision)
                    < (last.operation.term, last.operation.revision)
            {
                return true
            }
            state.last[volume] = Admission(operation: operation, time: now)
            sweep(&state, now)
            return false
        }
        guard isLate else { return }
        throw ControlError(
            .outdated,
            "The node has been asked for a later change of the volume already.",
            help: "If the clock of the metadata service was set back, try again in "
                + "\(Self.rememberedSeconds / 60) minutes."
        )
    }

    private func sweep(_ state: inout State, _ now: ContinuousClock.Instant) {
        guard state.last.count > state.sweepCount else { return }
        state.last = state.last.filter { now - $0.value.time < .seconds(Self.rememberedSeconds) }
        state.sweepCount = max(2 * state.last.count, Self.sweepCountMin)
    }
}

/// A node behind its gate, for one operation: what changes a volume goes through it.
package struct GatedNode<Node: NodeService>: NodeService {
    fileprivate let node: Node
    fileprivate let gate: OperationGate
    fileprivate let operation: NodeOperation?

    package func report() async throws(ControlError) -> NodeReport { try await node.report() }

    package func statistics() async throws(ControlError) -> NodeStatistics {
        try await node.statistics()
    }

    package func volumes() async throws(ControlError) -> [NodeVolume] { try await node.volumes() }

    package func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        try await node.volume(id)
    }

    package func createVolume(
        _ creation: NodeVolumeCreation
    ) async throws(ControlError) -> NodeVolume {
        try await gate.change(creation.id, operation) { [node] () throws(ControlError) in
            try await node.createVolume(creation)
        }
    }

    package func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        try await change(id) { node throws(ControlError) in try await node.updateVolume(id, update)
        }
    }

    package func deleteVolume(_ id: UInt64) async throws(ControlError) {
        try await change(id) { node throws(ControlError) in try await node.deleteVolume(id) }
    }

    package func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot {
        try await change(id) { node throws(ControlError) in
            try await node.createSnapshot(volume: id, name: name)
        }
    }

    package func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        try await change(id) { node throws(ControlError) in
            try await node.deleteSnapshot(volume: id, name: name)
        }
    }

    package func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume {
        try await change(id) { node throws(ControlError) in
            try await node.rollback(volume: id, snapshot: name)
        }
    }

    /// In the order of the new volume's changes: the source's are not touched.
    package func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        try await gate.change(creation.id, operation) { [node] () throws(ControlError) in
            try await node.clone(volume: id, snapshot: name, creation)
        }
    }

    package func services() async throws(ControlError) -> [NodeServiceStatus] {
        try await node.services()
    }

    package func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        try await gate.service(assignment.volume, operation) { () throws(ControlError) in
            try await node.serve(assignment)
        }
    }

    package func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        try await gate.service(volume, operation) { () throws(ControlError) in
            try await node.stopServing(volume, leaseEpoch: leaseEpoch)
        }
    }

    package func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken {
        try await gate.service(volume, operation) { () throws(ControlError) in
            try await node.takeSnapshot(of: volume, taking)
        }
    }

    /// Also where there is no replica: a primary may be there.
    package func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {
        try await gate.change(volume, operation) { [node] () throws(ControlError) in
            try await node.deleteReplicaSnapshot(of: volume, snapshot)
        }
    }

    /// In the order of the new volume's changes, as a clone is.
    package func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) {
        try await gate.change(creation.volume.id, operation) { [node] () throws(ControlError) in
            try await node.cloneReplica(of: volume, snapshot, creation)
        }
    }

    package func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) {
        try await change(volume) { node throws(ControlError) in
            try await node.rollBackReplica(of: volume, snapshot, rollback)
        }
    }

    private func change<Value: Sendable>(
        _ id: UInt64,
        _ body: @escaping @Sendable (Node) async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await gate.change(id, operation) { [node, operation] () throws(ControlError) in
            if let operation {
                let held = try await node.volume(id)
                guard held.epoch <= operation.epochMax else {
                    throw .epochAhead(held, known: operation.epochMax)
                }
            }
            return try await body(node)
        }
    }
}

extension ControlError {
    /// The volume was given to somebody of whom the asker does not know.
    fileprivate static func epochAhead(_ volume: NodeVolume, known: UInt64) -> Self {
        ControlError(
            .outdated,
            "The volume '\(volume.name)' was given away in epoch \(volume.epoch), and the metadata "
                + "knows of \(known) only: an old copy of it may have been restored.",
            help: "'volctl attach \(volume.name) --host HOST --force' takes it from whoever has it."
        )
    }
}
