// Well-formed initiators, for mutation.

import BlockCore
import ISCSIWire

/// What an initiator sends on one connection, as long as nothing goes wrong.
public struct ISCSIConversation: Sendable {
    /// What it is about.
    public let name: String
    /// Everything it sends.
    public private(set) var bytes: [UInt8] = []
    /// Where each of its PDUs begins.
    public private(set) var messageOffsets: [Int] = []

    private var hasDigests = false
    private var commandNumber: UInt32 = 7

    private init(_ name: String) { self.name = name }

    /// The target that they all want.
    static let target = "iqn.2026-01.cairn:vm01"
    /// What the target's challenges are made of.
    static func random(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0) }
    }
    static let credentials = (user: "host", secret: Array("a secret of the host".utf8))

    // MARK: - PDUs

    private mutating func add(_ header: ISCSIHeader, _ data: [UInt8] = [], isLogin: Bool = false) {
        messageOffsets.append(bytes.count)
        var header = header
        header.dataByteCount = UInt32(data.count)
        let arena = MemoryArena(byteCount: 16 << 10, usesHugePages: false)
        let region = arena.region
        header.encode(into: region)
        var head = region.slice(0, 48).array()
        if hasDigests, !isLogin { head += Self.digest(head, region) }
        var body = data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
        if hasDigests, !isLogin, !data.isEmpty { body += Self.digest(body, region) }
        bytes += head + body
        withExtendedLifetime(arena) {}
    }

    private static func digest(_ bytes: [UInt8], _ scratch: ByteRegion) -> [UInt8] {
        let region = scratch.slice(0, bytes.count)
        region.copy(from: bytes)
        let checksum = region.crc32c()
        return (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * UInt32($0))) }
    }

    private mutating func login(_ pairs: [(String, String)], stage: UInt8, next: UInt8?) {
        var header = ISCSIHeader(.login)
        header.isImmediate = true
        header.flags = stage << 2
        if let next { header.flags |= 0x80 | next }
        header.lun = 0x8000_0000_0001 << 16
        header.word24 = commandNumber
        let text = ISCSIText.bytes(pairs.map { ISCSITextPair($0.0, $0.1) })
        add(header, text, isLogin: true)
    }

    private static func names(discovery: Bool) -> [(String, String)] {
        [
            ("InitiatorName", "iqn.2026-01.example:host"),
            ("SessionType", discovery ? "Discovery" : "Normal"),
        ] + (discovery ? [] : [("TargetName", target)])
    }

    private mutating func enter(_ keys: [(String, String)] = [], discovery: Bool = false) {
        login(Self.names(discovery: discovery) + keys, stage: 1, next: 3)
    }

    private mutating func command(
        _ block: [UInt8],
        flags: UInt8,
        byteCount: Int,
        tag: UInt32,
        data: [UInt8] = []
    ) {
        var header = ISCSIHeader(.command)
        header.flags = flags
        header.taskTag = tag
        header.word20 = UInt32(byteCount)
        header.word24 = commandNumber
        commandNumber += 1
        let whole = block + [UInt8](repeating: 0, count: 16 - block.count)
        header.long32 = whole[..<8].reduce(0) { $0 << 8 | UInt64($1) }
        header.long40 = whole[8...].reduce(0) { $0 << 8 | UInt64($1) }
        add(header, data)
    }

    private mutating func data(
        tag: UInt32,
        transferTag: UInt32,
        number: UInt64,
        offset: Int,
        byteCount: Int,
        isFinal: Bool
    ) {
        var header = ISCSIHeader(.dataOut)
        header.flags = isFinal ? 0x80 : 0
        header.taskTag = tag
        header.word20 = transferTag
        header.long32 = number
        header.long40 = UInt64(offset) << 32
        add(header, Self.random(byteCount))
    }

    private mutating func request(
        _ opcode: ISCSIOpcode,
        flags: UInt8,
        word20: UInt32,
        isImmediate: Bool = false,
        tag: UInt32 = 50,
        data: [UInt8] = []
    ) {
        var header = ISCSIHeader(opcode)
        header.isImmediate = isImmediate
        header.flags = flags
        header.taskTag = tag
        header.word20 = word20
        header.word24 = commandNumber
        if !isImmediate { commandNumber += 1 }
        add(header, data)
    }

    // MARK: - All of them

    private static let write: [UInt8] = [0x2A, 0, 0, 0, 0, 8, 0, 0, 8, 0]
    private static let read: [UInt8] = [0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0]

    /// Commands, their data in all the ways it can come, and everything beside them.
    private mutating func work() {
        command([0, 0, 0, 0, 0, 0], flags: 0x80, byteCount: 0, tag: 1)
        command(Self.read, flags: 0xC0, byteCount: 4096, tag: 2)
        command(Self.write, flags: 0xA0, byteCount: 1000, tag: 3, data: Self.random(1000))
        request(.nopOut, flags: 0x80, word20: .max, isImmediate: true, data: [1, 2, 3])
        command(Self.write, flags: 0x20, byteCount: 600, tag: 4, data: Self.random(200))
        data(tag: 4, transferTag: .max, number: 0, offset: 200, byteCount: 200, isFinal: false)
        data(tag: 4, transferTag: .max, number: 1, offset: 400, byteCount: 200, isFinal: true)
        request(.taskManagement, flags: 0x81, word20: 2, isImmediate: true)
        request(.taskManagement, flags: 0x85, word20: .max)
        request(
            .text,
            flags: 0x80,
            word20: .max,
            data: ISCSIText.bytes([ISCSITextPair("SendTargets", "")])
        )
        request(.snack, flags: 0x80, word20: 0, isImmediate: true)
        request(.logout, flags: 0x80, word20: 0, isImmediate: true)
    }

    /// One conversation of each kind.
    public static func all() -> [ISCSIConversation] {
        var plain = ISCSIConversation("plain")
        plain.enter([("InitialR2T", "No"), ("ImmediateData", "Yes")])
        plain.work()
        var digests = ISCSIConversation("digests")
        digests.enter([("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C"), ("InitialR2T", "No")])
        digests.hasDigests = true
        digests.work()
        var solicited = ISCSIConversation("solicited")
        solicited.enter([("ImmediateData", "No"), ("MaxBurstLength", "1024")])
        solicited.command(write, flags: 0xA0, byteCount: 1536, tag: 9)
        // The first task's place is 0, and each request for data makes its generation one more.
        solicited.data(
            tag: 9,
            transferTag: 2 << 8,
            number: 0,
            offset: 0,
            byteCount: 512,
            isFinal: false
        )
        solicited.data(
            tag: 9,
            transferTag: 2 << 8,
            number: 1,
            offset: 512,
            byteCount: 512,
            isFinal: true
        )
        solicited.data(
            tag: 9,
            transferTag: 3 << 8,
            number: 0,
            offset: 1024,
            byteCount: 512,
            isFinal: true
        )
        solicited.command(read, flags: 0xC0, byteCount: 4096, tag: 10)
        var discovery = ISCSIConversation("discovery")
        discovery.enter(discovery: true)
        let all = ISCSIText.bytes([ISCSITextPair("SendTargets", "All")])
        discovery.request(.text, flags: 0x80, word20: .max, data: all)
        discovery.request(.text, flags: 0x80, word20: 1)
        discovery.request(.logout, flags: 0x80, word20: 0)
        return [plain, digests, solicited, discovery, stages(), proof()]
    }

    private static func stages() -> ISCSIConversation {
        var talk = ISCSIConversation("stages")
        talk.login(names(discovery: false) + [("AuthMethod", "None")], stage: 0, next: 1)
        talk.login([("HeaderDigest", "None"), ("MaxBurstLength", "65536")], stage: 1, next: nil)
        talk.login([("X-key", "1")], stage: 1, next: 3)
        talk.work()
        return talk
    }

    /// With both sides' proofs; the target demands it when the initiator's alias asks for it.
    private static func proof() -> ISCSIConversation {
        var talk = ISCSIConversation("proof")
        let asks = [("InitiatorAlias", "proof"), ("AuthMethod", "CHAP")]
        talk.login(names(discovery: false) + asks, stage: 0, next: nil)
        talk.login([("CHAP_A", "7,5")], stage: 0, next: nil)
        let challenge = random(33)
        let response = CHAPAlgorithm.sha256.response(
            identifier: challenge[0],
            secret: credentials.secret,
            challenge: Array(challenge[1...])
        )
        talk.login(
            [
                ("CHAP_N", credentials.user), ("CHAP_R", ISCSIText.hexText(response)),
                ("CHAP_I", "9"), ("CHAP_C", "0x010203"),
            ],
            stage: 0,
            next: 3
        )
        talk.work()
        return talk
    }
}
