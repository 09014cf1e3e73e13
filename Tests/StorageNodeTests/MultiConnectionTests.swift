import BlockCore
import Foundation
import LogStore
import StorageNode
import TestSupport
import Testing

/// What `NBD_FLAG_CAN_MULTI_CONN` promises.
@Suite("Several connections to one export", .serialized) struct MultiConnectionTests {
    /// A node whose store keeps what is written in memory until somebody wants it durable.
    private func makeNode() async throws -> TestNode {
        try await TestNode { $0.stores[0].log.writebackNanoseconds = 3_600_000_000_000 }
    }

    /// What a node finds on a copy of the store as it is now, as after a power failure.
    private func readAfterPowerFailure(_ node: TestNode, _ byteCount: Int) async throws -> [UInt8] {
        let directory = try TestDirectory()
        try FileManager.default.copyItem(
            atPath: node.directory.path + "/store0",
            toPath: directory.path + "/store0"
        )
        let again = try await TestNode(directory: directory)
        let bytes = try again.client("disk").read(0, byteCount)
        await again.stop()
        return bytes
    }

    @Test("A flush on one connection makes durable what was answered on all")
    func flush_onOne_coversAll() async throws {
        let node = try await makeNode()
        try await node.makeVolume("disk", id: 1)
        let writer = try node.client("disk")
        let other = try node.client("disk")
        let data = pattern(byteCount: 65_536, seed: 3)
        try writer.write(0, data)
        // Nothing asked for it to be durable, so it is not: else this would prove nothing.
        #expect(try await readAfterPowerFailure(node, 65_536) != data)
        #expect(try other.call(3, 0, 0).error == 0)
        #expect(try await readAfterPowerFailure(node, 65_536) == data)
        await node.stop()
    }

    @Test("What was answered on one connection is read on all")
    func write_onOne_isReadOnAll() async throws {
        let node = try await makeNode()
        try await node.makeVolume("disk", id: 1)
        let writer = try node.client("disk")
        let other = try node.client("disk")
        for round in 0..<50 {
            let data = pattern(byteCount: 4096, seed: UInt64(round))
            try writer.write(4096, data)
            #expect(try other.read(4096, 4096) == data)
        }
        await node.stop()
    }
}
