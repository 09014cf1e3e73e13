import BlockCore
import NBDSession
import NBDWire
import Testing

/// Requests against the table of the specification: what is accepted, and the error of the rest.
@Suite struct NBDRequestTests {
    enum Result: Equatable {
        case accepted
        case empty
        case error(NBDError)
        case closed(NBDCloseReason)
    }

    /// Sends one request and says what became of it; a READ behind it must always be served.
    static func outcome(
        _ connection: ModelConnection,
        _ header: NBDRequestHeader,
        _ payload: [UInt8] = []
    ) -> Result {
        let mode = connection.session.mode
        let before = connection.requests.count
        _ = connection.takeSent()
        connection.feed(Client.request(header, mode, payload))
        if let reason = connection.closeReason { return .closed(reason) }
        if connection.requests.count > before { return .accepted }
        return result(of: connection.takeSent(), mode, header)
    }

    private static func result(
        of bytes: [UInt8],
        _ mode: NBDReplyMode,
        _ header: NBDRequestHeader
    ) -> Result {
        let arena = MemoryArena(byteCount: 4096)
        return withExtendedLifetime(arena) {
            arena.region.copy(from: bytes)
            let region = arena.region.slice(0, bytes.count)
            if let simple = try? NBDSimpleReplyHeader.decode(region) {
                #expect(mode != .extended)
                #expect(simple.cookie == header.cookie)
                if simple.errorCode == 0 { return .empty }
                #expect(mode == .simple)
                return .error(NBDError(rawValue: simple.errorCode) ?? .outOfMemory)
            }
            let isExtended = mode == .extended
            guard let chunk = try? NBDChunkHeader.decode(region, isExtended: isExtended) else {
                return .error(.outOfMemory)
            }
            #expect(chunk.cookie == header.cookie)
            #expect(chunk.flags == .done)
            if isExtended { #expect(chunk.requestOffset == header.offset) }
            #expect(region.byteCount <= NBDSession.transmissionOutputByteCountMax)
            if chunk.kind == NBDChunkKind.none { return .empty }
            let payload = region.suffix(from: NBDChunkHeader.byteCount(isExtended: isExtended))
            guard let error = try? NBDErrorPayload.decode(payload, hasOffset: false) else {
                return .error(.outOfMemory)
            }
            #expect(error.textByteCount > 0)
            #expect(error.textByteCount <= NBDSession.refusalTextByteCountMax)
            return .error(NBDError(rawValue: error.errorCode) ?? .outOfMemory)
        }
    }

    static func header(
        _ command: NBDCommand,
        _ offset: UInt64,
        _ byteCount: UInt64,
        _ flags: NBDCommandFlags = [],
        mode: NBDReplyMode
    ) -> NBDRequestHeader {
        var flags = flags
        if command == .write, mode == .extended, byteCount > 0 { flags.insert(.payloadLength) }
        return NBDRequestHeader(
            command,
            flags: flags,
            cookie: 0xFEDC_BA98_7654_3210,
            offset: offset,
            byteCount: byteCount
        )
    }

    static func payload(_ header: NBDRequestHeader) -> [UInt8] {
        [UInt8](repeating: 0xEE, count: header.command == .write ? Int(header.byteCount) : 0)
    }

    static let sized: [NBDCommand] = [.read, .write, .trim, .cache, .writeZeroes, .blockStatus]

    // MARK: - Ranges

    @Test(arguments: NBDReplyMode.allCases)
    func range_beyondTheEnd_hasTheCommandsOwnError(_ mode: NBDReplyMode) {
        let contexts = mode == .simple ? [] : ["base:allocation"]
        let connection = ModelConnection.transmitting(mode, contexts: contexts)
        let size = ModelExports.volume.byteCount
        let ranges: [(UInt64, UInt64)] = [
            (size - 1, 2), (size, 1), (size + 1, 1), (1 << 62, 512), (1 << 63, 512),
            (UInt64.max, 1), (UInt64.max, 2), (UInt64.max - 511, 512), (UInt64.max - 510, 512),
            (0, size + 1),
        ]
        for command in Self.sized {
            let isChange = command == .write || command == .writeZeroes
            for (offset, byteCount) in ranges {
                let header = Self.header(command, offset, byteCount, mode: mode)
                let expected: Result = .error(isChange ? .noSpace : .invalid)
                let found = Self.outcome(connection, header, Self.payload(header))
                #expect(found == expected, "\(command) \(offset)+\(byteCount)")
            }
            let last = Self.header(command, size - 1, 1, mode: mode)
            let isStatus = command == .blockStatus
            #expect(
                Self.outcome(connection, last, Self.payload(last))
                    == (isStatus && mode == .simple ? .error(.invalid) : .accepted)
            )
        }
    }

    @Test(arguments: NBDReplyMode.allCases)
    func range_unaligned_isInvalid(_ mode: NBDReplyMode) {
        let exports = ModelExports()
        exports.all[1].isReadOnly = false
        let contexts = mode == .simple ? [] : ["base:allocation"]
        let connection = ModelConnection.transmitting(
            mode,
            export: "vol@snap",
            contexts: contexts,
            exports: exports
        )
        for command in Self.sized where command != .blockStatus {
            for (offset, byteCount) in [(1, 512), (0, 511), (256, 512), (512, 513), (511, 1)] {
                let header = Self.header(command, UInt64(offset), UInt64(byteCount), mode: mode)
                #expect(
                    Self.outcome(connection, header, Self.payload(header)) == .error(.invalid)
                )
            }
        }
        // The length of a status is a hint: whole blocks of it are answered for.
        if mode != .simple {
            let hint = Self.header(.blockStatus, 512, 1535, mode: mode)
            #expect(Self.outcome(connection, hint) == .accepted)
            #expect(connection.requests.last?.byteCount == 1024)
            for (offset, byteCount) in [(1, 1024), (512, 511)] {
                let header = Self.header(
                    .blockStatus,
                    UInt64(offset),
                    UInt64(byteCount),
                    mode: mode
                )
                #expect(Self.outcome(connection, header) == .error(.invalid))
            }
        }
        let aligned = Self.header(.write, 512, 1024, mode: mode)
        #expect(Self.outcome(connection, aligned, Self.payload(aligned)) == .accepted)
    }

    @Test(arguments: NBDReplyMode.allCases)
    func zeroLength_isAnsweredAtOnce(_ mode: NBDReplyMode) {
        let contexts = mode == .simple ? [] : ["base:allocation"]
        let connection = ModelConnection.transmitting(mode, contexts: contexts)
        for command in [NBDCommand.read, .trim, .cache, .writeZeroes] {
            for offset in [0, 4096, 65536] as [UInt64] {
                let header = Self.header(command, offset, 0, mode: mode)
                #expect(Self.outcome(connection, header) == .empty)
            }
            let beyond = Self.header(command, 65537, 0, mode: mode)
            let error: NBDError = command == .writeZeroes ? .noSpace : .invalid
            #expect(Self.outcome(connection, beyond) == .error(error))
        }
        let write = Self.header(.write, 0, 0, mode: mode)
        // The extended form announces a payload with a flag, and a payload has bytes.
        #expect(
            Self.outcome(connection, write) == (mode == .extended ? .error(.invalid) : .empty)
        )
        let status = Self.header(.blockStatus, 0, 0, mode: mode)
        #expect(Self.outcome(connection, status) == .error(.invalid))
    }

    // MARK: - Flags

    /// The flags that each command may have, with everything offered.
    static func allowed(_ command: NBDCommand, _ mode: NBDReplyMode) -> NBDCommandFlags {
        var flags: NBDCommandFlags = .forceUnitAccess
        switch command {
        case .read where mode != .simple: flags.insert(.doNotFragment)
        case .write where mode == .extended: flags.insert(.payloadLength)
        case .writeZeroes: flags.formUnion([.noHole, .fastZero])
        case .blockStatus: flags.insert(.oneExtent)
        default: break
        }
        return flags
    }

    @Test(arguments: NBDReplyMode.allCases)
    func flags_everyBitOnEveryCommand(_ mode: NBDReplyMode) {
        let contexts = mode == .simple ? [] : ["base:allocation"]
        let connection = ModelConnection.transmitting(mode, contexts: contexts)
        for command in NBDCommand.allCases where command != .disconnect {
            for bit in 0..<16 as Range<UInt16> {
                let flag = NBDCommandFlags(rawValue: 1 << bit)
                // With this one what follows is a payload: see the test of payloads.
                if flag == .payloadLength, mode == .extended { continue }
                let byteCount: UInt64 = command == .flush ? 0 : 512
                let header = Self.header(command, 0, byteCount, flag, mode: mode)
                var isAccepted = Self.allowed(command, mode).contains(flag)
                if command == .blockStatus, mode == .simple { isAccepted = false }
                let found = Self.outcome(connection, header, Self.payload(header))
                #expect(
                    found == (isAccepted ? .accepted : .error(.invalid)),
                    "\(command) with bit \(bit)"
                )
                if isAccepted {
                    let expected = flag.union(header.flags).subtracting(.payloadLength)
                    #expect(connection.requests.last?.flags == expected)
                }
            }
        }
    }

    @Test func flags_notOffered_areInvalid() {
        let exports = ModelExports()
        exports.all[0].capabilities = [.writeZeroes]
        let connection = ModelConnection.transmitting(.structured, exports: exports)
        let fua = Self.header(.write, 0, 4, .forceUnitAccess, mode: .structured)
        #expect(Self.outcome(connection, fua, [1, 2, 3, 4]) == .error(.invalid))
        let fast = Self.header(.writeZeroes, 0, 4, .fastZero, mode: .structured)
        #expect(Self.outcome(connection, fast) == .error(.invalid))
        let noHole = Self.header(.writeZeroes, 0, 4, .noHole, mode: .structured)
        #expect(Self.outcome(connection, noHole) == .accepted)
        for command in [NBDCommand.trim, .cache, .flush] {
            let byteCount: UInt64 = command == .flush ? 0 : 4
            let header = Self.header(command, 0, byteCount, mode: .structured)
            #expect(Self.outcome(connection, header) == .error(.invalid))
        }
    }

    // MARK: - Commands

    @Test(arguments: NBDReplyMode.allCases)
    func commands_unknown_areInvalid(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode)
        for code in [8, 9, 100, 0x7FFF, 0xFFFF] as [UInt16] {
            let header = NBDRequestHeader(
                flags: [],
                commandCode: code,
                cookie: 1,
                offset: 3,
                byteCount: 512
            )
            #expect(Self.outcome(connection, header) == .error(.invalid))
        }
    }

    @Test(arguments: NBDReplyMode.allCases)
    func readOnly_changesAreNotPermitted(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode, export: "vol@snap")
        for command in [NBDCommand.write, .trim, .writeZeroes] {
            for (offset, byteCount) in [(0, 512), (65536, 512), (1, 1)] as [(UInt64, UInt64)] {
                let header = Self.header(command, offset, byteCount, mode: mode)
                #expect(
                    Self.outcome(connection, header, Self.payload(header)) == .error(.notPermitted)
                )
            }
        }
        #expect(Self.outcome(connection, Self.header(.read, 0, 512, mode: mode)) == .accepted)
        #expect(Self.outcome(connection, Self.header(.flush, 0, 0, mode: mode)) == .accepted)
        #expect(Self.outcome(connection, Self.header(.cache, 0, 512, mode: mode)) == .accepted)
    }

    @Test(arguments: NBDReplyMode.allCases)
    func flush_withRange_isInvalid(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode)
        #expect(Self.outcome(connection, Self.header(.flush, 1, 0, mode: mode)) == .error(.invalid))
        #expect(Self.outcome(connection, Self.header(.flush, 0, 1, mode: mode)) == .error(.invalid))
    }

    @Test(arguments: NBDReplyMode.allCases)
    func disconnect_endsWithoutReply_whateverItsFields(_ mode: NBDReplyMode) {
        for (offset, byteCount) in [(0, 0), (5, 5)] as [(UInt64, UInt64)] {
            let connection = ModelConnection.transmitting(mode)
            let header = Self.header(.disconnect, offset, byteCount, mode: mode)
            #expect(Self.outcome(connection, header) == .closed(.disconnected))
            #expect(connection.sent.isEmpty)
        }
        #expect(NBDCloseReason.allCases.filter(\.isOrderly) == [.aborted, .disconnected])
    }

    @Test(arguments: NBDReplyMode.allCases)
    func magic_wrongOrOfTheOtherForm_closes(_ mode: NBDReplyMode) {
        let header = Self.header(.read, 0, 4, mode: mode)
        for bit in 0..<32 {
            let connection = ModelConnection.transmitting(mode)
            var bytes = Client.request(header, mode)
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            connection.feed(bytes)
            #expect(connection.closeReason == .badRequestMagic)
        }
        let connection = ModelConnection.transmitting(mode)
        let other: NBDReplyMode = mode == .extended ? .simple : .extended
        connection.feed(Client.request(header, other) + [0, 0, 0, 0])
        #expect(connection.closeReason == .badRequestMagic)
        #expect(connection.sent.isEmpty)
    }

    @Test(arguments: NBDReplyMode.allCases)
    func shutdown_isSaidToEveryRequest(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode)
        connection.session.beginShutdown()
        for command in [NBDCommand.read, .write, .flush, .trim] {
            let byteCount: UInt64 = command == .flush ? 0 : 512
            let header = Self.header(command, 0, byteCount, mode: mode)
            #expect(Self.outcome(connection, header, Self.payload(header)) == .error(.shutdown))
        }
        let last = Self.header(.disconnect, 0, 0, mode: mode)
        #expect(Self.outcome(connection, last) == .closed(.disconnected))
    }

    // MARK: - Payloads

    static func small(_ payloadByteCountMax: UInt32) -> ModelExports {
        let exports = ModelExports()
        exports.all[0].byteCount = 1 << 40
        exports.all[0].sizes.payloadByteCountMax = payloadByteCountMax
        return exports
    }

    @Test(arguments: NBDReplyMode.allCases)
    func payload_aboveTheMaximum_isRefusedAndSkipped(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode, exports: Self.small(4096))
        let write = Self.header(.write, 0, 4097, mode: mode)
        #expect(Self.outcome(connection, write, Self.payload(write)) == .error(.invalid))
        let fits = Self.header(.write, 0, 4096, mode: mode)
        #expect(Self.outcome(connection, fits, Self.payload(fits)) == .accepted)
        let read = Self.header(.read, 0, 4097, mode: mode)
        let error: NBDError = mode == .simple ? .invalid : .overflow
        #expect(Self.outcome(connection, read) == .error(error))
        // Commands without a payload may be as long as the export.
        for command in [NBDCommand.trim, .writeZeroes, .cache] {
            let byteCount: UInt64 = mode == .extended ? 1 << 40 : 0xFFFF_FFFF
            let header = Self.header(command, 0, byteCount, mode: mode)
            #expect(Self.outcome(connection, header) == .accepted)
            #expect(connection.requests.last?.byteCount == byteCount)
        }
    }

    @Test(arguments: NBDReplyMode.allCases)
    func payload_aboveWhatIsTolerated_closes(_ mode: NBDReplyMode) {
        let limit = UInt64(NBDLimits.payloadByteCountDefault)
        let connection = ModelConnection.transmitting(mode, exports: Self.small(4096))
        let most = Self.header(.write, 0, limit, mode: mode)
        connection.feed(Client.request(most, mode))
        #expect(connection.closeReason == nil)
        #expect(connection.sent.isEmpty, "the reply comes behind the payload")
        let other = ModelConnection.transmitting(mode, exports: Self.small(4096))
        let more = Self.header(.write, 0, limit + 1, mode: mode)
        #expect(Self.outcome(other, more) == .closed(.payloadTooLarge))
    }

    @Test(arguments: NBDReplyMode.allCases)
    func payload_refused_keepsTheStreamInStep(_ mode: NBDReplyMode) {
        let connection = ModelConnection.transmitting(mode)
        let bad = Self.header(.write, 65536, 1000, mode: mode)
        let good = Self.header(.write, 0, 1000, mode: mode)
        let read = Self.header(.read, 0, 4, mode: mode)
        connection.feed(
            Client.request(bad, mode, Self.payload(bad))
                + Client.request(good, mode, Self.payload(good)) + Client.request(read, mode)
        )
        #expect(connection.requests.map(\.command) == [.write, .read])
    }

    @Test func extended_writeWithoutPayloadFlag_hasNoPayload() {
        let connection = ModelConnection.transmitting(.extended)
        let write = NBDRequestHeader(.write, cookie: 1, byteCount: 4096)
        #expect(Self.outcome(connection, write) == .error(.invalid))
        let read = Self.header(.read, 0, 4, mode: .extended)
        #expect(Self.outcome(connection, read) == .accepted)
    }

    @Test func extended_unexpectedPayload_isSkippedAndInvalid() {
        let connection = ModelConnection.transmitting(.extended)
        let codes: [UInt16] = [0, 3, 4, 5, 6, 7, 99]
        for code in codes {
            for byteCount in [1, 512, 65536] {
                let header = NBDRequestHeader(
                    flags: .payloadLength,
                    commandCode: code,
                    cookie: 5,
                    offset: 0,
                    byteCount: UInt64(byteCount)
                )
                let payload = [UInt8](repeating: 0x25, count: byteCount)
                #expect(Self.outcome(connection, header, payload) == .error(.invalid))
            }
        }
        let read = Self.header(.read, 0, 4, mode: .extended)
        #expect(Self.outcome(connection, read) == .accepted)
    }

    // MARK: - BLOCK_STATUS filters

    static func filter(_ byteCount: UInt64, _ ids: [UInt32]) -> [UInt8] {
        Client.bytes { region in
            region.storeBigEndian(byteCount, at: 0)
            for (index, id) in ids.enumerated() { region.storeBigEndian(id, at: 8 + 4 * index) }
            return 8 + 4 * ids.count
        }
    }

    @Test(
        arguments: [
            ([1], .accepted, 0b01), ([2], .accepted, 0b10), ([2, 1], .accepted, 0b11),
            ([], .error(.invalid), 0), ([3], .error(.invalid), 0), ([1, 3], .error(.invalid), 0),
            ([1, 1], .error(.invalid), 0), ([0], .error(.invalid), 0),
            (Array(1...40), .error(.invalid), 0),
        ] as [([UInt32], Result, UInt32)]
    )
    func filter_ids(_ ids: [UInt32], _ result: Result, _ mask: UInt32) {
        let names = ["base:allocation", "qemu:dirty-bitmap:first"]
        let connection = ModelConnection.transmitting(.extended, contexts: names)
        let payload = Self.filter(4096, ids)
        let header = NBDRequestHeader(
            .blockStatus,
            flags: [.payloadLength, .oneExtent],
            cookie: 1,
            offset: 512,
            byteCount: UInt64(payload.count)
        )
        #expect(Self.outcome(connection, header, payload) == result)
        if result == .accepted {
            let request = connection.requests.last
            #expect(request?.contextMask == mask)
            #expect(request?.byteCount == 4096)
            #expect(request?.flags == .oneExtent)
        }
        let all = Self.header(.blockStatus, 0, 512, mode: .extended)
        #expect(Self.outcome(connection, all) == .accepted)
        #expect(connection.requests.last?.contextMask == 0b11)
    }

    @Test func filter_lengths() {
        let connection = ModelConnection.transmitting(.extended, contexts: ["base:allocation"])
        for byteCount in [0, 1, 4, 7, 8, 9, 11, 13, 1000] {
            let header = NBDRequestHeader(
                .blockStatus,
                flags: .payloadLength,
                cookie: 1,
                byteCount: UInt64(byteCount)
            )
            let payload = [UInt8](repeating: 0, count: byteCount)
            #expect(Self.outcome(connection, header, payload) == .error(.invalid), "\(byteCount)")
        }
        for effect in [0, 65537, UInt64.max] {
            let payload = Self.filter(effect, [1])
            let header = NBDRequestHeader(
                .blockStatus,
                flags: .payloadLength,
                cookie: 1,
                byteCount: UInt64(payload.count)
            )
            #expect(Self.outcome(connection, header, payload) == .error(.invalid), "\(effect)")
        }
    }
}
