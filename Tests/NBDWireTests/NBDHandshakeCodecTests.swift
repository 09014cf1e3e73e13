import BlockCore
import NBDWire
import Testing

@Suite struct NBDHandshakeCodecTests {
    @Test func greeting_golden() throws {
        let scratch = Scratch()
        let bytes = hex(
            """
            4e42444d41474943    # NBDMAGIC
            49484156454f5054    # IHAVEOPT
            0003                # fixed newstyle, no zeroes
            """
        )
        let greeting = NBDGreeting(flags: [.fixedNewstyle, .noZeroes])
        #expect(greeting.encode(into: scratch.region) == bytes.count)
        #expect(scratch.region.slice(0, bytes.count).array() == bytes)
        #expect(try NBDGreeting.decode(scratch.region) == greeting)
        expectTruncationSeen(bytes) { try NBDGreeting.decode($0) }
        expectMagicFlipsSeen(bytes, magicByteCount: 16) { try NBDGreeting.decode($0) }
    }

    @Test func optionHeader_golden() throws {
        let scratch = Scratch()
        let bytes = hex(
            """
            49484156454f5054    # IHAVEOPT
            00000007            # GO
            fffffffe            # data length
            """
        )
        let header = NBDOptionHeader(optionCode: 7, dataByteCount: 0xFFFF_FFFE)
        #expect(header.option == .go)
        #expect(header.encode(into: scratch.region) == bytes.count)
        #expect(scratch.region.slice(0, bytes.count).array() == bytes)
        #expect(try NBDOptionHeader.decode(scratch.region) == header)
        expectTruncationSeen(bytes) { try NBDOptionHeader.decode($0) }
        expectMagicFlipsSeen(bytes, magicByteCount: 8) { try NBDOptionHeader.decode($0) }
    }

    @Test func optionReplyHeader_golden() throws {
        let scratch = Scratch()
        let bytes = hex(
            """
            0003e889045565a9    # magic
            00000063            # option 99
            80000001            # ERR_UNSUP
            00000005            # data length
            """
        )
        let header = NBDOptionReplyHeader(optionCode: 99, kind: .unsupported, dataByteCount: 5)
        #expect(header.encode(into: scratch.region) == bytes.count)
        #expect(scratch.region.slice(0, bytes.count).array() == bytes)
        #expect(try NBDOptionReplyHeader.decode(scratch.region) == header)
        expectTruncationSeen(bytes) { try NBDOptionReplyHeader.decode($0) }
        expectMagicFlipsSeen(bytes, magicByteCount: 8) { try NBDOptionReplyHeader.decode($0) }
    }

    @Test func optionReplyKinds_splitAtBit31() {
        for kind in NBDOptionReplyKind.allCases { #expect(kind.isError == (kind.rawValue > 4)) }
    }

    @Test func exportInfo_golden() throws {
        let scratch = Scratch()
        let bytes = hex("0000000100000000 0d6d # 4 GiB, every flag but read-only")
        let info = NBDExportInfo(
            exportByteCount: 1 << 32,
            flags: [
                .hasFlags, .flush, .forceUnitAccess, .trim, .writeZeroes, .multipleConnections,
                .cache, .fastZero,
            ]
        )
        #expect(info.encode(into: scratch.region) == bytes.count)
        #expect(scratch.region.slice(0, bytes.count).array() == bytes)
        #expect(try NBDExportInfo.decode(scratch.region) == info)
        expectTruncationSeen(bytes) { try NBDExportInfo.decode($0) }
    }

    @Test func blockSizes_golden() throws {
        let scratch = Scratch()
        let bytes = hex("00000200 00001000 02000000 # 512, 4096, 32 MiB")
        let sizes = NBDBlockSizes(
            blockByteCountMin: 512,
            blockByteCountPreferred: 4096,
            payloadByteCountMax: 32 << 20
        )
        #expect(sizes.encode(into: scratch.region) == bytes.count)
        #expect(scratch.region.slice(0, bytes.count).array() == bytes)
        #expect(try NBDBlockSizes.decode(scratch.region) == sizes)
        expectTruncationSeen(bytes) { try NBDBlockSizes.decode($0) }
    }

    @Test(
        arguments: [
            (1, 512, 512, true), (1, 4096, 1 << 25, true), (65536, 65536, 65536, true),
            (512, 512, .max, true), (0, 512, 512, false), (3, 512, 512, false),
            (131072, 131072, 131072, false), (1, 256, 4096, false), (1, 513, 4096, false),
            (4096, 512, 4096, false), (512, 4096, 4095, false),
        ] as [(UInt32, UInt32, UInt32, Bool)]
    )
    func blockSizes_rules(_ min: UInt32, _ preferred: UInt32, _ payload: UInt32, _ isValid: Bool) {
        let sizes = NBDBlockSizes(
            blockByteCountMin: min,
            blockByteCountPreferred: preferred,
            payloadByteCountMax: payload
        )
        #expect(sizes.isValid == isValid)
    }

    private func expectTruncationSeen<T>(
        _ bytes: [UInt8],
        _ decode: (ByteRegion) throws -> T
    ) {
        let scratch = Scratch()
        for length in 0..<bytes.count {
            let missing = UInt32(bytes.count - length)
            #expect(throws: NBDWireError.needMoreBytes(missingByteCount: missing)) {
                try decode(scratch.region(Array(bytes[..<length])))
            }
        }
    }

    private func expectMagicFlipsSeen<T>(
        _ bytes: [UInt8],
        magicByteCount: Int,
        _ decode: (ByteRegion) throws -> T
    ) {
        let scratch = Scratch()
        for bit in 0..<magicByteCount * 8 {
            var flipped = bytes
            flipped[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: NBDWireError.badMagic) { try decode(scratch.region(flipped)) }
        }
    }
}

@Suite struct NBDTextTests {
    private let scratch = Scratch()

    @Test func valid_isDecoded() throws {
        for text in ["", "vol", "größe/\u{1F4BE}", String(repeating: "n", count: 4096)] {
            #expect(try NBDText.decode(scratch.region(Array(text.utf8))) == text)
            #expect(NBDText.isAllowed(text))
        }
    }

    @Test(
        arguments: [
            [0x00], [0x61, 0x00], [0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82],
            [0xF4, 0x90, 0x80, 0x80], [0x80],
        ] as [[UInt8]]
    )
    func notText_isBadString(_ bytes: [UInt8]) {
        #expect(throws: NBDWireError.badString) { try NBDText.decode(scratch.region(bytes)) }
    }

    @Test func tooLong_isTooBig() {
        let bytes = [UInt8](repeating: 0x61, count: 4097)
        #expect(throws: NBDWireError.tooBig) { try NBDText.decode(scratch.region(bytes)) }
        #expect(!NBDText.isAllowed(String(repeating: "n", count: 4097)))
        #expect(!NBDText.isAllowed("a\0b"))
    }
}

@Suite struct NBDOptionDataTests {
    private let scratch = Scratch()

    @Test func info_golden() throws {
        let bytes = hex(
            """
            00000003            # name length
            766f6c              # vol
            0002                # two requests
            0003 0001           # BLOCK_SIZE, NAME
            """
        )
        let output = Scratch()
        #expect(
            NBDInfoQuery.encode(name: "vol", kinds: [3, 1], into: output.region) == bytes.count
        )
        #expect(output.region.slice(0, bytes.count).array() == bytes)
        let query = try NBDInfoQuery.decode(scratch.region(bytes))
        #expect(query.name.array() == Array("vol".utf8))
        #expect(query.contains(.blockSize))
        #expect(query.contains(.name))
        #expect(!query.contains(.description))
        expectMalformedAtEveryOtherLength(bytes) { _ = try NBDInfoQuery.decode($0) }
    }

    @Test(arguments: [7, 0x7FFF_FFFF, 0xFFFF_FFFA, 0xFFFF_FFFF] as [UInt32])
    func info_nameBeyondData_isMalformed(_ byteCount: UInt32) {
        let region = scratch.region([UInt8](repeating: 0x61, count: 10))
        region.storeBigEndian(byteCount, at: 0)
        #expect(throws: NBDWireError.malformed) { try NBDInfoQuery.decode(region) }
    }

    @Test func meta_golden() throws {
        let bytes = hex(
            """
            00000003            # name length
            766f6c              # vol
            00000002            # two queries
            00000005            # query length
            626173653a          # base:
            00000000            # an empty query
            """
        )
        let output = Scratch()
        let used = NBDMetaQuery.encode(name: "vol", queries: ["base:", ""], into: output.region)
        #expect(output.region.slice(0, used).array() == bytes)
        let query = try NBDMetaQuery.decode(scratch.region(bytes))
        #expect(query.name.array() == Array("vol".utf8))
        #expect(query.queryCount == 2)
        var texts: [[UInt8]] = []
        try query.forEachQuery { text throws(NBDWireError) in texts.append(text.array()) }
        #expect(texts == [Array("base:".utf8), []])
        expectMalformedAtEveryOtherLength(bytes) { _ = try NBDMetaQuery.decode($0) }
    }

    @Test func meta_countBeyondData_endsSoon() {
        let region = scratch.region([0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])
        #expect(throws: NBDWireError.malformed) { try NBDMetaQuery.decode(region) }
    }

    private func expectMalformedAtEveryOtherLength(
        _ bytes: [UInt8],
        _ decode: (ByteRegion) throws -> Void
    ) {
        for length in 0..<bytes.count {
            #expect(throws: NBDWireError.malformed, "\(length) bytes") {
                try decode(scratch.region(Array(bytes[..<length])))
            }
        }
        #expect(throws: NBDWireError.malformed) { try decode(scratch.region(bytes + [0])) }
    }
}
