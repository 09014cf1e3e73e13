import BlockCore
import LogStore
import StorageNode
import Testing

@Suite("Who may use a volume", .serialized) struct AccessTests {
    private func update(_ node: TestNode, _ access: VolumeAccess) async throws {
        let volume = try #require(await node.node.volume(VolumeID(1)))
        var specification = volume.specification
        specification.access = access
        _ = try await node.node.perform(.updateVolume(specification))
    }

    @Test func accessNone_isNotExported() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1, access: .none)
        #expect(throws: ClientError.self) { try node.client("disk") }
        try await update(node, .readWrite)
        _ = try node.client("disk").read(0, 4096)
        await node.stop()
    }

    @Test func accessTaken_whenItReturns_noConnectionIsLeft() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        try client.write(0, [UInt8](repeating: 1, count: 4096))
        try await update(node, .none)
        #expect(await node.node.connectionCount(of: VolumeID(1)) == 0)
        #expect(client.isClosed())
        await node.stop()
    }

    @Test func accessLowered_writersAreClosed_readersStay() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        _ = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        let writer = try node.client("disk")
        let reader = try node.client("disk@s")
        try await update(node, .readOnly)
        #expect(writer.isClosed())
        _ = try reader.read(0, 4096)
        let later = try node.client("disk")
        #expect(later.flags & 2 != 0)
        #expect(try later.call(1, 0, 512, payload: [UInt8](repeating: 1, count: 512)).error == 1)
        await node.stop()
    }

    @Test func snapshotExport_keepsItsContents() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let old = pattern(byteCount: 8192, seed: 1)
        try client.write(0, old)
        let made = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        try client.write(0, pattern(byteCount: 8192, seed: 2))
        let reader = try node.client("disk@s")
        #expect(try reader.read(0, 8192) == old)
        _ = try await node.node.perform(.deleteSnapshot(layer: made.layer))
        #expect(reader.isClosed())
        #expect(throws: ClientError.self) { try node.client("disk@s") }
        await node.stop()
    }

    @Test func rollback_withConnections_isRefused() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let old = pattern(byteCount: 4096, seed: 1)
        try client.write(0, old)
        let made = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        try client.write(0, pattern(byteCount: 4096, seed: 2))
        let rollback = StoreCommand.rollback(volume: VolumeID(1), layer: made.layer)
        await #expect(throws: StoreCommandError.inUse) { try await node.node.perform(rollback) }
        try client.disconnect()
        #expect(client.isClosed())
        // The node notices the end of the connection after its client does.
        for _ in 0..<1000 where await node.node.connectionCount(of: VolumeID(1)) > 0 {
            await Task.yield()
        }
        _ = try await node.node.perform(rollback)
        #expect(try node.client("disk").read(0, 4096) == old)
        await node.stop()
    }

    @Test func resize_isSeenByNewConnections() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let before = try node.client("disk")
        _ = try await node.node.perform(.resizeVolume(VolumeID(1), byteCount: 128 << 20))
        #expect(before.byteCount == 64 << 20)
        #expect(try node.client("disk").byteCount == 128 << 20)
        _ = try before.read(0, 4096)
        await node.stop()
    }

    @Test func emptyName_opensTheOnlyVolume() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        _ = try node.client("")
        try await node.makeVolume("other", id: 2)
        #expect(throws: ClientError.self) { try node.client("") }
        await node.stop()
    }
}
