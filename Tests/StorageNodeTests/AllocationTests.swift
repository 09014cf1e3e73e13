import BlockCore
import CAllocationCounter
import LogStore
import StorageNode
import Testing

/// Whether the build is optimised: without it accessors have frames on the heap.
private let isOptimised: Bool = {
    var isDebug = false
    assert(
        {
            isDebug = true
            return true
        }()
    )
    return !isDebug
}()

@Suite(
    .serialized,
    .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"),
    .enabled(if: isOptimised, "only optimised code allocates nothing: swift test -c release")
)
struct AllocationTests {
    private func count(_ node: TestNode) async -> UInt64 {
        await node.node.valueOnReactor(0) { allocation_counter_thread_count() }
    }

    /// Heap allocations of the reactor's thread for `requestCount` requests sent in bursts.
    private func allocations(
        _ node: TestNode,
        _ client: TestClient,
        command: UInt16,
        requestCount: Int
    ) async throws -> UInt64 {
        let payload = command == 1 ? [UInt8](repeating: 3, count: 4096) : []
        let before = await count(node)
        for _ in 0..<requestCount / 32 {
            var bytes: [UInt8] = []
            for index in 0..<32 {
                bytes += client.request(command, UInt64(index) * 4096, 4096, payload: payload).bytes
            }
            try client.send(bytes)
            for _ in 0..<32 { _ = try client.reply() }
        }
        return await count(node) - before
    }

    /// The counting itself costs some allocations, the same for any number of requests; so the
    /// difference of two runs is what requests cost.
    @Test(arguments: [0 as UInt16, 1]) func requests_steadyState_allocateNothing(
        command: UInt16
    ) async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        try client.write(0, pattern(byteCount: 32 * 4096, seed: 1))
        _ = try await allocations(node, client, command: command, requestCount: 2048)
        let few = try await allocations(node, client, command: command, requestCount: 320)
        let many = try await allocations(node, client, command: command, requestCount: 3200)
        #expect(many <= few + 8, "\(few) for 320 requests, \(many) for 3200")
        await node.stop()
    }
}
