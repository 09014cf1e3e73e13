import BlockCore
import LogStore
import TestSupport
import Testing

@Suite(.background) struct StoreRecoveryTests {
    @Test("A store that replay does not fit into names the memory it needs, and loses nothing")
    func open_lessMapMemory_refusedUntilGivenWhatItNamed() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1, byteCount: 512 << 20, block: 4096)
        // A block in each MiB: as many map pages as blocks.
        let pageCount = 250
        for page in 0..<pageCount {
            let bytes = StoreBench.pattern(page, 4096)
            try #require(try bench.write(volume, at: UInt64(page) << 20, bytes) == .ok)
        }
        try bench.flush(volume)
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        bench.reopen(configuration)
        guard case .failed(.mapMemoryTooSmall(let need, let have)) = bench.store.state else {
            Issue.record("opened as \(bench.store.state)")
            return
        }
        #expect(have == LogStoreConfiguration.mapMemoryByteCountMin)
        configuration.mapMemoryByteCount = need
        bench.reopen(configuration)
        try #require(bench.store.state == .ready)
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        for page in 0..<pageCount {
            let bytes = try bench.read(again, at: UInt64(page) << 20, 4096)
            #expect(bytes == StoreBench.pattern(page, 4096))
        }
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A device with another store than the one expected is refused as it is")
    func open_wrongIdentity_writesNothing() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        let block = StoreBench.pattern(5, 4096)
        try #require(try bench.write(volume, at: 0, block) == .ok)
        try bench.flush(volume)
        let image = bench.arena.region.array()
        let other = [StoreIdentity(high: 1, low: 3), StoreIdentity(high: 2, low: 2)]
        for identity in other {
            bench.deviceWriteByteCount = 0
            bench.reopen(bench.configuration, identity: identity)
            #expect(bench.store.state == .failed(.wrongIdentity(found: StoreBench.identity)))
            // Nothing follows either: what replay would have written comes turns later.
            bench.settle()
            #expect(bench.deviceWriteByteCount == 0)
            #expect(bench.arena.region.array() == image)
        }
        bench.reopen(bench.configuration, identity: nil)
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == block)
    }

    @Test("Behind a gap the log goes on in its place, and what lay there never comes back")
    func open_gapInLog_goesOnThere() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1, block: 4096)
        let blocks = (0..<4).map { StoreBench.pattern($0 + 40, 4096) }
        for index in 0..<3 {
            try #require(try bench.write(volume, at: UInt64(index) * 4096, blocks[index]) == .ok)
            // Long enough for a batch of its own; nothing says that it is durable.
            bench.settle(turnCount: 30)
        }
        let gap = try #require(bench.location(of: blocks[1]))
        bench.arena.region.slice(gap, 4096).zero()
        try bench.crash()
        var again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == blocks[0])
        #expect(try bench.read(again, at: 4096, 8192).allSatisfy { $0 == 0 })
        try #require(try bench.write(again, at: 12_288, blocks[3]) == .ok)
        try bench.flush(again)
        #expect(bench.location(of: blocks[3]) == gap)
        try bench.crash()
        again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == blocks[0])
        #expect(try bench.read(again, at: 4096, 8192).allSatisfy { $0 == 0 })
        #expect(try bench.read(again, at: 12_288, 4096) == blocks[3])
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A store does not go back a checkpoint because the newest superblock cannot be read")
    func open_superblockUnreadable_refusedUntilItCan() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1, block: 4096)
        let block = StoreBench.pattern(8, 4096)
        try #require(try bench.write(volume, at: 0, block) == .ok)
        try bench.flush(volume)
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        for pair in [[0, 32_768], [65_536, 98_304]] as [Set<UInt64>] {
            bench.unreadableOffsets = pair
            bench.reopen(bench.configuration)
            #expect(bench.store.state == .failed(.deviceError(errno: 5)))
        }
        // One copy of each is enough.
        bench.unreadableOffsets = [0, 98_304]
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == block)
    }
}
