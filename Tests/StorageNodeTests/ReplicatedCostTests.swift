import BlockCore
import CAllocationCounter
import LogStore
import Replication
import StorageNode
import Testing

/// What replicated writes cost, in counts: batches of the log, and allocations.
@Suite("Costs of replicated writes", .serialized)
struct ReplicatedCostTests {
    private static let burstWriteCount = 32

    /// A cluster that serves its volume, and a client that has used it.
    private func makeCluster(
        _ durability: Durability,
        servedBy node: Int = 0
    ) async throws -> (ReplicatedCluster, TestClient) {
        let cluster = try await ReplicatedCluster(
            nodeCount: max(3, node + 1),
            durability: durability
        )
        try await cluster.serve(on: node)
        let client = try cluster.client(node)
        try client.write(0, pattern(byteCount: 4 << 20, seed: 1))
        try await cluster.wait(node) {
            $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 }
        }
        return (cluster, client)
    }

    /// Sends writes of 4 KiB, a burst of them at a time, and takes their replies.
    private func write(_ client: TestClient, burstCount: Int) throws {
        let block = pattern(byteCount: 4096, seed: 3)
        for burst in 0..<burstCount {
            var bytes: [UInt8] = []
            for index in 0..<Self.burstWriteCount {
                let place = (burst * 37 + index * 11) % 1024
                bytes += client.request(1, UInt64(place) * 4096, 4096, payload: block).bytes
            }
            try client.send(bytes)
            for _ in 0..<Self.burstWriteCount { try #require(try client.reply().error == 0) }
        }
    }

    @Test("Durable writes that come together are made durable together, on every replica")
    func durableWrites_together_shareBatches() async throws {
        let (cluster, client) = try await makeCluster(.writethrough)
        var before: [StoreCounters] = []
        for node in cluster.nodes { before.append(await node.node.storeCounters()) }
        let burstCount = 20
        try write(client, burstCount: burstCount)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.behindCount == 0 } }
        let writeCount = UInt64(burstCount * Self.burstWriteCount)
        for (node, before) in zip(cluster.nodes, before) {
            let after = await node.node.storeCounters()
            #expect(after.dataByteCount - before.dataByteCount == writeCount * 4096)
            let batchCount = after.batchCount - before.batchCount
            #expect(batchCount <= writeCount / 2, "\(batchCount) batches of \(writeCount) writes")
            #expect(after.flushCount - before.flushCount <= batchCount)
        }
        await cluster.stopAll()
    }

    @Test(
        "Replicated writes allocate nothing, on any node",
        .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"),
        .enabled(if: isOptimised, "only optimised code allocates nothing: swift test -c release"),
        arguments: [Durability.writeback, .writethrough]
    )
    func writes_steadyState_allocateNothing(_ durability: Durability) async throws {
        let (cluster, client) = try await makeCluster(durability)
        try await expectNoAllocations(on: cluster) { burstCount in
            try write(client, burstCount: burstCount)
            try await cluster.wait(0) { $0.peers.allSatisfy { $0.behindCount == 0 } }
        }
        await cluster.stopAll()
    }

    @Test(
        "Replicated reads allocate nothing, on the node that has a replica and on one that asks it",
        .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"),
        .enabled(if: isOptimised, "only optimised code allocates nothing: swift test -c release"),
        arguments: [0, 3]
    )
    func reads_steadyState_allocateNothing(_ node: Int) async throws {
        let (cluster, client) = try await makeCluster(.writeback, servedBy: node)
        try await expectNoAllocations(on: cluster) { burstCount in
            for burst in 0..<burstCount {
                for index in 0..<Self.burstWriteCount {
                    let place = (burst * 37 + index * 11) % 1024
                    _ = try client.read(UInt64(place) * 4096, 4096)
                }
            }
        }
        await cluster.stopAll()
    }

    /// Fails when ten times as many requests allocate more on any node.
    private func expectNoAllocations(
        on cluster: ReplicatedCluster,
        _ work: (_ burstCount: Int) async throws -> Void
    ) async throws {
        func allocationCount() async -> [UInt64] {
            var counts: [UInt64] = []
            for node in cluster.nodes {
                counts.append(
                    await node.node.valueOnReactor(0) { allocation_counter_thread_count() }
                )
            }
            return counts
        }
        func measure(_ burstCount: Int) async throws -> [UInt64] {
            let before = await allocationCount()
            try await work(burstCount)
            return zip(await allocationCount(), before).map { $0 - $1 }
        }
        _ = try await measure(60)
        let few = try await measure(10)
        let many = try await measure(100)
        // What goes on beside the requests, the asking for the service's state above all, allocates:
        // one allocation for each request would be 2,880.
        for (few, many) in zip(few, many) {
            #expect(many <= few + 300, "\(few) for 320 requests, \(many) for 3,200")
        }
    }
}
