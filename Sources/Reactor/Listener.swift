internal import CLinux

/// A listening socket.
public struct Listener: Sendable, Hashable {
    /// Connections that wait to be accepted, at most; the kernel caps it at `somaxconn` (4096).
    public static var backlogCountMax: Int32 { 1024 }

    /// The socket to `accept` on.
    public let socket: Socket
    /// The TCP port that is bound; 0 for a unix socket.
    public let port: UInt16
    /// The path of a unix socket; nil for TCP.
    public let path: String?

    /// Listens on a TCP address, IPv4 or IPv6.
    ///
    /// - Parameters:
    ///   - host: An address or a name of this machine; empty for all addresses.
    ///   - port: The port; 0 lets the system choose, and ``port`` says which.
    /// - Returns: A listening socket.
    /// - Throws: ``SocketError``; nothing listens.
    public static func tcp(host: String, port: UInt16) throws(SocketError) -> Listener {
        var bound = port
        // SAFETY: the string and the port are borrowed for the call.
        let result = unsafe cbl_listen_tcp(host, &bound, backlogCountMax)
        guard result >= 0 else { throw SocketError(negated: result) }
        return Listener(socket: Socket(descriptor: result), port: bound, path: nil)
    }

    /// Listens on a unix socket.
    ///
    /// A socket that an earlier process left behind is removed, but only when nobody answers on
    /// it; anything else at the path is left alone.
    ///
    /// - Parameters:
    ///   - path: Where; at most 107 bytes.
    ///   - mode: Who may connect, as file permissions.
    /// - Returns: A listening socket.
    /// - Throws: ``SocketError``; nothing listens.
    public static func unix(path: String, mode: UInt32 = 0o600) throws(SocketError) -> Listener {
        var result = unsafe cbl_listen_unix(path, mode, backlogCountMax)
        if result == -EADDRINUSE {
            guard unsafe cbl_is_socket(path) != 0 else { throw .notASocket }
            guard unsafe cbl_unix_answers(path) == 0 else { throw .addressInUse }
            // Two starters may race to here: both remove, one binds, the other finds it in use.
            _ = unsafe cbl_unlink(path)
            result = unsafe cbl_listen_unix(path, mode, backlogCountMax)
        }
        guard result >= 0 else { throw SocketError(negated: result) }
        return Listener(socket: Socket(descriptor: result), port: 0, path: path)
    }

    /// Removes the path of a unix socket, so that clients see at once that nobody is there.
    public func removePath() {
        guard let path else { return }
        _ = unsafe cbl_unlink(path)
    }
}
