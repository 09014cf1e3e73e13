import BlockCore
import Testing

@Suite struct ByteRegionTests {
    @Test("CRC-32C matches the RFC 3720 vectors")
    func crc32c_rfcVectors_match() {
        let arena = MemoryArena(byteCount: 4096)
        let region = arena.allocate(byteCount: 32)
        region.zero()
        #expect(region.crc32c() == 0x8A91_36AA)
        region.copy(from: [UInt8](repeating: 0xFF, count: 32))
        #expect(region.crc32c() == 0x62A8_AB43)
        region.copy(from: (0..<32).map { UInt8($0) })
        #expect(region.crc32c() == 0x46DD_794E)
    }

    @Test("Memory that the kernel does not grant is refused, and told beforehand")
    func arena_notGranted_isNil() {
        #expect(MemoryArena.canMap(byteCount: 1 << 20))
        #expect(!MemoryArena.canMap(byteCount: 1 << 60))
        #expect(MemoryArena(sparseByteCountIfGranted: 1 << 60) == nil)
        let arena = MemoryArena(sparseByteCountIfGranted: 5000)
        #expect(arena?.region.byteCount == 8192)
        #expect(arena?.region.slice(0, 8).byteCount == 8)
    }

    @Test("CRC-32C continues from a seed")
    func crc32c_split_equalsWhole() {
        let arena = MemoryArena(byteCount: 4096)
        let region = arena.allocate(byteCount: 100)
        region.copy(from: (0..<100).map { UInt8($0) })
        for cut in 0...100 {
            let first = region.slice(0, cut).crc32c()
            #expect(region.suffix(from: cut).crc32c(seed: first) == region.crc32c())
        }
    }

    @Test("Integers round-trip in both byte orders, at every alignment")
    func integers_everyAlignment_roundTrip() {
        let arena = MemoryArena(byteCount: 4096)
        let region = arena.allocate(byteCount: 64)
        for offset in 0..<16 {
            region.store(0x0102_0304_0506_0708 as UInt64, at: offset)
            #expect(region.load(offset, as: UInt64.self) == 0x0102_0304_0506_0708)
            #expect(region.load(offset, as: UInt8.self) == 8)
            region.storeBigEndian(0x0102_0304 as UInt32, at: offset)
            #expect(region.loadBigEndian(offset, as: UInt32.self) == 0x0102_0304)
            #expect(region.load(offset, as: UInt8.self) == 1)
        }
    }

    @Test("isZero sees a single set bit anywhere")
    func isZero_singleByte_detected() {
        let arena = MemoryArena(byteCount: 4096)
        let region = arena.allocate(byteCount: 128)
        region.zero()
        #expect(region.isZero)
        for index in 0..<128 {
            region.store(1 as UInt8, at: index)
            #expect(!region.isZero)
            region.store(0 as UInt8, at: index)
        }
    }

    @Test("A slice beyond the region traps")
    func slice_beyondEnd_traps() async {
        await #expect(processExitsWith: .failure) {
            let arena = MemoryArena(byteCount: 4096)
            _ = arena.region.slice(4000, 97)
        }
    }

    @Test(
        "A large arena begins at a huge page, a small or a sparse one at a page; all read as zero"
    )
    func arena_sizes_alignedAndZero() {
        let huge = 2 << 20
        for (byteCount, isHuge) in [(4096, false), (huge, true), (huge + 4096, true)] {
            for _ in 0..<4 {
                let arena = MemoryArena(byteCount: byteCount)
                // SAFETY: the address is looked at, not used.
                let address = unsafe UInt(bitPattern: arena.region.address)
                #expect(address % (isHuge ? UInt(huge) : 4096) == 0)
                #expect(arena.region.isZero)
                // All of it may be written, to the last byte.
                arena.region.store(1 as UInt8, at: byteCount - 1)
            }
        }
        let sparse = MemoryArena(byteCount: huge + 4096, usesHugePages: false)
        #expect(sparse.region.isZero)
    }
}
