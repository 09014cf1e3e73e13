public import BlockCore
public import NBDSession
public import NBDWire

/// What a client sends on one connection, well-formed: the seed of mutations.
public struct NBDConversation: Sendable {
    /// The client's bytes.
    public private(set) var bytes: [UInt8] = []
    /// Where its messages begin.
    public private(set) var messageOffsets: [Int] = []
    /// Where the bytes begin that are sent after a TLS handshake, or nil.
    public private(set) var tlsOffset: Int?
    /// A name for reports.
    public let name: String

    /// Creates an empty conversation that begins with client flags.
    public init(_ name: String, clientFlags: NBDClientFlags = [.fixedNewstyle, .noZeroes]) {
        self.name = name
        message { region in
            region.storeBigEndian(clientFlags.rawValue, at: 0)
            return 4
        }
    }

    /// Appends a message that `encode` writes, returning its length.
    public mutating func message(_ encode: (ByteRegion) -> Int) {
        let arena = MemoryArena(byteCount: FuzzMutator.byteCountMax)
        messageOffsets.append(bytes.count)
        let byteCount = encode(arena.region)
        bytes += arena.region.slice(0, byteCount).array()
        // The region must not outlive the arena.
        withExtendedLifetime(arena) {}
    }

    /// Appends an option.
    public mutating func option(_ code: UInt32, _ data: (ByteRegion) -> Int = { _ in 0 }) {
        message { region in
            let byteCount = data(region.suffix(from: NBDOptionHeader.byteCount))
            NBDOptionHeader(optionCode: code, dataByteCount: UInt32(byteCount))
                .encode(into: region)
            return NBDOptionHeader.byteCount + byteCount
        }
    }

    /// Appends an option of known kind.
    public mutating func option(_ option: NBDOption, _ data: (ByteRegion) -> Int = { _ in 0 }) {
        self.option(option.rawValue, data)
    }

    /// Appends INFO or GO.
    public mutating func describe(_ option: NBDOption, _ name: String, _ kinds: [UInt16] = [3]) {
        self.option(option) { NBDInfoQuery.encode(name: name, kinds: kinds, into: $0) }
    }

    /// Appends LIST_META_CONTEXT or SET_META_CONTEXT.
    public mutating func contexts(_ option: NBDOption, _ name: String, _ queries: [String]) {
        self.option(option) { NBDMetaQuery.encode(name: name, queries: queries, into: $0) }
    }

    /// Appends STARTTLS; what follows is sent under TLS.
    public mutating func startTLS() {
        option(.startTLS)
        tlsOffset = bytes.count
    }

    /// Appends a request with `payload`.
    public mutating func request(
        _ header: NBDRequestHeader,
        mode: NBDReplyMode,
        payload: [UInt8] = []
    ) {
        message { region in
            let byteCount = header.encode(into: region, mode: mode)
            region.copy(from: payload, at: byteCount)
            return byteCount + payload.count
        }
    }
}

extension NBDConversation {
    /// One conversation for every way through the handshake and every command in every mode.
    public static func all() -> [NBDConversation] {
        var all = [haggling(), exportName(), exportNameWithZeroes(), underTLS(), aborted()]
        for mode in NBDReplyMode.allCases {
            all.append(transmission(mode, export: "vol", block: 1))
            all.append(transmission(mode, export: "vol@snap", block: 4096))
            all.append(transmission(mode, export: "", block: 1))
        }
        all.append(refusals(.simple))
        all.append(refusals(.extended))
        return all
    }

    static func haggling() -> Self {
        var talk = Self("haggling")
        talk.option(.list)
        talk.describe(.info, "vol", [0, 1, 2, 3, 0x1234])
        talk.describe(.info, "no such export")
        talk.option(4711) { $0.copy(utf8: "data of an unknown option", at: 0) }
        talk.contexts(.listMetaContext, "vol", [])
        talk.option(.structuredReply)
        talk.contexts(.listMetaContext, "many", [])
        talk.contexts(.listMetaContext, "many", ["qemu:dirty-bitmap:", "base:", "x-none:leaf"])
        talk.contexts(.setMetaContext, "vol", ["base:allocation", "qemu:dirty-bitmap:first"])
        talk.contexts(.setMetaContext, "many", (0..<20).map { "cairn:changed-since:s\($0)" })
        talk.option(.peekExport)
        talk.option(.extendedHeaders)
        talk.option(.structuredReply)
        talk.describe(.go, "no such export")
        talk.describe(.go, "vol")
        talk.request(NBDRequestHeader(.disconnect, cookie: 0), mode: .extended)
        return talk
    }

    static func exportName() -> Self {
        var talk = Self("export-name")
        talk.option(.structuredReply)
        talk.option(.exportName) { $0.copy(utf8: "vol", at: 0) }
        talk.request(NBDRequestHeader(.read, cookie: 1, byteCount: 512), mode: .structured)
        return talk
    }

    static func exportNameWithZeroes() -> Self {
        var talk = Self("export-name-zeroes", clientFlags: [])
        talk.option(.exportName)
        talk.request(NBDRequestHeader(.read, cookie: 1, byteCount: 512), mode: .simple)
        return talk
    }

    static func underTLS() -> Self {
        var talk = Self("tls")
        talk.option(.structuredReply)
        talk.startTLS()
        talk.option(.startTLS)
        talk.option(.extendedHeaders)
        talk.contexts(.setMetaContext, "vol", ["base:allocation"])
        talk.describe(.go, "vol")
        talk.request(NBDRequestHeader(.read, cookie: 1, byteCount: 512), mode: .extended)
        return talk
    }

    static func aborted() -> Self {
        var talk = Self("aborted")
        talk.option(.abort) { $0.copy(utf8: "goodbye", at: 0) }
        return talk
    }

    static func transmission(_ mode: NBDReplyMode, export: String, block: UInt64) -> Self {
        var talk = Self("transmission-\(mode)-\(export)")
        switch mode {
        case .simple: break
        case .structured: talk.option(.structuredReply)
        case .extended: talk.option(.extendedHeaders)
        }
        if mode != .simple {
            let queries = ["base:allocation", "qemu:allocation-depth", "cairn:changed-since:first"]
            talk.contexts(.setMetaContext, export, queries)
        }
        talk.describe(.go, export)
        let unit = max(block, 64)
        let write: NBDCommandFlags = mode == .extended ? [.payloadLength] : []
        let headers = [
            NBDRequestHeader(.read, cookie: 1, offset: unit, byteCount: 2 * unit),
            NBDRequestHeader(.write, flags: write, cookie: 2, offset: 0, byteCount: unit),
            NBDRequestHeader(.flush, cookie: 3),
            NBDRequestHeader(.trim, flags: .forceUnitAccess, cookie: 4, byteCount: unit),
            NBDRequestHeader(.cache, cookie: 5, offset: unit, byteCount: unit),
            NBDRequestHeader(
                .writeZeroes,
                flags: [.noHole, .fastZero],
                cookie: 6,
                byteCount: unit
            ),
            NBDRequestHeader(.blockStatus, flags: .oneExtent, cookie: 7, byteCount: 4 * unit),
            NBDRequestHeader(.read, flags: .doNotFragment, cookie: 8, byteCount: unit),
        ]
        for header in headers {
            let isWrite = header.command == .write
            let payload = isWrite ? [UInt8](repeating: 0xA5, count: Int(unit)) : []
            talk.request(header, mode: mode, payload: payload)
        }
        if mode == .extended { talk.filteredStatus(block: unit) }
        talk.request(NBDRequestHeader(.disconnect, cookie: 0), mode: mode)
        return talk
    }

    /// Appends a BLOCK_STATUS that names its contexts.
    mutating func filteredStatus(block: UInt64) {
        message { region in
            let header = NBDRequestHeader(
                .blockStatus,
                flags: .payloadLength,
                cookie: 9,
                byteCount: 16
            )
            let end = header.encode(into: region, mode: .extended)
            region.storeBigEndian(block, at: end)
            region.storeBigEndian(UInt32(1), at: end + 8)
            region.storeBigEndian(UInt32(3), at: end + 12)
            return end + 16
        }
    }

    /// Requests that are refused, with and without payloads to skip.
    static func refusals(_ mode: NBDReplyMode) -> Self {
        var talk = Self("refusals-\(mode)")
        if mode == .extended { talk.option(.extendedHeaders) }
        talk.describe(.go, "vol")
        let end = NBDFuzzExports.volumeByteCount
        let flag: NBDCommandFlags = mode == .extended ? .payloadLength : []
        let payload = [UInt8](repeating: 1, count: 40)
        talk.request(
            NBDRequestHeader(.write, flags: flag, cookie: 1, offset: end, byteCount: 40),
            mode: mode,
            payload: payload
        )
        talk.request(NBDRequestHeader(.read, cookie: 2, offset: end, byteCount: 1), mode: mode)
        talk.request(
            NBDRequestHeader(
                flags: flag,
                commandCode: 99,
                cookie: 3,
                offset: 0,
                byteCount: mode == .extended ? 40 : 0
            ),
            mode: mode,
            payload: mode == .extended ? payload : []
        )
        talk.request(NBDRequestHeader(.blockStatus, cookie: 4, byteCount: 512), mode: mode)
        talk.request(NBDRequestHeader(.read, cookie: 5, byteCount: 0), mode: mode)
        return talk
    }
}

/// The exports of the conversations.
public final class NBDFuzzExports: NBDExportSource {
    /// The size of the volume, in bytes.
    public static var volumeByteCount: UInt64 { 6 << 30 }

    private let all: [NBDExport]

    /// Creates the exports: a volume, its snapshot, one with more snapshots than can be selected
    /// together, and names as long and odd as they may be.
    public init() {
        let bytes = NBDBlockSizes(
            blockByteCountMin: 1,
            blockByteCountPreferred: 4096,
            payloadByteCountMax: 32 << 20
        )
        let blocks = NBDBlockSizes(
            blockByteCountMin: 4096,
            blockByteCountPreferred: 4096,
            payloadByteCountMax: 1 << 20
        )
        let single: [NBDMetaContext] = [.allocation, .allocationDepth]
        let first = NBDMetaContext.changedSince(snapshot: "first", handle: 7)
        let many = (0..<40).flatMap { NBDMetaContext.changedSince(snapshot: "s\($0)", handle: $0) }
        let long = String(repeating: "n", count: NBDLimits.stringByteCountMax)
        all = [
            NBDExport(
                handle: 1,
                name: "vol",
                description: "a volume",
                byteCount: Self.volumeByteCount,
                sizes: bytes,
                contexts: single + first
            ),
            NBDExport(
                handle: 2,
                name: "vol@snap",
                byteCount: 1 << 20,
                isReadOnly: true,
                sizes: blocks,
                contexts: single + first
            ),
            NBDExport(
                handle: 3,
                name: "many",
                byteCount: 1 << 20,
                sizes: blocks,
                contexts: single + many
            ),
            NBDExport(handle: 4, name: long, description: long, byteCount: 0, sizes: bytes),
            NBDExport(
                handle: 5,
                name: "größe/\u{1F4BE}",
                byteCount: 512,
                sizes: bytes,
                capabilities: [],
                contexts: []
            ),
        ]
    }

    /// The export that `name` opens; the volume is the default.
    public func export(named name: String) -> NBDExport? {
        if name.isEmpty { return all[0] }
        return all.first { $0.name.utf8.elementsEqual(name.utf8) }
    }

    /// All exports.
    public func exports() -> [NBDExport] { all }
}
