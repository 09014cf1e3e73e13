// Snapshots of replicated volumes: who takes them, what survives, and what goes everywhere.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Synchronization
import Testing

extension ReplicatedCluster {
    @discardableResult
    func snapshot(
        _ name: String = "s",
        of volume: String = "v"
    ) async throws(ControlError)
        -> Snapshot
    {
        try await plane.createSnapshot(
            of: volume,
            SnapshotCreation(name: name),
            operation: UUID().uuidString
        )
    }

    /// The marks of a volume's snapshots in the metadata, oldest first.
    func marks(_ name: String = "v") async throws -> [SnapshotMarkRecord] {
        let record = try await record(name)
        return try await cluster.metadata.snapshots(of: record.id).compactMap(\.mark)
    }

    /// The ids of the snapshots that a node's replica has.
    func ids(on node: String, of volume: UInt64) -> [UInt64] {
        self.node(node).held[volume]?.snapshots.compactMap(\.replica?.id) ?? []
    }
}

@Suite("Snapshots of replicated volumes", .timeLimit(.minutes(3)))
struct ReplicatedSnapshotTests {
    @Test("The primary of an attached volume is asked, once, and all replicas have it then")
    func take_attached_asksPrimary() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        let first = try await cluster.snapshot("a")
        #expect(first.ownByteCount == 4096 && first.cloneCount == 0)
        #expect(first.byteCount == volume.byteCount)
        // Nobody exports snapshots of replicas, so no address is given.
        #expect(first.nbdURI == nil)
        try await cluster.snapshot("b")
        let marks = try await cluster.marks()
        #expect(marks.count == 2 && marks[0].number < marks[1].number)
        #expect(marks.allSatisfy { $0.number >> 36 == 1 })
        #expect(cluster.node("n1").replicas.asked == marks.map(\.id))
        for name in ["n1", "n2", "n3"] {
            #expect(cluster.ids(on: name, of: volume.id) == marks.map(\.id))
        }
        #expect(cluster.node("n1").shelf.asked.count == 1)
        #expect(try await cluster.plane.snapshots(of: "v").map(\.name) == ["a", "b"])
        #expect(try await cluster.plane.volume("v").snapshotCount == 2)
        #expect(try await cluster.events("snapshot.created").count == 2)
        let twice = await controlError { () throws(ControlError) in
            try await cluster.snapshot("a")
        }
        #expect(twice?.code == .alreadyExists)
        try await cluster.cluster.requireAgreement("snapshots")
        await cluster.stop()
    }

    @Test("A volume that nobody has is served to nobody for its snapshot, under a lease of its own")
    func take_detached_isServedToNobody() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        let written = Mutex<[UInt64?]>([])
        cluster.node("n1").shelf.whenServing { [metadata = cluster.cluster.metadata] assignment in
            let record = try? await metadata.volume(id: assignment.volume)?.value
            written.withLock { $0.append(record?.leaseEpoch) }
        }
        try await cluster.snapshot()
        let asked = cluster.node("n1").shelf.asked
        #expect(asked.map(\.access) == [.none] && asked.map(\.leaseEpoch) == [1])
        #expect(written.withLock { $0 } == [1])
        #expect(cluster.node("n1").shelf.assignments.isEmpty)
        #expect(try await cluster.record().served == nil)
        #expect(try await cluster.marks().map { $0.number >> 36 } == [1])
        // The next to have it gets a later lease, and what was asked for before harms nobody.
        let attachment = try await cluster.attach()
        #expect(try await cluster.assignment()?.leaseEpoch == 2)
        #expect(attachment.node == "n1")
        try await cluster.heartbeat("n1")
        #expect(
            try await cluster.eventually { try await cluster.events("volume.served").count == 1 }
        )
        #expect(volume.id == asked.first?.volume)
        await cluster.stop()
    }

    @Test("A detached volume whose last primary is down is served by another node for it")
    func take_detachedPrimaryDown_asksAnother() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.kill("n1")
        try await cluster.snapshot("a")
        // And where it is not known to be down yet.
        let primary = try await cluster.record().primary
        #expect(primary != "n1")
        try await cluster.restart("n1")
        cluster.node(primary).shelf.presence = .dead
        try await cluster.snapshot("b")
        #expect(try await cluster.record().primary != primary)
        let marks = try await cluster.marks()
        #expect(marks.count == 2 && marks[0].number < marks[1].number)
        #expect(cluster.ids(on: "n1", of: volume.id) == [marks[1].id])
        await cluster.stop()
    }

    @Test("When the primary dies before it answers, the next one is asked for the same snapshot")
    func take_primaryDies_asksNext() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        let lost = ControlError(.outcomeUnknown, "nobody knows")
        cluster.node("n1").replicas.failNextTaking(lost, isTaken: true)
        cluster.node("n1").replicas.whenTaking {
            cluster.node("n1").replicas.whenTaking(nil)
            cluster.node("n1").shelf.presence = .dead
            try? await cluster.cluster.expireLease(of: "n1")
        }
        try await cluster.snapshot()
        let record = try await cluster.record()
        #expect(record.primary != "n1" && record.leaseEpoch == 2 && record.pending == nil)
        let mark = try #require(try await cluster.marks().first)
        #expect(cluster.node("n1").replicas.asked == [mark.id])
        #expect(cluster.node(record.primary).replicas.asked.last == mark.id)
        // The first one had numbered it, and that it stays.
        #expect(mark.number >> 36 == 1)
        for name in ["n2", "n3"] { #expect(cluster.ids(on: name, of: volume.id) == [mark.id]) }
        await cluster.stop()
    }

    @Test("A primary that cannot say yet is asked again for the same snapshot")
    func take_busy_isRepeated() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.attach()
        for code in [ControlError.Code.unavailable, .busy, .outcomeUnknown] {
            cluster.node("n1").replicas.failNextTaking(ControlError(code, "Not yet."))
        }
        try await cluster.snapshot()
        let asked = cluster.node("n1").replicas.asked
        #expect(asked.count == 4 && Set(asked).count == 1)
        await cluster.stop()
    }

    @Test("A snapshot that is refused is not there, nor what was taken of it all the same")
    func take_refused_leavesNothing() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        let full = ControlError(.noSpace, "The store is full.")
        cluster.node("n1").replicas.failNextTaking(full, isTaken: true)
        let error = await controlError { () throws(ControlError) in
            try await cluster.snapshot()
        }
        #expect(error?.code == .noSpace)
        #expect(try await cluster.plane.snapshots(of: "v").isEmpty)
        #expect(
            try await cluster.eventually {
                ["n1", "n2", "n3"].allSatisfy { cluster.ids(on: $0, of: volume.id).isEmpty }
            }
        )
        try await cluster.snapshot()
        try await cluster.cluster.requireAgreement("a refused snapshot")
        await cluster.stop()
    }

    @Test("A volume has no more snapshots than its replicas can tell of")
    func take_tooMany_isRefused() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        let snapshots = (0..<APILimits.replicaSnapshotCountMax).map { index in
            SnapshotRecord(
                name: "s\(index)",
                layer: 0,
                byteCount: 4096,
                createdAt: Date(),
                mark: SnapshotMarkRecord(id: UInt64(index) + 1, number: UInt64(index) + 1)
            )
        }
        try await cluster.cluster.plant(snapshots, of: volume.id)
        let error = await controlError { () throws(ControlError) in
            try await cluster.snapshot("more")
        }
        #expect(error?.code == .limitReached)
        #expect(error?.help?.contains("volctl snapshot list v") == true)
        await cluster.stop()
    }

    // MARK: - Deleting

    @Test("A deletion reaches every node, and one that was away when it is back")
    func delete_nodeAway_isCompletedLater() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        let volume = try await cluster.create()
        let front = try #require(
            cluster.cluster.nodes.map(\.name).first { cluster.node($0).held.isEmpty }
        )
        try await cluster.attach(via: front)
        try await cluster.snapshot("a")
        try await cluster.snapshot("b")
        let kept = try await cluster.marks()[1].id
        let away = try #require(try await cluster.record().placements?.last?.node)
        try await cluster.kill(away)
        try await cluster.plane.deleteSnapshot("a", of: "v", operation: "d")
        #expect(try await cluster.plane.snapshots(of: "v").map(\.name) == ["b"])
        for name in try await cluster.record().holders where name != away {
            #expect(cluster.ids(on: name, of: volume.id) == [kept])
        }
        #expect(cluster.ids(on: away, of: volume.id).count == 2)
        try await cluster.restart(away)
        #expect(
            try await cluster.eventually { cluster.ids(on: away, of: volume.id) == [kept] }
        )
        #expect(try await cluster.events("snapshot.deleted").count == 1)
        await cluster.stop()
    }

    @Test("A snapshot on a node that nobody knows is deleted, and one that is known is not")
    func compare_unknown_isDeleted() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.snapshot()
        let known = try await cluster.marks().map(\.id)
        cluster.node("n2").seal(77, 1 << 36 | 99, of: volume.id)
        await cluster.plane.compareNow("n2")
        #expect(cluster.ids(on: "n2", of: volume.id) == known)
        await cluster.stop()
    }

    @Test("An image of a replicated volume keeps its snapshot, and is cloned like it")
    func image_life() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        try await cluster.snapshot()
        let plane = cluster.plane
        let creation = ImageCreation(name: "i", version: "1", volume: "v", snapshot: "s")
        _ = try await plane.createImage(creation, operation: "i")
        let kept = await controlError { () throws(ControlError) in
            try await plane.deleteSnapshot("s", of: "v", operation: "d1")
        }
        #expect(kept?.code == .inUse)
        let clone = CloneCreation(name: "c")
        let made = try await plane.cloneImage("i", version: "1", clone, operation: "c")
        #expect(made.source == VolumeSource(volume: "v", snapshot: "s"))
        #expect(made.replicas.count == 3)
        try await plane.deleteImage("i", version: "1", operation: "d2")
        try await plane.deleteSnapshot("s", of: "v", operation: "d3")
        try await cluster.cluster.requireAgreement("an image's life")
        await cluster.stop()
    }
}

extension Cluster {
    /// Writes snapshots into the metadata that nobody took.
    func plant(_ snapshots: [SnapshotRecord], of volume: UInt64) async throws {
        let digits = String(volume, radix: 16)
        let id = String(repeating: "0", count: 16 - digits.count) + digits
        for snapshot in snapshots {
            let key = "/cairn/default/sn/\(id)/\(snapshot.name)"
            let value = try JSONEncoder().encode(snapshot)
            let put = MetaOperation.put(key, value, lease: nil)
            _ = try await store.transact(MetaTransaction(success: [put]))
        }
    }
}
