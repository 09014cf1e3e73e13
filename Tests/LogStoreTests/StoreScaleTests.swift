import BlockCore
import LogStore
import StorageIO
import TestSupport
import Testing

/// Behaviour that must not depend on size, judged by counts and never by time.
@Suite(.background) struct StoreScaleTests {
    static var tinyMap: LogStoreConfiguration {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = 128 * 4096
        configuration.checkpointByteCount = 4 << 20
        return configuration
    }

    @Test("A volume whose map is eight times the map memory is served whole")
    func map_eightTimesMemory_served() throws {
        // 128 pages in memory; 1,100 leaves of 1 MiB on the volume.
        let bench = try StoreBench(byteCount: 64 << 20, configuration: Self.tinyMap)
        let volume = try bench.volume(1, byteCount: 1100 << 20, block: 4096)
        for leaf in 0..<1100 {
            let offset = UInt64(leaf) << 20 | UInt64(leaf % 256) << 12
            #expect(try bench.write(volume, at: offset, StoreBench.pattern(leaf, 4096)) == .ok)
        }
        try bench.flush(volume)
        for leaf in stride(from: 1099, through: 0, by: -7) {
            let offset = UInt64(leaf) << 20 | UInt64(leaf % 256) << 12
            #expect(try bench.read(volume, at: offset, 4096) == StoreBench.pattern(leaf, 4096))
        }
        #expect(bench.store.counters.mapPageReadCount > 100)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        for leaf in stride(from: 3, to: 1100, by: 11) {
            let offset = UInt64(leaf) << 20 | UInt64(leaf % 256) << 12
            #expect(try bench.read(again, at: offset, 4096) == StoreBench.pattern(leaf, 4096))
        }
    }

    @Test("A read below a thousand snapshots costs one device read, as below none")
    func read_thousandSnapshots_oneDeviceRead() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = 32 << 20
        configuration.cacheMemoryByteCount = 0
        let bench = try StoreBench(byteCount: 128 << 20, configuration: configuration)
        let volume = try bench.volume(1, byteCount: 64 << 20, block: 4096)
        #expect(try bench.write(volume, at: 0, StoreBench.pattern(1, 256 << 10)) == .ok)
        for round in 0..<1000 {
            let offset = UInt64(round % 64 + 64) * 4096
            #expect(try bench.write(volume, at: offset, StoreBench.pattern(round, 4096)) == .ok)
            _ = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s\(round)"))
        }
        try bench.flush(volume)
        bench.settle()
        #expect(try bench.read(volume, at: 0, 4096) == Array(StoreBench.pattern(1, 4096)))
        let before = bench.deviceReadCount
        for block in 1..<33 {
            _ = try bench.read(volume, at: UInt64(block) * 4096, 4096)
        }
        #expect(bench.deviceReadCount - before == 32)
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 1001)
    }

    @Test("A snapshot and a clone write a handful of blocks whatever the volume holds")
    func snapshotClone_fullVolume_fewBytes() throws {
        let bench = try StoreBench(byteCount: 64 << 20)
        let volume = try bench.volume(1, byteCount: 32 << 20, block: 4096)
        for part in 0..<16 {
            let bytes = StoreBench.pattern(part, 1 << 20)
            #expect(try bench.write(volume, at: UInt64(part) << 20, bytes) == .ok)
        }
        try bench.flush(volume)
        bench.settle()
        let before = bench.deviceWriteByteCount
        let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        let clone = VolumeSpecification(id: VolumeID(2), name: "c", byteCount: 32 << 20)
        _ = try bench.command(.cloneSnapshot(layer: made.layer, clone))
        #expect(bench.deviceWriteByteCount - before <= 8 * 4096)
    }

    @Test("The first write to a fresh clone reads nothing, like the hundredth")
    func firstWrite_freshClone_readsNothing() throws {
        let bench = try StoreBench(byteCount: 64 << 20)
        let volume = try bench.volume(1, byteCount: 16 << 20, block: 4096)
        #expect(try bench.write(volume, at: 0, StoreBench.pattern(1, 2 << 20)) == .ok)
        let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        let clone = VolumeSpecification(id: VolumeID(2), name: "c", byteCount: 16 << 20)
        _ = try bench.command(.cloneSnapshot(layer: made.layer, clone))
        let handle = try #require(bench.store.openVolume(VolumeID(2)))
        let before = bench.deviceReadCount
        for step in 0..<100 {
            let offset = UInt64(step * 7 % 512) * 4096
            #expect(try bench.write(handle, at: offset, StoreBench.pattern(step, 4096)) == .ok)
        }
        #expect(bench.deviceReadCount == before)
    }

    @Test("Opening reads in proportion to the log behind the checkpoint, not to the device")
    func open_largeDevice_fewReads() throws {
        var reads: [Int] = []
        for byteCount in [64 << 20, 512 << 20] {
            let bench = try StoreBench(byteCount: byteCount, segmentByteCount: 1 << 20)
            let volume = try bench.volume(1, byteCount: 16 << 20, block: 4096)
            for step in 0..<500 {
                let offset = UInt64(step &* 7919 % 4096) * 4096
                let bytes = StoreBench.pattern(step, 4096)
                #expect(try bench.write(volume, at: offset, bytes) == .ok)
            }
            try bench.flush(volume)
            let before = bench.deviceReadCount
            try bench.crash()
            reads.append(bench.deviceReadCount - before)
        }
        #expect(reads[1] <= reads[0] * 2)
    }

    @Test("Batching a thousand writes costs little more than their payload")
    func writes_batched_smallOverhead() throws {
        let bench = try StoreBench(byteCount: 64 << 20)
        let volume = try bench.volume(1, byteCount: 16 << 20, block: 4096)
        bench.settle()
        let before = bench.store.counters
        for step in 0..<1000 {
            let region = bench.buffers.region.slice(0, 4096)
            region.copy(from: StoreBench.pattern(step, 4096))
            bench.nextToken += 1
            bench.store.submit(
                StoreRequest(
                    kind: .write,
                    volume: volume,
                    offset: UInt64(step) * 4096,
                    byteCount: 4096,
                    region: region,
                    token: bench.nextToken
                )
            )
            if step % 32 == 31 {
                let token = bench.nextToken
                bench.pump { bench.ended[token] != nil }
            }
        }
        try bench.flush(volume)
        let after = bench.store.counters
        let written = after.batchByteCount - before.batchByteCount
        #expect(after.dataByteCount - before.dataByteCount == 1000 * 4096)
        #expect(Double(written) <= 1.1 * 1000 * 4096)
    }

    @Test("Shrinking gives the tail up: grown again, it reads as zero")
    func resize_shrinkGrow_tailIsZero() throws {
        let bench = try StoreBench(byteCount: 64 << 20)
        var volume = try bench.volume(1, byteCount: 8 << 20, block: 4096)
        #expect(try bench.write(volume, at: 0, StoreBench.pattern(5, 4 << 20)) == .ok)
        _ = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        #expect(try bench.write(volume, at: 2 << 20, StoreBench.pattern(6, 1 << 20)) == .ok)
        bench.store.closeVolume(volume)
        _ = try bench.command(.resizeVolume(VolumeID(1), byteCount: 1 << 20))
        volume = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(bench.store.volume(VolumeID(1))?.specification.byteCount == 1 << 20)
        _ = try bench.command(.resizeVolume(VolumeID(1), byteCount: 512 << 20))
        let kept = try bench.read(volume, at: 0, 1 << 20)
        #expect(kept == Array(StoreBench.pattern(5, 4 << 20)[0..<(1 << 20)]))
        for part in 1..<8 {
            let tail = try bench.read(volume, at: UInt64(part) << 20, 1 << 20)
            #expect(tail.allSatisfy { $0 == 0 })
        }
        let bytes = StoreBench.pattern(7, 4096)
        #expect(try bench.write(volume, at: 500 << 20, bytes) == .ok)
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 500 << 20, 4096) == bytes)
        #expect(try bench.read(again, at: 2 << 20, 4096).allSatisfy { $0 == 0 })
    }

    @Test("A volume is not shrunk under those who have it open, nor opened while it is")
    func resize_shrinkWithWriters_losesNoWrite() throws {
        let bench = try StoreBench(byteCount: 64 << 20)
        var volume = try bench.volume(1, byteCount: 64 << 20, block: 4096)
        // A block in each leaf of the map: giving them up takes many turns.
        for part in 0..<32 {
            let bytes = StoreBench.pattern(part, 4096)
            try #require(try bench.write(volume, at: UInt64(part) << 21, bytes) == .ok)
        }
        let shrink = StoreCommand.resizeVolume(VolumeID(1), byteCount: 4096)
        #expect(throws: StoreCommandError.inUse) { try bench.command(shrink) }
        for part in 0..<32 {
            #expect(
                try bench.read(volume, at: UInt64(part) << 21, 4096)
                    == StoreBench.pattern(part, 4096)
            )
        }
        // Growing is seen by those who have it open.
        _ = try bench.command(.resizeVolume(VolumeID(1), byteCount: 65 << 20))
        try #require(try bench.write(volume, at: 64 << 20, StoreBench.pattern(99, 4096)) == .ok)
        // Pages that have to be read make the shrink wait for the device.
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        try bench.crash()
        let sealed = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s")).layer
        bench.store.submit(shrink, token: 7)
        var refusedCount = 0
        bench.pump(requestsPerTurn: 1) {
            guard bench.endedCommands[7] == nil else { return true }
            guard let early = bench.store.openVolume(VolumeID(1)) else {
                refusedCount += 1
                return false
            }
            // Too early to have begun, or so late that the new size holds already.
            let status = bench.store.specification(of: VolumeID(1))?.byteCount
            #expect(status == 4096 || refusedCount == 0)
            bench.store.closeVolume(early)
            return false
        }
        _ = try #require(bench.endedCommands[7]).get()
        #expect(refusedCount > 1)
        let snapshot = try #require(bench.store.openVolume(VolumeID(1), layer: sealed))
        #expect(try bench.read(snapshot, at: 2 << 20, 4096) == StoreBench.pattern(1, 4096))
        _ = try bench.command(.resizeVolume(VolumeID(1), byteCount: 64 << 20))
        volume = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(volume, at: 0, 4096) == StoreBench.pattern(0, 4096))
        for part in 1..<32 {
            #expect(try bench.read(volume, at: UInt64(part) << 21, 4096).allSatisfy { $0 == 0 })
        }
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test(
        "A store nearly full goes on taking overwrites",
        arguments: [(50, 1.7), (70, 2.4), (90, 4.6)]
    )
    func overwrite_nearlyFull_goesOnAtBoundedCost(percent: Int, costMax: Double) throws {
        let bench = try StoreBench(byteCount: 192 << 20, segmentByteCount: 256 << 10)
        let (volume, blockCount) = try bench.filledVolume(1, percent: percent)
        let block = StoreBench.pattern(2, 4096)
        var random: UInt64 = 1
        func overwriteOnce() throws {
            for _ in 0..<blockCount {
                random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                let offset = (random >> 33) % UInt64(blockCount) * 4096
                try #require(try bench.write(volume, at: offset, block) == .ok)
            }
        }
        try overwriteOnce()
        let before = bench.deviceWriteByteCount
        try overwriteOnce()
        let written = Double(bench.deviceWriteByteCount - before)
        // Measured: 1.4, 2.0 and 3.8 bytes on the device per byte written.
        #expect(written / Double(blockCount * 4096) < costMax)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test(
        "Cleaning with time for it leaves alone what is overwritten soon",
        arguments: [(80, 2.5), (90, 3.7)]
    )
    func overwrite_hotTenthWithPauses_goesOnAtBoundedCost(percent: Int, costMax: Double) throws {
        let bench = try StoreBench(byteCount: 96 << 20, segmentByteCount: 256 << 10)
        let (volume, blockCount) = try bench.filledVolume(1, percent: percent)
        let block = StoreBench.pattern(2, 4096)
        var random = SplitMix(seed: 1)
        // Nine of ten writes go to a tenth of the blocks, which lie between the others.
        func overwriteOnce() throws {
            for step in 0..<blockCount {
                let place =
                    random.next(below: 10) > 0
                    ? random.next(below: UInt64(blockCount / 10)) * 10
                    : random.next(below: UInt64(blockCount))
                try #require(try bench.write(volume, at: place * 4096, block) == .ok)
                // Nobody waits while it cleans.
                if step % 200 == 0 { bench.settle(turnCount: 400) }
            }
        }
        try overwriteOnce()
        let before = bench.deviceWriteByteCount
        try overwriteOnce()
        try overwriteOnce()
        let written = Double(bench.deviceWriteByteCount - before)
        let cost = written / Double(2 * blockCount * 4096)
        // Measured: 2.2 and 3.1; without regard to age 3.1 and 4.8.
        #expect(cost < costMax)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A hot corner of a volume whose cold rest has little garbage goes on taking overwrites")
    func overwrite_hotCornerOfColdVolume_neverRefused() throws {
        let bench = try StoreBench(byteCount: 128 << 20, segmentByteCount: 256 << 10)
        let (volume, blockCount) = try bench.filledVolume(1, percent: 92)
        // Two blocks of each old segment die: cold victims that give nearly nothing.
        for block in stride(from: 5, to: blockCount, by: 31) {
            try #require(try bench.change(.trim, volume, UInt64(block) * 4096, 4096) == .ok)
        }
        let block = StoreBench.pattern(2, 4096)
        var random: UInt64 = 7
        for _ in 0..<20_000 {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let offset = (random >> 33) % 4096 * 4096
            try #require(try bench.write(volume, at: offset, block) == .ok)
        }
        #expect(bench.store.counters.cleanedSegmentCount > 0)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("Many writes across block boundaries at once all end, however few old copies fit")
    func write_manyStraddling_allEnd() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.requestCountMax = 1024
        let bench = try StoreBench(configuration: configuration)
        let volume = try bench.volume(1)
        for index in 0..<8 {
            let fill = StoreBench.pattern(index, 1 << 20)
            try #require(try bench.write(volume, at: UInt64(index) << 20, fill) == .ok)
        }
        try bench.flush(volume)
        let region = bench.buffers.region.slice(0, 4096)
        region.copy(from: StoreBench.pattern(9, 4096))
        // More than the store has room for old copies, each wanting two.
        for index in 0..<600 {
            bench.store.submit(
                StoreRequest(
                    kind: .write,
                    volume: volume,
                    offset: UInt64(index) * 8192 + 2048,
                    byteCount: 4096,
                    region: region,
                    token: UInt64(1_000_000 + index)
                )
            )
        }
        bench.pump { bench.ended.keys.filter { $0 >= 1_000_000 }.count == 600 }
        for index in 0..<600 {
            #expect(bench.ended[UInt64(1_000_000 + index)]?.status == .ok)
        }
    }
}
