// Nodes that drain: their replicas move to others.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Draining a node", .timeLimit(.minutes(2)))
struct DrainTests {
    private func drain(_ name: String, _ cluster: ReplicatedCluster) async throws {
        _ = try await cluster.plane.updateNode(name, NodeUpdate(draining: true))
        try await cluster.plane.moveReplicas()
    }

    private func holders(
        _ cluster: ReplicatedCluster,
        _ name: String = "v"
    ) async throws -> [String] {
        try await cluster.record(name).holders.sorted()
    }

    private func holds(
        _ node: String,
        _ name: String,
        _ cluster: ReplicatedCluster
    ) async throws
        -> Bool
    {
        try await cluster.node(node).volumes().contains { $0.name == name }
    }

    @Test("A replica moves in the order: made, filled, both sets count, named, told, deleted")
    func drain_attached_movesReplica() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        try await cluster.attach()
        let lease = try await cluster.record().leaseEpoch
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await holders(cluster) == ["n1", "n3", "n4"] }
        )
        #expect(try await cluster.eventually { try await !holds("n2", "v", cluster) })
        let record = try await cluster.record()
        #expect(record.move == nil && record.placementGeneration == 1)
        #expect(record.leaseEpoch == lease, "nobody had to take over")
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move == nil }
        )
        let asked = cluster.node(record.primary).shelf.asked
        #expect(asked.map { $0.move?.joins } == [nil, nil, true, nil])
        #expect(asked.map { $0.move == nil } == [true, false, false, true])
        #expect(asked.last?.placements.map(\.node).sorted() == ["n1", "n3", "n4"])
        #expect(try await holds("n4", "v", cluster))
        #expect(
            try await cluster.eventually { try await cluster.events("node.drained").count == 1 }
        )
        #expect(try await cluster.events("replica.moving").count == 1)
        #expect(try await cluster.events("replica.moved").count == 1)
        await cluster.stop()
    }

    @Test("While the new replica is filled the old ones count, and everybody is told how far it is")
    func drain_filling_isTold() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        try await cluster.attach()
        let primary = try await cluster.record().primary
        cluster.node(primary).shelf.setReplicas(incomplete: ["n4"])
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        try await cluster.heartbeat(primary)
        let volume = try await cluster.plane.volume("v")
        #expect(volume.replicas.sorted() == ["n1", "n2", "n3"])
        #expect(volume.move == VolumeMove(from: "n2", to: "n4", phase: .filling, perMille: 250))
        #expect(try await cluster.plane.node("n2").movingCount == 1)
        // Nobody deletes what nobody knows: the new one is known.
        await cluster.plane.compareNow("n4")
        #expect(try await holds("n4", "v", cluster))
        #expect(try await cluster.plane.strays(of: "n4").isEmpty)
        // Its heartbeat has it go on.
        cluster.node(primary).shelf.setReplicas()
        try await cluster.heartbeat(primary)
        #expect(
            try await cluster.eventually { try await holders(cluster) == ["n1", "n3", "n4"] }
        )
        await cluster.stop()
    }

    @Test("A new primary is told of the move, and both sets count only when that is asked anew")
    func drain_primaryDies_goesOn() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 5)
        try await cluster.create()
        try await cluster.attach()
        let first = try await cluster.record().primary
        for node in cluster.cluster.nodes { node.shelf.setReplicas(incomplete: ["n4", "n5"]) }
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        let target = try #require(try await cluster.record().move?.to.node)
        try await cluster.kill(first)
        #expect(
            try await cluster.eventually {
                let assignment = try await cluster.assignment()
                return try await cluster.record().primary != first
                    && assignment?.move?.to.node == target && assignment?.move?.joins == nil
            }
        )
        let primary = try await cluster.record().primary
        for node in cluster.cluster.nodes { node.shelf.setReplicas() }
        try await cluster.heartbeat(primary)
        #expect(
            try await cluster.eventually { try await !cluster.record().lies(on: "n2") }
        )
        #expect(try await cluster.record().holders.contains(target))
        await cluster.stop()
    }

    @Test("A volume that no host has is served to nobody for that time, and then no more")
    func drain_detached_isTended() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        for node in cluster.cluster.nodes { node.shelf.setReplicas(incomplete: ["n4"]) }
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        #expect(try await cluster.assignment()?.access == NodeVolumeAccess.none)
        let primary = try await cluster.record().primary
        // It is meant to be served, though no host has it.
        await cluster.plane.compareNow(primary)
        #expect(try await cluster.assignment() != nil)
        for node in cluster.cluster.nodes { node.shelf.setReplicas() }
        try await cluster.heartbeat(primary)
        #expect(
            try await cluster.eventually { try await holders(cluster) == ["n1", "n3", "n4"] }
        )
        // The first heartbeat after the primary was told.
        #expect(
            try await cluster.eventually {
                try await cluster.heartbeat(primary)
                try await cluster.plane.moveReplicas()
                return try await cluster.record().tended == nil
            }
        )
        #expect(
            try await cluster.eventually { try await cluster.assignment() == nil }
        )
        #expect(try await cluster.events("volume.served").isEmpty, "that is no news")
        await cluster.stop()
    }

    @Test("A host that attaches a volume which is served to nobody gets it, and the move goes on")
    func drain_attachMeanwhile_goesOn() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        for node in cluster.cluster.nodes { node.shelf.setReplicas(incomplete: ["n4"]) }
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        try await cluster.attach()
        #expect(try await cluster.record().tended == nil)
        #expect(try await cluster.assignment()?.access == .readWrite)
        #expect(try await cluster.assignment()?.move != nil)
        for node in cluster.cluster.nodes { node.shelf.setReplicas() }
        try await cluster.heartbeat(try await cluster.record().primary)
        #expect(
            try await cluster.eventually { try await holders(cluster) == ["n1", "n3", "n4"] }
        )
        #expect(try await cluster.record().served != nil)
        await cluster.stop()
    }

    @Test("A lost replica of a volume that no host has is replaced too")
    func repair_detached_replaces() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4, replaceSeconds: 0.001)
        try await cluster.create()
        try await cluster.kill("n2")
        #expect(
            try await cluster.eventually {
                try await cluster.plane.repair()
                if try await cluster.assignment() != nil {
                    try await cluster.heartbeat(try await cluster.record().primary)
                }
                return try await holders(cluster) == ["n1", "n3", "n4"]
            }
        )
        #expect(
            try await cluster.eventually {
                try await cluster.plane.repair()
                try await cluster.heartbeat(try await cluster.record().primary)
                try await cluster.plane.moveReplicas()
                return try await cluster.record().tended == nil
            }
        )
        await cluster.stop()
    }

    @Test("Where there is no other node the replica stays, and the node's document says why")
    func drain_noOtherNode_isTold() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 3)
        try await cluster.create()
        try await drain("n2", cluster)
        let node = try await cluster.plane.node("n2")
        #expect(node.drainProblem == "'v': No other node that is up takes a replica.")
        #expect(try await cluster.record().move == nil)
        _ = try await cluster.plane.updateNode("n2", NodeUpdate(draining: false))
        #expect(try await cluster.plane.node("n2").drainProblem == nil)
        await cluster.stop()
    }

    @Test("So many replicas move at a time, and no more")
    func drain_manyVolumes_isBounded() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        for node in cluster.cluster.nodes {
            node.shelf.setReplicas(incomplete: ["n1", "n3", "n4"])
        }
        for index in 0..<ControlPlane.moveCountMax + 2 {
            try await cluster.create("v\(index)", node: "n2")
        }
        try await drain("n2", cluster)
        try await cluster.plane.moveReplicas()
        #expect(try await cluster.plane.node("n2").movingCount == ControlPlane.moveCountMax)
        for node in cluster.cluster.nodes { node.shelf.setReplicas() }
        #expect(
            try await cluster.eventually {
                for node in cluster.cluster.nodes { try await cluster.heartbeat(node.name) }
                try await cluster.plane.moveReplicas()
                return try await cluster.plane.node("n2").volumeCount == 0
            }
        )
        await cluster.stop()
    }

    @Test("A move is given up when its node stays away; what was made there is deleted one day")
    func drain_targetDies_isGivenUp() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4, replaceSeconds: 0.001)
        try await cluster.create()
        try await cluster.attach()
        for node in cluster.cluster.nodes { node.shelf.setReplicas(incomplete: ["n4"]) }
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        try await cluster.kill("n4")
        #expect(
            try await cluster.eventually {
                try await cluster.plane.repair()
                try await cluster.plane.moveReplicas()
                return try await cluster.record().move == nil
            }
        )
        #expect(try await cluster.events("replica.move_given_up").count == 1)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move == nil }
        )
        #expect(try await holds("n4", "v", cluster))
        cluster.node("n4").shelf.presence = .there
        try await cluster.register("n4")
        await cluster.plane.compareNow("n4")
        #expect(try await !holds("n4", "v", cluster))
        await cluster.stop()
    }

    @Test("A volume that is deleted while a replica moves is deleted there too")
    func drain_deleteMeanwhile_leavesNothing() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        for node in cluster.cluster.nodes { node.shelf.setReplicas(incomplete: ["n4"]) }
        try await drain("n2", cluster)
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.move != nil }
        )
        try await cluster.plane.deleteVolume("v", operation: "delete")
        for node in ["n1", "n2", "n3", "n4"] { #expect(try await !holds(node, "v", cluster)) }
        await cluster.stop()
    }
}
