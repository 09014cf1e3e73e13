// The handshake: greeting, client flags, options, TLS, and the way into transmission.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Fixed newstyle negotiation", "TLS support",
// "Option types".

import BlockCore
import NBDWire

extension NBDSession {
    /// What is negotiated before transmission; it may allocate.
    struct Handshake {
        var exports: (any NBDExportSource)?
        var tlsMode: NBDTLSMode = .off
        var isUnderTLS = false
        var clientFlags: NBDClientFlags = []
        var optionCount = 0
        var optionCode: UInt32 = 0
        var option: NBDOption?
        var dataByteCount = 0
        var refusal = OptionRefusal(kind: .unsupported, text: "")
        // Listings go on where they stopped when the client reads; what they walk through belongs
        // to the catalogue, so that many clients that do not read hold no copies of it.
        var listed: AnyIterator<NBDExport>?
        /// The export that did not fit into the last output.
        var nextListed: NBDExport?
        var listedContexts: ContextListing?
        var mode: NBDReplyMode = .simple
        var contextCount = 0
        var contextExportName: [UInt8] = []
        var export: NBDExport?
        var exportName: [UInt8] = []
        var wantsName = false
        var wantsDescription = false

        /// Forgets what was negotiated in the clear (`NBD_OPT_STARTTLS`).
        mutating func forgetNegotiation() {
            mode = .simple
            contextCount = 0
            contextExportName = []
        }

        /// Forgets what only options needed.
        mutating func endNegotiation() {
            exports = nil
            listed = nil
            nextListed = nil
            listedContexts = nil
            contextExportName = []
            exportName = []
        }
    }

    /// A listing of contexts on its way.
    struct ContextListing {
        /// What is still to be looked at.
        var rest: ArraySlice<NBDMetaContext>
        /// What the client asked for; nothing stands for everything.
        var queries: [String]
        /// The id of the next one when they are selected, 0 when they are only listed.
        var nextID: UInt32
    }

    /// An error reply to an option.
    struct OptionRefusal {
        var kind: NBDOptionReplyKind
        var text: String
    }

    /// One step of the handshake.
    func shakeHands(_ stream: inout Stream) -> NBDEvent {
        while true {
            switch phase {
            case .greeting:
                outputByteCount = NBDGreeting(flags: [.fixedNewstyle, .noZeroes])
                    .encode(into: output)
                phase = .clientFlags
                return emit()
            case .clientFlags:
                guard let bytes = gather(4, from: &stream) else { return .needMore }
                let flags = NBDClientFlags(rawValue: bytes.loadBigEndian(0, as: UInt32.self))
                guard flags.isSubset(of: [.fixedNewstyle, .noZeroes]) else {
                    return close(.unknownClientFlags)
                }
                handshake.clientFlags = flags
                phase = .optionHeader
            case .optionHeader:
                guard let bytes = gather(NBDOptionHeader.byteCount, from: &stream) else {
                    return .needMore
                }
                guard let header = try? NBDOptionHeader.decode(bytes) else {
                    return close(.badOptionMagic)
                }
                if let event = onOptionHeader(header) { return event }
            case .optionData:
                guard let data = gather(handshake.dataByteCount, from: &stream) else {
                    return .needMore
                }
                if let event = onOption(data, isLastInput: stream.rest.isEmpty) { return event }
            case .optionRefusal:
                guard skip(&stream) else { return .needMore }
                phase = .optionHeader
                return refuseOption()
            case .aborting:
                guard skip(&stream) else { return .needMore }
                closeReason = .aborted
                phase = .closed
                return acknowledge()
            case .listing:
                return list()
            case .listingContexts:
                return listContexts()
            case .startTLS:
                guard stream.rest.isEmpty else { return close(.plaintextBehindStartTLS) }
                phase = .tlsHandshake
                return .startTLS
            case .open:
                phase = .opening
                return .open
            case .tlsHandshake, .opening:
                return .wait
            case .opened:
                return enterTransmission()
            case .request, .filter, .refusal, .closed:
                return transmit(&stream)
            }
        }
    }

    // MARK: - Options

    /// Decides by its header what becomes of an option; nil to go on with the stream.
    private func onOptionHeader(_ header: NBDOptionHeader) -> NBDEvent? {
        handshake.optionCount += 1
        guard handshake.optionCount <= Self.optionCountMax else { return close(.tooManyOptions) }
        let dataByteCount = Int(header.dataByteCount)
        guard dataByteCount <= Self.optionSkipByteCountMax else { return close(.optionTooLarge) }
        handshake.optionCode = header.optionCode
        handshake.option = header.option
        handshake.dataByteCount = dataByteCount

        guard mayHaggle(header.option) else { return close(.optionNotAllowed) }
        if let refusal = refusalBeforeData(header.option, dataByteCount) {
            if header.option == .setMetaContext { handshake.contextCount = 0 }
            handshake.refusal = refusal
            skipByteCount = UInt64(dataByteCount)
            phase = .optionRefusal
            return nil
        }
        switch header.option {
        case .abort:
            skipByteCount = UInt64(dataByteCount)
            phase = .aborting
        case .exportName:
            guard dataByteCount <= NBDLimits.stringByteCountMax else {
                return close(.optionTooLarge)
            }
            guard !mustStartTLS, handshake.mode != .extended else {
                return close(.exportNameNotAllowed)
            }
            guard !rules.isShuttingDown else { return close(.exportNotAvailable) }
            phase = .optionData
        default:
            phase = .optionData
        }
        return nil
    }

    /// Whether the client may send the option, by the flags that it answered the greeting with.
    ///
    /// One that is not fixed newstyle does not expect a reply to what it sends, and is to send
    /// EXPORT_NAME only. Where there is TLS it may start that first: else a server that requires
    /// TLS could not serve it at all.
    private func mayHaggle(_ option: NBDOption?) -> Bool {
        if handshake.clientFlags.contains(.fixedNewstyle) { return true }
        switch option {
        case .exportName, .abort: return true
        case .startTLS: return handshake.tlsMode != .off
        default: return false
        }
    }

    /// Whether nothing goes without TLS yet.
    private var mustStartTLS: Bool { handshake.tlsMode == .require && !handshake.isUnderTLS }

    /// Why an option is refused whatever its data says.
    private func refusalBeforeData(_ option: NBDOption?, _ dataByteCount: Int) -> OptionRefusal? {
        // These two have no error replies.
        if option == .abort || option == .exportName { return nil }
        if mustStartTLS, option != .startTLS {
            return OptionRefusal(kind: .tlsRequired, text: "use STARTTLS first")
        }
        guard let option, option != .peekExport else {
            return OptionRefusal(kind: .unsupported, text: "an option that is not known here")
        }
        if rules.isShuttingDown {
            return OptionRefusal(kind: .shutdown, text: "the server is shutting down")
        }
        switch option {
        case .list, .startTLS, .structuredReply, .extendedHeaders:
            if dataByteCount > 0 {
                return OptionRefusal(kind: .invalid, text: "an option that has no data")
            }
            return refusalOfPlainOption(option)
        case .listMetaContext, .setMetaContext:
            if handshake.mode == .simple {
                return OptionRefusal(
                    kind: .invalid,
                    text: "negotiate structured replies or extended headers first"
                )
            }
        case .abort, .exportName, .peekExport, .info, .go:
            break
        }
        if dataByteCount > Self.optionDataByteCountMax {
            return OptionRefusal(kind: .tooBig, text: "more data than this server looks at")
        }
        return nil
    }

    private func refusalOfPlainOption(_ option: NBDOption) -> OptionRefusal? {
        if option == .startTLS {
            if handshake.isUnderTLS {
                return OptionRefusal(kind: .invalid, text: "TLS is in force already")
            }
            if handshake.tlsMode == .off {
                return OptionRefusal(kind: .policy, text: "this server does not use TLS here")
            }
        }
        if option == .structuredReply, handshake.mode == .extended {
            return OptionRefusal(
                kind: .extendedHeadersRequired,
                text: "extended headers are in force"
            )
        }
        return nil
    }

    /// Acts on an option with all its data; nil to go on with the stream.
    private func onOption(_ data: ByteRegion, isLastInput: Bool) -> NBDEvent? {
        phase = .optionHeader
        switch handshake.option {
        case .list:
            handshake.listed = handshake.exports?.iterator
            handshake.nextListed = nil
            phase = .listing
            return nil
        case .startTLS:
            // What is sent behind it in the clear must never be taken for bytes under TLS.
            guard isLastInput else { return close(.plaintextBehindStartTLS) }
            handshake.forgetNegotiation()
            phase = .startTLS
            return acknowledge()
        case .structuredReply:
            handshake.mode = .structured
            return acknowledge()
        case .extendedHeaders:
            handshake.mode = .extended
            return acknowledge()
        case .info, .go:
            return onInfo(data)
        case .listMetaContext, .setMetaContext:
            return onMetaContext(data)
        case .exportName:
            guard let name = try? NBDText.decode(data), let export = find(name) else {
                return close(.exportNotAvailable)
            }
            beginOpening(export, name: data)
            return nil
        case .abort, .peekExport, nil:
            preconditionFailure("an option that is decided by its header")
        }
    }

    private func find(_ name: String) -> NBDExport? {
        guard let export = handshake.exports?.export(named: name) else { return nil }
        precondition(export.isWellFormed, "an export that cannot be described")
        return export
    }

    func refuseUnknownName() -> NBDEvent? {
        refuseOption(.unknown, handshake.exports?.unknownNameText ?? "no exports")
    }

    private func beginOpening(_ export: NBDExport, name: ByteRegion) {
        handshake.export = export
        // Selected before; the connection is not to keep the catalogue's array for its life.
        handshake.export?.contexts = []
        handshake.exportName = name.array()
        phase = .open
    }

    private func onInfo(_ data: ByteRegion) -> NBDEvent? {
        let export: NBDExport
        let query: NBDInfoQuery
        do throws(NBDWireError) {
            query = try NBDInfoQuery.decode(data)
            guard let found = find(try NBDText.decode(query.name)) else {
                return refuseUnknownName()
            }
            export = found
        } catch {
            return refuseOption(error)
        }
        handshake.wantsName = query.contains(.name)
        handshake.wantsDescription = query.contains(.description)
        if handshake.option == .go {
            beginOpening(export, name: query.name)
            return nil
        }
        describe(export, name: query.name.array())
        return acknowledge()
    }

    // MARK: - Into transmission

    /// The transmission flags of `export` for a client that names it `name`.
    private func transmissionFlags(
        _ export: NBDExport,
        name: [UInt8]
    ) -> NBDTransmissionFlags {
        var flags = export.capabilities.intersection(NBDExport.capabilitiesAll)
        flags.insert(.hasFlags)
        if !flags.contains(.writeZeroes) { flags.remove(.fastZero) }
        if export.isReadOnly { flags.insert(.readOnly) }
        if handshake.mode != .simple { flags.insert(.doNotFragment) }
        if handshake.mode == .extended, contextCount(forExportNamed: name) > 0 {
            flags.insert(.blockStatusPayload)
        }
        return flags
    }

    /// The number of selected contexts that apply: they do for the name they were selected for.
    private func contextCount(forExportNamed name: [UInt8]) -> Int {
        name == handshake.contextExportName ? handshake.contextCount : 0
    }

    /// Encodes the items of information that INFO and GO answer with.
    private func describe(_ export: NBDExport, name: [UInt8]) {
        let flags = transmissionFlags(export, name: name)
        appendInfo(.export, byteCount: NBDExportInfo.byteCount) { position in
            NBDExportInfo(exportByteCount: export.byteCount, flags: flags)
                .encode(into: output, at: position)
        }
        if handshake.wantsName {
            appendInfo(.name, byteCount: export.name.utf8.count) { position in
                output.copy(utf8: export.name, at: position)
            }
        }
        if handshake.wantsDescription, !export.description.isEmpty {
            appendInfo(.description, byteCount: export.description.utf8.count) { position in
                output.copy(utf8: export.description, at: position)
            }
        }
        // Sent unasked too: the sizes are enforced, so every client should know them.
        appendInfo(.blockSize, byteCount: NBDBlockSizes.byteCount) { position in
            export.sizes.encode(into: output, at: position)
        }
    }

    private func enterTransmission() -> NBDEvent {
        guard let export = handshake.export else { preconditionFailure("nothing was opened") }
        let flags = transmissionFlags(export, name: handshake.exportName)
        rules.enter(
            export,
            mode: handshake.mode,
            flags: flags,
            contextCount: contextCount(forExportNamed: handshake.exportName)
        )
        phase = .request
        if handshake.option == .go {
            describe(export, name: handshake.exportName)
            handshake.endNegotiation()
            return acknowledge()
        }
        outputByteCount = NBDExportInfo(exportByteCount: export.byteCount, flags: flags)
            .encode(into: output)
        if !handshake.clientFlags.contains(.noZeroes) {
            output.slice(outputByteCount, NBDExportInfo.paddingByteCount).zero()
            outputByteCount += NBDExportInfo.paddingByteCount
        }
        handshake.endNegotiation()
        return emit()
    }
}

extension NBDExport {
    /// Whether the export may appear in a listing.
    var isListable: Bool {
        NBDText.isAllowed(name) && NBDText.isAllowed(description)
    }

    /// Whether the export obeys the rules for what is sent about it.
    fileprivate var isWellFormed: Bool {
        guard isListable, sizes.isValid else { return false }
        return byteCount % UInt64(sizes.blockByteCountMin) == 0
    }
}
