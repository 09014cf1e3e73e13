// Credentials: every way they can be wrong has an error that names the file.

import Foundation
import StorageNode
import Testing

@Suite(
    "TLS credentials",
    .enabled(if: TLSTestAuthority.isAvailable, "needs /usr/bin/openssl"),
    .timeLimit(.minutes(5))
)
struct TLSContextTests {
    let authority: TLSTestAuthority

    init() throws { authority = try TLSTestAuthority() }

    private func load(
        _ directory: String?,
        verifyPeer: Bool = true,
        keys: String? = nil
    ) throws(TLSError) -> TLSContext {
        try TLSContext(
            role: .server,
            TLSConfiguration(
                credentialsDirectory: directory,
                verifyPeer: verifyPeer,
                presharedKeysPath: keys
            )
        )
    }

    private func error(_ body: () throws(TLSError) -> TLSContext) -> TLSError? {
        do throws(TLSError) {
            _ = try body()
            return nil
        } catch {
            return error
        }
    }

    @Test("Good credentials load without a warning")
    func load_goodCredentials_hasNoWarnings() throws {
        let context = try load(authority.credentials("server"))
        #expect(context.warnings.isEmpty)
        #expect(context.verifiesPeer)
    }

    @Test("Nothing configured is an error, not an open door")
    func load_nothing_throwsNoCredentials() {
        #expect(error { () throws(TLSError) in try load(nil) } == .noCredentials)
    }

    @Test(
        "A missing file is named",
        arguments: ["server-cert.pem", "server-key.pem", "ca-cert.pem"]
    )
    func load_missingFile_throwsFileMissing(name: String) throws {
        let directory = try authority.credentials("server")
        try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
        let found = error { () throws(TLSError) in try load(directory) }
        #expect(found == .fileMissing(path: "\(directory)/\(name)"))
        #expect(found?.description.contains("does not exist") == true)
    }

    @Test(
        "A file that is not what its name says is named, with OpenSSL's reason",
        arguments: ["server-cert.pem", "server-key.pem", "ca-cert.pem"]
    )
    func load_malformedFile_throwsFileMalformed(name: String) throws {
        let directory = try authority.credentials("server")
        _ = try authority.write("not PEM at all\n", to: "server/\(name)")
        guard
            case .fileMalformed(let path, let reason)? = error({ () throws(TLSError) in
                try load(directory)
            })
        else {
            Issue.record("expected fileMalformed")
            return
        }
        #expect(path == "\(directory)/\(name)")
        #expect(!reason.isEmpty && reason != "no reason given")
    }

    @Test("A directory in the place of a file is refused")
    func load_directoryAsFile_throwsFileMalformed() throws {
        let directory = try authority.credentials("server")
        let path = "\(directory)/server-key.pem"
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        #expect(
            error { () throws(TLSError) in try load(directory) }
                == .fileMalformed(path: path, reason: "not a regular file")
        )
    }

    @Test("A key of another certificate is refused")
    func load_foreignKey_throwsKeyMismatch() throws {
        let directory = try authority.credentials("server")
        let other = try authority.credentials("server", in: "other")
        try authority.copy("\(other)/server-key.pem", "\(directory)/server-key.pem")
        #expect(
            error { () throws(TLSError) in try load(directory) }
                == .keyMismatch(
                    certificatePath: "\(directory)/server-cert.pem",
                    keyPath: "\(directory)/server-key.pem"
                )
        )
    }

    @Test("An expired certificate is refused with its date")
    func load_expiredCertificate_throws() throws {
        let directory = try authority.credentials("server", to: "20210203040506Z")
        #expect(
            error { () throws(TLSError) in try load(directory) }
                == .certificateExpired(
                    path: "\(directory)/server-cert.pem",
                    notAfter: "Feb  3 04:05:06 2021 GMT"
                )
        )
    }

    @Test("A certificate of the future is refused with its date")
    func load_futureCertificate_throws() throws {
        let directory = try authority.credentials("server", from: "20480203040506Z")
        #expect(
            error { () throws(TLSError) in try load(directory) }
                == .certificateNotYetValid(
                    path: "\(directory)/server-cert.pem",
                    notBefore: "Feb  3 04:05:06 2048 GMT"
                )
        )
    }

    @Test("A key behind a passphrase fails and does not ask the terminal")
    func load_encryptedKey_throwsFileMalformed() throws {
        let directory = try authority.credentials("server")
        let encrypted = """
            -----BEGIN EC PRIVATE KEY-----
            Proc-Type: 4,ENCRYPTED
            DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
            -----END EC PRIVATE KEY-----

            """
        _ = try authority.write(encrypted, to: "server/server-key.pem")
        guard
            case .fileMalformed? = error({ () throws(TLSError) in try load(directory) })
        else {
            Issue.record("expected fileMalformed")
            return
        }
    }

    @Test("A key that everybody can read is warned about")
    func load_readableKey_warns() throws {
        let directory = try authority.credentials("server")
        let path = "\(directory)/server-key.pem"
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
        #expect(try load(directory).warnings == [.secretReadableByOthers(path: path)])
    }

    @Test("The authority is not needed when clients are not verified")
    func load_withoutAuthority_loads() throws {
        let directory = try authority.credentials("server")
        try FileManager.default.removeItem(atPath: "\(directory)/ca-cert.pem")
        #expect(try !load(directory, verifyPeer: false).verifiesPeer)
    }

    // MARK: - Key files

    @Test("Key files of every legal shape load")
    func loadKeys_legalShapes_load() throws {
        let long = String(repeating: "ab", count: 64)
        let path = try authority.write(
            "alice:00112233445566778899AABBCCDDEEFF\r\n\n#626f62:\(long)\ncarol:d:\(long)",
            to: "keys.psk"
        )
        #expect(try load(nil, keys: path).warnings.isEmpty)
    }

    @Test(
        "A malformed line is named by its number",
        arguments: [
            "alice", "alice:", ":00112233445566778899aabbccddeeff", "alice:0011",
            "alice:00112233445566778899aabbccddeef", "alice:zz112233445566778899aabbccddeeff",
            "#6:00112233445566778899aabbccddeeff", "#6100:00112233445566778899aabbccddeeff",
        ]
    )
    func loadKeys_malformedLine_throws(line: String) throws {
        let path = try authority.write(
            "good:00112233445566778899aabbccddeeff\n\(line)\n",
            to: "keys.psk"
        )
        #expect(
            error { () throws(TLSError) in try load(nil, keys: path) }
                == .presharedKeyMalformed(path: path, line: 2)
        )
    }

    @Test("Keys and names longer than OpenSSL takes are refused")
    func loadKeys_tooLong_throws() throws {
        let name = String(repeating: "n", count: 1_000)
        let path = try authority.write("\(name):00112233445566778899aabbccddeeff\n", to: "a.psk")
        #expect(
            error { () throws(TLSError) in try load(nil, keys: path) }
                == .presharedKeyMalformed(path: path, line: 1)
        )
    }

    @Test("An empty key file is an error, not an open door")
    func loadKeys_empty_throws() throws {
        let path = try authority.write("\n\n", to: "keys.psk")
        #expect(
            error { () throws(TLSError) in try load(nil, keys: path) }
                == .presharedKeyMissing(path: path)
        )
    }

    @Test("A key file that everybody can read is warned about")
    func loadKeys_readable_warns() throws {
        let path = try authority.write(
            "alice:00112233445566778899aabbccddeeff\n",
            to: "keys.psk",
            mode: 0o644
        )
        #expect(try load(nil, keys: path).warnings == [.secretReadableByOthers(path: path)])
    }

    @Test("Keys beside unverified certificates keep nobody out: that is warned about")
    func loadKeys_withoutVerification_warns() throws {
        let path = try authority.write("alice:00112233445566778899aabbccddeeff\n", to: "k.psk")
        let context = try load(
            authority.credentials("server"),
            verifyPeer: false,
            keys: path
        )
        #expect(context.warnings == [.keysWithoutVerification])
    }
}
