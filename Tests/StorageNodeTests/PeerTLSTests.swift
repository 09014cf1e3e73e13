import BlockCore
import Glibc
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

/// Docs/replication.md, "Between nodes: TLS", over real sockets.
@Suite(
    "TLS between nodes",
    .serialized,
    .enabled(if: TLSTestAuthority.isAvailable, "needs /usr/bin/openssl")
)
struct PeerTLSTests {
    private func credentials(
        _ authority: TLSTestAuthority,
        count: Int = 3
    ) throws -> [String?] {
        try (1...count).map { try authority.node("n\($0)") }
    }

    /// What the nodes of a cluster told of failed handshakes.
    private func failures(
        _ cluster: ReplicatedCluster,
        on node: Int
    ) -> [(peer: String, isDialled: Bool, failure: PeerTLSFailure)] {
        cluster.nodes[node].events.all.compactMap { event in
            guard case .peerTLSFailed(let peer, let isDialled, let failure) = event else {
                return nil
            }
            return (peer, isDialled, failure)
        }
    }

    private func isTold(
        _ cluster: ReplicatedCluster,
        on node: Int,
        where condition: (PeerTLSFailure) -> Bool
    ) async throws -> Bool {
        try await isEventually { failures(cluster, on: node).contains { condition($0.failure) } }
    }

    // MARK: - What works

    @Test("Volumes are written, taken over and resynced as without")
    func links_underTLS_doAllThatTheyDid() async throws {
        let authority = try TLSTestAuthority()
        let cluster = try await ReplicatedCluster(credentials: try credentials(authority))
        try await cluster.serve(on: 0)
        let data = pattern(byteCount: 1 << 20, seed: 1)
        let client = try cluster.client(0)
        for part in 0..<12 { try client.write(UInt64(part) << 20, data) }
        try client.write(20 << 20, Array(data[0..<512]))
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        await cluster.stop(2)
        try client.write(1 << 20, pattern(byteCount: 1 << 20, seed: 2))
        try await cluster.restart(2)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        for node in [1, 2] {
            try await cluster.serve(on: node)
            let other = try cluster.client(node)
            #expect(try other.read(1 << 20, 1 << 20) == pattern(byteCount: 1 << 20, seed: 2))
            #expect(try other.read(11 << 20, 1 << 20) == data)
            #expect(try other.read(20 << 20, 512) == Array(data[0..<512]))
        }
        for node in 0..<3 { #expect(failures(cluster, on: node).isEmpty) }
        await cluster.stopAll()
    }

    @Test("A connection goes with its session to the reactor that has the replica")
    func sessions_crossReactors() async throws {
        let authority = try TLSTestAuthority()
        let cluster = try await ReplicatedCluster(
            credentials: try credentials(authority),
            store: 1
        )
        try await cluster.serve(on: 0)
        let data = pattern(byteCount: 4 << 20, seed: 3)
        let client = try cluster.client(0)
        try client.write(0, data)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        try await cluster.serve(on: 1)
        #expect(try cluster.client(1).read(0, 4 << 20) == data)
        await cluster.stopAll()
    }

    @Test("New certificates are taken for the next handshakes, and bad ones are not")
    func reload_takesWhatCanBeUsed() async throws {
        let authority = try TLSTestAuthority()
        let cluster = try await ReplicatedCluster(credentials: try credentials(authority))
        try authority.makeAuthority("new")
        _ = try authority.node("n1", signedBy: "new", trusting: "new")
        try cluster.nodes[0].node.reloadPeerCredentials()
        try await cluster.serve(on: 0)
        #expect(
            try await isTold(cluster, on: 0) { if case .failed = $0 { true } else { false } }
        )
        _ = try authority.write("nonsense", to: "n1/node-cert.pem")
        #expect(throws: TLSError.self) { try cluster.nodes[0].node.reloadPeerCredentials() }
        _ = try authority.node("n1")
        try cluster.nodes[0].node.reloadPeerCredentials()
        try await cluster.wait(0) { $0.peers.allSatisfy(\.isComplete) }
        await cluster.stopAll()
    }

    // MARK: - Who is refused

    /// A cluster in which nothing may come of the link from the first node to the second.
    private func expectRefusal(
        of second: String?,
        _ authority: TLSTestAuthority,
        onFirst: (PeerTLSFailure) -> Bool,
        onSecond: ((PeerTLSFailure) -> Bool)? = nil
    ) async throws {
        var directories = try credentials(authority)
        directories[1] = second
        let cluster = try await ReplicatedCluster(credentials: directories)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let data = pattern(byteCount: 65_536, seed: 5)
        try client.write(0, data)
        #expect(try client.read(0, 65_536) == data)
        #expect(try await isTold(cluster, on: 0, where: onFirst))
        if let onSecond { #expect(try await isTold(cluster, on: 1, where: onSecond)) }
        try await cluster.wait(0) { $0.peers[2].isComplete && !$0.peers[1].isLinked }
        // The primary tries again and again; the same words are said once.
        let told = failures(cluster, on: 0)
        #expect(told.allSatisfy { $0.peer == "n2" && $0.isDialled })
        #expect(Set(told.map(\.failure)).count == told.count)
        await cluster.stopAll()
    }

    @Test("A certificate of another authority is refused")
    func otherAuthority_isRefused() async throws {
        let authority = try TLSTestAuthority()
        try authority.makeAuthority("other")
        let second = try authority.node("n2", in: "stranger", signedBy: "other")
        try await expectRefusal(of: second, authority) {
            guard case .failed(let reason) = $0 else { return false }
            return reason.contains("certificate verify failed")
        } onSecond: {
            guard case .refused(let reason) = $0 else { return false }
            return reason.contains("unknown ca")
        }
    }

    @Test("A certificate behind an authority that has expired is refused")
    func expired_isRefused() async throws {
        let authority = try TLSTestAuthority()
        try authority.makeIntermediate("middle", signedBy: "ca", to: "20210101000000Z")
        let second = try authority.node("n2", in: "late", signedBy: "middle")
        try authority.append(authority.path("middle/ca.pem"), to: "\(second)/node-cert.pem")
        try await expectRefusal(of: second, authority) {
            guard case .failed(let reason) = $0 else { return false }
            return reason.contains("certificate has expired")
        }
    }

    @Test("A node with another one's certificate gets no data")
    func otherNode_isRefused() async throws {
        let authority = try TLSTestAuthority()
        let second = try authority.node("n7", in: "seven")
        try await expectRefusal(of: second, authority) {
            $0 == .isAnother(expected: "n2.node.cairn")
        }
    }

    @Test("A name in the subject, or through a wildcard, is none")
    func looseNames_areRefused() async throws {
        let authority = try TLSTestAuthority()
        for (directory, name) in [("loose", "*.node.cairn"), ("bare", "unrelated.test")] {
            let second = try authority.node("n2", in: directory, alternativeName: name)
            try await expectRefusal(of: second, authority) {
                $0 == .isAnother(expected: "n2.node.cairn")
            }
        }
    }

    @Test("A node whose certificate has expired does not start")
    func ownExpired_doesNotStart() async throws {
        let authority = try TLSTestAuthority()
        let directory = try authority.node("n1", to: "20210101000000Z")
        await #expect {
            _ = try await ReplicatedCluster(nodeCount: 1, replicaCount: 1, credentials: [directory])
        } throws: { error in
            guard case .peerTLS(.certificateExpired(let path, _))? = error as? NodeError else {
                return false
            }
            return path == "\(directory)/node-cert.pem"
        }
    }

    @Test("A certificate of the authority that is not a node's is refused")
    func hostCertificate_isRefused() async throws {
        let authority = try TLSTestAuthority()
        var directories = try credentials(authority)
        // The first node is a host with a certificate for NBD.
        directories[0] = try authority.node("host", in: "host", alternativeName: "host.test")
        let cluster = try await ReplicatedCluster(credentials: directories)
        try await cluster.serve(on: 0)
        #expect(try await isTold(cluster, on: 1) { $0 == .isNoNode })
        #expect(failures(cluster, on: 1).allSatisfy { $0.peer == "127.0.0.1" && !$0.isDialled })
        #expect(
            try await isTold(cluster, on: 0) { if case .refused = $0 { true } else { false } }
        )
        await cluster.stopAll()
    }

    // MARK: - In the clear

    @Test("A node without TLS and one with it each say what the other spoke")
    func plainAndTLS_sayWhatIsWrong() async throws {
        let authority = try TLSTestAuthority()
        try await expectRefusal(of: nil, authority) {
            $0 == .ended
        } onSecond: {
            $0 == .isRequired
        }
        var directories = try credentials(authority)
        directories[0] = nil
        let cluster = try await ReplicatedCluster(credentials: directories)
        try await cluster.serve(on: 0)
        #expect(try await isTold(cluster, on: 1) { $0 == .isPlain })
        #expect(try await isTold(cluster, on: 0) { $0 == .isRequired })
        await cluster.stopAll()
    }

    @Test("Nothing is sent in the clear to an address of a network")
    func network_isNotReachedInTheClear() async throws {
        let cluster = try await ReplicatedCluster()
        cluster.host = "192.0.2.1"
        try await cluster.serve(on: 0)
        #expect(try await isTold(cluster, on: 0) { $0 == .wouldBePlain })
        await cluster.stopAll()
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
            #expect(PeerAddress(host: host, port: 1).isLoopback)
        }
        for host in ["128.0.0.1", "127.0.0.1.example.org", "0.0.0.0", "::", "", "127.1.2"] {
            #expect(!PeerAddress(host: host, port: 1).isLoopback)
        }
    }

    // MARK: - Hostile connections

    @Test("Who does not finish the greeting is cut off, and holds nobody up")
    func stalledGreetings_areCut() async throws {
        let authority = try TLSTestAuthority()
        let cluster = try await ReplicatedCluster(credentials: try credentials(authority)) {
            $0.limits.peerGreetingSeconds = 1
        }
        let port = try cluster.peerPort(1)
        var connections: [RawConnection] = []
        for index in 0..<100 {
            let connection = try RawConnection(port: port)
            // The beginning of a handshake record of 512 bytes.
            if index % 2 == 0 { try connection.send([0x16, 3, 1, 2, 0, 1]) }
            connections.append(connection)
        }
        try await cluster.serve(on: 0)
        try await cluster.wait(0) { $0.peers.allSatisfy(\.isComplete) }
        for connection in connections { #expect(connection.errorAtEnd() == nil) }
        #expect(try await isTold(cluster, on: 1) { $0 == .isLate })
        #expect(failures(cluster, on: 1).count == 1)
        await cluster.stopAll()
    }

    @Test("Garbage on the port costs nobody anything")
    func garbage_isRefused() async throws {
        let authority = try TLSTestAuthority()
        let cluster = try await ReplicatedCluster(credentials: try credentials(authority))
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let port = try cluster.peerPort(1)
        let hello = Array("CRNP".utf8) + [1, 1] + [UInt8](repeating: 0, count: 58)
        for seed in 0..<64 {
            let connection = try RawConnection(port: port)
            var bytes = pattern(byteCount: 2048, seed: UInt64(seed))
            switch seed % 4 {
            case 0: break
            // A record of the right kind with nonsense in it.
            case 1: bytes.replaceSubrange(0..<5, with: [0x16, 3, 1, 1, 0])
            // A client's hello with nonsense in it.
            case 2: bytes.replaceSubrange(0..<11, with: [0x16, 3, 1, 1, 0, 1, 0, 0, 0xFC, 3, 3])
            default: bytes = hello
            }
            try? connection.send(bytes)
            if seed % 2 == 0 { connection.endOutput() }
            try client.write(UInt64(seed) << 16, pattern(byteCount: 65_536, seed: UInt64(seed)))
            #expect(connection.errorAtEnd() == nil)
        }
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.isLinked } }
        await cluster.stopAll()
    }
}

/// A TCP connection to a port of this machine; blocking, with a limit.
final class RawConnection {
    private let descriptor: Int32

    init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        // SAFETY: the kernel copies the values during the calls.
        unsafe setsockopt(
            descriptor,
            SOL_SOCKET,
            SO_RCVTIMEO,
            &limit,
            socklen_t(MemoryLayout<timeval>.size)
        )
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw ClientError("connect: errno \(errno)") }
    }

    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) throws {
        // SAFETY: the count is the array's.
        let count = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        guard count == bytes.count else { throw ClientError("send: errno \(errno)") }
    }

    func endOutput() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// How the connection ends, whatever the other side says first.
    ///
    /// - Returns: Nil when the other side ends it; else the error, `EAGAIN` at the time limit.
    func errorAtEnd() -> Int32? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            // SAFETY: the count is the array's.
            let count = unsafe recv(descriptor, &bytes, bytes.count, 0)
            let error = errno
            if count == 0 || count < 0 && error == ECONNRESET { return nil }
            // A call with a time limit is not taken up again by the kernel after a signal.
            if count < 0 && error != EINTR { return error }
        }
    }
}
