import BlockCore
import NBDSession
import NBDWire

/// The exports of the tests: a small volume addressed by the byte, and a snapshot of it.
final class ModelExports: NBDExportSource {
    static let byteSizes = NBDBlockSizes(
        blockByteCountMin: 1,
        blockByteCountPreferred: 4096,
        payloadByteCountMax: 32 << 20
    )
    static let sectorSizes = NBDBlockSizes(
        blockByteCountMin: 512,
        blockByteCountPreferred: 4096,
        payloadByteCountMax: 32 << 20
    )
    static let volume = NBDExport(
        handle: 1,
        name: "vol",
        description: "a volume",
        byteCount: 65536,
        sizes: byteSizes,
        contexts: [.allocation, .allocationDepth]
            + NBDMetaContext.changedSince(snapshot: "first", handle: 77)
    )
    static let snapshot = NBDExport(
        handle: 2,
        name: "vol@snap",
        byteCount: 65536,
        isReadOnly: true,
        sizes: sectorSizes
    )

    var all = [ModelExports.volume, ModelExports.snapshot]

    func export(named name: String) -> NBDExport? {
        name.isEmpty ? all.first : all.first { $0.name.utf8.elementsEqual(name.utf8) }
    }

    func exports() -> [NBDExport] { all }
}

/// A driver over memory that follows a rule: the first half of the volume holds a pattern in the
/// top layer, written since the snapshot; the second half is a hole.
final class ModelConnection {
    static let dataByteCount: UInt64 = 32768

    let session: NBDSession
    let exports: ModelExports
    /// What the server sent and nobody has looked at yet.
    var sent: [UInt8] = []
    /// Requests that were accepted.
    var requests: [NBDRequest] = []
    /// Why the session closed.
    var closeReason: NBDCloseReason?
    /// How many TLS handshakes were asked for.
    var tlsCount = 0
    /// The answer to the wish to open an export; nil accepts, and `holdsOpening` says nothing.
    var openRefusal: NBDOptionReplyKind?
    var holdsOpening = false
    /// The largest output seen.
    var outputByteCountMax = 0

    private let arena: MemoryArena
    private let input: ByteRegion
    private let reply: ByteRegion
    private let extents: ByteRegion
    private var payloadByteCount = 0

    init(exports: ModelExports = ModelExports(), tlsMode: NBDTLSMode = .off) {
        arena = MemoryArena(byteCount: NBDSession.memoryByteCount + (4 << 20))
        session = NBDSession(memory: arena.allocate(byteCount: NBDSession.memoryByteCount))
        input = arena.allocate(byteCount: 2 << 20)
        reply = arena.allocate(byteCount: 1 << 20)
        extents = arena.allocate(byteCount: 4096)
        self.exports = exports
        session.reset(exports: exports, tlsMode: tlsMode)
        feed([])
    }

    /// Hands bytes over at once and carries out what the session asks for.
    func feed(_ bytes: [UInt8]) {
        input.copy(from: bytes)
        var rest = input.slice(0, bytes.count)
        while closeReason == nil {
            let payload = min(payloadByteCount, rest.byteCount)
            payloadByteCount -= payload
            rest = rest.suffix(from: payload)
            if payloadByteCount > 0 { return }
            let roomByteCount = session.nextOutputByteCountMax
            let (consumed, event) = session.next(input: rest)
            rest = rest.suffix(from: consumed)
            switch event {
            case .needMore:
                precondition(rest.isEmpty, "wants more and leaves some")
                return
            case .output(let bytes):
                precondition(bytes.byteCount <= roomByteCount, "more output than announced")
                outputByteCountMax = max(outputByteCountMax, bytes.byteCount)
                sent += bytes.array()
            case .startTLS:
                tlsCount += 1
                return
            case .open:
                guard !holdsOpening else { return }
                if let openRefusal {
                    session.onOpenRefused(openRefusal, text: "refused")
                } else {
                    session.onOpened()
                }
            case .wait:
                return
            case .request(let request):
                requests.append(request)
                if request.hasPayload { payloadByteCount = Int(request.byteCount) }
                answer(request)
            case .close(let reason):
                closeReason = reason
            }
        }
    }

    /// Takes what the server sent.
    func takeSent() -> [UInt8] {
        defer { sent = [] }
        return sent
    }

    private func answer(_ request: NBDRequest) {
        switch request.command {
        case .read: answerRead(request)
        case .blockStatus: answerStatus(request)
        default: send(NBDReply.success(request, mode: session.mode, into: reply))
        }
    }

    private func send(_ byteCount: Int) { sent += reply.slice(0, byteCount).array() }

    private func answerRead(_ request: NBDRequest) {
        var read = NBDReadReply(request, mode: session.mode)
        let end = request.offset + request.byteCount
        let cut = read.mustBeWhole ? end : min(max(Self.dataByteCount, request.offset), end)
        if cut > request.offset {
            let byteCount = cut - request.offset
            send(read.data(offset: request.offset, byteCount: byteCount, into: reply))
            sent += (request.offset..<cut).map { position in
                position < Self.dataByteCount ? UInt8(position % 251) : 0
            }
        }
        if end > cut { send(read.hole(offset: cut, byteCount: end - cut, into: reply)) }
    }

    private func answerStatus(_ request: NBDRequest) {
        var mask = request.contextMask
        while mask != 0 {
            let context = session.context(at: mask.trailingZeroBitCount)
            mask &= mask - 1
            let hole: UInt64 = context.kind == .allocation ? 3 : 0
            let data: UInt64 = context.kind == .allocation ? 0 : 1
            let isData = request.offset < Self.dataByteCount
            extents.store(isData ? Self.dataByteCount - request.offset : 1 << 40, at: 0)
            extents.store(isData ? data : hole, at: 8)
            extents.store(UInt64(1) << 40, at: 16)
            extents.store(hole, at: 24)
            send(
                NBDReply.blockStatus(
                    request,
                    contextID: context.id,
                    extents: extents,
                    extentCount: 2,
                    isLast: mask == 0,
                    mode: session.mode,
                    into: reply
                )
            )
        }
    }
}

/// What a client sends.
enum Client {
    static func flags(_ flags: NBDClientFlags = [.fixedNewstyle, .noZeroes]) -> [UInt8] {
        bytes { region in
            region.storeBigEndian(flags.rawValue, at: 0)
            return 4
        }
    }

    static func option(_ code: UInt32, _ data: [UInt8] = []) -> [UInt8] {
        bytes {
            NBDOptionHeader(optionCode: code, dataByteCount: UInt32(data.count)).encode(into: $0)
        } + data
    }

    static func option(_ option: NBDOption, _ data: [UInt8] = []) -> [UInt8] {
        self.option(option.rawValue, data)
    }

    static func describe(
        _ option: NBDOption,
        _ name: String = "vol",
        _ kinds: [UInt16] = []
    ) -> [UInt8] {
        self.option(option, bytes { NBDInfoQuery.encode(name: name, kinds: kinds, into: $0) })
    }

    static func contexts(
        _ option: NBDOption,
        _ name: String = "vol",
        _ queries: [String]
    ) -> [UInt8] {
        self.option(option, bytes { NBDMetaQuery.encode(name: name, queries: queries, into: $0) })
    }

    static func request(
        _ header: NBDRequestHeader,
        _ mode: NBDReplyMode,
        _ payload: [UInt8] = []
    ) -> [UInt8] {
        bytes { header.encode(into: $0, mode: mode) } + payload
    }

    static func bytes(_ encode: (ByteRegion) -> Int) -> [UInt8] {
        let arena = MemoryArena(byteCount: 256 << 10)
        return withExtendedLifetime(arena) { arena.region.slice(0, encode(arena.region)).array() }
    }
}

/// One reply to an option, as a client reads it.
struct OptionReply: Equatable {
    var option: UInt32
    var kind: NBDOptionReplyKind?
    var data: [UInt8]

    /// All replies in `bytes`; nil when they are not whole replies.
    static func parse(_ bytes: [UInt8]) -> [OptionReply]? {
        let arena = MemoryArena(byteCount: max(bytes.count, 1))
        arena.region.copy(from: bytes)
        var rest = arena.region.slice(0, bytes.count)
        var replies: [OptionReply] = []
        while !rest.isEmpty {
            guard let header = try? NBDOptionReplyHeader.decode(rest) else { return nil }
            let end = NBDOptionReplyHeader.byteCount + Int(header.dataByteCount)
            guard rest.byteCount >= end else { return nil }
            let data = rest.slice(NBDOptionReplyHeader.byteCount, Int(header.dataByteCount))
            replies.append(
                OptionReply(option: header.optionCode, kind: header.kind, data: data.array())
            )
            rest = rest.suffix(from: end)
        }
        return withExtendedLifetime(arena) { replies }
    }
}

extension ModelConnection {
    /// A connection that has exchanged greeting and flags.
    static func haggling(
        _ flags: NBDClientFlags = [.fixedNewstyle, .noZeroes],
        exports: ModelExports = ModelExports(),
        tlsMode: NBDTLSMode = .off
    ) -> ModelConnection {
        let connection = ModelConnection(exports: exports, tlsMode: tlsMode)
        connection.feed(Client.flags(flags))
        _ = connection.takeSent()
        return connection
    }

    /// A connection in transmission, with contexts selected where the mode allows.
    static func transmitting(
        _ mode: NBDReplyMode,
        export: String = "vol",
        contexts: [String] = [],
        exports: ModelExports = ModelExports()
    ) -> ModelConnection {
        let connection = haggling(exports: exports)
        switch mode {
        case .simple: break
        case .structured: connection.feed(Client.option(.structuredReply))
        case .extended: connection.feed(Client.option(.extendedHeaders))
        }
        if !contexts.isEmpty { connection.feed(Client.contexts(.setMetaContext, export, contexts)) }
        connection.feed(Client.describe(.go, export))
        _ = connection.takeSent()
        precondition(connection.session.isTransmitting, "no way into transmission")
        return connection
    }

    /// Sends an option and returns the replies.
    func ask(_ bytes: [UInt8]) -> [OptionReply] {
        feed(bytes)
        return OptionReply.parse(takeSent()) ?? []
    }

    /// Sends an option and returns the kind of the last reply.
    func kind(_ bytes: [UInt8]) -> NBDOptionReplyKind? { ask(bytes).last?.kind }
}
