import BlockCore
import ISCSIWire
import Synchronization
import Testing

/// Memory for one test; it outlives every view of it.
struct Scratch {
    private static let arenas = Mutex<[MemoryArena]>([])
    let arena = MemoryArena(byteCount: 16 << 10, usesHugePages: false)

    init() {
        let arena = arena
        Self.arenas.withLock { $0.append(arena) }
    }

    func region(_ bytes: [UInt8]) -> ByteRegion {
        let region = arena.region.slice(0, bytes.count)
        region.copy(from: bytes)
        return region
    }
}

@Suite struct ISCSIHeaderTests {
    /// A SCSI Command as RFC 7143, 11.3, lays it out: WRITE (10) of 8 blocks, immediate data.
    private static let command: [UInt8] = [
        0x41, 0xA1, 0x00, 0x00,  // immediate, SCSI Command; F, W, SIMPLE
        0x00, 0x00, 0x02, 0x00,  // no additional headers, 512 bytes of data
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // LUN 0
        0x11, 0x22, 0x33, 0x44,  // initiator task tag
        0x00, 0x00, 0x10, 0x00,  // expected data transfer length
        0x00, 0x00, 0x00, 0x05,  // CmdSN
        0x00, 0x00, 0x00, 0x09,  // ExpStatSN
        0x2A, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00,  // the command
        0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ]

    @Test("A command's fields are where the RFC has them")
    func decode_command_findsFields() {
        let header = ISCSIHeader(decoding: Scratch().region(Self.command))
        #expect(header.opcode == .command)
        #expect(header.isImmediate)
        #expect(header.isFinal)
        #expect(header.flags == 0xA1)
        #expect(header.dataByteCount == 512)
        #expect(header.taskTag == 0x1122_3344)
        #expect(header.word20 == 4096)
        #expect(header.commandNumber == 5)
        #expect(header.expectedStatus == 9)
        #expect(header.long32 == 0x2A00_0000_0010_0000)
        #expect(header.long40 == 0x0800_0000_0000_0000)
    }

    @Test("What is encoded is what was decoded, for every byte that is not reserved")
    func encode_afterDecode_isSame() {
        let scratch = Scratch()
        var seed: UInt8 = 1
        for _ in 0..<200 {
            var bytes = (0..<48).map { _ in
                seed = seed &* 29 &+ 13
                return seed
            }
            bytes[0] &= 0x7F
            let header = ISCSIHeader(decoding: scratch.region(bytes))
            let out = scratch.arena.region.slice(1024, 48)
            header.encode(into: out)
            #expect(out.array() == bytes)
        }
    }

    @Test("Every operation code is its own, and no other number is one")
    func opcode_everyNumber_isKnownOrNil() {
        let known = Set(ISCSIOpcode.allCases.map(\.rawValue))
        #expect(known.count == 18)
        for code in 0..<64 as Range<UInt8> {
            var header = ISCSIHeader(.nopOut)
            header.code = code
            #expect((header.opcode != nil) == known.contains(code))
        }
    }

    @Test("Padding makes whole words")
    func padding_anyLength_isWholeWords() {
        var header = ISCSIHeader(.dataOut)
        for (count, padded) in [(0, 0), (1, 4), (4, 4), (5, 8), (0xFF_FFFF, 0x100_0000)] {
            header.dataByteCount = UInt32(count)
            #expect(header.paddedByteCount == padded)
        }
    }

    /// Spec: RFC 7143, appendix A.4.
    @Test("Digests are the RFC's")
    func digest_examples_areTheSpecifications() {
        let scratch = Scratch()
        let ascending = (0..<32).map { UInt8($0) }
        let examples: [([UInt8], [UInt8])] = [
            ([UInt8](repeating: 0, count: 32), [0xAA, 0x36, 0x91, 0x8A]),
            ([UInt8](repeating: 0xFF, count: 32), [0x43, 0xAB, 0xA8, 0x62]),
            (ascending, [0x4E, 0x79, 0xDD, 0x46]),
            (ascending.reversed(), [0x5C, 0xDB, 0x3F, 0x11]),
        ]
        for (message, expected) in examples {
            let region = scratch.region(message)
            let out = scratch.arena.region.slice(4096, 4)
            ISCSIDigest.store(region.crc32c(), into: out, at: 0)
            #expect(out.array() == expected)
            #expect(ISCSIDigest.load(out, at: 0) == region.crc32c())
            // In two pieces it is the same.
            let front = region.slice(0, 7).crc32c()
            #expect(region.suffix(from: 7).crc32c(seed: front) == region.crc32c())
        }
    }

    @Test("The read length of a bidirectional command is found behind other headers, or not at all")
    func additional_anyBytes_areSafe() {
        let scratch = Scratch()
        let other: [UInt8] = [0x00, 0x03, 0x01, 0x00, 0xAA, 0xBB, 0x00, 0x00]
        let read: [UInt8] = [0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00, 0x00]
        let find = ISCSIAdditionalHeader.expectedReadByteCount
        #expect(find(scratch.region(read)) == 65536)
        #expect(find(scratch.region(other + read)) == 65536)
        #expect(find(scratch.region(other)) == nil)
        for length in 0..<16 {
            _ = find(scratch.region(Array((other + read).prefix(length))))
        }
        for first in 0...255 as ClosedRange<UInt8> {
            #expect(find(scratch.region([0xFF, first, 0x02, 0, 0, 0, 0, 0])) == nil)
        }
    }
}
