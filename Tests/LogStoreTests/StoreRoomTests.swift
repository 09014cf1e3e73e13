import BlockCore
import LogStore
import Testing

@Suite struct StoreRoomTests {
    @Test("Where damage keeps the cleaner from making room, writes are refused and never wait")
    func overwrite_damagedSegments_refusedNotStuck() throws {
        let bench = try StoreBench(byteCount: 64 << 20, segmentByteCount: 256 << 10)
        let capacity = Int(bench.store.space.capacityByteCount) / 4096
        let blockCount = capacity * 85 / 100 & ~255
        let volume = try bench.volume(1, byteCount: UInt64(blockCount) * 4096)
        let fill = StoreBench.pattern(1, 1 << 20)
        for index in 0..<(blockCount / 256) {
            try #require(try bench.write(volume, at: UInt64(index) << 20, fill) == .ok)
        }
        try bench.flush(volume)
        try bench.crash()
        // A block in each 256 KiB rots: no segment can be emptied.
        let rotten = StoreBench.pattern(2, 4096)
        let first = Array(fill[0..<4096])
        for offset in stride(from: 1 << 20, to: bench.arena.region.byteCount, by: 4096)
        where bench.arena.region.slice(offset, 4096).array().elementsEqual(first) {
            for part in stride(from: 0, to: 1 << 20, by: 256 << 10)
            where offset + part + 4096 <= bench.arena.region.byteCount {
                bench.arena.region.slice(offset + part, 4096).copy(from: rotten)
            }
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
}
