// The node API's service: volumes of this node, for the metadata service.

import BlockCore
import ControlAPI
import Foundation
import LogStore
import Reactor
import StorageNode

/// What the node API asks, answered by the node.
struct NodeAdmin: NodeService {
    let node: StorageNode
    let name: String
    let nbdUnixPath: String?
    /// The node's present session with the metadata service.
    let session = SessionBox()
    private let startedAt = ContinuousClock.now

    init(node: StorageNode, name: String, nbdUnixPath: String?) {
        self.node = node
        self.name = name
        self.nbdUnixPath = nbdUnixPath
    }

    // MARK: - The node

    /// Where NBD is over TCP, as `HOST:PORT`.
    var nbdEndpoint: String? {
        for address in node.listeners {
            if case .tcp = address { return "\(address)" }
        }
        return nil
    }

    func report() async throws(ControlError) -> NodeReport {
        NodeReport(
            name: name,
            version: Volnode.version,
            storeIdentity: await identityText(),
            storeIdentities: await identities(),
            space: await space(),
            engine: node.engines.map { "\($0)" },
            nbdEndpoint: nbdEndpoint,
            nbdUnixPath: nbdUnixPath,
            uptimeSeconds: UInt64((ContinuousClock.now - startedAt).components.seconds)
        )
    }

    /// The first store's identity.
    func identityText() async -> String { await node.identity()?.hexText ?? "" }

    /// The identities of all stores, in their order: the metadata service knows the node by them.
    func identities() async -> [String] {
        var identities: [String] = []
        for index in node.storePaths.indices {
            guard let identity = await node.identity(store: index) else { continue }
            identities.append(identity.hexText)
        }
        return identities
    }

    /// Where the bytes of all stores are.
    func space() async -> StoreSpaceUsage { StoreSpaceUsage(stores: await stores().map(\.space)) }

    /// The stores, one by one.
    func stores() async -> [NodeStore] {
        var stores: [NodeStore] = []
        for (index, path) in node.storePaths.enumerated() {
            let space = await node.space(store: index)
            let room = await node.room(store: index)
            let failures = await node.failures(store: index)
            stores.append(
                NodeStore(
                    path: path,
                    identity: await node.identity(store: index)?.hexText,
                    space: StoreSpaceUsage(
                        capacityByteCount: space.capacityByteCount,
                        liveByteCount: space.liveByteCount,
                        // Nothing can be written to one that has stopped.
                        availableByteCount: failures.isStopped ? 0 : space.availableByteCount,
                        garbageByteCount: space.garbageByteCount,
                        fullestPercent: room.usedPercent,
                        room: StoreRoom(room.state)
                    ),
                    failures: StoreFailures(
                        stopped: failures.isStopped,
                        requestCount: failures.requestCount,
                        volume: failures.volume
                    )
                )
            )
        }
        return stores
    }

    func statistics() async throws(ControlError) -> NodeStatistics {
        var counters: [String: UInt64] = [:]
        for (name, value) in await node.counters().byName { counters[name] = value }
        for reactor in await node.reactorCounters() {
            counters["reactor.turns", default: 0] += reactor.turnCount
            counters["reactor.sleeps", default: 0] += reactor.sleepCount
            counters["reactor.completions", default: 0] += reactor.completionCount
            counters["reactor.retries", default: 0] += reactor.retryCount
        }
        for index in node.storePaths.indices {
            let store = await node.storeCounters(store: index)
            counters["store.batches", default: 0] += store.batchCount
            counters["store.batch_bytes", default: 0] += store.batchByteCount
            counters["store.data_bytes", default: 0] += store.dataByteCount
            counters["store.cleaned_bytes", default: 0] += store.cleanedByteCount
            counters["store.map_pages_written", default: 0] += store.mapPageWriteCount
            counters["store.map_pages_read", default: 0] += store.mapPageReadCount
            counters["store.flushes", default: 0] += store.flushCount
            counters["store.checkpoints", default: 0] += store.checkpointCount
            counters["store.checksum_errors", default: 0] += store.checksumErrorCount
            counters["store.cache_hits", default: 0] += store.cacheHitCount
            counters["store.batches_replayed", default: 0] += store.replayedBatchCount
        }
        return NodeStatistics(counters: counters)
    }

    // MARK: - Volumes

    func volumes() async throws(ControlError) -> [NodeVolume] {
        guard await node.areStoresReady() else { throw Self.storeStopped }
        return await node.volumes().map(\.document)
    }

    /// What a stopped store holds is unknown: to say "not found" would have the caller believe
    /// that it is gone.
    static let storeStopped = ControlError(
        .unavailable,
        "A store of this node has stopped or is being opened; its log says why."
    )

    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        try await summary(id).document
    }

    private func summary(_ id: UInt64) async throws(ControlError) -> VolumeSummary {
        guard let summary = await node.volume(VolumeID(id)) else {
            guard await node.areStoresReady() else { throw Self.storeStopped }
            throw ControlError(.volumeNotFound, "This node has no volume with the id \(id).")
        }
        return summary
    }

    private func store(of id: UInt64) throws(ControlError) -> Int {
        guard let store = node.store(of: VolumeID(id)) else {
            throw ControlError(.volumeNotFound, "This node has no volume with the id \(id).")
        }
        return store
    }

    func createVolume(_ creation: NodeVolumeCreation) async throws(ControlError) -> NodeVolume {
        let specification = VolumeSpecification(
            id: VolumeID(creation.id),
            name: creation.name,
            byteCount: creation.byteCount,
            logicalBlockByteCount: creation.logicalBlockByteCount,
            durability: creation.durability.store,
            epoch: creation.epoch ?? 0,
            descriptor: Array(creation.descriptor.utf8),
            replica: creation.replica?.record ?? []
        )
        try await requireFree(creation.name, of: creation.id)
        // A repeated request goes where the first one went.
        var store = node.store(of: specification.id)
        if store == nil { store = await roomiestStore() }
        try await perform(.createVolume(specification), store: store)
        return try await volume(creation.id)
    }

    /// Refuses a name that a volume of another store has: both would be exported under it.
    func requireFree(_ name: String, of id: UInt64) async throws(ControlError) {
        guard node.storePaths.count > 1 else { return }
        let isTaken = await node.volumes().contains { volume in
            volume.specification.name == name && volume.specification.id.rawValue != id
        }
        guard !isTaken else {
            throw ControlError(.alreadyExists, "A store of this node has a volume '\(name)'.")
        }
    }

    /// The store with most room, for a new volume.
    private func roomiestStore() async -> Int {
        var best = 0
        var bestByteCount: UInt64 = 0
        for index in node.storePaths.indices {
            guard await !node.failures(store: index).isStopped else { continue }
            let byteCount = await node.space(store: index).availableByteCount
            if byteCount > bestByteCount { (best, bestByteCount) = (index, byteCount) }
        }
        return best
    }

    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        var specification = try await summary(id).specification
        if let byteCount = update.byteCount, byteCount != specification.byteCount {
            try await perform(.resizeVolume(specification.id, byteCount: byteCount))
            specification.byteCount = byteCount
        }
        let before = specification
        if let access = update.access { specification.access = access.store }
        if let epoch = update.epoch { specification.epoch = epoch }
        if let name = update.name { specification.name = name }
        if let descriptor = update.descriptor {
            specification.descriptor = Array(descriptor.utf8)
        }
        // Access `none` is performed again even when it is so: it waits for the last connection.
        if specification != before || update.access == NodeVolumeAccess.none {
            try await perform(.updateVolume(specification))
        }
        return try await volume(id)
    }

    func deleteVolume(_ id: UInt64) async throws(ControlError) {
        try await perform(.deleteVolume(VolumeID(id)))
    }

    // MARK: - Snapshots

    func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot {
        try await perform(.createSnapshot(volume: VolumeID(id), name: name))
        return try await snapshot(id, name).document
    }

    private func snapshot(
        _ id: UInt64,
        _ name: String
    ) async throws(ControlError) -> SnapshotSummary {
        let volume = try await summary(id)
        guard let snapshot = volume.snapshots.first(where: { $0.name == name }) else {
            throw ControlError(
                .snapshotNotFound,
                "The volume '\(volume.specification.name)' has no snapshot '\(name)'."
            )
        }
        return snapshot
    }

    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        let layer = try await snapshot(id, name).layer
        try await perform(.deleteSnapshot(layer: layer), store: store(of: id))
    }

    func rollback(volume id: UInt64, snapshot name: String) async throws(ControlError) -> NodeVolume
    {
        let layer = try await snapshot(id, name).layer
        try await perform(.rollback(volume: VolumeID(id), layer: layer))
        return try await volume(id)
    }

    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        try await requireFree(creation.name, of: creation.id)
        let source = try await summary(id)
        let snapshot = try await snapshot(id, name)
        let specification = VolumeSpecification(
            id: VolumeID(creation.id),
            name: creation.name,
            byteCount: snapshot.byteCount,
            logicalBlockByteCount: source.specification.logicalBlockByteCount,
            durability: creation.durability.store,
            epoch: creation.epoch ?? 0,
            descriptor: Array(creation.descriptor.utf8)
        )
        try await perform(
            .cloneSnapshot(layer: snapshot.layer, specification),
            store: store(of: id)
        )
        return try await volume(creation.id)
    }

    private func perform(_ command: StoreCommand, store: Int? = nil) async throws(ControlError) {
        do throws(StoreCommandError) {
            _ = try await node.perform(command, store: store)
        } catch {
            throw ControlError(error.code, "The node refused: \(error.text).")
        }
    }
}
