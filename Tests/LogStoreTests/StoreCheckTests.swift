import BlockCore
import LogFormat
import LogStore
import StorageIO
import TestSupport
import Testing

@Suite(.background) struct StoreCheckTests {
    /// A store with volumes, snapshots and clones, not closed.
    private func makeStore() throws -> StoreBench {
        let bench = try StoreBench(byteCount: 24 << 20, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 8 << 20)
        for step in 0..<3000 {
            let offset = (step &* 7919) % 1024 * 4096
            let bytes = StoreBench.pattern(step, 4096)
            try #require(try bench.write(volume, at: UInt64(offset), bytes) == .ok)
            if step % 700 == 699 {
                let name = "s\(step)"
                let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: name))
                let clone = VolumeSpecification(
                    id: VolumeID(UInt64(step)),
                    name: "clone\(step)",
                    byteCount: 8 << 20
                )
                _ = try bench.command(.cloneSnapshot(layer: made.layer, clone))
            }
        }
        try bench.flush(volume)
        return bench
    }

    private func check(
        _ bench: StoreBench,
        _ configuration: LogStoreConfiguration? = nil,
        unreadable: UInt64? = nil
    ) -> StoreCheckReport {
        let image = bench.arena.region
        var check = StoreCheck(
            geometry: DeviceGeometry(byteCount: UInt64(image.byteCount)),
            configuration: configuration ?? bench.configuration
        ) { offset, region in
            if let unreadable, unreadable >= offset,
                unreadable < offset + UInt64(region.byteCount)
            {
                return 5
            }
            region.copy(from: image.slice(Int(offset), region.byteCount))
            return 0
        }
        return check.run()
    }

    @Test("A store that was not closed checks clean after its log is replayed")
    func check_uncleanStore_noProblems() throws {
        let bench = try makeStore()
        let report = check(bench)
        #expect(report.problems == [])
        #expect(report.volumeCount == 5)
        #expect(report.blockCount > 1024)
        #expect(report.pageCount > 4)
    }

    @Test("A single flipped bit in a live block is found where it is")
    func check_flippedBit_found() throws {
        let bench = try makeStore()
        bench.store.close()
        bench.pump { bench.store.state == .closed }
        // Flip one bit in every block of a segment: the live ones must be reported.
        let start = (1 << 20) + 4 * (256 << 10)
        for block in 0..<64 {
            let offset = start + block * 4096 + 100
            let byte = bench.arena.region.load(offset, as: UInt8.self)
            bench.arena.region.store(byte ^ 4, at: offset)
        }
        let report = check(bench)
        #expect(report.problemCount > 0)
        for problem in report.problems {
            switch problem {
            case .blockDamaged(_, _, let offset), .pageDamaged(_, _, _, let offset),
                .manifestDamaged(let offset):
                #expect(offset >= UInt64(start) && offset < UInt64(start + 64 * 4096))
            case .headerDamaged(let offset):
                #expect(offset >= UInt64(start) && offset < UInt64(start + 64 * 4096))
            case .cannotOpen, .layerCountWrong, .usageWrong: break
            default: Issue.record("unexpected problem \(problem)")
            }
        }
    }

    @Test("A rotten superblock is damage, whatever version it seems to have")
    func check_rottenVersion_otherSlotsCount() throws {
        let bench = try StoreBench()
        for slot in [0, 65_536] { bench.arena.region.store(99 as UInt32, at: slot + 12) }
        try bench.crash()
        #expect(bench.store.identity == StoreBench.identity)
    }

    @Test("A store of the version before is refused by its name, and nothing is written to it")
    func open_versionBefore_refused() throws {
        let bench = try StoreBench()
        for slot in [0, 32_768, 65_536, 98_304] {
            let block = bench.arena.region.slice(slot, 4096)
            block.store(2 as UInt32, at: 12)
            block.store(0 as UInt32, at: 8)
            block.store(block.crc32c(), at: 8)
        }
        let image = bench.arena.region.array()
        bench.reopen(bench.configuration)
        let refusal = StoreError.versionTooOld(found: 2, supported: 3)
        #expect(bench.store.state == .failed(refusal))
        #expect(check(bench).problems == [.unusable(refusal)])
        #expect(bench.arena.region.array() == image)
    }

    @Test("A device without a store, and one from the future, are told apart")
    func check_foreignDevice_said() throws {
        let arena = MemoryArena(byteCount: 2 << 20)
        var foreign = StoreCheck(geometry: DeviceGeometry(byteCount: 2 << 20)) { offset, region in
            region.copy(from: arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        #expect(foreign.run().problems == [.unusable(.notAStore)])
        let bench = try StoreBench()
        for slot in [0, 32_768, 65_536, 98_304] {
            let block = bench.arena.region.slice(slot, 4096)
            block.store(99 as UInt32, at: 12)
            block.store(0 as UInt32, at: 8)
            block.store(block.crc32c(), at: 8)
        }
        #expect(
            check(bench).problems == [.unusable(.versionTooNew(found: 99, supported: 3))]
        )
    }

    @Test("Progress goes through replay, blocks and log, each to its end")
    func check_progress_toTheEnd() throws {
        let bench = try makeStore()
        let image = bench.arena.region
        var phases: [StoreCheckPhase] = []
        var ends: [StoreCheckPhase: Bool] = [:]
        var check = StoreCheck(
            geometry: DeviceGeometry(byteCount: UInt64(image.byteCount)),
            configuration: StoreBench.smallConfiguration
        ) { offset, region in
            region.copy(from: image.slice(Int(offset), region.byteCount))
            return 0
        } progress: { phase, done, total in
            if phases.last != phase { phases.append(phase) }
            ends[phase] = done == total
        }
        #expect(check.run().problems == [])
        #expect(phases == [.replay, .blocks, .log])
        #expect(ends == [.replay: true, .blocks: true, .log: true])
        withExtendedLifetime(bench) {}
    }

    // MARK: - Superblocks after a crash

    @Test("What a superblock's write that was cut short leaves is a note, and opening mends it")
    func check_superblockCutShort_noted() throws {
        let bench = try makeStore()
        let surgery = StoreSurgery(image: bench.arena.region)
        let newest = Superblock.slots(generation: try surgery.superblock().generation)
            .map { Superblock.slotOffsets[$0] }
        surgery.flip(Int(newest[1]) + 60)
        let report = check(bench)
        #expect(report.problems == [])
        #expect(report.notes == [.superblockCopyMissing(offset: newest[1])])
        // One copy may also be of the generation before the last.
        let older = try surgery.superblock()
        var stale = older
        stale.generation -= 2
        stale.encode(into: bench.arena.region.slice(Int(newest[1]), 4096))
        #expect(check(bench).notes == [.superblockCopyMissing(offset: newest[1])])
        try bench.crash()
        let mended = check(bench)
        #expect(mended.problems == [])
        #expect(mended.notes == [])
    }

    @Test("Both copies of a superblock that were cut short are noted, one of each is damage")
    func check_superblockPairs_toldApart() throws {
        let bench = try makeStore()
        let surgery = StoreSurgery(image: bench.arena.region)
        let parity = try surgery.superblock().generation & 1
        let older = Superblock.slots(generation: parity + 1).map { Superblock.slotOffsets[$0] }
        for offset in older { surgery.flip(Int(offset) + 60) }
        let report = check(bench)
        #expect(report.problems == [])
        #expect(report.notes == older.map { .superblockCopyMissing(offset: $0) })
    }

    // MARK: - Stores that cannot be opened

    @Test("A block in the log behind the checkpoint that cannot be read is named")
    func check_unreadableLog_named() throws {
        let bench = try makeStore()
        let volume = try #require(bench.store.openVolume(VolumeID(1)))
        let bytes = [UInt8](repeating: 0xA5, count: 4096)
        try #require(try bench.write(volume, at: 0, bytes, flags: .forceUnitAccess) == .ok)
        let offset = UInt64(try #require(bench.location(of: bytes)))
        let report = check(bench, unreadable: offset)
        #expect(
            report.problems
                == [.unreadable(offset: offset, errno: 5), .cannotOpen(.deviceError(errno: 5))]
        )
        #expect(report.blockCount > 0)
    }

    @Test("A change of the configuration that cannot be read keeps a store from opening")
    func check_rottenControlRecord_named() throws {
        let bench = try makeStore()
        _ = try bench.volume(7, byteCount: 1 << 20)
        let image = bench.arena.region
        var newest: (header: BatchHeader, tail: Int)?
        for offset in stride(from: 1 << 20, to: image.byteCount, by: 4096) {
            let block = image.slice(offset, 4096)
            guard let header = BatchHeader.decode(block),
                header.sequence > newest?.header.sequence ?? 0,
                let record = header.records(in: block).first(where: { $0.header.kind == .control })
            else { continue }
            newest = (header, BatchHeader.recordsOffset + record.tailOffset)
        }
        let (header, tail) = try #require(newest)
        let block = image.slice(Int(header.location) * 4096, 4096)
        block.store(200 as UInt8, at: tail)
        header.encode(into: block)
        let error = StoreError.corrupt(offset: header.location * 4096)
        #expect(check(bench).problems == [.cannotOpen(error)])
    }

    @Test("A log that takes more memory to replay than there is keeps a store from opening")
    func check_lessMapMemory_named() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1, byteCount: 512 << 20, block: 4096)
        for page in 0..<250 {
            let bytes = StoreBench.pattern(page, 4096)
            try #require(try bench.write(volume, at: UInt64(page) << 20, bytes) == .ok)
        }
        try bench.flush(volume)
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        let problem = try #require(check(bench, configuration).problems.first)
        guard case .cannotOpen(.mapMemoryTooSmall(let need, _)) = problem else {
            Issue.record("found \(problem)")
            return
        }
        configuration.mapMemoryByteCount = need
        #expect(check(bench, configuration).problems == [])
    }

    @Test("A store whose segments are all taken cannot be opened, and is told why")
    func check_noRoom_named() throws {
        let bench = try makeStore()
        try StoreSurgery(image: bench.arena.region).changeManifest { manifest in
            for segment in manifest.usage.indices { manifest.usage[segment].liveBlockCount = 64 }
            // Nor is anything left of those that were being filled.
            for start in manifest.replayStarts.indices {
                manifest.replayStarts[start].blockOffset = 64
            }
        }
        let problems = check(bench).problems
        #expect(problems.first == .cannotOpen(.noRoom))
        #expect(
            problems.dropFirst().allSatisfy {
                if case .usageWrong(_, recorded: 64, _) = $0 { true } else { false }
            }
        )
    }
}
