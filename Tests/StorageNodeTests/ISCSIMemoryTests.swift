// What iSCSI commands have of the node's memory, and for how long.

import ISCSISession
import ISCSIWire
import StorageNode
import TestSupport
import Testing

@Suite("Memory of iSCSI commands", .serialized) struct ISCSIMemoryTests {
    @Test("What is read stays what it was until it is sent, whatever comes behind it")
    func read_severalPieces_keepsItsMemory() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let initiator = try TestInitiator(node.iscsiPath)
        #expect(try initiator.login("disk", ["MaxRecvDataSegmentLength": "65536"]) == 0)
        try initiator.settle()
        // A large piece, which is sent from where it is, and a small one; of blocks that were never
        // written, so that the answer is there at once. Behind it writes, which want memory.
        let blockCount = 136
        let data = pattern(byteCount: 65_536, seed: 4)
        for round in 0..<4 as Range<UInt64> {
            var bytes = initiator.bytes(
                initiator.commandHeader(
                    TestInitiator.block(0x28, 65_536, blockCount),
                    read: blockCount * 512
                )
            )
            for index in 0..<6 as Range<UInt64> {
                let block = TestInitiator.block(0x2A, (round * 6 + index) * 128, 128)
                bytes += initiator.bytes(initiator.commandHeader(block, write: data.count), data)
            }
            try initiator.client.send(bytes)
            var answerCount = 0
            while answerCount < 7 {
                let result = try initiator.finish([])
                answerCount += 1
                #expect(result.status == 0)
                guard !result.data.isEmpty else { continue }
                #expect(result.data == [UInt8](repeating: 0, count: blockCount * 512))
            }
        }
        await node.stop()
    }

    @Test("Discovery is for initiators that a rule names")
    func discovery_unnamed_isRefused() async throws {
        let node = try await TestNode {
            $0.servesISCSI()
            $0.iscsiAccess = ISCSIAccess(rules: [
                ISCSIRule(initiator: "iqn.2026-01.example:other", volume: nil, credentials: nil)
            ])
        }
        try await node.makeVolume("disk", id: 1)
        let initiator = try TestInitiator(node.iscsiPath)
        #expect(try initiator.login(nil) == 0x0203)
        await node.stop()
    }
}
