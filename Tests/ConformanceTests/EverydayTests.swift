import Foundation
import TestSupport
import Testing

extension Conformance {
    /// What operators do all day that no other test does to its end.
    @Suite("volctl, everyday", .needs("qemu-io", "qemu-img"))
    struct EverydayTests {
        @Test("volumes are thinned, shrunk, served and followed, and a node is drained")
        func volumesAndNodes() async throws {
            try await withCluster(nodeCount: 2) { cluster in
                let follower = try await follow(cluster)
                try await drain(cluster)
                try await attachVia(cluster)
                try await deleteSnapshot(cluster)
                try await shrink(cluster)
                // It has seen what happened meanwhile, and ends when it is asked to.
                let kinds = [
                    "node.draining", "node.undrained", "volume.created", "volume.attached",
                    "snapshot.created", "snapshot.deleted", "volume.detached", "volume.resized",
                ]
                let hasSeenAll = try await isEventually {
                    let seen = kindsSeen(by: follower)
                    return kinds.allSatisfy(seen.contains)
                }
                #expect(hasSeenAll, "\(follower.output)")
                #expect(follower.isRunning, "\(follower.errorOutput)")
                follower.signal(SIGINT)
                #expect(await follower.exit(within: 10) == 130, "\(follower.errorOutput)")
                #expect(follower.errorOutput.isEmpty)
            }
        }

        /// A program that follows the events, and has shown those that there were.
        private func follow(_ cluster: Cluster) async throws -> ChildProcess {
            let follower = try ChildProcess(
                TestEnvironment.program("volctl"),
                ["events", "--follow", "--json"],
                environment: cluster.environment.filter { $0.key != "CAIRN_ENDPOINT" },
                directory: cluster.scratch.path
            )
            let isFollowing = try await isEventually {
                kindsSeen(by: follower).contains("node.up")
            }
            #expect(isFollowing, "\(follower.output)\(follower.errorOutput)")
            return follower
        }

        /// The kinds of the events that it has shown, each a line of JSON.
        private func kindsSeen(by follower: ChildProcess) -> [String] {
            follower.output.split(separator: "\n").compactMap { line in
                let event = try? JSONSerialization.jsonObject(with: Data(line.utf8))
                return (event as? [String: Any])?["kind"] as? String
            }
        }

        private func drain(_ cluster: Cluster) async throws {
            let drained = try await cluster.json("node", "drain", "n2")
            #expect(drained["draining"] as? Bool == true)
            let list = try await cluster.volctl(["node", "list"])
            #expect(list.output.contains("draining"), "\(list.report)")
            let message = try await cluster.refuse(
                "volume",
                "create",
                "w",
                "--size",
                "64MiB",
                "--node",
                "n2"
            )
            #expect(message.contains("volctl node drain n2 --undo"), "\(message)")
            // Others go to the node that is left.
            for name in ["v", "w"] {
                let made = try await cluster.json("volume", "create", name, "--size", "64MiB")
                #expect(made["primary"] as? String == "n1")
            }
            let undone = try await cluster.json("node", "drain", "n2", "--undo")
            #expect(undone["draining"] as? Bool == false)
            let made = try await cluster.json(
                "volume",
                "create",
                "x",
                "--size",
                "64MiB",
                "--node",
                "n2"
            )
            #expect(made["primary"] as? String == "n2")
        }

        private func attachVia(_ cluster: Cluster) async throws {
            let attached = try await cluster.json("attach", "v", "--host", "h1", "--via", "n1")
            #expect(attached["node"] as? String == "n1")
            let uri = try #require(attached["nbd_uri"] as? String)
            try await cluster.io(uri, "write -P 1 0 8M", "write -P 3 40M 1M")
            // Another one has none of its data yet.
            let message = try await cluster.refuse("attach", "x", "--host", "h1", "--via", "n1")
            #expect(message.contains("Leave --via out"), "\(message)")
        }

        private func deleteSnapshot(_ cluster: Cluster) async throws {
            try await cluster.json("snapshot", "create", "v@s")
            let uri = try await cluster.attach("v")
            try await cluster.io(uri, "write -P 2 0 4M")
            let deleted = try await cluster.json("snapshot", "delete", "v@s")
            #expect(deleted["deleted"] as? Bool == true && deleted["snapshot"] as? String == "s")
            let list = try await cluster.json("snapshot", "list", "v")
            #expect((list["snapshots"] as? [Any])?.isEmpty == true)
            // The volume keeps what it had of it, and what it has written since.
            try await cluster.io(uri, "read -P 2 0 4M", "read -P 1 4M 4M")
            try await cluster.refuse("snapshot", "delete", "v@s")
        }

        private func shrink(_ cluster: Cluster) async throws {
            try await cluster.json("detach", "v", "--host", "h1")
            let message = try await cluster.refuse("volume", "resize", "v", "32MiB")
            #expect(message.contains("--shrink"), "\(message)")
            let shrunk = try await cluster.json("volume", "resize", "v", "32MiB", "--shrink")
            #expect((shrunk["byte_count"] as? NSNumber)?.intValue == 32 << 20)
            // Its tail is gone for good, the rest is not.
            try await cluster.json("volume", "resize", "v", "64MiB")
            let uri = try await cluster.attach("v")
            try await cluster.io(uri, "read -P 2 0 4M", "read -P 1 4M 4M", "read -P 0 32M 32M")
        }

        @Test("an image comes from a web server, and goes out compressed")
        func importURL_exportCompressed() async throws {
            try await withCluster { cluster in
                let image = try cluster.scratch.patternFile("in.raw", byteCount: 16 << 20)
                let port = try FreePort.next()
                let server = try ChildProcess(
                    TestEnvironment.python,
                    ["-m", "http.server", "--bind", "127.0.0.1", "\(port)"],
                    directory: cluster.scratch.path
                )
                #expect(try await isEventually { ServerProbe.accepts(port: port) })
                let imported = try await cluster.json(
                    "image",
                    "import",
                    "http://127.0.0.1:\(port)/in.raw",
                    "base"
                )
                server.signal(SIGKILL)
                #expect(imported["created"] as? Bool == true)
                #expect(imported["source_sha256"] is String)
                let uri = try await cluster.attach("base")
                try await compare(image, uri)
                // What was fetched is not kept.
                let files = try FileManager.default.subpathsOfDirectory(atPath: cluster.dataPath)
                let large = try files.filter { name in
                    guard !name.hasSuffix("store.img") else { return false }
                    let path = "\(cluster.dataPath)/\(name)"
                    return try FileManager.default.allocatedByteCount(path) > 8 << 20
                }
                #expect(large.isEmpty)

                // Half of it is of the kind that compresses.
                try await cluster.io(uri, "write -P 5 8M 8M")
                var byteCounts: [Int] = []
                for options in [["--compress"], []] {
                    let copy = cluster.scratch.file("out\(byteCounts.count).qcow2")
                    let exported = try await cluster.volctl(
                        ["volume", "export", "base", copy, "--json"] + options
                    )
                    #expect(exported.exitCode == 0, "\(exported.report)")
                    #expect(exported.json?["format"] as? String == "qcow2")
                    try await compare(copy, uri)
                    byteCounts.append(try FileManager.default.allocatedByteCount(copy))
                }
                #expect(byteCounts[0] < byteCounts[1] - (7 << 20), "\(byteCounts)")
            }
        }

        /// Compares a file with an export, byte for byte.
        private func compare(_ file: String, _ uri: String) async throws {
            let format = file.hasSuffix(".qcow2") ? "qcow2" : "raw"
            try await succeed(
                "/usr/bin/qemu-img",
                ["compare", "-f", format, "-F", "raw", file, uri]
            )
        }
    }
}
