import BlockCore
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

/// Docs/replication.md, "Room", over real sockets and stores.
@Suite("Full stores of replicated volumes", .serialized) struct ReplicatedRoomTests {
    private static let noSpace: UInt32 = 28
    private static let part = 1 << 20
    private static let filler = VolumeID(90)

    /// What a part of the volume holds that was written with a seed.
    private func data(_ seed: UInt64) -> [UInt8] { pattern(byteCount: Self.part, seed: seed) }

    /// Writes parts one after the other until one is refused.
    ///
    /// - Returns: How many were not.
    private func fill(_ client: TestClient, countMax: Int) throws -> Int {
        for index in 0..<countMax {
            let offset = UInt64(index * Self.part)
            let reply = try client.call(
                1,
                offset,
                UInt64(Self.part),
                payload: data(UInt64(index))
            )
            if reply.error == Self.noSpace { return index }
            #expect(reply.error == 0)
        }
        throw ClientError("nothing was refused")
    }

    /// Writes until it is not refused any more.
    private func write(_ client: TestClient, _ offset: UInt64, seed: UInt64) async throws {
        let isWritten = try await isEventually {
            let reply = try client.call(1, offset, UInt64(Self.part), payload: data(seed))
            #expect(reply.error == 0 || reply.error == Self.noSpace)
            return reply.error == 0
        }
        #expect(isWritten)
    }

    private func isWhole(_ status: ServiceStatus) -> Bool {
        status.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 && !$0.lacksRoom }
    }

    @Test("A write without room ends with ENOSPC, reads go on, and trims make room again")
    func stores_full_refuse() async throws {
        let cluster = try await ReplicatedCluster(
            byteCount: 512 << 20,
            storeByteCounts: [96 << 20, 96 << 20, 96 << 20]
        )
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let count = try fill(client, countMax: 128)
        #expect(count > 40)
        try await cluster.wait(0) { $0.refusesWrites && $0.state == .serving }
        for index in [0, count / 2, count - 1] {
            #expect(try client.read(UInt64(index * Self.part), Self.part) == data(UInt64(index)))
        }
        #expect(try client.call(3, 0, 0).error == 0)
        // A snapshot asks for room before it has a number, and single blocks take what is left.
        let isRefused = try await isEventually {
            let offset = UInt64(count * Self.part)
            return try (0..<256).contains { block in
                let reply = try client.call(
                    1,
                    offset + UInt64(block) * 4096,
                    4096,
                    payload: pattern(byteCount: 4096, seed: UInt64(block))
                )
                return reply.error == Self.noSpace
            }
        }
        #expect(isRefused)
        await #expect(throws: ServiceError.noRoom) { _ = try await cluster.snapshot(11, on: 0) }
        // What takes no room is taken: a file system has to note what it deletes.
        try client.write(0, data(500))
        #expect(try client.read(0, Self.part) == data(500))
        for index in 0..<8 {
            #expect(try client.call(4, UInt64(index * Self.part), UInt64(Self.part)).error == 0)
        }
        try await write(client, UInt64(count * Self.part), seed: 900)
        try await cluster.wait(0) { !$0.refusesWrites && isWhole($0) }
        // Every replica has what was acknowledged, and nothing else.
        await cluster.stop(1)
        try await cluster.serve(on: 2)
        let other = try cluster.client(2)
        let zeroes = [UInt8](repeating: 0, count: Self.part)
        #expect(try other.read(0, Self.part) == zeroes)
        #expect(try other.read(UInt64(8 * Self.part), Self.part) == data(8))
        #expect(try other.read(UInt64(count * Self.part), Self.part) == data(900))
        await cluster.stopAll()
    }

    @Test("One full store holds nobody up, is told of, and catches up by itself when it has room")
    func store_oneFull_catchesUp() async throws {
        let cluster = try await ReplicatedCluster(
            byteCount: 256 << 20,
            storeByteCounts: [512 << 20, 512 << 20, 64 << 20]
        )
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        for index in 0..<96 {
            try client.write(UInt64(index * Self.part), data(UInt64(index)))
        }
        try await cluster.wait(0) { status in
            status.peers.map(\.lacksRoom) == [false, false, true] && !status.refusesWrites
        }
        let isTold = try await isEventually {
            cluster.nodes[0].events.all.contains { event in
                if case .serviceRoomChanged(_, ["n3"], false) = event { true } else { false }
            }
        }
        #expect(isTold)
        // Trims reach it although it lacks what was written before them.
        for index in 0..<80 {
            #expect(try client.call(4, UInt64(index * Self.part), UInt64(Self.part)).error == 0)
        }
        try await cluster.wait(0, seconds: 60, until: isWhole)
        await cluster.stop(1)
        try await cluster.serve(on: 2)
        let other = try cluster.client(2)
        #expect(try other.read(0, Self.part) == [UInt8](repeating: 0, count: Self.part))
        for index in 80..<96 {
            #expect(try other.read(UInt64(index * Self.part), Self.part) == data(UInt64(index)))
        }
        await cluster.stopAll()
    }

    @Test("What another volume gives up is room for a replicated one, without its asking")
    func store_volumeDeleted_hasRoom() async throws {
        let cluster = try await ReplicatedCluster(
            replicaCount: 1,
            byteCount: 256 << 20,
            storeByteCounts: [96 << 20, 96 << 20, 96 << 20]
        )
        try await cluster.nodes[0].makeVolume("filler", id: 90, byteCount: 64 << 20)
        do {
            let filler = try cluster.nodes[0].client("filler")
            for index in 0..<40 { try filler.write(UInt64(index * Self.part), data(1)) }
        }
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        let count = try fill(client, countMax: 128)
        let last = UInt64(count * Self.part)
        #expect(
            try client.call(1, last, UInt64(Self.part), payload: data(2)).error == Self.noSpace
        )
        _ = try await cluster.nodes[0].node.perform(.deleteVolume(Self.filler))
        try await write(client, last, seed: 3)
        #expect(try client.read(last, Self.part) == data(3))
        await cluster.stopAll()
    }
}
