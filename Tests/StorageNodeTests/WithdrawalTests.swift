import BlockCore
import LogStore
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

@Suite("Exports that are being taken away", .serialized) struct WithdrawalTests {
    private let volume = VolumeID(1)
    private let layer = LayerID(2)

    @Test("What was taken away twice comes back after the second end")
    func same_twice_comesBackAfterBoth() {
        var table = WithdrawalTable()
        for withdrawal in [Withdrawal.volume(volume), .export(volume, layer)] {
            for _ in 0..<3 { table.withdraw(withdrawal) }
            for _ in 0..<3 {
                #expect(table.isWithdrawn(volume, layer: layer))
                table.restore(withdrawal)
            }
            #expect(!table.isWithdrawn(volume, layer: layer))
        }
    }

    @Test("A volume covers its snapshots, they do not cover it, and each ends by itself")
    func nested_anyOrder_endsByItself() {
        let whole = Withdrawal.volume(volume)
        for parts in [[whole, .export(volume, layer)], [.export(volume, layer), whole]] {
            var table = WithdrawalTable()
            for part in parts { table.withdraw(part) }
            #expect(table.isWithdrawn(volume) && table.isWithdrawn(volume, layer: layer))
            #expect(!table.isWithdrawn(VolumeID(3), layer: layer))
            table.restore(parts[0])
            #expect(table.isWithdrawn(volume, layer: layer))
            #expect(table.isWithdrawn(volume) == (parts[1] == whole))
            table.restore(parts[1])
            #expect(!table.isWithdrawn(volume) && !table.isWithdrawn(volume, layer: layer))
        }
    }

    /// All wait for the same write, each having taken the volume away.
    @Test("Commands that take a volume away at the same time leave it to the last of them")
    func commands_together_leaveTheLast() async throws {
        let plan = FaultPlan()
        let node = try await TestNode { configuration in
            configuration.exportNaming = .fenced
            configuration.stores[0].device.faults = plan
        }
        try await node.makeVolume("disk", id: 1, access: .none)
        func give(epoch: UInt64) async throws {
            var specification = try #require(await node.node.volume(volume)).specification
            specification.access = .readWrite
            specification.epoch = epoch
            _ = try await node.node.perform(.updateVolume(specification))
        }
        try await give(epoch: 1)
        let client = try node.client("disk:1")
        _ = await node.node.valueOnReactor(0) {
            for kind in [DeviceRequest.Kind.write, .writeDurable, .flush] {
                plan.add(.delay(nanoseconds: 3_600_000_000_000), to: kind, count: 1)
            }
            return 0
        }
        let block = [UInt8](repeating: 2, count: 4096)
        try client.send(client.request(1, 0, 4096, flags: 1, payload: block).bytes)
        #expect(try await isEventually { await node.node.counters().requestCountNow == 1 })
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 { group.addTask { try await give(epoch: 2) } }
            // The first of them has; the others, most likely, a little later.
            #expect(try await isEventually { (try? node.client("disk:1")) == nil })
            try await Task.sleep(for: .milliseconds(100))
            _ = await node.node.valueOnReactor(0) {
                plan.removeAll()
                return 0
            }
            try await group.waitForAll()
        }
        #expect(client.isClosed())
        #expect(throws: ClientError.self) { try node.client("disk:1") }
        // Given back as often as taken away: neither gone for good nor counted below nothing.
        #expect(try node.client("disk:2").read(0, 4096) == block)
        try await give(epoch: 3)
        _ = try node.client("disk:3").read(0, 4096)
        await node.stop()
    }
}
