// A server that hangs: it accepts connections and says nothing, or not all of it.

import ControlAPI
import Dispatch
import Foundation
import Glibc
import Synchronization

/// Listens on a loopback port; each connection gets `start` once it has asked, and no more.
final class HungServer: Sendable {
    struct Counts {
        var isAccepting = true
        var asked = 0
        var ended = 0
    }

    let endpoint: APIEndpoint
    private let listener: Int32
    /// Outlives the server, for the threads.
    let counts: CountBox
    private let acceptEnd = DispatchSemaphore(value: 0)

    final class CountBox: Sendable {
        let counts = Mutex(Counts())
    }

    init(start: String) throws {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        listener = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        // SAFETY: the address outlives the calls, whose length is that of its type.
        let port = try unsafe withUnsafeMutablePointer(to: &address) { pointer in
            try unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                guard unsafe bind(listener, rebound, length) == 0, listen(listener, 8) == 0,
                    unsafe getsockname(listener, rebound, &length) == 0
                else { throw POSIXError(.EADDRINUSE) }
            }
            return unsafe UInt16(bigEndian: pointer.pointee.sin_port)
        }
        endpoint = .tcp(host: "127.0.0.1", port: Int(port))
        let counts = CountBox()
        self.counts = counts
        let acceptEnd = acceptEnd
        Thread.detachNewThread {
            defer {
                counts.counts.withLock { $0.isAccepting = false }
                acceptEnd.signal()
            }
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                Thread.detachNewThread { Self.hang(connection, start, counts) }
            }
        }
    }

    deinit {
        // Wakes the accepting thread, which then ends; only after it has does the number become
        // free, or it would accept from whatever is opened under it next.
        shutdown(listener, Int32(SHUT_RDWR))
        acceptEnd.wait()
        close(listener)
    }

    /// How many requests have come.
    var askedCount: Int { counts.counts.withLock { $0.asked } }

    /// How many connections with a request the other side has ended.
    var endedCount: Int { counts.counts.withLock { $0.ended } }

    private static func hang(_ connection: Int32, _ start: String, _ counts: CountBox) {
        defer { close(connection) }
        var request = [UInt8](repeating: 0, count: 4096)
        // SAFETY: pointers and counts are those of live arrays.
        guard unsafe recv(connection, &request, request.count, 0) > 0 else { return }
        counts.counts.withLock { $0.asked += 1 }
        let bytes = Array(start.utf8)
        _ = unsafe send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        while unsafe recv(connection, &request, request.count, 0) > 0 {}
        counts.counts.withLock { $0.ended += 1 }
    }
}
