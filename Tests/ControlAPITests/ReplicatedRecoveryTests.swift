// Snapshots, clones and rollbacks of replicated volumes with a fault at each of their steps.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Operations on replicas interrupted at every step", .timeLimit(.minutes(5)))
struct ReplicatedRecoveryTests {
    /// More steps than any operation has; reaching it means that the fault never stops striking.
    static let stepCountMax = 16

    private static let creation = VolumeCreation(name: "v", byteCount: 1 << 20, replicas: 3)

    static let all: [OperationCase] = [
        OperationCase(name: "snapshot of an attached volume") { plane in
            _ = try await plane.createVolume(creation, operation: "s0")
            _ = try await plane.attach("v", AttachmentCreation(host: "h1"), operation: "s1")
        } run: { plane, key throws(ControlError) in
            try await snapshot("s", plane, key)
        } hasHappened: {
            try await snapshotCount($0) == 1
        },
        OperationCase(name: "snapshot of a detached volume") { plane in
            _ = try await plane.createVolume(creation, operation: "s0")
        } run: { plane, key throws(ControlError) in
            try await snapshot("s", plane, key)
        } hasHappened: {
            try await snapshotCount($0) == 1
        },
        OperationCase(name: "deletion of a snapshot") { plane in
            _ = try await plane.createVolume(creation, operation: "s0")
            try await snapshot("s", plane, "s1")
        } run: { plane, key throws(ControlError) in
            try await plane.deleteSnapshot("s", of: "v", operation: key)
        } hasHappened: {
            try await snapshotCount($0) == 0
        },
        OperationCase(name: "clone") { plane in
            _ = try await plane.createVolume(creation, operation: "s0")
            try await snapshot("s", plane, "s1")
        } run: { plane, key throws(ControlError) in
            let creation = CloneCreation(name: "c")
            _ = try await plane.clone("v", snapshot: "s", creation, operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "c") != nil
        },
        OperationCase(name: "rollback") { plane in
            _ = try await plane.createVolume(creation, operation: "s0")
            try await snapshot("s", plane, "s1")
            let update = VolumeUpdate(byteCount: 2 << 20)
            _ = try await plane.updateVolume("v", update, operation: "s2")
        } run: { plane, key throws(ControlError) in
            _ = try await plane.rollback("v", to: "s", operation: key)
        } hasHappened: {
            try await $0.metadata.volume(named: "v")?.value.byteCount == 1 << 20
        },
    ]

    private static func snapshot(
        _ name: String,
        _ plane: ControlPlane,
        _ key: String
    ) async throws(ControlError) {
        let creation = SnapshotCreation(name: name)
        _ = try await plane.createSnapshot(of: "v", creation, operation: key)
    }

    private static func snapshotCount(_ cluster: Cluster) async throws -> Int {
        guard let volume = try await cluster.metadata.volume(named: "v") else { return -1 }
        return try await cluster.metadata.snapshots(of: volume.value.id).count
    }

    @Test(
        "A fault at any step leaves nothing half done after restart, and a retry ends it",
        arguments: all,
        FaultPlan.Kind.allCases
    )
    func interrupted_recoversAndRetries(
        operation: OperationCase,
        kind: FaultPlan.Kind
    ) async throws {
        var step = 1
        while step < Self.stepCountMax {
            let context = "\(operation.name), \(kind) at step \(step)"
            let cluster = try await Cluster(nodeNames: ["n1", "n2", "n3"])
            let faulty = cluster.plane(withFaults: true)
            for (index, node) in cluster.nodes.enumerated() {
                var registration = Cluster.registration(index)
                registration.peerEndpoint = "127.0.0.1:\(7900 + index)"
                _ = try await faulty.registerNode(node.name, registration)
            }
            try await operation.prepare(faulty)
            cluster.faults.arm(kind, step: step)
            let error = await controlError { () throws(ControlError) in
                try await operation.run(faulty, "key")
            }
            guard cluster.faults.hasStruck else {
                #expect(error == nil, "\(context): \(String(describing: error))")
                break
            }
            // One node of three that does not answer keeps nothing from happening.
            #expect(error != nil || !kind.isCrash || step > 3, "\(context)")
            let plane = cluster.plane()
            try await recover(plane, cluster)
            try await cluster.requireAgreement(context)
            try await operation.run(plane, "key")
            try await recover(plane, cluster)
            try await cluster.requireAgreement(context + ", retried")
            #expect(try await operation.hasHappened(cluster), "\(context)")
            step += 1
        }
        #expect(step > (kind.isCrash ? 3 : 1), "the fault never struck")
        #expect(step < Self.stepCountMax)
    }

    /// What the service does by itself, in its own time.
    private func recover(_ plane: ControlPlane, _ cluster: Cluster) async throws {
        try await plane.recover()
        try await plane.repair()
        try await plane.recover()
    }
}
