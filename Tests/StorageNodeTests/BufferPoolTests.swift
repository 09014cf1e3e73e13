import BlockCore
import StorageNode
import Testing

@Suite struct BufferPoolTests {
    @Test func allocate_everySize_disjointAndExact() throws {
        let arena = MemoryArena(byteCount: 16 << 20)
        let pool = BufferPool(region: arena.region)
        var held: [ByteRegion] = []
        for pages in [1, 2, 3, 5, 8, 17, 64, 257, 512] {
            let buffer = try #require(pool.allocate(byteCount: pages * 4096 - 1))
            #expect(buffer.byteCount == pages * 4096)
            held.append(buffer)
        }
        let heldByteCount = held.reduce(0) { $0 + $1.byteCount }
        #expect(pool.freeByteCount == pool.byteCount - heldByteCount)
        let ranges = held.map(range).sorted { $0.lowerBound < $1.lowerBound }
        for (left, right) in zip(ranges, ranges.dropFirst()) {
            #expect(left.upperBound <= right.lowerBound)
        }
        for buffer in held { pool.release(buffer) }
        #expect(pool.freeByteCount == pool.byteCount)
    }

    @Test func allocate_exhausted_refusesThenRecovers() {
        let arena = MemoryArena(byteCount: 1 << 20)
        let pool = BufferPool(region: arena.region)
        var held: [ByteRegion] = []
        while let buffer = pool.allocate(byteCount: 8192) { held.append(buffer) }
        #expect(held.count == 128)
        #expect(pool.failureCount == 1)
        for buffer in held { pool.release(buffer) }
        // What was cut into pairs merges again when a large buffer asks for it.
        #expect(pool.allocate(byteCount: 1 << 20) != nil)
        #expect(pool.freeByteCount == 0)
    }

    @Test func arenaSmallerThanTheLargestBuffer_isUsedWhole() {
        let arena = MemoryArena(byteCount: 23 * 4096)
        let pool = BufferPool(region: arena.region)
        var count = 0
        while pool.allocate(byteCount: 4096) != nil { count += 1 }
        #expect(count == 23)
        #expect(pool.allocate(byteCount: 2 << 20) == nil)
    }

    @Test(arguments: [1 as UInt64, 2, 3]) func randomTraffic_neverOverlaps(seed: UInt64) {
        let pageCount = 2048
        let arena = MemoryArena(byteCount: pageCount * 4096)
        let pool = BufferPool(region: arena.region)
        var random = SplitMix(state: seed)
        var owners = [Int](repeating: 0, count: pageCount)
        var held: [(buffer: ByteRegion, owner: Int)] = []
        for step in 1...20_000 {
            let wantsRelease = random.next() % 2 == 0 || held.count > 200
            if wantsRelease, !held.isEmpty {
                let index = Int(random.next() % UInt64(held.count))
                let (buffer, owner) = held.remove(at: index)
                for page in pages(buffer, of: arena) {
                    guard owners[page] == owner else {
                        Issue.record("seed \(seed), step \(step): page \(page) changed hands")
                        return
                    }
                    owners[page] = 0
                }
                pool.release(buffer)
                continue
            }
            let byteCount = 1 + Int(random.next() % (random.next() % 4 == 0 ? 1_060_000 : 9_000))
            guard let buffer = pool.allocate(byteCount: byteCount) else { continue }
            for page in pages(buffer, of: arena) {
                guard owners[page] == 0 else {
                    Issue.record("seed \(seed), step \(step): page \(page) handed out twice")
                    return
                }
                owners[page] = step
            }
            held.append((buffer, step))
        }
        for (buffer, _) in held { pool.release(buffer) }
        #expect(pool.freeByteCount == pool.byteCount)
        var largest = 0
        while pool.allocate(byteCount: 2 << 20) != nil { largest += 1 }
        #expect(largest == pageCount / 512, "seed \(seed): everything merges again")
    }

    private func range(_ buffer: ByteRegion) -> Range<UInt> {
        // SAFETY: the address is only compared.
        let start = unsafe UInt(bitPattern: buffer.address)
        return start..<start + UInt(buffer.byteCount)
    }

    private func pages(_ buffer: ByteRegion, of arena: MemoryArena) -> Range<Int> {
        let first = Int(range(buffer).lowerBound - range(arena.region).lowerBound) / 4096
        return first..<first + buffer.byteCount / 4096
    }
}

/// SplitMix64: the seed is the whole state, so that a failure replays.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
