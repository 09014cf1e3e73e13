// The control client against its router over real sockets, and against what is none.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import Synchronization
import TestSupport
import Testing

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
        // A name that no name service has, or is asked for: longer than the parts of names are.
        let name = APIEndpoint.tcp(host: String(repeating: "a", count: 64), port: 80)
        let error = await controlError { () throws(ControlError) in
            _ = try await ControlClient(endpoint: name).health()
        }
        #expect(error?.code == .unreachable)
        #expect(error?.detail.hasSuffix(": the host's name has no address.") == true)
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
        let hasGivenUp = Atomic(false)
        let router = Router(context: APIContext.self)
        router.get("v1/health") { _, _ -> String in
            _ = try? await isEventually { hasGivenUp.load(ordering: .relaxed) }
            return ""
        }
        try await withServer(router, unix: false) { endpoint in
            let client = ControlClient(endpoint: endpoint, answerMillisecondsMax: 100)
            let error = await controlError { () throws(ControlError) in
                _ = try await client.health()
            }
            hasGivenUp.store(true, ordering: .relaxed)
            #expect(error?.code == .outcomeUnknown)
        }
    }
}
