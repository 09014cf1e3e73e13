// A node that accepts connections and does not answer costs those who list things little.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Synchronization
import TestSupport
import Testing

@Suite("Hung nodes", .timeLimit(.minutes(2)))
struct HungNodeTests {
    /// What a hung node says: nothing, or the head of an answer and a bit of it.
    static let starts = ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"]

    /// A volume with a snapshot on a good node, and one on a node that hangs since.
    private func plane(_ hung: HungServer) async throws -> ControlPlane {
        let (cluster, before) = try await Cluster.serving(nodeNames: ["good", "hung"])
        for node in ["good", "hung"] {
            let creation = VolumeCreation(name: "v-\(node)", byteCount: 4096, node: node)
            _ = try await before.createVolume(creation, operation: "create-\(node)")
            let snapshot = SnapshotCreation(name: "s")
            _ = try await before.createSnapshot(of: "v-\(node)", snapshot, operation: "s-\(node)")
        }
        return ControlPlane(metadata: cluster.metadata, version: "test", logger: Cluster.quiet) {
            record throws(ControlError) in
            // Keeps the cluster as long as the service.
            guard record.name == "hung" else { return cluster.nodes[0] }
            // Longer than any of these tests.
            return NodeClient(endpoint: hung.endpoint, answerMillisecondsMax: 3_600_000)
        }
    }

    /// What `question` gives, which does not wait for the HTTP client: that bears silence longer.
    private func briefly<Value: Sendable>(
        _ question: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let answer = Mutex<Value?>(nil)
        let asking = Task {
            let value = try await question()
            answer.withLock { $0 = value }
        }
        defer { asking.cancel() }
        let limit = Duration.milliseconds(APILimits.silenceMillisecondsMax) * 2 / 3
        #expect(try await isEventually(within: limit) { answer.withLock { $0 != nil } })
        return try #require(answer.withLock { $0 })
    }

    @Test("A list has what the good node says, and a warning for the other", arguments: starts)
    func volumes_nodeHangs_areListed(start: String) async throws {
        let hung = try HungServer(start: start)
        let plane = try await plane(hung)
        let list = try await briefly { try await plane.volumes(after: nil, countMax: 10) }
        #expect(list.volumes.map(\.name) == ["v-good", "v-hung"])
        #expect(list.volumes.map { $0.warning != nil } == [false, true])
        #expect(list.volumes[1].warning?.contains("'hung' does not answer") == true)
        #expect(list.volumes.map { $0.space != nil } == [true, false])
        try await requireGivenUp(hung)
    }

    @Test("One volume is shown, and its snapshots, without what only the node knows")
    func volumeAndSnapshots_nodeHangs_areShown() async throws {
        let hung = try HungServer(start: "")
        let plane = try await plane(hung)
        let volume = try await briefly { try await plane.volume("v-hung") }
        #expect(volume.warning?.contains("'hung' does not answer") == true)
        try await requireGivenUp(hung)
        let snapshots = try await briefly { try await plane.snapshots(of: "v-hung") }
        #expect(snapshots.map(\.name) == ["s"])
        #expect(snapshots[0].ownByteCount == nil)
        try await requireGivenUp(hung, askedCount: 2)
        // Nodes are known by their heartbeats, so nobody is asked.
        #expect(try await plane.nodes().map(\.name) == ["good", "hung"])
        #expect(hung.askedCount == 2)
    }

    @Test("A client gives up when its time is over, also in the middle of an answer")
    func client_answerStops_isGivenUp() async throws {
        for start in Self.starts {
            let hung = try HungServer(start: start)
            let client = NodeClient(endpoint: hung.endpoint, answerMillisecondsMax: 200)
            let error = try await briefly {
                await controlError { () throws(ControlError) in _ = try await client.volumes() }
            }
            #expect(error?.code == .outcomeUnknown)
            try await requireGivenUp(hung)
        }
    }

    @Test("Such a server accepts nothing any more when its descriptor is free for others")
    func server_gone_acceptsNothing() throws {
        for _ in 0..<200 {
            let counts = try HungServer(start: "").counts
            #expect(counts.counts.withLock { !$0.isAccepting })
        }
    }

    /// The node was asked so often, no question was repeated, and none is left under way.
    private func requireGivenUp(_ hung: HungServer, askedCount: Int = 1) async throws {
        #expect(try await isEventually { hung.endedCount == askedCount })
        #expect(hung.askedCount == askedCount)
    }
}
