// Clients that take their time, and pages that pretend to be this machine.

import ControlAPI
import ControlPlane
import Hummingbird
import NIOCore
import TestSupport
import Testing

/// The start of a request that is answered only when its body has arrived.
private let slowCreation =
    "POST /v1/volumes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    + "Content-Length: 9999\r\n\r\n{"

/// In what time requests must arrive here.
///
/// Those that are not late on purpose must, too, however busy the machine is.
private let arrivalMillisecondsMax: Int64 = 10_000

@Suite("Requests as they arrive", .timeLimit(.minutes(2)))
struct SlowRequestTests {
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
            requestMillisecondsMax: arrivalMillisecondsMax
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
            requestMillisecondsMax: arrivalMillisecondsMax
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
            requestMillisecondsMax: arrivalMillisecondsMax
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
            idleMillisecondsMax: arrivalMillisecondsMax
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

    @Test("A client that does not read its answer, in one piece or in many, loses its connection")
    func server_unreadAnswer_isCut() async throws {
        let router = Router(context: APIContext.self)
        let piece = ByteBuffer(repeating: UInt8(ascii: "x"), count: 1 << 20)
        router.get("piece") { _, _ in
            let whole = ByteBuffer(repeating: UInt8(ascii: "x"), count: 16 << 20)
            return Response(status: .ok, body: ResponseBody(byteBuffer: whole))
        }
        router.get("pieces") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    while true { try await writer.write(piece) }
                }
            )
        }
        for path in ["/piece", "/pieces"] {
            try await withServer(router, unix: true, writeMillisecondsMax: 500) { endpoint in
                guard case .unix(let socket) = endpoint else { return }
                let connection = try SlowConnection(unixPath: socket)
                connection.send("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\r\n")
                #expect(try await isEventually(within: .seconds(30)) { connection.hasInput })
                #expect(try await isEventually(within: .seconds(30)) { connection.isHungUp })
            }
        }
    }
}
