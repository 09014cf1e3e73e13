import BlockCore
import Foundation
import LogStore
import StorageNode
import Synchronization
import TestSupport
import Testing

@Suite("Who may use a volume", .serialized) struct AccessTests {
    private func update(
        _ node: TestNode,
        _ access: VolumeAccess,
        epoch: UInt64? = nil
    ) async throws {
        let volume = try #require(await node.node.volume(VolumeID(1)))
        var specification = volume.specification
        specification.access = access
        if let epoch { specification.epoch = epoch }
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
        #expect(try await isEventually { await node.node.connectionCount(of: VolumeID(1)) == 0 })
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

    @Test func shrink_withConnections_isRefused() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let bytes = pattern(byteCount: 4096, seed: 1)
        try client.write(0, bytes)
        try client.write(63 << 20, bytes)
        let shrink = StoreCommand.resizeVolume(VolumeID(1), byteCount: 32 << 20)
        await #expect(throws: StoreCommandError.inUse) { try await node.node.perform(shrink) }
        #expect(try client.read(63 << 20, 4096) == bytes)
        try client.disconnect()
        #expect(try await isEventually { await node.node.connectionCount(of: VolumeID(1)) == 0 })
        _ = try await node.node.perform(shrink)
        let grow = StoreCommand.resizeVolume(VolumeID(1), byteCount: 64 << 20)
        let small = try node.client("disk")
        #expect(small.byteCount == 32 << 20)
        _ = try await node.node.perform(grow)
        let again = try node.client("disk")
        #expect(try again.read(0, 4096) == bytes)
        #expect(try again.read(63 << 20, 4096).allSatisfy { $0 == 0 })
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

    // MARK: - Epochs

    private func fencedNode(directory: TestDirectory? = nil) async throws -> TestNode {
        try await TestNode(directory: directory) { $0.exportNaming = .fenced }
    }

    @Test("Whoever had the volume in an earlier epoch is closed, and finds nothing again")
    func newEpoch_fencesTheEarlierOne() async throws {
        let node = try await fencedNode()
        try await node.makeVolume("disk", id: 1, access: .none)
        try await update(node, .readWrite, epoch: 3)
        let old = try node.client("disk:3")
        let before = pattern(byteCount: 4096, seed: 1)
        try old.write(0, before)
        try await update(node, .readWrite, epoch: 4)
        #expect(await node.node.connectionCount(of: VolumeID(1)) == 0)
        #expect(old.isClosed())
        for name in ["disk:3", "disk", "", "disk:04"] {
            #expect(throws: ClientError.self) { try node.client(name) }
        }
        #expect(try node.client("disk:4").read(0, 4096) == before)
        await node.stop()
    }

    @Test("An earlier epoch is refused by node and store, and after a restart")
    func earlierEpoch_isRefused() async throws {
        let node = try await fencedNode()
        try await node.makeVolume("disk", id: 1, access: .none)
        try await update(node, .readWrite, epoch: 4)
        await #expect(throws: StoreCommandError.outdated) {
            try await update(node, .readWrite, epoch: 3)
        }
        let client = try node.client("disk:4")
        // Nothing changed, so nobody was closed.
        _ = try client.read(0, 4096)
        await node.stop()
        let again = try await fencedNode(directory: node.directory)
        await #expect(throws: StoreCommandError.outdated) {
            try await update(again, .none, epoch: 3)
        }
        _ = try again.client("disk:4").read(0, 4096)
        await again.stop()
    }

    @Test("Readers of snapshots stay when the volume is given to another host")
    func newEpoch_leavesSnapshotsAlone() async throws {
        let node = try await fencedNode()
        try await node.makeVolume("disk", id: 1)
        _ = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        let reader = try node.client("disk@s")
        try await update(node, .readWrite, epoch: 1)
        _ = try reader.read(0, 4096)
        await node.stop()
    }

    @Test("Snapshots are read whoever has the volume, also when nobody has")
    func snapshots_needNoAccess() async throws {
        let node = try await fencedNode()
        try await node.makeVolume("disk", id: 1, access: .none)
        _ = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        let reader = try node.client("disk@s")
        #expect(reader.flags & 2 != 0)
        try await update(node, .readWrite, epoch: 1)
        try await update(node, .none, epoch: 2)
        _ = try reader.read(0, 4096)
        _ = try node.client("disk@s").read(0, 4096)
        #expect(throws: ClientError.self) { try node.client("disk:2") }
        await node.stop()
    }

    @Test(
        "A host that keeps coming back never writes after the next one has the volume",
        arguments: [false, true]
    )
    func newEpoch_underLoad_noLateWrite(spreads: Bool) async throws {
        let node = try await TestNode {
            $0.exportNaming = .fenced
            $0.reactorCount = spreads ? 3 : 1
            $0.spreadsConnections = spreads
        }
        try await node.makeVolume("disk", id: 1, access: .none)
        for epoch in UInt64(1)...12 {
            try await update(node, .readWrite, epoch: epoch)
            // Hosts of this epoch that write without waiting and come back at once.
            let hosts = Hosts(count: 2) { host in
                guard let old = try? node.client("disk:\(epoch)") else { return }
                let data = pattern(byteCount: 4096, seed: 100 * epoch + host)
                for _ in 0..<16 { try? old.send(old.request(1, 0, 4096).bytes + data) }
            }
            try #require(try await hosts.goOn(rounds: 4))
            try await update(node, .readWrite, epoch: epoch + 1)
            #expect(await node.node.connectionCount(of: VolumeID(1)) == 0)
            // Before anything new is written: what is there stays as it is.
            let new = try node.client("disk:\(epoch + 1)")
            let first = try new.read(0, 4096)
            try #require(try await hosts.goOn(rounds: 20))
            #expect(try new.read(0, 4096) == first)
            try #require(try await hosts.end())
            #expect(try new.read(0, 4096) == first)
            try new.disconnect()
            #expect(new.isClosed())
        }
        await node.stop()
    }
}

/// Hosts that do the same again and again, each on a thread of its own: their calls block.
private final class Hosts: Sendable {
    private let isOver = Atomic(false)
    private let runningCount: Atomic<Int>
    private let roundCount = Atomic(0)

    init(count: Int, _ body: @escaping @Sendable (UInt64) -> Void) {
        runningCount = Atomic(count)
        for host in 0..<UInt64(count) {
            Thread.detachNewThread { [self] in
                while !isOver.load(ordering: .relaxed) {
                    body(host)
                    roundCount.add(1, ordering: .relaxed)
                }
                runningCount.subtract(1, ordering: .relaxed)
            }
        }
    }

    /// Waits until they have come round so many more times; whether they have.
    func goOn(rounds: Int) async throws -> Bool {
        let end = roundCount.load(ordering: .relaxed) + rounds
        return try await isEventually { roundCount.load(ordering: .relaxed) >= end }
    }

    /// Lets them end; whether none runs any more.
    func end() async throws -> Bool {
        isOver.store(true, ordering: .relaxed)
        return try await isEventually { runningCount.load(ordering: .relaxed) == 0 }
    }
}
