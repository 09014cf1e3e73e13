import BlockCore
import NBDWire
import Testing

@Suite struct NBDRequestHeaderTests {
    static let header = NBDRequestHeader(
        flags: [.forceUnitAccess, .noHole],
        commandCode: 6,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1112_1314_1516_1718,
        byteCount: 0x2122_2324
    )
    static let compact = hex(
        """
        25609513            # magic
        0003 0006           # flags, WRITE_ZEROES
        0102030405060708    # cookie
        1112131415161718    # offset
        21222324            # length
        """
    )
    static let extended = hex(
        """
        21e41c71            # magic
        0003 0006           # flags, WRITE_ZEROES
        0102030405060708    # cookie
        1112131415161718    # offset
        0000000021222324    # length
        """
    )

    @Test(arguments: [
        (NBDReplyMode.simple, compact), (.structured, compact), (.extended, extended),
    ])
    func golden_bothWays(_ mode: NBDReplyMode, _ bytes: [UInt8]) throws {
        let scratch = Scratch()
        #expect(try NBDRequestHeader.decode(scratch.region(bytes), mode: mode) == Self.header)
        #expect(Self.header.encode(into: scratch.region, at: 5, mode: mode) == bytes.count)
        #expect(scratch.region.slice(5, bytes.count).array() == bytes)
    }

    @Test func extremes_roundTrip() throws {
        let scratch = Scratch()
        for value in [0, 1, UInt64(UInt32.max), UInt64.max] {
            let header = NBDRequestHeader(
                flags: NBDCommandFlags(rawValue: .max),
                commandCode: .max,
                cookie: value,
                offset: value,
                byteCount: value
            )
            header.encode(into: scratch.region, mode: .extended)
            #expect(try NBDRequestHeader.decode(scratch.region, mode: .extended) == header)
            #expect(header.command == nil)
        }
    }

    @Test(arguments: [(NBDReplyMode.simple, compact), (.extended, extended)])
    func truncated_saysWhatIsMissing(_ mode: NBDReplyMode, _ bytes: [UInt8]) {
        let scratch = Scratch()
        let whole = scratch.region(bytes)
        for length in 0..<bytes.count {
            let missing = UInt32(bytes.count - length)
            #expect(throws: NBDWireError.needMoreBytes(missingByteCount: missing)) {
                try NBDRequestHeader.decode(whole.slice(0, length), mode: mode)
            }
        }
    }

    /// A flip in the magic is seen; any other changes a field, and encodes to the flipped bytes.
    @Test(arguments: [(NBDReplyMode.simple, compact), (.extended, extended)])
    func bitFlips_areSeenOrKept(_ mode: NBDReplyMode, _ bytes: [UInt8]) throws {
        let scratch = Scratch()
        let output = Scratch()
        for bit in 0..<bytes.count * 8 {
            var flipped = bytes
            flipped[bit / 8] ^= 1 << UInt8(bit % 8)
            let region = scratch.region(flipped)
            guard bit >= 32 else {
                #expect(throws: NBDWireError.badMagic) {
                    try NBDRequestHeader.decode(region, mode: mode)
                }
                continue
            }
            let header = try NBDRequestHeader.decode(region, mode: mode)
            let byteCount = header.encode(into: output.region, mode: mode)
            #expect(output.region.slice(0, byteCount).array() == flipped)
        }
    }

    @Test func otherForm_isBadMagic() {
        let scratch = Scratch()
        #expect(throws: NBDWireError.badMagic) {
            try NBDRequestHeader.decode(scratch.region(Self.extended), mode: .simple)
        }
        #expect(throws: NBDWireError.badMagic) {
            try NBDRequestHeader.decode(
                scratch.region(Self.compact + [0, 0, 0, 0]),
                mode: .extended
            )
        }
    }
}

@Suite struct NBDReplyHeaderTests {
    @Test func simpleReply_golden() throws {
        let scratch = Scratch()
        let bytes = hex(
            """
            67446698            # magic
            0000001c            # ENOSPC
            0102030405060708    # cookie
            """
        )
        let header = NBDSimpleReplyHeader(error: .noSpace, cookie: 0x0102_0304_0506_0708)
        #expect(try NBDSimpleReplyHeader.decode(scratch.region(bytes)) == header)
        #expect(header.encode(into: scratch.region, at: 3) == 16)
        #expect(scratch.region.slice(3, 16).array() == bytes)
        for length in 0..<16 {
            #expect(throws: NBDWireError.needMoreBytes(missingByteCount: UInt32(16 - length))) {
                try NBDSimpleReplyHeader.decode(scratch.region.slice(3, length))
            }
        }
        for bit in 0..<32 {
            var flipped = bytes
            flipped[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: NBDWireError.badMagic) {
                try NBDSimpleReplyHeader.decode(scratch.region(flipped))
            }
        }
    }

    static let structured = hex(
        """
        668e33ef            # magic
        0001 8001           # DONE, ERROR
        0102030405060708    # cookie
        0000000a            # payload length
        """
    )
    static let extended = hex(
        """
        6e8a278c            # magic
        0001 8001           # DONE, ERROR
        0102030405060708    # cookie
        1112131415161718    # the request's offset
        000000000000000a    # payload length
        """
    )

    @Test(arguments: [(false, structured), (true, extended)])
    func chunk_golden(_ isExtended: Bool, _ bytes: [UInt8]) throws {
        let scratch = Scratch()
        let header = NBDChunkHeader(
            .error,
            flags: .done,
            cookie: 0x0102_0304_0506_0708,
            requestOffset: isExtended ? 0x1112_1314_1516_1718 : 0,
            payloadByteCount: 10
        )
        let whole = scratch.region(bytes)
        #expect(try NBDChunkHeader.decode(whole, isExtended: isExtended) == header)
        for length in 0..<bytes.count {
            let missing = UInt32(bytes.count - length)
            #expect(throws: NBDWireError.needMoreBytes(missingByteCount: missing)) {
                try NBDChunkHeader.decode(whole.slice(0, length), isExtended: isExtended)
            }
        }
        #expect(header.encode(into: whole, isExtended: isExtended) == bytes.count)
        #expect(whole.array() == bytes)
        #expect(throws: NBDWireError.badMagic) {
            try NBDChunkHeader.decode(scratch.region(bytes + bytes), isExtended: !isExtended)
        }
    }

    @Test func chunkKind_unknown_isKeptAsNumber() throws {
        let scratch = Scratch()
        var bytes = Self.structured
        bytes[6] = 0x12
        let header = try NBDChunkHeader.decode(scratch.region(bytes), isExtended: false)
        #expect(header.kind == nil)
        #expect(header.kindCode == 0x1201)
    }
}

@Suite struct NBDChunkPayloadTests {
    @Test func offsetData_needsAByteOfData() throws {
        let scratch = Scratch()
        #expect(NBDOffsetData(offset: 0x0102_0304_0506_0708).encode(into: scratch.region) == 8)
        #expect(
            try NBDOffsetData.decode(scratch.region.slice(0, 9)).offset == 0x0102_0304_0506_0708
        )
        for length in 0...8 {
            #expect(throws: NBDWireError.malformed) {
                try NBDOffsetData.decode(scratch.region.slice(0, length))
            }
        }
    }

    @Test func offsetHole_hasOneLengthAndIsNotEmpty() throws {
        let scratch = Scratch()
        let hole = NBDOffsetHole(offset: 9, holeByteCount: 4096)
        #expect(hole.encode(into: scratch.region) == 12)
        #expect(try NBDOffsetHole.decode(scratch.region.slice(0, 12)) == hole)
        for length in [0, 11, 13] {
            #expect(throws: NBDWireError.malformed) {
                try NBDOffsetHole.decode(scratch.region.slice(0, length))
            }
        }
        NBDOffsetHole(offset: 9, holeByteCount: 0).encode(into: scratch.region)
        #expect(throws: NBDWireError.malformed) {
            try NBDOffsetHole.decode(scratch.region.slice(0, 12))
        }
    }

    @Test(arguments: [nil, 77 as UInt64?])
    func error_roundTripsAtEveryTextLength(_ offset: UInt64?) throws {
        let scratch = Scratch()
        for length in [0, 1, 15, 16, 100, NBDLimits.stringByteCountMax] {
            let text = String(repeating: "x", count: length)
            let byteCount = NBDErrorPayload.encode(
                .noSpace,
                text: text,
                offset: offset,
                into: scratch.region
            )
            #expect(byteCount == (offset == nil ? 6 : 14) + length)
            let payload = scratch.region.slice(0, byteCount)
            let error = try NBDErrorPayload.decode(payload, hasOffset: offset != nil)
            #expect(error.errorCode == 28)
            #expect(error.textByteCount == length)
            #expect(error.offset == offset)
            #expect(payload.slice(6, length).array() == Array(text.utf8))
        }
    }

    @Test func error_truncatedOrContradicting_isMalformed() {
        let scratch = Scratch()
        let byteCount = NBDErrorPayload.encode(
            .invalid,
            text: "text",
            offset: 1,
            into: scratch.region
        )
        for length in 0..<byteCount {
            #expect(throws: NBDWireError.malformed) {
                try NBDErrorPayload.decode(scratch.region.slice(0, length), hasOffset: true)
            }
        }
        scratch.region.storeBigEndian(UInt32(0), at: 0)
        #expect(throws: NBDWireError.malformed) {
            try NBDErrorPayload.decode(scratch.region.slice(0, byteCount), hasOffset: true)
        }
    }

    @Test(arguments: [false, true])
    func blockStatus_roundTrips(_ isExtended: Bool) throws {
        let scratch = Scratch()
        var end = NBDBlockStatusHeader(contextID: 3, descriptorCount: 2)
            .encode(into: scratch.region, isExtended: isExtended)
        for (byteCount, status) in [(4096, 3), (512, 0)] as [(UInt64, UInt64)] {
            end += NBDBlockStatusHeader.encodeDescriptor(
                byteCount: byteCount,
                status: status,
                into: scratch.region,
                at: end,
                isExtended: isExtended
            )
        }
        #expect(end == (isExtended ? 40 : 20))
        let payload = scratch.region.slice(0, end)
        let header = try NBDBlockStatusHeader.decode(payload, isExtended: isExtended)
        #expect(header == NBDBlockStatusHeader(contextID: 3, descriptorCount: 2))
        let second = NBDBlockStatusHeader.descriptor(payload, at: 1, isExtended: isExtended)
        #expect(second.byteCount == 512)
        #expect(second.status == 0)
        let each = NBDBlockStatusHeader.descriptorByteCount(isExtended: isExtended)
        for length in 0..<end where isExtended || (length - 4) % each != 0 || length < 12 {
            #expect(throws: NBDWireError.malformed) {
                try NBDBlockStatusHeader.decode(payload.slice(0, length), isExtended: isExtended)
            }
        }
    }
}
