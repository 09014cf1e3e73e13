// A server of bytes for clients under test: what they meet is said by a closure.

import Foundation
import Glibc
public import Synchronization

/// A socket that listens on a loopback port of the kernel's choice; its owner closes it.
public struct LoopbackSocket {
    /// The socket.
    public let descriptor: Int32
    /// Its port.
    public let port: UInt16

    /// Listens at once.
    ///
    /// - Parameter backlog: Connections that may wait to be accepted.
    /// - Throws: `POSIXError` when no port is to be had.
    public init(backlog: Int32) throws {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        // SAFETY: the address outlives the calls, whose length is that of its type.
        let isListening = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe bind(descriptor, rebound, length) == 0
                    && listen(descriptor, backlog) == 0
                    && getsockname(descriptor, rebound, &length) == 0
            }
        }
        guard isListening else {
            close(descriptor)
            throw POSIXError(.EADDRINUSE)
        }
        self.descriptor = descriptor
        port = UInt16(bigEndian: address.sin_port)
    }
}

/// Listens on a loopback port that the kernel chooses, and hands each connection to a closure.
public final class LoopbackListener: Sendable {
    /// Its port.
    public let port: UInt16
    /// Outlives the listener, for its thread.
    public let progress = Progress()
    private let descriptor: Int32
    private let acceptEnd = DispatchSemaphore(value: 0)

    /// What becomes of its thread.
    public final class Progress: Sendable {
        /// Whether it may still accept.
        public let isAccepting = Atomic(true)
    }

    /// Listens at once.
    ///
    /// - Parameter onConnection: Runs on the thread that accepts, which the end of the listener waits
    ///   for; it closes the descriptor, or has another thread do so.
    /// - Throws: `POSIXError` when no port is to be had.
    public init(_ onConnection: @escaping @Sendable (Int32) -> Void) throws {
        let socket = try LoopbackSocket(backlog: 8)
        (port, descriptor) = (socket.port, socket.descriptor)
        let descriptor = descriptor
        let (acceptEnd, progress) = (acceptEnd, progress)
        Thread.detachNewThread {
            defer {
                progress.isAccepting.store(false, ordering: .releasing)
                acceptEnd.signal()
            }
            while true {
                let connection = accept(descriptor, nil, nil)
                guard connection >= 0 else { return }
                onConnection(connection)
            }
        }
    }

    deinit {
        // Wakes the accepting thread, which then ends; only after it has does the number become
        // free, or it would accept from whatever is opened under it next.
        shutdown(descriptor, Int32(SHUT_RDWR))
        acceptEnd.wait()
        close(descriptor)
    }
}

/// The other end's side of such a connection: bytes as they come.
public enum LoopbackConnection {
    /// Waits for bytes of a request.
    ///
    /// - Parameter connection: The descriptor.
    /// - Returns: Whether any came before the other side's end.
    public static func receive(_ connection: Int32) -> Bool {
        var bytes = [UInt8](repeating: 0, count: 4096)
        // SAFETY: pointer and count are those of a live array.
        return unsafe recv(connection, &bytes, bytes.count, 0) > 0
    }

    /// Sends all of a text.
    ///
    /// - Parameters:
    ///   - text: What to send.
    ///   - connection: The descriptor.
    public static func send(_ text: String, _ connection: Int32) {
        let bytes = Array(text.utf8)
        // SAFETY: pointer and count are those of a live array.
        _ = unsafe Glibc.send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }
}
