import BlockCore
import LogFormat
import LogStore
import StorageIO
import Testing

/// What rots behind the last checkpoint costs itself, and nothing that lies behind it.
@Suite struct StoreRotTests {
    private static var leafByteCount: UInt64 { 1 << 20 }
    /// More leaves than a checkpoint writes in a turn, and so more than one batch of them.
    private static var leafCount: Int { 200 }

    /// A block like no other: patterns repeat after 256 seeds.
    private static func block(_ seed: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: seed >> 8)] + StoreBench.pattern(seed, 4095)
    }

    /// A block in each of so many leaves.
    private func write(_ bench: StoreBench, _ volume: VolumeHandle, seed: Int) throws {
        for leaf in 0..<Self.leafCount {
            let bytes = Self.block(seed + leaf)
            let offset = UInt64(leaf) * Self.leafByteCount
            try #require(try bench.write(volume, at: offset, bytes) == .ok)
        }
    }

    private func close(_ bench: StoreBench) {
        bench.store.close()
        bench.pump { bench.store.state == .closed }
    }

    /// A store closed in order, and where its map's leaves are.
    private func makeClosed() throws -> (StoreBench, leaves: [UInt64]) {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 2 << 20)
        let byteCount = UInt64(Self.leafCount) * Self.leafByteCount
        _ = try bench.volume(1, byteCount: byteCount, block: 4096)
        // Twice: the last checkpoint goes on in the segments of the one before.
        for seed in [900, 0] {
            let volume = try #require(bench.store.openVolume(VolumeID(1)))
            try write(bench, volume, seed: seed)
            close(bench)
            if seed != 0 { try bench.crash() }
        }
        let surgery = StoreSurgery(image: bench.arena.region)
        let layer = try #require(try surgery.manifest().layers.first)
        let leaves = try (0..<Self.leafCount).map {
            try surgery.page(layer, level: 0, index: UInt64($0)).location
        }
        return (bench, leaves)
    }

    /// Opens the store, changes a page of another volume, and closes it: the checkpoint goes where
    /// the log was found to end.
    private func liveOnce(_ bench: StoreBench, _ id: UInt64) throws {
        try bench.crash()
        let other = try bench.volume(id, byteCount: 1 << 20)
        try #require(try bench.write(other, at: 0, Self.block(9)) == .ok)
        close(bench)
    }

    private func expectBlocks(
        _ bench: StoreBench,
        seed: Int,
        except: Set<Int> = []
    ) throws {
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        for leaf in 0..<Self.leafCount where !except.contains(leaf) {
            let found = try bench.read(volume, at: UInt64(leaf) * Self.leafByteCount, 4096)
            #expect(found == Self.block(seed + leaf), "leaf \(leaf)")
        }
    }

    private func status(_ bench: StoreBench, readingLeaf leaf: Int) throws -> StoreStatus {
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        let request = StoreRequest(
            kind: .read,
            volume: volume,
            offset: UInt64(leaf) * Self.leafByteCount,
            byteCount: 4096,
            region: bench.buffers.region.slice(0, 8192),
            token: 0
        )
        return try bench.run(request).status
    }

    @Test("A page of the last checkpoint that rotted costs what it names, and no page behind it")
    func checkpoint_pageRots_othersStay() throws {
        let (bench, leaves) = try makeClosed()
        try #require(Set(leaves).count == Self.leafCount)
        let rotten = try #require(leaves.indices.min { leaves[$0] < leaves[$1] })
        StoreSurgery(image: bench.arena.region).flip(Int(leaves[rotten]) * 4096)
        for id in 2...4 as ClosedRange<UInt64> { try liveOnce(bench, id) }
        try bench.crash()
        try expectBlocks(bench, seed: 0, except: [rotten])
        #expect(try status(bench, readingLeaf: rotten) == .mediaError)
    }

    @Test("A header of the last checkpoint that rotted costs nothing: pages are named elsewhere")
    func checkpoint_headerRots_nothingLost() throws {
        let (bench, leaves) = try makeClosed()
        let surgery = StoreSurgery(image: bench.arena.region)
        surgery.flip(Int(try surgery.header(of: try #require(leaves.min()))) * 4096)
        for id in 2...4 as ClosedRange<UInt64> {
            try liveOnce(bench, id)
            try bench.crash()
            try expectBlocks(bench, seed: 0)
        }
    }

    @Test("A block that rotted behind the checkpoint costs itself, and nothing flushed later")
    func log_blockRots_laterStays() throws {
        let (bench, _) = try makeClosed()
        try bench.crash()
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        for leaf in 0..<Self.leafCount {
            let bytes = Self.block(500 + leaf)
            let offset = UInt64(leaf) * Self.leafByteCount
            let status = try bench.write(volume, at: offset, bytes, flags: .forceUnitAccess)
            try #require(status == .ok)
        }
        let rotten = 17
        let bytes = Self.block(500 + rotten)
        StoreSurgery(image: bench.arena.region).flip(try #require(bench.location(of: bytes)) + 5)
        try bench.crash()
        try expectBlocks(bench, seed: 500, except: [rotten])
        #expect(try status(bench, readingLeaf: rotten) == .mediaError)
    }

    @Test("Without a batch that was durable the store does not open: it would take writes back")
    func log_headerRots_refused() throws {
        let (bench, _) = try makeClosed()
        try bench.crash()
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        var headers: [Int] = []
        for leaf in 0..<4 {
            let bytes = Self.block(500 + leaf)
            let offset = UInt64(leaf) * Self.leafByteCount
            let status = try bench.write(volume, at: offset, bytes, flags: .forceUnitAccess)
            try #require(status == .ok)
            headers.append(try #require(bench.location(of: bytes)) - 4096)
        }
        let surgery = StoreSurgery(image: bench.arena.region)
        surgery.flip(headers[1])
        let writtenBefore = bench.deviceWriteByteCount
        bench.reopen(bench.configuration)
        #expect(bench.store.state == .failed(.writesLost(offset: UInt64(headers[1]))))
        #expect(bench.deviceWriteByteCount == writtenBefore)

        // The last one may have been cut short: nothing says otherwise.
        surgery.flip(headers[1])
        surgery.flip(headers[3])
        bench.reopen(bench.configuration)
        #expect(bench.store.state == .ready)
    }

    @Test("With a batch of the checkpoint gone, what lies behind it is not taken back either")
    func checkpoint_headerRots_laterWriteRefused() throws {
        let (bench, _) = try makeClosed()
        try bench.crash()
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        // The first durable one behind the checkpoint: no header speaks of it.
        let status = try bench.write(volume, at: 0, Self.block(700), flags: .forceUnitAccess)
        try #require(status == .ok)
        let surgery = StoreSurgery(image: bench.arena.region)
        let manifest = try #require(try surgery.superblock().manifestExtents.last)
        let header = Int(try surgery.header(of: manifest.location)) * 4096
        surgery.flip(header)
        bench.reopen(bench.configuration)
        guard case .failed(.writesLost) = bench.store.state else {
            Issue.record("\(bench.store.state)")
            return
        }
        surgery.flip(header)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == Self.block(700))
    }

    @Test("Wherever in the log a header rots, what was flushed is not taken back without a word")
    func log_anyHeaderRots_refused() throws {
        let bench = try StoreBench(byteCount: 8 << 20, segmentByteCount: 64 << 10)
        let volume = try bench.volume(1, byteCount: 1 << 20, block: 4096)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        _ = volume
        let count = 40
        var headers: [Int] = []
        for index in 0...count {
            // None says of itself that it is durable; the one behind the flush says it of all.
            if index == count { try bench.flush(again) }
            let bytes = Self.block(index)
            try #require(try bench.write(again, at: UInt64(index) * 4096, bytes) == .ok)
            bench.settle(turnCount: 30)
            headers.append(try #require(bench.location(of: bytes)) - 4096)
        }
        try #require(headers.contains { ($0 - (1 << 20)) % (64 << 10) == 0 })
        let surgery = StoreSurgery(image: bench.arena.region)
        for header in headers.dropLast() {
            surgery.flip(header)
            bench.reopen(bench.configuration)
            #expect(bench.store.state == .failed(.writesLost(offset: UInt64(header))))
            surgery.flip(header)
        }
        var configuration = bench.configuration
        configuration.acceptsLoss = true
        surgery.flip(headers[7])
        bench.reopen(configuration)
        #expect(bench.store.state == .ready)
        #expect(bench.store.acceptedLossOffset == UInt64(headers[7]))
        let rest = try #require(bench.store.openVolume(VolumeID(1)))
        for index in 0...count {
            let found = try bench.read(rest, at: UInt64(index) * 4096, 4096)
            let expected = index < 7 ? Self.block(index) : [UInt8](repeating: 0, count: 4096)
            #expect(found == expected, "block \(index)")
        }
    }
}
