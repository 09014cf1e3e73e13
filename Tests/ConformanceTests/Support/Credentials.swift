import Foundation
import Testing

/// A certificate authority of one test, with a server's and a client's certificate, and a
/// pre-shared key; made by the `openssl` command.
struct Credentials: Sendable {
    /// The directory, laid out as QEMU expects a server's credentials.
    let serverDirectory: String
    /// The pre-shared keys, in GnuTLS's format.
    let presharedKeysPath: String
    /// The user that the key is for.
    static let presharedKeyUser = "alice"

    /// The path of a PEM file.
    func file(_ name: String) -> String { "\(serverDirectory)/\(name)" }

    /// Makes everything in `scratch`.
    static func make(in scratch: ScratchDirectory) async throws -> Credentials {
        let directory = scratch.file("tls")
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700]
        )
        let openssl = try #require(TestEnvironment.tool("openssl"), "openssl is not installed")
        func make(_ arguments: [String]) async throws {
            try await succeed(openssl, arguments, directory: directory)
        }
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        try await make(
            ["req", "-x509", "-days", "2", "-subj", "/CN=cairn test authority"] + key
                + ["-keyout", "ca-key.pem", "-out", "ca-cert.pem"]
        )
        for (name, subject) in [("server", "/CN=localhost"), ("client", "/CN=client")] {
            let names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
            try names.write(toFile: "\(directory)/\(name).ext", atomically: false, encoding: .utf8)
            try await make(
                ["req", "-subj", subject] + key
                    + ["-keyout", "\(name)-key.pem", "-out", "\(name).csr"]
            )
            try await make([
                "x509", "-req", "-days", "2", "-in", "\(name).csr", "-CA", "ca-cert.pem", "-CAkey",
                "ca-key.pem", "-CAcreateserial", "-extfile", "\(name).ext", "-out",
                "\(name)-cert.pem",
            ])
        }
        let secret = String(repeating: "0123456789abcdef", count: 4)
        let keys = scratch.file("keys.psk")
        try "\(presharedKeyUser):\(secret)\n".write(
            toFile: keys,
            atomically: false,
            encoding: .utf8
        )
        for path in [keys, "\(directory)/server-key.pem", "\(directory)/client-key.pem"] {
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        }
        return Credentials(serverDirectory: directory, presharedKeysPath: keys)
    }

    /// Makes libnbd's Python module use these credentials without being told.
    ///
    /// Libnbd looks for them where the user keeps them, as root in /etc, and no variable of the
    /// environment names another place.
    ///
    /// - Returns: The directory that has to be in `PYTHONPATH`.
    func libnbdDefaults(in scratch: ScratchDirectory) throws -> String {
        let directory = scratch.file("libnbd")
        try FileManager.default.createDirectory(
            atPath: directory,
            withIntermediateDirectories: false
        )
        try scratch.write(
            "libnbd/sitecustomize.py",
            """
            import nbd
            plain = nbd.NBD.__init__
            def init(self):
                plain(self)
                self.set_tls_certificates("\(serverDirectory)")
            nbd.NBD.__init__ = init

            """
        )
        return directory
    }
}
