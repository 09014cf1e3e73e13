internal import BlockCore

/// What the handshake settled.
package struct NBDExport: Equatable, Sendable {
    /// The export's size, in bytes.
    package var byteCount: UInt64 = 0
    /// Transmission flags.
    package var flags: UInt16 = 0
    /// Whether replies to reads come in chunks.
    package var hasStructuredReplies = false

    /// Whether writes are refused.
    ///
    /// Spec: `NBD_FLAG_READ_ONLY`.
    package var isReadOnly: Bool { flags & 1 << 1 != 0 }
    /// Whether flushes are served.
    ///
    /// Spec: `NBD_FLAG_SEND_FLUSH`.
    package var canFlush: Bool { flags & 1 << 2 != 0 }
    /// Whether writes can be made durable one by one.
    ///
    /// Spec: `NBD_FLAG_SEND_FUA`.
    package var canForceUnitAccess: Bool { flags & 1 << 3 != 0 }
    /// Whether ranges can be given back.
    ///
    /// Spec: `NBD_FLAG_SEND_TRIM`.
    package var canTrim: Bool { flags & 1 << 5 != 0 }
    /// Whether connections see each other's writes.
    ///
    /// Spec: `NBD_FLAG_CAN_MULTI_CONN`.
    package var canMultiConnect: Bool { flags & 1 << 8 != 0 }
}

/// The client's side of the fixed newstyle handshake, in blocking steps.
///
/// Spec: NBD doc/proto.md, "Handshake phase". Only what a benchmark needs: no TLS, no listing.
struct NBDHandshake {
    private enum Magic {
        static let server: UInt64 = 0x4e42_444d_4147_4943
        static let option: UInt64 = 0x4948_4156_454f_5054
        static let optionReply: UInt64 = 0x0003_e889_0455_65a9
    }
    private enum OptionCode {
        static let go: UInt32 = 7
        static let structuredReply: UInt32 = 8
    }
    private enum ReplyType {
        static let acknowledge: UInt32 = 1
        static let info: UInt32 = 3
        static let errorBit: UInt32 = 1 << 31
    }
    /// The longest option reply accepted: an information item or a message for people.
    private static let replyByteCountMax = 4096

    private let socket: Socket
    private let scratch: ByteRegion

    /// Creates a handshake that uses `scratch`, of at least 8 KiB, for its messages.
    init(socket: Socket, scratch: ByteRegion) {
        self.socket = socket
        self.scratch = scratch
    }

    /// Opens `export`.
    ///
    /// - Throws: ``BenchError`` with what the server said.
    func open(_ name: String, structured: Bool) throws(BenchError) -> NBDExport {
        let hello = scratch.slice(0, 18)
        try socket.receiveAll(hello)
        guard hello.loadBigEndian(0, as: UInt64.self) == Magic.server,
            hello.loadBigEndian(8, as: UInt64.self) == Magic.option
        else { throw BenchError("the server does not speak NBD's newstyle handshake") }
        guard hello.loadBigEndian(16, as: UInt16.self) & 1 != 0 else {
            throw BenchError("the server does not speak the fixed newstyle handshake")
        }
        // Fixed newstyle, and no 124 zeroes.
        let clientFlags = scratch.slice(0, 4)
        clientFlags.storeBigEndian(UInt32(3), at: 0)
        try socket.sendAll(clientFlags)
        var export = NBDExport()
        if structured {
            try sendOption(OptionCode.structuredReply, payload: [])
            let reply = try receiveReply(to: OptionCode.structuredReply)
            export.hasStructuredReplies = reply.type == ReplyType.acknowledge
        }
        try go(name, into: &export)
        return export
    }

    private func go(_ name: String, into export: inout NBDExport) throws(BenchError) {
        let bytes = Array(name.utf8)
        guard bytes.count <= 4096 else {
            throw BenchError("an export's name has at most 4096 bytes")
        }
        var payload = withBigEndianBytes(UInt32(bytes.count))
        payload += bytes
        payload += [0, 0]
        try sendOption(OptionCode.go, payload: payload)
        while true {
            let reply = try receiveReply(to: OptionCode.go)
            switch reply.type {
            case ReplyType.acknowledge: return
            case ReplyType.info:
                // Spec: `NBD_INFO_EXPORT` is 0 and carries size and flags.
                guard reply.payload.byteCount >= 12,
                    reply.payload.loadBigEndian(0, as: UInt16.self) == 0
                else { continue }
                export.byteCount = reply.payload.loadBigEndian(2, as: UInt64.self)
                export.flags = reply.payload.loadBigEndian(10, as: UInt16.self)
            default:
                let text = String(decoding: reply.payload.array(), as: UTF8.self)
                let number = String(reply.type, radix: 16)
                throw BenchError("export \"\(name)\" refused (0x\(number)): \(text)")
            }
        }
    }

    private func sendOption(_ code: UInt32, payload: [UInt8]) throws(BenchError) {
        let message = scratch.slice(0, 16 + payload.count)
        message.storeBigEndian(Magic.option, at: 0)
        message.storeBigEndian(code, at: 8)
        message.storeBigEndian(UInt32(payload.count), at: 12)
        message.copy(from: payload, at: 16)
        try socket.sendAll(message)
    }

    private func receiveReply(
        to code: UInt32
    ) throws(BenchError) -> (type: UInt32, payload: ByteRegion) {
        let header = scratch.slice(0, 20)
        try socket.receiveAll(header)
        let byteCount = Int(header.loadBigEndian(16, as: UInt32.self))
        guard header.loadBigEndian(0, as: UInt64.self) == Magic.optionReply,
            header.loadBigEndian(8, as: UInt32.self) == code,
            byteCount <= NBDHandshake.replyByteCountMax
        else { throw BenchError("the server's option reply is malformed") }
        let type = header.loadBigEndian(12, as: UInt32.self)
        let payload = scratch.slice(20, byteCount)
        try socket.receiveAll(payload)
        return (type, payload)
    }

    private func withBigEndianBytes(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }
}
