// Replicated volumes: where they are made, who serves them, and what becomes of them when nodes do
// not answer.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Synchronization
import Testing

@Suite("Replicated volumes", .timeLimit(.minutes(3)))
struct ReplicatedVolumeTests {
    @Test("Three nodes get three replicas of one volume, each with an instance of its own")
    func create_default_isOnThree() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create(replicas: nil, node: "n2")
        #expect(volume.primary == "n2")
        #expect(Set(volume.replicas) == ["n1", "n2", "n3"])
        #expect(volume.replicaStates?.map(\.state) == [.unknown, .unknown, .unknown])
        let record = try await cluster.record()
        #expect(record.writeQuorum == 2)
        let instances = record.placements?.map(\.instance) ?? []
        #expect(Set(instances).count == 3)
        for placement in record.placements ?? [] {
            let held = cluster.node(placement.node).held[volume.id]
            #expect(held?.creation.replica?.instance == placement.instance)
            #expect(held?.creation.replica?.isReplacement == false)
            #expect(placement.instance <= APILimits.instanceMax)
        }
        let two = try await cluster.create("two", replicas: 2)
        #expect(two.replicas.count == 2)
        #expect(try await cluster.record("two").writeQuorum == 2)
        let one = try await cluster.create("one", replicas: 1)
        #expect(one.replicaStates == nil)
        try await cluster.cluster.requireAgreement("creation")
        await cluster.stop()
    }

    @Test("More replicas than nodes that are up and not draining are refused")
    func create_tooMany_isRefused() async throws {
        let cluster = try await ReplicatedCluster()
        _ = try await cluster.plane.updateNode("n3", NodeUpdate(draining: true))
        for (count, code) in [
            (3, ControlError.Code.unavailable), (6, .invalidArgument), (0, .invalidArgument),
        ] {
            let error = await controlError { () throws(ControlError) in
                let creation = VolumeCreation(name: "v", byteCount: 4096, replicas: count)
                _ = try await cluster.plane.createVolume(creation, operation: "k\(count)")
            }
            #expect(error?.code == code)
            if count == 3 { #expect(error?.help?.contains("--replicas 2") == true) }
        }
        await cluster.stop()
    }

    @Test("A node that fails to make its replica leaves nothing behind, there and elsewhere")
    func create_oneFails_isUndone() async throws {
        let cluster = try await ReplicatedCluster()
        cluster.node("n3").shelf.presence = .dead
        let error = await controlError { () throws(ControlError) in
            let creation = VolumeCreation(name: "v", byteCount: 4096, replicas: 3)
            _ = try await cluster.plane.createVolume(creation, operation: "k")
        }
        #expect(error?.code == .unavailable)
        #expect(try await cluster.cluster.metadata.volume(named: "v") == nil)
        for node in cluster.cluster.nodes { #expect(node.held.isEmpty) }
        try await cluster.restart("n3")
        try await cluster.create()
        await cluster.stop()
    }

    @Test("A deletion does not wait for a node that is dead; its copy goes when it is back")
    func delete_nodeDead_isCompletedLater() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.kill("n3")
        try await cluster.plane.deleteVolume("v", operation: "d")
        #expect(try await cluster.cluster.metadata.volume(named: "v") == nil)
        #expect(cluster.node("n1").held.isEmpty && cluster.node("n2").held.isEmpty)
        #expect(cluster.node("n3").held[volume.id] != nil)
        try await cluster.restart("n3")
        #expect(try await cluster.eventually { cluster.node("n3").held.isEmpty })
        #expect(
            try await cluster.eventually {
                try await cluster.cluster.metadata.discardedReplicas(of: "n3").isEmpty
            }
        )
        await cluster.stop()
    }

    @Test("A larger size reaches the primary and all replicas, also one that was away")
    func resize_oneAway_catchesUp() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        try await cluster.kill("n3")
        let update = VolumeUpdate(byteCount: 2 << 20)
        let resized = try await cluster.plane.updateVolume("v", update, operation: "r")
        #expect(resized.byteCount == 2 << 20)
        #expect(cluster.node("n2").held[volume.id]?.creation.byteCount == 2 << 20)
        #expect(try await cluster.assignment()?.byteCount == 2 << 20)
        #expect(try await cluster.assignment()?.leaseEpoch == 1)
        try await cluster.restart("n3")
        #expect(
            try await cluster.eventually {
                cluster.node("n3").held[volume.id]?.creation.byteCount == 2 << 20
            }
        )
        await cluster.stop()
    }

    // MARK: - Attaching

    @Test("The lease epoch is in the metadata before a node hears of it")
    func attach_epoch_isWrittenFirst() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        let known = Mutex<[(told: UInt64, written: UInt64?, primary: String)]>([])
        for node in cluster.cluster.nodes {
            node.shelf.whenServing { [metadata = cluster.cluster.metadata] assignment in
                let record = try? await metadata.volume(id: assignment.volume)?.value
                known.withLock {
                    $0.append((assignment.leaseEpoch, record?.leaseEpoch, record?.primary ?? ""))
                }
            }
        }
        let first = try await cluster.attach()
        #expect(first.node == "n1")
        #expect(first.nbdURI == "nbd://127.0.0.1:10809/v:\(first.epoch)")
        let assignment = try #require(try await cluster.assignment())
        #expect(assignment.leaseEpoch == 1 && assignment.exportEpoch == first.epoch)
        #expect(assignment.access == .readWrite && assignment.writeQuorum == 2)
        #expect(
            Set(assignment.placements.map(\.peerEndpoint))
                == ["127.0.0.1:7900", "127.0.0.1:7901", "127.0.0.1:7902"]
        )
        // The same host again: nothing changes, and another node moves it.
        let again = try await cluster.attach()
        #expect(again.nbdURI == first.nbdURI)
        #expect(try await cluster.record().leaseEpoch == 1)
        let moved = try await cluster.attach(via: "n2")
        #expect(moved.nbdURI == "nbd://127.0.0.1:10810/v:\(first.epoch)")
        #expect(cluster.node("n1").shelf.stops.count == 1)
        #expect(cluster.node("n1").shelf.assignments.isEmpty)
        let taken = try await cluster.attach("h2", via: "n3", force: true)
        #expect(taken.epoch > first.epoch)
        known.withLock { all in
            #expect(all.map(\.told) == [1, 2, 3])
            #expect(all.map(\.written) == [1, 2, 3])
            #expect(all.map(\.primary) == ["n1", "n2", "n3"])
        }
        try await cluster.plane.detach("v", from: "h2", operation: "d")
        #expect(cluster.node("n3").shelf.assignments.isEmpty)
        #expect(try await cluster.record().served == nil)
        #expect(try await cluster.record().leaseEpoch == 3)
        await cluster.stop()
    }

    @Test("A node without a replica may be the primary")
    func attach_viaOther_isServed() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.create()
        let other = try #require(
            cluster.cluster.nodes.map(\.name).first { name in
                cluster.node(name).held.isEmpty
            }
        )
        let attachment = try await cluster.attach(via: other)
        #expect(attachment.node == other)
        let shown = try await cluster.plane.volume("v")
        #expect(shown.primary == other && !shown.replicas.contains(other))
        #expect(shown.space != nil)
        let error = await controlError { () throws(ControlError) in
            try await cluster.attach(via: "n9")
        }
        #expect(error?.code == .nodeNotFound)
        await cluster.stop()
    }

    @Test("A volume is taken over from a primary that is frozen", arguments: [nil, "n2"])
    func attach_forcedFromFrozen_isQuick(via: String?) async throws {
        let cluster = try await ReplicatedCluster(patience: 1)
        try await cluster.create()
        let first = try await cluster.attach()
        cluster.node("n1").shelf.presence = .frozen
        let taken = try await cluster.attach("h2", via: via, force: true)
        #expect(taken.node != "n1" && taken.epoch > first.epoch)
        #expect(try await cluster.assignment()?.leaseEpoch == 2)
        await cluster.stop()
    }

    @Test("A primary that refuses leaves the volume as it was; the host that had it keeps it")
    func attach_refused_isUndone() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        let first = try await cluster.attach()
        cluster.node("n2").shelf.refuse(1)
        let error = await controlError { () throws(ControlError) in
            try await cluster.attach("h2", via: "n2", force: true)
        }
        #expect(error?.code == .limitReached)
        let current = try await cluster.plane.attachments(of: "v").filter { $0.state == .attached }
        #expect(current.map(\.host) == ["h1"] && current[0].epoch == first.epoch)
        // It may have been told: whoever serves now does so under another epoch.
        #expect(
            try await cluster.eventually {
                guard let assignment = try await cluster.assignment() else { return false }
                return assignment.exportEpoch == first.epoch && assignment.leaseEpoch > 2
            }
        )
        await cluster.stop()
    }

    @Test("A node that was frozen when its volume was detached is told to stop when it is heard")
    func compare_straysServed_areStopped() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        let stray = try #require(try await cluster.assignment())
        try await cluster.attach(via: "n2")
        cluster.node("n3").shelf.session = stray.session
        _ = try await cluster.node("n3").serve(stray)
        await cluster.plane.compareNow("n3")
        #expect(cluster.node("n3").shelf.assignments.isEmpty)
        await cluster.plane.compareNow("n2")
        #expect(cluster.node("n2").shelf.assignments[volume.id] != nil)
        await cluster.stop()
    }

    @Test("Readers share a primary, which hears of the first and of the last only")
    func attach_readers_share() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        for host in ["h1", "h2"] {
            let creation = AttachmentCreation(host: host, readOnly: true)
            _ = try await cluster.plane.attach("v", creation, operation: host)
        }
        #expect(cluster.node("n1").shelf.asked.map(\.access) == [.readOnly])
        try await cluster.plane.detach("v", from: "h1", operation: "d1")
        #expect(cluster.node("n1").shelf.assignments.count == 1)
        try await cluster.plane.detach("v", from: "h2", operation: "d2")
        #expect(cluster.node("n1").shelf.assignments.isEmpty)
        await cluster.stop()
    }

    @Test("A replica that has promised more than the metadata knows of is believed")
    func compare_promisedMore_isTaken() async throws {
        let cluster = try await ReplicatedCluster()
        let volume = try await cluster.create()
        try await cluster.attach()
        cluster.node("n2").setPromise(volume.id, 40)
        await cluster.plane.compareNow("n2")
        #expect(
            try await cluster.eventually { try await cluster.assignment()?.leaseEpoch == 41 }
        )
        #expect(try await cluster.events("volume.epoch_ahead").count == 1)
        await cluster.stop()
    }
}
