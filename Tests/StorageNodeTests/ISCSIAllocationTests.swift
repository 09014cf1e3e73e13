import BlockCore
import CAllocationCounter
import ISCSIWire
import StorageNode
import Testing

/// Commands of one kind over iSCSI, whose cost is counted.
struct CountedCommands: Sendable, CustomTestStringConvertible {
    var name: String
    var block: @Sendable (_ index: Int) -> [UInt8]
    var writeByteCount = 0
    var readByteCount = 0

    var testDescription: String { name }

    static let all: [CountedCommands] = [
        CountedCommands(
            name: "READ of blocks in memory",
            block: { TestInitiator.block(0x28, UInt64($0 % 32) * 8, 8) },
            readByteCount: 4096
        ),
        CountedCommands(
            name: "READ of 64 KiB",
            block: { TestInitiator.block(0x28, UInt64($0 % 256) * 128, 128) },
            readByteCount: 65_536
        ),
        CountedCommands(
            name: "READ of holes",
            block: { TestInitiator.block(0x28, 100_000 + UInt64($0 % 32) * 8, 8) },
            readByteCount: 4096
        ),
        CountedCommands(
            name: "WRITE",
            block: { TestInitiator.block(0x2A, UInt64($0 % 32) * 8, 8) },
            writeByteCount: 4096
        ),
        CountedCommands(
            name: "WRITE with FUA",
            block: { index in
                var block = TestInitiator.block(0x2A, UInt64(index % 32) * 8, 8)
                block[1] = 0x08
                return block
            },
            writeByteCount: 4096
        ),
        CountedCommands(name: "SYNCHRONIZE CACHE", block: { _ in TestInitiator.block(0x35, 0, 0) }),
        CountedCommands(name: "TEST UNIT READY", block: { _ in [0, 0, 0, 0, 0, 0] }),
    ]
}

@Suite(
    .serialized,
    .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"),
    .enabled(if: isOptimised, "only optimised code allocates nothing: swift test -c release")
)
struct ISCSIAllocationTests {
    private static let burstCount = 32

    /// What the reactor allocates while it serves so many bursts.
    private func allocations(
        _ node: TestNode,
        _ initiator: TestInitiator,
        _ load: CountedCommands,
        burstCount: Int
    ) async throws -> UInt64 {
        let before = await node.node.valueOnReactor(0) { allocation_counter_thread_count() }
        let data = [UInt8](repeating: 3, count: load.writeByteCount)
        for burst in 0..<burstCount {
            var bytes: [UInt8] = []
            for index in 0..<Self.burstCount {
                let header = initiator.commandHeader(
                    load.block(burst * Self.burstCount + index),
                    write: load.writeByteCount,
                    read: load.readByteCount
                )
                bytes += initiator.bytes(header, data)
            }
            try initiator.client.send(bytes)
            for _ in 0..<Self.burstCount {
                let result = try initiator.finish(data)
                try #require(result.status == 0 && result.data.count == load.readByteCount)
            }
        }
        return await node.node.valueOnReactor(0) { allocation_counter_thread_count() } - before
    }

    /// The counting itself costs some allocations, the same for any number of commands.
    @Test("Commands allocate nothing once everything was used", arguments: CountedCommands.all)
    func commands_steadyState_allocateNothing(_ load: CountedCommands) async throws {
        let node = try await TestNode(storeByteCount: 1 << 30) { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let initiator = try node.initiator("disk")
        for index in 0..<16 as Range<UInt64> {
            let data = pattern(byteCount: 1 << 20, seed: index)
            try #require(try initiator.write(index * 2048, data).status == 0)
        }
        _ = try await allocations(node, initiator, load, burstCount: 60)
        let few = try await allocations(node, initiator, load, burstCount: 10)
        let many = try await allocations(node, initiator, load, burstCount: 100)
        #expect(many <= few + 8, "\(few) in a run, \(many) in one of ten times as many commands")
        await node.stop()
    }
}
