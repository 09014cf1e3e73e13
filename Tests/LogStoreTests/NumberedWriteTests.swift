import BlockCore
import LogStore
import StorageIO
import TestSupport
import Testing

/// What a replica does with a store: changes with numbers, and looking for them.
extension StoreBench {
    func numbered(
        _ kind: StoreRequest.Kind,
        _ volume: VolumeHandle,
        block: UInt64,
        count: UInt64 = 1,
        number: UInt64,
        seed: Int = 0,
        flags: StoreRequestFlags = []
    ) throws -> StoreStatus {
        var region = ByteRegion.empty
        if kind == .write {
            region = buffers.region.slice(0, Int(count) * 4096)
            region.copy(from: StoreBench.pattern(seed, Int(count) * 4096))
        }
        return try run(
            StoreRequest(
                kind: kind,
                volume: volume,
                offset: block * 4096,
                byteCount: count * 4096,
                region: region,
                flags: flags,
                number: number,
                token: 0
            )
        ).status
    }

    /// What one scan says.
    func scan(
        _ volume: VolumeHandle,
        above: UInt64,
        blocks: Range<UInt64>,
        entryCountMax: Int = 1024
    ) throws -> (entries: [UInt64: UInt64], blockCount: UInt64) {
        let region = buffers.region.slice(1 << 20, entryCountMax * 16)
        let completion = try run(
            StoreRequest(
                kind: .scan,
                volume: volume,
                offset: blocks.lowerBound * 4096,
                byteCount: UInt64(blocks.count) * 4096,
                region: region,
                number: above,
                token: 0
            )
        )
        try #require(completion.status == .ok)
        var entries: [UInt64: UInt64] = [:]
        var last: UInt64?
        for index in 0..<Int(completion.extentCount) {
            let block = region.load(index * 16, as: UInt64.self)
            #expect(blocks.contains(block))
            #expect(last.map { $0 < block } ?? true)
            last = block
            entries[block] = region.load(index * 16 + 8, as: UInt64.self)
        }
        return (entries, completion.byteCount / 4096)
    }

    /// All that scans say, one after the other.
    func scanAll(
        _ volume: VolumeHandle,
        above: UInt64,
        blockCount: UInt64,
        entryCountMax: Int = 1024
    ) throws -> [UInt64: UInt64] {
        var entries: [UInt64: UInt64] = [:]
        var block: UInt64 = 0
        while block < blockCount {
            let part = try scan(
                volume,
                above: above,
                blocks: block..<blockCount,
                entryCountMax: entryCountMax
            )
            try #require(part.blockCount > 0)
            entries.merge(part.entries) { _, new in new }
            block += part.blockCount
        }
        return entries
    }

    /// The number that a read says, and what it reads.
    func readNumbered(
        _ volume: VolumeHandle,
        block: UInt64,
        count: Int = 1
    ) throws -> (number: UInt64, bytes: [UInt8]) {
        let region = buffers.region.slice(4 << 20, (count + 1) * 4096)
        let completion = try run(
            StoreRequest(
                kind: .read,
                volume: volume,
                offset: block * 4096,
                byteCount: UInt64(count) * 4096,
                region: region,
                token: 0
            )
        )
        try #require(completion.status == .ok)
        let zeroes = [UInt8](repeating: 0, count: count * 4096)
        return (
            completion.number, completion.region.isEmpty ? zeroes : completion.region.array()
        )
    }

    /// Has the offline check look at the device as it is.
    func problems() -> [StoreProblem] {
        var check = StoreCheck(
            geometry: DeviceGeometry(byteCount: UInt64(arena.region.byteCount)),
            configuration: configuration
        ) { offset, region in
            region.copy(from: self.arena.region.slice(Int(offset), region.byteCount))
            return 0
        }
        return check.run().problems
    }

    func handle(_ id: UInt64) throws -> VolumeHandle {
        try #require(store.openVolume(VolumeID(id)))
    }
}

@Suite(.background) struct NumberedWriteTests {
    /// A write number as replication makes it: epoch and counter.
    static func number(_ epoch: UInt64, _ counter: UInt64) -> UInt64 { epoch << 36 | counter }

    @Test("A block is as new as its number: older writes and the same again change nothing")
    func write_olderOrSameNumber_changesNothing() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        func check(_ volume: VolumeHandle) throws {
            let two = StoreBench.pattern(2, 8192)
            let one = StoreBench.pattern(1, 4 * 4096)
            let all = try bench.readNumbered(volume, block: 10, count: 4)
            #expect(all.number == 9)
            #expect(all.bytes == one[..<4096] + two + one[(3 * 4096)...])
            #expect(try bench.readNumbered(volume, block: 10).number == 5)
            let nothing = try bench.readNumbered(volume, block: 20)
            #expect(nothing == (0, [UInt8](repeating: 0, count: 4096)))
        }
        let writes: [(UInt64, UInt64, UInt64, Int)] = [
            (11, 2, 9, 2), (10, 4, 5, 1), (11, 2, 9, 7), (11, 1, 8, 7), (13, 1, 5, 7),
        ]
        for (block, count, number, seed) in writes {
            let status = try bench.numbered(
                .write,
                volume,
                block: block,
                count: count,
                number: number,
                seed: seed
            )
            #expect(status == .ok)
        }
        try check(volume)
        // Once from the log, and once from the checkpoint that closes the first start.
        try bench.flush(volume)
        for _ in 0..<2 {
            try bench.crash()
            try check(try bench.handle(1))
            #expect(bench.problems() == [])
        }
    }

    @Test("Numbers of the highest epoch are kept, and the store does not count on from them")
    func write_greatestNumber_storeCountsOnItsOwn() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        let greatest: UInt64 = 1 << 56 - 1
        #expect(try bench.numbered(.write, volume, block: 0, number: greatest, seed: 1) == .ok)
        let own = try bench.volume(2)
        #expect(try bench.write(own, at: 0, StoreBench.pattern(2, 4096)) == .ok)
        #expect(try bench.readNumbered(own, block: 0).number == 1)
        try bench.flush(volume)
        for _ in 0..<2 {
            try bench.crash()
            #expect(try bench.readNumbered(try bench.handle(1), block: 0).number == greatest)
        }
        #expect(try bench.write(try bench.handle(2), at: 0, StoreBench.pattern(3, 4096)) == .ok)
        #expect(try bench.readNumbered(try bench.handle(2), block: 0).number == 2)
    }

    @Test("A write that a crash tears is there whole or not at all, and its number with it")
    func write_tornBatch_wholeOrNothing() throws {
        for keptBlockCount in [0, 1, 2, 33, 64, 65] {
            let bench = try StoreBench()
            let volume = try bench.volume(1)
            let old = try bench.numbered(
                .write,
                volume,
                block: 64,
                count: 64,
                number: 3,
                seed: 1,
                flags: [.streamed, .forceUnitAccess]
            )
            #expect(old == .ok)
            let region = bench.buffers.region.slice(0, 64 * 4096)
            region.copy(from: StoreBench.pattern(2, 64 * 4096))
            bench.store.submit(
                StoreRequest(
                    kind: .write,
                    volume: volume,
                    offset: 64 * 4096,
                    byteCount: 64 * 4096,
                    region: region,
                    flags: [.streamed, .forceUnitAccess],
                    number: 4,
                    token: 1
                )
            )
            _ = bench.store.onTurn(now: bench.now)
            let batch = try #require(bench.store.deviceRequests.popFirst())
            try #require(batch.region.byteCount == 65 * 4096)
            try #require(bench.store.deviceRequests.isEmpty)
            let kept = batch.region.slice(0, keptBlockCount * 4096)
            bench.arena.region.slice(Int(batch.offset), kept.byteCount).copy(from: kept)
            try bench.crash()
            let isThere = keptBlockCount == 65
            let found = try bench.readNumbered(try bench.handle(1), block: 64, count: 64)
            #expect(found.number == (isThere ? 4 : 3), "\(keptBlockCount) blocks")
            #expect(found.bytes == StoreBench.pattern(isThere ? 2 : 1, 64 * 4096))
            #expect(bench.store.streamPosition(of: VolumeID(1)) == (isThere ? 4 : 3))
        }
    }

    @Test("A record that finds no room in the open batch goes into the next one as a whole")
    func write_manySmallAndLarge_neverSplit() throws {
        let bench = try StoreBench(segmentByteCount: 512 << 10)
        let volume = try bench.volume(1)
        var number: UInt64 = 0
        for round in 0..<120 {
            number += 1
            let count = UInt64([64, 1, 63, 17, 40][round % 5])
            let block = UInt64(round % 12) * 256 + UInt64(round * 7 % 128)
            let status = try bench.numbered(
                .write,
                volume,
                block: block,
                count: count,
                number: number,
                seed: round,
                flags: .streamed
            )
            #expect(status == .ok)
            let found = try bench.readNumbered(volume, block: block, count: Int(count))
            #expect(found.number == number)
            #expect(found.bytes == StoreBench.pattern(round, Int(count) * 4096))
        }
        try bench.flush(volume)
        try bench.crash()
        #expect(bench.store.streamPosition(of: VolumeID(1)) == number)
        #expect(bench.problems() == [])
    }

    @Test("Ranges and numbers that no single record can have are refused")
    func validate_badRanges_invalid() throws {
        let bench = try StoreBench()
        let volume = try bench.volume(1)
        func status(
            _ kind: StoreRequest.Kind,
            _ offset: UInt64,
            _ byteCount: UInt64,
            number: UInt64 = 1,
            flags: StoreRequestFlags = []
        ) throws -> StoreStatus {
            try bench.run(
                StoreRequest(
                    kind: kind,
                    volume: volume,
                    offset: offset,
                    byteCount: byteCount,
                    region: bench.buffers.region.slice(0, 2 << 20),
                    flags: flags,
                    number: number,
                    token: 0
                )
            ).status
        }
        for kind in [StoreRequest.Kind.write, .trim, .writeZeroes] {
            #expect(try status(kind, 512, 4096) == .invalid)
            #expect(try status(kind, 0, 512) == .invalid)
            #expect(try status(kind, 0, 0) == .invalid)
            #expect(try status(kind, (1 << 20) - 4096, 8192) == .invalid)
            #expect(try status(kind, 0, 4096, number: 1 << 56) == .invalid)
            #expect(try status(kind, 0, 4096, number: 0, flags: .streamed) == .invalid)
            #expect(try status(kind, 16 << 20, 4096) == .invalid)
        }
        #expect(try status(.write, 0, 65 * 4096) == .invalid)
        #expect(try status(.write, 192 * 4096, 64 * 4096) == .ok)
        #expect(try status(.trim, 0, 256 * 4096) == .ok)
        #expect(try status(.scan, 512, 4096) == .invalid)
        #expect(try status(.scan, 0, 17 << 20) == .invalid)
        #expect(try status(.scan, 0, 0) == .ok)
        let snapshot = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        let sealed = try #require(bench.store.openVolume(VolumeID(1), layer: snapshot.layer))
        #expect(try bench.numbered(.write, sealed, block: 0, number: 9) == .readOnly)
        #expect(bench.store.streamPosition(of: VolumeID(1)) == 0)
        // Segments of 16 blocks have no room for a record of 64.
        let small = try StoreBench(byteCount: 8 << 20, segmentByteCount: 64 << 10)
        #expect(small.store.numberedBlockCountMax == 15)
        let thin = try small.volume(1, byteCount: 1 << 20)
        #expect(try small.numbered(.write, thin, block: 0, count: 16, number: 1) == .invalid)
        #expect(try small.numbered(.write, thin, block: 0, count: 15, number: 1) == .ok)
    }

    @Test("Volumes with and without numbers live side by side through cleaning and checkpoints")
    func overwrite_bothKinds_cleanedAndKept() throws {
        let bench = try StoreBench(byteCount: 24 << 20, segmentByteCount: 512 << 10)
        var numbered = try bench.volume(1, byteCount: 4 << 20)
        var plain = try bench.volume(2, byteCount: 4 << 20)
        var model: [UInt64: (number: UInt64, seed: Int)] = [:]
        var plainModel: [UInt64: Int] = [:]
        var random: UInt64 = 7
        var cleanedCount: UInt64 = 0
        func below(_ bound: UInt64) -> UInt64 {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (random >> 33) % bound
        }
        for step in 1...6000 {
            let block = below(1024)
            if step % 3 == 0 {
                let bytes = StoreBench.pattern(step, 4096)
                try #require(try bench.write(plain, at: block * 4096, bytes) == .ok)
                plainModel[block] = step
            } else {
                let count = 1 + below(min(4, 256 - block % 256))
                let number = Self.number(1 + below(2), below(10_000) + 1)
                let isTrim = step % 17 == 0
                let status = try bench.numbered(
                    isTrim ? .trim : .write,
                    numbered,
                    block: block,
                    count: count,
                    number: number,
                    seed: step,
                    flags: step % 2 == 0 ? .streamed : []
                )
                try #require(status == .ok)
                for index in 0..<count where (model[block + index]?.number ?? 0) < number {
                    if isTrim, model[block + index] == nil { continue }
                    // Within a write every block has a pattern of its own.
                    model[block + index] = (number, isTrim ? -1 : step << 8 | Int(index))
                }
            }
            if step % 2000 == 0 {
                cleanedCount += bench.store.counters.cleanedSegmentCount
                try bench.flush(numbered)
                let position = bench.store.streamPosition(of: VolumeID(1))
                try bench.crash()
                numbered = try bench.handle(1)
                plain = try bench.handle(2)
                #expect(bench.store.streamPosition(of: VolumeID(1)) == position)
            }
        }
        #expect(cleanedCount > 0)
        for block in 0..<1024 as Range<UInt64> {
            let found = try bench.readNumbered(numbered, block: block)
            let expected = model[block]
            #expect(found.number == expected?.number ?? 0)
            let seed = expected?.seed ?? -1
            let index = seed < 0 ? 0 : seed & 255
            let bytes =
                seed < 0
                ? [UInt8](repeating: 0, count: 4096)
                : Array(StoreBench.pattern(seed >> 8, (index + 1) * 4096).suffix(4096))
            #expect(found.bytes == bytes, "block \(block)")
            let other = try bench.readNumbered(plain, block: block).bytes
            #expect(
                other == plainModel[block].map { StoreBench.pattern($0, 4096) }
                    ?? [UInt8](repeating: 0, count: 4096)
            )
        }
        let scanned = try bench.scanAll(numbered, above: 0, blockCount: 1024, entryCountMax: 7)
        #expect(scanned == model.mapValues(\.number))
        #expect(bench.store.brokenInvariant() == nil)
        try bench.flush(plain)
        #expect(bench.problems() == [])
    }
}
