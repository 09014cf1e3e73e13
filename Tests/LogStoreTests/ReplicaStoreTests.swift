import BlockCore
import CAllocationCounter
import LogStore
import StorageIO
import TestSupport
import Testing

@Suite(.background) struct ReplicaStoreTests {
    private static let id = VolumeID(1)

    private func replica(_ bench: StoreBench, _ record: [UInt8] = [1]) throws -> VolumeHandle {
        _ = try bench.command(
            .createVolume(
                VolumeSpecification(id: Self.id, name: "r", byteCount: 4 << 30, replica: record)
            )
        )
        return try bench.handle(1)
    }

    // MARK: - Stream position

    @Test("The stream position is that of the prefix of the log that survives, checkpoint or not")
    func position_crash_isThatOfThePrefix() throws {
        let bench = try StoreBench()
        var volume = try replica(bench)
        for round in 0..<4 as Range<UInt64> {
            let first = round * 100
            // A fill is no part of the stream, whatever its number.
            for counter in 1...20 as ClosedRange<UInt64> {
                let number = first + counter
                let flags: StoreRequestFlags = counter % 5 == 0 ? [] : .streamed
                let kind: StoreRequest.Kind = counter % 7 == 0 ? .trim : .write
                let status = try bench.numbered(
                    kind,
                    volume,
                    block: counter * 300,
                    number: number,
                    flags: flags
                )
                #expect(status == .ok)
            }
            #expect(bench.store.streamPosition(of: Self.id) == first + 19)
            try bench.flush(volume)
            // These are in memory only.
            for counter in 21...22 as ClosedRange<UInt64> {
                let status = try bench.numbered(
                    .write,
                    volume,
                    block: 5,
                    number: first + counter,
                    flags: .streamed
                )
                #expect(status == .ok)
            }
            #expect(bench.store.volume(Self.id)?.streamPosition == first + 22)
            try bench.crash()
            #expect(bench.store.streamPosition(of: Self.id) == first + 19)
            // Nothing is replayed now: the checkpoint that closed the start has it.
            try bench.crash()
            #expect(bench.store.streamPosition(of: Self.id) == first + 19)
            volume = try bench.handle(1)
            #expect(try bench.readNumbered(volume, block: 5).number == 0)
        }
        #expect(bench.problems() == [])
    }

    @Test("A streamed write of which nothing applies moves the position and takes no block")
    func position_nothingApplies_moves() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        #expect(try bench.numbered(.write, volume, block: 8, count: 8, number: 50, seed: 1) == .ok)
        let live = bench.store.space.liveByteCount
        for (kind, number) in [(StoreRequest.Kind.write, 20), (.trim, 21), (.writeZeroes, 22)] {
            let status = try bench.numbered(
                kind,
                volume,
                block: 8,
                count: 8,
                number: UInt64(number),
                seed: 2,
                flags: .streamed
            )
            #expect(status == .ok)
            #expect(bench.store.streamPosition(of: Self.id) == UInt64(number))
        }
        // A fill that is too late leaves no trace.
        #expect(try bench.numbered(.write, volume, block: 8, number: 30, seed: 3) == .ok)
        #expect(bench.store.space.liveByteCount == live)
        try bench.flush(volume)
        try bench.crash()
        #expect(bench.store.streamPosition(of: Self.id) == 22)
        let found = try bench.readNumbered(try bench.handle(1), block: 8, count: 8)
        #expect(found == (50, StoreBench.pattern(1, 8 * 4096)))
    }

    @Test("A snapshot and a rollback leave the position, and a clone begins a stream of its own")
    func position_layers_goesOn() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        let first = try bench.numbered(.write, volume, block: 1, number: 7, flags: .streamed)
        #expect(first == .ok)
        let snapshot = try bench.command(.createSnapshot(volume: Self.id, name: "s"))
        #expect(bench.store.streamPosition(of: Self.id) == 7)
        _ = try bench.command(
            .cloneSnapshot(
                layer: snapshot.layer,
                VolumeSpecification(id: VolumeID(2), name: "clone", byteCount: 4 << 30)
            )
        )
        #expect(bench.store.streamPosition(of: VolumeID(2)) == 0)
        let second = try bench.numbered(.write, volume, block: 1, number: 8, flags: .streamed)
        #expect(second == .ok)
        bench.store.closeVolume(volume)
        _ = try bench.command(.rollback(volume: Self.id, layer: snapshot.layer))
        for _ in 0..<3 {
            #expect(bench.store.streamPosition(of: Self.id) == 8)
            #expect(bench.store.streamPosition(of: VolumeID(2)) == 0)
            #expect(bench.store.streamPosition(of: VolumeID(3)) == 0)
            try bench.crash()
        }
    }

    // MARK: - Trims and scans

    @Test("A trimmed block keeps its number, and one that never was is not made by a trim")
    func trim_keepsNumber_scanFindsIt() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        #expect(try bench.numbered(.write, volume, block: 300, count: 4, number: 5, seed: 1) == .ok)
        #expect(try bench.numbered(.trim, volume, block: 256, count: 256, number: 9) == .ok)
        // Older than the trim: it does not come back.
        #expect(try bench.numbered(.write, volume, block: 301, number: 8, seed: 2) == .ok)
        #expect(try bench.numbered(.write, volume, block: 302, number: 10, seed: 3) == .ok)
        let untouched = try bench.numbered(
            .writeZeroes,
            volume,
            block: 1024,
            count: 2,
            number: 11,
            flags: .noHole
        )
        #expect(untouched == .ok)
        let live = bench.store.space.liveByteCount
        #expect(try bench.numbered(.trim, volume, block: 4096, count: 256, number: 12) == .ok)
        #expect(bench.store.space.liveByteCount == live)
        try bench.flush(volume)
        for _ in 0..<3 {
            let volume = try bench.handle(1)
            let all = try bench.scanAll(volume, above: 0, blockCount: 1 << 20)
            #expect(all == [300: 9, 301: 9, 302: 10, 303: 9, 1024: 11, 1025: 11])
            let some = try bench.scanAll(volume, above: 9, blockCount: 1 << 20, entryCountMax: 1)
            #expect(some == [302: 10, 1024: 11, 1025: 11])
            #expect(try bench.scan(volume, above: 8, blocks: 301..<302).entries == [301: 9])
            let found = try bench.readNumbered(volume, block: 300, count: 2)
            #expect(found == (9, [UInt8](repeating: 0, count: 8192)))
            #expect(bench.problems() == [])
            try bench.crash()
        }
    }

    @Test("Scans come back with what fits, skip what is not there, and look through the stack")
    func scan_stack_newestFirst() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        var model: [UInt64: UInt64] = [:]
        func change(_ kind: StoreRequest.Kind, _ blocks: Range<UInt64>, _ number: UInt64) throws {
            let status = try bench.numbered(
                kind,
                volume,
                block: blocks.lowerBound,
                count: UInt64(blocks.count),
                number: number,
                seed: Int(number)
            )
            #expect(status == .ok)
        }
        try change(.write, 0..<8, 1)
        try change(.write, 700_000..<700_004, 2)
        _ = try bench.command(.createSnapshot(volume: Self.id, name: "a"))
        try change(.write, 4..<6, 3)
        _ = try bench.command(.createSnapshot(volume: Self.id, name: "b"))
        try change(.trim, 5..<7, 4)
        try change(.write, 1_000_000..<1_000_001, 5)
        for block in 0..<8 as Range<UInt64> { model[block] = 1 }
        for block in 700_000..<700_004 as Range<UInt64> { model[block] = 2 }
        model[4] = 3
        model[5] = 4
        model[6] = 4
        model[1_000_000] = 5
        for _ in 0..<2 {
            let volume = try bench.handle(1)
            for entryCountMax in [1, 3, 100] {
                for above in [0, 1, 3, 5] as [UInt64] {
                    let all = try bench.scanAll(
                        volume,
                        above: above,
                        blockCount: 1 << 20,
                        entryCountMax: entryCountMax
                    )
                    #expect(all == model.filter { $0.value > above })
                }
            }
            // What a leaf inherited says nothing of numbers itself.
            #expect(try bench.readNumbered(volume, block: 0, count: 4).number == 1)
            #expect(try bench.readNumbered(volume, block: 0, count: 5).number == 3)
            #expect(try bench.readNumbered(volume, block: 0, count: 8).number == 4)
            #expect(try bench.readNumbered(volume, block: 700_003, count: 2).number == 2)
            try bench.flush(volume)
            bench.store.closeVolume(volume)
            try bench.crash()
            #expect(bench.problems() == [])
        }
        // Merging moves entries with their numbers.
        let snapshots = try #require(bench.store.volume(Self.id)?.snapshots)
        for snapshot in snapshots { _ = try bench.command(.deleteSnapshot(layer: snapshot.layer)) }
        bench.settle()
        #expect(bench.store.volume(Self.id)?.layerCount == 1)
        let merged = try bench.scanAll(try bench.handle(1), above: 0, blockCount: 1 << 20)
        #expect(merged == model)
        try bench.crash()
        #expect(try bench.scanAll(try bench.handle(1), above: 0, blockCount: 1 << 20) == model)
        #expect(bench.problems() == [])
    }

    @Test("A scan of more leaves than a turn has time for ends, and others get their turn")
    func scan_manyLeaves_bounded() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        for leaf in 0..<700 as Range<UInt64> {
            #expect(try bench.numbered(.write, volume, block: leaf * 256, number: leaf + 1) == .ok)
        }
        // Nothing is above: one scan says so for all leaves, in several turns.
        let none = try bench.scan(volume, above: 700, blocks: 0..<1 << 20)
        #expect(none.entries.isEmpty && none.blockCount == 1 << 20)
        let part = try bench.scan(volume, above: 0, blocks: 0..<1 << 20)
        #expect(part.blockCount == 512 * 256 && part.entries.count == 512)
        #expect(try bench.scanAll(volume, above: 0, blockCount: 1 << 20).count == 700)
    }

    // MARK: - Replica record

    @Test("The replica's record is durable with everything that was appended before it")
    func record_durable_provesWritesBefore() throws {
        let bench = try StoreBench()
        let volume = try replica(bench, [1, 2, 3])
        #expect(bench.store.specification(of: Self.id)?.replica == [1, 2, 3])
        for number in 1...5 as ClosedRange<UInt64> {
            let status = try bench.numbered(
                .write,
                volume,
                block: number * 1000,
                number: number,
                seed: Int(number),
                flags: .streamed
            )
            #expect(status == .ok)
        }
        let record = [UInt8](repeating: 7, count: VolumeSpecification.replicaRecordByteCountMax)
        let result = try bench.command(.setReplica(volume: Self.id, record: record))
        #expect(result.volume == Self.id)
        // A later change of the volume leaves it, whatever it says.
        var specification = try #require(bench.store.specification(of: Self.id))
        specification.replica = [9]
        specification.descriptor = [UInt8](repeating: 8, count: 2048)
        _ = try bench.command(.updateVolume(specification))
        for _ in 0..<3 {
            try bench.crash()
            #expect(bench.store.specification(of: Self.id)?.replica == record)
            #expect(bench.store.streamPosition(of: Self.id) == 5)
            let found = try bench.readNumbered(try bench.handle(1), block: 5000)
            #expect(found == (5, StoreBench.pattern(5, 4096)))
        }
        #expect(bench.problems() == [])
    }

    @Test("Records that are too long, and records of no volume, are refused")
    func record_tooLong_refused() throws {
        let bench = try StoreBench()
        _ = try replica(bench)
        let long = [UInt8](repeating: 0, count: 1025)
        #expect(throws: StoreCommandError.invalid) {
            try bench.command(.setReplica(volume: Self.id, record: long))
        }
        #expect(throws: StoreCommandError.volumeNotFound) {
            try bench.command(.setReplica(volume: VolumeID(2), record: [1]))
        }
        #expect(throws: StoreCommandError.invalid) {
            try bench.command(
                .createVolume(
                    VolumeSpecification(
                        id: VolumeID(2),
                        name: "long",
                        byteCount: 1 << 20,
                        replica: long
                    )
                )
            )
        }
        #expect(bench.store.specification(of: Self.id)?.replica == [1])
    }

    // MARK: - Allocation

    @Test(
        "Numbered changes, reads and scans allocate nothing",
        .enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator")
    )
    func requests_steadyState_allocateNothing() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        _ = try bench.command(.createSnapshot(volume: Self.id, name: "below"))
        var allocationCount: UInt64 = 0
        func round(_ step: UInt64) {
            let kinds: [StoreRequest.Kind] = [.write, .trim, .read, .scan]
            let block = step % 7 * 256 + step % 64
            let kind = kinds[Int(step & 3)]
            let request = StoreRequest(
                kind: kind,
                volume: volume,
                offset: block * 4096,
                byteCount: 16 * 4096,
                region: bench.buffers.region.slice(0, 17 * 4096),
                flags: kind == .write || kind == .trim ? .streamed : [],
                number: kind == .scan ? 0 : step,
                token: step
            )
            let before = allocation_counter_thread_count()
            bench.store.submit(request)
            _ = bench.store.onTurn(now: bench.now)
            while let transfer = bench.store.deviceRequests.popFirst() {
                let offset = Int(transfer.offset)
                let region = transfer.region
                if case .read = transfer.kind {
                    region.copy(from: bench.arena.region.slice(offset, region.byteCount))
                } else {
                    bench.arena.region.slice(offset, region.byteCount).copy(from: region)
                }
                let end = DeviceCompletion(token: transfer.token, errno: 0)
                bench.store.onDeviceCompletion(end, now: bench.now)
            }
            while bench.store.completions.popFirst() != nil {}
            allocationCount += UInt64(allocation_counter_thread_count() - before)
            bench.now = bench.now.advanced(byNanoseconds: 3_000_000)
        }
        for step in 1...100 as ClosedRange<UInt64> { round(step) }
        allocationCount = 0
        for step in 101...400 as ClosedRange<UInt64> { round(step) }
        #expect(allocationCount == 0)
        #expect(bench.store.streamPosition(of: Self.id) == 400)
    }
}
