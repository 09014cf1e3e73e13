// A cluster for tests: a real metadata store on a temporary file, the real service, a node in
// memory, and faults between them.

import ControlAPI
import ControlPlane
import Foundation
import Logging
import Metadata
import Testing

/// One metadata service with its nodes.
final class Cluster: Sendable {
    let directory: String
    let store: SQLiteMetaStore
    let faults = FaultPlan()
    let nodes: [MemoryNode]

    init(nodes: [MemoryNode]) async throws {
        directory = NSTemporaryDirectory() + "cairn-control-" + UUID().uuidString
        store = try SQLiteMetaStore(directory: directory, logger: Self.quiet)
        self.nodes = nodes
        for node in nodes { node.replicas.connect(nodes) }
    }

    convenience init(nodeNames: [String] = ["n1"]) async throws {
        try await self.init(
            nodes: nodeNames.enumerated().map { MemoryNode(name: $1, index: $0) }
        )
    }

    deinit {
        try? store.close()
        try? FileManager.default.removeItem(atPath: directory)
    }

    static var quiet: Logger {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        return logger
    }

    var metadata: ClusterMetadata { ClusterMetadata(store: store) }

    /// A service process; `withFaults` puts the fault plan between it and everything else.
    func plane(
        withFaults: Bool = false,
        replaceSeconds: Double = 600,
        settleMilliseconds: Int = 0,
        patience: Int64 = 1,
        keepsTime: Bool = true
    ) -> ControlPlane {
        let store: any MetaStore =
            withFaults ? FaultyStore(store: self.store, faults: faults) : self.store
        return ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: "test",
            logger: Self.quiet,
            replaceSeconds: replaceSeconds,
            settleMilliseconds: settleMilliseconds,
            patience: patience,
            keepsTime: keepsTime
        ) { [self] record throws(ControlError) in
            // Keeps the cluster, and with it the store, as long as the service.
            guard let node = nodes.first(where: { $0.name == record.name }) else {
                throw ControlError(.unreachable, "no such node")
            }
            guard node.shelf.presence == .there else { return AbsentNode(node.shelf.presence) }
            return withFaults ? FaultyNode(node: node, faults: faults) : node
        }
    }

    /// Registers all nodes with a service.
    @discardableResult
    func register(
        with plane: ControlPlane,
        only name: String? = nil
    ) async throws -> [String: UInt64] {
        var sessions: [String: UInt64] = [:]
        for (index, node) in nodes.enumerated() where name == nil || node.name == name {
            let result = try await plane.registerNode(node.name, Self.registration(index))
            sessions[node.name] = result.session
        }
        return sessions
    }

    static func registration(_ index: Int, availableByteCount: UInt64 = 1 << 30) -> NodeRegistration
    {
        var space = StoreSpaceUsage.empty
        space.availableByteCount = availableByteCount
        return NodeRegistration(
            adminEndpoint: "http://127.0.0.1:\(7000 + index)",
            nbdEndpoint: "127.0.0.1:\(10809 + index)",
            nbdUnixPath: "/run/cairn/n\(index).sock",
            storeIdentity: String(repeating: "\(index)", count: 32),
            version: "test",
            machineID: "machine-\(index)",
            space: space
        )
    }

    /// A service with all nodes registered.
    static func serving(
        nodeNames: [String] = ["n1"]
    ) async throws -> (cluster: Cluster, plane: ControlPlane) {
        let cluster = try await Cluster(nodeNames: nodeNames)
        let plane = cluster.plane()
        try await cluster.register(with: plane)
        return (cluster, plane)
    }

    /// Everything that metadata and nodes must agree on, when nothing is under way.
    func requireAgreement(_ context: String) async throws {
        let known = try await metadata.allVolumes().map(\.value)
        #expect(known.allSatisfy { $0.pending == nil }, "pending after \(context)")
        #expect(known.allSatisfy { $0.state == .ready }, "not ready after \(context)")
        let byName = try await metadata.volumes().map(\.value)
        #expect(Set(byName.map(\.id)) == Set(known.map(\.id)), "names after \(context)")
        for node in nodes {
            let mine = known.filter { $0.lies(on: node.name) }
            #expect(Set(node.held.keys) == Set(mine.map(\.id)), "volumes after \(context)")
            for volume in mine {
                guard let held = node.held[volume.id] else { continue }
                try await requireAgreement(volume, held, context)
            }
        }
    }

    private func requireAgreement(
        _ volume: VolumeRecord,
        _ held: MemoryNode.Held,
        _ context: String
    ) async throws {
        #expect(held.creation.byteCount == volume.byteCount, "size after \(context)")
        let snapshots = try await metadata.snapshots(of: volume.id)
        guard !volume.isReplicated else {
            let marks = Set(held.snapshots.compactMap(\.replica?.id))
            let known = Set(snapshots.compactMap(\.mark?.id))
            #expect(marks.isSubset(of: known), "unknown snapshots after \(context)")
            return
        }
        #expect(snapshots.map(\.name) == held.snapshots.map(\.name), "snapshots after \(context)")
        #expect(snapshots.map(\.layer) == held.snapshots.map(\.layer), "layers after \(context)")
        let current = try await metadata.attachments(of: volume.id).current
        let access: NodeVolumeAccess =
            current.isEmpty
            ? .none : current.allSatisfy(\.readOnly) ? .readOnly : .readWrite
        #expect(held.access == access, "access after \(context)")
        #expect(held.epoch == volume.epoch, "epoch after \(context)")
        #expect(current.allSatisfy { $0.epoch == volume.epoch }, "an old name after \(context)")
        #expect(current.count <= 1 || access == .readOnly, "two writers after \(context)")
    }
}

/// The error that a call throws, or nil.
func controlError(
    _ body: () async throws(ControlError) -> Void
) async -> ControlError? {
    do throws(ControlError) {
        try await body()
        return nil
    } catch {
        return error
    }
}
