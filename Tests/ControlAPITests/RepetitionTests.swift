// Operations asked for again by somebody who does not know what has become of the first time: under
// a new key, as a person does, and under the same one, as clients do.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import Metadata
import NIOCore
import Synchronization
import Testing

@Suite("Operations asked for again", .timeLimit(.minutes(2)))
struct RepetitionTests {
    /// Every end of an operation is one event.
    private func endCount(_ plane: ControlPlane) async throws -> Int {
        try await plane.events(after: 0, countMax: 100).events.count
    }

    private func requireUnknown(
        _ operation: OperationCase,
        _ kind: FaultPlan.Kind,
        _ cluster: Cluster,
        _ plane: ControlPlane,
        _ key: String
    ) async {
        cluster.faults.arm(kind, step: 1)
        let error = await controlError { () throws(ControlError) in
            try await operation.run(plane, key)
        }
        #expect(error?.code == .outcomeUnknown)
        // It cannot promise that a repetition is one.
        #expect(error?.help?.contains("'volctl volume show") == true)
    }

    @Test(
        "While it is pending, a new key carries it on, and is a name for it from then on",
        arguments: OperationCase.all,
        [FaultPlan.Kind.lostRequest, .lostAnswer]
    )
    func pending_newKey_carriesOn(operation: OperationCase, kind: FaultPlan.Kind) async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        try await operation.prepare(plane)
        let before = try await endCount(plane)
        await requireUnknown(operation, kind, cluster, plane, "key")
        for key in ["new", "key", "new"] {
            try await operation.run(plane, key)
            #expect(try await endCount(plane) == before + 1, "\(key)")
        }
        #expect(try await operation.hasHappened(cluster))
        try await cluster.requireAgreement("\(operation.name), asked for again")
    }

    @Test(
        "Once the service has ended it by itself, all its keys are known, and it is done once",
        arguments: OperationCase.all
    )
    func ended_sameKeys_areKnown(operation: OperationCase) async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        try await operation.prepare(plane)
        let before = try await endCount(plane)
        await requireUnknown(operation, .lostAnswer, cluster, plane, "key")
        await requireUnknown(operation, .lostRequest, cluster, plane, "new")
        try await plane.recover()
        for key in ["key", "new"] {
            try await operation.run(plane, key)
            #expect(try await endCount(plane) == before + 1, "\(key)")
        }
        #expect(try await operation.hasHappened(cluster))
        try await cluster.requireAgreement("\(operation.name), ended by the service")
    }

    @Test("What is pending is shown also while its node is silent")
    func pending_isShown() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k")
        cluster.faults.arm(.lostRequest, step: 1)
        _ = await controlError { () throws(ControlError) in
            let creation = SnapshotCreation(name: "s")
            _ = try await plane.createSnapshot(of: "v", creation, operation: "k1")
        }
        let lonely = ControlPlane(
            metadata: cluster.metadata,
            version: "test",
            logger: Cluster.quiet
        ) { _ throws(ControlError) in throw ControlError(.unreachable, "nobody") }
        for plane in [plane, lonely] {
            let warning = try await plane.volume("v").warning
            #expect(warning?.contains("An operation has not ended: snapshot 's'.") == true)
        }
    }

    @Test("When the node refuses it in the end, all its keys are free again")
    func refused_keysAreFree() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k")
        let snapshot = SnapshotCreation(name: "s")
        for key in ["key", "new"] {
            cluster.faults.arm(.lostRequest, step: 1)
            _ = await controlError { () throws(ControlError) in
                _ = try await plane.createSnapshot(of: "v", snapshot, operation: key)
            }
            #expect(try await cluster.metadata.operation(key)?.value.isDone == false)
        }
        cluster.nodes[0].lose(volume.id)
        try await plane.recover()
        for key in ["key", "new"] { #expect(try await cluster.metadata.operation(key) == nil) }
        #expect(try await cluster.metadata.volume(named: "v")?.value.pending == nil)
    }

    @Test("Keys without end do not make the record grow without end")
    func pending_manyKeys_areBounded() async throws {
        let cluster = try await Cluster()
        let plane = cluster.plane(withFaults: true)
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "k")
        for number in 0..<PendingOperation.otherKeyCountMax + 4 {
            // The first one begins it.
            let isRecorded = number <= PendingOperation.otherKeyCountMax
            if isRecorded { cluster.faults.arm(.lostRequest, step: 1) }
            let error = await controlError { () throws(ControlError) in
                let creation = SnapshotCreation(name: "s")
                _ = try await plane.createSnapshot(of: "v", creation, operation: "k\(number)")
            }
            #expect(error?.code == (isRecorded ? .outcomeUnknown : .busy))
        }
        let pending = try await cluster.metadata.volume(named: "v")?.value.pending
        #expect(pending?.otherKeys?.count == PendingOperation.otherKeyCountMax)
        try await plane.recover()
        try await cluster.requireAgreement("many repetitions")
    }

    @Test("A client asks again under the same key until it is known what has become of it")
    func client_openOutcome_asksAgain() async throws {
        let keys = Mutex<[String?]>([])
        let router = Router(context: APIContext.self)
        let problem = ProblemDocument(ControlError(.outcomeUnknown, "who knows"))
        let body = try ControlJSON.encoder().encode(problem)
        router.delete("v1/volumes/:volume") { request, _ -> Response in
            let name = HTTPField.Name("Idempotency-Key")
            let key = name.flatMap { request.headers[$0] }
            let count = keys.withLock { keys in
                keys.append(key)
                return keys.count
            }
            guard count <= 2 else { return Response(status: .noContent) }
            return Response(
                status: .gatewayTimeout,
                headers: [.contentType: ProblemDocument.mediaType],
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: body))
            )
        }
        try await withServer(router, unix: false) { endpoint in
            let client = ControlClient(endpoint: endpoint, repeatMillisecondsMax: 60_000)
            try await client.deleteVolume("v")
            let seen = keys.withLock { $0 }
            #expect(seen.count == 3 && Set(seen).count == 1 && seen[0] != nil)
        }
    }
}
