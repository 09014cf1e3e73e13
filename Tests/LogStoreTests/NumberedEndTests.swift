import BlockCore
import LogStore
import TestSupport
import Testing

/// When numbered changes end, and which checksums they leave.
@Suite(.background) struct NumberedEndTests {
    @Test("A numbered change in a writethrough volume waits for a flush, not for the device")
    func numbered_writethrough_endsInMemory() throws {
        let bench = try StoreBench()
        let specification = VolumeSpecification(
            id: VolumeID(1),
            name: "r",
            byteCount: 1 << 30,
            durability: .writethrough,
            replica: [1]
        )
        _ = try bench.command(.createVolume(specification))
        let volume = try bench.handle(1)
        let before = bench.store.counters.batchCount
        for counter in 1...20 as ClosedRange<UInt64> {
            let status = try bench.numbered(
                .write,
                volume,
                block: counter,
                number: counter,
                flags: .streamed
            )
            #expect(status == .ok)
        }
        #expect(bench.store.counters.batchCount == before)
        try bench.flush(volume)
        #expect(bench.store.counters.batchCount == before + 1)
        try bench.crash()
        #expect(bench.store.streamPosition(of: VolumeID(1)) == 20)
    }

    @Test("Checksums that come with a numbered write are the ones that are kept")
    func numbered_withChecksums_keepsThem() throws {
        let bench = try StoreBench()
        let specification = VolumeSpecification(
            id: VolumeID(1),
            name: "r",
            byteCount: 1 << 30,
            replica: [1]
        )
        _ = try bench.command(.createVolume(specification))
        let volume = try bench.handle(1)
        func write(_ number: UInt64, _ checksums: [UInt32]) throws -> StoreStatus {
            let region = bench.buffers.region.slice(0, 2 * 4096)
            region.copy(from: StoreBench.pattern(3, 2 * 4096))
            let place = bench.buffers.region.slice(1 << 20, 4 * checksums.count)
            for (index, crc) in checksums.enumerated() { place.store(crc, at: 4 * index) }
            var request = StoreRequest(
                kind: .write,
                volume: volume,
                offset: 8192,
                byteCount: 8192,
                region: region,
                number: number,
                token: 0
            )
            request.checksums = place
            return try bench.run(request).status
        }
        let bytes = bench.buffers.region.slice(0, 2 * 4096)
        bytes.copy(from: StoreBench.pattern(3, 2 * 4096))
        let right = [bytes.slice(0, 4096).crc32c(), bytes.slice(4096, 4096).crc32c()]
        #expect(try write(1, right) == .ok)
        #expect(try bench.readNumbered(volume, block: 2, count: 2).number == 1)
        #expect(try write(2, [right[0]]) == .invalid)
        // Nobody looks at the bytes again: one that is wrong is found when they are read.
        #expect(try write(3, [right[0], right[1] ^ 1]) == .ok)
        try bench.flush(volume)
        #expect(try bench.readNumbered(volume, block: 2).number == 3)
        let damaged = try bench.run(
            StoreRequest(
                kind: .read,
                volume: volume,
                offset: 3 * 4096,
                byteCount: 4096,
                region: bench.buffers.region.slice(4 << 20, 8192),
                token: 0
            )
        )
        #expect(damaged.status == .mediaError)
    }
}
