import Foundation
import TestSupport
import Testing

extension Conformance {
    /// How a node and the metadata service find one another, and do not mistake others for one
    /// another.
    @Suite("Registration")
    struct RegistrationTests {
        @Test("a node with a new store waits until its dead predecessor counts as down")
        func restart_withNewStore_registersByItself() async throws {
            try await withCluster { cluster in
                let store = "\(cluster.dataPath)/nodes/node1/store.img"
                let before = try await cluster.json("node", "show", "node1")
                try await cluster.json("dev", "kill", "node1")
                // A new file, since the killed program may hold the old one for a while, and the
                // test has ten seconds before the service gives the old node up.
                try FileManager.default.removeItem(atPath: store)
                let missing = try await cluster.refuse("dev", "start", "node1", "--timeout", "1")
                #expect(missing.contains("is not there"))
                #expect(!FileManager.default.fileExists(atPath: store), "none is made in its place")
                // Once it is given up, starting the node makes another.
                try forgetStores(of: cluster)
                // For the service the old one is up still, where the new one is.
                try await cluster.refuse("dev", "start", "node1", "--timeout", "1")
                // The new one starts when the kernel has taken the killed one's port back.
                var log = ""
                for _ in 0..<80 where !log.contains("counts as down after 10 s") {
                    try await Task.sleep(for: .milliseconds(100))
                    log = try String(
                        contentsOfFile: "\(cluster.dataPath)/log/node1.log",
                        encoding: .utf8
                    )
                }
                #expect(log.contains("counts as down after 10 s"), "\(log.suffix(2000))")
                let message = try await cluster.refuse("volume", "create", "v", "--size", "64MiB")
                #expect(message.contains("another store"))
                // Nobody does anything, and it registers.
                for _ in 0..<300 {
                    let node = try await cluster.json("node", "show", "node1")
                    let isNew =
                        node["store_identity"] as? String != before["store_identity"] as? String
                    if isNew, node["state"] as? String == "up" { break }
                    try await Task.sleep(for: .milliseconds(100))
                }
                try await cluster.json("volume", "create", "v", "--size", "64MiB")
                try await cluster.json("volume", "delete", "v")
            }
        }

        /// Has the cluster's nodes make their stores anew where they are missing.
        private func forgetStores(of cluster: Cluster) throws {
            let path = URL(filePath: "\(cluster.dataPath)/cluster.json")
            let text = try String(contentsOf: path, encoding: .utf8)
            let rest = text.replacing(/,?\s*"store_identity"\s*:\s*"[0-9a-f]*"/, with: "")
            try #require(rest != text)
            try rest.write(to: path, atomically: true, encoding: .utf8)
        }

        @Test("nodes whose stores changed places are not started on them", .needs("qemu-io"))
        func start_onAnotherNodesStore_isRefused() async throws {
            try await withCluster(nodeCount: 2) { cluster in
                try await cluster.json("volume", "create", "v", "--size", "64MiB")
                let uri = try await cluster.attach("v")
                try await cluster.io(uri, "write -f -P 7 0 1M")
                let stores = ["n1", "n2"].map { "\(cluster.dataPath)/nodes/\($0)/store.img" }
                try await cluster.stop()
                try exchange(stores[0], stores[1], by: cluster.scratch.file("aside"))
                let before = try stores.map(modificationDate)
                for name in ["n1", "n2"] {
                    let message = try await cluster.refuse("dev", "start", name)
                    #expect(message.contains("not the one of --identity"), "\(message)")
                }
                #expect(try stores.map(modificationDate) == before)
                try exchange(stores[0], stores[1], by: cluster.scratch.file("aside"))
                try await cluster.json("dev", "up", "--data", cluster.dataPath)
                let again = try await cluster.attach("v")
                try await cluster.io(again, "read -P 7 0 1M")
            }
        }

        /// A node with two stores of its own, beside those of the cluster.
        private struct TwoStores {
            let cluster: Cluster
            let endpoint: String
            let port: UInt16
            let admin: UInt16

            init(_ cluster: Cluster) async throws {
                self.cluster = cluster
                let status = try await cluster.json("dev", "status", "--data", cluster.dataPath)
                endpoint = try #require(status["endpoint"] as? String)
                port = try FreePort.next()
                admin = try FreePort.next()
                for name in ["store-a", "store-b", "store-c"] {
                    try await succeed(
                        TestEnvironment.program("volnode"),
                        ["format", cluster.scratch.file(name), "--size", "256MiB"]
                    )
                }
            }

            /// Starts it with two of the stores.
            func start(_ stores: [String], _ arguments: [String] = []) throws -> ChildProcess {
                try ChildProcess(
                    TestEnvironment.program("volnode"),
                    [
                        "run", "--name", "two", "--listen-nbd", "127.0.0.1:\(port)",
                        "--admin", "127.0.0.1:\(admin)", "--meta", endpoint,
                    ] + stores.flatMap { ["--store", cluster.scratch.file($0)] } + arguments
                )
            }

            /// Waits until it has logged something.
            func require(_ text: String, of node: ChildProcess) async throws {
                let isThere = try await isEventually(within: .seconds(30)) {
                    node.errorOutput.contains(text)
                }
                #expect(isThere, "\(node.errorOutput.suffix(3000))")
            }
        }

        @Test(
            "a node whose second store was swapped is refused, until that is said to be lost",
            .needs("qemu-io")
        )
        func restart_withSecondStoreSwapped_isRefused() async throws {
            try await withCluster { cluster in
                let two = try await TwoStores(cluster)
                let lost = try await NodeServer.identity(ofStore: cluster.scratch.file("store-b"))
                var node = try two.start(["store-a", "store-b"])
                try await two.require("registered with the metadata service", of: node)
                // Nobody keeps it from opening whatever is there.
                #expect(node.errorOutput.contains("no --identity"), "\(node.errorOutput)")
                #expect(node.errorOutput.contains("--identity \(lost)"), "\(node.errorOutput)")
                // Each of the two stores gets one.
                for name in ["v", "w"] {
                    try await cluster.json(
                        "volume",
                        "create",
                        name,
                        "--size",
                        "64MiB",
                        "--node",
                        "two"
                    )
                    let uri = try await cluster.attach(name)
                    try await succeed("/usr/bin/qemu-io", ["-f", "raw", "-c", "write 0 32M", uri])
                    try await cluster.json("detach", name, "--host", "h1")
                }
                #expect(await node.stop() == 0)
                node = try two.start(["store-a", "store-c"])
                try await two.require("came without its store \(lost)", of: node)
                #expect(node.errorOutput.contains("'--lost-store \(lost)'"))
                // Nor does it confirm the deletion of what it does not have.
                for name in ["v", "w"] {
                    let message = try await cluster.refuse("volume", "delete", name)
                    #expect(message.contains("does not have its store"), "\(message)")
                }
                #expect(await node.stop() == 0)
                node = try two.start(["store-a", "store-c"], ["--lost-store", lost])
                try await two.require("registered with the metadata service", of: node)
                for name in ["v", "w"] { try await cluster.json("volume", "delete", name) }
                #expect(await node.stop() == 0)
            }
        }

        /// When a file was written to last.
        private func modificationDate(_ path: String) throws -> Date {
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            return try #require(attributes[.modificationDate] as? Date)
        }

        /// Gives each of two files the other's name.
        private func exchange(_ first: String, _ second: String, by aside: String) throws {
            let files = FileManager.default
            try files.moveItem(atPath: first, toPath: aside)
            try files.moveItem(atPath: second, toPath: first)
            try files.moveItem(atPath: aside, toPath: second)
        }
    }
}
