import Foundation
import Testing

extension Conformance {
    /// The command line that scripts outside the project rely on: every command of the design's
    /// section 8, its JSON keys, exit codes and idempotence.
    @Suite("volctl contract", .needs("qemu-io"))
    struct ContractTests {
        @Test("a cluster comes up once, shows its nodes, loses one, gets it back, goes down")
        func dev_lifecycle() async throws {
            try await withCluster { cluster in
                let data = ["--data", cluster.dataPath]
                // Up again: nothing changes, exit code 0, the same endpoint.
                let again = try await cluster.volctl(["dev", "up", "--json"] + data)
                #expect(again.exitCode == 0, "\(again.report)")
                let status = try await cluster.json("dev", "status", "--data", cluster.dataPath)
                let endpoint = try #require(status["endpoint"] as? String)
                #expect(again.json?["endpoint"] as? String == endpoint)
                let nodes = try #require(status["nodes"] as? [[String: Any]])
                let name = try #require(nodes.first?["name"] as? String)
                let pid = try #require((nodes.first?["pid"] as? NSNumber)?.int32Value)
                #expect(nodes.count == 1 && nodes[0]["state"] is String)
                // Other calls find it by its context, by --endpoint and by the environment.
                try await cluster.json("node", "list")
                try await cluster.json("node", "list", "--endpoint", endpoint)
                let byVariable = try await cluster.volctl(
                    ["node", "list"],
                    environment: ["CAIRN_ENDPOINT": endpoint]
                )
                #expect(byVariable.exitCode == 0, "\(byVariable.report)")
                // Killed means killed; started means the same data under a new process.
                try await cluster.json("volume", "create", "v", "--size", "64MiB")
                let uri = try await cluster.attach("v")
                try await cluster.io(uri, "write -f -P 7 1M 1M")
                let killed = try await cluster.volctl(["dev", "kill", name] + data)
                #expect(killed.exitCode == 0, "\(killed.report)")
                #expect(!ChildProcess.isAlive(pid), "the node is still there")
                let started = try await cluster.volctl(["dev", "start", name] + data)
                #expect(started.exitCode == 0, "\(started.report)")
                try await cluster.io(uri, "read -P 7 1M 1M")
            }
        }

        @Test("down twice, and up again on the same data")
        func dev_downAndUp_keepsVolumes() async throws {
            let cluster = try await Cluster.start()
            try await cluster.json("volume", "create", "v", "--size", "64MiB")
            try await cluster.io(try await cluster.attach("v"), "write -P 9 0 4M")
            try await cluster.stop()
            try await cluster.stop()
            let up = try await cluster.volctl(
                ["dev", "up", "--data", cluster.dataPath, "--json"],
                within: 90
            )
            #expect(up.exitCode == 0, "\(up.report)")
            let uri = try await cluster.attach("v")
            try await cluster.io(uri, "read -P 9 0 4M")
            try await cluster.stop()
        }

        @Test("volumes are created, shown, listed, resized and deleted")
        func volume_lifecycle() async throws {
            try await withCluster { cluster in
                let created = try await cluster.json(
                    "volume",
                    "create",
                    "v1",
                    "--size",
                    "1GiB",
                    "--block-size",
                    "4096",
                    "--durability",
                    "writethrough"
                )
                #expect(created["name"] as? String == "v1")
                let shown = try await cluster.json("volume", "show", "v1")
                #expect(shown["primary"] is String)
                #expect((shown["replicas"] as? [Any])?.count == 1)
                #expect((shown["byte_count"] as? NSNumber)?.intValue == 1 << 30)
                #expect((shown["logical_block_byte_count"] as? NSNumber)?.intValue == 4096)
                #expect(shown["durability"] as? String == "writethrough")
                try await cluster.json("volume", "create", "v2", "--size", "64MiB")
                let list = try await cluster.json("volume", "list")
                let names = (list["volumes"] as? [[String: Any]])?.compactMap {
                    $0["name"] as? String
                }
                #expect(names == ["v1", "v2"])
                let resized = try await cluster.json("volume", "resize", "v2", "128MiB")
                #expect((resized["byte_count"] as? NSNumber)?.intValue == 128 << 20)
                try await cluster.json("volume", "delete", "v2")
                let message = try await cluster.refuse("volume", "show", "v2")
                #expect(message.contains("v2"))
                // People get a table with the same facts.
                let table = try await cluster.volctl(["volume", "list"])
                #expect(table.output.contains("v1") && !table.output.contains("{"))
            }
        }

        @Test("snapshots keep, rollback brings back, clones diverge")
        func snapshot_lifecycle() async throws {
            try await withCluster { cluster in
                try await cluster.json("volume", "create", "v", "--size", "64MiB")
                var uri = try await cluster.attach("v")
                try await cluster.io(uri, "write -P 1 0 8M")
                try await cluster.json("snapshot", "create", "v@one")
                try await cluster.io(uri, "write -P 2 0 8M")
                let list = try await cluster.json("snapshot", "list", "v")
                let snapshots = try #require(list["snapshots"] as? [[String: Any]])
                #expect(snapshots.compactMap { $0["name"] as? String } == ["one"])
                try await cluster.json("clone", "v@one", "c")
                let clone = try await cluster.attach("c", host: "h2")
                try await cluster.io(clone, "read -P 1 0 8M")
                try await cluster.io(clone, "write -P 3 0 4M")
                try await cluster.io(uri, "read -P 2 0 8M")
                // A snapshot with a clone stays; rollback needs the volume to be at rest.
                try await cluster.refuse("snapshot", "delete", "nothing@one")
                try await cluster.refuse("volume", "delete", "v")
                try await cluster.refuse("snapshot", "rollback", "v@one")
                try await cluster.json("detach", "v", "--host", "h1")
                try await cluster.json("snapshot", "rollback", "v@one")
                uri = try await cluster.attach("v")
                try await cluster.io(uri, "read -P 1 0 8M")
                try await cluster.io(clone, "read -P 3 0 4M")
                try await cluster.io(clone, "read -P 1 4M 4M")
            }
        }

        @Test("attachments are exclusive, forced, read-only and ended")
        func attachment_lifecycle() async throws {
            try await withCluster { cluster in
                try await cluster.json("volume", "create", "v", "--size", "64MiB")
                let old = try await cluster.attach("v", host: "h1")
                try await cluster.io(old, "write -P 1 0 1M")
                // The same host again is the same attachment; another host is refused and told who.
                _ = try await cluster.attach("v", host: "h1")
                let message = try await cluster.refuse("attach", "v", "--host", "h2")
                #expect(message.contains("h1") && message.contains("--force"))
                let forced = try await cluster.json("attach", "v", "--host", "h2", "--force")
                let uri = try #require(forced["nbd_uri"] as? String)
                try await cluster.io(uri, "read -P 1 0 1M")
                // The old host comes back with what it was given, and finds nothing.
                let refused = try await run("/usr/bin/nbdinfo", [old])
                #expect(refused.exitCode != 0, "\(refused.report)")
                #expect(refused.report.contains("No such file or directory"), "\(refused.report)")
                try await cluster.refuse("detach", "v", "--host", "h1")
                try await cluster.json("detach", "v", "--host", "h2")
                let readOnly = try await cluster.json("attach", "v", "--host", "h3", "--read-only")
                let readOnlyURI = try #require(readOnly["nbd_uri"] as? String)
                let info = try await succeed("/usr/bin/nbdinfo", ["--json", readOnlyURI])
                let export = (info.json?["exports"] as? [[String: Any]])?.first
                #expect(export?["is_read_only"] as? Bool == true, "\(info.report)")
                let nodes = try await cluster.json("node", "list")
                let node = try #require(
                    (nodes["nodes"] as? [[String: Any]])?.first?["name"] as? String
                )
                try await cluster.json("node", "show", node)
                let events = try await cluster.volctl(["events"])
                #expect(events.exitCode == 0 && events.output.contains("v"), "\(events.report)")
            }
        }

        @Test("images go in and out, raw and qcow2, sparse and whole", arguments: ["raw", "qcow2"])
        func image_roundTrip(_ format: String) async throws {
            try await withCluster { cluster in
                let image = try cluster.scratch.patternFile("in.raw", byteCount: 48 << 20)
                var source = image
                if format == "qcow2" {
                    source = cluster.scratch.file("in.qcow2")
                    try await succeed(
                        "/usr/bin/qemu-img",
                        ["convert", "-O", "qcow2", "-c", image, source]
                    )
                }
                let imported = try await cluster.volctl(["image", "import", source, "v", "--json"])
                #expect(imported.exitCode == 0, "\(imported.report)")
                let volume = try await cluster.json("volume", "show", "v")
                #expect((volume["byte_count"] as? NSNumber)?.intValue == 48 << 20)
                let space = try #require(volume["space"] as? [String: Any])
                let written = try #require((space["written_byte_count"] as? NSNumber)?.intValue)
                #expect(written > 0 && written < 48 << 20, "holes of the image stay holes")
                let copy = cluster.scratch.file("out.\(format)")
                let exported = try await cluster.volctl(
                    ["volume", "export", "v", copy, "--format", format, "--json"])
                #expect(exported.exitCode == 0, "\(exported.report)")
                try await succeed(
                    "/usr/bin/qemu-img",
                    ["compare", "-f", "raw", "-F", format, image, copy]
                )
                let blocks = try FileManager.default.allocatedByteCount(copy)
                #expect(blocks < 48 << 20, "holes of the volume stay holes")
            }
        }

        @Test("wrong usage exits with 2, and help with 0")
        func usage_exitCodes() async throws {
            let cluster = Cluster(scratch: try ScratchDirectory())
            try await cluster.refuse("no-such-command", exitCode: 2)
            try await cluster.refuse("volume", "create", exitCode: 2)
            try await cluster.refuse("attach", "v", exitCode: 2)
            try await cluster.refuse("volume", "list", "--no-such-flag", exitCode: 2)
            let help = try await cluster.volctl(["--help"])
            #expect(help.exitCode == 0 && help.output.contains("volume"), "\(help.report)")
        }
    }
}

extension Cluster {
    /// Runs qemu-io commands on an export; all must succeed and all patterns match.
    func io(
        _ uri: String,
        _ commands: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        var arguments = ["-f", "raw"]
        for command in commands { arguments += ["-c", command] }
        let result = try await run("/usr/bin/qemu-io", arguments + [uri])
        #expect(result.exitCode == 0, "\(result.report)", sourceLocation: sourceLocation)
        let isGood = !result.output.contains("failed")
        #expect(isGood, "\(result.report)", sourceLocation: sourceLocation)
    }
}

extension FileManager {
    /// Bytes of disk that a file takes.
    func allocatedByteCount(_ path: String) throws -> Int {
        var status = stat()
        // SAFETY: `status` outlives the call.
        try #require(unsafe stat(path, &status) == 0)
        return Int(status.st_blocks) * 512
    }
}
