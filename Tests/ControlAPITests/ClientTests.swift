// Both clients against both routers over real sockets.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import ServiceLifecycle
import Testing

/// Runs `body` with a server of `router`, over TCP and over a unix socket.
private func withServer(
    _ router: Router<APIContext>,
    unix: Bool,
    requestMillisecondsMax: Int64 = APILimits.requestSecondsMax * 1000,
    idleMillisecondsMax: Int64 = APILimits.idleSecondsMax * 1000,
    _ body: @Sendable (APIEndpoint) async throws -> Void
) async throws {
    let path = "/tmp/cairn-\(UUID().uuidString.prefix(8)).sock"
    let wanted = unix ? APIEndpoint.unix(path: path) : .tcp(host: "127.0.0.1", port: 0)
    let (listening, continuation) = AsyncStream<APIEndpoint>.makeStream()
    let server = apiServer(
        router: router,
        endpoint: wanted,
        logger: Cluster.quiet,
        requestMillisecondsMax: requestMillisecondsMax,
        idleMillisecondsMax: idleMillisecondsMax
    ) {
        continuation.yield($0)
    }
    let group = ServiceGroup(
        configuration: ServiceGroupConfiguration(services: [server], logger: Cluster.quiet)
    )
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        let endpoint = try #require(await listening.first { _ in true })
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(endpoint))
        } catch {
            result = .failure(error)
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
        try result.get()
    }
}

/// The start of a request that is answered only when its body has arrived.
private let slowCreation =
    "POST /v1/volumes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    + "Content-Length: 9999\r\n\r\n{"

@Suite("Clients", .timeLimit(.minutes(2)))
struct ClientTests {
    @Test("The control client speaks all of the control API", arguments: [false, true])
    func control_roundTrip(unix: Bool) async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(controlRouter(service: plane), unix: unix) { endpoint in
            let client = ControlClient(endpoint: endpoint)
            #expect(try await client.health().nodesUp == 1)
            #expect(try await client.version().program == "volmeta")
            let made = try await client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
            #expect(try await client.volume("v") == made)
            let update = VolumeUpdate(byteCount: 8192)
            #expect(try await client.updateVolume("v", update).byteCount == 8192)
            #expect(try await client.volumes().map(\.name) == ["v"])
            let snapshot = try await client.createSnapshot("s", of: "v")
            #expect(try await client.snapshots(of: "v") == [snapshot])
            #expect(try await client.snapshot("s", of: "v") == snapshot)
            _ = try await client.clone("v", snapshot: "s", CloneCreation(name: "c"))
            _ = try await client.rollback("v", to: "s")
            let creation = ImageCreation(name: "i", version: "1", volume: "v", snapshot: "s")
            let image = try await client.createImage(creation)
            #expect(try await client.images() == [image])
            #expect(try await client.image("i", version: "1") == image)
            _ = try await client.cloneImage("i", version: "1", CloneCreation(name: "d"))
            let attached = try await client.attach("v", AttachmentCreation(host: "h"))
            #expect(attached.nbdURI == "nbd://127.0.0.1:10809/v:\(attached.epoch)")
            #expect(try await client.attachments(of: "v").count == 1)
            try await client.detach("v", from: "h")
            try await client.deleteVolume("c")
            try await client.deleteVolume("d")
            try await client.deleteImage("i", version: "1")
            try await client.deleteSnapshot("s", of: "v")
            try await client.deleteVolume("v")
            #expect(try await client.nodes().map(\.name) == ["n1"])
            #expect(try await client.updateNode("n1", NodeUpdate(draining: true)).draining)
            #expect(try await client.node("n1").draining)
            let registered = try await client.registerNode("n1", Cluster.registration(0))
            let heartbeat = NodeHeartbeat(session: registered.session, space: .empty)
            try await client.heartbeat("n1", heartbeat)
            let events = try await client.events()
            #expect(events.events.first?.kind == "node.up")
            var followed: [String] = []
            try await client.followEvents(after: 0) { event in
                followed.append(event.kind)
                return followed.count < events.events.count
            }
            #expect(followed == events.events.map(\.kind))
            // The server waits for the streams that it serves, so they end first.
            plane.stop()
            let missing = await controlError { () throws(ControlError) in
                _ = try await client.volume("nope")
            }
            #expect(missing?.code == .volumeNotFound)
            #expect(missing?.help?.contains("volctl volume list") == true)
        }
    }

    @Test(
        "A request that does not arrive whole in time costs its connection",
        arguments: [
            ("", ""), ("GET /v1/vol", "x"),
            ("GET /v1/volumes HTTP/1.1\r\nHost: localhost\r\nX: ", "x"),
            (slowCreation, " "),
        ]
    )
    func server_slowRequest_isCut(start: String, more: String) async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(
            controlRouter(service: plane),
            unix: false,
            requestMillisecondsMax: 500
        ) { endpoint in
            guard case .tcp(_, let port) = endpoint else { return }
            let connection = try SlowConnection(port: UInt16(port))
            connection.send(start)
            // A byte now and then, as a slow client sends them: the idle timeout is of no use.
            #expect(await connection.isCut(trickling: more, seconds: 30))
            // Others are served meanwhile and afterwards.
            #expect(try await ControlClient(endpoint: endpoint).health().nodesUp == 1)
        }
    }

    @Test("A request that is answered before it has arrived still has to arrive in time")
    func server_slowBodyAfterAnswer_isCut() async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(
            controlRouter(service: plane),
            unix: false,
            // The answer has to come within it.
            requestMillisecondsMax: 5000
        ) { endpoint in
            guard case .tcp(_, let port) = endpoint else { return }
            let connection = try SlowConnection(port: UInt16(port))
            connection.send(
                "POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{"
            )
            #expect(await connection.nextAnswer(seconds: 30)?.contains(" 404 ") == true)
            #expect(await connection.isCut(trickling: " ", seconds: 30))
        }
    }

    @Test(
        "Over loopback only this machine's own names are served: a page's may have been rebound",
        arguments: [
            ("127.0.0.1:7400", true), ("localhost", true), ("[::1]:80", true),
            ("evil.example", false), ("evil.example:7400", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false), ("%20", false),
        ]
    )
    func server_reboundName_isRefused(host: String, isServed: Bool) async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(controlRouter(service: plane), unix: false) { endpoint in
            guard case .tcp(_, let port) = endpoint else { return }
            let connection = try SlowConnection(port: UInt16(port))
            connection.send("GET /v1/health HTTP/1.1\r\nHost: \(host)\r\n\r\n")
            let status = isServed ? " 200 " : " 403 "
            #expect(await connection.nextAnswer(seconds: 30)?.contains(status) == true)
        }
    }

    @Test("The second request on a connection has the time that the first had, not the idle time")
    func server_slowSecondRequest_isCut() async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(
            controlRouter(service: plane),
            unix: false,
            requestMillisecondsMax: 500
        ) { endpoint in
            guard case .tcp(_, let port) = endpoint else { return }
            let connection = try SlowConnection(port: UInt16(port))
            connection.send("GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            #expect(await connection.nextAnswer(seconds: 30)?.contains(" 200 ") == true)
            connection.send(slowCreation)
            // The idle time is 75 s.
            #expect(await connection.isCut(trickling: " ", seconds: 30))
        }
    }

    @Test(
        "After an answer a connection waits for the idle time, and a slow head does not extend it",
        arguments: [
            "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n",
        ]
    )
    func server_slowSecondHead_isCut(first: String) async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(
            controlRouter(service: plane),
            unix: false,
            idleMillisecondsMax: 1000
        ) { endpoint in
            guard case .tcp(_, let port) = endpoint else { return }
            let connection = try SlowConnection(port: UInt16(port))
            connection.send(first)
            #expect(await connection.nextAnswer(seconds: 30) != nil)
            // The rest of a request that was answered before it had arrived.
            if first.hasPrefix("POST") { connection.send("{}") }
            connection.send("GET /v1/vol")
            #expect(await connection.isCut(trickling: "x", seconds: 30))
        }
    }

    @Test("The node client speaks all of the node API", arguments: [false, true])
    func node_roundTrip(unix: Bool) async throws {
        let node = MemoryNode(name: "n1")
        try await withServer(nodeRouter(service: node), unix: unix) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            #expect(try await client.report().name == "n1")
            #expect(try await client.statistics().counters == ["volumes.now": 0])
            let creation = NodeVolumeCreation(
                id: 7,
                name: "v",
                byteCount: 4096,
                logicalBlockByteCount: 512,
                durability: .writeback,
                descriptor: #"{"format":1}"#
            )
            let made = try await client.createVolume(creation)
            #expect(made.descriptor == #"{"format":1}"#)
            #expect(try await client.volumes() == [made])
            #expect(try await client.volume(7) == made)
            let update = NodeVolumeUpdate(byteCount: 8192, access: .readWrite)
            let changed = try await client.updateVolume(7, update)
            #expect(changed.access == .readWrite)
            #expect(try await client.createSnapshot(volume: 7, name: "s").name == "s")
            _ = try await client.rollback(volume: 7, snapshot: "s")
            let clone = NodeCloneCreation(
                id: 8,
                name: "c",
                durability: .writeback,
                descriptor: ""
            )
            #expect(try await client.clone(volume: 7, snapshot: "s", clone).byteCount == 8192)
            let inUse = await controlError { () throws(ControlError) in
                try await client.deleteVolume(7)
            }
            #expect(inUse?.code == .inUse)
            try await client.deleteVolume(8)
            try await client.deleteSnapshot(volume: 7, name: "s")
            try await client.deleteVolume(7)
            #expect(node.held.isEmpty)
            let refused = await controlError { () throws(ControlError) in
                _ = try await client.volume(0)
            }
            #expect(refused?.code == .invalidArgument)
        }
    }

    @Test("A node refuses what is meant for another store, and does none of it")
    func node_otherStore_isRefused() async throws {
        let node = MemoryNode(name: "n1")
        let own = try await node.report().storeIdentity
        try await withServer(nodeRouter(service: node), unix: false) { endpoint in
            let other = NodeClient(
                endpoint: endpoint,
                storeIdentity: String(repeating: "f", count: 32)
            )
            let creation = NodeVolumeCreation(
                id: 7,
                name: "v",
                byteCount: 4096,
                logicalBlockByteCount: 512,
                durability: .writeback,
                descriptor: ""
            )
            let refused = await controlError { () throws(ControlError) in
                _ = try await other.createVolume(creation)
            }
            #expect(refused?.code == .unavailable)
            #expect(refused?.detail.contains(own) == true)
            #expect(node.held.isEmpty)
            // A deletion must not look as if it had been carried out.
            let missing = await controlError { () throws(ControlError) in
                try await other.deleteVolume(7)
            }
            #expect(missing?.code == .unavailable)
            let same = NodeClient(endpoint: endpoint, storeIdentity: own.uppercased())
            let made = try await same.createVolume(creation)
            #expect(made.id == 7)
        }
    }

    @Test("A node refuses what belongs to an earlier operation than the last")
    func node_lateOperation_isRefused() async throws {
        let node = MemoryNode(name: "n1")
        try await withServer(nodeRouter(service: node), unix: false) { endpoint in
            let client = NodeClient(endpoint: endpoint)
            let creation = NodeVolumeCreation(
                id: 7,
                name: "v",
                byteCount: 4096,
                logicalBlockByteCount: 512,
                durability: .writeback,
                descriptor: ""
            )
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 5, epochMax: 0))
                .createVolume(creation)
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 6, epochMax: 0))
                .createSnapshot(volume: 7, name: "s")
            _ = try await client.carryingOut(NodeOperation(term: 1, revision: 6, epochMax: 0))
                .rollback(volume: 7, snapshot: "s")
            let old = client.carryingOut(NodeOperation(term: 1, revision: 5, epochMax: 0))
            let refusals = [
                await controlError { () throws(ControlError) in
                    _ = try await old.rollback(volume: 7, snapshot: "s")
                },
                await controlError { () throws(ControlError) in
                    try await old.deleteSnapshot(volume: 7, name: "s")
                },
                await controlError { () throws(ControlError) in
                    _ = try await old.updateVolume(7, NodeVolumeUpdate(byteCount: 8192))
                },
                await controlError { () throws(ControlError) in try await old.deleteVolume(7) },
                await controlError { () throws(ControlError) in
                    _ = try await old.createVolume(creation)
                },
            ]
            #expect(refusals.allSatisfy { $0?.code == .outdated })
            #expect(node.held[7]?.rollbacks == ["s"])
            #expect(node.held[7]?.creation.byteCount == 4096)
            try await client.carryingOut(NodeOperation(term: 1, revision: 9, epochMax: 0))
                .deleteVolume(7)
            let revived = await controlError { () throws(ControlError) in
                _ = try await old.createVolume(creation)
            }
            #expect(revived?.code == .outdated)
            #expect(node.held.isEmpty)
            // A restored copy of the metadata begins with lower revisions again, in a later term.
            let restored = client.carryingOut(NodeOperation(term: 2, revision: 3, epochMax: 0))
            _ = try await restored.createVolume(creation)
            #expect(node.held[7] != nil)
        }
    }

    @Test("Nothing there: the client knows that nothing was sent, and says what to do")
    func unreachable_isTold() async throws {
        let port = APIEndpoint.tcp(host: "127.0.0.1", port: 1)
        let socket = APIEndpoint.unix(path: "/tmp/cairn-no-such-\(UUID().uuidString.prefix(8))")
        for endpoint in [port, socket] {
            let error = await controlError { () throws(ControlError) in
                _ = try await ControlClient(endpoint: endpoint).health()
            }
            #expect(error?.code == .unreachable, "\(endpoint)")
            #expect(error?.help?.contains("volctl dev up") == true)
        }
    }

    @Test("Something else there: the client says so")
    func badResponse_isTold() async throws {
        let router = Router(context: APIContext.self)
        router.get("v1/health") { _, _ in "I am a web server" }
        router.get("v1/version") { _, _ -> HTTPResponse.Status in .notAcceptable }
        try await withServer(router, unix: false) { endpoint in
            let client = ControlClient(endpoint: endpoint)
            let health = await controlError { () throws(ControlError) in
                _ = try await client.health()
            }
            #expect(health?.code == .badResponse)
            let version = await controlError { () throws(ControlError) in
                _ = try await client.version()
            }
            #expect(version?.code == .badResponse)
        }
    }

    @Test("A server that never answers: the client gives up, and does not claim to know")
    func silence_timesOut() async throws {
        let router = Router(context: APIContext.self)
        router.get("v1/health") { _, _ -> String in
            try? await Task.sleep(for: .seconds(3))
            return ""
        }
        try await withServer(router, unix: false) { endpoint in
            let client = ControlClient(endpoint: endpoint, answerMillisecondsMax: 100)
            let error = await controlError { () throws(ControlError) in
                _ = try await client.health()
            }
            #expect(error?.code == .outcomeUnknown)
        }
    }

    @Test("A taken port, a foreign file and a missing directory are told apart")
    func requireFree_tells() async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(controlRouter(service: plane), unix: false) { endpoint in
            let taken = await controlError { () throws(ControlError) in
                try await requireFree(endpoint)
            }
            #expect(taken?.detail.contains("Another process listens") == true)
        }
        try await withServer(controlRouter(service: plane), unix: true) { endpoint in
            let taken = await controlError { () throws(ControlError) in
                try await requireFree(endpoint)
            }
            #expect(taken?.code == .unavailable)
        }
        let file = NSTemporaryDirectory() + "cairn-\(UUID().uuidString.prefix(8))"
        try Data("mine".utf8).write(to: URL(filePath: file))
        defer { try? FileManager.default.removeItem(atPath: file) }
        let foreign = await controlError { () throws(ControlError) in
            try await requireFree(.unix(path: file))
        }
        #expect(foreign?.detail.contains("is not a socket") == true)
        #expect(FileManager.default.fileExists(atPath: file))
        let missing = await controlError { () throws(ControlError) in
            try await requireFree(.unix(path: "/no-such-directory/x.sock"))
        }
        #expect(missing?.detail.contains("does not exist") == true)
        let foreignAddress = await controlError { () throws(ControlError) in
            try await requireFree(.tcp(host: "192.0.2.1", port: 7400))
        }
        #expect(foreignAddress?.detail.contains("not an address of this machine") == true)
    }

    @Test("A socket left behind by a process that died is replaced")
    func requireFree_staleSocket_isRemoved() async throws {
        let path = "/tmp/cairn-\(UUID().uuidString.prefix(8)).sock"
        try makeStaleSocket(path)
        try await requireFree(.unix(path: path))
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    /// Binds a socket and closes it without unlinking, as a killed process does.
    private func makeStaleSocket(_ path: String) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/python3")
        process.arguments = [
            "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path,
        ]
        try process.run()
        process.waitUntilExit()
        try #require(FileManager.default.fileExists(atPath: path))
    }
}

@Suite("Endpoints")
struct EndpointTests {
    @Test(
        "Endpoints are read in all their spellings",
        arguments: [
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
            ("localhost:80/", "http://localhost:80"),
            ("http://[::1]:7400", "http://[::1]:7400"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("http+unix:///run/x.sock", "unix:/run/x.sock"),
        ]
    )
    func read_valid(text: String, expected: String) throws {
        let endpoint = try APIEndpoint(text)
        #expect(endpoint.description == expected)
        #expect(try APIEndpoint(endpoint.description) == endpoint)
    }

    @Test(
        "What is no endpoint is refused",
        arguments: [
            "", "127.0.0.1", "http://", "http://:80", "host:", "host:99999", "host:-1",
            "https://host:1", "unix:relative", "host name:80", "http://a/b:80",
            "unix:/" + String(repeating: "x", count: 107),
        ]
    )
    func read_invalid(text: String) {
        #expect(throws: ControlError.self) { try APIEndpoint(text) }
    }
}
