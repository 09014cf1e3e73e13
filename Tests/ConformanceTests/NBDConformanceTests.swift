import Foundation
import Testing

extension Conformance {
    /// The acceptance script's every check, on each transport, engine and kind of encryption.
    @Suite("NBD conformance", .needsScript("nbd_conformance.py"))
    struct NBDConformanceTests {
        /// One way to reach a server.
        struct Variant: Sendable, CustomTestStringConvertible {
            var engine: String
            var isUnix: Bool
            var tls: String
            /// Further arguments of `volnode run`.
            var arguments: [String] = []

            var testDescription: String {
                let transport = isUnix ? "unix socket" : "TCP"
                return ([engine, transport, "TLS \(tls)"] + arguments).joined(separator: ", ")
            }
        }

        static let variants = [
            Variant(engine: "uring", isUnix: true, tls: "off"),
            Variant(engine: "uring", isUnix: false, tls: "allow"),
            Variant(engine: "uring", isUnix: false, tls: "require"),
            Variant(engine: "aio", isUnix: true, tls: "require"),
            Variant(engine: "aio", isUnix: false, tls: "off", arguments: ["--spread-connections"]),
        ]

        @Test("every check passes and nothing is absent", arguments: variants)
        func conformance_allChecks_pass(_ variant: Variant) async throws {
            let scratch = try ScratchDirectory()
            var options = NodeServer.Options()
            options.engine = variant.engine
            // Beyond 4 GiB, so that 64-bit lengths are met; thin.
            options.volumes = ["vol=5GiB"]
            options.arguments = variant.arguments
            var script = [TestEnvironment.script("nbd_conformance.py"), "--require-all"]
            var environment: [String: String] = [:]
            if variant.tls != "off" {
                let credentials = try await Credentials.make(in: scratch)
                // Both kinds, as a node has them that serves hosts of both kinds.
                options.arguments += ["--tls", variant.tls]
                options.arguments += ["--tls-certificates", credentials.serverDirectory]
                options.arguments += ["--tls-psk", credentials.presharedKeysPath]
                script += [
                    "--tls-ca", credentials.file("ca-cert.pem"),
                    "--tls-cert", credentials.file("client-cert.pem"),
                    "--tls-key", credentials.file("client-key.pem"),
                ]
                environment["PYTHONPATH"] = try credentials.libnbdDefaults(in: scratch)
            }
            let server = try await NodeServer.start(options, scratch: scratch)
            // The second export is a snapshot of the first: read-only, and it must not change.
            _ = try await server.snapshot("vol", "before")
            script += ["--server-pid", "\(server.process.pid)"]
            // Under `require` everything goes through TLS, both exports and each client.
            let uris = ["vol@before", "vol"].map { export in
                let uri = variant.isUnix ? server.unixURI(export) : server.tcpURI(export)
                return variant.tls == "require" ? "nbds" + uri.dropFirst("nbd".count) : uri
            }
            script += ["--second-uri", uris[0], uris[1]]
            let result = try await run(
                TestEnvironment.python,
                script,
                environment: environment,
                within: 300
            )
            #expect(result.exitCode == 0, "\(result.report)")
            await server.stop()
        }
    }
}
