// Nodes that die, and who serves and keeps replicated volumes then.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Failover", .timeLimit(.minutes(3)))
struct FailoverTests {
    @Test("A node that registers anew serves its volumes again, under a higher lease at once")
    func register_anew_serves() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        let attachment = try await cluster.attach()
        try await cluster.restart("n1")
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.leaseEpoch == 2 }
        )
        let assignment = try #require(try await cluster.assignment())
        #expect(assignment.exportEpoch == attachment.epoch)
        #expect(try await cluster.record().primary == "n1")
        let again = try await cluster.attach()
        #expect(again.nbdURI == attachment.nbdURI)
        #expect(
            try await cluster.eventually {
                try await cluster.events("volume.failover").count == 1
            }
        )
        await cluster.stop()
    }

    @Test("When its node dies a volume moves to another replica, for the same host")
    func die_primary_moves() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        let attachment = try await cluster.attach()
        try await cluster.kill("n1")
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.leaseEpoch == 2 }
        )
        let record = try await cluster.record()
        #expect(record.primary != "n1" && record.lies(on: record.primary))
        #expect(try await cluster.assignment()?.exportEpoch == attachment.epoch)
        let again = try await cluster.attach()
        #expect(again.epoch == attachment.epoch && again.nbdURI != attachment.nbdURI)
        let shown = try await cluster.plane.volume("v")
        #expect(shown.replicaStates?.contains { $0.node == "n1" && $0.state == .down } == true)
        #expect(shown.warning?.contains("replica on 'n1' is down") == true)
        await cluster.stop()
    }

    @Test("A service that has just begun leaves volumes with nodes that may come back")
    func begin_unsettled_waits() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        await cluster.stop()
        try await cluster.kill("n1")
        let unsettled = cluster.cluster.plane(settleMilliseconds: 3_600_000)
        try await unsettled.failOver()
        #expect(try await cluster.record().primary == "n1")
        #expect(try await cluster.record().leaseEpoch == 1)
        try await cluster.cluster.plane().failOver()
        #expect(try await cluster.record().primary != "n1")
        #expect(try await cluster.record().leaseEpoch == 2)
    }

    @Test("With nobody up who has a replica a volume waits, and is served when one comes")
    func die_all_waits() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        for name in ["n1", "n2", "n3"] { try await cluster.kill(name) }
        #expect(try await cluster.eventually { try await cluster.events("node.down").count == 3 })
        let shown = try await cluster.plane.volume("v")
        #expect(shown.warning?.contains("2 are needed") == true)
        try await cluster.restart("n3")
        #expect(
            try await cluster.eventually {
                guard try await cluster.record().primary == "n3" else { return false }
                return try await cluster.assignment() != nil
            }
        )
        await cluster.stop()
    }

    @Test("A primary that asks for another epoch gets it, and one that is refused is asked again")
    func heartbeat_needsEpoch_isServedAnew() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        cluster.node("n1").shelf.requireEpoch(volume.id)
        cluster.node("n1").shelf.refuse(2)
        try await cluster.heartbeat("n1")
        // Each attempt has an epoch of its own.
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.leaseEpoch == 4 }
        )
        try await cluster.heartbeat("n1")
        #expect(
            try await cluster.eventually {
                try await cluster.events("volume.served").contains {
                    $0.message.contains("lease 4")
                }
            }
        )
        await cluster.stop()
    }

    @Test("A node that dies again and again and comes back serves its volumes each time")
    func restart_often_isServedEachTime() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        for round in 1...5 {
            try await cluster.restart("n1")
            #expect(
                try await cluster.eventually {
                    try await cluster.assignment()?.leaseEpoch == UInt64(round + 1)
                }
            )
        }
        #expect(try await cluster.events("volume.quarantined").isEmpty)
        await cluster.stop()
    }

    @Test("A volume whose nodes die of it does not walk on until one is back or somebody asks")
    func die_soonThrice_isQuarantined() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        try await cluster.attach()
        var primary = "n1"
        for round in 1...3 {
            try await cluster.kill(primary)
            #expect(
                try await cluster.eventually {
                    try await cluster.record().served?.deathCount == round
                }
            )
            let record = try await cluster.record()
            #expect(record.served?.isQuarantined == (round == 3 ? true : nil))
            // The others must not run out before the count does.
            if round < 3 { try await cluster.restart(primary) }
            if round == 3 { #expect(record.primary == primary) }
            primary = record.primary
        }
        #expect(
            try await cluster.eventually {
                try await cluster.events("volume.quarantined").count == 1
            }
        )
        let shown = try await cluster.plane.volume("v")
        #expect(shown.warning?.contains("volctl attach v") == true)
        try await cluster.restart(primary)
        #expect(
            try await cluster.eventually {
                try await cluster.record().served?.isQuarantined == nil
            }
        )
        #expect(try await cluster.plane.volume("v").warning == nil)
        await cluster.stop()
    }

    @Test("256 volumes get other primaries in well under a second")
    func die_manyVolumes_isQuick() async throws {
        let cluster = try await ReplicatedCluster()
        for index in 0..<256 {
            try await cluster.create("v\(index)")
            try await cluster.attach(volume: "v\(index)")
        }
        let plane = cluster.plane
        // Without the background work, so that what is measured is this.
        await cluster.stop()
        try await cluster.kill("n1")
        let begin = ContinuousClock.now
        try await plane.failOver()
        let duration = ContinuousClock.now - begin
        let served = ["n2", "n3"].map { cluster.node($0).shelf.assignments.count }
        #expect(served.reduce(0, +) == 256)
        #expect(served.allSatisfy { $0 >= 100 }, "\(served)")
        #expect(duration < .seconds(1), "\(duration)")
    }

    @Test("What becomes of replicas is told once, from what the primary says")
    func heartbeat_replicas_areTold() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        let shelf = cluster.node("n1").shelf
        try await cluster.heartbeat("n1")
        #expect(try await cluster.plane.volume("v").serviceState == .serving)
        shelf.setReplicas(unlinked: ["n3"])
        for _ in 0..<2 { try await cluster.heartbeat("n1") }
        shelf.setReplicas(unlinked: ["n2", "n3"])
        try await cluster.heartbeat("n1")
        #expect(try await cluster.plane.volume("v").serviceState == .suspended)
        shelf.setReplicas(incomplete: ["n3"])
        try await cluster.heartbeat("n1")
        let states = try await cluster.plane.volume("v").replicaStates ?? []
        #expect(states.first { $0.node == "n3" }?.state == .behind)
        #expect(states.first { $0.node == "n3" }?.behind == 5)
        #expect(states.first { $0.node == "n2" }?.state == .complete)
        shelf.setReplicas()
        try await cluster.heartbeat("n1")
        let kinds: [String: Int] = [
            "volume.served": 1, "volume.suspended": 1, "volume.resumed": 1, "replica.down": 2,
            "replica.back": 2, "replica.complete": 2,
        ]
        for (kind, count) in kinds {
            #expect(
                try await cluster.eventually { try await cluster.events(kind).count == count },
                "\(kind)"
            )
        }
        await cluster.stop()
    }

    @Test("Full stores of replicas are told once, and that they have room again")
    func heartbeat_fullStores_areTold() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        let shelf = cluster.node("n1").shelf
        try await cluster.heartbeat("n1")
        #expect(try await cluster.plane.volume("v").warning == nil)
        shelf.setRoomless(["n3"])
        for _ in 0..<2 { try await cluster.heartbeat("n1") }
        var volume = try await cluster.plane.volume("v")
        #expect(volume.replicaStates?.filter { $0.lacksRoom == true }.map(\.node) == ["n3"])
        #expect(volume.warning?.contains("'n3' has no room") == true)
        shelf.setRoomless(["n2", "n3"])
        for _ in 0..<2 { try await cluster.heartbeat("n1") }
        volume = try await cluster.plane.volume("v")
        #expect(volume.warning?.hasPrefix("Writes are refused") == true)
        shelf.setRoomless([])
        for _ in 0..<2 { try await cluster.heartbeat("n1") }
        #expect(try await cluster.plane.volume("v").warning == nil)
        let kinds = ["volume.full": 1, "volume.roomy": 1, "replica.full": 2, "replica.roomy": 2]
        for (kind, count) in kinds {
            #expect(
                try await cluster.eventually { try await cluster.events(kind).count == count },
                "\(kind)"
            )
        }
        await cluster.stop()
    }

    // MARK: - Replacement

    @Test("A replica whose node stays away is replaced, once all others are complete")
    func away_replica_isReplaced() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4, replaceSeconds: 0.001)
        try await cluster.create(node: "n1")
        try await cluster.attach()
        let before = try await cluster.record()
        let lost = try #require(before.placements?.last { $0.node != "n1" })
        let kept = before.holders.filter { $0 != lost.node }
        let spare = try #require(
            cluster.cluster.nodes.map(\.name).first { !before.holders.contains($0) }
        )
        let shelf = cluster.node("n1").shelf
        shelf.setReplicas(incomplete: [kept[1]])
        try await cluster.heartbeat("n1")
        try await cluster.kill(lost.node)
        for _ in 0..<2 { try await cluster.plane.repair() }
        // One of the others lacks something.
        #expect(try await cluster.record().holders == before.holders)
        shelf.setReplicas(unlinked: [lost.node])
        try await cluster.heartbeat("n1")
        try await Task.sleep(for: .milliseconds(1100))
        try await cluster.plane.repair()
        let after = try await cluster.record()
        #expect(Set(after.holders) == Set(kept + [spare]))
        #expect(after.leaseEpoch == before.leaseEpoch)
        let placement = try #require(after.placement(on: spare))
        #expect(placement.isUnmade == nil && placement.instance != lost.instance)
        let held = cluster.node(spare).held[after.id]
        #expect(held?.creation.replica?.isReplacement == true)
        #expect(held?.creation.replica?.instance == placement.instance)
        let assignment = try #require(try await cluster.assignment())
        #expect(assignment.leaseEpoch == before.leaseEpoch)
        #expect(
            Set(assignment.placements.map(\.instance))
                == Set((after.placements ?? []).map(\.instance))
        )
        #expect(try await cluster.events("replica.replaced").count == 1)
        // The lost one deletes what nobody needs any more.
        try await cluster.restart(lost.node)
        #expect(try await cluster.eventually { cluster.node(lost.node).held.isEmpty })
        await cluster.stop()
    }

    @Test("A node that was forgotten with its disk has its replicas replaced at once")
    func deleted_node_isReplaced() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create(node: "n1")
        try await cluster.attach()
        let lost = try #require(try await cluster.record().holders.last)
        cluster.node("n1").shelf.setReplicas(unlinked: [lost])
        try await cluster.heartbeat("n1")
        try await cluster.kill(lost)
        let refused = await controlError { () throws(ControlError) in
            try await cluster.plane.deleteNode(lost, isLost: false)
        }
        #expect(refused?.code == .inUse)
        try await cluster.plane.deleteNode(lost, isLost: true)
        #expect(try await cluster.cluster.metadata.volume(named: "v") != nil)
        try await cluster.plane.repair()
        #expect(try await !cluster.record().holders.contains(lost))
        await cluster.stop()
    }
}
