// Replies to options, and the options that list: exports and metadata contexts.
//
// A listing of any length goes out in outputs of bounded size, one per call.

import BlockCore
import NBDWire

extension NBDSession {
    // MARK: - Building

    /// Appends the header of a reply whose `dataByteCount` bytes the caller appends next.
    private func append(_ kind: NBDOptionReplyKind, dataByteCount: Int) {
        let header = NBDOptionReplyHeader(
            optionCode: handshake.optionCode,
            kind: kind,
            dataByteCount: UInt32(dataByteCount)
        )
        outputByteCount += header.encode(into: output, at: outputByteCount)
    }

    /// Appends an item of information; `encode` puts its `byteCount` bytes at the position given.
    func appendInfo(_ kind: NBDInfoKind, byteCount: Int, _ encode: (Int) -> Int) {
        append(.info, dataByteCount: 2 + byteCount)
        output.storeBigEndian(kind.rawValue, at: outputByteCount)
        outputByteCount += 2
        outputByteCount += encode(outputByteCount)
    }

    /// Ends an option that was carried out.
    func acknowledge() -> NBDEvent {
        append(.acknowledgement, dataByteCount: 0)
        return emit()
    }

    /// Ends an option with the refusal that was decided earlier.
    func refuseOption() -> NBDEvent {
        refuseOption(handshake.refusal.kind, handshake.refusal.text)
    }

    /// Ends an option with an error.
    func refuseOption(_ kind: NBDOptionReplyKind, _ text: String) -> NBDEvent {
        append(kind, dataByteCount: text.utf8.count)
        outputByteCount += output.copy(utf8: text, at: outputByteCount)
        return emit()
    }

    /// Ends an option whose data cannot be understood.
    func refuseOption(_ error: NBDWireError) -> NBDEvent {
        switch error {
        case .tooBig: refuseOption(.tooBig, "a string above 4096 bytes, or too many queries")
        case .badString: refuseOption(.invalid, "a string that is not UTF-8")
        case .malformed, .needMoreBytes, .badMagic:
            refuseOption(.invalid, "lengths that contradict each other")
        }
    }

    /// Whether a reply with `dataByteCount` bytes, and an acknowledgement behind it, still fits.
    private func hasRoom(_ dataByteCount: Int) -> Bool {
        let room = output.byteCount - outputByteCount
        return room >= dataByteCount + 2 * NBDOptionReplyHeader.byteCount
    }

    // MARK: - Listings

    /// One output of a LIST.
    func list() -> NBDEvent {
        while let export = handshake.nextListed ?? handshake.listed?.next() {
            handshake.nextListed = nil
            guard export.isListable else { continue }
            let nameByteCount = export.name.utf8.count
            let dataByteCount = 4 + nameByteCount + export.description.utf8.count
            guard hasRoom(dataByteCount) else {
                handshake.nextListed = export
                return emit()
            }
            append(.server, dataByteCount: dataByteCount)
            output.storeBigEndian(UInt32(nameByteCount), at: outputByteCount)
            outputByteCount += 4
            outputByteCount += output.copy(utf8: export.name, at: outputByteCount)
            outputByteCount += output.copy(utf8: export.description, at: outputByteCount)
        }
        handshake.listed = nil
        phase = .optionHeader
        return acknowledge()
    }

    /// One output of a LIST_META_CONTEXT or SET_META_CONTEXT.
    func listContexts() -> NBDEvent {
        while let context = handshake.listedContexts?.rest.first {
            let isAnswer = handshake.listedContexts?.names(context) ?? false
            if isAnswer {
                let dataByteCount = 4 + context.name.utf8.count
                guard hasRoom(dataByteCount) else { return emit() }
                let id = handshake.listedContexts?.takeID() ?? 0
                append(.metaContext, id: id, context.name)
            }
            _ = handshake.listedContexts?.rest.popFirst()
        }
        handshake.listedContexts = nil
        phase = .optionHeader
        return acknowledge()
    }

    private func append(_ kind: NBDOptionReplyKind, id: UInt32, _ name: String) {
        append(kind, dataByteCount: 4 + name.utf8.count)
        output.storeBigEndian(id, at: outputByteCount)
        outputByteCount += 4
        outputByteCount += output.copy(utf8: name, at: outputByteCount)
    }

    // MARK: - Metadata contexts

    /// Acts on LIST_META_CONTEXT and SET_META_CONTEXT.
    func onMetaContext(_ data: ByteRegion) -> NBDEvent? {
        let isSelection = handshake.option == .setMetaContext
        // A selection replaces the one before, also when it fails.
        if isSelection { handshake.contextCount = 0 }
        let export: NBDExport
        let query: NBDMetaQuery
        let queries: [String]
        do throws(NBDWireError) {
            query = try NBDMetaQuery.decode(data)
            guard let found = handshake.exports?.export(named: try NBDText.decode(query.name))
            else { return refuseUnknownName() }
            export = found
            queries = try decodeQueries(query)
        } catch {
            return refuseOption(error)
        }
        if isSelection {
            guard select(export.contexts, queries) else {
                return refuseOption(.tooBig, "more contexts than can be selected together")
            }
            handshake.contextExportName = query.name.array()
        } else {
            handshake.listedContexts = export.listing(queries)
        }
        phase = .listingContexts
        return nil
    }

    private func decodeQueries(_ query: NBDMetaQuery) throws(NBDWireError) -> [String] {
        guard query.queryCount <= Self.queryCountMax else { throw .tooBig }
        var queries: [String] = []
        try query.forEachQuery { text throws(NBDWireError) in
            queries.append(try NBDText.decode(text))
        }
        return queries
    }

    /// Selects the contexts that the queries name in full; false when they are too many.
    private func select(_ contexts: ArraySlice<NBDMetaContext>, _ queries: [String]) -> Bool {
        let chosen = contexts.filter { context in
            NBDText.isAllowed(context.name)
                && queries.contains { $0.hasSameBytes(as: context.name) }
        }
        guard chosen.count <= Self.contextCountMax else { return false }
        for (index, context) in chosen.enumerated() {
            selected[index] = NBDSelectedContext(
                id: UInt32(index + 1),
                kind: context.kind,
                snapshotHandle: context.snapshotHandle
            )
        }
        handshake.listedContexts = NBDSession.ContextListing(
            rest: chosen[...],
            queries: [],
            nextID: 1
        )
        handshake.contextCount = chosen.count
        return true
    }
}

extension NBDExport {
    /// What answers a LIST_META_CONTEXT.
    ///
    /// Without queries: everything that can be selected; but families with more members than can
    /// be selected together are named by their wildcard, which a client may then ask for. A query
    /// that ends in a colon is a wildcard for the names that begin with it.
    fileprivate func listing(_ queries: [String]) -> NBDSession.ContextListing {
        var listing = NBDSession.ContextListing(rest: contexts, queries: queries, nextID: 0)
        guard queries.isEmpty, contexts.count > NBDSession.contextCountMax else { return listing }
        listing.rest = []
        var families: Set<String> = []
        for var context in contexts where NBDText.isAllowed(context.name) {
            context.name = context.family ?? context.name
            if families.insert(context.name).inserted { listing.rest.append(context) }
        }
        return listing
    }
}

extension NBDSession.ContextListing {
    /// Whether the client asked for `context`.
    fileprivate func names(_ context: NBDMetaContext) -> Bool {
        guard NBDText.isAllowed(context.name) else { return false }
        guard !queries.isEmpty else { return true }
        return queries.contains {
            $0.hasSameBytes(as: context.name) || $0.isWildcard(for: context.name)
        }
    }

    /// The id of the next context that is told.
    fileprivate mutating func takeID() -> UInt32 {
        guard nextID > 0 else { return 0 }
        defer { nextID += 1 }
        return nextID
    }
}

extension String {
    /// Whether the strings are the same on the wire; `==` would also join what Unicode calls
    /// equivalent.
    fileprivate func hasSameBytes(as other: String) -> Bool {
        utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8)
    }

    /// Whether the string ends in a colon and `name` begins with it.
    fileprivate func isWildcard(for name: String) -> Bool {
        utf8.last == UInt8(ascii: ":") && name.utf8.starts(with: utf8)
    }
}
