// Snapshots, rollbacks, clones and images.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Snapshots, clones and images", .timeLimit(.minutes(3)))
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
        #expect(try await plane.snapshot("s", of: "v", machineID: nil).images == ["debian:12"])
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

    @Test("An image whose volume is gone does not become a clone of another one of its name")
    func cloneImage_otherVolumeOfTheName_isRefused() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let first = try await plane.createVolume(creation, operation: "k0")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
        let image = ImageCreation(name: "i", version: "1", volume: "v", snapshot: "s")
        _ = try await plane.createImage(image, operation: "k2")
        // What an earlier version left when it was stopped while it forgot a lost node.
        let loss = ["v", "vn", "sn"].map {
            MetaOperation.deleteAll(prefix: "/cairn/default/\($0)/")
        }
        _ = try await cluster.store.transact(MetaTransaction(success: loss))
        cluster.nodes[0].lose(first.id)
        _ = try await plane.createVolume(creation, operation: "k3")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k4")
        let clone = CloneCreation(name: "c")
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.cloneImage("i", version: "1", clone, operation: "k5")
        }
        #expect(error?.code == .imageNotFound)
        #expect(error?.help?.contains("'volctl image delete i:1'") == true)
        #expect(try await cluster.metadata.volume(named: "c") == nil)
        // The catalogue can be tidied.
        try await plane.deleteImage("i", version: "1", operation: "k6")
    }

    @Test("Cloning an image is done once, also when the image is gone at its repetition")
    func cloneImage_repeatedWithoutImage_isKnown() async throws {
        let (_, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k0")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
        let image = ImageCreation(name: "i", version: "1", volume: "v", snapshot: "s")
        _ = try await plane.createImage(image, operation: "k2")
        let clone = CloneCreation(name: "c")
        let made = try await plane.cloneImage("i", version: "1", clone, operation: "k3")
        try await plane.deleteImage("i", version: "1", operation: "k4")
        let again = try await plane.cloneImage("i", version: "1", clone, operation: "k3")
        #expect(again.id == made.id)
    }
}
