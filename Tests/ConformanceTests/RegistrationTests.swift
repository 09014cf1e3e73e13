import Foundation
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
                // The kernel lets go of a killed program's files a moment later.
                var formatted = 1 as Int32?
                for _ in 0..<100 where formatted != 0 {
                    formatted = try await run(
                        TestEnvironment.program("volnode"),
                        ["format", store, "--force"]
                    ).exitCode
                    if formatted != 0 { try await Task.sleep(for: .milliseconds(50)) }
                }
                #expect(formatted == 0)
                // For the service the old one is up still, where the new one is.
                try await cluster.refuse("dev", "start", "node1", "--timeout", "1")
                let log = try String(
                    contentsOfFile: "\(cluster.dataPath)/log/node1.log",
                    encoding: .utf8
                )
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
    }
}
