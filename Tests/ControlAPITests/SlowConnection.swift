// A client that takes its time.

import Foundation
import Glibc

/// A connection to a loopback port, with blocking calls that have limits.
final class SlowConnection: Sendable {
    private let descriptor: Int32

    init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let descriptor = descriptor
        // SAFETY: the address outlives the call, whose length is that of its type.
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe connect(descriptor, rebound, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw POSIXError(.ECONNREFUSED) }
    }

    deinit { close(descriptor) }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        // SAFETY: pointer and count are those of a live array.
        _ = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Sends `text` every 100 ms; true once the other side has closed without a word, false when
    /// it says something and after `seconds`.
    func isCut(trickling text: String, seconds: Int) -> Bool {
        for _ in 0..<(seconds * 10) {
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // SAFETY: one entry, as the count says.
            if unsafe poll(&polled, 1, 100) > 0 {
                var bytes = [UInt8](repeating: 0, count: 4096)
                // SAFETY: pointer and count are those of a live array.
                return unsafe recv(descriptor, &bytes, bytes.count, 0) <= 0
            }
            send(text)
        }
        return false
    }
}
