import Foundation
import Testing

extension Conformance {
    /// What people are told whose node is there and does not answer, as one stopped by a signal.
    @Suite("hung node", .needs("qemu-img", "nbdcopy"))
    struct HungNodeTests {
        private func processID(in cluster: Cluster) async throws -> Int32 {
            let status = try await cluster.json("dev", "status", "--data", cluster.dataPath)
            let node = try #require((status["nodes"] as? [[String: Any]])?.first)
            return try #require((node["pid"] as? NSNumber)?.int32Value)
        }

        @Test("an export is refused, a start says what helps, and that helps")
        func node_stopped_isToldAndMended() async throws {
            let cluster = try await Cluster.start()
            try await cluster.json("volume", "create", "v", "--size", "16MiB")
            try await cluster.json("snapshot", "create", "v@s")
            let pid = try await processID(in: cluster)
            kill(pid, SIGSTOP)
            let file = cluster.scratch.file("out.img")
            let refusal = try await cluster.refuse("volume", "export", "v@s", file)
            #expect(refusal.contains("The node 'node1' does not answer"), "\(refusal)")
            #expect(refusal.contains("volctl dev kill node1 && volctl dev start node1"))
            let left = try FileManager.default.contentsOfDirectory(atPath: cluster.scratch.path)
            #expect(!left.contains { $0.hasPrefix("out.img") }, "\(left)")
            for command in [["dev", "start", "node1"], ["dev", "up"]] {
                let result = try await cluster.volctl(command + ["--data", cluster.dataPath])
                #expect(result.exitCode == 1, "\(result.report)")
                #expect(result.errorOutput.contains("as process \(pid), but does not answer"))
                #expect(result.errorOutput.contains("kill -CONT \(pid)"), "\(result.report)")
            }
            try await cluster.json("dev", "kill", "node1", "--data", cluster.dataPath)
            try await cluster.json("dev", "start", "node1", "--data", cluster.dataPath)
            try await cluster.json("volume", "export", "v@s", file)
            // To stop in good order it has to go on.
            kill(try await processID(in: cluster), SIGSTOP)
            let start = ContinuousClock.now
            try await cluster.stop()
            #expect(ContinuousClock.now - start < .seconds(45), "it was not asked, but killed")
        }

        @Test("a second cluster says that commands go to it now, and how to go back")
        func devUp_secondCluster_saysSo() async throws {
            let cluster = try await Cluster.start()
            let other = cluster.scratch.file("e")
            func up(_ data: String) async throws -> String {
                let result = try await cluster.volctl(["dev", "up", "--data", data], within: 90)
                #expect(result.exitCode == 0, "\(result.report)")
                return result.errorOutput
            }
            #expect(try await up(cluster.dataPath) == "", "it was the default before")
            let note = try await up(other)
            #expect(note.hasPrefix("volctl: note: "), "\(note)")
            #expect(note.contains("Back to that: volctl dev up --data \(cluster.dataPath)\n"))
            // What it says helps, and says the same of the other.
            #expect(try await up(cluster.dataPath).contains("volctl dev up --data \(other)\n"))
            try await cluster.stop()
            // One that does not run keeps nothing for itself.
            #expect(try await up(other) == "")
            try await cluster.json("dev", "down", "--data", other)
        }
    }
}
