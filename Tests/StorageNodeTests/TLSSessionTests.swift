// Sessions: handshakes that must succeed, handshakes that must not, and bytes in between.

import BlockCore
import StorageNode
import Testing

private let goodKeys =
    "alice:00112233445566778899aabbccddeeff\nbob:" + "5a"
    + String(
        repeating: "7e",
        count: 31
    ) + "\n"

@Suite(
    "TLS sessions",
    .enabled(if: TLSTestAuthority.isAvailable, "needs /usr/bin/openssl"),
    .timeLimit(.minutes(5))
)
struct TLSSessionTests {
    let authority: TLSTestAuthority

    init() throws { authority = try TLSTestAuthority() }

    private func serverContext(verifyPeer: Bool = true) throws -> TLSContext {
        try TLSContext(
            role: .server,
            TLSConfiguration(
                credentialsDirectory: authority.credentials("server"),
                verifyPeer: verifyPeer
            )
        )
    }

    private func clientContext(
        _ directory: String,
        serverName: String? = "server.test"
    ) throws -> TLSContext {
        try TLSContext(
            role: .client(serverName: serverName, presharedKeyUser: nil),
            TLSConfiguration(credentialsDirectory: directory)
        )
    }

    private func pair() throws -> TLSPair {
        try TLSPair(
            client: clientContext(authority.credentials("client")),
            server: serverContext()
        )
    }

    // MARK: - X.509

    @Test("Both sides prove themselves with certificates")
    func handshake_mutualCertificates_isEstablished() throws {
        let pair = try pair()
        let results = pair.handshake()
        #expect(results.client == .wantMore)
        #expect(results.server == .wantMore)
        #expect(pair.client.state == .established)
        #expect(pair.server.state == .established)
        #expect(pair.server.peerName == "/CN=client.test")
        #expect(pair.server.parameters == "TLSv1.3 TLS_AES_128_GCM_SHA256")
    }

    @Test("Ciphertext may come one byte at a time")
    func handshake_singleBytes_isEstablished() throws {
        let pair = try pair()
        _ = pair.handshake(pieceByteCount: 1)
        #expect(pair.client.state == .established)
        #expect(pair.server.state == .established)
    }

    @Test("A client without a certificate is refused when clients are verified")
    func handshake_missingClientCertificate_fails() throws {
        let pair = try TLSPair(
            client: clientContext(authority.directory("bare")),
            server: serverContext()
        )
        _ = pair.handshake()
        #expect(pair.server.state == .failed)
        #expect(pair.server.failure?.description == "peer did not return a certificate")
        #expect(pair.client.state == .failed, "the alert reached the client")
    }

    @Test("A client without a certificate is welcome when clients are not verified")
    func handshake_unverifiedClient_isEstablished() throws {
        let pair = try TLSPair(
            client: clientContext(authority.directory("bare")),
            server: serverContext(verifyPeer: false)
        )
        _ = pair.handshake()
        #expect(pair.server.state == .established)
        #expect(pair.server.peerName == nil)
    }

    @Test("A client of another authority is refused")
    func handshake_clientOfAnotherAuthority_fails() throws {
        try authority.makeAuthority("stranger")
        let directory = try authority.credentials("client", in: "strange", signedBy: "stranger")
        let pair = try TLSPair(client: clientContext(directory), server: serverContext())
        _ = pair.handshake()
        #expect(pair.server.state == .failed)
        #expect(pair.server.peerName == nil)
        let text = try #require(pair.server.failure?.description)
        #expect(text.contains("unable to get local issuer certificate"))
    }

    @Test("A server of another authority is refused")
    func handshake_serverOfAnotherAuthority_fails() throws {
        try authority.makeAuthority("stranger")
        let directory = try authority.credentials("client", trusting: "stranger")
        let pair = try TLSPair(client: clientContext(directory), server: serverContext())
        _ = pair.handshake()
        #expect(pair.client.state == .failed)
        #expect(pair.server.state == .failed)
    }

    @Test("A server with another name is refused")
    func handshake_serverWithAnotherName_fails() throws {
        let client = try clientContext(authority.credentials("client"), serverName: "other.test")
        let pair = try TLSPair(client: client, server: serverContext())
        _ = pair.handshake()
        #expect(pair.client.failure?.description.contains("hostname mismatch") == true)
    }

    @Test("An expired link of the client's chain is refused")
    func handshake_expiredChain_fails() throws {
        try authority.makeIntermediate("old", signedBy: "ca", to: "20210101000000Z")
        let directory = try authority.credentials("client", in: "late", signedBy: "old")
        try authority.append(authority.path("old/ca.pem"), to: "\(directory)/client-cert.pem")
        let pair = try TLSPair(client: clientContext(directory), server: serverContext())
        _ = pair.handshake()
        #expect(pair.server.failure?.description.contains("certificate has expired") == true)
    }

    @Test("A certificate for servers does not make a client")
    func handshake_serverCertificateAsClient_fails() throws {
        let server = try authority.credentials("server")
        let directory = try authority.directory("disguised")
        try authority.copy("\(server)/server-cert.pem", "\(directory)/client-cert.pem")
        try authority.copy("\(server)/server-key.pem", "\(directory)/client-key.pem")
        let pair = try TLSPair(client: clientContext(directory), server: serverContext())
        _ = pair.handshake()
        #expect(pair.server.state == .failed)
    }

    @Test("A revoked client is refused")
    func handshake_revokedClient_fails() throws {
        let client = try authority.credentials("client")
        let server = try authority.credentials("server")
        try authority.revoke("\(client)/client-cert.pem", list: "\(server)/ca-crl.pem")
        let pair = try TLSPair(
            client: clientContext(client),
            server: TLSContext(
                role: .server,
                TLSConfiguration(credentialsDirectory: server)
            )
        )
        _ = pair.handshake()
        #expect(pair.server.failure?.description.contains("certificate revoked") == true)
    }

    // MARK: - Pre-shared keys

    private func keyedPair(
        server serverKeys: String,
        client clientKeys: String,
        user: String
    ) throws -> TLSPair {
        let serverPath = try authority.write(serverKeys, to: "server.psk")
        let clientPath = try authority.write(clientKeys, to: "client.psk")
        return try TLSPair(
            client: TLSContext(
                role: .client(serverName: nil, presharedKeyUser: user),
                TLSConfiguration(presharedKeysPath: clientPath)
            ),
            server: TLSContext(
                role: .server,
                TLSConfiguration(presharedKeysPath: serverPath)
            )
        )
    }

    @Test("A shared key proves both sides", arguments: ["alice", "bob"])
    func handshake_presharedKey_isEstablished(user: String) throws {
        let pair = try keyedPair(server: goodKeys, client: goodKeys, user: user)
        _ = pair.handshake()
        #expect(pair.client.state == .established)
        #expect(pair.server.state == .established)
        #expect(pair.server.peerName == user)
    }

    @Test("A user that the server does not know is refused")
    func handshake_unknownUser_fails() throws {
        let mine = "mallory:00112233445566778899aabbccddeeff\n"
        let pair = try keyedPair(server: goodKeys, client: mine, user: "mallory")
        _ = pair.handshake()
        #expect(pair.server.state == .failed)
        #expect(pair.client.state == .failed)
        #expect(pair.server.peerName == nil)
    }

    @Test("A wrong key is refused, whoever claims it")
    func handshake_wrongKey_fails() throws {
        let mine = "alice:ff112233445566778899aabbccddeeff\n"
        let pair = try keyedPair(server: goodKeys, client: mine, user: "alice")
        _ = pair.handshake()
        #expect(pair.server.state == .failed)
        #expect(pair.server.peerName == nil, "a claim is not a proof")
        #expect(pair.client.state == .failed)
    }

    @Test("A server with both kinds of credentials takes either")
    func handshake_bothKinds_isEstablished() throws {
        let keys = try authority.write(goodKeys, to: "both.psk")
        let server = try TLSContext(
            role: .server,
            TLSConfiguration(
                credentialsDirectory: authority.credentials("server"),
                presharedKeysPath: keys
            )
        )
        let keyed = try TLSContext(
            role: .client(serverName: nil, presharedKeyUser: "bob"),
            TLSConfiguration(presharedKeysPath: keys)
        )
        let certified = try clientContext(authority.credentials("client"))
        for client in [keyed, certified] {
            let pair = try TLSPair(client: client, server: server)
            _ = pair.handshake()
            #expect(pair.server.state == .established)
        }
        let bare = try TLSPair(client: clientContext(authority.directory("bare")), server: server)
        _ = bare.handshake()
        #expect(bare.server.state == .failed, "neither a key nor a certificate")
    }

    // MARK: - Bytes

    @Test("Nothing flows before the handshake is done")
    func write_duringHandshake_acceptsNothing() throws {
        let pair = try pair()
        #expect(pair.client.writePlaintext(pair.scratch) == 0)
        #expect(pair.server.writePlaintext(pair.scratch) == 0)
        #expect(pair.client.state == .handshaking)
    }

    @Test("A long stream in odd pieces arrives as it was", arguments: [1, 7, 1_337, 65_536])
    func transfer_oddPieces_arrivesUnchanged(pieceByteCount: Int) throws {
        let pair = try pair()
        _ = pair.handshake()
        let totalByteCount = pieceByteCount == 1 ? 100_000 : 3_000_017
        let source = pair.arena.allocate(byteCount: 50_021)
        let sink = pair.arena.allocate(byteCount: 33_333)
        var sentByteCount = 0
        var receivedByteCount = 0
        var stepCount = 0
        while receivedByteCount < totalByteCount {
            stepCount += 1
            try #require(stepCount < 1_000_000, "the stream stalled")
            let offered = min(source.byteCount, totalByteCount - sentByteCount)
            for index in 0..<offered {
                source.store(pattern(sentByteCount + index), at: index)
            }
            sentByteCount += pair.client.writePlaintext(source.slice(0, offered))
            _ = pair.carry(from: pair.client, to: pair.server, pieceByteCount: pieceByteCount)
            while case .bytes(let count) = pair.server.readPlaintext(into: sink) {
                for index in 0..<count
                where sink.load(index, as: UInt8.self) != pattern(receivedByteCount + index) {
                    Issue.record("byte \(receivedByteCount + index) differs")
                    return
                }
                receivedByteCount += count
            }
        }
        #expect(receivedByteCount == totalByteCount)
    }

    private func pattern(_ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: index &* 31 &+ index >> 8)
    }

    @Test("A peer that does not read costs a bounded buffer")
    func write_peerDoesNotRead_acceptsNoMore() throws {
        let pair = try pair()
        _ = pair.handshake()
        var acceptedByteCount = 0
        for _ in 0..<100 { acceptedByteCount += pair.server.writePlaintext(pair.scratch) }
        #expect(acceptedByteCount > 0)
        #expect(acceptedByteCount <= TLSLimits().ciphertextByteCount)
        #expect(pair.server.ciphertextPending <= TLSLimits().ciphertextByteCount)
        #expect(pair.server.state == .established)
    }

    @Test("Ciphertext that nobody reads is not taken for ever")
    func receive_nobodyReads_consumesBoundedBytes() throws {
        let pair = try pair()
        _ = pair.handshake()
        var consumedByteCount = 0
        for _ in 0..<100 {
            _ = pair.client.writePlaintext(pair.scratch)
            let count = pair.client.takeCiphertext(into: pair.wire)
            let consumed = pair.server.receiveCiphertext(pair.wire.slice(0, count))
            consumedByteCount += consumed
            if consumed < count { break }
        }
        #expect(consumedByteCount == TLSLimits().ciphertextByteCount)
        #expect(pair.server.ciphertextRoom == 0)
    }

    @Test("Sessions of one context live on many threads at once")
    func handshake_manyThreads_isEstablished() async throws {
        let path = try authority.write(goodKeys, to: "shared.psk")
        let server = try TLSContext(
            role: .server,
            TLSConfiguration(presharedKeysPath: path)
        )
        let client = try TLSContext(
            role: .client(serverName: nil, presharedKeyUser: "alice"),
            TLSConfiguration(presharedKeysPath: path)
        )
        let names = try await withThrowingTaskGroup(of: [String?].self) { group in
            for _ in 0..<4 {
                group.addTask {
                    try (0..<20).map { _ in
                        let pair = try TLSPair(client: client, server: server)
                        _ = pair.handshake()
                        return pair.server.peerName
                    }
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(names == [String?](repeating: "alice", count: 80))
    }

    // MARK: - Ends

    @Test("A proper end is told from a cut")
    func shutdown_closeNotify_isClosed() throws {
        let pair = try pair()
        _ = pair.handshake()
        pair.client.shutdown()
        #expect(pair.client.writePlaintext(pair.scratch) == 0)
        _ = pair.carry(from: pair.client, to: pair.server)
        #expect(pair.server.readPlaintext(into: pair.scratch) == .closed)
        #expect(pair.server.state == .closed)
        #expect(pair.server.writePlaintext(pair.scratch.slice(0, 16)) == 16, "replies may follow")
    }

    @Test("A cut in the middle of a record is a truncation")
    func transportEnded_middleOfRecord_isTruncation() throws {
        let pair = try pair()
        _ = pair.handshake()
        _ = pair.client.writePlaintext(pair.scratch.slice(0, 1_000))
        let count = pair.client.takeCiphertext(into: pair.wire)
        #expect(pair.server.receiveCiphertext(pair.wire.slice(0, count - 1)) == count - 1)
        #expect(pair.server.readPlaintext(into: pair.scratch) == .wantMore)
        pair.server.transportEnded()
        #expect(pair.server.readPlaintext(into: pair.scratch) == .failed)
        #expect(pair.server.failure?.isTruncation == true)
    }

    @Test("A cut at every byte of the handshake fails and never traps")
    func transportEnded_everyByteOfTheHandshake_fails() throws {
        let server = try serverContext()
        let client = try clientContext(authority.credentials("client"))
        let whole = try TLSPair(client: client, server: server)
        _ = whole.client.readPlaintext(into: whole.scratch)
        let hello = whole.client.takeCiphertext(into: whole.wire)
        for byteCount in 0..<hello {
            let session = try server.makeSession()
            #expect(session.receiveCiphertext(whole.wire.slice(0, byteCount)) == byteCount)
            #expect(session.readPlaintext(into: whole.scratch) == .wantMore)
            session.transportEnded()
            #expect(session.readPlaintext(into: whole.scratch) == .failed)
            #expect(session.failure?.isTruncation == true)
        }
    }

    @Test("A changed byte anywhere in a record fails the session")
    func receive_changedByte_fails() throws {
        for index in 5..<64 {
            let pair = try pairFromShared()
            _ = pair.handshake()
            _ = pair.client.writePlaintext(pair.scratch.slice(0, 64))
            let count = pair.client.takeCiphertext(into: pair.wire)
            let byte = pair.wire.load(index, as: UInt8.self)
            pair.wire.store(byte ^ 0x10, at: index)
            #expect(pair.server.receiveCiphertext(pair.wire.slice(0, count)) == count)
            #expect(pair.server.readPlaintext(into: pair.scratch) == .failed)
            #expect(pair.server.ciphertextPending > 0, "the alert is ready")
        }
    }

    private func pairFromShared() throws -> TLSPair {
        try keyedPair(server: goodKeys, client: goodKeys, user: "alice")
    }

    @Test("Garbage fails with a reason, and further bytes are swallowed", arguments: 0..<32)
    func receive_garbage_fails(seed: Int) throws {
        let session = try pairFromShared().server
        let arena = MemoryArena(byteCount: 32 << 10)
        let garbage = arena.allocate(byteCount: 16 << 10)
        let scratch = arena.allocate(byteCount: 4_096)
        var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 | 1
        for index in 0..<garbage.byteCount {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            garbage.store(UInt8(truncatingIfNeeded: state), at: index)
        }
        // Half of the seeds look like a handshake record at first.
        if seed % 2 == 0 { garbage.copy(from: [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]) }
        var consumedByteCount = session.receiveCiphertext(garbage)
        var result = session.readPlaintext(into: scratch)
        for _ in 0..<8 where result == .wantMore {
            consumedByteCount += session.receiveCiphertext(garbage)
            result = session.readPlaintext(into: scratch)
        }
        #expect(consumedByteCount > 0)
        #expect(result == .failed)
        #expect(session.failure?.code != 0)
        #expect(session.receiveCiphertext(garbage) == garbage.byteCount)
    }

    @Test("A client that speaks in the clear is refused with a reason")
    func receive_plaintextProtocol_fails() throws {
        let pair = try pair()
        pair.wire.copy(from: Array("IHAVEOPT".utf8) + [UInt8](repeating: 0, count: 64))
        _ = pair.server.receiveCiphertext(pair.wire.slice(0, 72))
        #expect(pair.server.readPlaintext(into: pair.scratch) == .failed)
        #expect(pair.server.failure?.isTruncation == false)
    }
}
