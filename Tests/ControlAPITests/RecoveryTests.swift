// Half-done operations: a fault at each step of each operation, then a restart and a retry.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

/// An operation, from a state in which it succeeds.
struct OperationCase: Sendable, CustomTestStringConvertible {
    var name: String
    /// Makes the state, with the operation keys `s0`, `s1`, ….
    var prepare: @Sendable (ControlPlane) async throws -> Void
    /// The operation, with the key given.
    var run: @Sendable (ControlPlane, String) async throws(ControlError) -> Void
    /// Whether it has happened.
    var hasHappened: @Sendable (Cluster) async throws -> Bool

    var testDescription: String { name }

    static let mebibyte: UInt64 = 1 << 20

    static let all: [OperationCase] = [
        OperationCase(name: "create") { _ in
        } run: { plane, key throws(ControlError) in
            let creation = VolumeCreation(name: "v", byteCount: mebibyte)
            _ = try await plane.createVolume(creation, operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "v") != nil
        },
        OperationCase(name: "delete") {
            try await makeVolume($0)
            _ = try await $0.createSnapshot(
                of: "v",
                SnapshotCreation(name: "s"),
                operation: "s1"
            )
        } run: { plane, key throws(ControlError) in
            try await plane.deleteVolume("v", operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "v") == nil
        },
        OperationCase(name: "resize") {
            try await makeVolume($0)
        } run: { plane, key throws(ControlError) in
            let update = VolumeUpdate(byteCount: 2 * mebibyte)
            _ = try await plane.updateVolume("v", update, operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "v")?.value.byteCount == 2 * mebibyte
        },
        OperationCase(name: "snapshot") {
            try await makeVolume($0)
        } run: { plane, key throws(ControlError) in
            let creation = SnapshotCreation(name: "s")
            _ = try await plane.createSnapshot(of: "v", creation, operation: key)
        } hasHappened: {
            try await snapshotCount($0) == 1
        },
        OperationCase(name: "delete snapshot") {
            try await makeVolume($0)
            _ = try await $0.createSnapshot(
                of: "v",
                SnapshotCreation(name: "s"),
                operation: "s1"
            )
        } run: { plane, key throws(ControlError) in
            try await plane.deleteSnapshot("s", of: "v", operation: key)
        } hasHappened: {
            try await snapshotCount($0) == 0
        },
        OperationCase(name: "rollback") {
            try await makeVolume($0)
            _ = try await $0.createSnapshot(
                of: "v",
                SnapshotCreation(name: "s"),
                operation: "s1"
            )
            let update = VolumeUpdate(byteCount: 2 * mebibyte)
            _ = try await $0.updateVolume("v", update, operation: "s2")
        } run: { plane, key throws(ControlError) in
            _ = try await plane.rollback("v", to: "s", operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "v")?.value.byteCount == mebibyte
        },
        OperationCase(name: "clone") {
            try await makeVolume($0)
            _ = try await $0.createSnapshot(
                of: "v",
                SnapshotCreation(name: "s"),
                operation: "s1"
            )
        } run: { plane, key throws(ControlError) in
            let creation = CloneCreation(name: "c")
            _ = try await plane.clone("v", snapshot: "s", creation, operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "c") != nil
        },
        OperationCase(name: "attach") {
            try await makeVolume($0)
        } run: { plane, key throws(ControlError) in
            _ = try await plane.attach("v", AttachmentCreation(host: "h1"), operation: key)
        } hasHappened: {
            try await holder($0) == "h1"
        },
        OperationCase(name: "take over") {
            try await makeVolume($0)
            _ = try await $0.attach("v", AttachmentCreation(host: "h1"), operation: "s1")
        } run: { plane, key throws(ControlError) in
            let creation = AttachmentCreation(host: "h2", force: true)
            _ = try await plane.attach("v", creation, operation: key)
        } hasHappened: {
            try await holder($0) == "h2"
        },
        OperationCase(name: "detach") {
            try await makeVolume($0)
            _ = try await $0.attach("v", AttachmentCreation(host: "h1"), operation: "s1")
        } run: { plane, key throws(ControlError) in
            try await plane.detach("v", from: "h1", operation: key)
        } hasHappened: {
            try await holder($0) == nil
        },
    ]

    private static func makeVolume(_ plane: ControlPlane) async throws {
        let creation = VolumeCreation(name: "v", byteCount: mebibyte)
        _ = try await plane.createVolume(creation, operation: "s0")
    }

    private static func snapshotCount(_ cluster: Cluster) async throws -> Int {
        guard let volume = try await cluster.metadata.volume(named: "v") else { return -1 }
        return try await cluster.metadata.snapshots(of: volume.value.id).count
    }

    private static func holder(_ cluster: Cluster) async throws -> String? {
        guard let volume = try await cluster.metadata.volume(named: "v") else { return nil }
        return try await cluster.metadata.attachments(of: volume.value.id).current.first?.host
    }
}

@Suite("Operations interrupted at every step", .timeLimit(.minutes(5)))
struct RecoveryTests {
    /// More steps than any operation has; reaching it means that the fault never stops striking.
    static let stepCountMax = 12

    @Test(
        "A fault at any step leaves nothing half done after restart, and a retry ends it",
        arguments: OperationCase.all,
        FaultPlan.Kind.allCases
    )
    func interrupted_recoversAndRetries(
        operation: OperationCase,
        kind: FaultPlan.Kind
    ) async throws {
        var step = 1
        while step < Self.stepCountMax {
            let context = "\(operation.name), \(kind) at step \(step)"
            let cluster = try await Cluster()
            let faulty = cluster.plane(withFaults: true)
            try await cluster.register(with: faulty)
            try await operation.prepare(faulty)
            cluster.faults.arm(kind, step: step)
            let error = await controlError { () throws(ControlError) in
                try await operation.run(faulty, "key")
            }
            guard cluster.faults.hasStruck else {
                #expect(error == nil, "\(context): \(String(describing: error))")
                break
            }
            #expect(error != nil, "\(context)")
            // A new process, as after a crash; a lost message needs no more than that.
            let plane = cluster.plane()
            try await plane.recover()
            try await cluster.requireAgreement(context)
            try await operation.run(plane, "key")
            try await cluster.requireAgreement(context + ", retried")
            #expect(try await operation.hasHappened(cluster), "\(context)")
            step += 1
        }
        // At least one call of the node, and for a crash an intent and an end as well.
        #expect(step > (kind.isCrash ? 3 : 1), "the fault never struck")
        #expect(step < Self.stepCountMax)
    }

    @Test("A retry with a new key and the same wish carries an interrupted creation on")
    func interruptedCreation_newKey_carriesOn() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        cluster.faults.arm(.lostAnswer, step: 1)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.createVolume(creation, operation: "k1")
        }
        #expect(error?.code == .outcomeUnknown)
        let volume = try await plane.createVolume(creation, operation: "k2")
        #expect(volume.state == .ready)
        try await cluster.requireAgreement("a second creation")
    }

    @Test(
        "A repetition that does not reach the node is not told that nothing was changed",
        arguments: [FaultPlan.Kind.lostRequest, .lostAnswer]
    )
    func pending_repetitionUnreachable_isUnknown(first: FaultPlan.Kind) async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let snapshot = SnapshotCreation(name: "s")
        func repeatUntilReached(
            _ operation: @Sendable () async throws(ControlError) -> Void
        ) async throws {
            for kind in [first, .unreachable, .unreachable] {
                cluster.faults.arm(kind, step: 1)
                let error = await controlError(operation)
                #expect(error?.code == .outcomeUnknown, "\(kind)")
                #expect(cluster.faults.hasStruck)
                let volume = try await cluster.metadata.volume(named: "v")
                #expect(volume?.value.pending != nil, "\(kind)")
            }
            try await operation()
            try await cluster.requireAgreement("a repetition that reached the node")
        }
        try await repeatUntilReached { () throws(ControlError) in
            _ = try await plane.createVolume(creation, operation: "k1")
        }
        try await repeatUntilReached { () throws(ControlError) in
            _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k2")
        }
    }

    @Test(
        "A clone that the node has made is not forgotten because its snapshot has gone since",
        arguments: [false, true]
    )
    func interruptedClone_snapshotDeleted_isKept(isRecovered: Bool) async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k0")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
        cluster.faults.arm(.lostAnswer, step: 1)
        let clone = CloneCreation(name: "c")
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.clone("v", snapshot: "s", clone, operation: "k2")
        }
        #expect(error?.code == .outcomeUnknown)
        try await plane.deleteSnapshot("s", of: "v", operation: "k3")
        if isRecovered { try await plane.recover() }
        let made = try await plane.clone("v", snapshot: "s", clone, operation: "k2")
        #expect(made.state == .ready)
        try await cluster.requireAgreement("a clone without its snapshot")
    }

    @Test(
        "A rollback that the node has made is not refused because it would refuse another one",
        arguments: [ControlError.Code.noSpace, .limitReached]
    )
    func interruptedRollback_refusedLater_hasHappened(code: ControlError.Code) async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let rollback = try #require(OperationCase.all.first { $0.name == "rollback" })
        try await rollback.prepare(plane)
        cluster.faults.arm(.lostAnswer, step: 1)
        let error = await controlError { () throws(ControlError) in
            try await rollback.run(plane, "key")
        }
        #expect(error?.code == .outcomeUnknown)
        cluster.nodes[0].refuseNext(ControlError(code, "The node refused."))
        try await rollback.run(plane, "key")
        #expect(try await rollback.hasHappened(cluster))
        #expect(cluster.nodes[0].held.values.first?.rollbacks == ["s"])
        try await cluster.requireAgreement("a rollback whose repetition was refused")
        let kinds = try await plane.events(after: 0, countMax: 100).events.map(\.kind)
        #expect(kinds.last == "volume.rolled_back")
    }

    @Test("A rollback that the node has not made is given up when it refuses it")
    func lostRollback_refusedLater_isRefused() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let rollback = try #require(OperationCase.all.first { $0.name == "rollback" })
        try await rollback.prepare(plane)
        cluster.faults.arm(.lostRequest, step: 1)
        _ = await controlError { () throws(ControlError) in
            try await rollback.run(plane, "key")
        }
        cluster.nodes[0].refuseNext(ControlError(.noSpace, "The store is full."))
        let error = await controlError { () throws(ControlError) in
            try await rollback.run(plane, "key")
        }
        #expect(error?.code == .noSpace)
        #expect(try await !rollback.hasHappened(cluster))
        try await cluster.requireAgreement("a rollback that was refused")
    }

    @Test("A clone that the node has not made is given up when its snapshot has gone since")
    func lostClone_snapshotDeleted_isRefused() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k0")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k1")
        cluster.faults.arm(.lostRequest, step: 1)
        let clone = CloneCreation(name: "c")
        _ = await controlError { () throws(ControlError) in
            _ = try await plane.clone("v", snapshot: "s", clone, operation: "k2")
        }
        try await plane.deleteSnapshot("s", of: "v", operation: "k3")
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.clone("v", snapshot: "s", clone, operation: "k2")
        }
        #expect(error?.code == .snapshotNotFound)
        try await cluster.requireAgreement("a clone that was never made")
        #expect(try await cluster.metadata.volume(named: "c") == nil)
    }

    @Test("While the node is silent, other operations on the volume say why they wait")
    func pending_nodeSilent_isBusy() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        _ = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k0"
        )
        cluster.faults.arm(.crashBefore, step: 2)
        _ = await controlError { () throws(ControlError) in
            _ = try await plane.createSnapshot(
                of: "v",
                SnapshotCreation(name: "s"),
                operation: "k1"
            )
        }
        let lonely = ControlPlane(
            metadata: cluster.metadata,
            version: "test",
            logger: Cluster.quiet
        ) { _ throws(ControlError) in throw ControlError(.unreachable, "nobody") }
        let error = await controlError { () throws(ControlError) in
            try await lonely.deleteVolume("v", operation: "k2")
        }
        #expect(error?.code == .busy)
        #expect(error?.detail.contains("snapshot 's'") == true)
        let shown = try await lonely.volume("v")
        #expect(shown.warning?.contains("does not answer") == true)
    }
}

@Suite("Comparing nodes with the metadata", .timeLimit(.minutes(3)))
struct ReconcilerTests {
    private func kinds(_ plane: ControlPlane) async throws -> [String] {
        try await plane.events(after: 0, countMax: 100).events.map(\.kind)
    }

    @Test("A volume that the metadata does not know is reported once and left alone")
    func unknownVolume_isReportedOnce() async throws {
        let (cluster, plane) = try await Cluster.serving()
        cluster.nodes[0].plant(.small(99, name: "stranger"))
        try await plane.recover()
        try await plane.recover()
        #expect(try await kinds(plane).filter { $0 == "volume.unknown" }.count == 1)
        #expect(cluster.nodes[0].held[99] != nil)
        let error = await controlError { () throws(ControlError) in
            _ = try await plane.createVolume(
                VolumeCreation(name: "stranger", byteCount: 4096),
                operation: "k"
            )
        }
        #expect(error?.code == .alreadyExists)
        #expect(error?.help?.contains("volctl events") == true)
    }

    @Test("A volume that its node has lost is reported, and shown with a warning")
    func missingVolume_isReported() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let volume = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        cluster.nodes[0].lose(volume.id)
        try await plane.recover()
        #expect(try await kinds(plane).contains("volume.missing"))
        #expect(try await plane.volume("v").warning?.contains("does not hold") == true)
    }

    @Test("Who may use a volume is made on the node what it is in the metadata")
    func accessDrift_isRestored() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let volume = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        cluster.nodes[0].setAccess(volume.id, .readWrite)
        try await plane.recover()
        #expect(cluster.nodes[0].held[volume.id]?.access == NodeVolumeAccess.none)
        #expect(try await kinds(plane).contains("volume.access_restored"))
    }

    @Test(
        "A node that is ahead of the metadata keeps who has a volume, until one takes it",
        arguments: [1, 9] as [UInt64]
    )
    func epochAhead_isReported_andTakenByForce(lead: UInt64) async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 8192)
        let volume = try await plane.createVolume(creation, operation: "k")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k0")
        cluster.nodes[0].setAccess(volume.id, .readWrite, epoch: volume.epoch + lead)
        try await plane.recover()
        #expect(try await kinds(plane).contains("volume.epoch_ahead"))
        // Nothing may happen over the head of whoever has it.
        let refusals = [
            await controlError { () throws(ControlError) in
                _ = try await plane.attach("v", AttachmentCreation(host: "h"), operation: "k1")
            },
            await controlError { () throws(ControlError) in
                try await plane.deleteVolume("v", operation: "k2")
            },
            await controlError { () throws(ControlError) in
                let update = VolumeUpdate(byteCount: 4096, allowShrink: true)
                _ = try await plane.updateVolume("v", update, operation: "k3")
            },
            await controlError { () throws(ControlError) in
                _ = try await plane.rollback("v", to: "s", operation: "k4")
            },
        ]
        #expect(refusals.map { $0?.code } == Array(repeating: .outdated, count: 4))
        #expect(refusals.allSatisfy { $0?.help?.contains("--force") == true })
        let held = try #require(cluster.nodes[0].held[volume.id])
        #expect(held.access == .readWrite && held.creation.byteCount == 8192)
        #expect(held.rollbacks.isEmpty)
        let forced = AttachmentCreation(host: "h", force: true)
        let taken = try await plane.attach("v", forced, operation: "k5")
        #expect(taken.epoch == volume.epoch + lead + 1)
        try await cluster.requireAgreement("a takeover from one the metadata did not know")
    }

    @Test("The size that the node says is taken over")
    func sizeDrift_isCorrected() async throws {
        let (cluster, plane) = try await Cluster.serving()
        let volume = try await plane.createVolume(
            VolumeCreation(name: "v", byteCount: 4096),
            operation: "k"
        )
        let update = NodeVolumeUpdate(byteCount: 8192)
        _ = try await cluster.nodes[0].updateVolume(volume.id, update)
        try await plane.recover()
        #expect(try await plane.volume("v").byteCount == 8192)
        #expect(try await kinds(plane).contains("volume.size_corrected"))
    }
}
