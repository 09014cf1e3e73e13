import Foundation
import TestSupport
import Testing

extension Conformance {
    /// Snapshots, clones and rollbacks of volumes with three replicas, over real processes.
    @Suite("Snapshots of replicated volumes", .serialized)
    struct ReplicatedSnapshotTests {
        @Test("a clone has what its snapshot has, whichever nodes are gone and come back")
        func clone_nodesComeAndGo_hasItsBytes() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                try await cluster.json("volume", "create", "vol", "--size", "64MiB")
                let uri = try await attach("vol", via: "n1", cluster)
                try await write("5A", to: uri)
                try await kill("n3", cluster)
                try await cluster.json("snapshot", "create", "vol@s")
                try await write("A5", to: uri)
                let listed = try await cluster.json("snapshot", "list", "vol")
                let snapshots = try #require(listed["snapshots"] as? [[String: Any]])
                #expect(snapshots.map { $0["name"] as? String } == ["s"])
                try await cluster.json("clone", "vol@s", "copy")
                let copy = try await attach("copy", via: "n1", cluster)
                #expect(try await reads("5A", from: copy))
                #expect(try await reads("A5", from: uri))
                try await start("n3", cluster)
                for volume in ["vol", "copy"] { try await waitUntilComplete(volume, cluster) }
                // Without the node that had all of it from the beginning.
                try await kill("n2", cluster)
                #expect(try await reads("5A", from: copy))
                let moved = try await attach("copy", via: "n3", cluster)
                #expect(try await reads("5A", from: moved))
                try await cluster.json("clone", "vol@s", "second")
                let second = try await attach("second", via: "n3", cluster)
                #expect(try await reads("5A", from: second))
            }
        }

        @Test("a volume that nobody has is snapshotted, rolled back and exported")
        func detached_isRolledBackAndExported() async throws {
            try await withCluster(nodeCount: 3) { cluster in
                try await cluster.json("volume", "create", "vol", "--size", "64MiB")
                try await write("5A", to: try await cluster.attach("vol"))
                try await cluster.json("detach", "vol", "--host", "h1")
                try await cluster.json("snapshot", "create", "vol@s")
                try await write("A5", to: try await cluster.attach("vol"))
                let file = "\(cluster.dataPath)/vol.raw"
                let exported = try await cluster.json("volume", "export", "vol@s", file)
                #expect(exported["file_sha256"] != nil)
                #expect(try await reads("5A", from: file))
                try await cluster.json("detach", "vol", "--host", "h1")
                try await cluster.json("snapshot", "rollback", "vol@s")
                let uri = try await cluster.attach("vol")
                #expect(try await reads("5A", from: uri))
                try await write("77", to: uri)
                try await cluster.json("snapshot", "delete", "vol@s")
                #expect(try await reads("77", from: uri))
                let volumes = try await cluster.json("volume", "list")
                #expect((volumes["volumes"] as? [Any])?.count == 1)
            }
        }

        // MARK: - Steps

        private func attach(
            _ volume: String,
            via node: String,
            _ cluster: Cluster
        ) async throws -> String {
            let document = try await cluster.json("attach", volume, "--host", "h1", "--via", node)
            return try #require(document["nbd_uri"] as? String)
        }

        private func kill(_ node: String, _ cluster: Cluster) async throws {
            try await cluster.json("dev", "kill", node, "--data", cluster.dataPath)
        }

        private func start(_ node: String, _ cluster: Cluster) async throws {
            try await cluster.json("dev", "start", node, "--data", cluster.dataPath)
        }

        private func waitUntilComplete(_ volume: String, _ cluster: Cluster) async throws {
            let isComplete = try await isEventually {
                let shown = try await cluster.json("volume", "show", volume)
                let states = shown["replica_states"] as? [[String: Any]] ?? []
                return states.filter { $0["state"] as? String == "complete" }.count == 3
            }
            try #require(isComplete, "\(volume) has no three complete replicas")
        }
    }
}
