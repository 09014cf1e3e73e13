import BlockCore
import LogStore
import StorageIO
import TestSupport
import Testing

/// Who may take the last segments, and who is told that there are none.
@Suite(.background) struct StoreReserveTests {
    @Test("A store whose manifest is larger than a segment comes to rest, opens and gives all back")
    func settle_manifestLargerThanSegment_comesToRest() throws {
        let bench = try StoreBench(byteCount: 16 << 20, segmentByteCount: 64 << 10)
        var volumeCount: UInt64 = 0
        for id in 1...200 as ClosedRange<UInt64> {
            var specification = VolumeSpecification(
                id: VolumeID(id),
                name: "volume\(id)",
                byteCount: 1 << 20
            )
            specification.descriptor = StoreBench.pattern(1, 2048)
            do {
                _ = try bench.command(.createVolume(specification))
                volumeCount = id
            } catch StoreCommandError.noSpace {
                break
            }
        }
        // 64 KiB are 32 descriptors.
        try #require(volumeCount > 64)
        for _ in 0..<20 {
            bench.settle()
            let written = bench.deviceWriteByteCount
            bench.settle()
            #expect(bench.deviceWriteByteCount == written)
            try bench.crash()
        }
        for id in 1...volumeCount { _ = try bench.command(.deleteVolume(VolumeID(id))) }
        bench.settle()
        let volume = try bench.volume(1000)
        #expect(try bench.write(volume, at: 0, StoreBench.pattern(2, 4096)) == .ok)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A write for which there is no room is refused though a client reads all the time")
    func write_noRoomWhileReadsGoOn_refused() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.cacheMemoryByteCount = 0
        let bench = try StoreBench(
            byteCount: 64 << 20,
            segmentByteCount: 256 << 10,
            configuration: configuration
        )
        let (volume, blockCount) = try bench.filledVolume(1, percent: 85)
        // The cleaner cannot read where segments begin, so nothing ever makes room.
        bench.unreadableOffsets = Set(stride(from: 1 << 20, to: 64 << 20, by: 256 << 10))
        let block = StoreBench.pattern(3, 4096)
        var step = 0
        repeat {
            step += 1
        } while try bench.write(
            volume,
            at: UInt64(step * 7919 % blockCount) * 4096,
            block
        ) == .ok
        bench.settle()
        let read = try submit(.read, at: 8 << 12, bench, volume)
        let held = try #require(bench.store.deviceRequests.popFirst())
        try #require(held.kind == .read)
        let write = try submit(
            .write,
            at: UInt64((step + 1) * 7919 % blockCount) * 4096,
            bench,
            volume
        )
        let start = bench.now
        bench.pump {
            bench.now = bench.now.advanced(byNanoseconds: 100_000_000)
            return bench.ended[write] != nil
        }
        #expect(bench.ended[write]?.status == .noSpace)
        #expect(bench.now.nanoseconds - start.nanoseconds >= 60_000_000_000)
        #expect(bench.ended[read] == nil)
        bench.store.onDeviceCompletion(
            DeviceCompletion(token: held.token, errno: 0),
            now: bench.now
        )
    }

    @Test("With a manifest larger than a segment, a write without room is refused all the same")
    func write_noRoomAndLargeManifest_refused() throws {
        let bench = try StoreBench(byteCount: 12 << 20, segmentByteCount: 64 << 10)
        for id in 1...70 as ClosedRange<UInt64> {
            var specification = VolumeSpecification(
                id: VolumeID(id),
                name: "volume\(id)",
                byteCount: 1 << 20
            )
            specification.descriptor = StoreBench.pattern(1, 2048)
            _ = try bench.command(.createVolume(specification))
        }
        let volume = try bench.volume(1000, byteCount: 64 << 20)
        let heads = Set(stride(from: 1 << 20, to: 12 << 20, by: 64 << 10).map(UInt64.init))
        bench.unreadableOffsets = heads
        let block = StoreBench.pattern(3, 4096)
        let blockCount = UInt64(bench.store.space.capacityByteCount) / 4096 * 88 / 100
        var index: UInt64 = 0
        while try bench.write(volume, at: index % blockCount * 4096, block) == .ok {
            index += index < blockCount ? 1 : 7919
        }
        for _ in 0..<4 {
            bench.unreadableOffsets = []
            try bench.crash()
            let again = try #require(bench.store.openVolume(VolumeID(1000)))
            bench.unreadableOffsets = heads
            let before = bench.store.counters.checkpointCount
            _ = try bench.write(again, at: 0, block)
            #expect(bench.store.counters.checkpointCount - before < 20)
        }
    }

    @Test("A cleaner that waits for a slow device's map pages is not taken for one at rest")
    func write_slowDevice_waitsForCleaner() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.cacheMemoryByteCount = 0
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        let bench = try StoreBench(segmentByteCount: 1 << 20, configuration: configuration)
        let volume = try bench.volume(1, byteCount: 1 << 40)
        let block = StoreBench.pattern(3, 4096)
        // A block in each leaf, so that judging a block takes a read.
        let blockCount = bench.store.space.capacityByteCount / 4096 / 5
        for index in 0..<blockCount { _ = try bench.write(volume, at: index << 20, block) }
        var random = SplitMix(seed: 1)
        var refusedCount = 0
        for _ in 0..<8000 {
            let token = try submit(.write, at: random.next(below: blockCount) << 20, bench, volume)
            bench.pump(requestsPerTurn: 1) {
                bench.now = bench.now.advanced(byNanoseconds: 1_000_000_000)
                return bench.ended[token] != nil
            }
            if bench.ended[token]?.status != .ok { refusedCount += 1 }
            bench.ended = [:]
        }
        #expect(bench.store.counters.cleanedSegmentCount > 50)
        #expect(refusedCount == 0)
    }

    /// Submits a request for one block; returns its token.
    private func submit(
        _ kind: StoreRequest.Kind,
        at offset: UInt64,
        _ bench: StoreBench,
        _ volume: VolumeHandle
    ) throws -> UInt64 {
        bench.nextToken += 1
        bench.store.submit(
            StoreRequest(
                kind: kind,
                volume: volume,
                offset: offset,
                byteCount: 4096,
                region: bench.buffers.region.slice(kind == .read ? 1 << 20 : 0, 4096),
                token: bench.nextToken
            )
        )
        return bench.nextToken
    }
}
