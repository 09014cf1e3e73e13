// The node client against the node's router over real sockets.

import ControlAPI
import Testing

@Suite("The node client", .timeLimit(.minutes(2)))
struct NodeClientTests {
    @Test("The node client speaks all of the node API", arguments: [false, true])
    func node_roundTrip(unix: Bool) async throws {
        let node = MemoryNode(name: "n1")
        try await withServer(nodeRouter(service: node), unix: unix) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            #expect(try await client.report().name == "n1")
            #expect(try await client.statistics().counters == ["volumes.now": 0])
            let creation = NodeVolumeCreation.small(descriptor: #"{"format":1}"#)
            let made = try await client.createVolume(creation)
            #expect(made.descriptor == #"{"format":1}"#)
            #expect(try await client.volumes() == [made])
            #expect(try await client.volume(7) == made)
            let update = NodeVolumeUpdate(byteCount: 8192, access: .readWrite)
            let changed = try await client.updateVolume(7, update)
            #expect(changed.access == .readWrite)
            #expect(try await client.createSnapshot(volume: 7, name: "s").name == "s")
            _ = try await client.rollback(volume: 7, snapshot: "s")
            let clone = NodeCloneCreation(
                id: 8,
                name: "c",
                durability: .writeback,
                descriptor: ""
            )
            #expect(try await client.clone(volume: 7, snapshot: "s", clone).byteCount == 8192)
            let inUse = await controlError { () throws(ControlError) in
                try await client.deleteVolume(7)
            }
            #expect(inUse?.code == .inUse)
            try await client.deleteVolume(8)
            try await client.deleteSnapshot(volume: 7, name: "s")
            try await client.deleteVolume(7)
            #expect(node.held.isEmpty)
            let refused = await controlError { () throws(ControlError) in
                _ = try await client.volume(0)
            }
            #expect(refused?.code == .invalidArgument)
        }
    }

    @Test("A node is given replicas and volumes to serve, and refuses what cannot be meant")
    func services_roundTrip() async throws {
        let node = MemoryNode(name: "n1")
        try await withServer(nodeRouter(service: node), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            var creation = NodeVolumeCreation.small()
            creation.replica = NodeReplicaCreation(
                instance: APILimits.instanceMax,
                isReplacement: true
            )
            let made = try await client.createVolume(creation)
            #expect(made.replica?.instance == APILimits.instanceMax)
            #expect(made.replica?.isBlank == true)
            let placements = ["n1", "n2"].enumerated().map {
                NodePlacement(node: $1, instance: UInt64($0) + 1, peerEndpoint: "h:\($0 + 1)")
            }
            let assignment = NodeServiceAssignment(
                volume: 7,
                name: "v7",
                byteCount: 4096,
                logicalBlockByteCount: 512,
                durability: .writeback,
                leaseEpoch: 3,
                exportEpoch: 5,
                access: .readWrite,
                writeQuorum: 2,
                placements: placements,
                session: 9
            )
            let status = try await client.serve(assignment)
            #expect(status.leaseEpoch == 3 && status.replicas.map(\.node) == ["n1", "n2"])
            #expect(node.shelf.asked == [assignment])
            #expect(try await client.services() == [status])
            // Of two requests the later one counts, whichever comes first.
            let late = client.carryingOut(NodeOperation(term: 1, revision: 7, epochMax: 0))
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 8, epochMax: 0))
                .serve(assignment)
            let outdated = await controlError { () throws(ControlError) in
                _ = try await late.serve(assignment)
            }
            #expect(outdated?.code == .outdated)
            try await client.stopServing(7, leaseEpoch: 2)
            #expect(try await client.services().count == 1)
            try await client.stopServing(7, leaseEpoch: 3)
            #expect(try await client.services().isEmpty)
            var wrong = Array(repeating: assignment, count: 5)
            wrong[0].writeQuorum = 1
            wrong[1].placements = []
            wrong[2].leaseEpoch = APILimits.leaseEpochMax + 1
            wrong[3].placements[1].node = "n1"
            wrong[4].placements[0].instance = 0
            for assignment in wrong {
                let refused = await controlError { () throws(ControlError) in
                    _ = try await client.serve(assignment)
                }
                #expect(refused?.code == .invalidArgument)
            }
        }
    }

    @Test("A node refuses what is meant for another store, and does none of it")
    func node_otherStore_isRefused() async throws {
        let node = MemoryNode(name: "n1")
        let own = try await node.report().storeIdentity
        try await withServer(nodeRouter(service: node), unix: false) { endpoint in
            let other = NodeClient(
                endpoint: endpoint,
                storeIdentity: String(repeating: "f", count: 32)
            )
            let creation = NodeVolumeCreation.small()
            let refused = await controlError { () throws(ControlError) in
                _ = try await other.createVolume(creation)
            }
            #expect(refused?.code == .unavailable)
            #expect(refused?.detail.contains(own) == true)
            #expect(node.held.isEmpty)
            // A deletion must not look as if it had been carried out.
            let missing = await controlError { () throws(ControlError) in
                try await other.deleteVolume(7)
            }
            #expect(missing?.code == .unavailable)
            // Nor one that has the first store, and another one in the place of the second.
            let swapped = NodeClient(
                endpoint: endpoint,
                storeIdentity: own,
                otherStoreIdentities: [String(repeating: "f", count: 32)]
            )
            let lacking = await controlError { () throws(ControlError) in
                try await swapped.deleteVolume(7)
            }
            #expect(lacking?.code == .unavailable)
            #expect(lacking?.detail.contains("does not have its store ffff") == true)
            let same = NodeClient(endpoint: endpoint, storeIdentity: own.uppercased())
            let made = try await same.createVolume(creation)
            #expect(made.id == 7)
        }
    }

    @Test("A node refuses what belongs to an earlier operation than the last")
    func node_lateOperation_isRefused() async throws {
        let node = MemoryNode(name: "n1")
        try await withServer(nodeRouter(service: node), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            let creation = NodeVolumeCreation.small()
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 5, epochMax: 0))
                .createVolume(creation)
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 6, epochMax: 0))
                .createSnapshot(volume: 7, name: "s")
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 6, epochMax: 0))
                .rollback(volume: 7, snapshot: "s")
            let old = client.carryingOut(NodeOperation(term: 1, revision: 5, epochMax: 0))
            let refusals = [
                await controlError { () throws(ControlError) in
                    _ = try await old.rollback(volume: 7, snapshot: "s")
                },
                await controlError { () throws(ControlError) in
                    try await old.deleteSnapshot(volume: 7, name: "s")
                },
                await controlError { () throws(ControlError) in
                    _ = try await old.updateVolume(7, NodeVolumeUpdate(byteCount: 8192))
                },
                await controlError { () throws(ControlError) in try await old.deleteVolume(7) },
                await controlError { () throws(ControlError) in
                    _ = try await old.createVolume(creation)
                },
            ]
            #expect(refusals.allSatisfy { $0?.code == .outdated })
            #expect(node.held[7]?.rollbacks == ["s"])
            #expect(node.held[7]?.creation.byteCount == 4096)
            try await client.carryingOut(NodeOperation(term: 1, revision: 9, epochMax: 0))
                .deleteVolume(7)
            let revived = await controlError { () throws(ControlError) in
                _ = try await old.createVolume(creation)
            }
            #expect(revived?.code == .outdated)
            #expect(node.held.isEmpty)
            // A restored copy of the metadata begins with lower revisions again, in a later term.
            let restored = client.carryingOut(NodeOperation(term: 2, revision: 3, epochMax: 0))
            _ = try await restored.createVolume(creation)
            #expect(node.held[7] != nil)
        }
    }
}
