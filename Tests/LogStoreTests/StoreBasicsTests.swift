import BlockCore
import LogStore
import TestSupport
import Testing

@Suite(.background) struct StoreBasicsTests {
    @Test("What was written is read back, at every alignment of a 512-byte volume")
    func writeRead_everyAlignment_equal() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        var model = [UInt8](repeating: 0, count: 64 << 10)
        for step in 0..<200 {
            let offset = (step * 7919 % 96) * 512
            let count = (step * 104_729 % 32 + 1) * 512
            let bytes = StoreBench.pattern(step, count)
            #expect(try bench.write(volume, at: UInt64(offset), bytes) == .ok)
            model.replaceSubrange(offset..<(offset + count), with: bytes)
        }
        #expect(try bench.read(volume, at: 0, model.count) == model)
        #expect(try bench.read(volume, at: 512, 1024) == Array(model[512..<1536]))
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, model.count) == model)
    }

    @Test("A small store that is killed again and again keeps its room")
    func crash_manyTimes_writesStillFit() throws {
        let bench = try StoreBench(byteCount: 8 << 20, segmentByteCount: 256 << 10)
        _ = try bench.volume(1, byteCount: 1 << 20)
        for round in 0..<100 {
            try bench.crash()
            let volume = try #require(bench.store.openVolume(VolumeID(1)))
            let bytes = StoreBench.pattern(round, 4096)
            try #require(try bench.write(volume, at: 0, bytes) == .ok)
            try bench.flush(volume)
            try #require(bench.store.brokenInvariant() == nil)
        }
        #expect(bench.store.space.availableByteCount > 1 << 20)
    }

    @Test("A volume's epoch only grows, and outlives a crash")
    func epoch_lower_isRefused() throws {
        let bench = try StoreBench()
        _ = try bench.volume(1)
        var specification = try #require(bench.store.specification(of: VolumeID(1)))
        specification.epoch = 7
        _ = try bench.command(.updateVolume(specification))
        // The same again changes nothing that anybody could miss.
        _ = try bench.command(.updateVolume(specification))
        for _ in 0..<2 {
            var lower = specification
            lower.epoch = 6
            #expect(throws: StoreCommandError.outdated) {
                try bench.command(.updateVolume(lower))
            }
            #expect(bench.store.specification(of: VolumeID(1)) == specification)
            try bench.crash()
        }
    }

    @Test("Trims and zeroes read as zero, in part and whole")
    func trim_partialBlocks_readZero() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        var model = StoreBench.pattern(3, 3 << 20)
        #expect(try bench.write(volume, at: 0, model) == .ok)
        for (offset, count) in [(512, 512), (5000 / 512 * 512, 20_480), (1 << 20, 1 << 20)] {
            let kind: StoreRequest.Kind = offset == 512 ? .writeZeroes : .trim
            #expect(try bench.change(kind, volume, UInt64(offset), UInt64(count)) == .ok)
            model.replaceSubrange(
                offset..<(offset + count),
                with: repeatElement(0, count: count)
            )
            #expect(try bench.read(volume, at: 0, model.count) == model)
        }
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, model.count) == model)
    }

    @Test("Snapshots and clones keep their contents whatever is written, merged or deleted")
    func snapshots_writesAfter_unchanged() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        var states: [(LayerID, [UInt8])] = []
        var model = [UInt8](repeating: 0, count: 2 << 20)
        for round in 0..<6 {
            for step in 0..<20 {
                let offset = (step * 37 + round * 101) % 500 * 4096
                let bytes = StoreBench.pattern(round * 100 + step, 4096)
                #expect(try bench.write(volume, at: UInt64(offset), bytes) == .ok)
                model.replaceSubrange(offset..<(offset + 4096), with: bytes)
            }
            let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s\(round)"))
            states.append((made.layer, model))
        }
        let clone = try bench.command(
            .cloneSnapshot(
                layer: states[2].0,
                VolumeSpecification(id: VolumeID(2), name: "clone", byteCount: 16 << 20)
            )
        )
        #expect(clone.volume == VolumeID(2))
        let cloned = try #require(bench.store.openVolume(VolumeID(2)))
        #expect(try bench.read(cloned, at: 0, model.count) == states[2].1)
        // Delete snapshots 0, 3 and 1, in that order, with time for the merges.
        for index in [0, 3, 1] {
            _ = try bench.command(.deleteSnapshot(layer: states[index].0))
            bench.settle()
        }
        for index in [2, 4, 5] {
            let handle = try #require(bench.store.openVolume(VolumeID(1), layer: states[index].0))
            #expect(try bench.read(handle, at: 0, model.count) == states[index].1)
            bench.store.closeVolume(handle)
        }
        #expect(try bench.read(volume, at: 0, model.count) == model)
        #expect(try bench.read(cloned, at: 0, model.count) == states[2].1)
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(again, at: 0, model.count) == model)
        #expect(bench.store.volume(VolumeID(1))?.snapshots.map(\.name) == ["s2", "s4", "s5"])
    }

    @Test("Overwriting many times the device's size cleans, and a full store says so")
    func overwrite_beyondCapacity_cleans() throws {
        let bench = try StoreBench(byteCount: 24 << 20, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 8 << 20)
        var model = [UInt8](repeating: 0, count: 8 << 20)
        for step in 0..<12_000 {
            let offset = (step &* 7919) % 2048 * 4096
            let bytes = StoreBench.pattern(step, 4096)
            let status = try bench.write(volume, at: UInt64(offset), bytes)
            try #require(status == .ok)
            model.replaceSubrange(offset..<(offset + 4096), with: bytes)
        }
        // Twice the device was written: segments were given out again, by checkpoints at least.
        #expect(bench.store.counters.batchByteCount > 40 << 20)
        #expect(bench.store.counters.checkpointCount >= 2)
        for part in 0..<4 {
            let range = (part << 21)..<((part + 1) << 21)
            #expect(try bench.read(volume, at: UInt64(part << 21), 2 << 20) == Array(model[range]))
        }
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        for part in 0..<4 {
            let range = (part << 21)..<((part + 1) << 21)
            #expect(try bench.read(again, at: UInt64(part << 21), 2 << 20) == Array(model[range]))
        }
        // Now fill it up: ENOSPC, and reads and trims go on.
        let big = try bench.volume(2, byteCount: 64 << 20)
        var status = StoreStatus.ok
        var written: UInt64 = 0
        while status == .ok, written < 64 << 20 {
            status = try bench.write(big, at: written, StoreBench.pattern(9, 256 << 10))
            if status == .ok { written += 256 << 10 }
        }
        #expect(status == .noSpace)
        #expect(try bench.read(again, at: 0, 2 << 20) == Array(model[0..<(2 << 20)]))
        #expect(try bench.change(.trim, big, 0, written) == .ok)
        bench.settle()
        #expect(try bench.write(big, at: 0, StoreBench.pattern(10, 256 << 10)) == .ok)
    }

    @Test("While durable batches are being written, nothing asks to be called at once")
    func onTurn_durableBatchesInFlight_waits() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        let region = bench.buffers.region.slice(0, 4096)
        // The device has them and does not answer: more than are written at once.
        var deadline: Instant?
        for index in 0..<8 as Range<UInt64> {
            bench.store.submit(
                StoreRequest(
                    kind: .write,
                    volume: volume,
                    offset: index * 4096,
                    byteCount: 4096,
                    region: region,
                    flags: [.forceUnitAccess],
                    token: 1_000_000 + index
                )
            )
            bench.now = bench.now.advanced(byNanoseconds: 10_000_000)
            deadline = bench.store.onTurn(now: bench.now)
        }
        #expect(deadline == nil)
        bench.pump { bench.ended.keys.filter { $0 >= 1_000_000 }.count == 8 }
    }
}
