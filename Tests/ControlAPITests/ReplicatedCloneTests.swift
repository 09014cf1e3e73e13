// Clones and rollbacks of replicated volumes: made by each node of its own replica.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Clones and rollbacks of replicated volumes", .timeLimit(.minutes(3)))
struct ReplicatedCloneTests {
    private func cluster(nodeCount: Int = 3) async throws -> ReplicatedCluster {
        let cluster = try await ReplicatedCluster(nodeCount: nodeCount)
        try await cluster.create()
        try await cluster.snapshot()
        return cluster
    }

    private func clone(_ cluster: ReplicatedCluster) async throws(ControlError) -> Volume {
        let creation = CloneCreation(name: "c")
        return try await cluster.plane.clone(
            "v",
            snapshot: "s",
            creation,
            operation: UUID().uuidString
        )
    }

    private func rollback(
        _ cluster: ReplicatedCluster,
        operation: String = UUID().uuidString
    ) async throws(ControlError) -> Volume {
        try await cluster.plane.rollback("v", to: "s", operation: operation)
    }

    // MARK: - Clones

    @Test("A clone is on its parent's nodes, each with a replica of its own, under later leases")
    func clone_isWhereItsParentIs() async throws {
        let cluster = try await cluster(nodeCount: 4)
        let made = try await clone(cluster)
        let parent = try await cluster.record()
        let record = try await cluster.record("c")
        #expect(record.holders == parent.holders && made.primary == parent.primary)
        #expect(record.writeQuorum == 2 && record.served == nil)
        let own = Set(record.placements?.map(\.instance) ?? [])
        #expect(own.count == 3)
        #expect(own.isDisjoint(with: parent.placements?.map(\.instance) ?? []))
        for placement in record.placements ?? [] {
            let held = try #require(cluster.node(placement.node).held[record.id])
            #expect(held.creation.replica?.instance == placement.instance)
            #expect(held.parent == parent.id && placement.isUnmade == nil)
        }
        let number = try #require(try await cluster.marks().first).number
        #expect(record.leaseEpoch == (number >> 36) + 1)
        // What its replicas have promised is no news to a comparison.
        await cluster.plane.compareNow("n2")
        #expect(try await cluster.events("volume.epoch_ahead").isEmpty)
        try await cluster.attach(volume: "c")
        #expect(try await cluster.assignment("c")?.leaseEpoch == (number >> 36) + 2)
        #expect(try await cluster.events("volume.cloned").count == 1)
        try await cluster.cluster.requireAgreement("cloning")
        await cluster.stop()
    }

    @Test("A clone's leases begin above all that its parent had, not only above its snapshot's")
    func clone_leases_areAboveTheParents() async throws {
        let cluster = try await cluster()
        for _ in 0..<3 {
            try await cluster.attach()
            try await cluster.plane.detach("v", from: "h1", operation: UUID().uuidString)
        }
        let parent = try #require(try await cluster.record().leaseEpoch)
        let number = try #require(try await cluster.marks().first).number
        try #require(parent > (number >> 36) + 1)
        _ = try await clone(cluster)
        try await cluster.attach(volume: "c")
        let first = try #require(try await cluster.assignment("c")).leaseEpoch
        #expect(first > parent)
        await cluster.stop()
    }

    @Test("A node that is away, or lacks something, gets a blank replica of a clone")
    func clone_nodeAway_isFilledLater() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        for name in ["n2", "n3"] {
            if name == "n2" {
                cluster.node(name).change(volume.id) { $0.isIncomplete = true }
            } else {
                cluster.node("n2").change(volume.id) { $0.isIncomplete = false }
                try await cluster.kill(name)
            }
            _ = try await clone(cluster)
            let record = try await cluster.record("c")
            let placement = try #require(record.placement(on: name))
            #expect(placement.isUnmade == true)
            if name == "n3" { try await cluster.restart(name) }
            try await cluster.plane.repair()
            #expect(
                try await cluster.eventually {
                    let held = cluster.node(name).held[record.id]?.creation.replica
                    return held?.instance == placement.instance && held?.isReplacement == true
                }
            )
            #expect(
                try await cluster.eventually {
                    try await cluster.record("c").placement(on: name)?.isUnmade == nil
                }
            )
            try await cluster.cluster.requireAgreement("cloning without \(name)")
            try await cluster.plane.deleteVolume("c", operation: "d-\(name)")
        }
        await cluster.stop()
    }

    @Test("A clone that too few nodes can make is refused, and nothing is left of it")
    func clone_tooFew_isUndone() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        cluster.node("n2").change(volume.id) { $0.isIncomplete = true }
        cluster.node("n3").change(volume.id) { $0.isIncomplete = true }
        let lacking = await controlError { () throws(ControlError) in _ = try await clone(cluster) }
        #expect(lacking?.code == .unavailable)
        #expect(lacking?.detail.contains("1 of 3 replicas of 'v' could be cloned.") == true)
        #expect(lacking?.help?.contains("volctl volume show v") == true)
        for name in ["n1", "n2", "n3"] {
            cluster.node(name).change(volume.id) { $0.isIncomplete = false }
            let full = ControlError(.noSpace, "The node refused: the store is full.")
            cluster.node(name).replicas.refuseNext(full)
        }
        let full = await controlError { () throws(ControlError) in _ = try await clone(cluster) }
        #expect(full?.code == .noSpace)
        #expect(try await cluster.cluster.metadata.volume(named: "c") == nil)
        try await cluster.cluster.requireAgreement("refused clones")
        _ = try await clone(cluster)
        await cluster.stop()
    }

    @Test("A volume with clones is not deleted; its snapshots are, and it is when they are gone")
    func delete_withClones_isRefused() async throws {
        let cluster = try await cluster()
        _ = try await clone(cluster)
        let error = await controlError { () throws(ControlError) in
            try await cluster.plane.deleteVolume("v", operation: "d1")
        }
        #expect(error?.code == .inUse)
        #expect(error?.detail.contains("'c'") == true)
        #expect(try await cluster.record().state == .ready)
        try await cluster.plane.deleteSnapshot("s", of: "v", operation: "d2")
        // The clone goes while a node is away, which must let go of both, in the right order.
        try await cluster.kill("n3")
        try await cluster.plane.deleteVolume("c", operation: "d3")
        try await cluster.plane.deleteVolume("v", operation: "d4")
        #expect(cluster.node("n3").held.count == 2)
        try await cluster.restart("n3")
        #expect(try await cluster.eventually { cluster.node("n3").held.isEmpty })
        await cluster.stop()
    }

    @Test("What is missing is named")
    func missing_isNamed() async throws {
        let cluster = try await cluster()
        let plane = cluster.plane
        let codes = [
            await controlError { () throws(ControlError) in
                _ = try await plane.clone(
                    "v",
                    snapshot: "nope",
                    CloneCreation(name: "c"),
                    operation: "1"
                )
            }?.code,
            await controlError { () throws(ControlError) in
                _ = try await plane.rollback("v", to: "nope", operation: "2")
            }?.code,
            await controlError { () throws(ControlError) in
                try await plane.deleteSnapshot("nope", of: "v", operation: "3")
            }?.code,
        ]
        #expect(codes == [.snapshotNotFound, .snapshotNotFound, .snapshotNotFound])
        await cluster.stop()
    }

    // MARK: - Rollback

    @Test("A rollback gives all replicas other instances, and the volume its size of then")
    func rollback_changesInstances() async throws {
        let cluster = try await cluster()
        let before = try await cluster.record()
        let update = VolumeUpdate(byteCount: 4 << 20)
        _ = try await cluster.plane.updateVolume("v", update, operation: "u")
        try await cluster.attach()
        let attached = await controlError { () throws(ControlError) in
            _ = try await rollback(cluster)
        }
        #expect(attached?.code == .volumeAttached)
        try await cluster.plane.detach("v", from: "h1", operation: "d")
        let epoch = try await cluster.record().leaseEpoch ?? 0
        let after = try await rollback(cluster)
        #expect(after.byteCount == before.byteCount)
        let record = try await cluster.record()
        #expect(record.leaseEpoch == epoch + 2 && record.holders == before.holders)
        let instances = Set(record.placements?.map(\.instance) ?? [])
        #expect(instances.isDisjoint(with: before.placements?.map(\.instance) ?? []))
        for name in ["n1", "n2", "n3"] {
            let held = try #require(cluster.node(name).held[record.id])
            #expect(held.rollbacks.count == 1 && held.promisedEpoch == epoch + 2)
        }
        await cluster.plane.compareNow("n2")
        #expect(try await cluster.events("volume.epoch_ahead").isEmpty)
        try await cluster.attach()
        #expect(try await cluster.assignment()?.leaseEpoch == epoch + 3)
        #expect(try await cluster.events("volume.rolled_back").count == 1)
        try await cluster.cluster.requireAgreement("a rollback")
        await cluster.stop()
    }

    @Test("A replica that cannot go back with the others is replaced by a blank one")
    func rollback_nodeAway_isReplaced() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        let old = try #require(volume.placement(on: "n3")).instance
        try await cluster.kill("n3")
        _ = try await rollback(cluster)
        let placement = try #require(try await cluster.record().placement(on: "n3"))
        #expect(placement.isUnmade == true && placement.instance != old)
        try await cluster.restart("n3")
        #expect(
            try await cluster.eventually {
                try await cluster.plane.repair()
                let held = cluster.node("n3").held[volume.id]?.creation.replica
                return held?.instance == placement.instance && held?.isReplacement == true
            }
        )
        #expect(cluster.node("n3").held[volume.id]?.rollbacks.isEmpty == true)
        await cluster.stop()
    }

    @Test("A rollback is not begun where too few replicas have the snapshot")
    func rollback_tooFew_isRefused() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        try await cluster.kill("n3")
        cluster.node("n2").change(volume.id) { $0.isIncomplete = true }
        let error = await controlError { () throws(ControlError) in
            _ = try await rollback(cluster)
        }
        #expect(error?.code == .unavailable)
        #expect(error?.detail.hasPrefix("1 of 3 replicas of 'v' have all of the snapshot") == true)
        #expect(try await cluster.record() == volume)
        await cluster.stop()
    }

    @Test("A rollback that has begun goes on until enough replicas have gone back")
    func rollback_begun_isCarriedOn() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        let lost = ControlError(.unavailable, "Not now.")
        for name in ["n2", "n3"] { cluster.node(name).replicas.refuseNext(lost) }
        let error = await controlError { () throws(ControlError) in
            _ = try await rollback(cluster, operation: "back")
        }
        #expect(error?.code == .outcomeUnknown)
        #expect(error?.help?.contains("ends by itself") == true)
        // Asked again, by the same wish or by the service itself, it ends as it began.
        _ = try await rollback(cluster, operation: "back")
        let record = try await cluster.record()
        #expect(record.pending == nil && record.leaseEpoch == (volume.leaseEpoch ?? 0) + 2)
        for name in ["n1", "n2", "n3"] {
            let held = try #require(cluster.node(name).held[volume.id])
            #expect(held.rollbacks.count == 1)
            #expect(held.creation.replica?.instance == record.placement(on: name)?.instance)
        }
        await cluster.stop()
    }

    @Test("A rollback that no replica has made is taken back when they refuse it")
    func rollback_refused_isUndone() async throws {
        let cluster = try await cluster()
        let volume = try await cluster.record()
        let full = ControlError(.noSpace, "The node refused: the store is full.")
        for name in ["n1", "n2", "n3"] { cluster.node(name).replicas.refuseNext(full) }
        let error = await controlError { () throws(ControlError) in
            _ = try await rollback(cluster)
        }
        #expect(error?.code == .noSpace)
        let record = try await cluster.record()
        #expect(record.pending == nil && record.placements == volume.placements)
        try await cluster.cluster.requireAgreement("a refused rollback")
        await cluster.stop()
    }
}
