// What changes while a node is compared with the metadata.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Synchronization
import Testing

@Suite("Comparisons with nodes", .timeLimit(.minutes(3)))
struct ComparisonTests {
    /// What only a comparison reports.
    private static let findings: Set<String> = [
        "volume.unknown", "volume.missing", "volume.access_restored", "volume.epoch_ahead",
        "volume.size_corrected",
    ]

    private func findings(of plane: ControlPlane) async throws -> [String] {
        let events = try await plane.events(after: 0, countMax: 100).events
        return events.filter { Self.findings.contains($0.kind) }.map { "\($0.kind) \($0.subject)" }
    }

    @Test("Volumes that come, go or change after the node has told what it holds are no findings")
    func compare_changesMeanwhile_areNotReported() async throws {
        let (cluster, plane) = try await Cluster.serving()
        for name in ["goes", "grows", "given", "taken", "stays"] {
            let creation = VolumeCreation(name: name, byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "create \(name)")
        }
        let host = AttachmentCreation(host: "h")
        _ = try await plane.attach("taken", host, operation: "attach taken")
        let failure = Mutex<(any Error)?>(nil)
        let hasRun = Mutex(false)
        cluster.nodes[0].whenListed {
            do {
                let creation = VolumeCreation(name: "comes", byteCount: 4096)
                _ = try await plane.createVolume(creation, operation: "create comes")
                try await plane.deleteVolume("goes", operation: "delete goes")
                let update = VolumeUpdate(byteCount: 8192)
                _ = try await plane.updateVolume("grows", update, operation: "grow")
                _ = try await plane.attach("given", host, operation: "attach given")
                try await plane.detach("taken", from: "h", operation: "detach taken")
            } catch {
                failure.withLock { $0 = error }
            }
            hasRun.withLock { $0 = true }
        }
        try await plane.recover()
        #expect(failure.withLock { $0 } == nil)
        #expect(hasRun.withLock { $0 })
        #expect(try await findings(of: plane) == [])
        try await cluster.requireAgreement("a comparison")
        // Nor are they by the next one, which sees them all.
        try await plane.recover()
        #expect(try await findings(of: plane) == [])
    }

    @Test("One store of several that has stopped hides nothing of what the others hold")
    func compare_oneStoreStopped_othersAreCompared() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let node = cluster.nodes[0]
        for name in ["lost", "stuck", "hidden", "open"] {
            let creation = VolumeCreation(name: name, byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "create \(name)")
        }
        // One comes back with the node that it was lost with, and would be served there.
        let lost = try await plane.volume("lost")
        let record = try #require(try await cluster.metadata.volume(named: "lost"))
        let event = EventRecord(time: .now, kind: "volume.lost", subject: "lost", message: "")
        let stores = [Cluster.registration(0).storeIdentity]
        _ = try await cluster.metadata.forgetVolume(record, ofStores: stores, event: event)
        node.setAccess(lost.id, .readWrite)
        // One was being changed when its store stopped, one is beside it.
        cluster.faults.arm(.lostRequest, step: 1)
        _ = await controlError { () throws(ControlError) in
            let creation = SnapshotCreation(name: "s")
            _ = try await plane.createSnapshot(of: "stuck", creation, operation: "k")
        }
        let stuck = try await plane.volume("stuck")
        let hidden = try await plane.volume("hidden")
        node.stopStore(of: [stuck.id, hidden.id])
        let open = try await plane.volume("open")
        node.setAccess(open.id, .readWrite)
        // Lists tell which volumes it is, and everything of the others.
        let listed = try await plane.volumes(after: nil, countMax: 10).volumes
        #expect(listed.map(\.name) == ["hidden", "open", "stuck"])
        #expect(listed.map { $0.space == nil } == [true, false, true])
        let alone = try await plane.volume("hidden")
        for warning in [listed[0].warning, listed[2].warning, alone.warning] {
            #expect(warning?.hasPrefix("The node 'n1' cannot tell of it: ") == true)
        }
        #expect(listed[1].warning == nil)
        let taken = await controlError { () throws(ControlError) in
            let host = AttachmentCreation(host: "h", force: true)
            _ = try await plane.attach("hidden", host, operation: "take")
        }
        #expect(taken?.code == .unavailable && taken?.detail.contains("store") == true)
        try await plane.recover()
        #expect(try await findings(of: plane) == ["volume.access_restored open"])
        #expect(node.held[open.id]?.access == NodeVolumeAccess.none)
        #expect(node.held[lost.id]?.access == NodeVolumeAccess.none)
        #expect(try await cluster.metadata.volume(named: "stuck")?.value.pending != nil)
        // Once the store is back, the change is made, and nothing was taken for lost.
        node.stopStore(of: [])
        try await plane.recover()
        #expect(try await cluster.metadata.volume(named: "stuck")?.value.pending == nil)
        #expect(try await findings(of: plane) == ["volume.access_restored open"])
    }

    @Test("What is so, and not on its way, is a finding")
    func compare_realDifferences_areReported() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let node = cluster.nodes[0]
        for name in ["lost", "open", "stays"] {
            let creation = VolumeCreation(name: name, byteCount: 4096)
            _ = try await plane.createVolume(creation, operation: "create \(name)")
        }
        let open = try await plane.volume("open")
        node.lose(try await plane.volume("lost").id)
        node.setAccess(open.id, .readWrite)
        node.plant(.small(4711, name: "planted"))
        try await plane.recover()
        let found = try await Set(findings(of: plane))
        #expect(
            found == [
                "volume.missing lost", "volume.access_restored open", "volume.unknown planted",
            ]
        )
    }
}
