import BlockCore
import Foundation
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

/// Docs/replication.md, "Reads": copies that rotted on a disk, over real sockets and stores.
@Suite("Repair of replicated volumes", .serialized) struct ReplicatedRepairTests {
    private static func block(_ index: UInt64) -> [UInt8] {
        pattern(byteCount: 4096, seed: 700 + index)
    }

    /// Where the bytes begin in a file; the last place, if there are several.
    private func place(of bytes: [UInt8], in path: String) throws -> UInt64? {
        let contents = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
        return contents.range(of: Data(bytes), options: .backwards).map { UInt64($0.lowerBound) }
    }

    private func repairedCount(_ node: TestNode) -> UInt64 {
        node.events.all.reduce(0) { count, event in
            if case .blocksRepaired(ReplicatedCluster.volume, _, let more) = event {
                count + more
            } else {
                count
            }
        }
    }

    @Test("A block that rotted is read elsewhere, written anew and told of")
    func block_rots_isRepaired() async throws {
        let cluster = try await ReplicatedCluster(durability: .writethrough)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        for index in 0..<4 as Range<UInt64> { try client.write(index * 8192, Self.block(index)) }
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        let path = cluster.nodes[0].directory.path + "/store0"
        let rotten = try #require(try place(of: Self.block(1), in: path))
        try TestFiles.write([0x55, 0xAA], to: path, at: rotten + 1000)
        // The replica on the primary's own node is asked first; in a read of many blocks it says which.
        // When it is late, which on a busy machine it may be, another one has answered before it says
        // so, and the next read finds the block.
        let zeroes = [UInt8](repeating: 0, count: 4096)
        let expected = Self.block(0) + zeroes + Self.block(1) + zeroes
        let isRepaired = try await isEventually {
            let bytes = try client.read(0, 16_384)
            #expect(bytes == expected)
            return repairedCount(cluster.nodes[0]) > 0
        }
        #expect(isRepaired)
        try client.write(0, Self.block(0))
        let mended = try #require(try place(of: Self.block(1), in: path))
        #expect(mended != rotten)
        // Nobody else is asked now: the others are gone, and it has all that it needs.
        await cluster.stopAll()
        try await cluster.restart(0)
        try await cluster.restart(1)
        try await cluster.serve(on: 0)
        let other = try cluster.client(0)
        for index in 0..<4 as Range<UInt64> {
            #expect(try other.read(index * 8192, 4096) == Self.block(index))
        }
        #expect(repairedCount(cluster.nodes[0]) == 0)
        await cluster.stopAll()
    }

    @Test("What was written since a block rotted is not overwritten by its repair")
    func block_rotsAndIsWritten_keepsTheNewer() async throws {
        let cluster = try await ReplicatedCluster(durability: .writethrough)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(8192, Self.block(1))
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        let path = cluster.nodes[0].directory.path + "/store0"
        let rotten = try #require(try place(of: Self.block(1), in: path))
        try TestFiles.write([0x55, 0xAA], to: path, at: rotten + 1000)
        // The read that finds it, and a write, at the same time.
        let read = client.request(0, 8192, 4096)
        let write = client.request(1, 8192, 4096, payload: Self.block(2))
        try client.send(read.bytes + write.bytes)
        for _ in 0..<2 {
            let reply = try client.reply()
            #expect(reply.error == 0)
            let isOne = reply.data == Self.block(1) || reply.data == Self.block(2)
            #expect(reply.cookie != read.cookie || isOne)
        }
        #expect(try client.read(8192, 4096) == Self.block(2))
        await cluster.stopAll()
    }
}
