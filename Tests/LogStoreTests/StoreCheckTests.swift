import BlockCore
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

    private func check(_ bench: StoreBench) throws -> StoreCheckReport {
        let overlay = StoreOverlay(
            geometry: DeviceGeometry(byteCount: UInt64(bench.arena.region.byteCount)),
            configuration: bench.configuration
        ) { offset, region in
            region.copy(from: bench.arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        try overlay.settle()
        var check = StoreCheck(read: overlay.readThrough)
        return check.run()
    }

    @Test("A store that was not closed checks clean after its log is replayed")
    func check_uncleanStore_noProblems() throws {
        let bench = try makeStore()
        let report = try check(bench)
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
        var check = StoreCheck { offset, region in
            region.copy(from: bench.arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        let report = check.run()
        #expect(report.problemCount > 0)
        for problem in report.problems {
            switch problem {
            case .blockDamaged(_, _, let offset), .pageDamaged(_, _, _, let offset),
                .manifestDamaged(let offset):
                #expect(offset >= UInt64(start) && offset < UInt64(start + 64 * 4096))
            case .layerCountWrong, .usageWrong: break
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

    @Test("A store of the version before opens, and is written on as this one")
    func open_versionBefore_taken() throws {
        let bench = try StoreBench()
        for slot in [0, 32_768, 65_536, 98_304] {
            let block = bench.arena.region.slice(slot, 4096)
            block.store(1 as UInt32, at: 12)
            block.store(0 as UInt32, at: 8)
            block.store(block.crc32c(), at: 8)
        }
        try bench.crash()
        let newest = [0, 65_536].map { bench.arena.region.load($0 + 12, as: UInt32.self) }
        #expect(newest.contains(2))
    }

    @Test("A device without a store, and one from the future, are told apart")
    func check_foreignDevice_said() throws {
        let arena = MemoryArena(byteCount: 2 << 20)
        var check = StoreCheck { offset, region in
            region.copy(from: arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        #expect(check.run().problems == [.unusable(.notAStore)])
        let bench = try StoreBench()
        for slot in [0, 32_768, 65_536, 98_304] {
            let block = bench.arena.region.slice(slot, 4096)
            block.store(99 as UInt32, at: 12)
            block.store(0 as UInt32, at: 8)
            block.store(block.crc32c(), at: 8)
        }
        var second = StoreCheck { offset, region in
            region.copy(from: bench.arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        #expect(
            second.run().problems == [.unusable(.versionTooNew(found: 99, supported: 2))]
        )
    }
}
