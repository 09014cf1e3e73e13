import BlockCore
import Reactor
import StorageNode
import Testing

@Suite("Submissions") struct SubmissionTests {
    /// Early submissions that a burst of requests costs.
    private func earlySubmissions(
        _ node: TestNode,
        _ client: TestClient,
        command: UInt16,
        flags: UInt16 = 0
    ) async throws -> UInt64 {
        let before = await node.node.reactorCounters()[0].earlySubmitCount
        let payload = command == 1 ? pattern(byteCount: 4096, seed: 7) : []
        for index in 0..<8 {
            let offset = UInt64(index) * 4096
            try client.send(
                client.request(command, offset, 4096, flags: flags, payload: payload).bytes
            )
            _ = try client.reply()
        }
        return await node.node.reactorCounters()[0].earlySubmitCount - before
    }

    @Test func readsFromMemory_costNoSubmissionOfTheirOwn() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        try client.write(0, pattern(byteCount: 8 * 4096, seed: 1))
        _ = try client.call(3, 0, 0)
        // The first round may read from the device, the second finds everything.
        _ = try await earlySubmissions(node, client, command: 0)
        #expect(try await earlySubmissions(node, client, command: 0) == 0)
        await node.stop()
    }

    @Test func devicesBegin_beforeRepliesAreSent() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let payload = pattern(byteCount: 4096, seed: 3)
        let before = await node.node.reactorCounters()[0].earlySubmitCount
        // A durable write occupies the device; the read of a hole behind it is answered at once.
        for index in 0..<64 {
            let offset = UInt64(index) * 4096
            let write = client.request(1, offset, 4096, flags: 1, payload: payload)
            try client.send(write.bytes + client.request(0, 32 << 20, 4096).bytes)
            _ = try client.reply()
            _ = try client.reply()
        }
        #expect(await node.node.reactorCounters()[0].earlySubmitCount > before)
        await node.stop()
    }
}
