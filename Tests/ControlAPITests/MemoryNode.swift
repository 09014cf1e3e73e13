// A node in memory: the rules of the store without its disk. The metadata service cannot tell it
// from a real one, and the tests can look into it.

import ControlAPI
import Synchronization

/// Volumes in memory, served as a `NodeService`.
final class MemoryNode: NodeService {
    struct Held: Sendable {
        var creation: NodeVolumeCreation
        var access = NodeVolumeAccess.none
        var epoch: UInt64 = 0
        var snapshots: [NodeSnapshot] = []
        /// The layer that takes its writes.
        var topLayer: UInt64 = 0
        /// The volume that holds the snapshot it stands on.
        var parent: UInt64?
        /// How often connections were dropped.
        var dropCount = 0
        /// The snapshots rolled back to, in order.
        var rollbacks: [String] = []
        /// The lease epoch that it has promised, when it is a replica.
        var promisedEpoch: UInt64 = 0
        /// Whether it lacks something that other replicas have.
        var isIncomplete = false
    }

    private struct State {
        var volumes: [UInt64: Held] = [:]
        var nextLayer: UInt64 = 1
        /// Those in a store that has stopped.
        var stopped: Set<UInt64> = []
        /// What the next changes of volumes are refused with.
        var refusals: [ControlError] = []
    }

    let name: String
    /// What it serves of replicated volumes.
    let shelf = ServiceShelf()
    /// What it reaches of other nodes' replicas, and what it was asked of its own.
    let replicas = ReplicaShelf()
    private let state = Mutex(State())
    private let gate = OperationGate()
    private let whenListed = Mutex<(@Sendable () async -> Void)?>(nil)
    private let whenUpdating = Mutex<(@Sendable (UInt64) async -> Void)?>(nil)

    /// Its store's identity.
    let identity: String

    init(name: String, index: Int = 0) {
        self.name = name
        identity = String(repeating: "\(index)", count: 32)
    }

    func carryingOut(_ operation: NodeOperation) -> any NodeService {
        gate.admit(operation, to: self)
    }

    /// What it holds, by id.
    var held: [UInt64: Held] { state.withLock { $0.volumes } }

    /// Puts a volume there that nobody ordered.
    func plant(_ creation: NodeVolumeCreation) {
        state.withLock { $0.volumes[creation.id] = Held(creation: creation) }
    }

    /// Has something done when the volumes are listed next, between the list and its arrival.
    func whenListed(_ work: @escaping @Sendable () async -> Void) {
        whenListed.withLock { $0 = work }
    }

    /// Has something done in the middle of every update of a volume.
    func whenUpdating(_ work: @escaping @Sendable (UInt64) async -> Void) {
        whenUpdating.withLock { $0 = work }
    }

    /// Refuses the next snapshot or rollback.
    func refuseNext(_ error: ControlError) {
        state.withLock { $0.refusals.append(error) }
    }

    /// A layer of its own for a volume that is to be changed, unless that is to be refused.
    private func newLayer() throws(ControlError) -> UInt64 {
        let result = state.withLock { state -> Result<UInt64, ControlError> in
            guard state.refusals.isEmpty else { return .failure(state.refusals.removeFirst()) }
            state.nextLayer += 1
            return .success(state.nextLayer)
        }
        return try result.get()
    }

    /// Stops the store that volumes are in; with an empty set it is back.
    func stopStore(of ids: Set<UInt64>) {
        state.withLock { $0.stopped = ids }
    }

    /// What a node says of what may be in a store that has stopped.
    private func requireStores(for id: UInt64? = nil) throws(ControlError) {
        let isKnown = state.withLock { state in
            if let id, state.volumes[id] != nil { return !state.stopped.contains(id) }
            return state.stopped.isEmpty
        }
        guard isKnown else { throw ControlError(.unavailable, "A store has stopped.") }
    }

    /// Changes what it holds of a volume; nothing when that is nothing.
    func change(_ id: UInt64, _ change: (inout Held) -> Void) {
        state.withLock { state in
            guard var volume = state.volumes[id] else { return }
            change(&volume)
            state.volumes[id] = volume
        }
    }

    /// Loses a volume.
    func lose(_ id: UInt64) {
        state.withLock { $0.volumes[id] = nil }
    }

    /// Has a replica promise a lease epoch of which the service does not know.
    func setPromise(_ id: UInt64, _ epoch: UInt64) {
        state.withLock { $0.volumes[id]?.promisedEpoch = epoch }
    }

    /// Sets a size behind the service's back.
    func setSize(_ id: UInt64, _ byteCount: UInt64) {
        state.withLock { $0.volumes[id]?.creation.byteCount = byteCount }
    }

    /// Sets who may use a volume behind the service's back.
    func setAccess(_ id: UInt64, _ access: NodeVolumeAccess, epoch: UInt64 = 0) {
        state.withLock { state in
            state.volumes[id]?.access = access
            state.volumes[id]?.epoch = epoch
        }
    }

    func report() async throws(ControlError) -> NodeReport {
        NodeReport(
            name: name,
            version: "test",
            storeIdentity: identity,
            space: .empty,
            engine: ["memory"],
            nbdEndpoint: nil,
            nbdUnixPath: nil,
            uptimeSeconds: 0
        )
    }

    func statistics() async throws(ControlError) -> NodeStatistics {
        NodeStatistics(counters: ["volumes.now": UInt64(held.count)])
    }

    func volumes() async throws(ControlError) -> [NodeVolume] {
        try requireStores()
        let list = held.values.map(Self.document).sorted { $0.name < $1.name }
        if let work = whenListed.withLock({ $0.take() }) { await work() }
        return list
    }

    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        Self.document(try require(id))
    }

    func createVolume(
        _ creation: NodeVolumeCreation
    ) async throws(ControlError) -> NodeVolume {
        Self.document(try insert(Held(creation: creation, epoch: creation.epoch ?? 0)))
    }

    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        if let work = whenUpdating.withLock({ $0 }) { await work(id) }
        var volume = try require(id)
        if let byteCount = update.byteCount { volume.creation.byteCount = byteCount }
        let epoch = update.epoch ?? volume.epoch
        guard epoch >= volume.epoch else {
            throw ControlError(.outdated, "The volume has been given away.")
        }
        if epoch > volume.epoch, volume.access != .none { volume.dropCount += 1 }
        volume.epoch = epoch
        if let access = update.access { volume.access = access }
        if let name = update.name { volume.creation.name = name }
        if let descriptor = update.descriptor { volume.creation.descriptor = descriptor }
        return Self.document(store(volume))
    }

    func deleteVolume(_ id: UInt64) async throws(ControlError) {
        _ = try require(id)
        guard !held.values.contains(where: { $0.parent == id }) else {
            throw ControlError(.inUse, "The volume has clones.")
        }
        lose(id)
    }

    func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot {
        var volume = try require(id)
        guard !volume.snapshots.contains(where: { $0.name == name }) else {
            throw ControlError(.alreadyExists, "The snapshot exists.")
        }
        let layer = try newLayer()
        let snapshot = NodeSnapshot(
            name: name,
            layer: layer,
            byteCount: volume.creation.byteCount,
            ownByteCount: 0,
            cloneCount: 0
        )
        volume.snapshots.append(snapshot)
        volume.topLayer = try newLayer()
        store(volume)
        return snapshot
    }

    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        var volume = try require(id)
        _ = try require(name, of: volume)
        volume.snapshots.removeAll { $0.name == name }
        store(volume)
    }

    func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume {
        var volume = try require(id)
        volume.creation.byteCount = try require(name, of: volume).byteCount
        volume.topLayer = try newLayer()
        volume.rollbacks.append(name)
        return Self.document(store(volume))
    }

    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        let parent = try require(id)
        let snapshot = try require(name, of: parent)
        let new = NodeVolumeCreation(
            id: creation.id,
            name: creation.name,
            byteCount: snapshot.byteCount,
            logicalBlockByteCount: parent.creation.logicalBlockByteCount,
            durability: creation.durability,
            epoch: creation.epoch,
            descriptor: creation.descriptor
        )
        var clone = Held(creation: new, epoch: creation.epoch ?? 0)
        clone.parent = id
        return Self.document(try insert(clone))
    }

    func services() async throws(ControlError) -> [NodeServiceStatus] { shelf.statuses }

    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        try await shelf.serve(assignment)
    }

    func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        shelf.stop(volume, leaseEpoch)
    }

    // MARK: - State

    func require(_ id: UInt64) throws(ControlError) -> Held {
        try requireStores(for: id)
        guard let volume = held[id] else {
            throw ControlError(.volumeNotFound, "There is no volume \(id).")
        }
        return volume
    }

    private func require(_ name: String, of volume: Held) throws(ControlError) -> NodeSnapshot {
        guard let snapshot = volume.snapshots.first(where: { $0.name == name }) else {
            throw ControlError(.snapshotNotFound, "There is no snapshot '\(name)'.")
        }
        return snapshot
    }

    func insert(_ volume: Held) throws(ControlError) -> Held {
        let id = volume.creation.id
        let name = volume.creation.name
        guard !held.values.contains(where: { $0.creation.id == id || $0.creation.name == name })
        else { throw ControlError(.alreadyExists, "The volume exists.") }
        return store(volume)
    }

    @discardableResult
    private func store(_ volume: Held) -> Held {
        state.withLock { $0.volumes[volume.creation.id] = volume }
        return volume
    }

    private static func document(_ volume: Held) -> NodeVolume {
        NodeVolume(
            id: volume.creation.id,
            name: volume.creation.name,
            byteCount: volume.creation.byteCount,
            logicalBlockByteCount: volume.creation.logicalBlockByteCount,
            durability: volume.creation.durability,
            access: volume.access,
            epoch: volume.epoch,
            descriptor: volume.creation.descriptor,
            layerCount: volume.snapshots.count + 1,
            topLayer: volume.topLayer,
            snapshots: volume.snapshots,
            space: SpaceUsage(
                logicalByteCount: volume.creation.byteCount,
                writtenByteCount: 0,
                sharedByteCount: 0,
                exclusiveByteCount: 0,
                reclaimableByteCount: 0
            ),
            replica: volume.creation.replica.map { replica in
                NodeReplica(
                    instance: replica.instance,
                    promisedEpoch: volume.promisedEpoch,
                    acceptedEpoch: volume.promisedEpoch,
                    isComplete: !replica.isReplacement && !volume.isIncomplete,
                    isBlank: replica.isReplacement,
                    remembers: true
                )
            }
        )
    }
}

extension StoreSpaceUsage {
    /// A gibibyte, all free.
    static var empty: Self {
        StoreSpaceUsage(
            capacityByteCount: 1 << 30,
            liveByteCount: 0,
            availableByteCount: 1 << 30,
            garbageByteCount: 0
        )
    }
}

extension NodeVolumeCreation {
    /// What a node is asked for: a volume of one block.
    static func small(
        _ id: UInt64 = 7,
        name: String? = nil,
        descriptor: String = ""
    ) -> NodeVolumeCreation {
        NodeVolumeCreation(
            id: id,
            name: name ?? "v\(id)",
            byteCount: 4096,
            logicalBlockByteCount: 512,
            durability: .writeback,
            descriptor: descriptor
        )
    }
}
