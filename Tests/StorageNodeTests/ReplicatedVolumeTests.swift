import BlockCore
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

/// Docs/replication.md over real sockets and stores, all nodes in one process.
@Suite("Replicated volumes", .serialized) struct ReplicatedVolumeTests {
    @Test("What is written through a primary is read, and on every replica in the end")
    func write_isReadBack() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let data = pattern(byteCount: 1 << 20, seed: 1)
        try client.write(0, data)
        try client.write(3 << 20, data)
        #expect(try client.read(0, 1 << 20) == data)
        #expect(try client.read(3 << 20, 1 << 20) == data)
        #expect(try client.read(2 << 20, 65_536) == [UInt8](repeating: 0, count: 65_536))
        #expect(try client.call(3, 0, 0).error == 0)
        try await cluster.wait(0) { status in
            status.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 }
        }
        await cluster.stopAll()
    }

    @Test("Requests that are not made of whole blocks keep what they do not cover")
    func partialBlocks_keepTheRest() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        var expected = pattern(byteCount: 65_536, seed: 2)
        try client.write(0, expected)
        for round in 0..<40 {
            let offset = (round * 3 % 60) * 512
            let count = (1 + round % 30) * 512
            let data = pattern(byteCount: count, seed: UInt64(round + 10))
            try client.write(UInt64(offset), data)
            expected.replaceSubrange(offset..<offset + count, with: data)
        }
        #expect(try client.read(0, 65_536) == expected)
        // The beginning of a block, its end, and its middle, each alone.
        for (offset, count) in [(0, 512), (3584, 512), (8192 + 1024, 1024)] {
            let data = pattern(byteCount: count, seed: UInt64(offset + 99))
            try client.write(UInt64(offset), data)
            expected.replaceSubrange(offset..<offset + count, with: data)
            #expect(try client.read(0, 65_536) == expected)
        }
        // WRITE_ZEROES of part of a block, then of several.
        #expect(try client.call(6, 512, 1024).error == 0)
        expected.replaceSubrange(512..<1536, with: [UInt8](repeating: 0, count: 1024))
        #expect(try client.call(6, 7 * 512, 40 * 512).error == 0)
        let zeroes = [UInt8](repeating: 0, count: 40 * 512)
        expected.replaceSubrange(7 * 512..<47 * 512, with: zeroes)
        #expect(try client.read(0, 65_536) == expected)
        await cluster.stopAll()
    }

    @Test("Another node takes over and has everything, also without its own replica")
    func takeover_hasEverything() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.serve(on: 0)
        let data = pattern(byteCount: 1 << 20, seed: 3)
        let first = try cluster.client(0)
        try first.write(8192, data)
        for node in [1, 3, 2] {
            try await cluster.serve(on: node)
            let client = try cluster.client(node)
            #expect(try client.read(8192, 1 << 20) == data)
            try client.write(0, pattern(byteCount: 4096, seed: UInt64(node)))
            #expect(try client.read(0, 4096) == pattern(byteCount: 4096, seed: UInt64(node)))
        }
        // The first primary was not asked to stop: it is fenced, and its clients are cut off.
        #expect(first.isClosed())
        await cluster.stopAll()
    }

    @Test("A replica that was away gets what it missed")
    func replicaAway_isResynced() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, pattern(byteCount: 1 << 20, seed: 4))
        await cluster.stop(2)
        let data = pattern(byteCount: 1 << 20, seed: 5)
        try client.write(512 << 10, data)
        #expect(try client.call(4, 0, 65_536).error == 0)
        #expect(try client.call(3, 0, 0).error == 0)
        try await cluster.restart(2)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        // It alone with one other: what it has is what counts.
        await cluster.stop(1)
        try await cluster.serve(on: 2)
        let other = try cluster.client(2)
        #expect(try other.read(512 << 10, 1 << 20) == data)
        #expect(try other.read(0, 65_536) == [UInt8](repeating: 0, count: 65_536))
        await cluster.stopAll()
    }

    @Test("A replica comes back to a window that is nearly full, with nobody writing")
    func replicaAway_findsFullWindow() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, pattern(byteCount: 4096, seed: 10))
        await cluster.stop(2)
        // More than a batch and less than the window, which then has all that it missed.
        let data = pattern(byteCount: 1 << 20, seed: 11)
        for part in 0..<12 { try client.write(UInt64(part) << 20, data) }
        try await cluster.restart(2)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        await cluster.stop(1)
        try await cluster.serve(on: 2)
        #expect(try cluster.client(2).read(11 << 20, 1 << 20) == data)
        await cluster.stopAll()
    }

    @Test("Without a quorum requests wait, and go on by themselves")
    func quorumLost_suspends() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, pattern(byteCount: 4096, seed: 6))
        await cluster.stop(1)
        await cluster.stop(2)
        try await cluster.wait(0) { $0.state == .suspended }
        let data = pattern(byteCount: 4096, seed: 7)
        try client.send(client.request(1, 4096, 4096, payload: data).bytes)
        try await Task.sleep(for: .milliseconds(300))
        try await cluster.restart(1)
        try await cluster.tell(0)
        #expect(try client.reply().error == 0)
        #expect(try client.read(4096, 4096) == data)
        await cluster.stopAll()
    }

    @Test("A replica in a lost one's place gets everything")
    func replacement_isFilled() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let data = pattern(byteCount: 4 << 20, seed: 8)
        for part in 0..<4 {
            try client.write(UInt64(part) << 20, Array(data[part << 20..<(part + 1) << 20]))
        }
        await cluster.stop(2)
        try await cluster.replace(2, on: 3)
        try await cluster.tell(0)
        try await cluster.wait(0) { $0.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 } }
        await cluster.stop(1)
        try await cluster.serve(on: 3)
        #expect(try cluster.client(3).read(0, 4 << 20) == data)
        await cluster.stopAll()
    }

    @Test("All nodes stop and start again, and nothing that was flushed is lost")
    func allRestart_keepsEverything() async throws {
        let cluster = try await ReplicatedCluster(durability: .writethrough)
        try await cluster.serve(on: 0)
        let data = pattern(byteCount: 1 << 20, seed: 9)
        try cluster.client(0).write(0, data)
        for node in 0..<3 { await cluster.stop(node) }
        for node in 0..<3 { try await cluster.restart(node) }
        try await cluster.serve(on: 1)
        #expect(try cluster.client(1).read(0, 1 << 20) == data)
        await cluster.stopAll()
    }
}
