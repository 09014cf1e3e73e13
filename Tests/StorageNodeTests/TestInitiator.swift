// A small iSCSI initiator for the tests: blocking, over a unix socket, every call bounded in time.

import BlockCore
import Glibc
import ISCSIWire

/// A PDU of the target.
struct TargetPDU {
    var header: ISCSIHeader
    var data: [UInt8]

    var pairs: [String: String] {
        let all = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        return Dictionary(
            all.compactMap { pair in
                guard let equals = pair.firstIndex(of: "=") else { return nil }
                return (String(pair[..<equals]), String(pair[pair.index(after: equals)...]))
            }
        ) { first, _ in first }
    }

    var loginStatus: UInt16 { UInt16(truncatingIfNeeded: header.long32 >> 16) }
}

/// What came of a command.
struct CommandResult {
    var status: UInt8
    var data: [UInt8]
    /// Key, code and qualifier of the sense data, in one number.
    var sense: UInt32 = 0
}

/// A session with a target.
final class TestInitiator {
    static let name = "iqn.2026-01.example:host"
    let client: TestClient
    let isid: UInt64
    private let arena = MemoryArena(byteCount: 4096, usesHugePages: false)
    var commandNumber: UInt32 = 1
    private var nextTag: UInt32 = 1

    /// Connects; says nothing yet.
    init(_ path: String, isid: UInt64 = 1) throws {
        client = try TestClient(path: path)
        self.isid = isid
    }

    // MARK: - PDUs

    func bytes(_ header: ISCSIHeader, _ data: [UInt8] = []) -> [UInt8] {
        var header = header
        header.dataByteCount = UInt32(data.count)
        let region = arena.region.slice(0, 48)
        header.encode(into: region)
        return region.array() + data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
    }

    func send(_ header: ISCSIHeader, _ data: [UInt8] = []) throws {
        try client.send(bytes(header, data))
    }

    func receive() throws -> TargetPDU {
        let region = arena.region.slice(0, 48)
        region.copy(from: try client.receive(48))
        let header = ISCSIHeader(decoding: region)
        let data = try client.receive(header.paddedByteCount)
        return TargetPDU(header: header, data: Array(data.prefix(Int(header.dataByteCount))))
    }

    // MARK: - Login

    func loginHeader(stage: UInt8, next: UInt8?) -> ISCSIHeader {
        var header = ISCSIHeader(.login)
        header.isImmediate = true
        header.flags = stage << 2
        if let next { header.flags |= 0x80 | next }
        header.lun = isid << 16
        header.word24 = commandNumber
        return header
    }

    func names(_ volume: String?) -> [ISCSITextPair] {
        [
            ISCSITextPair("InitiatorName", Self.name),
            ISCSITextPair("SessionType", volume == nil ? "Discovery" : "Normal"),
        ] + (volume.map { [ISCSITextPair("TargetName", "iqn.2026-01.cairn:" + $0)] } ?? [])
    }

    /// Logs in without a proof; the status.
    func login(_ volume: String?, _ keys: [String: String] = [:]) throws -> UInt16 {
        let pairs = names(volume) + keys.map { ISCSITextPair($0.key, $0.value) }
        try send(loginHeader(stage: 1, next: 3), ISCSIText.bytes(pairs))
        return try receive().loginStatus
    }

    /// Logs in with CHAP, and has the target prove itself; its response, or the status.
    func login(
        _ volume: String,
        user: String,
        secret: String,
        challenge: [UInt8]
    ) throws -> (status: UInt16, proof: String?) {
        let method = [ISCSITextPair("AuthMethod", "CHAP")]
        try send(loginHeader(stage: 0, next: nil), ISCSIText.bytes(names(volume) + method))
        let first = try receive()
        guard first.loginStatus == 0 else { return (first.loginStatus, nil) }
        try send(
            loginHeader(stage: 0, next: nil),
            ISCSIText.bytes([ISCSITextPair("CHAP_A", "7")])
        )
        let asked = try receive().pairs
        let response = CHAPAlgorithm.sha256.response(
            identifier: UInt8(asked["CHAP_I"] ?? "") ?? 0,
            secret: Array(secret.utf8),
            challenge: ISCSIText.binary(asked["CHAP_C"] ?? "") ?? []
        )
        let answer = [
            ISCSITextPair("CHAP_N", user), ISCSITextPair("CHAP_R", ISCSIText.hexText(response)),
            ISCSITextPair("CHAP_I", "5"), ISCSITextPair("CHAP_C", ISCSIText.hexText(challenge)),
        ]
        try send(loginHeader(stage: 0, next: 3), ISCSIText.bytes(answer))
        let last = try receive()
        return (last.loginStatus, last.pairs["CHAP_R"])
    }

    /// The targets that discovery tells of.
    func sendTargets() throws -> [String] {
        var header = ISCSIHeader(.text)
        header.flags = 0x80
        header.word20 = .max
        header.word24 = commandNumber
        commandNumber += 1
        try send(header, ISCSIText.bytes([ISCSITextPair("SendTargets", "All")]))
        let text = String(decoding: try receive().data, as: UTF8.self)
        return text.split(separator: "\0").filter { $0.hasPrefix("TargetName=") }
            .map { String($0.dropFirst("TargetName=".count)) }
    }

    // MARK: - Commands

    func commandHeader(
        _ block: [UInt8],
        write: Int = 0,
        read: Int = 0,
        tag: UInt32? = nil
    ) -> ISCSIHeader {
        var header = ISCSIHeader(.command)
        header.flags = 0x80 | (read > 0 ? 0x40 : 0) | (write > 0 ? 0x20 : 0)
        header.taskTag = tag ?? nextTag
        nextTag += 1
        header.word20 = UInt32(max(write, read))
        header.word24 = commandNumber
        commandNumber &+= 1
        let whole = block + [UInt8](repeating: 0, count: 16 - block.count)
        header.long32 = whole[..<8].reduce(0) { $0 << 8 | UInt64($1) }
        header.long40 = whole[8...].reduce(0) { $0 << 8 | UInt64($1) }
        return header
    }

    /// Carries out a command; data goes with it as far as it is immediate, the rest when asked for.
    func run(_ block: [UInt8], write: [UInt8] = [], read: Int = 0) throws -> CommandResult {
        let immediate = min(write.count, 8192)
        try send(
            commandHeader(block, write: write.count, read: read),
            Array(write[..<immediate])
        )
        return try finish(write)
    }

    /// Answers what the target asks for until it has answered.
    func finish(_ write: [UInt8]) throws -> CommandResult {
        var data: [UInt8] = []
        while true {
            let pdu = try receive()
            switch pdu.header.opcode {
            case .dataIn:
                data += pdu.data
                if pdu.header.flags & 0x01 != 0 {
                    return CommandResult(status: pdu.header.byte3, data: data)
                }
            case .readyToTransfer: try answer(pdu, write)
            case .response:
                var result = CommandResult(status: pdu.header.byte3, data: data)
                if pdu.data.count >= 16 {
                    let sense = pdu.data
                    result.sense = UInt32(sense[4] & 0xF) << 16 | UInt32(sense[14]) << 8
                    result.sense |= UInt32(sense[15])
                }
                return result
            default: throw ClientError("an unexpected PDU: \(pdu.header.code)")
            }
        }
    }

    private func answer(_ ask: TargetPDU, _ write: [UInt8]) throws {
        let offset = Int(ask.header.long40 >> 32)
        let byteCount = Int(ask.header.long40 & 0xFFFF_FFFF)
        var sent = 0
        var number: UInt64 = 0
        while sent < byteCount {
            let part = min(65_536, byteCount - sent)
            var header = ISCSIHeader(.dataOut)
            header.flags = sent + part == byteCount ? 0x80 : 0
            header.taskTag = ask.header.taskTag
            header.word20 = ask.header.word20
            header.long32 = number
            header.long40 = UInt64(offset + sent) << 32
            try send(header, Array(write[(offset + sent)..<(offset + sent + part)]))
            sent += part
            number += 1
        }
    }

    // MARK: - Commands by name

    static func block(_ code: UInt8, _ address: UInt64, _ count: Int) -> [UInt8] {
        var bytes = [code, 0]
        for shift in stride(from: 24, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: address >> UInt64(shift)))
        }
        return bytes + [0, UInt8(count >> 8), UInt8(count & 0xFF), 0]
    }

    /// READ (10) of blocks of 512 bytes.
    func read(_ address: UInt64, _ count: Int) throws -> CommandResult {
        try run(Self.block(0x28, address, count), read: count * 512)
    }

    /// WRITE (10).
    func write(_ address: UInt64, _ data: [UInt8]) throws -> CommandResult {
        try run(Self.block(0x2A, address, data.count / 512), write: data)
    }

    /// Takes the attention that a new nexus has.
    func settle() throws { _ = try run([0, 0, 0, 0, 0, 0]) }
}
