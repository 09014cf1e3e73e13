import BlockCore
import LogFormat
import Testing

/// The places of the fields, as Docs/on-disk-format.md gives them: a change here is a new version.
@Suite struct LayoutTests {
    @Test("A superblock's fields are where the document says")
    func superblock_places() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            LogFormatTests.superblock.encode(into: block)
            #expect(block.slice(0, 8).array() == Array("CAIRNLOG".utf8))
            #expect(block.load(12, as: UInt32.self) == 3)
            #expect(block.load(16, as: UInt64.self) == 0x1122)
            #expect(block.load(24, as: UInt64.self) == 0x3344)
            #expect(block.load(32, as: UInt64.self) == 7)
            #expect(block.load(40, as: UInt64.self) == 1 << 30)
            #expect(block.load(48, as: UInt32.self) == 4 << 20)
            #expect(block.load(52, as: UInt32.self) == 200)
            #expect(block.load(56, as: UInt64.self) == 3)
            #expect(block.load(64, as: UInt64.self) == 4)
            #expect(block.load(72, as: UInt64.self) == 99)
            #expect(block.load(80, as: UInt32.self) == 9000)
            #expect(block.load(84, as: UInt32.self) == 0xDEAD_BEEF)
            #expect(block.load(88, as: UInt32.self) == 1)
            #expect(block.load(92, as: UInt64.self) == 256)
            #expect(block.load(100, as: UInt32.self) == 3)
            let crc = block.load(8, as: UInt32.self)
            block.store(0 as UInt32, at: 8)
            #expect(block.crc32c() == crc)
        }
    }

    @Test("A batch's and a record's fields are where the document says")
    func batch_places() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            RecordHeader(
                kind: .data,
                flags: .staysAllocated,
                level: 2,
                blockCount: 1,
                layer: LayerID(11),
                firstBlock: 12,
                epoch: 13,
                sequence: 14,
                shard: 15,
                tailByteCount: 4
            ).encode(into: block, at: 64)
            block.store(0x0102_0304 as UInt32, at: 112)
            BatchHeader(
                identity: 21,
                incarnation: 22,
                sequence: 23,
                location: 24,
                payloadBlockCount: 1,
                recordCount: 1,
                recordByteCount: 52,
                promisedSequence: 20
            ).encode(into: block)
            #expect(block.slice(0, 4).array() == Array("CBAT".utf8))
            let words: [(Int, UInt64)] = [(8, 21), (16, 22), (24, 23), (32, 24), (56, 20)]
            for (offset, value) in words {
                #expect(block.load(offset, as: UInt64.self) == value)
            }
            for (offset, value) in [(40, 1), (44, 1), (48, 52)] as [(Int, UInt32)] {
                #expect(block.load(offset, as: UInt32.self) == value)
            }
            #expect(block.slice(64, 4).array() == [1, 1, 2, 0])
            #expect(block.load(68, as: UInt32.self) == 1)
            for (offset, value) in [(72, 11), (80, 12), (88, 13), (96, 14)] as [(Int, UInt64)] {
                #expect(block.load(offset, as: UInt64.self) == value)
            }
            #expect(block.load(104, as: UInt32.self) == 15)
            #expect(block.load(108, as: UInt32.self) == 4)
            #expect(BatchHeader.decode(block) != nil)
        }
    }

    @Test("A map entry's bits are where the document says")
    func mapEntry_bits() {
        let entry = MapEntry(
            location: 0xAB_CDEF_0123,
            crc: 0x4567_89AB,
            sequence: 0x11_2233_4455_6677
        )
        #expect(entry.word0 == 0x55_6677 << 40 | 0xAB_CDEF_0123)
        #expect(entry.word1 == 0x1122_3344 << 32 | 0x4567_89AB)
    }
}
