// The real service on a real metadata store, for tests of what volctl does with its answers. Only
// the node is small: it remembers which volumes it was given and serves no data.

import ControlAPI
import ControlPlane
import Foundation
import Hummingbird
import Logging
import Metadata
import Synchronization
import TestSupport

/// A metadata service on a unix socket, with one node.
final class LiveService: Sendable {
    let directory: TestDirectory
    let node = ListNode()
    let plane: ControlPlane
    private let store: SQLiteMetaStore
    private let server: Task<Void, any Error>

    /// Starts it and waits until it accepts.
    init() async throws {
        directory = try TestDirectory()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let store = try SQLiteMetaStore(directory: "\(directory.path)/meta", logger: logger)
        self.store = store
        let node = node
        let plane = ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: "test",
            logger: logger
        ) { _ throws(ControlError) in node }
        self.plane = plane
        let (accepting, accepts) = AsyncStream<Void>.makeStream()
        let application = apiServer(
            router: controlRouter(service: plane),
            endpoint: .unix(path: "\(directory.path)/api.sock"),
            logger: logger
        ) { _ in accepts.finish() }
        server = Task {
            defer { accepts.finish() }
            try await application.run()
        }
        for await _ in accepting {}
        _ = try await client.registerNode("node1", ListNode.registration)
    }

    deinit {
        server.cancel()
        try? store.close()
    }

    /// Lets copies to volumes reach a port of this machine.
    func serveNBD(port: UInt16) async throws {
        var registration = ListNode.registration
        registration.nbdEndpoint = "127.0.0.1:\(port)"
        _ = try await client.registerNode("node1", registration)
    }

    var endpoint: String { "unix:\(directory.path)/api.sock" }

    var client: ControlClient {
        ControlClient(endpoint: .unix(path: "\(directory.path)/api.sock"))
    }
}

/// A node that keeps a list of volumes and nothing in them.
final class ListNode: NodeService {
    private let volumesByID = Mutex<[UInt64: NodeVolume]>([:])
    private let whenCreating = Mutex<(@Sendable () async -> Void)?>(nil)
    private let isDeletionDown = Mutex(false)
    private let lostSnapshotCount = Mutex(0)

    /// Where nothing listens, so that a copy to a volume fails at once.
    static let registration = NodeRegistration(
        adminEndpoint: "http://127.0.0.1:1",
        nbdEndpoint: "127.0.0.1:1",
        nbdUnixPath: nil,
        storeIdentity: String(repeating: "0", count: 32),
        version: "test",
        space: space
    )

    private static let space = StoreSpaceUsage(
        capacityByteCount: 1 << 40,
        liveByteCount: 0,
        availableByteCount: 1 << 40,
        garbageByteCount: 0
    )

    /// Tells that a volume holds data.
    func setWritten(_ byteCount: UInt64) {
        volumesByID.withLock { volumes in
            for id in volumes.keys { volumes[id]?.space.writtenByteCount = byteCount }
        }
    }

    /// Has something done while the next volumes are made.
    func whenCreating(_ work: @escaping @Sendable () async -> Void) {
        whenCreating.withLock { $0 = work }
    }

    /// Lets the answers to the next snapshots get lost.
    func loseSnapshotAnswers(_ count: Int) { lostSnapshotCount.withLock { $0 = count } }

    /// Lets deletions find nobody, or somebody again.
    func setDeletionDown(_ isDown: Bool) { isDeletionDown.withLock { $0 = isDown } }

    func report() async throws(ControlError) -> NodeReport {
        NodeReport(
            name: "node1",
            version: "test",
            storeIdentity: Self.registration.storeIdentity,
            space: Self.space,
            engine: [],
            nbdEndpoint: nil,
            nbdUnixPath: nil,
            uptimeSeconds: 0
        )
    }

    func statistics() async throws(ControlError) -> NodeStatistics { NodeStatistics(counters: [:]) }

    func volumes() async throws(ControlError) -> [NodeVolume] {
        volumesByID.withLock { Array($0.values) }
    }

    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        guard let volume = volumesByID.withLock({ $0[id] }) else {
            throw ControlError(.volumeNotFound, "There is no volume \(id).")
        }
        return volume
    }

    func createVolume(_ creation: NodeVolumeCreation) async throws(ControlError) -> NodeVolume {
        let volume = NodeVolume(
            id: creation.id,
            name: creation.name,
            byteCount: creation.byteCount,
            logicalBlockByteCount: creation.logicalBlockByteCount,
            durability: creation.durability,
            access: .none,
            epoch: 0,
            descriptor: creation.descriptor,
            layerCount: 1,
            snapshots: [],
            space: SpaceUsage(
                logicalByteCount: creation.byteCount,
                writtenByteCount: 0,
                sharedByteCount: 0,
                exclusiveByteCount: 0,
                reclaimableByteCount: 0
            )
        )
        volumesByID.withLock { $0[creation.id] = volume }
        if let work = whenCreating.withLock({ $0 }) { await work() }
        return volume
    }

    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        var volume = try await volume(id)
        volume.byteCount = update.byteCount ?? volume.byteCount
        volume.access = update.access ?? volume.access
        volume.epoch = update.epoch ?? volume.epoch
        let changed = volume
        volumesByID.withLock { $0[id] = changed }
        return changed
    }

    func deleteVolume(_ id: UInt64) async throws(ControlError) {
        guard !isDeletionDown.withLock({ $0 }) else {
            throw ControlError(.unreachable, "Nobody answers.")
        }
        _ = try await volume(id)
        volumesByID.withLock { $0[id] = nil }
    }

    func createSnapshot(volume id: UInt64, name: String) async throws(ControlError) -> NodeSnapshot
    {
        var volume = try await volume(id)
        let snapshot = NodeSnapshot(
            name: name,
            layer: UInt64(volume.snapshots.count) + 1,
            byteCount: volume.byteCount,
            ownByteCount: 0,
            cloneCount: 0
        )
        volume.snapshots.removeAll { $0.name == name }
        volume.snapshots.append(snapshot)
        let changed = volume
        volumesByID.withLock { $0[id] = changed }
        let isLost = lostSnapshotCount.withLock { count in
            count -= 1
            return count >= 0
        }
        if isLost { throw ControlError(.outcomeUnknown, "Nobody knows.") }
        return snapshot
    }

    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        var volume = try await volume(id)
        volume.snapshots.removeAll { $0.name == name }
        let changed = volume
        volumesByID.withLock { $0[id] = changed }
    }

    func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume {
        try await volume(id)
    }

    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        let source = try await volume(id)
        return try await createVolume(
            NodeVolumeCreation(
                id: creation.id,
                name: creation.name,
                byteCount: source.byteCount,
                logicalBlockByteCount: source.logicalBlockByteCount,
                durability: creation.durability,
                descriptor: creation.descriptor
            )
        )
    }
}
