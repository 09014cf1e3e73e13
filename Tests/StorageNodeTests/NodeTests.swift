import BlockCore
import LogStore
import StorageNode
import Testing

@Suite(.serialized) struct NodeTests {
    @Test func writeThenRead_everyMode_sameBytes() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        for mode in [TestClient.Mode.simple, .structured, .extended] {
            let client = try node.client("disk", mode: mode)
            #expect(client.byteCount == 64 << 20)
            let data = pattern(byteCount: 12_288, seed: 7)
            try client.write(4096, data)
            #expect(try client.read(4096, 12_288) == data)
            try client.call(3, 0, 0)
            try client.disconnect()
            #expect(client.isClosed())
        }
        await node.stop()
    }
}

/// Bytes that tell where they belong.
func pattern(byteCount: Int, seed: UInt64) -> [UInt8] {
    var random = SplitMix(state: seed)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount + 8)
    while bytes.count < byteCount {
        let value = random.next()
        for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(shift)))) }
    }
    return Array(bytes.prefix(byteCount))
}
