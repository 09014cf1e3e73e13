// Nodes in the test's own process that hold and serve one replicated volume.

import BlockCore
import LogStore
import Replication
import StorageNode
import TestSupport

/// Several nodes, with a replica of the volume `disk` on each of the first.
final class ReplicatedCluster {
    static let volume = VolumeID(7)
    /// Longer than what a string keeps in itself: who copies it on the data path allocates.
    static let name = "disk-with-a-name-on-the-heap"

    private(set) var nodes: [TestNode]
    let replicaCount: Int
    let byteCount: UInt64
    let durability: Durability
    var instances: [UInt64]
    var epoch: UInt64 = 0
    /// The directory of each node's credentials; those beyond the end have none.
    private let credentials: [String?]
    /// The store that the replicas are in, each on a reactor of its own.
    private let store: Int
    /// How large the stores of each node are; those beyond the end as usual.
    private let storeByteCounts: [UInt64]
    private let configure: (inout NodeConfiguration) -> Void
    /// Where the nodes are said to be.
    var host = "127.0.0.1"

    init(
        nodeCount: Int = 3,
        replicaCount: Int = 3,
        byteCount: UInt64 = 64 << 20,
        durability: Durability = .writeback,
        credentials: [String?] = [],
        store: Int = 0,
        storeByteCounts: [UInt64] = [],
        configure: @escaping (inout NodeConfiguration) -> Void = { _ in }
    ) async throws {
        self.credentials = credentials
        self.store = store
        self.storeByteCounts = storeByteCounts
        self.configure = configure
        self.replicaCount = replicaCount
        self.byteCount = byteCount
        self.durability = durability
        nodes = []
        instances = []
        for index in 0..<nodeCount { nodes.append(try await start(index, nil)) }
        for index in 0..<replicaCount {
            instances.append(UInt64(index + 100))
            try await makeReplica(on: index, instance: instances[index], isReplacement: false)
        }
    }

    private func start(_ index: Int, _ directory: TestDirectory?) async throws -> TestNode {
        let credentials = credentials.indices.contains(index) ? credentials[index] : nil
        let size = storeByteCounts.indices.contains(index) ? storeByteCounts[index] : 256 << 20
        return try await TestNode(
            storeCount: store + 1,
            storeByteCount: size,
            directory: directory
        ) { configuration in
            configuration.reactorCount = store + 1
            configuration.peerListener = .tcp(host: "127.0.0.1", port: 0)
            configuration.replicationMemoryByteCount = 64 << 20
            configuration.peerTLS = credentials.map { .nodes(credentialsDirectory: $0) }
            configure(&configuration)
        }
    }

    /// Where a node takes connections of primaries.
    func peerPort(_ node: Int) throws -> UInt16 {
        guard case .tcp(_, let port)? = nodes[node].node.peerListener else {
            throw ClientError("no peer port")
        }
        return port
    }

    private func makeReplica(
        on index: Int,
        instance: UInt64,
        isReplacement: Bool
    ) async throws {
        let name = ReplicaInstance(instance)
        let record: ReplicaRecord = isReplacement ? .replacing(name) : .created(name)
        _ = try await nodes[index].node.perform(
            .createVolume(
                VolumeSpecification(
                    id: Self.volume,
                    name: Self.name,
                    byteCount: byteCount,
                    durability: durability,
                    replica: record.encoded()
                )
            ),
            store: store
        )
    }

    /// Where the replica in a slot is now; the port of a node changes when it starts again.
    private func placement(_ instance: UInt64, on node: Int) -> ServicePlacement {
        var address: PeerAddress?
        if case .tcp(_, let port)? = nodes[node].node.peerListener {
            address = PeerAddress(host: host, port: port)
        }
        return ServicePlacement(
            node: "n\(node + 1)",
            instance: ReplicaInstance(instance),
            address: address
        )
    }

    /// Which node has the replica of each slot.
    var homes: [Int] { Array(0..<replicaCount).map { movedTo[$0] ?? $0 } }
    private var movedTo: [Int: Int] = [:]

    /// A replica that moves: the slot, the new one and its node.
    private(set) var moving: (slot: Int, instance: UInt64, node: Int)?
    /// Whether both sets of replicas are to count.
    var joins = false

    func assignment(leaseEpoch: UInt64) -> ServiceAssignment {
        var result = assignment(
            Self.volume,
            Self.name,
            leaseEpoch: leaseEpoch,
            Array(zip(instances, homes))
        )
        result.move = moving.map { moving in
            ServiceMove(
                from: ReplicaInstance(instances[moving.slot]),
                to: placement(moving.instance, on: moving.node),
                joins: joins
            )
        }
        return result
    }

    /// Makes a replica on another node that is to take the place of one.
    func beginMove(_ slot: Int, to node: Int) async throws {
        moving = (slot, instances[slot] + 1000, node)
        joins = false
        try await makeReplica(on: node, instance: instances[slot] + 1000, isReplacement: true)
    }

    /// Names the new set of replicas.
    func nameMoved() {
        guard let moving else { return }
        instances[moving.slot] = moving.instance
        movedTo[moving.slot] = moving.node
        abandonMove()
    }

    /// Has nothing move any more.
    func abandonMove() {
        moving = nil
        joins = false
    }

    /// A volume's assignment, with its replicas and the nodes that have them.
    func assignment(
        _ volume: VolumeID,
        _ name: String,
        leaseEpoch: UInt64,
        _ replicas: [(instance: UInt64, node: Int)]
    ) -> ServiceAssignment {
        ServiceAssignment(
            volume: volume,
            name: name,
            byteCount: byteCount,
            logicalBlockByteCount: 512,
            durability: durability,
            leaseEpoch: Epoch(leaseEpoch),
            exportEpoch: 1,
            access: .readWrite,
            writeQuorum: replicaCount / 2 + 1,
            placements: replicas.map { placement($0.instance, on: $0.node) }
        )
    }

    /// Has a node serve the volume under the next epoch.
    func serve(on node: Int) async throws {
        epoch += 1
        _ = try await nodes[node].node.serve(assignment(leaseEpoch: epoch))
    }

    /// Tells the node that serves where the replicas are now.
    func tell(_ node: Int) async throws {
        _ = try await nodes[node].node.serve(assignment(leaseEpoch: epoch))
    }

    func stop(_ node: Int) async { await nodes[node].stop() }

    /// Starts a node again on what its store holds.
    func restart(_ node: Int) async throws {
        nodes[node] = try await start(node, nodes[node].directory)
    }

    /// Puts a new replica on another node into a slot.
    func replace(_ slot: Int, on node: Int) async throws {
        instances[slot] += 1000
        movedTo[slot] = node
        try await makeReplica(on: node, instance: instances[slot], isReplacement: true)
    }

    func client(_ node: Int) throws -> TestClient { try nodes[node].client(Self.name) }

    /// Waits until the service on a node is as `condition` wants it.
    func wait(
        _ node: Int,
        seconds: Int = 20,
        until condition: (ServiceStatus) -> Bool
    ) async throws {
        for _ in 0..<seconds * 50 {
            let statuses = await nodes[node].node.services()
            if let status = statuses.first, condition(status) { return }
            try await Task.sleep(for: .milliseconds(20))
        }
        let statuses = await nodes[node].node.services()
        throw ClientError("the service did not become what was expected: \(statuses)")
    }

    func stopAll() async { for node in nodes { await node.stop() } }
}
