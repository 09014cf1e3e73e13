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
        try await serving(hung, changeMillisecondsMax: 3_600_000).plane
    }

    private func serving(
        _ hung: HungServer,
        changeMillisecondsMax: Int64
    ) async throws -> (cluster: Cluster, plane: ControlPlane) {
        let (cluster, before) = try await Cluster.serving(nodeNames: ["good", "hung"])
        for node in ["good", "hung"] {
            let creation = VolumeCreation(name: "v-\(node)", byteCount: 4096, node: node)
            _ = try await before.createVolume(creation, operation: "create-\(node)")
            let snapshot = SnapshotCreation(name: "s")
            _ = try await before.createSnapshot(of: "v-\(node)", snapshot, operation: "s-\(node)")
        }
        let plane = ControlPlane(
            metadata: cluster.metadata,
            version: "test",
            logger: Cluster.quiet,
            changeMillisecondsMax: changeMillisecondsMax,
            // The good node must answer within it, however busy this machine is.
            viewMillisecondsMax: 8_000
        ) { record throws(ControlError) in
            // Keeps the cluster as long as the service.
            guard record.name == "hung" else { return cluster.nodes[0] }
            // Longer than any of these tests.
            return NodeClient(endpoint: hung.endpoint, answerMillisecondsMax: 3_600_000)
        }
        return (cluster, plane)
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

    @Test("A change has one limit in time, whatever it waits for, and so have those behind it")
    func change_nodeHangs_isGivenUp() async throws {
        let hung = try HungServer(start: "")
        let (_, plane) = try await serving(hung, changeMillisecondsMax: 8_000)
        let errors = try await briefly {
            await withTaskGroup(of: ControlError?.self) { group in
                for index in 0..<4 {
                    group.addTask {
                        await controlError { () throws(ControlError) in
                            let creation = SnapshotCreation(name: "t\(index)")
                            _ = try await plane.createSnapshot(
                                of: "v-hung",
                                creation,
                                operation: "t\(index)"
                            )
                        }
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
        }
        // Those behind it wait no longer than it, and do not ask again what it left behind.
        #expect(hung.askedCount == 1)
        #expect(errors.count { $0?.code == .outcomeUnknown } == 1)
        #expect(errors.count { $0?.code == .busy } == 3)
        // The next one carries it on for as long as it may, and says what it waits for.
        let next = try await briefly {
            await controlError { () throws(ControlError) in
                try await plane.deleteVolume("v-hung", operation: "d")
            }
        }
        #expect(next?.code == .busy)
        #expect(next?.detail.contains("the node 'hung' does not answer") == true)
    }

    @Test("A change on a node that is down is refused soon, and leaves nothing behind")
    func change_nodeIsDown_isRefused() async throws {
        let hung = try HungServer(start: "")
        let (cluster, plane) = try await serving(hung, changeMillisecondsMax: 3_600_000)
        try await cluster.store.expireLeases(now: .now + .seconds(60))
        for operation in ["d1", "d2"] {
            let error = try await briefly {
                await controlError { () throws(ControlError) in
                    try await plane.deleteVolume("v-hung", operation: operation)
                }
            }
            #expect(error?.code == .unavailable)
            #expect(error?.detail == "The node 'hung' does not answer.")
            // To start a program that runs would change nothing.
            let anew = "volctl dev kill hung && volctl dev start hung"
            #expect(error?.help?.contains(anew) == true, "\(error?.help ?? "")")
        }
        let strays = try await briefly {
            await controlError { () throws(ControlError) in
                _ = try await plane.strays(of: "hung")
            }
        }
        #expect(strays?.detail == "The node 'hung' does not answer.")
        #expect(try await cluster.metadata.volume(named: "v-hung")?.value.pending == nil)
        // One that answers all the same is asked for the change.
        try await plane.deleteVolume("v-good", operation: "d3")
    }

    /// Three volumes on a node that hangs since, and one on a good node; each has an operation that
    /// has not ended.
    private func interrupted(
        _ hung: HungServer,
        changeMillisecondsMax: Int64
    ) async throws -> (cluster: Cluster, plane: ControlPlane) {
        // The one that hangs comes first by name.
        let (cluster, before) = try await Cluster.serving(nodeNames: ["hung", "well"])
        for (name, node) in [("a", "hung"), ("b", "hung"), ("c", "hung"), ("v", "well")] {
            let creation = VolumeCreation(name: name, byteCount: 4096, node: node)
            _ = try await before.createVolume(creation, operation: "create-\(name)")
            try await interrupt(name, cluster)
        }
        let plane = ControlPlane(
            metadata: cluster.metadata,
            version: "test",
            logger: Cluster.quiet,
            changeMillisecondsMax: changeMillisecondsMax
        ) { record throws(ControlError) in
            guard record.name == "hung" else { return cluster.nodes[1] }
            return NodeClient(endpoint: hung.endpoint, answerMillisecondsMax: 3_600_000)
        }
        return (cluster, plane)
    }

    private func interrupt(_ name: String, _ cluster: Cluster) async throws {
        let volume = try #require(try await cluster.metadata.volume(named: name))
        let key = UUID().uuidString
        let kind = PendingOperation.Kind.createSnapshot(name: "s\(key.prefix(8))")
        let operation = PendingOperation(key: key, kind: kind, startedAt: .now)
        _ = try await cluster.metadata.begin(operation, on: volume, request: "snapshot")
    }

    private func isSettled(_ name: String, _ cluster: Cluster) async throws -> Bool {
        try await isEventually(within: .seconds(30)) {
            try await cluster.metadata.volume(named: name)?.value.pending == nil
        }
    }

    @Test("A node that hangs while it still counts as up holds up the recovery of no other one")
    func recovery_nodeHangs_othersRecover() async throws {
        let hung = try HungServer(start: "")
        let (cluster, plane) = try await interrupted(hung, changeMillisecondsMax: 3_600_000)
        let recovery = Task { try await plane.recover() }
        defer { recovery.cancel() }
        #expect(try await isSettled("v", cluster))
    }

    @Test("It holds up no other one either whose comparison is asked for later")
    func comparison_nodeHangs_othersAreCompared() async throws {
        let hung = try HungServer(start: "")
        let (cluster, plane) = try await interrupted(hung, changeMillisecondsMax: 3_600_000)
        let running = Task { await plane.run() }
        defer {
            plane.stop()
            running.cancel()
        }
        #expect(try await isSettled("v", cluster))
        try await interrupt("v", cluster)
        for node in ["hung", "well"] {
            let index = node == "hung" ? 0 : 1
            _ = try await plane.registerNode(node, Cluster.registration(index))
        }
        #expect(try await isSettled("v", cluster))
    }

    @Test("A node that hangs is asked for one of its pending operations, not for each")
    func recovery_nodeHangs_isAskedOnce() async throws {
        let hung = try HungServer(start: "")
        let (cluster, plane) = try await interrupted(hung, changeMillisecondsMax: 1000)
        try await plane.recover()
        try await requireGivenUp(hung)
        for name in ["a", "b", "c"] {
            #expect(try await cluster.metadata.volume(named: name)?.value.pending != nil)
        }
    }

    @Test("An answer that the outcome is not known is an answer: the client does not ask again")
    func client_outcomeUnknown_isNotRepeated() async throws {
        let document = ProblemDocument(ControlError(.outcomeUnknown, "who knows"))
        let body = String(decoding: try ControlJSON.encoder().encode(document), as: UTF8.self)
        let head =
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: application/problem+json\r\n"
        let hung = try HungServer(
            start: head + "Content-Length: \(body.utf8.count)\r\n\r\n" + body
        )
        let client = ControlClient(endpoint: hung.endpoint)
        let error = try await briefly {
            await controlError { () throws(ControlError) in
                try await client.deleteVolume("v")
            }
        }
        #expect(error?.detail == "who knows")
        #expect(hung.askedCount == 1)
    }

    @Test("A client gives up when its time is over, also in the middle of an answer")
    func client_answerStops_isGivenUp() async throws {
        for start in Self.starts {
            let hung = try HungServer(start: start)
            // Time enough to ask.
            let client = NodeClient(endpoint: hung.endpoint, answerMillisecondsMax: 3000)
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
            let progress = try HungServer(start: "").listener.progress
            let isAccepting = progress.isAccepting.load(ordering: .acquiring)
            #expect(!isAccepting)
        }
    }

    /// The node was asked so often, no question was repeated, and none is left under way.
    private func requireGivenUp(_ hung: HungServer, askedCount: Int = 1) async throws {
        #expect(try await isEventually { hung.endedCount == askedCount })
        #expect(hung.askedCount == askedCount)
    }
}
