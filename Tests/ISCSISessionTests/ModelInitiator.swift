import BlockCore
import ISCSISession
import ISCSIWire

/// Targets of a test: one, and what is said of it can be chosen.
final class ModelTargets: ISCSITargetSource {
    static let name = "iqn.2026-01.cairn:vm01"
    var portalGroup: UInt16 { 1 }
    var admission = ISCSIAdmission.welcome(nil)
    var establishment = ISCSIEstablishment.established(tsih: 7)
    var entries = [ISCSITargetEntry(name: ModelTargets.name, addresses: ["127.0.0.1:3260,1"])]
    private(set) var admitted: [ISCSILogin] = []

    func admit(_ login: ISCSILogin) -> ISCSIAdmission {
        admitted.append(login)
        return admission
    }

    func establish(_ login: ISCSILogin) -> ISCSIEstablishment { establishment }

    func targets(for login: ISCSILogin, named name: String?) -> [ISCSITargetEntry] {
        entries.filter { name == nil || $0.name == name }
    }

    func randomBytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8($0) } }
}

/// A PDU that the session sent.
struct ModelPDU {
    var header: ISCSIHeader
    var data: [UInt8]

    var status: UInt8 { header.byte3 }
    var loginStatus: UInt16 { UInt16(truncatingIfNeeded: header.long32 >> 16) }
    var pairs: [String: String] {
        let all = (try? ISCSIText.pairs(data)) ?? []
        return Dictionary(all.map { ($0.key, $0.value) }) { first, _ in first }
    }
}

/// An initiator without a socket: what it sends goes to a session, what comes back is kept.
final class ModelInitiator {
    static let name = "iqn.2026-01.example:host"
    private let arena = MemoryArena(byteCount: 4 << 20, usesHugePages: false)
    private let input: ByteRegion
    let out: ByteRegion
    let session: ISCSISession
    let targets = ModelTargets()

    /// The number of the next command.
    var commandNumber: UInt32 = 100
    /// Bytes handed over at a time.
    var pieceByteCount = Int.max
    var hasHeaderDigest = false
    var hasDataDigest = false

    private(set) var outputs: [ModelPDU] = []
    private(set) var events: [String] = []
    private(set) var commands: [Int32] = []
    private(set) var readyTasks: [Int32] = []
    private(set) var management: [ISCSIManagement] = []
    private(set) var closeReason: ISCSICloseReason?
    /// Data-out by task.
    private(set) var received: [Int32: [UInt8]] = [:]
    /// Bytes that the driver says it wants of each command; nil for all.
    var wantedByteCount: UInt32?

    init() {
        input = arena.allocate(byteCount: 2 << 20)
        out = arena.allocate(byteCount: 64 << 10)
        session = ISCSISession(memory: arena.allocate(byteCount: ISCSISession.memoryByteCount))
        session.reset(targets: targets)
    }

    // MARK: - Sending

    func send(_ header: ISCSIHeader, _ data: [UInt8] = [], additional: [UInt8] = []) {
        feed(bytes(header, data, additional: additional))
    }

    /// A PDU as bytes.
    func bytes(_ header: ISCSIHeader, _ data: [UInt8], additional: [UInt8] = []) -> [UInt8] {
        var header = header
        header.dataByteCount = UInt32(data.count)
        header.additionalWordCount = UInt8(additional.count / 4)
        header.encode(into: out)
        var all = out.slice(0, 48).array() + additional
        if hasHeaderDigest { all += digest(all) }
        guard !data.isEmpty else { return all }
        let padded = data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
        return all + padded + (hasDataDigest ? digest(padded) : [])
    }

    private func digest(_ bytes: [UInt8]) -> [UInt8] {
        let region = input.slice(1 << 20, bytes.count)
        region.copy(from: bytes)
        ISCSIDigest.store(region.crc32c(), into: out, at: 1024)
        return out.slice(1024, 4).array()
    }

    func feed(_ bytes: [UInt8]) {
        var start = 0
        repeat {
            let end = bytes.count - start > pieceByteCount ? start + pieceByteCount : bytes.count
            let piece = input.slice(0, end - start)
            piece.copy(from: Array(bytes[start..<end]))
            run(piece)
            start = end
        } while start < bytes.count && closeReason == nil
    }

    private func run(_ piece: ByteRegion) {
        var rest = piece
        while true {
            let (consumed, event) = session.next(input: rest)
            rest = rest.suffix(from: consumed)
            switch event {
            case .needMore:
                precondition(rest.isEmpty, "wants more and leaves some")
                return
            case .output(let bytes): takeOutput(bytes)
            case .command(let task):
                commands.append(task)
                session.accept(task, wantedByteCount: wantedByteCount ?? .max)
            case .data(let task, let offset, let bytes):
                var data = received[task] ?? []
                precondition(data.count == Int(offset), "data out of order")
                data += bytes.array()
                received[task] = data
            case .ready(let task): readyTasks.append(task)
            case .management(let request): management.append(request)
            case .loggedIn: events.append("loggedIn")
            case .close(let reason):
                closeReason = reason
                return
            }
        }
    }

    /// Takes PDUs out of what the session wants sent.
    func takeOutput(_ bytes: ByteRegion) {
        var offset = 0
        while offset < bytes.byteCount {
            let header = ISCSIHeader(decoding: bytes.suffix(from: offset))
            offset += 48
            if hasHeaderDigest {
                precondition(
                    bytes.slice(offset - 48, 48).crc32c() == ISCSIDigest.load(bytes, at: offset),
                    "a wrong header digest"
                )
                offset += 4
            }
            let data = bytes.slice(offset, Int(header.dataByteCount)).array()
            let padded = bytes.slice(offset, header.paddedByteCount)
            offset += header.paddedByteCount
            if hasDataDigest, header.dataByteCount > 0 {
                precondition(
                    padded.crc32c() == ISCSIDigest.load(bytes, at: offset),
                    "a wrong data digest"
                )
                offset += 4
            }
            outputs.append(ModelPDU(header: header, data: data))
        }
        precondition(offset == bytes.byteCount, "bytes behind a PDU")
    }

    var last: ModelPDU { outputs.last ?? ModelPDU(header: ISCSIHeader(.nopOut), data: []) }

    func forget() {
        outputs = []
        readyTasks = []
        commands = []
        received = [:]
    }

    // MARK: - Login

    static func names(discovery: Bool = false) -> [ISCSITextPair] {
        [
            ISCSITextPair("InitiatorName", name),
            ISCSITextPair("SessionType", discovery ? "Discovery" : "Normal"),
        ] + (discovery ? [] : [ISCSITextPair("TargetName", ModelTargets.name)])
    }

    func loginHeader(
        stage: ISCSIStage,
        next: ISCSIStage?,
        continues: Bool = false
    ) -> ISCSIHeader {
        var header = ISCSIHeader(.login)
        header.isImmediate = true
        header.flags = stage.rawValue << 2 | (continues ? 0x40 : 0)
        if let next { header.flags |= 0x80 | next.rawValue }
        header.lun = 0x8000_0000_0001 << 16
        header.taskTag = 1
        header.word24 = commandNumber
        header.word28 = 50
        return header
    }

    func login(
        _ pairs: [ISCSITextPair],
        stage: ISCSIStage = .operational,
        next: ISCSIStage? = .fullFeature
    ) {
        send(loginHeader(stage: stage, next: next), ISCSIText.bytes(pairs))
    }

    /// An initiator in full feature phase.
    static func loggedIn(_ keys: [String: String] = [:], discovery: Bool = false) -> ModelInitiator
    {
        let initiator = ModelInitiator()
        let pairs = keys.sorted { $0.key < $1.key }.map { ISCSITextPair($0.key, $0.value) }
        initiator.login(names(discovery: discovery) + pairs)
        initiator.hasHeaderDigest = initiator.session.parameters.hasHeaderDigest
        initiator.hasDataDigest = initiator.session.parameters.hasDataDigest
        return initiator
    }

    // MARK: - Full feature

    /// The header of a command with its number.
    func command(
        write byteCount: UInt32 = 0,
        read readByteCount: UInt32 = 0,
        tag: UInt32 = 10,
        isFinal: Bool = true
    ) -> ISCSIHeader {
        var header = ISCSIHeader(.command)
        header.flags = (isFinal ? 0x80 : 0) | (byteCount > 0 ? 0x20 : 0)
        header.flags |= readByteCount > 0 ? 0x40 : 0
        header.taskTag = tag
        header.word20 = byteCount > 0 ? byteCount : readByteCount
        header.word24 = commandNumber
        commandNumber &+= 1
        return header
    }

    /// Data in answer to an R2T.
    func data(
        _ ask: ModelPDU,
        number: UInt32,
        offset: UInt32,
        isFinal: Bool
    ) -> ISCSIHeader {
        var header = ISCSIHeader(.dataOut)
        header.flags = isFinal ? 0x80 : 0
        header.taskTag = ask.header.taskTag
        header.word20 = ask.header.opcode == .readyToTransfer ? ask.header.word20 : .max
        header.long32 = UInt64(number)
        header.long40 = UInt64(offset) << 32
        return header
    }

    func respond(_ task: Int32, status: UInt8 = 0, dataOut: UInt32 = 0, dataIn: UInt32 = 0) {
        let byteCount = session.writeResponse(
            task,
            status: status,
            sense: .empty,
            dataOut: dataOut,
            dataIn: dataIn,
            into: out
        )
        session.finish(task)
        takeOutput(out.slice(0, byteCount))
    }
}

/// `count` bytes that differ.
func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) } }
