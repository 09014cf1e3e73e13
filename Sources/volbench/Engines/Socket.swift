internal import BlockCore
internal import Glibc

/// A connected stream socket: the few calls that the client needs, with failures as values.
///
/// The owner calls ``close()`` once; nothing else is kept.
struct Socket: BitwiseCopyable {
    /// How a transfer ended.
    enum Transfer: Equatable {
        /// So many bytes went; at least one.
        case moved(Int)
        /// Nothing can be moved now.
        case wouldBlock
        /// The other side closed the stream.
        case ended
        /// The connection broke.
        case failed(errno: Int32)
    }

    /// The descriptor, for `poll`.
    let descriptor: Int32

    /// How long a handshake step may take, in seconds.
    static var handshakeSecondsMax: Int { 10 }

    // MARK: - Connecting

    /// Connects to a unix socket.
    static func connect(unixPath path: String) throws(BenchError) -> Socket {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw BenchError("\(path): longer than a unix socket's path may be")
        }
        // SAFETY: the count was checked against the field; the rest of it is zero.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let socket = try open(AF_UNIX)
        // SAFETY: `address` outlives the call and is passed with its own size.
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe Glibc.connect(
                    socket.descriptor,
                    $0,
                    socklen_t(MemoryLayout<sockaddr_un>.size)
                )
            }
        }
        guard result == 0 else { throw socket.failure("connect to \(path)") }
        return socket
    }

    /// Connects to a TCP port; every address of the host is tried.
    static func connect(host: String, port: UInt16) throws(BenchError) -> Socket {
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        // SAFETY: `hints` and `list` outlive the call; the list is freed below.
        let result = unsafe getaddrinfo(host, "\(port)", &hints, &list)
        guard result == 0 else { throw BenchError("\(host): no such host") }
        // SAFETY: the list came from getaddrinfo and is not used after this scope.
        defer { unsafe freeaddrinfo(list) }
        var last = BenchError("\(host): no address")
        var next = unsafe list
        while let entry = unsafe next {
            // SAFETY: entries are valid until freeaddrinfo.
            let info = unsafe entry.pointee
            let socket = try open(unsafe info.ai_family)
            if unsafe Glibc.connect(socket.descriptor, info.ai_addr, info.ai_addrlen) == 0 {
                socket.set(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
                return socket
            }
            last = socket.failure("connect to \(host):\(port)")
            unsafe next = info.ai_next
        }
        throw last
    }

    private static func open(_ family: Int32) throws(BenchError) -> Socket {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(family, kind, 0)
        guard descriptor >= 0 else { throw BenchError("socket: \(describe(errno))") }
        let socket = Socket(descriptor: descriptor)
        var limit = timeval(tv_sec: handshakeSecondsMax, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            // SAFETY: `limit` outlives the call and is passed with its own size.
            _ = unsafe setsockopt(
                descriptor,
                SOL_SOCKET,
                option,
                &limit,
                socklen_t(MemoryLayout<timeval>.size)
            )
        }
        return socket
    }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        // SAFETY: `value` outlives the call and is passed with its own size.
        _ = unsafe setsockopt(
            descriptor,
            level,
            option,
            &value,
            socklen_t(MemoryLayout<Int32>.size)
        )
    }

    /// The error of the call that just failed; the socket is closed.
    private func failure(_ what: String) -> BenchError {
        let code = errno
        close()
        return BenchError("\(what): \(describe(code))")
    }

    // MARK: - Transferring

    /// Makes transfers return `wouldBlock` in place of waiting, once the handshake is over.
    func makeNonBlocking() { _ = fcntl(descriptor, F_SETFL, O_NONBLOCK) }

    /// Fills the start of `region` with what has arrived.
    func receive(into region: ByteRegion) -> Transfer {
        // SAFETY: the region is valid for its byte count.
        classify(unsafe recv(descriptor, region.address, region.byteCount, 0))
    }

    /// Sends the start of `region`.
    func send(_ region: ByteRegion) -> Transfer {
        let noSignal = Int32(MSG_NOSIGNAL)
        // SAFETY: the region is valid for its byte count.
        return classify(unsafe Glibc.send(descriptor, region.address, region.byteCount, noSignal))
    }

    private func classify(_ count: Int) -> Transfer {
        if count > 0 { return .moved(count) }
        if count == 0 { return .ended }
        let code = errno
        return code == EAGAIN || code == EINTR ? .wouldBlock : .failed(errno: code)
    }

    /// Fills all of `region`, for the handshake.
    func receiveAll(_ region: ByteRegion) throws(BenchError) {
        var rest = region
        while !rest.isEmpty {
            switch receive(into: rest) {
            case .moved(let count): rest = rest.suffix(from: count)
            case .ended: throw BenchError("the server closed the connection in the handshake")
            case .wouldBlock: throw BenchError("the server did not answer the handshake in 10 s")
            case .failed(let code): throw BenchError("handshake: \(describe(code))")
            }
        }
    }

    /// Sends all of `region`, for the handshake.
    func sendAll(_ region: ByteRegion) throws(BenchError) {
        var rest = region
        while !rest.isEmpty {
            guard case .moved(let count) = send(rest) else {
                throw BenchError("handshake: the server does not read")
            }
            rest = rest.suffix(from: count)
        }
    }

    /// Closes the descriptor.
    func close() { _ = Glibc.close(descriptor) }
}

/// The system's words for an errno.
func describe(_ code: Int32) -> String {
    // SAFETY: strerror returns a NUL-terminated string; one thread uses it, and at once.
    unsafe String(cString: strerror(code))
}

/// Waits for sockets to become ready.
@safe
final class ReadinessSet {
    // SAFETY: allocated in init for `count` entries, freed in deinit; one thread owns it.
    private let entries: UnsafeMutableBufferPointer<pollfd>

    /// Creates a set over `sockets`, by index.
    init(_ sockets: [Socket]) {
        unsafe entries = .allocate(capacity: sockets.count)
        unsafe entries.initialize(repeating: pollfd())
        for (index, socket) in sockets.enumerated() {
            let entry = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
            unsafe entries[index] = entry
        }
    }

    deinit { unsafe entries.deallocate() }

    /// Asks for (or no longer for) room to send on socket `index`.
    func wantsRoom(_ wants: Bool, at index: Int) {
        unsafe entries[index].events = Int16(POLLIN) | (wants ? Int16(POLLOUT) : 0)
    }

    /// Waits until a socket is ready or `nanoseconds` passed.
    ///
    /// `poll` counts milliseconds: less than one is spun away, so that an open loop begins its
    /// operations on time. A closed loop's deadline is the end of the run, seconds away.
    func wait(nanoseconds: UInt64) {
        let milliseconds = Int32(min(nanoseconds / 1_000_000, 3_600_000))
        // An interrupted or failed wait shows as "nothing ready"; the caller's loop goes on.
        // SAFETY: the buffer holds `count` entries.
        let result = unsafe poll(entries.baseAddress, nfds_t(entries.count), milliseconds)
        guard result < 0 else { return }
        for index in unsafe 0..<entries.count { unsafe entries[index].revents = 0 }
    }

    /// Whether socket `index` has bytes, ended or failed.
    func isReadable(_ index: Int) -> Bool {
        Int32(unsafe entries[index].revents) & (POLLIN | POLLHUP | POLLERR) != 0
    }

    /// Whether socket `index` has room.
    func hasRoom(_ index: Int) -> Bool { Int32(unsafe entries[index].revents) & POLLOUT != 0 }
}
