// A cluster whose nodes take replicas, with its background work running.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import TestSupport
import Testing

/// A service that runs, with nodes that take replicas.
final class ReplicatedCluster: Sendable {
    let cluster: Cluster
    let plane: ControlPlane
    private let running: Task<Void, Never>

    /// Starts a service with nodes `n1`, `n2`, ….
    convenience init(
        nodeCount: Int = 3,
        replaceSeconds: Double = 600,
        patience: Int64 = 100,
        domains: [String: FailureDomain] = [:]
    ) async throws {
        let cluster = try await Cluster(nodeNames: (1...nodeCount).map { "n\($0)" })
        try await self.init(
            of: cluster,
            replaceSeconds: replaceSeconds,
            patience: patience,
            domains: domains
        )
    }

    /// Starts a service with the nodes of a cluster.
    init(
        of cluster: Cluster,
        replaceSeconds: Double = 600,
        settleMilliseconds: Int = 0,
        patience: Int64 = 100,
        domains: [String: FailureDomain] = [:]
    ) async throws {
        self.cluster = cluster
        let plane = cluster.plane(
            replaceSeconds: replaceSeconds,
            settleMilliseconds: settleMilliseconds,
            // Nor is a node late, and no lease ends, because a busy machine has no turn for it.
            patience: patience,
            keepsTime: false
        )
        self.plane = plane
        running = Task { await plane.run() }
        for node in cluster.nodes { try await register(node.name, domains[node.name]) }
    }

    /// Ends the background work.
    func stop() async {
        plane.stop()
        running.cancel()
        await running.value
    }

    func node(_ name: String) -> MemoryNode {
        guard let node = cluster.nodes.first(where: { $0.name == name }) else {
            preconditionFailure("the test knows its nodes")
        }
        return node
    }

    /// Registers a node, as its process does when it starts.
    func register(_ name: String, _ domain: FailureDomain? = nil) async throws {
        let index = cluster.nodes.firstIndex { $0.name == name } ?? 0
        var registration = Cluster.registration(index)
        registration.peerEndpoint = "127.0.0.1:\(7900 + index)"
        registration.failureDomain = domain
        let node = node(name)
        node.shelf.presence = .there
        let result = try await plane.registerNode(name, registration)
        node.shelf.session = result.session
    }

    /// Ends a node's process, and has it started again.
    func restart(_ name: String) async throws {
        node(name).shelf.restart()
        try await register(name)
    }

    /// Ends a node, which is noticed.
    func kill(_ name: String) async throws {
        node(name).shelf.presence = .dead
        node(name).shelf.restart()
        try await cluster.expireLease(of: name)
    }

    /// Sends a node's heartbeat.
    func heartbeat(_ name: String) async throws {
        let node = node(name)
        let heartbeat = NodeHeartbeat(
            session: try #require(try await cluster.metadata.liveNode(name)).session,
            space: .empty,
            services: node.shelf.statuses
        )
        try await plane.heartbeat(name, heartbeat)
    }

    /// Makes a volume.
    @discardableResult
    func create(
        _ name: String = "v",
        replicas: Int? = 3,
        node: String? = "n1"
    ) async throws
        -> Volume
    {
        let creation = VolumeCreation(
            name: name,
            byteCount: 1 << 20,
            replicas: replicas,
            node: node
        )
        return try await plane.createVolume(creation, operation: "create-\(name)")
    }

    @discardableResult
    func attach(
        _ host: String = "h1",
        volume: String = "v",
        via: String? = nil,
        force: Bool = false
    ) async throws(ControlError) -> ControlAPI.Attachment {
        let creation = AttachmentCreation(host: host, via: via, force: force)
        return try await plane.attach(volume, creation, operation: UUID().uuidString)
    }

    func record(_ name: String = "v") async throws -> VolumeRecord {
        try #require(try await cluster.metadata.volume(named: name)).value
    }

    /// What the node that serves a volume was told last.
    func assignment(_ name: String = "v") async throws -> NodeServiceAssignment? {
        let record = try await record(name)
        return node(record.primary).shelf.assignments[record.id]
    }

    func events(_ kind: String) async throws -> [ClusterEvent] {
        try await plane.events(after: 0, countMax: 1000).events.filter { $0.kind == kind }
    }

    /// Waits until a condition holds.
    func eventually(
        _ condition: @escaping @Sendable () async throws -> Bool
    ) async throws -> Bool {
        for _ in 0..<400 {
            if try await condition() { return true }
            try await Task.sleep(for: .milliseconds(25))
        }
        return false
    }
}

extension Cluster {
    /// Ends the lease of one node.
    func expireLease(of name: String) async throws {
        guard let live = try await metadata.liveNode(name) else { return }
        try await store.revoke(MetaLease(Int64(live.session)))
    }
}
