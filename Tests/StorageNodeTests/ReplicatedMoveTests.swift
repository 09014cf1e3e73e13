import BlockCore
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

/// Docs/replication.md, "Moving a replica", over real sockets and stores.
@Suite("Replicas that move", .serialized) struct ReplicatedMoveTests {
    /// Moves a replica while a client writes, through all phases.
    private func move(
        _ slot: Int,
        to node: Int,
        _ cluster: ReplicatedCluster,
        _ client: TestClient,
        _ between: (UInt64) throws -> Void
    ) async throws {
        try await cluster.beginMove(slot, to: node)
        try await cluster.tell(0)
        try between(0)
        try await cluster.wait(0) { $0.move?.phase == .filled }
        try between(1)
        cluster.joins = true
        try await cluster.tell(0)
        try between(2)
        try await cluster.wait(0) { $0.move?.phase == .ready }
        cluster.nameMoved()
        try between(3)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.move == nil && $0.peers.allSatisfy(\.isComplete) }
        try between(4)
    }

    @Test(
        "A replica moves while a client writes, and everything is there without the old one",
        arguments: [(1, 0), (2, 1), (3, 2), (3, 0)]
    )
    func move_keepsEverything(replicaCount: Int, slot: Int) async throws {
        let cluster = try await ReplicatedCluster(
            nodeCount: replicaCount + 1,
            replicaCount: replicaCount
        )
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let data = pattern(byteCount: 4 << 20, seed: 8)
        for part in 0..<4 {
            try client.write(UInt64(part) << 20, Array(data[part << 20..<(part + 1) << 20]))
        }
        try await move(slot, to: replicaCount, cluster, client) { step in
            try client.write(8 << 20 | step << 12, pattern(byteCount: 4096, seed: step))
            #expect(try client.read(0, 1 << 20) == Array(data[0..<1 << 20]))
        }
        #expect(!client.isClosed(), "nobody had to take over")
        // The new one counts, and with as few others as there may be.
        for node in 0..<replicaCount + 1 where node != replicaCount && node != 0 && node != slot {
            if replicaCount == 3 { await cluster.stop(node) }
            break
        }
        try await cluster.serve(on: replicaCount)
        let other = try cluster.client(replicaCount)
        #expect(try other.read(0, 4 << 20) == data)
        for step: UInt64 in 0..<5 {
            let read = try other.read(8 << 20 | step << 12, 4096)
            #expect(read == pattern(byteCount: 4096, seed: step))
        }
        await cluster.stopAll()
    }

    @Test("The node that is left may go at once, and the next move takes its slot")
    func move_again_reusesSlot() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 5)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let data = pattern(byteCount: 1 << 20, seed: 3)
        try client.write(0, data)
        try await move(2, to: 3, cluster, client) { _ in }
        await cluster.stop(2)
        try await move(1, to: 4, cluster, client) { step in
            try client.write(4 << 20 | step << 12, pattern(byteCount: 4096, seed: step))
        }
        await cluster.stop(1)
        #expect(try client.read(0, 1 << 20) == data)
        try await cluster.serve(on: 4)
        #expect(try cluster.client(4).read(0, 1 << 20) == data)
        await cluster.stopAll()
    }

    @Test("A set is named only when the move is ready; from when both count there is no way back")
    func move_outOfTurn_isRefused() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.serve(on: 0)
        try cluster.client(0).write(0, pattern(byteCount: 4096, seed: 1))
        try await cluster.beginMove(2, to: 3)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.move?.phase == .filled }
        let asked = cluster.assignment(leaseEpoch: cluster.epoch)
        var named = asked
        named.placements[2] = try #require(asked.move).to
        named.move = nil
        await #expect(throws: ServiceError.self) { try await cluster.nodes[0].node.serve(named) }
        // Given up before, it is begun anew.
        cluster.abandonMove()
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.move == nil }
        _ = try await cluster.nodes[0].node.serve(asked)
        try await cluster.wait(0) { $0.move?.phase == .filled }
        var joined = asked
        joined.move?.joins = true
        _ = try await cluster.nodes[0].node.serve(joined)
        try await cluster.wait(0) { $0.move?.phase == .ready }
        await #expect(throws: ServiceError.self) { try await cluster.tell(0) }
        // Another epoch ends it.
        try await cluster.serve(on: 0)
        try await cluster.wait(0) { $0.move == nil && $0.state == .serving }
        await cluster.stopAll()
    }

    @Test("The primary of the next epoch fills the new replica on")
    func takeover_fillsOn() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.serve(on: 0)
        let data = pattern(byteCount: 4 << 20, seed: 5)
        let client = try cluster.client(0)
        for part in 0..<4 {
            try client.write(UInt64(part) << 20, Array(data[part << 20..<(part + 1) << 20]))
        }
        try await cluster.beginMove(0, to: 3)
        try await cluster.tell(0)
        await cluster.stop(0)
        try await cluster.serve(on: 1)
        try await cluster.wait(1) { $0.move?.phase == .filled }
        // The one that is left is not there: W of each set are.
        cluster.joins = true
        try await cluster.tell(1)
        try await cluster.wait(1) { $0.move?.phase == .ready }
        cluster.nameMoved()
        try await cluster.tell(1)
        try await cluster.wait(1) { $0.move == nil && $0.peers.allSatisfy(\.isComplete) }
        await cluster.stop(2)
        try await cluster.serve(on: 3)
        #expect(try cluster.client(3).read(0, 4 << 20) == data)
        await cluster.stopAll()
    }
}
