// A small NBD client for the tests: blocking, over a unix socket, every call bounded in time.
// It knows nothing of the code under test, not even its constants.

import Glibc

struct ClientError: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// A connection to an NBD server.
final class TestClient {
    enum Mode { case simple, structured, extended }

    struct Reply {
        var cookie: UInt64
        var error: UInt32 = 0
        var data: [UInt8] = []
        var holeByteCount = 0
        var chunkCount = 0
        /// Context id and (length, flags) pairs.
        var extents: [UInt32: [(UInt64, UInt64)]] = [:]
    }

    static let flagForceUnitAccess: UInt16 = 1
    static let flagNoHole: UInt16 = 2
    static let flagDontFragment: UInt16 = 4
    static let flagPayloadLength: UInt16 = 32

    let socket: Int32
    private(set) var mode: Mode = .simple
    private(set) var byteCount: UInt64 = 0
    private(set) var flags: UInt16 = 0
    private var reads: [UInt64: Int] = [:]
    private var nextCookie: UInt64 = 1

    init(path: String, seconds: Int = 10, receiveBufferByteCount: Int32? = nil) throws {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        socket = Glibc.socket(AF_UNIX, kind, 0)
        guard socket >= 0 else { throw ClientError("socket: errno \(errno)") }
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        // SAFETY: the kernel copies the values during the calls.
        unsafe setsockopt(
            socket,
            SOL_SOCKET,
            SO_RCVTIMEO,
            &limit,
            socklen_t(MemoryLayout<timeval>.size)
        )
        unsafe setsockopt(
            socket,
            SOL_SOCKET,
            SO_SNDTIMEO,
            &limit,
            socklen_t(MemoryLayout<timeval>.size)
        )
        if var byteCount = receiveBufferByteCount {
            unsafe setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &byteCount, 4)
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < 108 else { throw ClientError("path too long") }
        // SAFETY: the path was checked to fit, with its terminator.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let result = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else {
            close(socket)
            throw ClientError("connect \(path): errno \(errno)")
        }
    }

    deinit { close(socket) }

    // MARK: - Bytes

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            // SAFETY: the array is borrowed for the call.
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(
                    socket,
                    $0.baseAddress.unsafelyUnwrapped + sent,
                    bytes.count - sent,
                    Int32(MSG_NOSIGNAL)
                )
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw ClientError("send: errno \(errno)") }
            sent += count
        }
    }

    /// Sends what the socket takes without waiting; the number of bytes taken.
    func sendWithoutWaiting(_ bytes: [UInt8]) -> Int {
        var sent = 0
        while sent < bytes.count {
            // SAFETY: the array is borrowed for the call.
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(
                    socket,
                    $0.baseAddress.unsafelyUnwrapped + sent,
                    bytes.count - sent,
                    Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
                )
            }
            guard count > 0 else { break }
            sent += count
        }
        return sent
    }

    func receive(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var received = 0
        while received < count {
            // SAFETY: the array is borrowed for the call.
            let got = unsafe bytes.withUnsafeMutableBytes {
                unsafe recv(
                    socket,
                    $0.baseAddress.unsafelyUnwrapped + received,
                    count - received,
                    0
                )
            }
            if got < 0, errno == EINTR { continue }
            guard got != 0 else { throw ClientError("closed") }
            guard got > 0 else { throw ClientError("receive: errno \(errno)") }
            received += got
        }
        return bytes
    }

    /// Whether the server closes within the client's time limit, reading what it still sends.
    func isClosed() -> Bool {
        while true {
            do { _ = try receive(1) } catch let error as ClientError {
                return error.description == "closed" || error.description.hasSuffix("errno 104")
            } catch { return false }
        }
    }

    // MARK: - Handshake

    func greet() throws {
        let greeting = try receive(18)
        guard Array(greeting[0..<8]) == Array("NBDMAGIC".utf8) else {
            throw ClientError("greeting \(greeting)")
        }
        try send([0, 0, 0, 3])
    }

    func option(_ option: UInt32, _ data: [UInt8] = []) throws -> [(type: UInt32, data: [UInt8])] {
        try send(Array("IHAVEOPT".utf8) + big(option) + big(UInt32(data.count)) + data)
        var replies: [(type: UInt32, data: [UInt8])] = []
        while true {
            let header = try receive(20)
            let type: UInt32 = load(header, 12)
            let count: UInt32 = load(header, 16)
            replies.append((type, try receive(Int(count))))
            if type == 1 || type & 0x8000_0000 != 0 { return replies }
        }
    }

    /// Enters the export; throws with the reply type when it is refused.
    func enter(
        _ export: String,
        mode: Mode = .simple,
        contexts: [String] = []
    ) throws -> [UInt32: String] {
        try greet()
        if mode == .structured, try option(8).last?.type != 1 { throw ClientError("structured") }
        if mode == .extended, try option(11).last?.type != 1 { throw ClientError("extended") }
        self.mode = mode
        let name = Array(export.utf8)
        var selected: [UInt32: String] = [:]
        if !contexts.isEmpty {
            var data = big(UInt32(name.count)) + name + big(UInt32(contexts.count))
            for context in contexts {
                data += big(UInt32(context.utf8.count)) + Array(context.utf8)
            }
            for reply in try option(10, data) where reply.type == 4 {
                selected[load(reply.data, 0)] = String(
                    decoding: reply.data.dropFirst(4),
                    as: UTF8.self
                )
            }
        }
        let replies = try option(7, big(UInt32(name.count)) + name + [0, 0])
        guard replies.last?.type == 1 else {
            throw ClientError("refused \(String(replies.last?.type ?? 0, radix: 16))")
        }
        for reply in replies where reply.type == 3 {
            let kind: UInt16 = load(reply.data, 0)
            if kind == 0 {
                byteCount = load(reply.data, 2)
                flags = load(reply.data, 10)
            }
        }
        return selected
    }

    // MARK: - Transmission

    /// The bytes of a request, which is then expected to be answered.
    func request(
        _ command: UInt16,
        _ offset: UInt64,
        _ length: UInt64,
        flags: UInt16 = 0,
        payload: [UInt8] = []
    ) -> (cookie: UInt64, bytes: [UInt8]) {
        let cookie = nextCookie
        nextCookie += 1
        if command == 0 {
            reads[cookie] = Int(length)
            offsets[cookie] = offset
        }
        if mode == .extended {
            let flags = payload.isEmpty ? flags : flags | Self.flagPayloadLength
            return (
                cookie,
                big(UInt32(0x21E4_1C71)) + big(flags) + big(command) + big(cookie) + big(offset)
                    + big(length) + payload
            )
        }
        return (
            cookie,
            big(UInt32(0x2560_9513)) + big(flags) + big(command) + big(cookie) + big(offset)
                + big(UInt32(length)) + payload
        )
    }

    /// Receives the whole reply to one request; with structured replies chunks of several may
    /// come interleaved, so `partial` keeps the others.
    func reply() throws -> Reply {
        if mode == .simple {
            let header = try receive(16)
            guard load(header, 0) as UInt32 == 0x6744_6698 else {
                throw ClientError("reply magic \(header)")
            }
            var reply = Reply(cookie: load(header, 8), error: load(header, 4))
            if let count = reads.removeValue(forKey: reply.cookie), reply.error == 0 {
                reply.data = try receive(count)
            }
            return reply
        }
        while true {
            if let reply = try chunk() { return reply }
        }
    }

    private var partial: [UInt64: Reply] = [:]

    private func chunk() throws -> Reply? {
        let isExtended = mode == .extended
        var header = try receive(16)
        let magic: UInt32 = load(header, 0)
        // Without data a reply may be a simple one, in structured mode too.
        if magic == 0x6744_6698, mode == .structured {
            return Reply(cookie: load(header, 8), error: load(header, 4))
        }
        header += try receive(isExtended ? 16 : 4)
        guard magic == (isExtended ? 0x6E8A_278C : 0x668E_33EF) else {
            throw ClientError("chunk magic \(String(magic, radix: 16))")
        }
        let flags: UInt16 = load(header, 4)
        let type: UInt16 = load(header, 6)
        let cookie: UInt64 = load(header, 8)
        let length = isExtended ? Int(load(header, 24) as UInt64) : Int(load(header, 16) as UInt32)
        var reply = partial.removeValue(forKey: cookie) ?? Reply(cookie: cookie)
        if reply.data.isEmpty, let count = reads[cookie] {
            reply.data = [UInt8](repeating: 0xEE, count: count)
            reads[cookie] = nil
            offsets[cookie] = offsets[cookie] ?? 0
        }
        try take(try receive(length), type: type, into: &reply)
        reply.chunkCount += 1
        if flags & 1 != 0 { return reply }
        partial[cookie] = reply
        return nil
    }

    /// The offset of each read, to place its chunks.
    var offsets: [UInt64: UInt64] = [:]

    private func take(_ body: [UInt8], type: UInt16, into reply: inout Reply) throws {
        switch type {
        case 0: break
        case 1, 2:
            let at = Int((load(body, 0) as UInt64) - (offsets[reply.cookie] ?? 0))
            let count = type == 1 ? body.count - 8 : Int(load(body, 8) as UInt32)
            guard at >= 0, at + count <= reply.data.count else { throw ClientError("chunk range") }
            for index in 0..<count { reply.data[at + index] = type == 1 ? body[8 + index] : 0 }
            if type == 2 { reply.holeByteCount += count }
        case 5:
            var pairs: [(UInt64, UInt64)] = []
            for at in stride(from: 4, to: body.count, by: 8) {
                pairs.append(
                    (UInt64(load(body, at) as UInt32), UInt64(load(body, at + 4) as UInt32))
                )
            }
            reply.extents[load(body, 0)] = pairs
        case 6:
            var pairs: [(UInt64, UInt64)] = []
            for at in stride(from: 8, to: body.count, by: 16) {
                pairs.append((load(body, at), load(body, at + 8)))
            }
            reply.extents[load(body, 0)] = pairs
        case 32769, 32770: reply.error = load(body, 0)
        default: throw ClientError("chunk type \(type)")
        }
    }

    /// Sends a request and returns its reply, which must be the next.
    @discardableResult
    func call(
        _ command: UInt16,
        _ offset: UInt64,
        _ length: UInt64,
        flags: UInt16 = 0,
        payload: [UInt8] = []
    ) throws -> Reply {
        let (cookie, bytes) = request(command, offset, length, flags: flags, payload: payload)
        try send(bytes)
        let reply = try reply()
        guard reply.cookie == cookie else { throw ClientError("cookie \(reply.cookie)") }
        return reply
    }

    func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        let reply = try call(0, offset, UInt64(count))
        guard reply.error == 0 else { throw ClientError("read: error \(reply.error)") }
        return reply.data
    }

    func write(_ offset: UInt64, _ data: [UInt8], flags: UInt16 = 0) throws {
        let reply = try call(1, offset, UInt64(data.count), flags: flags, payload: data)
        guard reply.error == 0 else { throw ClientError("write: error \(reply.error)") }
    }

    func disconnect() throws { try send(request(2, 0, 0).bytes) }
}

func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<MemoryLayout<T>.size).reversed().map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

func load<T: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int) -> T {
    bytes[offset..<offset + MemoryLayout<T>.size].reduce(0) { $0 << 8 | T($1) }
}
