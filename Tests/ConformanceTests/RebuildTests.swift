import Foundation
import TestSupport
import Testing

extension Conformance {
    /// Metadata that is lost while nodes serve.
    @Suite("Metadata made anew", .serialized, .needs("qemu-io", "curl"))
    struct RebuildTests {
        @Test("volumes and their hosts come back after the metadata is wiped under them")
        func wipe_whileServing_comesBack() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                try await cluster.json("volume", "create", "vol", "--size", "64MiB")
                try await cluster.json(
                    "volume",
                    "create",
                    "one",
                    "--size",
                    "8MiB",
                    "--replicas",
                    "1"
                )
                let uris = [
                    "vol": try await cluster.attach("vol", host: "host-of-vol"),
                    "one": try await cluster.attach("one", host: "host-of-one"),
                ]
                for uri in uris.values { try await write("5A", to: uri) }
                try await cluster.json("snapshot", "create", "one@s")
                let before = try await cluster.json("volume", "show", "vol")
                let admins = try await admins(of: cluster)
                let isNoted = try await isEventually(within: .seconds(30)) {
                    let said = try await Self.said(by: admins)
                    return said.count { $0.contains("host-of-vol") } == 3
                        && said.contains { $0.contains("host-of-one") }
                }
                #expect(isNoted, "nodes keep who has a volume")
                try await cluster.json("dev", "kill", "volmeta", "--data", cluster.dataPath)
                let meta = cluster.dataPath + "/meta"
                try FileManager.default.removeItem(atPath: meta)

                let nodes = admins.flatMap { ["--node", $0] }
                let incomplete = try await run(
                    TestEnvironment.program("volmeta"),
                    ["rebuild", "--data", meta] + nodes.prefix(4)
                )
                #expect(incomplete.exitCode == 1, "\(incomplete.report)")
                let result = try await succeed(
                    TestEnvironment.program("volmeta"),
                    ["rebuild", "--data", meta] + nodes
                )
                #expect(
                    result.output.hasPrefix(
                        "3 nodes, 2 volumes (1 replicated, 2 attached), 1 snapshot, 0 images.\n"
                            + "Written."
                    ),
                    "\(result.report)"
                )
                // Data goes on flowing while there is no metadata service.
                for uri in uris.values { #expect(try await reads("5A", from: uri)) }
                try await cluster.json("dev", "start", "volmeta", "--data", cluster.dataPath)
                let areBack = try await isEventually(within: .seconds(30)) {
                    let list = try await cluster.json("node", "list")
                    let nodes = list["nodes"] as? [[String: Any]] ?? []
                    return nodes.count { $0["state"] as? String == "up" } == 3
                }
                #expect(areBack, "nodes register with metadata that was made anew")
                let after = try await cluster.json("volume", "show", "vol")
                for field in ["id", "created_at", "byte_count"] {
                    #expect("\(after[field] ?? "")" == "\(before[field] ?? "")", "\(field)")
                }
                for (volume, uri) in uris {
                    let again = try await cluster.attach(volume, host: "host-of-\(volume)")
                    #expect(again == uri)
                    #expect(try await reads("5A", from: uri))
                    try await write("A5", to: uri)
                    #expect(try await reads("A5", from: uri))
                }
                let events = try await cluster.volctl(["events"])
                #expect(events.output.contains("metadata.rebuilt"), "\(events.report)")
                let kept = try await cluster.json("snapshot", "list", "one")
                #expect((kept["snapshots"] as? [[String: Any]])?.count == 1)
            }
        }

        /// The APIs of a cluster's nodes.
        private func admins(of cluster: Cluster) async throws -> [String] {
            let status = try await cluster.json("dev", "status", "--data", cluster.dataPath)
            let nodes = try #require(status["nodes"] as? [[String: Any]])
            return nodes.compactMap { $0["admin"] as? String }
        }

        /// What nodes say of their volumes.
        private static func said(by admins: [String]) async throws -> [String] {
            var answers: [String] = []
            for admin in admins {
                answers.append(
                    try await run("/usr/bin/curl", ["-s", admin + "/v1/volumes"]).output
                )
            }
            return answers
        }
    }
}
