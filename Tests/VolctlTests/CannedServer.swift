// A server that gives every connection the same bytes and closes it.

import Foundation
import Glibc

/// Listens on a loopback port; each connection gets `answer` once it has sent something.
final class CannedServer: Sendable {
    let port: UInt16
    private let listener: Int32

    /// Listens; with `onConnection` the first connection has that done, and none gets an answer.
    init(answer: String, onConnection: (@Sendable () async -> Void)? = nil) throws {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        listener = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        // SAFETY: the address outlives the calls, whose length is that of its type.
        port = try unsafe withUnsafeMutablePointer(to: &address) { pointer in
            try unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                guard unsafe bind(listener, rebound, length) == 0, listen(listener, 8) == 0,
                    unsafe getsockname(listener, rebound, &length) == 0
                else { throw POSIXError(.EADDRINUSE) }
            }
            return unsafe UInt16(bigEndian: pointer.pointee.sin_port)
        }
        let bytes = Array(answer.utf8)
        Thread.detachNewThread {
            var first = onConnection
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                if let work = first {
                    first = nil
                    let done = DispatchSemaphore(value: 0)
                    Task {
                        await work()
                        done.signal()
                    }
                    done.wait()
                    close(connection)
                    continue
                }
                if onConnection != nil {
                    close(connection)
                    continue
                }
                var request = [UInt8](repeating: 0, count: 4096)
                // SAFETY: pointers and counts are those of live arrays.
                _ = unsafe recv(connection, &request, request.count, 0)
                _ = unsafe send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
                shutdown(connection, Int32(SHUT_WR))
                while unsafe recv(connection, &request, request.count, 0) > 0 {}
                close(connection)
            }
        }
    }

    deinit {
        // Wakes the accepting thread, which then ends.
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }
}
