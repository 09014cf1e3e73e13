// Nodes, their heartbeats, and the events that tell the story.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Nodes and events", .timeLimit(.minutes(3)))
struct NodeTests {
    @Test("A node is up while its heartbeats come, and has to register again when they did not")
    func heartbeat_life() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        let session = try #require(try await cluster.register(with: plane)["n1"])
        var space = StoreSpaceUsage.empty
        space.availableByteCount = 42
        let heartbeat = NodeHeartbeat(session: session, space: space)
        try await plane.heartbeat("n1", heartbeat)
        #expect(try await plane.node("n1").state == .up)
        #expect(try await plane.node("n1").space?.availableByteCount == 42)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        #expect(try await plane.node("n1").state == .down)
        let late = await controlError { () throws(ControlError) in
            try await plane.heartbeat("n1", heartbeat)
        }
        #expect(late?.code == .nodeNotFound)
        try await cluster.register(with: plane)
        #expect(try await plane.node("n1").state == .up)
    }

    @Test("After a restart of the service the sessions of nodes go on")
    func heartbeat_afterRestart() async throws {
        let cluster = try await Cluster()
        let session = try #require(try await cluster.register(with: cluster.plane())["n1"])
        let restarted = cluster.plane()
        let heartbeat = NodeHeartbeat(session: session, space: .empty)
        try await restarted.heartbeat("n1", heartbeat)
        #expect(try await restarted.node("n1").state == .up)
        let foreign = await controlError { () throws(ControlError) in
            let heartbeat = NodeHeartbeat(session: session &+ 1, space: .empty)
            try await restarted.heartbeat("n1", heartbeat)
        }
        #expect(foreign?.code == .nodeNotFound)
    }

    @Test("A store under another node's name, and another store under a name in use, are refused")
    func register_otherStore_isRefused() async throws {
        let (_, plane) = try await Cluster.serving()
        let sameStore = await controlError { () throws(ControlError) in
            _ = try await plane.registerNode("n2", Cluster.registration(0))
        }
        #expect(sameStore?.code == .alreadyExists)
        #expect(sameStore?.help?.contains("--name n1") == true)
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        let otherStore = await controlError { () throws(ControlError) in
            _ = try await plane.registerNode("n1", Cluster.registration(5))
        }
        #expect(otherStore?.code == .alreadyExists)
    }

    @Test("Two nodes do not share a name, not even while the first holds nothing")
    func register_nameOfLiveNode_isRefused() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let second = await controlError { () throws(ControlError) in
            _ = try await plane.registerNode("n1", Cluster.registration(5))
        }
        #expect(second?.code == .alreadyExists)
        #expect(second?.help?.contains("--name") == true)
        #expect(second?.help?.contains("counts as down after 10 s") == true)
        #expect(try await plane.node("n1").storeIdentity == Cluster.registration(0).storeIdentity)
        // Once the first is gone, its name is free for a new store.
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        _ = try await plane.registerNode("n1", Cluster.registration(5))
        #expect(try await plane.node("n1").storeIdentity == Cluster.registration(5).storeIdentity)
    }

    @Test("A node is forgotten when it is down and holds nothing")
    func delete_needsDownAndEmpty() async throws {
        let (cluster, plane) = try await Cluster.serving()
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        func deletion() async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                try await plane.deleteNode("n1", isLost: false)
            }?.code
        }
        #expect(await deletion() == .inUse)
        try await plane.deleteVolume("v", operation: "k2")
        #expect(await deletion() == .inUse)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        #expect(await deletion() == nil)
        #expect(try await plane.nodes().isEmpty)
    }

    @Test("A lost node is forgotten with its volumes, their snapshots and images, and no others")
    func delete_lost_frees_names() async throws {
        let (cluster, plane) = try await Cluster.serving(nodeNames: ["n1", "n2"])
        for (name, node) in [("v", "n1"), ("w", "n2")] {
            let creation = VolumeCreation(name: name, byteCount: 4096, node: node)
            _ = try await plane.createVolume(creation, operation: "c-\(name)")
            let snapshot = SnapshotCreation(name: "s")
            _ = try await plane.createSnapshot(of: name, snapshot, operation: "s-\(name)")
            let image = ImageCreation(name: "i-\(name)", version: "1", volume: name, snapshot: "s")
            _ = try await plane.createImage(image, operation: "i-\(name)")
        }
        func loss(_ node: String) async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                try await plane.deleteNode(node, isLost: true)
            }?.code
        }
        // Not while it lives: its volumes are not lost.
        #expect(await loss("n1") == .inUse)
        #expect(try await plane.volume("v").snapshotCount == 1)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        try await cluster.register(with: plane, only: "n2")
        #expect(await loss("n1") == nil)
        #expect(try await plane.nodes().map(\.name) == ["n2"])
        #expect(try await plane.volumes(after: nil, countMax: 10).volumes.map(\.name) == ["w"])
        #expect(try await plane.images().map(\.name) == ["i-w"])
        let again = VolumeCreation(name: "v", byteCount: 8192)
        let made = try await plane.createVolume(again, operation: "again")
        #expect(made.primary == "n2")
        #expect(try await plane.volume("v").snapshotCount == 0)
    }

    @Test("Wherever forgetting a lost node stops, no image is left of a volume that is gone")
    func delete_lost_interrupted_leavesNoImages() async throws {
        for step in 1... {
            let cluster = try await Cluster()
            let plane = cluster.plane(withFaults: true)
            try await cluster.register(with: plane)
            let creation = VolumeCreation(name: "v", byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "k0")
            let snapshot = SnapshotCreation(name: "s")
            _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
            for version in ["1", "2"] {
                let image = ImageCreation(name: "i", version: version, volume: "v", snapshot: "s")
                _ = try await plane.createImage(image, operation: "i\(version)")
            }
            try await cluster.store.expireLeases(now: .now + .seconds(60))
            cluster.faults.arm(.crashAfter, step: step)
            let error = await controlError { () throws(ControlError) in
                try await plane.deleteNode("n1", isLost: true)
            }
            let metadata = cluster.metadata
            for image in try await metadata.images() {
                #expect(try await metadata.volume(id: image.volumeID) != nil, "step \(step)")
            }
            guard error != nil else { break }
            if try await metadata.node("n1") != nil {
                try await cluster.plane().deleteNode("n1", isLost: true)
            }
            #expect(try await metadata.images().isEmpty)
        }
    }

    @Test("A lost volume's pending operation is forgotten with it, under all its keys")
    func delete_lost_forgetsPending() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k0")
        for key in ["k1", "k2"] {
            cluster.faults.arm(.lostRequest, step: 1)
            _ = await controlError { () throws(ControlError) in
                let snapshot = SnapshotCreation(name: "s")
                _ = try await plane.createSnapshot(of: "v", snapshot, operation: key)
            }
            #expect(try await cluster.metadata.operation(key) != nil)
        }
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        try await plane.deleteNode("n1", isLost: true)
        for key in ["k1", "k2"] { #expect(try await cluster.metadata.operation(key) == nil) }
    }

    @Test("A purge whose answer was lost is ended by its repetition, and nothing is kept of it")
    func purge_answerLost_isRepeated() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k")
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        try await plane.deleteNode("n1", isLost: true)
        try await cluster.register(with: plane)
        func purge() async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                try await plane.deleteStray(volume.id, of: "n1")
            }?.code
        }
        cluster.faults.arm(.lostAnswer, step: 1)
        #expect(await purge() == .outcomeUnknown)
        #expect(try await cluster.metadata.lostVolume(volume.id) != nil)
        #expect(await purge() == nil)
        #expect(try await cluster.metadata.lostVolume(volume.id) == nil)
        let kinds = try await plane.events(after: 0, countMax: 100).events.map(\.kind)
        #expect(kinds.filter { $0 == "volume.purged" }.count == 1)
        #expect(await purge() == .volumeNotFound)
    }

    @Test("A purge that finds nothing keeps what closes a lost volume until its store is there")
    func purge_otherStore_keepsRecord() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let node = cluster.nodes[0]
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k1")
        _ = try await plane.attach("v", AttachmentCreation(host: "h1"), operation: "k2")
        let held = try #require(node.held[volume.id])
        func forget() async throws {
            try await cluster.store.expireLeases(now: .now + .seconds(60))
            try await plane.deleteNode("n1", isLost: true)
        }
        // Under its name comes a node with another disk.
        try await forget()
        node.lose(volume.id)
        _ = try await plane.registerNode("n1", Cluster.registration(5))
        let refused = await controlError { () throws(ControlError) in
            try await plane.deleteStray(volume.id, of: "n1")
        }
        #expect(refused?.code == .volumeNotFound)
        #expect(refused?.detail.contains("another store") == true, "\(refused?.detail ?? "")")
        // The old disk comes back after all.
        try await forget()
        node.plant(held.creation)
        node.setAccess(volume.id, held.access, epoch: held.epoch)
        try await cluster.register(with: plane)
        try await plane.recover()
        #expect(node.held[volume.id]?.access == NodeVolumeAccess.none)
        try await plane.deleteStray(volume.id, of: "n1")
        #expect(try await cluster.metadata.lostVolume(volume.id) == nil)
    }

    /// What a node with these stores says, as it does from its second start on.
    private func registration(_ stores: Int..., lost: Int...) -> NodeRegistration {
        func identity(_ number: Int) -> String { String(repeating: "\(number)", count: 32) }
        var registration = Cluster.registration(stores[0])
        registration.stores = stores.map { number in
            NodeStore(path: "/dev/\(number)", identity: identity(number), space: .empty)
        }
        registration.lostStores = lost.isEmpty ? nil : lost.map(identity)
        return registration
    }

    @Test("A node says what its volumes would take if they were written in full")
    func node_volumes_areProvisioned() async throws {
        let (_, plane) = try await Cluster.serving()
        #expect(try await plane.node("n1").provisionedByteCount == 0)
        for (name, byteCount) in [("v", 4096), ("w", 1 << 40)] as [(String, UInt64)] {
            let creation = VolumeCreation(name: name, byteCount: byteCount)
            _ = try await plane.createVolume(creation, operation: name)
        }
        #expect(try await plane.node("n1").provisionedByteCount == (1 << 40) + 4096)
        #expect(try await plane.nodes().map(\.provisionedByteCount) == [(1 << 40) + 4096])
    }

    @Test("A node gains stores, and loses none that it had, whichever it is")
    func register_oneStoreMissing_isRefused() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        func refusal(
            _ registration: NodeRegistration,
            _ name: String = "n1"
        ) async -> ControlError? {
            await controlError { () throws(ControlError) in
                _ = try await plane.registerNode(name, registration)
            }
        }
        // Its first word is of one store, as that of older programs.
        _ = try await plane.registerNode("n1", Cluster.registration(1))
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k")
        #expect(await refusal(registration(1, 2)) == nil)
        #expect(await refusal(registration(2, 1, 3)) == nil)
        for wrong in [
            registration(2, 1), registration(1, 2, 4), registration(1), registration(2, 3, 4),
        ] {
            let error = await refusal(wrong)
            #expect(error?.code == .alreadyExists)
            #expect(error?.detail.contains("came without its store") == true)
            #expect(error?.help?.contains("--lost-store") == true)
        }
        // Nor does one of its stores go to another node.
        let small = await refusal(registration(7, 8, 9), "N1")
        #expect(small?.detail.contains("large and small letters") == true)
        let taken = await refusal(registration(7, 3), "n2")
        #expect(taken?.detail.contains("belongs to the node 'n1'") == true)
        // Of what it does not tell nobody knows, and it is held against it later on.
        var silent = registration(1, 2, 3)
        silent.stores?[2].identity = nil
        #expect(await refusal(silent) == nil)
        #expect(await refusal(Cluster.registration(1)) == nil)
        #expect(await refusal(registration(1, 2))?.code == .alreadyExists)
        let stores = try await cluster.metadata.node("n1")?.value.storeIdentities.count
        #expect(stores == 3)
        // Somebody says that it is lost, and from then on it is not missed.
        #expect(await refusal(registration(1, 2, lost: 3)) == nil)
        #expect(await refusal(registration(1, 2)) == nil)
        let events = try await plane.events(after: 0, countMax: 100).events
        #expect(events.contains { $0.message.contains("without the store 3333") })
        // Each reason once, however often the node asks.
        let refusals = events.filter { $0.kind == "node.refused" }.map(\.message)
        #expect(refusals.contains { $0.contains("--lost-store") })
        #expect(zip(refusals, refusals.dropFirst()).allSatisfy { $0 != $1 })
        // Without volumes there is nothing to lose.
        try await plane.deleteVolume("v", operation: "d")
        #expect(await refusal(registration(1)) == nil)
    }

    @Test("A node that drains gets no new volumes, not even by name, but clones of what it has")
    func draining_byName_isRefused() async throws {
        let (cluster, plane) = try await Cluster.serving(nodeNames: ["n1", "n2"])
        let creation = VolumeCreation(name: "v", byteCount: 4096, node: "n1")
        _ = try await plane.createVolume(creation, operation: "k0")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
        _ = try await plane.updateNode("n1", NodeUpdate(draining: true))
        let error = await controlError { () throws(ControlError) in
            let creation = VolumeCreation(name: "w", byteCount: 4096, node: "n1")
            _ = try await plane.createVolume(creation, operation: "k2")
        }
        #expect(error?.code == .unavailable)
        #expect(error?.help?.contains("'volctl node drain n1 --undo'") == true)
        #expect(cluster.nodes[0].held.count == 1)
        let clone = CloneCreation(name: "c")
        let made = try await plane.clone("v", snapshot: "s", clone, operation: "k3")
        #expect(made.primary == "n1")
    }

    @Test("A lost node that comes back serves nothing of what was forgotten, until it is purged")
    func lostNode_comesBack_isClosed() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k1")
        let host = AttachmentCreation(host: "h1")
        let attachment = try await plane.attach("v", host, operation: "k2")
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        try await plane.deleteNode("n1", isLost: true)
        try await cluster.register(with: plane)
        try await plane.recover()
        let closed = try #require(cluster.nodes[0].held[volume.id])
        #expect(closed.access == .none && closed.epoch > attachment.epoch)
        let strays = try await plane.strays(of: "n1")
        #expect(strays.map(\.id) == [volume.id])
        try await plane.deleteStray(volume.id, of: "n1")
        #expect(try await plane.strays(of: "n1").isEmpty)
        // Its name is free again, here too; and what the cluster knows is not purged.
        let again = try await plane.createVolume(creation, operation: "k3")
        let refused = await controlError { () throws(ControlError) in
            try await plane.deleteStray(again.id, of: "n1")
        }
        #expect(refused?.code == .inUse)
        #expect(refused?.help?.contains("volctl volume delete v") == true)
        #expect(cluster.nodes[0].held[again.id] != nil)
        let kinds = try await plane.events(after: 0, countMax: 100).events.map(\.kind)
        #expect(kinds.contains("volume.closed") && kinds.contains("volume.purged"))
    }

    @Test(
        "One whose epoch is the last that there is, or beyond, is closed under it",
        arguments: [APILimits.epochMax, .max]
    )
    func lostNode_lastEpoch_isClosed(epoch: UInt64) async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k1")
        cluster.nodes[0].setAccess(volume.id, .readWrite, epoch: epoch)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        try await plane.deleteNode("n1", isLost: true)
        try await cluster.register(with: plane)
        try await plane.recover()
        let closed = try #require(cluster.nodes[0].held[volume.id])
        #expect(closed.access == .none && closed.epoch == epoch)
    }

    @Test("A node that fills is reported when it says so, each state once until there is room")
    func heartbeat_storeFills_isReported() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        let session = try #require(try await cluster.register(with: plane)["n1"])
        // What is scarce, the node decides.
        let words: [(percent: Int, room: StoreRoom?)] = [
            (99, nil), (84, .ample), (60, .scarce), (59, .scarce), (93, .refusing), (92, .scarce),
            (93, .refusing), (99, .ample), (70, .refusing), (70, .ample), (70, .ample),
        ]
        for (percent, room) in words {
            var space = StoreSpaceUsage.empty
            space.availableByteCount = 15 << 30
            space.fullestPercent = percent
            space.room = room
            try await plane.heartbeat("n1", NodeHeartbeat(session: session, space: space))
        }
        let events = try await plane.events(after: 0, countMax: 10).events
        #expect(
            events.map(\.kind) == [
                "node.up", "node.filling", "node.full", "node.roomy", "node.full", "node.roomy",
            ]
        )
        #expect(events[1].message.hasPrefix("60% of its fullest store is used, 15GiB are left in "))
        #expect(events[2].message.hasPrefix("refuses writes: 93% of its fullest store is used, "))
    }

    @Test("What a node could not serve is reported")
    func heartbeat_requestsFail_isReported() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        let session = try #require(try await cluster.register(with: plane)["n1"])
        let failures = StoreFailures(stopped: true, requestCount: 2, volume: "v")
        let beat = NodeHeartbeat(
            session: session,
            space: .empty,
            stores: [NodeStore(path: "/b", identity: nil, space: .empty, failures: failures)]
        )
        try await plane.heartbeat("n1", beat)
        let events = try await plane.events(after: 0, countMax: 10).events
        #expect(events.map(\.kind) == ["node.up", "node.store_stopped", "node.damaged"])
        #expect(events[1].message.hasPrefix("its store /b has stopped"))
        let told = "2 requests to its store /b failed since it was started, the last of volume v"
        #expect(events[2].message.hasPrefix(told))
    }

    @Test("A node's stores are shown one by one, as it last told of them")
    func node_stores_areShown() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        let session = try #require(try await cluster.register(with: plane)["n1"])
        #expect(try await plane.node("n1").stores == nil, "it tells nothing of them")
        var space = StoreSpaceUsage.empty
        space.liveByteCount = 7
        let stores = [
            NodeStore(path: "/dev/a", identity: String(repeating: "a", count: 32), space: .empty),
            NodeStore(path: "/dev/b", identity: nil, space: space),
        ]
        let beat = NodeHeartbeat(session: session, space: .empty, stores: stores)
        try await plane.heartbeat("n1", beat)
        #expect(try await plane.node("n1").stores == stores)
        #expect(try await plane.nodes().map(\.stores) == [stores])
        var registration = Cluster.registration(0)
        registration.stores = [stores[1]]
        _ = try await plane.registerNode("n1", registration)
        #expect(try await plane.node("n1").stores == [stores[1]])
    }

    @Test("Of the stores of a node bytes are added, and the worst one counts")
    func space_ofStores() throws {
        func store(_ percent: Int, _ room: StoreRoom) -> StoreSpaceUsage {
            var space = StoreSpaceUsage.empty
            space.fullestPercent = percent
            space.room = room
            return space
        }
        let sum = StoreSpaceUsage(
            stores: [store(0, .ample), store(93, .refusing), store(99, .scarce)]
        )
        #expect(sum.capacityByteCount == 3 << 30 && sum.availableByteCount == 3 << 30)
        #expect(sum.usedPercent == 99 && sum.room == .refusing)
        #expect(StoreSpaceUsage(stores: []).usedPercent == 0)
        let text = try ControlJSON.encoder().encode(sum)
        #expect(String(decoding: text, as: UTF8.self).contains(#""fullest_percent":99"#))
        // Nodes that say nothing of it.
        let data = Data(
            #"""
            {"capacity_byte_count":4,"live_byte_count":1,"available_byte_count":3,
            "garbage_byte_count":0}
            """#.utf8
        )
        let older = try ControlJSON.decoder().decode(StoreSpaceUsage.self, from: data)
        #expect(older.usedPercent == 25 && older.room == nil)
    }

    @Test("Events tell the story in order, from any revision on, and go on when followed")
    func events_followed() async throws {
        let (_, plane) = try await Cluster.serving()
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        let page = try await plane.events(after: 0, countMax: 10)
        #expect(page.events.map(\.kind) == ["node.up", "volume.created"])
        let stream = try await plane.followEvents(after: page.events[0].revision)
        try await plane.deleteVolume("v", operation: "k2")
        var kinds: [String] = []
        for await batch in stream {
            kinds += batch.map(\.kind)
            if kinds.count == 2 { break }
        }
        #expect(kinds == ["volume.created", "volume.deleted"])
        #expect(try await plane.events(after: page.nextAfter, countMax: 10).events.count == 1)
    }

    @Test("The running service reports a node that falls silent, and stops when told")
    func run_nodeSilent_isReported() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let running = Task { await plane.run() }
        let stream = try await plane.followEvents(after: 0)
        // The lease is ended as time would; the service's own watch has to notice. It may not
        // watch yet, so the node comes back and goes again until it does.
        let ender = Task {
            while !Task.isCancelled {
                try? await cluster.store.expireLeases(now: .now + .seconds(60))
                try? await Task.sleep(for: .milliseconds(50))
                _ = try? await cluster.register(with: plane)
            }
        }
        for await batch in stream where batch.contains(where: { $0.kind == "node.down" }) { break }
        ender.cancel()
        plane.stop()
        await running.value
    }

    @Test("Old operations and events are forgotten, young ones kept")
    func trim_forgetsOld() async throws {
        let (cluster, plane) = try await Cluster.serving()
        for number in 0..<5 {
            let creation = VolumeCreation(name: "v\(number)", byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "k\(number)")
        }
        let metadata = cluster.metadata
        #expect(try await metadata.trimOperations(before: .distantPast) == 0)
        #expect(try await metadata.trimOperations(before: .distantFuture) == 5)
        #expect(try await metadata.operation("k1") == nil)
        // One that took long is remembered from its end on.
        let other = try #require(try await metadata.volume(named: "v2"))
        let late = PendingOperation(key: "k7", kind: .detach(host: "h"), startedAt: .distantPast)
        let begun = try #require(try await metadata.begin(late, on: other, request: "detach"))
        let event = EventRecord(time: .now, kind: "volume.detached", subject: "v2", message: "")
        let hasEnded = try await metadata.finish(begun, outcome: .done, at: .now, event: event)
        #expect(hasEnded)
        #expect(try await metadata.trimOperations(before: .now - 3600) == 0)
        #expect(try await metadata.trimOperations(before: .now + 3600) == 1)
        // One that is pending is kept, until there is nothing that it is pending on.
        let volume = try #require(try await metadata.volume(named: "v1"))
        let pending = PendingOperation(key: "k/6", kind: .delete, startedAt: .now)
        _ = try await metadata.begin(pending, on: volume, request: "delete")
        #expect(try await metadata.trimOperations(before: .distantFuture) == 0)
        let loss = MetaOperation.deleteAll(prefix: "/cairn/default/v/")
        _ = try await cluster.store.transact(MetaTransaction(success: [loss]))
        #expect(try await metadata.trimOperations(before: .distantFuture) == 1)
        #expect(try await metadata.trimEvents(countMax: 2) == 5)
        let kept = try await plane.events(after: 0, countMax: 10).events
        #expect(kept.map(\.subject) == ["v4", "v2"])
    }
}
