// Clients of a metadata service of several programs, of which one leads.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import Metadata
import Synchronization
import Testing

@Suite("Several services, one of which leads", .timeLimit(.minutes(2)))
struct LeaderTests {
    /// Which of the services leads; nil when none does.
    private final class Leader: Sendable {
        private let index: Mutex<Int?>
        private let refusals = Mutex(0)

        init(_ index: Int?) { self.index = Mutex(index) }

        var refusalCount: Int { refusals.withLock { $0 } }

        func set(_ new: Int?) { index.withLock { $0 = new } }

        /// What a service says that does not lead.
        func refusal(of own: Int) -> ControlError? {
            guard index.withLock({ $0 }) != own else { return nil }
            refusals.withLock { $0 += 1 }
            return ControlError(.standingBy, "Another volmeta leads.")
        }
    }

    /// What one answers that stands by.
    private static func standingBy() throws -> Response {
        let document = ProblemDocument(ControlError(.standingBy, "Another volmeta leads."))
        return Response(
            status: .serviceUnavailable,
            headers: [.contentType: ProblemDocument.mediaType],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: try JSONEncoder().encode(document)))
        )
    }

    /// Runs `body` with two services on one database.
    private func withServices(
        _ leader: Leader,
        repeatMillisecondsMax: Int64 = 60_000,
        _ body: @escaping @Sendable (ControlClient, [APIEndpoint]) async throws -> Void
    ) async throws {
        let (_, plane) = try await Cluster.serving()
        let first = controlRouter(service: plane) { leader.refusal(of: 0) }
        try await withServer(first, unix: false) { first in
            let second = controlRouter(service: plane) { leader.refusal(of: 1) }
            try await withServer(second, unix: true) { second in
                let client = ControlClient(
                    endpoints: try ControlEndpoints("\(first),\(second)"),
                    repeatMillisecondsMax: repeatMillisecondsMax,
                    // On a busy machine whoever leads must not be taken for one that is not there.
                    leaderMillisecondsMax: 60_000
                )
                try await body(client, [first, second])
            }
        }
    }

    @Test("The one that leads is found, kept, and left when another one does", arguments: [0, 1])
    func leader_isFound(_ index: Int) async throws {
        let leader = Leader(index)
        try await withServices(leader) { client, _ in
            _ = try await client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
            #expect(leader.refusalCount == index)
            #expect(try await client.volumes().map(\.name) == ["v"])
            #expect(leader.refusalCount == index, "who was found to lead is asked at once")
            leader.set(1 - index)
            _ = try await client.updateVolume("v", VolumeUpdate(byteCount: 8192))
            #expect(try await client.volume("v").byteCount == 8192)
        }
    }

    @Test("While all stand by, a client with time waits for one to lead")
    func allStandBy_waits() async throws {
        let leader = Leader(nil)
        try await withServices(leader) { client, _ in
            async let made = client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
            while leader.refusalCount < 4 { try await Task.sleep(for: .milliseconds(5)) }
            leader.set(1)
            #expect(try await made.name == "v")
        }
    }

    @Test("Without time, it hears who stands by at once")
    func allStandBy_isTold() async throws {
        let leader = Leader(nil)
        try await withServices(leader, repeatMillisecondsMax: 0) { client, endpoints in
            let error = await controlError { () throws(ControlError) in
                _ = try await client.health()
            }
            #expect(error?.code == .standingBy)
            #expect(leader.refusalCount == 2)
            // With one endpoint, too.
            let alone = await controlError { () throws(ControlError) in
                _ = try await ControlClient(endpoint: endpoints[1]).health()
            }
            #expect(alone?.code == .standingBy)
        }
    }

    @Test("One that is not there is passed over; when nobody is, that is told with all names")
    func unreachable_isPassedOver() async throws {
        let nobody = "http://127.0.0.1:1"
        let leader = Leader(1)
        try await withServices(leader) { _, endpoints in
            let client = ControlClient(
                endpoints: try ControlEndpoints("\(nobody),\(endpoints[0]),\(endpoints[1])"),
                leaderMillisecondsMax: 60_000
            )
            #expect(try await client.health().nodesUp == 1)
        }
        let client = ControlClient(
            endpoints: try ControlEndpoints("\(nobody),unix:/tmp/cairn-none.sock"),
            repeatMillisecondsMax: 60_000
        )
        let error = await controlError { () throws(ControlError) in
            _ = try await client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
        }
        #expect(error?.code == .unreachable)
        #expect(
            error?.detail
                == "Nothing answers at any of http://127.0.0.1:1, unix:/tmp/cairn-none.sock."
        )
    }

    @Test("A change whose answer is lost is asked for again where somebody leads, under its key")
    func lostAnswer_isAskedForElsewhere() async throws {
        let keys = Mutex<[String]>([])
        let leader = Leader(0)
        let router = Router(context: APIContext.self)
        router.get("v1/health") { _, _ -> Response in
            guard leader.refusal(of: 0) == nil else { return try Self.standingBy() }
            return Response(status: .ok)
        }
        router.post("v1/volumes") { request, _ -> Response in
            guard leader.refusal(of: 0) == nil else { return try Self.standingBy() }
            let name = HTTPField.Name("Idempotency-Key")
            let key = name.flatMap { request.headers[$0] }
            keys.withLock { $0.append(key ?? "none") }
            leader.set(1)
            // Longer than the client waits.
            try? await Task.sleep(for: .seconds(5))
            return Response(status: .internalServerError)
        }
        let (cluster, plane) = try await Cluster.serving()
        try await withServer(router, unix: false) { first in
            let next = controlRouter(service: plane) { leader.refusal(of: 1) }
            try await withServer(next, unix: false) { second in
                let client = ControlClient(
                    endpoints: try ControlEndpoints("\(second),\(first)"),
                    answerMillisecondsMax: 500,
                    repeatMillisecondsMax: 60_000
                )
                let creation = VolumeCreation(name: "v", byteCount: 4096)
                _ = try await client.createVolume(creation, operation: "mine")
                #expect(keys.withLock { $0 } == ["mine"])
                let operation = try await cluster.metadata.operation("mine")
                #expect(operation?.value.isDone == true)
            }
        }
    }

    @Test(
        "A list of endpoints is read whole or refused",
        arguments: [
            ("http://a:1,b:2", ["http://a:1", "http://b:2"]),
            ("unix:/run/x.sock", ["unix:/run/x.sock"]),
            ("unix:/run/a,b.sock,http://a:1", ["unix:/run/a,b.sock", "http://a:1"]),
            ("http://a:1,http://a:1", nil), ("http://a:1,", nil), (",http://a:1", nil), ("", nil),
            ("http://a:1,nowhere", nil), ("a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9", nil),
        ] as [(String, [String]?)]
    )
    func list_text(_ text: String, _ endpoints: [String]?) throws {
        let list = try? ControlEndpoints(text)
        #expect(list?.all.map(\.description) == endpoints)
        guard let list else { return }
        #expect(try ControlEndpoints(list.description) == list)
    }
}
