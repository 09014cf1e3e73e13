import BlockCore
import Glibc
import LogStore
import StorageNode
import TestSupport
import Testing

/// A client that speaks NBD under TLS, to a node with a pre-shared key; simple replies.
private final class TLSNodeClient {
    let client: TestClient
    let session: TLSSession
    private let arena = MemoryArena(byteCount: 256 << 10)
    private let wire: ByteRegion
    private let plain: ByteRegion
    private var received: [UInt8] = []

    init(path: String, keys: String) throws {
        client = try TestClient(path: path)
        try client.greet()
        guard try client.option(5).last?.type == 1 else { throw ClientError("STARTTLS") }
        let context = try TLSContext(
            role: .client(serverName: nil, presharedKeyUser: "alice"),
            TLSConfiguration(presharedKeysPath: keys)
        )
        session = try context.makeSession()
        wire = arena.allocate(byteCount: 64 << 10)
        plain = arena.allocate(byteCount: 64 << 10)
        while session.state == .handshaking {
            _ = session.readPlaintext(into: plain)
            try flush()
            if session.state == .handshaking { try receiveCiphertext() }
        }
    }

    /// Sends the ciphertext at hand.
    func flush() throws {
        while case let count = session.takeCiphertext(into: wire), count > 0 {
            try client.send(wire.slice(0, count).array())
        }
    }

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let piece = Array(bytes[sent..<min(sent + (16 << 10), bytes.count)])
            plain.copy(from: piece)
            sent += session.writePlaintext(plain.slice(0, piece.count))
            try flush()
        }
    }

    private func receiveCiphertext() throws {
        wire.copy(from: try client.receive(1))
        _ = session.receiveCiphertext(wire.slice(0, 1))
    }

    func receive(_ count: Int) throws -> [UInt8] {
        while received.count < count {
            switch session.readPlaintext(into: plain) {
            case .bytes(let byteCount): received += plain.slice(0, byteCount).array()
            case .wantMore: try receiveCiphertext()
            default: throw ClientError("closed")
            }
        }
        defer { received.removeFirst(count) }
        return Array(received.prefix(count))
    }

    /// Opens an export.
    func enter(_ export: String) throws {
        let name = Array(export.utf8)
        let data = big(UInt32(name.count)) + name + [0, 0]
        try send(Array("IHAVEOPT".utf8) + big(UInt32(7)) + big(UInt32(data.count)) + data)
        while true {
            let header = try receive(20)
            let type: UInt32 = load(header, 12)
            let count: UInt32 = load(header, 16)
            _ = try receive(Int(count))
            if type == 1 { return }
            guard type == 3 else { throw ClientError("refused \(type)") }
        }
    }

    /// Ends the client's side of the socket.
    func endOutput() { _ = shutdown(client.socket, Int32(SHUT_WR)) }
}

@Suite("A node under TLS", .serialized, .timeLimit(.minutes(2))) struct TLSNodeTests {
    private func node(_ keys: String, _ directory: TestDirectory) async throws -> TestNode {
        try TestFiles.write("alice:00112233445566778899aabbccddeeff\n", to: keys)
        let node = try await TestNode(directory: directory, isNew: true) { configuration in
            configuration.tlsPolicy = .require
            configuration.tls = TLSConfiguration(presharedKeysPath: keys)
        }
        try await node.makeVolume("disk", id: 1)
        return node
    }

    /// Requests that came whole are carried out and answered, whatever the end was like.
    @Test(arguments: [true, false]) func inputEnds_behindRequests_allAreAnswered(
        isOrderly: Bool
    ) async throws {
        let directory = try TestDirectory()
        let keys = directory.path + "/keys"
        let node = try await node(keys, directory)
        let client = try TLSNodeClient(path: node.socketPath, keys: keys)
        try client.enter("disk")
        let data = pattern(byteCount: 65_536, seed: 1)
        var bytes: [UInt8] = []
        for index in 0..<32 as Range<UInt64> {
            bytes += client.client.request(1, index * 65_536, 65_536, payload: data).bytes
        }
        // The beginning of one more, which will never be whole.
        bytes += client.client.request(1, 0, 65_536, payload: data).bytes.prefix(1000)
        try client.send(bytes)
        if isOrderly {
            client.session.shutdown()
            try client.flush()
        }
        client.endOutput()
        for _ in 0..<32 {
            let reply = try client.receive(16)
            let error: UInt32 = load(reply, 4)
            #expect(error == 0)
        }
        #expect(throws: ClientError.self) { try client.receive(1) }
        let later = try TLSNodeClient(path: node.socketPath, keys: keys)
        try later.enter("disk")
        try later.send(later.client.request(0, 31 * 65_536, 65_536).bytes)
        #expect(try Array(later.receive(16 + 65_536).dropFirst(16)) == data)
        let counters = await node.node.counters()
        #expect(counters.truncatedCount == (isOrderly ? 0 : 1))
        #expect(counters.violationCount == 0)
        await node.stop()
    }

    @Test func inputEnds_inTheHandshake_isDropped() async throws {
        let directory = try TestDirectory()
        let keys = directory.path + "/keys"
        let node = try await node(keys, directory)
        let client = try TestClient(path: node.socketPath)
        try client.greet()
        _ = try client.option(5)
        try client.send([22, 3, 1])
        _ = shutdown(client.socket, Int32(SHUT_WR))
        #expect(client.isClosed())
        #expect(try await isEventually { await node.node.counters().connectionCountNow == 0 })
        await node.stop()
    }
}
