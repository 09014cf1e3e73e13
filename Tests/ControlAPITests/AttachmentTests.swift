// Attachments: one writes or several read, and takeovers.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Attachments", .timeLimit(.minutes(3)))
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
        let export = "v:\(attachment.epoch)"
        #expect(attachment.nbdURI == "nbd://127.0.0.1:10809/\(export)")
        #expect(attachment.nbdUnixURI == "nbd+unix:///\(export)?socket=/run/cairn/n0.sock")
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
        let first = try await attach(plane, "h1", readOnly: true)
        let second = try await attach(plane, "h2", readOnly: true)
        // One name for both: a reader that joins or leaves disturbs no other.
        #expect(first.epoch == second.epoch && first.nbdURI == second.nbdURI)
        #expect(cluster.nodes[0].held[id]?.access == .readOnly)
        let error = await controlError { () throws(ControlError) in
            _ = try await attach(plane, "h3")
        }
        #expect(error?.code == .volumeAttached)
        try await plane.detach("v", from: "h1", operation: "k1")
        #expect(cluster.nodes[0].held[id]?.access == .readOnly)
        try await plane.detach("v", from: "h2", operation: "k2")
        #expect(cluster.nodes[0].held[id]?.access == NodeVolumeAccess.none)
        let writer = try await attach(plane, "h3")
        #expect(writer.epoch > first.epoch)
        try await cluster.requireAgreement("shared reading")
    }

    @Test("A host does not cut itself off by asking for the other use, unless it forces that")
    func attach_otherUseBySameHost_isRefused() async throws {
        let (cluster, plane, id) = try await serving()
        for readOnly in [false, true] {
            let first = try await attach(plane, "h1", readOnly: readOnly, force: true)
            let before = cluster.nodes[0].held[id]?.dropCount
            let error = await controlError { () throws(ControlError) in
                _ = try await attach(plane, "h1", readOnly: !readOnly)
            }
            #expect(error?.code == .volumeAttached)
            #expect(error?.holder == "h1")
            #expect(error?.detail.contains(readOnly ? "reading" : "writing") == true)
            #expect(cluster.nodes[0].held[id]?.dropCount == before)
            let same = try await attach(plane, "h1", readOnly: readOnly)
            #expect(same.epoch == first.epoch)
        }
        try await cluster.requireAgreement("a change of use")
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

    @Test("A node that serves nobody without TLS hands out URIs that say so")
    func attach_tls_inURI() async throws {
        let (cluster, plane, _) = try await serving()
        var registration = Cluster.registration(0)
        registration.nbdTLS = .require
        _ = try await plane.registerNode(cluster.nodes[0].name, registration)
        let attachment = try await attach(plane, "h1", machine: "machine-0")
        let export = "v:\(attachment.epoch)"
        #expect(attachment.nbdURI == "nbds://127.0.0.1:10809/\(export)")
        #expect(attachment.nbdUnixURI?.hasPrefix("nbds+unix:///\(export)?socket=") == true)
        #expect(try await plane.nodes().map(\.nbdTLS) == [.require])
    }

    @Test("A volume made anew under an old name does not take its predecessor's hosts over")
    func attach_sameNameAnew_hasNewExport() async throws {
        let (_, plane, _) = try await serving()
        var exports: Set<String> = []
        for round in 0..<4 {
            for host in ["h1", "h2", "h3"] {
                let attachment = try await attach(plane, host, force: true)
                exports.insert(try #require(attachment.nbdURI))
            }
            try await plane.detach("v", from: "h3", operation: "detach \(round)")
            try await plane.deleteVolume("v", operation: "delete \(round)")
            let creation = VolumeCreation(name: "v", byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "again \(round)")
        }
        #expect(exports.count == 12)
    }

    @Test("A volume that was lost with its store can be let go of, and is not given to anybody")
    func lostVolume_isLetGo() async throws {
        let (cluster, plane) = try await Cluster.serving()
        // A clone: it is not its parent that is lost.
        let creation = VolumeCreation(name: "parent", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "create")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "parent", snapshot, operation: "snapshot")
        let clone = CloneCreation(name: "v")
        let volume = try await plane.clone("parent", snapshot: "s", clone, operation: "clone")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "snapshot v")
        let host = AttachmentCreation(host: "h1")
        _ = try await plane.attach("v", host, operation: "attach")
        cluster.nodes[0].lose(volume.id)
        let attempts: [@Sendable () async throws -> Void] = [
            { _ = try await plane.attach("v", host, operation: "again") },
            {
                let taking = AttachmentCreation(host: "h2", force: true)
                _ = try await plane.attach("v", taking, operation: "take")
            },
            {
                let update = VolumeUpdate(byteCount: 8192)
                _ = try await plane.updateVolume("v", update, operation: "grow")
            },
        ]
        for attempt in attempts {
            let error = await #expect(throws: ControlError.self) { try await attempt() }
            #expect(error?.code == .volumeNotFound)
            #expect(error?.detail.contains("does not hold the volume 'v' any more") == true)
        }
        #expect(try await plane.attachments(of: "v").map(\.host) == ["h1"])
        try await plane.detach("v", from: "h1", operation: "detach")
        try await plane.deleteVolume("v", operation: "delete")
        let rest = try await plane.volumes(after: nil, countMax: 10).volumes
        #expect(rest.map(\.name) == ["parent"])
    }
}
