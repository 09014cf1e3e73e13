import BlockCore
import LogStore
import StorageIO
import Testing

/// Copies that rotted, written anew with the bytes that another replica has.
@Suite struct StoreRepairTests {
    private static let id = VolumeID(1)
    private static let block: UInt64 = 8
    /// Bytes like no other block's of a test.
    private static let seed = 77

    private func replica(_ bench: StoreBench) throws -> VolumeHandle {
        _ = try bench.command(
            .createVolume(
                VolumeSpecification(id: Self.id, name: "r", byteCount: 1 << 30, replica: [1])
            )
        )
        return try bench.handle(1)
    }

    private func write(_ bench: StoreBench, _ volume: VolumeHandle, number: UInt64) throws {
        let status = try bench.numbered(
            .write,
            volume,
            block: Self.block,
            number: number,
            seed: Self.seed,
            flags: .streamed
        )
        try #require(status == .ok)
        try bench.flush(volume)
    }

    /// Changes a bit of the block on the device.
    private func rot(_ bench: StoreBench) throws {
        let place = try #require(bench.location(of: StoreBench.pattern(Self.seed, 4096)))
        StoreSurgery(image: bench.arena.region).flip(place + 100)
    }

    private func readStatus(_ bench: StoreBench, _ volume: VolumeHandle) throws -> StoreStatus {
        try bench.run(
            StoreRequest(
                kind: .read,
                volume: volume,
                offset: Self.block * 4096,
                byteCount: 4096,
                region: bench.buffers.region.slice(0, 8192),
                token: 0
            )
        ).status
    }

    /// Asks for a repair.
    ///
    /// - Returns: Copies that were put elsewhere.
    private func repair(
        _ bench: StoreBench,
        _ volume: VolumeHandle,
        number: UInt64,
        seed: Int = StoreRepairTests.seed
    ) throws -> UInt32 {
        let region = bench.buffers.region.slice(0, 4096)
        region.copy(from: StoreBench.pattern(seed, 4096))
        let completion = try bench.run(
            StoreRequest(
                kind: .write,
                volume: volume,
                offset: Self.block * 4096,
                byteCount: 4096,
                region: region,
                flags: .repair,
                number: number,
                token: 0
            )
        )
        #expect(completion.status == .ok)
        return completion.extentCount
    }

    private func expectWhole(_ bench: StoreBench, _ volume: VolumeHandle, number: UInt64) throws {
        let found = try bench.readNumbered(volume, block: Self.block)
        #expect(found == (number, StoreBench.pattern(Self.seed, 4096)))
    }

    @Test("A block that rotted is whole again, after a crash too, and under the same number")
    func repair_rotten_isWhole() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        try write(bench, volume, number: 50)
        let live = bench.store.space.liveByteCount
        try rot(bench)
        #expect(try readStatus(bench, volume) == .mediaError)
        // Another number, or other bytes, is another write.
        #expect(try repair(bench, volume, number: 49) == 0)
        #expect(try repair(bench, volume, number: 51) == 0)
        #expect(try repair(bench, volume, number: 50, seed: 3) == 0)
        #expect(try readStatus(bench, volume) == .mediaError)
        #expect(try repair(bench, volume, number: 50) == 1)
        #expect(bench.store.counters.repairedBlockCount == 1)
        try expectWhole(bench, volume, number: 50)
        #expect(bench.store.space.liveByteCount == live)
        try bench.flush(volume)
        try bench.crash()
        try expectWhole(bench, try bench.handle(1), number: 50)
        #expect(bench.store.streamPosition(of: Self.id) == 50)
        #expect(bench.problems() == [])
    }

    @Test("What was written since is left alone")
    func repair_writtenSince_doesNothing() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        try write(bench, volume, number: 50)
        let newer = try bench.numbered(.write, volume, block: Self.block, number: 51, seed: 5)
        #expect(newer == .ok)
        #expect(try repair(bench, volume, number: 50) == 0)
        let found = try bench.readNumbered(volume, block: Self.block)
        #expect(found == (51, StoreBench.pattern(5, 4096)))
        let trimmed = try bench.numbered(.trim, volume, block: Self.block, number: 52)
        #expect(trimmed == .ok)
        #expect(try repair(bench, volume, number: 52) == 0)
    }

    @Test("A snapshot's copy is mended, for the volume that stands on it too")
    func repair_inSnapshot_isWhole() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        try write(bench, volume, number: 50)
        let snapshot = try bench.command(.createSnapshot(volume: Self.id, name: "s"))
        let below = try #require(bench.store.openVolume(Self.id, layer: snapshot.layer))
        try rot(bench)
        // The volume's leaf now knows the place that is damaged.
        #expect(try readStatus(bench, volume) == .mediaError)
        #expect(try readStatus(bench, below) == .mediaError)
        #expect(try repair(bench, volume, number: 50) == 1)
        #expect(try readStatus(bench, volume) == .ok)
        try expectWhole(bench, volume, number: 50)
        #expect(try readStatus(bench, below) == .ok)
        // And when something newer hides it, through the snapshot's own handle.
        let newer = try bench.numbered(.write, volume, block: Self.block, number: 60, seed: 5)
        #expect(newer == .ok)
        try bench.flush(volume)
        let place = try #require(
            stride(from: bench.arena.region.byteCount - 4096, to: 0, by: -4096).first {
                bench.arena.region.slice($0, 4096).array() == StoreBench.pattern(Self.seed, 4096)
            }
        )
        StoreSurgery(image: bench.arena.region).flip(place + 9)
        #expect(try readStatus(bench, below) == .mediaError)
        #expect(try repair(bench, below, number: 50) == 1)
        #expect(try readStatus(bench, below) == .ok)
        try bench.flush(volume)
        try bench.crash()
        #expect(bench.problems() == [])
    }

    @Test("Repairs that cannot be are refused")
    func repair_absurd_isRefused() throws {
        let bench = try StoreBench()
        let volume = try replica(bench)
        let region = bench.buffers.region.slice(0, 8192)
        for (kind, byteCount, number, flags) in [
            (StoreRequest.Kind.write, UInt64(8192), UInt64(1), StoreRequestFlags.repair),
            (.write, 4096, 0, .repair), (.trim, 4096, 1, .repair),
            (.write, 4096, 1, [.repair, .streamed]),
        ] {
            let request = StoreRequest(
                kind: kind,
                volume: volume,
                offset: 0,
                byteCount: byteCount,
                region: region,
                flags: flags,
                number: number,
                token: 0
            )
            #expect(try bench.run(request).status == .invalid)
        }
    }
}
