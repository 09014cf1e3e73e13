// What the metadata service does, operation by operation.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Volumes", .timeLimit(.minutes(1)))
struct VolumeTests {
    @Test("A new volume is on its node, with what was asked for")
    func create_simple() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(
            name: "v",
            byteCount: 1 << 20,
            logicalBlockByteCount: 4096,
            durability: .writethrough
        )
        let volume = try await plane.createVolume(creation, operation: "k")
        #expect(volume.state == .ready)
        #expect(volume.primary == "n1")
        #expect(volume.replicas == ["n1"])
        let held = try #require(cluster.nodes[0].held[volume.id])
        #expect(held.creation.name == "v")
        #expect(held.creation.byteCount == 1 << 20)
        #expect(held.creation.logicalBlockByteCount == 4096)
        #expect(held.creation.durability == .writethrough)
        #expect(held.access == NodeVolumeAccess.none)
        try await cluster.requireAgreement("creation")
    }

    @Test("The node with most room gets the volume, unless it drains or another is named")
    func create_placement() async throws {
        let cluster = try await Cluster(nodeNames: ["n1", "n2", "n3"])
        let plane = cluster.plane()
        for (index, room) in [(0, 10), (1, 30), (2, 20)] {
            let registration = Cluster.registration(index, availableByteCount: UInt64(room) << 20)
            _ = try await plane.registerNode("n\(index + 1)", registration)
        }
        func make(_ name: String, on node: String? = nil) async throws -> String {
            let creation = VolumeCreation(name: name, byteCount: 4096, node: node)
            return try await plane.createVolume(creation, operation: name).primary
        }
        #expect(try await make("a") == "n2")
        #expect(try await make("b", on: "n1") == "n1")
        _ = try await plane.updateNode("n2", NodeUpdate(draining: true))
        #expect(try await make("c") == "n3")
        _ = try await plane.updateNode("n2", NodeUpdate(draining: false))
        #expect(try await make("d") == "n2")
    }

    @Test("Without a node, on a full one or on one that is down, creation says what to do")
    func create_noPlace() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane()
        func code(node: String? = nil) async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                let creation = VolumeCreation(name: "v", byteCount: 4096, node: node)
                _ = try await plane.createVolume(creation, operation: UUID().uuidString)
            }?.code
        }
        #expect(await code() == .unavailable)
        let full = Cluster.registration(0, availableByteCount: 0)
        _ = try await plane.registerNode("n1", full)
        #expect(await code() == .noSpace)
        #expect(await code(node: "n9") == .nodeNotFound)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        #expect(await code() == .unavailable)
        #expect(await code(node: "n1") == .unavailable)
        #expect(try await plane.volumes(after: nil, countMax: 10).volumes.isEmpty)
    }

    @Test("More than one copy is refused in words")
    func create_replicas_isUnsupported() async throws {
        let (_, plane) = try await Cluster.serving()
        let error = await controlError { () throws(ControlError) in
            let creation = VolumeCreation(name: "v", byteCount: 4096, replicas: 3)
            _ = try await plane.createVolume(creation, operation: "k")
        }
        #expect(error?.code == .unsupported)
        #expect(error?.detail.contains("one, replication is not in it yet") == true)
    }

    @Test("Repeating an operation does nothing twice; its key does not fit another request")
    func operation_repeated() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let first = try await plane.createVolume(creation, operation: "k")
        let again = try await plane.createVolume(creation, operation: "k")
        #expect(first.id == again.id)
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k2")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k2")
        #expect(try await plane.snapshots(of: "v").count == 1)
        let reused = await controlError { () throws(ControlError) in
            let other = VolumeCreation(name: "w", byteCount: 4096)
            _ = try await plane.createVolume(other, operation: "k")
        }
        #expect(reused?.code == .idempotencyKeyReused)
        let taken = await controlError { () throws(ControlError) in
            _ = try await plane.createVolume(creation, operation: "k3")
        }
        #expect(taken?.code == .alreadyExists)
        try await plane.deleteVolume("v", operation: "k4")
        try await plane.deleteVolume("v", operation: "k4")
        try await cluster.requireAgreement("repetitions")
    }

    @Test("Twenty racing creations of one name make one volume")
    func create_racing_oneWins() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let wonCount = await withTaskGroup(of: Bool.self) { group in
            for number in 0..<20 {
                group.addTask {
                    await controlError { () throws(ControlError) in
                        let creation = VolumeCreation(name: "v", byteCount: 4096)
                        _ = try await plane.createVolume(creation, operation: "k\(number)")
                    } == nil
                }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(wonCount == 1)
        try await cluster.requireAgreement("racing creations")
    }

    @Test("Shrinking needs to be meant, and nobody attached")
    func resize_shrink() async throws {
        let (cluster, plane) = try await Cluster.serving()
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 8192),
            operation: "k0"
        )
        func resize(to byteCount: UInt64, shrink: Bool?) async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                let update = VolumeUpdate(byteCount: byteCount, allowShrink: shrink)
                _ = try await plane.updateVolume("v", update, operation: UUID().uuidString)
            }?.code
        }
        #expect(await resize(to: 4096, shrink: nil) == .invalidArgument)
        _ = try await plane.attach("v", AttachmentCreation(host: "h"), operation: "k1")
        #expect(await resize(to: 4096, shrink: true) == .volumeAttached)
        #expect(await resize(to: 16384, shrink: nil) == nil)
        try await plane.detach("v", from: "h", operation: "k2")
        #expect(await resize(to: 4096, shrink: true) == nil)
        #expect(try await plane.volume("v").byteCount == 4096)
        try await cluster.requireAgreement("resizing")
    }

    @Test("A list comes in pages by name")
    func list_pages() async throws {
        let (_, plane) = try await Cluster.serving()
        for name in ["c", "a", "b"] {
            let creation = VolumeCreation(name: name, byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: name)
        }
        let first = try await plane.volumes(after: nil, countMax: 2)
        #expect(first.volumes.map(\.name) == ["a", "b"])
        #expect(first.nextAfter == "b")
        let second = try await plane.volumes(after: first.nextAfter, countMax: 2)
        #expect(second.volumes.map(\.name) == ["c"])
        #expect(second.nextAfter == nil)
    }

    @Test("Attached, cloned and catalogued volumes are not deleted, and the error says by whom")
    func delete_inUse() async throws {
        let (cluster, plane) = try await Cluster.serving()
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k0"
        )
        _ = try await plane.createSnapshot(
            of: "v",
            SnapshotCreation(name: "s"),
            operation: "k1"
        )
        func deletion() async -> ControlError? {
            await controlError { () throws(ControlError) in
                try await plane.deleteVolume("v", operation: UUID().uuidString)
            }
        }
        _ = try await plane.attach("v", AttachmentCreation(host: "h"), operation: "k2")
        let attached = await deletion()
        #expect(attached?.code == .volumeAttached)
        #expect(attached?.holder == "h")
        try await plane.detach("v", from: "h", operation: "k3")

        let image = ImageCreation(name: "i", version: "1", volume: "v", snapshot: "s")
        _ = try await plane.createImage(image, operation: "k4")
        #expect(await deletion()?.detail.contains("'i:1'") == true)
        try await plane.deleteImage("i", version: "1", operation: "k5")

        _ = try await plane.clone("v", snapshot: "s", CloneCreation(name: "c"), operation: "k6")
        let cloned = await deletion()
        #expect(cloned?.code == .inUse)
        #expect(cloned?.detail.contains("'c'") == true)
        try await plane.deleteVolume("c", operation: "k7")
        #expect(await deletion() == nil)
        try await cluster.requireAgreement("deletion")
    }
}

@Suite("Snapshots, clones and images", .timeLimit(.minutes(1)))
struct SnapshotTests {
    private func volume(_ plane: ControlPlane) async throws {
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 8192, durability: .writethrough),
            operation: "k0"
        )
        _ = try await plane.createSnapshot(
            of: "v",
            SnapshotCreation(name: "s"),
            operation: "k1"
        )
    }

    @Test("Snapshots are listed in the order they were taken")
    func list_inOrder() async throws {
        let (_, plane) = try await Cluster.serving()
        try await volume(plane)
        for name in ["z", "a"] {
            let creation = SnapshotCreation(name: name)
            _ = try await plane.createSnapshot(of: "v", creation, operation: name)
        }
        #expect(try await plane.snapshots(of: "v").map(\.name) == ["s", "z", "a"])
        #expect(try await plane.volume("v").snapshotCount == 3)
    }

    @Test("A clone has its snapshot's size, its parent's durability and its source")
    func clone_simple() async throws {
        let (cluster, plane) = try await Cluster.serving()
        try await volume(plane)
        _ = try await plane.updateVolume(
            "v",
            VolumeUpdate(byteCount: 16384),
            operation: "k2"
        )
        let creation = CloneCreation(name: "c")
        let clone = try await plane.clone("v", snapshot: "s", creation, operation: "k3")
        #expect(clone.byteCount == 8192)
        #expect(clone.durability == .writethrough)
        #expect(clone.source == VolumeSource(volume: "v", snapshot: "s"))
        try await cluster.requireAgreement("cloning")
    }

    @Test("An image keeps its snapshot, clones like it, and leaves with its catalogue entry")
    func image_life() async throws {
        let (cluster, plane) = try await Cluster.serving()
        try await volume(plane)
        let creation = ImageCreation(
            name: "debian",
            version: "12",
            volume: "v",
            snapshot: "s",
            description: "a base",
            sha256: String(repeating: "A", count: 64)
        )
        let image = try await plane.createImage(creation, operation: "k2")
        #expect(image.sha256 == String(repeating: "a", count: 64))
        #expect(try await plane.snapshot("s", of: "v").images == ["debian:12"])
        let twice = await controlError { () throws(ControlError) in
            _ = try await plane.createImage(creation, operation: "k3")
        }
        #expect(twice?.code == .alreadyExists)
        let kept = await controlError { () throws(ControlError) in
            try await plane.deleteSnapshot("s", of: "v", operation: "k4")
        }
        #expect(kept?.code == .inUse)
        let clone = try await plane.cloneImage(
            "debian",
            version: "12",
            CloneCreation(name: "vm"),
            operation: "k5"
        )
        #expect(clone.source == VolumeSource(volume: "v", snapshot: "s"))
        try await plane.deleteImage("debian", version: "12", operation: "k6")
        try await plane.deleteImage("debian", version: "12", operation: "k6")
        try await plane.deleteSnapshot("s", of: "v", operation: "k7")
        #expect(try await plane.images().isEmpty)
        try await cluster.requireAgreement("an image's life")
    }

    @Test("A rollback is refused while a host has the volume")
    func rollback_attached_isRefused() async throws {
        let (cluster, plane) = try await Cluster.serving()
        try await volume(plane)
        _ = try await plane.attach("v", AttachmentCreation(host: "h"), operation: "k2")
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.rollback("v", to: "s", operation: "k3")
        }
        #expect(error?.code == .volumeAttached)
        try await plane.detach("v", from: "h", operation: "k4")
        _ = try await plane.rollback("v", to: "s", operation: "k5")
        #expect(cluster.nodes[0].held.values.first?.rollbacks == ["s"])
    }

    @Test("What is missing is named")
    func missing_isNamed() async throws {
        let (_, plane) = try await Cluster.serving()
        try await volume(plane)
        let code = await controlError { () throws(ControlError) in
            _ = try await plane.rollback("v", to: "nope", operation: "a")
        }?.code
        #expect(code == .snapshotNotFound)
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.clone(
                "nope",
                snapshot: "s",
                CloneCreation(name: "c"),
                operation: "b"
            )
        }
        #expect(error?.code == .volumeNotFound)
        #expect(error?.help?.contains("volctl volume list") == true)
    }
}

@Suite("Attachments", .timeLimit(.minutes(1)))
struct AttachmentTests {
    private func serving() async throws -> (Cluster, ControlPlane, UInt64) {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k0")
        return (cluster, plane, volume.id)
    }

    private func attach(
        _ plane: ControlPlane,
        _ host: String,
        readOnly: Bool = false,
        force: Bool = false,
        machine: String? = nil
    ) async throws(ControlError) -> ControlAPI.Attachment {
        let creation = AttachmentCreation(
            host: host,
            readOnly: readOnly,
            force: force,
            machineID: machine
        )
        return try await plane.attach("v", creation, operation: UUID().uuidString)
    }

    @Test("An attached volume is exported, with a URI; the unix one only on the node's machine")
    func attach_simple() async throws {
        let (cluster, plane, id) = try await serving()
        let attachment = try await attach(plane, "h1", machine: "machine-0")
        #expect(attachment.nbdURI == "nbd://127.0.0.1:10809/v")
        #expect(attachment.nbdUnixURI == "nbd+unix:///v?socket=/run/cairn/n0.sock")
        #expect(cluster.nodes[0].held[id]?.access == .readWrite)
        let elsewhere = try await attach(plane, "h1", machine: "another")
        #expect(elsewhere.nbdUnixURI == nil)
        #expect(elsewhere.epoch == attachment.epoch)
    }

    @Test("Another host is refused by the holder's name; with force it takes over, fenced")
    func attach_conflict() async throws {
        let (cluster, plane, id) = try await serving()
        let first = try await attach(plane, "h1")
        let error = await controlError { () throws(ControlError) in
            _ = try await attach(plane, "h2")
        }
        #expect(error?.code == .volumeAttached)
        #expect(error?.holder == "h1")
        let taken = try await attach(plane, "h2", force: true)
        #expect(taken.epoch > first.epoch)
        #expect(cluster.nodes[0].held[id]?.dropCount == 1)
        #expect(cluster.nodes[0].held[id]?.access == .readWrite)
        let history = try await plane.attachments(of: "v")
        #expect(history.map(\.host) == ["h2", "h1"])
        #expect(history[1].detachReason == "taken over by h2")
        #expect(history[1].nbdURI == nil)
    }

    @Test("Several hosts read, none writes beside them")
    func attach_readOnly_isShared() async throws {
        let (cluster, plane, id) = try await serving()
        _ = try await attach(plane, "h1", readOnly: true)
        _ = try await attach(plane, "h2", readOnly: true)
        #expect(cluster.nodes[0].held[id]?.access == .readOnly)
        let error = await controlError { () throws(ControlError) in
            _ = try await attach(plane, "h3")
        }
        #expect(error?.code == .volumeAttached)
        try await plane.detach("v", from: "h1", operation: "k1")
        #expect(cluster.nodes[0].held[id]?.access == .readOnly)
        try await plane.detach("v", from: "h2", operation: "k2")
        #expect(cluster.nodes[0].held[id]?.access == NodeVolumeAccess.none)
        _ = try await attach(plane, "h3")
        try await cluster.requireAgreement("shared reading")
    }

    @Test("Twenty hosts that race for a volume: one gets it")
    func attach_racing_oneWins() async throws {
        let (cluster, plane, _) = try await serving()
        let winners = await withTaskGroup(of: String?.self) { group in
            for number in 0..<20 {
                group.addTask {
                    let host = "h\(number)"
                    let error = await controlError { () throws(ControlError) in
                        _ = try await attach(plane, host)
                    }
                    return error == nil ? host : nil
                }
            }
            return await group.reduce(into: [String]()) { result, host in
                if let host { result.append(host) }
            }
        }
        #expect(winners.count == 1)
        #expect(try await plane.attachments(of: "v").map(\.host) == winners)
        try await cluster.requireAgreement("a race")
    }

    @Test("What this build does not serve is refused in words")
    func attach_unsupported() async throws {
        let (_, plane, _) = try await serving()
        for creation in [
            AttachmentCreation(host: "h", protocol: .iscsi),
            AttachmentCreation(host: "h", via: "n2"),
        ] {
            let error = await controlError { () throws(ControlError) in
                _ = try await plane.attach("v", creation, operation: UUID().uuidString)
            }
            #expect(error?.code == .unsupported)
        }
        let stranger = await controlError { () throws(ControlError) in
            try await plane.detach("v", from: "h9", operation: "k")
        }
        #expect(stranger?.code == .attachmentNotFound)
    }
}

@Suite("Nodes and events", .timeLimit(.minutes(1)))
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

    @Test("A node is forgotten when it is down and holds nothing")
    func delete_needsDownAndEmpty() async throws {
        let (cluster, plane) = try await Cluster.serving()
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        func deletion() async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                try await plane.deleteNode("n1")
            }?.code
        }
        #expect(await deletion() == .inUse)
        try await plane.deleteVolume("v", operation: "k2")
        #expect(await deletion() == .inUse)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        #expect(await deletion() == nil)
        #expect(try await plane.nodes().isEmpty)
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
        #expect(try await metadata.trimEvents(countMax: 2) == 4)
        let kept = try await plane.events(after: 0, countMax: 10).events
        #expect(kept.map(\.subject) == ["v3", "v4"])
    }
}
