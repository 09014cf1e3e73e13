import BlockCore
import LogFormat
import LogStore
import StorageIO
import TestSupport
import Testing

@Suite(.background) struct StoreRoomTests {
    @Test("Where damage keeps the cleaner from making room, writes are refused and never wait")
    func overwrite_damagedSegments_refusedNotStuck() throws {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 256 << 10)
        let (volume, blockCount) = try bench.filledVolume(1, percent: 85)
        try bench.flush(volume)
        try bench.crash()
        // A block in each 256 KiB rots: no segment can be emptied.
        let rotten = StoreBench.pattern(2, 4096)
        let data = StoreBench.pattern(1, 1 << 20)
        let marked = Set(
            stride(from: 0, to: 1 << 20, by: 256 << 10).map { Array(data[$0..<($0 + 4096)]) }
        )
        for offset in stride(from: 1 << 20, to: bench.arena.region.byteCount, by: 4096) {
            let place = bench.arena.region.slice(offset, 4096)
            if marked.contains(place.array()) { place.copy(from: rotten) }
        }
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        let block = StoreBench.pattern(3, 4096)
        var refusedCount = 0
        for step in 0..<(2 * blockCount) {
            let offset = UInt64(step * 7919 % blockCount) * 4096
            switch try bench.write(again, at: offset, block) {
            case .ok: break
            case .noSpace: refusedCount += 1
            case let status: Issue.record("a write ended with \(status)")
            }
            if refusedCount > 100 { break }
        }
        #expect(refusedCount > 0)
        // What is given up makes room again, and reads go on.
        try #require(try bench.change(.trim, again, 0, UInt64(blockCount / 2) * 4096) == .ok)
        bench.settle()
        #expect(try bench.write(again, at: 0, block) == .ok)
        #expect(try bench.read(again, at: 0, 4096) == block)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A trim behind a write that waits for room makes that room: the write is not refused")
    func trim_behindWriteWithoutRoom_makesRoomForIt() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        let bench = try StoreBench(
            byteCount: 64 << 20,
            segmentByteCount: 256 << 10,
            configuration: configuration
        )
        // A block of each leaf in turn, so that every segment has blocks of most leaves; of more
        // leaves than may be dirty at once, so that the trim waits for a checkpoint.
        let leafCount = 100
        let trimmed = UInt64(leafCount) << 20
        let volume = try bench.volume(1, byteCount: trimmed + 1 << 20, block: 4096)
        let block = StoreBench.pattern(1, 4096)
        let write = { (index: Int) in
            let offset = UInt64(index % leafCount) << 20 | UInt64(index / leafCount) << 12
            return try bench.write(volume, at: offset, block)
        }
        for index in 0..<110 * leafCount { try #require(try write(index) == .ok) }
        // The cleaner cannot read where segments begin: trims alone make room.
        bench.unreadableOffsets = Set(stride(from: 1 << 20, to: 64 << 20, by: 256 << 10))
        var step = 0
        repeat { step += 1 } while try write(step * 7919 % (110 * leafCount)) == .ok
        bench.store.submit(
            StoreRequest(
                kind: .write,
                volume: volume,
                offset: trimmed,
                byteCount: 1 << 20,
                region: bench.buffers.region.slice(0, 1 << 20),
                token: 1_000_001
            )
        )
        bench.store.submit(
            StoreRequest(
                kind: .trim,
                volume: volume,
                offset: 0,
                byteCount: trimmed,
                token: 1_000_002
            )
        )
        bench.pump { bench.ended[1_000_001] != nil && bench.ended[1_000_002] != nil }
        #expect(bench.ended[1_000_001]?.status == .ok)
        #expect(bench.ended[1_000_002]?.status == .ok)
        #expect(bench.store.brokenInvariant() == nil)
    }

    /// Fills a volume until the store takes no more; returns the first MiB that was refused.
    private func fill(_ bench: StoreBench, _ volume: VolumeHandle) throws -> UInt64 {
        let data = StoreBench.pattern(4, 1 << 20)
        for index in 0..<(1 << 20) as Range<UInt64> {
            let status = try bench.write(volume, at: index << 20, data)
            if status == .noSpace { return index }
            try #require(status == .ok)
        }
        return 1 << 20
    }

    @Test("Writes that a full store refuses take no room, however many places they go to")
    func write_fullStoreManyPlaces_refusedAndNothingLost() throws {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 1 << 40, block: 4096)
        let first = try fill(bench, volume)
        let block = StoreBench.pattern(5, 4096)
        var refusedCount = 0
        for index in 1...20_000 as ClosedRange<UInt64> {
            let status = try bench.write(volume, at: (first + index) << 20, block)
            if status == .noSpace { refusedCount += 1 }
        }
        bench.settle()
        #expect(refusedCount > 19_000)
        // The pages of one interval come on top.
        let space = bench.store.space
        #expect(space.liveByteCount <= space.capacityByteCount + (2 << 20))
        #expect(try bench.write(volume, at: 0, block) == .ok)
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, 4096) == block)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("Zeroes that must keep their blocks end in ENOSPC where their map does not fit")
    func writeZeroes_mapLargerThanStore_refused() throws {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 1 << 40, block: 4096)
        let other = try bench.volume(2)
        let completion = try bench.run(
            StoreRequest(
                kind: .writeZeroes,
                volume: volume,
                offset: 0,
                byteCount: 1 << 40,
                flags: [.noHole],
                token: 0
            )
        )
        #expect(completion.status == .noSpace)
        // It may have taken all the room there is, but the store works, also after a crash.
        bench.settle()
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        _ = other
        #expect(try bench.change(.trim, again, 0, 1 << 40) == .ok)
        bench.settle()
        let second = try #require(bench.store.openVolume(VolumeID(2)))
        let block = StoreBench.pattern(6, 4096)
        #expect(try bench.write(second, at: 0, block) == .ok)
        #expect(try bench.read(second, at: 0, 4096) == block)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A trim not on block bounds over blocks that are there fits into a full store")
    func trim_unalignedInFullStore_fits() throws {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 1 << 40, block: 512)
        _ = try fill(bench, volume)
        #expect(try bench.change(.trim, volume, 512, 8192) == .ok)
        let bytes = try bench.read(volume, at: 0, 12_288)
        let old = StoreBench.pattern(4, 1 << 20)
        #expect(Array(bytes[0..<512]) == Array(old[0..<512]))
        #expect(bytes[512..<8704].allSatisfy { $0 == 0 })
        #expect(Array(bytes[8704...]) == Array(old[8704..<12_288]))
    }

    @Test("A cache request over all of an empty volume of the largest size ends at once")
    func cache_sparseVolume_ends() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1, byteCount: 64 << 40, block: 4096)
        let block = StoreBench.pattern(7, 4096)
        for index in 0..<8 as Range<UInt64> {
            try #require(try bench.write(volume, at: index << 43, block) == .ok)
        }
        #expect(try bench.change(.cache, volume, 0, 64 << 40) == .ok)
    }

    /// Puts a manifest that says something else in the place of the newest checkpoint's.
    ///
    /// - Parameters:
    ///   - bench: A store that is closed.
    ///   - change: What it says instead, in as many bytes.
    /// - Throws: When there is no manifest, or what it says instead takes another size.
    private func forgeManifest(
        _ bench: StoreBench,
        _ change: (inout Manifest, Superblock) -> Void
    ) throws {
        let device = bench.arena.region
        let found = Superblock.slotOffsets.compactMap {
            try? Superblock.decode(device.slice(Int($0), 4096))
        }
        var superblock = try #require(found.max { $0.generation < $1.generation })
        let extents = superblock.manifestExtents
        var bytes = extents.flatMap {
            device.slice(Int($0.location) * 4096, Int($0.blockCount) * 4096).array()
        }
        bytes.removeLast(bytes.count - Int(superblock.manifestByteCount))
        var manifest = try Manifest.decode(bytes, segmentCount: superblock.segmentCount)
        change(&manifest, superblock)
        bytes = manifest.encode()
        try #require(bytes.count == superblock.manifestByteCount)
        var offset = 0
        for extent in extents {
            let count = min(Int(extent.blockCount) * 4096, bytes.count - offset)
            device.copy(
                from: Array(bytes[offset..<(offset + count)]),
                at: Int(extent.location) * 4096
            )
            offset += count
        }
        let copy = bench.buffers.region.slice(0, bytes.count)
        copy.copy(from: bytes)
        superblock.manifestCRC = copy.crc32c()
        superblock.generation += 1
        for slot in Superblock.slots(generation: superblock.generation) {
            superblock.encode(into: device.slice(Int(Superblock.slotOffsets[slot]), 4096))
        }
    }

    /// Has the newest checkpoint count all blocks of a segment as live, but where the log goes on:
    /// as a store would that forgot to give anything back.
    private func leakEverything(_ bench: StoreBench) throws {
        try forgeManifest(bench) { manifest, superblock in
            let heads = Set(manifest.replayStarts.filter { $0.blockOffset > 0 }.map(\.segment))
            for segment in manifest.usage.indices where !heads.contains(UInt32(segment)) {
                manifest.usage[segment].liveBlockCount = superblock.segmentByteCount / 4096
            }
        }
    }

    @Test("A manifest that counts more live blocks than a segment has is refused as damaged")
    func open_moreLiveBlocksThanThereAre_refused() throws {
        for excess in [0, 1] as [UInt32] {
            let bench = try StoreBench(byteCount: 4 << 20, segmentByteCount: 64 << 10)
            bench.store.close()
            bench.pump { bench.store.state == .closed }
            var manifestOffset: UInt64 = 0
            try forgeManifest(bench) { manifest, superblock in
                let blockCount = superblock.segmentByteCount / 4096
                manifest.usage[manifest.usage.count - 1].liveBlockCount = blockCount + excess
                manifestOffset = (superblock.manifestExtents.first?.location ?? 0) * 4096
            }
            bench.reopen(bench.configuration)
            let isRefused = bench.store.state == .failed(.corrupt(offset: manifestOffset))
            #expect(isRefused == (excess > 0), "\(bench.store.state)")
        }
    }

    @Test("Fewer live blocks counted than there are is damage when it shows, and no trap")
    func write_fewerLiveBlocksCounted_stops() throws {
        let bench = try StoreBench(byteCount: 4 << 20, segmentByteCount: 64 << 10)
        let volume = try bench.volume(1, byteCount: 1 << 20, block: 4096)
        try #require(try bench.write(volume, at: 0, StoreBench.pattern(1, 32_768)) == .ok)
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        try forgeManifest(bench) { manifest, _ in
            for index in manifest.usage.indices { manifest.usage[index].liveBlockCount = 0 }
            for index in manifest.layers.indices { manifest.layers[index].ownBlockCount = 0 }
        }
        bench.reopen(bench.configuration)
        if let again = bench.store.openVolume(VolumeID(1)) {
            _ = try bench.write(again, at: 0, StoreBench.pattern(2, 32_768))
            bench.settle()
        }
        guard case .failed(.corrupt) = bench.store.state else {
            Issue.record("\(bench.store.state)")
            return
        }
    }

    @Test("A layer that stands on nothing is damage, and nothing is taken out of the store for it")
    func open_layerWithoutParent_refused() throws {
        let bench = try StoreBench(byteCount: 4 << 20, segmentByteCount: 64 << 10)
        _ = try bench.volume(1, byteCount: 1 << 20, block: 4096)
        _ = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        var manifestOffset: UInt64 = 0
        try forgeManifest(bench) { manifest, superblock in
            for index in manifest.layers.indices where manifest.layers[index].parent != .none {
                manifest.layers[index].parent = LayerID(77)
            }
            manifestOffset = (superblock.manifestExtents.first?.location ?? 0) * 4096
        }
        bench.reopen(bench.configuration)
        #expect(bench.store.state == .failed(.corrupt(offset: manifestOffset)))
    }

    @Test("A catalogue that no manifest could say takes no more, and what it has can be opened")
    func createVolume_manifestFull_refused() throws {
        let bench = try StoreBench(byteCount: 96 << 20, segmentByteCount: 64 << 10)
        var createdCount: UInt64 = 0
        var refusal: StoreCommandError?
        while refusal == nil, createdCount < 20_000 {
            var specification = VolumeSpecification(
                id: VolumeID(createdCount + 1),
                name: "large\(createdCount)",
                byteCount: 1 << 20
            )
            specification.descriptor = StoreBench.pattern(1, 2048)
            do {
                _ = try bench.command(.createVolume(specification))
                createdCount += 1
            } catch let error as StoreCommandError {
                refusal = error
            }
        }
        #expect(refusal == .tooMany)
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        bench.reopen(bench.configuration)
        #expect(bench.store.state == .ready)
        #expect(bench.store.volumes().count == Int(createdCount))
    }

    @Test("Segments too small for so large a device are refused, those that just fit can be used")
    func format_manySegments_refused() throws {
        func plan(_ byteCount: UInt64) throws(StoreFormatError) -> Int {
            let geometry = DeviceGeometry(byteCount: byteCount)
            let identity = StoreIdentity(high: 1, low: 2)
            return try StoreFormat.plan(
                identity: identity,
                geometry: geometry,
                segmentByteCount: 64 << 10
            ).count
        }
        #expect(throws: StoreFormatError.tooManySegments(segmentByteCountMin: 512 << 10)) {
            try plan(1 << 40)
        }
        #expect(try plan(16 << 30) > 0)
    }

    @Test("A checkpoint that finds no room stops the store, while it serves and while it opens")
    func checkpoint_noSegmentLeft_storeStops() throws {
        let block = StoreBench.pattern(7, 4096)
        /// Opens and closes a store with so many more volumes until it stops; whether it was open.
        func wasOpen(volumeCount: UInt64) throws -> Bool? {
            let bench = try StoreBench(byteCount: 4 << 20, segmentByteCount: 64 << 10)
            let volume = try bench.volume(1, byteCount: 1 << 20, block: 4096)
            try #require(try bench.write(volume, at: 0, block) == .ok)
            for id in 2..<(2 + volumeCount) {
                var specification = VolumeSpecification(
                    id: VolumeID(id),
                    name: "large\(id)",
                    byteCount: 1 << 20
                )
                specification.descriptor = StoreBench.pattern(1, 2048)
                _ = try bench.command(.createVolume(specification))
            }
            bench.store.close()
            bench.pump { bench.store.state == .closed }
            try leakEverything(bench)
            for _ in 0..<16 {
                bench.reopen(bench.configuration)
                if bench.store.state == .failed(.noRoom) { return false }
                try #require(bench.store.state == .ready)
                let again = try #require(bench.store.openVolume(VolumeID(1)))
                bench.store.close()
                bench.pump { bench.store.state != .closing }
                if bench.store.state == .closed { continue }
                try #require(bench.store.state == .failed(.noRoom))
                // Reads go on; nothing is promised any more.
                #expect(try bench.read(again, at: 0, 4096) == block)
                #expect(try bench.write(again, at: 0, block) == .unavailable)
                #expect(try bench.change(.flush, again, 0, 0) == .unavailable)
                #expect(throws: StoreCommandError.unavailable) {
                    try bench.command(.deleteVolume(VolumeID(1)))
                }
                return true
            }
            return nil
        }
        // The more volumes, the larger the manifest that has to fit behind the one before.
        let outcomes = try (0...6).map { try wasOpen(volumeCount: $0) }
        #expect(outcomes.contains(true))
        #expect(outcomes.contains(false))
        #expect(!outcomes.contains(nil))
    }
}
