import BlockCore
import CAllocationCounter
import LogStore
import StorageNode
import Testing

/// Whether the build is optimised: without it accessors have frames on the heap.
let isOptimised: Bool = {
    var isDebug = false
    assert(
        {
            isDebug = true
            return true
        }()
    )
    return !isDebug
}()

/// Requests of one kind, whose cost is counted.
struct CountedLoad: Sendable, CustomTestStringConvertible {
    var name: String
    var mode = TestClient.Mode.simple
    var contexts: [String] = []
    /// Requests sent before the first reply is awaited.
    var burstCount = 32
    /// Bursts of the shorter of two runs; the longer has ten times as many.
    var burstsPerRun = 10
    /// Whether the store must read what is asked for from its device.
    var readsDevice = false
    /// The bytes of request number `index`.
    var request: @Sendable (_ client: TestClient, _ index: Int) -> [UInt8]

    var testDescription: String { name }

    /// Bytes written before anything is counted: many times what the store's cache holds.
    static let writtenByteCount = 32 << 20

    static let all: [CountedLoad] = [
        CountedLoad(name: "READ of blocks in memory") { client, index in
            client.request(0, UInt64(index % 32) * 4096, 4096).bytes
        },
        CountedLoad(name: "READ from the device", readsDevice: true) { client, index in
            client.request(0, UInt64(index * 4096 % writtenByteCount), 4096).bytes
        },
        CountedLoad(name: "READ of parts of blocks from the device", readsDevice: true) {
            client,
            index in
            client.request(0, UInt64(index * 4096 % writtenByteCount) + 512, 4096).bytes
        },
        CountedLoad(name: "READ from the device, in chunks", mode: .structured, readsDevice: true) {
            client,
            index in
            client.request(0, UInt64(index * 8192 % writtenByteCount), 8192).bytes
        },
        CountedLoad(name: "READ of holes", mode: .structured) { client, index in
            client.request(0, UInt64(40 << 20) + UInt64(index % 32) * 65_536, 65_536).bytes
        },
        CountedLoad(name: "WRITE") { client, index in
            client.request(1, UInt64(index % 32) * 4096, 4096, payload: block).bytes
        },
        CountedLoad(name: "WRITE of parts of blocks") { client, index in
            let offset = UInt64(index * 4096 % writtenByteCount) + 512
            return client.request(1, offset, 1024, payload: Array(block[0..<1024])).bytes
        },
        CountedLoad(name: "WRITE with FUA") { client, index in
            let flags = TestClient.flagForceUnitAccess
            return client.request(
                1,
                UInt64(index % 32) * 4096,
                4096,
                flags: flags,
                payload: block
            ).bytes
        },
        CountedLoad(name: "FLUSH, with something to flush") { client, index in
            index % 4 == 3
                ? client.request(3, 0, 0).bytes
                : client.request(1, UInt64(index % 32) * 4096, 4096, payload: block).bytes
        },
        CountedLoad(name: "TRIM of what was written") { client, index in
            let offset = UInt64(index / 2 % 64) * 65_536
            return index % 2 == 0
                ? client.request(1, offset, 4096, payload: block).bytes
                : client.request(4, offset, 65_536).bytes
        },
        CountedLoad(name: "WRITE_ZEROES of what was written") { client, index in
            let offset = UInt64(index / 2 % 64) * 65_536
            let flags = index % 4 == 1 ? TestClient.flagNoHole : 0
            return index % 2 == 0
                ? client.request(1, offset, 4096, payload: block).bytes
                : client.request(6, offset, 65_536, flags: flags).bytes
        },
        CountedLoad(name: "WRITE_ZEROES of parts of blocks") { client, index in
            client.request(6, UInt64(index * 8192 % writtenByteCount) + 512, 4096).bytes
        },
        CountedLoad(name: "BLOCK_STATUS", mode: .structured, contexts: ["base:allocation"]) {
            client,
            index in
            client.request(7, UInt64(index % 32) << 20, 2 << 20).bytes
        },
        CountedLoad(
            name: "BLOCK_STATUS, extended",
            mode: .extended,
            contexts: ["base:allocation"]
        ) { client, index in
            client.request(7, UInt64(index % 24) << 20, 40 << 20).bytes
        },
        CountedLoad(name: "CACHE") { client, index in
            client.request(5, UInt64(index * 65_536 % writtenByteCount), 65_536).bytes
        },
        CountedLoad(name: "READ in parts", burstCount: 2, readsDevice: true) { client, index in
            client.request(0, UInt64(index << 22 % writtenByteCount), 4 << 20).bytes
        },
        CountedLoad(
            name: "READ in parts, in chunks",
            mode: .structured,
            burstCount: 2,
            readsDevice: true
        ) { client, index in
            client.request(0, UInt64(index << 22 % writtenByteCount), 4 << 20).bytes
        },
        CountedLoad(name: "WRITE in parts", burstCount: 2, burstsPerRun: 1) { client, index in
            let offset = UInt64(index << 22 % writtenByteCount)
            let payload = [UInt8](repeating: 5, count: 4 << 20)
            return client.request(1, offset, 4 << 20, payload: payload).bytes
        },
    ]

    private static let block = [UInt8](repeating: 3, count: 4096)
}

@Suite(
    .serialized,
    .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"),
    .enabled(if: isOptimised, "only optimised code allocates nothing: swift test -c release")
)
struct AllocationTests {
    /// Heap allocations of the reactors' threads.
    private func count(_ node: TestNode, reactorCount: Int) async -> UInt64 {
        var sum: UInt64 = 0
        for index in 0..<reactorCount {
            sum += await node.node.valueOnReactor(index) { allocation_counter_thread_count() }
        }
        return sum
    }

    /// What the reactors allocate while they serve so many bursts.
    private func allocations(
        _ node: TestNode,
        _ client: TestClient,
        _ load: CountedLoad,
        burstCount: Int,
        reactorCount: Int
    ) async throws -> UInt64 {
        let before = await count(node, reactorCount: reactorCount)
        for burst in 0..<burstCount {
            var bytes: [UInt8] = []
            for index in 0..<load.burstCount {
                bytes += load.request(client, burst * load.burstCount + index)
            }
            try client.send(bytes)
            for _ in 0..<load.burstCount {
                let reply = try client.reply()
                try #require(reply.error == 0)
            }
        }
        return await count(node, reactorCount: reactorCount) - before
    }

    /// The counting itself costs some allocations, the same for any number of requests; so the
    /// difference of two runs is what requests cost.
    private func expectNone(
        _ load: CountedLoad,
        _ node: TestNode,
        _ client: TestClient,
        reactorCount: Int
    ) async throws {
        let hitsBefore = await node.node.storeCounters().cacheHitCount
        var requestCount = 0
        func measure(_ burstCount: Int) async throws -> UInt64 {
            requestCount += burstCount * load.burstCount
            return try await allocations(
                node,
                client,
                load,
                burstCount: burstCount,
                reactorCount: reactorCount
            )
        }
        _ = try await measure(load.burstsPerRun * 6)
        let before = await node.node.storeCounters()
        let few = try await measure(load.burstsPerRun)
        let many = try await measure(load.burstsPerRun * 10)
        // A checkpoint, one for each 256 MiB written, allocates what its manifest takes.
        let after = await node.node.storeCounters()
        try #require(after.checkpointCount == before.checkpointCount)
        #expect(many <= few + 8, "\(few) in a run, \(many) in one of ten times as many requests")
        if load.readsDevice {
            let hitCount = after.cacheHitCount - hitsBefore
            #expect(hitCount < UInt64(requestCount) / 10, "\(hitCount) of \(requestCount) cached")
        }
    }

    private func makeNode(
        configure: (inout NodeConfiguration) -> Void = { _ in }
    ) async throws -> TestNode {
        let node = try await TestNode(storeByteCount: 1 << 30, configure: configure)
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        for offset in stride(from: 0, to: CountedLoad.writtenByteCount, by: 4 << 20) {
            try client.write(UInt64(offset), pattern(byteCount: 4 << 20, seed: UInt64(offset)))
        }
        return node
    }

    @Test("Requests allocate nothing once everything was used", arguments: CountedLoad.all)
    func requests_steadyState_allocateNothing(_ load: CountedLoad) async throws {
        let node = try await makeNode()
        let client = try node.client("disk", mode: load.mode, contexts: load.contexts)
        try await expectNone(load, node, client, reactorCount: 1)
        await node.stop()
    }

    @Test("Nor do requests that cross to the reactor of their store", arguments: CountedLoad.all)
    func requests_thatHop_allocateNothing(_ load: CountedLoad) async throws {
        let node = try await makeNode { configuration in
            configuration.reactorCount = 2
            configuration.spreadsConnections = true
        }
        // Connections are placed in turn: one of two is on the other reactor.
        var found: TestClient?
        for _ in 0..<8 where found == nil {
            let client = try node.client("disk", mode: load.mode, contexts: load.contexts)
            let before = await node.node.counters().hopCount
            try client.send(load.request(client, 0))
            _ = try client.reply()
            if await node.node.counters().hopCount > before { found = client }
        }
        let client = try #require(found)
        try await expectNone(load, node, client, reactorCount: 2)
        await node.stop()
    }
}
