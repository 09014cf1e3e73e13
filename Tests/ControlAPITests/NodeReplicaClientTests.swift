// The node client's requests about snapshots of replicas against the node's router, over a socket.

import ControlAPI
import Testing

@Suite("The node client: snapshots of replicas", .timeLimit(.minutes(2)))
struct NodeReplicaClientTests {
    private static let taking = NodeSnapshotTaking(
        snapshot: APILimits.snapshotIDMax,
        leaseEpoch: 3
    )
    private static let rollback = NodeReplicaRollback(
        instance: 1,
        number: APILimits.writeNumberMax,
        epoch: 4,
        newInstance: 21
    )
    private static let clone = NodeReplicaCloneCreation(
        instance: 1,
        number: 1,
        volume: .small(8),
        newInstance: 11
    )

    /// Two nodes, the first of which serves the volume 7.
    private func serving() async throws -> [MemoryNode] {
        let nodes = [MemoryNode(name: "n1"), MemoryNode(name: "n2")]
        for (index, node) in nodes.enumerated() {
            node.replicas.connect(nodes)
            var creation = NodeVolumeCreation.small()
            creation.replica = NodeReplicaCreation(
                instance: UInt64(index) + 1,
                isReplacement: false
            )
            _ = try await node.createVolume(creation)
        }
        let assignment = NodeServiceAssignment(
            volume: 7,
            name: "v7",
            byteCount: 4096,
            logicalBlockByteCount: 512,
            durability: .writeback,
            leaseEpoch: 3,
            exportEpoch: 5,
            access: .none,
            writeQuorum: 2,
            placements: nodes.enumerated().map {
                NodePlacement(node: $1.name, instance: UInt64($0) + 1)
            }
        )
        _ = try await nodes[0].serve(assignment)
        return nodes
    }

    @Test("Snapshots are taken, cloned, rolled back to and deleted")
    func replicas_roundTrip() async throws {
        let nodes = try await serving()
        try await withServer(nodeRouter(service: nodes[0]), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            let taken = try await client.takeSnapshot(of: 7, Self.taking)
            #expect(try await client.takeSnapshot(of: 7, Self.taking) == taken)
            #expect(NodeSnapshotTaken.leaseEpoch(of: taken.number) == 3)
            let told = try await client.volume(7).snapshots.map(\.replica)
            let id = Self.taking.snapshot
            #expect(told == [NodeReplicaSnapshot(id: id, number: taken.number)])
            try await client.cloneReplica(of: 7, id, Self.clone)
            try await client.cloneReplica(of: 7, id, Self.clone)
            #expect(try await client.volume(8).replica?.instance == 11)
            try await client.rollBackReplica(of: 7, id, Self.rollback)
            #expect(try await client.volume(7).replica?.instance == 21)
            let other = await controlError { () throws(ControlError) in
                var clone = Self.clone
                clone.volume = .small(9)
                try await client.cloneReplica(of: 7, id, clone)
            }
            #expect(other?.code == .notComplete)
            try await client.deleteReplicaSnapshot(of: 7, id)
            try await client.deleteReplicaSnapshot(of: 7, id)
            try await client.deleteReplicaSnapshot(of: 99, id)
            #expect(try await client.volume(7).snapshots.isEmpty)
            // Each node deletes its own.
            #expect(nodes[1].held[7]?.snapshots.count == 1)
        }
    }

    @Test("Numbers that cannot be meant are refused")
    func replicas_wrongNumbers_areRefused() async throws {
        let nodes = try await serving()
        try await withServer(nodeRouter(service: nodes[0]), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            var takings = Array(repeating: Self.taking, count: 4)
            takings[0].snapshot = 0
            takings[1].snapshot = APILimits.snapshotIDMax + 1
            takings[2].leaseEpoch = 0
            takings[3].leaseEpoch = APILimits.leaseEpochMax + 1
            for taking in takings {
                let refused = await controlError { () throws(ControlError) in
                    _ = try await client.takeSnapshot(of: 7, taking)
                }
                #expect(refused?.code == .invalidArgument)
            }
            var clones = Array(repeating: Self.clone, count: 5)
            clones[0].instance = 0
            clones[1].newInstance = APILimits.instanceMax + 1
            clones[2].number = APILimits.writeNumberMax + 1
            clones[3].volume.byteCount = 1
            clones[4].volume.id = 7
            for clone in clones {
                let refused = await controlError { () throws(ControlError) in
                    try await client.cloneReplica(of: 7, 5, clone)
                }
                #expect(refused?.code == .invalidArgument)
            }
            var rollbacks = Array(repeating: Self.rollback, count: 4)
            rollbacks[0].number = 0
            rollbacks[1].newInstance = rollbacks[1].instance
            rollbacks[2].epoch = 0
            rollbacks[3].instance = 0
            for rollback in rollbacks {
                let refused = await controlError { () throws(ControlError) in
                    try await client.rollBackReplica(of: 7, 5, rollback)
                }
                #expect(refused?.code == .invalidArgument)
            }
            let refused = await controlError { () throws(ControlError) in
                try await client.deleteReplicaSnapshot(of: 7, 0)
            }
            #expect(refused?.code == .invalidArgument)
            #expect(nodes[0].held[7]?.snapshots.isEmpty == true)
        }
    }

    @Test("What belongs to an earlier operation than the last is refused")
    func replicas_late_isRefused() async throws {
        let nodes = try await serving()
        try await withServer(nodeRouter(service: nodes[0]), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            func at(_ revision: UInt64) -> any NodeService {
                let operation = NodeOperation(
                    term: 1,
                    revision: revision,
                    epochMax: APILimits.epochMax
                )
                return client.carryingOut(operation)
            }
            _ = try await at(5).takeSnapshot(of: 7, Self.taking)
            try await at(9).deleteReplicaSnapshot(of: 7, 1)
            let late = [
                await controlError { () throws(ControlError) in
                    _ = try await at(4).takeSnapshot(of: 7, Self.taking)
                },
                await controlError { () throws(ControlError) in
                    try await at(8).rollBackReplica(of: 7, Self.taking.snapshot, Self.rollback)
                },
                await controlError { () throws(ControlError) in
                    try await at(8).deleteReplicaSnapshot(of: 7, Self.taking.snapshot)
                },
            ]
            #expect(late.allSatisfy { $0?.code == .outdated })
            #expect(nodes.allSatisfy { $0.held[7]?.snapshots.count == 1 })
        }
    }
}
