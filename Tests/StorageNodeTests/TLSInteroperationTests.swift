// Handshakes with GnuTLS, the other side in libnbd and QEMU, over a loopback socket.

import BlockCore
import ChildProcesses
import Foundation
import StorageNode
import TestSupport
import Testing

/// An echo server for one connection, on a port of the kernel's choice; every wait has an end.
private final class TLSEchoServer {
    let port: UInt16
    private let listener: Int32

    init() throws {
        let socket = try LoopbackSocket(backlog: 1)
        (port, listener) = (socket.port, socket.descriptor)
        try limitWaits(listener)
    }

    deinit { close(listener) }

    /// Serves one connection until the peer ends it, echoing `echoByteCount` bytes; then calls
    /// `onEcho`, which makes the peer end it.
    func serve(_ session: TLSSession, echoByteCount: Int, onEcho: () -> Void) throws {
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { throw TLSTestError(description: "nobody came") }
        defer { close(connection) }
        try limitWaits(connection)
        let arena = MemoryArena(byteCount: 64 << 10)
        let wire = arena.allocate(byteCount: 16 << 10)
        let plain = arena.allocate(byteCount: 16 << 10)
        var echoedByteCount = 0
        while true {
            let count = unsafe read(connection, wire.address, wire.byteCount)
            guard count > 0 else { break }
            #expect(session.receiveCiphertext(wire.slice(0, count)) == count)
            while case .bytes(let count) = session.readPlaintext(into: plain) {
                #expect(session.writePlaintext(plain.slice(0, count)) == count)
                echoedByteCount += count
            }
            while case let count = session.takeCiphertext(into: wire), count > 0 {
                guard unsafe write(connection, wire.address, count) == count else { return }
            }
            if echoedByteCount == echoByteCount { onEcho() }
            if session.state == .failed || session.state == .closed { break }
        }
    }

    private func limitWaits(_ descriptor: Int32) throws {
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        let byteCount = socklen_t(MemoryLayout<timeval>.size)
        // SAFETY: the value outlives the call and has the size given.
        guard unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, byteCount) == 0 else {
            throw TLSTestError(description: "no time limit: errno \(errno)")
        }
    }
}

@Suite(
    "TLS with GnuTLS",
    .enabled(
        if: TLSTestAuthority.isAvailable
            && FileManager.default.isExecutableFile(atPath: "/usr/bin/gnutls-cli"),
        "needs /usr/bin/openssl and /usr/bin/gnutls-cli"
    ),
    .timeLimit(.minutes(5))
)
struct TLSInteroperationTests {
    let authority: TLSTestAuthority

    init() throws { authority = try TLSTestAuthority() }

    private static let key = "00112233445566778899aabbccddeeff"

    /// Runs gnutls-cli against `server`; returns the session and what the client printed.
    private func run(
        _ server: TLSContext,
        _ arguments: [String]
    ) throws -> (session: TLSSession, output: String) {
        let session = try server.makeSession()
        let echo = try TLSEchoServer()
        let (input, output) = (Pipe(), Pipe())
        let process = try RunningProcess(
            ChildSpecification(
                "/usr/bin/timeout",
                ["30", "/usr/bin/gnutls-cli", "--port", "\(echo.port)"] + arguments + ["127.0.0.1"],
                input: input.fileHandleForReading.fileDescriptor,
                output: output.fileHandleForWriting.fileDescriptor,
                error: output.fileHandleForWriting.fileDescriptor
            )
        )
        // The client's ends must be closed here, or the end of its output is never seen.
        try input.fileHandleForReading.close()
        try output.fileHandleForWriting.close()
        let line = "a line there and back\n"
        try input.fileHandleForWriting.write(contentsOf: Data(line.utf8))
        try echo.serve(session, echoByteCount: line.utf8.count) {
            try? input.fileHandleForWriting.close()
        }
        try? input.fileHandleForWriting.close()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        _ = process.waitForExit()
        return (session, String(decoding: text, as: UTF8.self))
    }

    private func keyedServer() throws -> TLSContext {
        let path = try authority.write("alice:\(TLSInteroperationTests.key)\n", to: "keys.psk")
        return try TLSContext(role: .server, TLSConfiguration(presharedKeysPath: path))
    }

    // The second is what libnbd and QEMU ask for: everything, with pre-shared keys added.
    @Test(
        "A pre-shared key works in both versions and with the priorities of libnbd and QEMU",
        arguments: [
            ("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-PSK", "TLSv1.2"),
            ("NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", "TLSv1.3"),
            ("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK", "TLSv1.2"),
        ]
    )
    func gnutls_presharedKey_isEstablished(priority: String, version: String) throws {
        let (session, output) = try run(
            keyedServer(),
            ["--pskusername=alice", "--pskkey=\(TLSInteroperationTests.key)"]
                + ["--priority=\(priority)"]
        )
        // gnutls-cli 3.7.9 crashes when it describes a finished TLS 1.2 session without
        // certificates, with any server; the session's own word has to do there.
        let isEchoed = output.contains("a line there and back")
        #expect(isEchoed || version == "TLSv1.2", "\(output)")
        #expect(session.peerName == "alice")
        #expect(session.parameters.hasPrefix(version), "\(session.parameters)")
    }

    @Test(
        "A wrong key or user is refused in both versions",
        arguments: ["VERS-TLS1.2", "VERS-TLS1.3"],
        ["alice", "mallory"]
    )
    func gnutls_wrongKey_fails(version: String, user: String) throws {
        let (session, output) = try run(
            keyedServer(),
            ["--pskusername=\(user)", "--pskkey=ff112233445566778899aabbccddeeff"]
                + ["--priority=NORMAL:-VERS-ALL:+\(version):+ECDHE-PSK:+DHE-PSK"]
        )
        #expect(session.state == .failed)
        #expect(session.peerName == nil)
        #expect(!output.contains("a line there and back"))
    }

    @Test("Mutual certificates work in both versions", arguments: ["TLS1.2", "TLS1.3"])
    func gnutls_mutualCertificates_isEstablished(version: String) throws {
        let client = try authority.credentials("client")
        let server = try TLSContext(
            role: .server,
            TLSConfiguration(credentialsDirectory: authority.credentials("server"))
        )
        let (session, output) = try run(
            server,
            [
                "--x509cafile=\(client)/ca-cert.pem", "--x509certfile=\(client)/client-cert.pem",
                "--x509keyfile=\(client)/client-key.pem", "--verify-hostname=server.test",
                "--priority=NORMAL:-VERS-ALL:+VERS-\(version)",
            ]
        )
        #expect(output.contains("a line there and back"), "\(output)")
        #expect(session.peerName == "/CN=client.test")
    }

    @Test("TLS 1.1 is refused")
    func gnutls_oldVersion_fails() throws {
        let (session, output) = try run(
            TLSContext(
                role: .server,
                TLSConfiguration(
                    credentialsDirectory: authority.credentials("server"),
                    verifyPeer: false
                )
            ),
            ["--insecure", "--priority=LEGACY:-VERS-ALL:+VERS-TLS1.1"]
        )
        #expect(session.state == .failed)
        #expect(!output.contains("a line there and back"))
    }
}
