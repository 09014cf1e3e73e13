// Volumes: creation, placement, repetition, resizing, lists, deletion.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Volumes", .timeLimit(.minutes(3)))
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

    @Test("More copies than nodes that take some are refused in words")
    func create_replicas_needNodes() async throws {
        let (_, plane) = try await Cluster.serving()
        let error = await controlError { () throws(ControlError) in
            let creation = VolumeCreation(name: "v", byteCount: 4096, replicas: 3)
            _ = try await plane.createVolume(creation, operation: "k")
        }
        #expect(error?.code == .unavailable)
        #expect(error?.detail.contains("3 replicas need 3 nodes") == true)
        #expect(error?.help?.contains("--replicas 1") == true)
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

    @Test("A volume deleted while a page is read does not end the list")
    func list_deletedMeanwhile_goesOn() async throws {
        let (cluster, plane) = try await Cluster.serving()
        var ids: [String: UInt64] = [:]
        for name in ["a", "b", "c", "d", "e"] {
            let creation = VolumeCreation(name: name, byteCount: 4096)
            ids[name] = try await plane.createVolume(creation, operation: name).id
        }
        // As the reader sees it who got the names before, and the records after the deletion.
        for name in ["a", "b", "d"] {
            let digits = String(try #require(ids[name]), radix: 16)
            let hex = String(repeating: "0", count: 16 - digits.count) + digits
            let deletion = MetaTransaction(success: [.delete("/cairn/default/v/\(hex)")])
            #expect(try await cluster.store.transact(deletion).succeeded)
        }
        let first = try await plane.volumes(after: nil, countMax: 1)
        #expect(first.volumes.map(\.name) == ["c"])
        #expect(first.nextAfter == "c")
        let second = try await plane.volumes(after: "c", countMax: 2)
        #expect(second.volumes.map(\.name) == ["e"])
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

    @Test("A host deletes what it alone has, and nothing that was taken from it")
    func delete_heldBy_onlyByHolder() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k0")
        func attach(_ host: String, readOnly: Bool = false, force: Bool = false) async throws {
            let creation = AttachmentCreation(host: host, readOnly: readOnly, force: force)
            _ = try await plane.attach("v", creation, operation: UUID().uuidString)
        }
        func deletion(by host: String) async -> ControlError? {
            await controlError { () throws(ControlError) in
                try await plane.deleteVolume("v", heldBy: host, operation: UUID().uuidString)
            }
        }
        #expect(await deletion(by: "h1")?.code == .attachmentNotFound)
        try await attach("h1")
        let stranger = await deletion(by: "h2")
        #expect(stranger?.code == .volumeAttached)
        #expect(stranger?.holder == "h1")
        try await attach("h2", force: true)
        #expect(await deletion(by: "h1")?.holder == "h2")
        try await plane.detach("v", from: "h2", operation: "k1")
        #expect(await deletion(by: "h1")?.code == .attachmentNotFound)
        #expect(await deletion(by: "h2")?.code == .attachmentNotFound)
        try await attach("h1", readOnly: true)
        #expect(await deletion(by: "h1")?.code == .attachmentNotFound)
        try await attach("h3", readOnly: true)
        #expect(await deletion(by: "h1")?.code == .volumeAttached)
        try await plane.detach("v", from: "h3", operation: "k2")
        try await plane.detach("v", from: "h1", operation: "k3")

        try await attach("h1")
        try await plane.deleteVolume("v", heldBy: "h1", operation: "k4")
        try await plane.deleteVolume("v", heldBy: "h1", operation: "k4")
        let reused = await controlError { () throws(ControlError) in
            try await plane.deleteVolume("v", operation: "k4")
        }
        #expect(reused?.code == .idempotencyKeyReused)
        #expect(await deletion(by: "h1")?.code == .volumeNotFound)
        try await cluster.requireAgreement("deletion by its host")
    }
}
