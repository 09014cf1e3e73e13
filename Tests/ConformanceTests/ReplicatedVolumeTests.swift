import Foundation
import Testing

extension Conformance {
    /// Volumes with three replicas, over real processes.
    @Suite("Replicated volumes", .serialized)
    struct ReplicatedVolumeTests {
        /// Rounds of one run; `CAIRN_CRASH_ROUNDS` raises them for acceptance.
        private static let roundCount = max(CrashTests.roundCount / 4, 3)

        @Test(
            "nodes are killed under load, and nothing is lost or flips back",
            .needsScript("crash_integrity.py"),
            arguments: [
                ("n1", "writeback"), ("n1 n2", "writeback"), ("n1 n2 n3", "writeback"),
                ("n1 n2 n3", "durable"),
            ]
        )
        func kills_underLoad_loseNothing(nodes: String, mode: String) async throws {
            try await withCluster(nodeCount: 3) { cluster in
                let durability = mode == "durable" ? "writethrough" : "writeback"
                try await cluster.json(
                    "volume",
                    "create",
                    "vol",
                    "--size",
                    "64MiB",
                    "--durability",
                    durability
                )
                let document = try await cluster.json(
                    "attach",
                    "vol",
                    "--host",
                    "h1",
                    "--via",
                    "n1"
                )
                let uri = try #require(document["nbd_uri"] as? String)
                let names = nodes.split(separator: " ")
                let result = try await run(
                    TestEnvironment.python,
                    [
                        TestEnvironment.script("crash_integrity.py"), "--uri", uri,
                        "--kill", command(cluster, "kill", names),
                        "--start", command(cluster, "start", names),
                        "--rounds", "\(Self.roundCount)", "--mode", mode, "--seed", "3",
                        "--start-timeout", "60",
                    ],
                    environment: cluster.environment,
                    within: 60 + 15 * Double(Self.roundCount)
                )
                #expect(result.exitCode == 0, "\(result.report)")
            }
        }

        private func command(_ cluster: Cluster, _ verb: String, _ nodes: [Substring]) -> String {
            let volctl = TestEnvironment.program("volctl")
            return nodes.map { "'\(volctl)' dev \(verb) \($0) --data '\(cluster.dataPath)'" }
                .joined(separator: "; ")
        }

        @Test(
            "the server of a volume with three replicas keeps to the protocol",
            .needsScript("nbd_conformance.py")
        )
        func conformance_ofReplicatedVolume() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                try await cluster.json("volume", "create", "vol", "--size", "1GiB")
                let uri = try await cluster.attach("vol")
                let result = try await run(
                    TestEnvironment.python,
                    [TestEnvironment.script("nbd_conformance.py"), uri],
                    within: 300
                )
                #expect(result.exitCode == 0, "\(result.report)")
                #expect(result.output.contains(" 0 failed"), "\(result.report)")
            }
        }

        @Test("another host takes a volume from a killed node, and the story is told")
        func forcedAttach_afterKill_isServedAndTold() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                try await cluster.json("volume", "create", "vol", "--size", "64MiB")
                let document = try await cluster.json(
                    "attach",
                    "vol",
                    "--host",
                    "h1",
                    "--via",
                    "n1"
                )
                #expect(document["node"] as? String == "n1")
                let uri = try #require(document["nbd_uri"] as? String)
                try await write("5A", to: uri)
                try await cluster.json("dev", "kill", "n1", "--data", cluster.dataPath)
                let forced = try await cluster.json(
                    "attach",
                    "vol",
                    "--host",
                    "h2",
                    "--via",
                    "n2",
                    "--force"
                )
                let next = try #require(forced["nbd_uri"] as? String)
                #expect(try await reads("5A", from: next))
                try await write("A5", to: next)
                let shown = try await cluster.json("volume", "show", "vol")
                #expect(shown["primary"] as? String == "n2")
                #expect((shown["replicas"] as? [String])?.sorted() == ["n1", "n2", "n3"])
                try await cluster.json("dev", "start", "n1", "--data", cluster.dataPath)
                // The name that the first host was given opens nothing any more.
                #expect(try await !reads("5A", from: uri))
                let events = try await cluster.volctl(["events"])
                #expect(events.output.contains("taken over by host 'h2'"), "\(events.report)")
            }
        }

        @Test(
            "nodes of a development cluster show each other certificates, and want them",
            .needs("openssl")
        )
        func links_areUnderTLS() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                let certificates = "\(cluster.dataPath)/certs"
                for key in ["ca-key.pem", "n1/node-key.pem", "n2/node-key.pem", "n3/node-key.pem"] {
                    let path = "\(certificates)/\(key)"
                    let found = try FileManager.default.attributesOfItem(atPath: path)
                    #expect(found[.posixPermissions] as? Int == 0o600, "\(key)")
                }
                let data = try Data(
                    contentsOf: URL(fileURLWithPath: "\(cluster.dataPath)/cluster.json")
                )
                let file = try #require(
                    try JSONSerialization.jsonObject(with: data) as? [String: Any]
                )
                let nodes = try #require(file["nodes"] as? [[String: Any]])
                let port = try #require(nodes[1]["peer_port"] as? Int)
                let openssl = try #require(TestEnvironment.tool("openssl"))
                let stranger = try await run(
                    openssl,
                    [
                        "s_client", "-connect", "127.0.0.1:\(port)", "-ign_eof", "-CAfile",
                        "\(certificates)/ca-cert.pem", "-verify_hostname", "n2.node.cairn",
                    ]
                )
                #expect(stranger.output.contains("Verification: OK"), "\(stranger.report)")
                #expect(
                    stranger.errorOutput.contains("alert certificate required"),
                    "\(stranger.report)"
                )
            }
        }
    }
}
