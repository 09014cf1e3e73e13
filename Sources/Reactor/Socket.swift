internal import CLinux

/// Why a socket could not be made.
public enum SocketError: Error, Sendable, Hashable, CustomStringConvertible {
    /// Another program has the address.
    case addressInUse
    /// The host name or address is not one of this machine, or cannot be resolved.
    case addressNotAvailable
    /// The path of a unix socket is empty or longer than 107 bytes.
    case pathTooLong
    /// There is something at the path of a unix socket, and it is not a socket.
    case notASocket
    /// The system refused with this errno.
    case system(errno: Int32)

    init(negated result: Int32) {
        switch 0 - result {
        case EADDRINUSE: self = .addressInUse
        case EADDRNOTAVAIL: self = .addressNotAvailable
        case ENAMETOOLONG: self = .pathTooLong
        case let errno: self = .system(errno: errno)
        }
    }

    /// The errno behind it.
    public var errno: Int32 {
        switch self {
        case .addressInUse: EADDRINUSE
        case .addressNotAvailable: EADDRNOTAVAIL
        case .pathTooLong: ENAMETOOLONG
        case .notASocket: ENOTSOCK
        case .system(let errno): errno
        }
    }

    /// One line for a person.
    public var description: String {
        switch self {
        case .addressInUse: "the address is in use by another program"
        case .addressNotAvailable: "no such host or address on this machine"
        case .pathTooLong: "the path of a unix socket has 1 to 107 bytes"
        case .notASocket: "the path is taken by something that is not a socket"
        case .system(let errno): errorText(errno)
        }
    }
}

/// A stream socket, non-blocking and closed on exec, named by its descriptor.
///
/// A value, not an owner: once a reactor has operated on it, only ``Reactor/close(_:token:)`` of
/// that reactor closes it, after everything in flight has ended, so that a new descriptor with
/// the same number never gets the old one's completions.
@frozen
public struct Socket: Hashable, Sendable, BitwiseCopyable {
    /// The descriptor's number.
    public let descriptor: Int32

    /// Names a descriptor: the result of an `accept`, for example.
    @inlinable
    public init(descriptor: Int32) { self.descriptor = descriptor }

    /// Begins to connect to a TCP address; name resolution blocks, so give numbers on a data path.
    ///
    /// The connection may still be under way: a send waits for it, and fails as it did.
    public static func connectTCP(host: String, port: UInt16) throws(SocketError) -> Socket {
        // SAFETY: the host is lent as a C string for the call.
        let result = unsafe cbl_connect_tcp(host, port)
        guard result >= 0 else { throw SocketError(negated: result) }
        return Socket(descriptor: result)
    }

    /// Connects to a unix socket; `EAGAIN` when the listener's backlog is full.
    public static func connectUnix(path: String) throws(SocketError) -> Socket {
        // SAFETY: the path is lent as a C string for the call.
        let result = unsafe cbl_connect_unix(path)
        guard result >= 0 else { throw SocketError(negated: result) }
        return Socket(descriptor: result)
    }

    /// Two connected unix sockets.
    public static func pair() throws(SocketError) -> (Socket, Socket) {
        var descriptors: [Int32] = [-1, -1]
        // SAFETY: the array holds the two descriptors that the call writes.
        let result = unsafe cbl_socket_pair(&descriptors)
        guard result >= 0 else { throw SocketError(negated: result) }
        return (Socket(descriptor: descriptors[0]), Socket(descriptor: descriptors[1]))
    }

    /// Sends small segments at once; harmless on a socket that is not TCP.
    public func disableDelay() { _ = cbl_set_no_delay(descriptor) }

    /// Sets how much the kernel buffers for the socket, in bytes; it may take more or less.
    public func setBuffers(sendByteCount: Int32, receiveByteCount: Int32) {
        _ = cbl_set_buffer_byte_counts(descriptor, sendByteCount, receiveByteCount)
    }

    /// Lets a unix socket take more before it is full, in bytes; leaves TCP, which adapts itself.
    ///
    /// Above `net.core.wmem_max` only with CAP_NET_ADMIN.
    public func enlargeLocalBuffer(byteCount: Int32) {
        _ = cbl_set_local_send_buffer(descriptor, byteCount)
    }

    /// The same connection under another descriptor, which no reactor has operated on; nil when the
    /// system refuses one.
    public func duplicated() -> Socket? {
        let result = cbl_duplicate(descriptor)
        return result >= 0 ? Socket(descriptor: result) : nil
    }

    /// Closes a socket that no reactor ever operated on.
    public func closeUnused() { _ = cbl_close(descriptor) }
}
