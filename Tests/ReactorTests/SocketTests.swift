import BlockCore
import CLinux
import Glibc
import Reactor
import StorageIO
import TestSupport
import Testing

/// An engine and a transport: every test of sockets runs on each pair.
struct Medium: CustomTestStringConvertible, Sendable {
    var engine: EngineChoice
    var transport: Transport

    var testDescription: String { "\(engine.rawValue), \(transport.rawValue)" }

    static var all: [Medium] {
        engines.flatMap { engine in
            Transport.allCases.map { Medium(engine: engine, transport: $0) }
        }
    }
}

@Suite struct SocketTests {
    @Test("A unix socket takes half a megabyte without a reader, as far as the system lets it")
    func enlargeLocalBuffer_takesMore() throws {
        let (near, far) = try Socket.pair()
        defer {
            near.closeUnused()
            far.closeUnused()
        }
        let before = sendBufferByteCount(near)
        near.enlargeLocalBuffer(byteCount: 512 << 10)
        // The kernel counts its book-keeping in: twice what was asked for. Who may not go beyond
        // net.core.wmem_max gets twice that, which is 416 KiB everywhere by default.
        #expect(sendBufferByteCount(near) > before)
        #expect(sendBufferByteCount(near) >= 2 * 212_992)
    }

    private func sendBufferByteCount(_ socket: Socket) -> Int32 {
        var byteCount: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        // SAFETY: both outlive the call, and the length is the value's own.
        let result = unsafe getsockopt(
            socket.descriptor,
            SOL_SOCKET,
            SO_SNDBUF,
            &byteCount,
            &length
        )
        #expect(result == 0)
        return byteCount
    }

    @Test(
        "16 MiB through small socket buffers arrive whole and in order",
        arguments: Medium.all
    )
    func send_large_arrivesWhole(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        client.setBuffers(sendByteCount: 16_384, receiveByteCount: 16_384)
        server.setBuffers(sendByteCount: 16_384, receiveByteCount: 16_384)
        let byteCount = 16 << 20
        let source = harness.region(byteCount: byteCount)
        let target = harness.region(byteCount: byteCount)
        fill(source, seed: 6)
        // 64 regions of uneven lengths, an empty one among them.
        var regions: [ByteRegion] = []
        var offset = 0
        for index in 0..<63 {
            let length = index == 7 ? 0 : 100_000 + index * 4099
            regions.append(source.slice(offset, length))
            offset += length
        }
        regions.append(source.suffix(from: offset))
        harness.reactor.send(client, regions.span, token: 1)
        var received = 0
        while received < byteCount {
            harness.reactor.receive(server, into: target.suffix(from: received), token: 2)
            let completion = try harness.wait(token: 2)
            try #require(completion.result > 0)
            received += Int(completion.result)
        }
        #expect(try harness.wait(token: 1).result == Int32(byteCount))
        #expect(target.equals(source))
        #expect(harness.reactor.counters.queuedSendCount == 1)
        harness.reactor.close(client, token: 3)
        #expect(try harness.wait(token: 3).result == 0)
        harness.reactor.receive(server, into: target, token: 4)
        #expect(try harness.wait(token: 4).result == 0, "the end of the stream")
        harness.reactor.close(server, token: 5)
        #expect(try harness.wait(token: 5).result == 0)
    }

    @Test(
        "A small send goes out at once, and its completion comes with the next turn",
        arguments: Medium.all
    )
    func send_small_isDirect(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        let region = harness.region(byteCount: 4096)
        fill(region, seed: 7)
        let target = harness.region(byteCount: 4096)
        for round in 0..<100 {
            harness.reactor.receive(server, into: target, token: 1)
            harness.turn(Instant(nanoseconds: 0))
            harness.reactor.send(client, region.slice(0, 100 + round), token: 2)
            #expect(harness.reactor.nextCompletion() == nil)
            #expect(try harness.wait(token: 2).result == Int32(100 + round))
            #expect(try harness.wait(token: 1).result == Int32(100 + round))
            #expect(target.slice(0, 100).equals(region.slice(0, 100)))
        }
        #expect(harness.reactor.counters.directSendCount == 100)
        harness.reactor.send(client, [ByteRegion]().span, token: 3)
        #expect(try harness.wait(token: 3).result == 0)
        harness.reactor.close(server, token: 4)
        harness.reactor.close(client, token: 5)
        _ = try harness.wait(2)
    }

    @Test("Closing ends what is in flight first, then closes", arguments: Medium.all)
    func close_inFlight_drainsFirst(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        let region = harness.region(byteCount: 8 << 20)
        harness.reactor.receive(client, into: region.slice(0, 4096), token: 1)
        harness.reactor.send(client, region, token: 2)
        harness.turn(Instant(nanoseconds: 0))
        harness.reactor.close(client, token: 4)
        // Late comers are refused as values.
        harness.reactor.receive(client, into: region, token: 5)
        let completions = try harness.wait(4)
        #expect(completions.last?.token == 4 || completions.last?.token == 5)
        for token in UInt64(1)...2 {
            let completion = try #require(completions.first { $0.token == token })
            #expect(completion.result == -ECANCELED && completion.isFinal)
        }
        let closed = try #require(completions.firstIndex { $0.token == 4 })
        #expect(completions[closed].result == 0)
        #expect(completions[..<closed].filter { $0.token < 4 }.count == 2)
        let late = try #require(completions.first { $0.token == 5 })
        // A closed descriptor's number may be anybody's: here it is nobody's.
        #expect(late.result == -EBADF)
        // The peer sees the end.
        var result: Int32 = 1
        while result > 0 {
            harness.reactor.receive(server, into: region, token: 6)
            result = try harness.wait(token: 6).result
        }
        #expect(result == 0 || result == -ECONNRESET)
        harness.reactor.close(server, token: 7)
        _ = try harness.wait(token: 7)
        #expect(harness.reactor.freeOperationCount == 1024)
    }

    @Test(
        "A descriptor's number in new hands gets none of the old completions",
        arguments: Medium.all
    )
    func close_reuse_isClean(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let region = harness.region(byteCount: 4096)
        for round in UInt64(0)..<50 {
            let (server, client) = try harness.connect(medium.transport)
            harness.reactor.receive(server, into: region.slice(0, 64), token: 100 + round)
            harness.turn(Instant(nanoseconds: 0))
            harness.reactor.close(server, token: 1)
            harness.reactor.close(client, token: 2)
            #expect(try harness.wait(token: 1).result == 0)
            #expect(try harness.wait(token: 2).result == 0)
            let ended = try harness.wait(token: 100 + round)
            #expect(ended.result == -ECANCELED || ended.result == 0)
        }
        #expect(harness.completions.isEmpty)
        #expect(harness.reactor.counters.staleCompletionCount == 0)
    }

    @Test("Cancelling ends a receive, and the socket works on", arguments: Medium.all)
    func cancel_receive_ends(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        let region = harness.region(byteCount: 4096)
        harness.reactor.receive(server, into: region, token: 1)
        harness.turn(Instant(nanoseconds: 0))
        harness.reactor.cancel(token: 1)
        #expect(try harness.wait(token: 1).result == -ECANCELED)
        harness.reactor.cancel(token: 1)
        harness.reactor.send(client, region.slice(0, 5), token: 2)
        harness.reactor.receive(server, into: region, token: 3)
        #expect(try harness.wait(token: 3).result == 5)
        _ = try harness.wait(token: 2)
        harness.reactor.close(server, token: 4)
        harness.reactor.close(client, token: 5)
        _ = try harness.wait(2)
    }

    @Test("Sending to a peer that is gone is an errno, not a signal", arguments: Medium.all)
    func send_peerGone_fails(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        let region = harness.region(byteCount: 1 << 20)
        harness.reactor.close(server, token: 1)
        _ = try harness.wait(token: 1)
        var result: Int32 = 0
        for _ in 0..<100 where result >= 0 {
            harness.reactor.send(client, region, token: 2)
            result = try harness.wait(token: 2).result
        }
        #expect(result == -EPIPE || result == -ECONNRESET)
        harness.reactor.close(client, token: 3)
        _ = try harness.wait(token: 3)
    }

    @Test("One accept yields every connection until it is cancelled", arguments: engines)
    func accept_repeated_yieldsAll(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let listener = try Listener.tcp(host: "127.0.0.1", port: 0)
        harness.reactor.accept(listener.socket, token: 1)
        var clients: [Socket] = []
        for _ in 0..<50 {
            clients.append(try Socket.connectTCP(host: "127.0.0.1", port: listener.port))
        }
        let accepted = try harness.wait(50)
        #expect(accepted.allSatisfy { $0.token == 1 && $0.result >= 0 && !$0.isFinal })
        #expect(Set(accepted.map(\.result)).count == 50)
        harness.reactor.cancel(token: 1)
        let last = try harness.wait(token: 1)
        #expect(last.result == -ECANCELED && last.isFinal)
        harness.reactor.accept(listener.socket, token: 2)
        clients.append(try Socket.connectTCP(host: "127.0.0.1", port: listener.port))
        let again = try harness.wait(token: 2)
        #expect(again.result >= 0)
        // Closing the listener ends its accept.
        harness.reactor.close(listener.socket, token: 3)
        #expect(try harness.wait(token: 2).isFinal)
        #expect(try harness.wait(token: 3).result == 0)
        for socket in clients { socket.closeUnused() }
        for completion in accepted + [again] {
            harness.reactor.close(Socket(descriptor: completion.result), token: 4)
            _ = try harness.wait(token: 4)
        }
    }

    @Test("A TCP connect that is refused says so", arguments: engines)
    func connectTCP_refused_isReported(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let listener = try Listener.tcp(host: "127.0.0.1", port: 0)
        listener.socket.closeUnused()
        let socket: Socket
        do throws(SocketError) {
            socket = try Socket.connectTCP(host: "127.0.0.1", port: listener.port)
        } catch {
            #expect(error.errno == ECONNREFUSED)
            return
        }
        harness.reactor.send(socket, harness.region(byteCount: 4096), token: 1)
        #expect(try harness.wait(token: 1).result == -ECONNREFUSED)
        harness.reactor.close(socket, token: 2)
        _ = try harness.wait(token: 2)
    }
}

@Suite struct ListenerTests {
    @Test("Port 0 gets a port, which is then taken")
    func tcp_portZero_isBound() throws {
        let listener = try Listener.tcp(host: "127.0.0.1", port: 0)
        #expect(listener.port != 0)
        #expect(throws: SocketError.addressInUse) {
            try Listener.tcp(host: "127.0.0.1", port: listener.port)
        }
        listener.socket.closeUnused()
        let again = try Listener.tcp(host: "127.0.0.1", port: listener.port)
        again.socket.closeUnused()
    }

    @Test("IPv6 and all addresses work; a foreign address does not")
    func tcp_addresses() throws {
        if let six = try? Listener.tcp(host: "::1", port: 0) {
            let client = try Socket.connectTCP(host: "::1", port: six.port)
            client.closeUnused()
            six.socket.closeUnused()
        } else {
            print("no IPv6 loopback here: not tested")
        }
        let all = try Listener.tcp(host: "", port: 0)
        all.socket.closeUnused()
        #expect(throws: SocketError.addressNotAvailable) {
            try Listener.tcp(host: "192.0.2.1", port: 0)
        }
        #expect(throws: SocketError.addressNotAvailable) {
            try Listener.tcp(host: "no such host", port: 0)
        }
    }

    @Test("A unix socket left behind is replaced; a living one and other files are not")
    func unix_stale_isReplaced() throws {
        let directory = try TestDirectory()
        let path = "\(directory.path)/socket"
        let first = try Listener.unix(path: path, mode: 0o600)
        #expect(throws: SocketError.addressInUse) { try Listener.unix(path: path) }
        first.socket.closeUnused()
        let second = try Listener.unix(path: path)
        let client = try Socket.connectUnix(path: path)
        client.closeUnused()
        second.socket.closeUnused()
        second.removePath()
        #expect(throws: SocketError.system(errno: ENOENT)) { try Socket.connectUnix(path: path) }
        try Device.create(path: path, byteCount: 4096)
        #expect(throws: SocketError.notASocket) { try Listener.unix(path: path) }
        let long = directory.path + "/" + String(repeating: "x", count: 108)
        #expect(throws: SocketError.pathTooLong) { try Listener.unix(path: long) }
        #expect(throws: SocketError.pathTooLong) { try Listener.unix(path: "") }
    }
}
