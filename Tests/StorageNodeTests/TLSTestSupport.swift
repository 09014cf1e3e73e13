// A certificate authority in a temporary directory, and two sessions tied back to back.

import BlockCore
import Foundation
import StorageNode
import TestSupport
import Testing

/// What a test needs and could not get; the message says which command failed.
struct TLSTestError: Error, CustomStringConvertible {
    var description: String
}

/// A temporary directory of credentials, made by the `openssl` command, gone with the object.
final class TLSTestAuthority {
    let root: String

    static let isAvailable = FileManager.default.isExecutableFile(atPath: "/usr/bin/openssl")

    init() throws {
        root = NSTemporaryDirectory() + "cairn-tls-\(UUID().uuidString)"
        try makeAuthority("ca")
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    func path(_ name: String) -> String { "\(root)/\(name)" }

    /// A directory that holds the root `authority` as `ca-cert.pem`.
    func directory(_ name: String, trusting authority: String = "ca") throws -> String {
        let directory = path(name)
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true
        )
        try copy(path("\(authority)/ca.pem"), "\(directory)/ca-cert.pem")
        return directory
    }

    /// A directory of credentials for one `kind` ("server" or "client"), signed by `authority`.
    func credentials(
        _ kind: String,
        in name: String? = nil,
        commonName: String? = nil,
        signedBy authority: String = "ca",
        trusting trusted: String = "ca",
        from start: String = "20200101000000Z",
        to end: String = "20490101000000Z"
    ) throws -> String {
        let directory = try directory(name ?? kind, trusting: trusted)
        let certificate = "\(directory)/\(kind)-cert.pem"
        try issue(
            certificate,
            key: "\(directory)/\(kind)-key.pem",
            commonName: commonName ?? "\(kind).test",
            extensions: kind,
            signedBy: authority,
            from: start,
            to: end
        )
        return directory
    }

    /// A directory of credentials for the node called `name`, signed by `authority`.
    func node(
        _ name: String,
        in directoryName: String? = nil,
        alternativeName: String? = nil,
        signedBy authority: String = "ca",
        trusting trusted: String = "ca",
        to end: String = "20490101000000Z"
    ) throws -> String {
        let directory = try directory(directoryName ?? name, trusting: trusted)
        try issue(
            "\(directory)/node-cert.pem",
            key: "\(directory)/node-key.pem",
            commonName: "\(name).node.cairn",
            alternativeName: alternativeName ?? "\(name).node.cairn",
            extensions: "node",
            signedBy: authority,
            from: "20200101000000Z",
            to: end
        )
        return directory
    }

    /// Makes a self-signed authority called `name`.
    func makeAuthority(_ name: String) throws {
        try prepare(name)
        try openssl(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            path("\(name)/ca.key"),
            "-out",
            path("\(name)/ca.pem"),
            "-subj",
            "/CN=\(name)",
            "-days",
            "30"
        )
    }

    /// Makes an authority called `name` that `parent` signed, expired on `end`.
    func makeIntermediate(_ name: String, signedBy parent: String, to end: String) throws {
        try prepare(name)
        try issue(
            path("\(name)/ca.pem"),
            key: path("\(name)/ca.key"),
            commonName: name,
            extensions: "authority",
            signedBy: parent,
            from: "20200101000000Z",
            to: end
        )
    }

    /// Revokes `certificate` and writes the authority's revocation list to `list`.
    func revoke(_ certificate: String, list: String) throws {
        try authority("ca", "-revoke", certificate)
        try authority("ca", "-gencrl", "-crldays", "30", "-out", list)
    }

    func write(_ text: String, to name: String, mode: Int = 0o600) throws -> String {
        let path = path(name)
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        return path
    }

    func append(_ source: String, to destination: String) throws {
        let both =
            try String(contentsOfFile: destination, encoding: .utf8)
            + String(contentsOfFile: source, encoding: .utf8)
        try both.write(toFile: destination, atomically: true, encoding: .utf8)
    }

    func copy(_ source: String, _ destination: String) throws {
        try? FileManager.default.removeItem(atPath: destination)
        try FileManager.default.copyItem(atPath: source, toPath: destination)
    }

    // MARK: - Private

    private func prepare(_ name: String) throws {
        let directory = path(name)
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true
        )
        _ = try write("", to: "\(name)/index.txt")
        _ = try write("unique_subject = no\n", to: "\(name)/index.txt.attr")
        _ = try write("01\n", to: "\(name)/serial")
        _ = try write(
            """
            [ca]
            default_ca = main
            [main]
            dir = \(directory)
            new_certs_dir = $dir
            database = $dir/index.txt
            serial = $dir/serial
            certificate = $dir/ca.pem
            private_key = $dir/ca.key
            default_md = sha256
            policy = any
            copy_extensions = copy
            [any]
            commonName = supplied
            [server]
            extendedKeyUsage = serverAuth
            subjectAltName = DNS:server.test
            [client]
            extendedKeyUsage = clientAuth
            [node]
            extendedKeyUsage = serverAuth, clientAuth
            [authority]
            basicConstraints = critical,CA:true
            """,
            to: "\(name)/ca.cnf"
        )
    }

    private func issue(
        _ certificate: String,
        key: String,
        commonName: String,
        alternativeName: String? = nil,
        extensions: String,
        signedBy signer: String,
        from start: String,
        to end: String
    ) throws {
        let request = path("request.csr")
        var arguments = [
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", "/CN=\(commonName)",
        ]
        if let alternativeName {
            arguments += ["-addext", "subjectAltName=DNS:\(alternativeName)"]
        }
        try run(arguments)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: key)
        try authority(
            signer,
            "-batch",
            "-notext",
            "-in",
            request,
            "-out",
            certificate,
            "-startdate",
            start,
            "-enddate",
            end,
            "-extensions",
            extensions
        )
    }

    private func authority(_ name: String, _ arguments: String...) throws {
        try run(["ca", "-config", path("\(name)/ca.cnf")] + arguments)
    }

    private func openssl(_ arguments: String...) throws { try run(arguments) }

    private func run(_ arguments: [String]) throws {
        let result = try runProgram("/usr/bin/openssl", arguments, within: 20)
        guard result.exitCode == 0 else {
            throw TLSTestError(
                description: "openssl \(arguments.joined(separator: " ")): \(result.errorOutput)"
            )
        }
    }
}

/// A client and a server session whose ciphertext a test carries.
struct TLSPair {
    let client: TLSSession
    let server: TLSSession
    let arena = MemoryArena(byteCount: 1 << 20)
    let wire: ByteRegion
    let scratch: ByteRegion

    init(client: TLSContext, server: TLSContext) throws {
        self.client = try client.makeSession()
        self.server = try server.makeSession()
        wire = arena.allocate(byteCount: 64 << 10)
        scratch = arena.allocate(byteCount: 64 << 10)
    }

    /// Carries what one side has to send, in pieces of at most `pieceByteCount`.
    func carry(from: TLSSession, to: TLSSession, pieceByteCount: Int = 64 << 10) -> Int {
        var carriedByteCount = 0
        while true {
            let room = min(pieceByteCount, wire.byteCount, to.ciphertextRoom)
            guard room > 0 else { return carriedByteCount }
            let count = from.takeCiphertext(into: wire.slice(0, room))
            guard count > 0 else { return carriedByteCount }
            guard to.receiveCiphertext(wire.slice(0, count)) == count else {
                return carriedByteCount
            }
            carriedByteCount += count
        }
    }

    /// Runs both handshakes to their end, good or bad; returns what both last said.
    func handshake(pieceByteCount: Int = 64 << 10) -> (client: TLSResult, server: TLSResult) {
        var results = (client: TLSResult.wantMore, server: TLSResult.wantMore)
        for _ in 0..<100_000 {
            results.client = client.readPlaintext(into: scratch)
            var moved = carry(from: client, to: server, pieceByteCount: pieceByteCount)
            results.server = server.readPlaintext(into: scratch)
            moved += carry(from: server, to: client, pieceByteCount: pieceByteCount)
            if moved == 0 { return results }
        }
        Issue.record("the handshake never came to an end")
        return results
    }
}
