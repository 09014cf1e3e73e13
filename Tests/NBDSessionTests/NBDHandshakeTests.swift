import BlockCore
import NBDSession
import NBDWire
import Testing

@Suite struct NBDHandshakeTests {
    // MARK: - Greeting and flags

    @Test func clientFlags_eachUnknownBit_closesWithoutAnswer() {
        for bit in 2..<32 as Range<UInt32> {
            let connection = ModelConnection()
            _ = connection.takeSent()
            connection.feed(Client.flags(NBDClientFlags(rawValue: 3 | 1 << bit)))
            #expect(connection.closeReason == .unknownClientFlags)
            #expect(connection.sent.isEmpty)
        }
    }

    @Test func otherProtocol_closes() {
        let connection = ModelConnection()
        connection.feed(Array("GET / HTTP/1.1\r\n\r\n".utf8))
        #expect(connection.closeReason == .unknownClientFlags)
    }

    @Test func clientWithoutFixedNewstyle_hasExportNameOnly() {
        for option in NBDOption.allCases where option != .exportName && option != .abort {
            let connection = ModelConnection.haggling([])
            connection.feed(Client.option(option))
            #expect(connection.closeReason == .optionNotAllowed, "\(option)")
        }
        let connection = ModelConnection.haggling([])
        connection.feed(Client.option(.exportName, Array("vol".utf8)))
        #expect(connection.takeSent().count == 134)
        #expect(connection.session.isTransmitting)
    }

    // MARK: - Sizes and counts

    @Test func unknownOption_dataIsSkipped() {
        let connection = ModelConnection.haggling()
        for byteCount in [1, 4096, 65536, NBDSession.optionSkipByteCountMax] {
            let data = [UInt8](repeating: 7, count: byteCount)
            #expect(connection.kind(Client.option(99, data)) == .unsupported)
        }
        #expect(connection.kind(Client.describe(.info)) == .acknowledgement)
    }

    @Test(arguments: [NBDOption.info, .go, .listMetaContext, .setMetaContext])
    func dataBeyondWhatIsLookedAt_isTooBig(_ option: NBDOption) {
        let connection = ModelConnection.haggling()
        connection.feed(Client.option(.structuredReply))
        _ = connection.takeSent()
        let data = [UInt8](repeating: 0, count: NBDSession.optionDataByteCountMax + 1)
        #expect(connection.kind(Client.option(option, data)) == .tooBig)
        #expect(connection.kind(Client.describe(.info)) == .acknowledgement)
    }

    @Test(arguments: [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 4711] as [UInt32])
    func absurdLength_closes(_ code: UInt32) {
        for byteCount in [UInt32(NBDSession.optionSkipByteCountMax) + 1, 1 << 28, .max] {
            let connection = ModelConnection.haggling()
            connection.feed(
                Client.bytes {
                    NBDOptionHeader(optionCode: code, dataByteCount: byteCount).encode(into: $0)
                }
            )
            #expect(connection.closeReason == .optionTooLarge)
            #expect(connection.sent.isEmpty)
        }
    }

    @Test func manyOptions_areAnsweredUpToTheLimit() {
        let connection = ModelConnection.haggling()
        for _ in 0..<NBDSession.optionCountMax {
            #expect(connection.kind(Client.option(99)) == .unsupported)
        }
        connection.feed(Client.option(99))
        #expect(connection.closeReason == .tooManyOptions)
    }

    // MARK: - Names

    @Test(
        arguments: [
            ("vol\0", .invalid), ("vol\0junk", .invalid), ("vo", .unknown), ("vol-x", .unknown),
            ("vol\n", .unknown), (String(repeating: "n", count: 4096), .unknown),
            (String(repeating: "n", count: 4097), .tooBig), ("", .acknowledgement),
        ] as [(String, NBDOptionReplyKind)]
    )
    func names(_ name: String, _ kind: NBDOptionReplyKind) {
        let connection = ModelConnection.haggling()
        #expect(connection.kind(Client.describe(.info, name)) == kind)
        #expect(connection.kind(Client.describe(.info)) == .acknowledgement)
    }

    /// Composed and decomposed spellings are equal strings to Swift, and different names here.
    @Test func names_areComparedByBytes() {
        let exports = ModelExports()
        exports.all[0].name = "gr\u{F6}\u{DF}e"
        let connection = ModelConnection.haggling(exports: exports)
        #expect(connection.kind(Client.describe(.info, "gr\u{F6}\u{DF}e")) == .acknowledgement)
        #expect(connection.kind(Client.describe(.info, "gro\u{308}\u{DF}e")) == .unknown)
    }

    @Test func name_notUTF8_isInvalid() {
        let connection = ModelConnection.haggling()
        let data: [UInt8] = [0, 0, 0, 3, 0xFF, 0xFE, 0x80, 0, 0]
        #expect(connection.kind(Client.option(.info, data)) == .invalid)
        connection.feed(Client.option(.exportName, [0xFF]))
        #expect(connection.closeReason == .exportNotAvailable)
    }

    // MARK: - LIST

    @Test func list_ofManyLongNames_comesInBoundedOutputs() {
        let exports = ModelExports()
        let long = String(repeating: "d", count: NBDLimits.stringByteCountMax)
        exports.all = (0..<100).map { index in
            var export = ModelExports.volume
            export.name = "vol\(index)"
            export.description = long
            return export
        }
        exports.all[3].name = "not\0allowed"
        let connection = ModelConnection.haggling(exports: exports)
        let replies = connection.ask(Client.option(.list))
        #expect(replies.count == 100)
        #expect(replies.dropLast().allSatisfy { $0.kind == .server && $0.data.count > 4096 })
        #expect(replies.last?.kind == .acknowledgement)
        #expect(connection.outputByteCountMax <= NBDSession.outputByteCountMax)
    }

    // MARK: - Opening

    @Test func open_isAsked_andWaitedFor() {
        let connection = ModelConnection.haggling()
        connection.holdsOpening = true
        connection.feed(Client.describe(.go))
        #expect(connection.sent.isEmpty)
        #expect(connection.session.export?.handle == 1)
        let read = Client.request(NBDRequestHeader(.read, cookie: 1, byteCount: 4), .simple)
        let (consumed, event) = connection.session.next(input: .empty)
        #expect(consumed == 0)
        guard case .wait = event else {
            Issue.record("\(event)")
            return
        }
        connection.session.onOpened()
        connection.feed(read)
        #expect(connection.requests.count == 1)
    }

    @Test func open_refused_letsTheClientTryAgain() {
        let connection = ModelConnection.haggling()
        connection.openRefusal = .policy
        let replies = connection.ask(Client.describe(.go))
        #expect(replies.map(\.kind) == [.policy])
        connection.openRefusal = nil
        #expect(connection.kind(Client.describe(.go, "vol@snap")) == .acknowledgement)
        #expect(connection.session.export?.handle == 2)
    }

    @Test func open_refused_endsExportName() {
        let connection = ModelConnection.haggling()
        connection.openRefusal = .policy
        connection.feed(Client.option(.exportName, Array("vol".utf8)))
        #expect(connection.closeReason == .exportNotAvailable)
        #expect(connection.sent.isEmpty)
    }

    // MARK: - Modes

    @Test func structuredReply_withData_isNotInForce() {
        let connection = ModelConnection.haggling()
        #expect(connection.kind(Client.option(.structuredReply, [1])) == .invalid)
        connection.feed(Client.describe(.go))
        #expect(connection.session.mode == .simple)
    }

    @Test func modeOptions_twice_areAcknowledged() {
        for option in [NBDOption.structuredReply, .extendedHeaders] {
            let connection = ModelConnection.haggling()
            #expect(connection.kind(Client.option(option)) == .acknowledgement)
            #expect(connection.kind(Client.option(option)) == .acknowledgement)
        }
    }

    @Test func flags_followModeAndContexts() {
        func flags(_ mode: NBDReplyMode, _ contexts: [String], _ name: String) -> UInt16 {
            let connection = ModelConnection.haggling()
            if mode == .structured { connection.feed(Client.option(.structuredReply)) }
            if mode == .extended { connection.feed(Client.option(.extendedHeaders)) }
            if !contexts.isEmpty {
                connection.feed(Client.contexts(.setMetaContext, "vol", contexts))
            }
            _ = connection.takeSent()
            let data = connection.ask(Client.describe(.go, name))[0].data
            return UInt16(data[10]) << 8 | UInt16(data[11])
        }
        let plain: UInt16 = 0x0D6D
        #expect(flags(.simple, [], "vol") == plain)
        #expect(flags(.structured, ["base:allocation"], "vol") == plain | 0x80)
        #expect(flags(.extended, [], "vol") == plain | 0x80)
        #expect(flags(.extended, ["base:allocation"], "vol") == plain | 0x80 | 0x1000)
        // Selected for another name: it does not count, though the export may be the same.
        #expect(flags(.extended, ["base:allocation"], "") == plain | 0x80)
        #expect(flags(.extended, ["base:allocation"], "vol@snap") == plain | 0x80 | 0x2)
    }

    @Test func flags_followCapabilities() {
        let exports = ModelExports()
        exports.all[0].capabilities = [.fastZero, .rotational, .doNotFragment]
        let connection = ModelConnection.haggling(exports: exports)
        let data = connection.ask(Client.describe(.info))[0].data
        // FAST_ZERO needs WRITE_ZEROES; the rest is not for an export to say.
        #expect(data[10...] == [0, 1])
    }

    // MARK: - Metadata contexts

    @Test func contexts_moreThanCanBeSelected_areListedByFamily() {
        let exports = ModelExports()
        exports.all[0].contexts =
            [.allocation]
            + (0..<20).flatMap { NBDMetaContext.changedSince(snapshot: "s\($0)", handle: $0) }
        let connection = ModelConnection.haggling(exports: exports)
        connection.feed(Client.option(.structuredReply))
        _ = connection.takeSent()
        func names(_ queries: [String]) -> [String] {
            connection.ask(Client.contexts(.listMetaContext, "vol", queries))
                .filter { $0.kind == .metaContext }
                .map { String(decoding: $0.data.dropFirst(4), as: UTF8.self) }
        }
        #expect(names([]) == ["base:allocation", "cairn:changed-since:", "qemu:dirty-bitmap:"])
        #expect(names(["qemu:dirty-bitmap:"]).count == 20)
        #expect(names(["qemu:dirty-bitmap:s7"]) == ["qemu:dirty-bitmap:s7"])
        #expect(names(["qemu:dirty-bitmap"]).isEmpty)
        #expect(names(["cairn:", "base:"]).count == 21)

        let all = exports.all[0].contexts.map(\.name)
        #expect(connection.kind(Client.contexts(.setMetaContext, "vol", all)) == .tooBig)
        let most = Array(all.prefix(NBDSession.contextCountMax))
        let replies = connection.ask(Client.contexts(.setMetaContext, "vol", most))
        #expect(replies.count == most.count + 1)
        #expect(Set(replies.dropLast().map { Array($0.data.prefix(4)) }).count == most.count)
        connection.feed(Client.describe(.go))
        #expect(connection.session.contextCount == most.count)
        #expect(connection.session.context(at: 1).snapshotHandle == 0)
        #expect(connection.session.context(at: 3).snapshotHandle == 1)
        #expect(connection.session.context(at: 3).kind == .changedSince)
    }

    @Test func contexts_tooManyQueries_isTooBig() {
        let connection = ModelConnection.haggling()
        connection.feed(Client.option(.structuredReply))
        _ = connection.takeSent()
        let queries = (0...NBDSession.queryCountMax).map { "x-many:\($0)" }
        for option in [NBDOption.listMetaContext, .setMetaContext] {
            #expect(connection.kind(Client.contexts(option, "vol", queries)) == .tooBig)
            let fewer = Array(queries.dropLast())
            #expect(connection.kind(Client.contexts(option, "vol", fewer)) == .acknowledgement)
        }
    }

    /// A selection of contexts that fails: named, as test reports would spell out all its bytes.
    struct FailedSelection: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let option: [UInt8]
    }

    static let failedSelections = [
        FailedSelection(
            testDescription: "cut short",
            option: Client.option(.setMetaContext, [0, 0])
        ),
        FailedSelection(
            testDescription: "too large",
            option: Client.option(.setMetaContext, [UInt8](repeating: 0, count: 40_000))
        ),
        FailedSelection(
            testDescription: "of an unknown export",
            option: Client.contexts(.setMetaContext, "none", ["base:allocation"])
        ),
        FailedSelection(
            testDescription: "of nothing",
            option: Client.contexts(.setMetaContext, "vol", [])
        ),
        FailedSelection(
            testDescription: "of a namespace",
            option: Client.contexts(.setMetaContext, "vol", ["base:"])
        ),
        FailedSelection(
            testDescription: "of a name with a zero byte",
            option: Client.contexts(.setMetaContext, "vol", ["base:\0"])
        ),
        FailedSelection(
            testDescription: "of too many",
            option: Client.contexts(.setMetaContext, "vol", (0..<99).map { "x:\($0)" })
        ),
    ]

    /// Every way in which a SET_META_CONTEXT can fail drops the selection before it.
    @Test(arguments: failedSelections)
    func contexts_failedSelection_clears(_ selection: FailedSelection) {
        let connection = ModelConnection.haggling()
        connection.feed(Client.option(.structuredReply))
        connection.feed(Client.contexts(.setMetaContext, "vol", ["base:allocation"]))
        connection.feed(selection.option)
        connection.feed(Client.describe(.go))
        #expect(connection.session.isTransmitting)
        #expect(connection.session.contextCount == 0)
    }

    @Test func contexts_listing_keepsTheSelection() {
        let connection = ModelConnection.haggling()
        connection.feed(Client.option(.structuredReply))
        connection.feed(Client.contexts(.setMetaContext, "vol", ["base:allocation"]))
        connection.feed(Client.contexts(.listMetaContext, "none", ["qemu:"]))
        connection.feed(Client.option(.listMetaContext, [0]))
        connection.feed(Client.describe(.go))
        #expect(connection.session.contextCount == 1)
    }

    // MARK: - TLS

    static let needsTLS: [NBDOption] = NBDOption.allCases.filter {
        ![.exportName, .abort, .startTLS].contains($0)
    }

    @Test func tls_required_everythingElseIsRefused() {
        let connection = ModelConnection.haggling(tlsMode: .require)
        for option in Self.needsTLS {
            #expect(connection.kind(Client.option(option, [1])) == .tlsRequired, "\(option)")
        }
        #expect(connection.kind(Client.option(99)) == .tlsRequired)
        #expect(connection.kind(Client.option(.startTLS, [1])) == .invalid)
        #expect(connection.kind(Client.option(.startTLS)) == .acknowledgement)
        #expect(connection.tlsCount == 1)
        connection.session.onTLSEstablished()
        #expect(connection.session.isUnderTLS)
        #expect(connection.kind(Client.option(.startTLS)) == .invalid)
        #expect(connection.kind(Client.describe(.go)) == .acknowledgement)
    }

    @Test func tls_clientWithoutFixedNewstyle_mayStartItFirst() {
        for mode in [NBDTLSMode.allow, .require] {
            let connection = ModelConnection.haggling([], tlsMode: mode)
            #expect(connection.kind(Client.option(.startTLS)) == .acknowledgement, "\(mode)")
            connection.session.onTLSEstablished()
            connection.feed(Client.option(.exportName, Array("vol".utf8)))
            #expect(connection.takeSent().count == 134, "\(mode)")
            #expect(connection.session.isTransmitting, "\(mode)")
        }
    }

    @Test func tls_required_exportNameClosesAndAbortWorks() {
        let connection = ModelConnection.haggling(tlsMode: .require)
        connection.feed(Client.option(.exportName, Array("vol".utf8)))
        #expect(connection.closeReason == .exportNameNotAllowed)
        #expect(connection.sent.isEmpty)
        let other = ModelConnection.haggling(tlsMode: .require)
        #expect(other.kind(Client.option(.abort)) == .acknowledgement)
        #expect(other.closeReason == .aborted)
    }

    @Test func tls_forgetsWhatWasNegotiatedInTheClear() {
        let connection = ModelConnection.haggling(tlsMode: .allow)
        connection.feed(Client.option(.extendedHeaders))
        connection.feed(Client.contexts(.setMetaContext, "vol", ["base:allocation"]))
        connection.feed(Client.option(.startTLS))
        connection.session.onTLSEstablished()
        connection.feed(Client.option(.structuredReply))
        connection.feed(Client.describe(.go))
        #expect(connection.session.mode == .structured)
        #expect(connection.session.contextCount == 0)
    }

    @Test func tls_plaintextBehindIt_closes() {
        let together = ModelConnection.haggling(tlsMode: .allow)
        together.feed(Client.option(.startTLS) + Client.option(.list))
        #expect(together.closeReason == .plaintextBehindStartTLS)
        #expect(together.sent.isEmpty)
        #expect(together.tlsCount == 0)
    }

    // MARK: - Shutdown

    @Test func shutdown_refusesOptionsButAbort() {
        let connection = ModelConnection.haggling()
        connection.session.beginShutdown()
        for option in [NBDOption.list, .info, .go, .structuredReply, .extendedHeaders] {
            #expect(connection.kind(Client.option(option, [1])) == .shutdown)
        }
        #expect(connection.kind(Client.option(.abort)) == .acknowledgement)
    }

    // MARK: - Reuse

    @Test func reset_forgetsTheConnectionBefore() {
        let connection = ModelConnection.transmitting(.extended, contexts: ["base:allocation"])
        connection.session.beginShutdown()
        connection.feed([0x21, 0xE4])
        connection.session.reset(exports: connection.exports, tlsMode: .off)
        connection.feed([])
        #expect(connection.takeSent().count == NBDGreeting.byteCount)
        connection.feed(Client.flags())
        connection.feed(Client.describe(.go))
        #expect(connection.session.mode == .simple)
        #expect(connection.session.contextCount == 0)
        #expect(connection.requests.isEmpty)
    }

    @Test func end_closesAndLetsGo() {
        let connection = ModelConnection.transmitting(.simple)
        connection.session.end()
        #expect(connection.session.export == nil)
        connection.feed([1, 2, 3])
        #expect(connection.closeReason == .disconnected)
    }
}

/// Exports that are made when they are asked for, and counted.
private final class CountedExports: NBDExportSource {
    private(set) var madeCount = 0
    private let count: Int

    init(count: Int) { self.count = count }

    func export(named name: String) -> NBDExport? { nil }

    func exports() -> LazyMapSequence<Range<Int>, NBDExport> {
        (0..<count).lazy.map { [self] index in
            madeCount += 1
            return NBDExport(
                handle: UInt64(index),
                name: "volume-\(index)",
                byteCount: 1 << 20,
                sizes: ModelExports.byteSizes
            )
        }
    }
}

@Suite("Listings cost what is sent of them") struct NBDListingTests {
    /// Feeds options and takes one output; the session is then left alone.
    private func outputByteCount(_ session: NBDSession, _ bytes: [UInt8]) -> Int {
        MemoryArena.withTemporary(byteCount: max(bytes.count, 1)) { region in
            region.copy(from: bytes)
            let (_, event) = session.next(input: region.slice(0, bytes.count))
            guard case .output(let output) = event else { return 0 }
            return output.byteCount
        }
    }

    @Test func list_clientDoesNotRead_makesOneOutputOfExports() {
        let arena = MemoryArena(byteCount: NBDSession.memoryByteCount)
        let session = NBDSession(memory: arena.region)
        let exports = CountedExports(count: 100_000)
        session.reset(exports: exports, tlsMode: .off)
        #expect(outputByteCount(session, []) == 18)
        let first = outputByteCount(session, [0, 0, 0, 3] + Client.option(.list))
        #expect(first > NBDSession.outputByteCountMax / 2)
        #expect(exports.madeCount < 1000)
        withExtendedLifetime(arena) {}
    }

    @Test func transmission_keepsNoContexts() {
        let connection = ModelConnection.transmitting(.structured, contexts: ["base:allocation"])
        #expect(connection.session.export?.contexts.isEmpty == true)
        #expect(connection.session.contextCount == 1)
    }
}
