import Foundation
import Testing

/// A server on the loopback interface that takes connections, says `start` and then nothing more.
final class SilentServer: Sendable {
    let port: UInt16
    private let listener: Int32

    init(start: String) throws {
        let port = try FreePort.next()
        self.port = port
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let listener = socket(AF_INET, kind, 0)
        try #require(listener >= 0)
        self.listener = listener
        // SAFETY: the address is valid for the call, and of the size given.
        let isBound = unsafe withLoopbackAddress(port: port) { unsafe bind(listener, $0, $1) == 0 }
        try #require(isBound && listen(listener, 8) == 0)
        let bytes = Array(start.utf8)
        Thread.detachNewThread {
            // Held until the other side has had enough.
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { return }
            defer { close(connection) }
            var request = [UInt8](repeating: 0, count: 4096)
            // SAFETY: pointers and counts are those of live arrays.
            guard unsafe recv(connection, &request, request.count, 0) > 0 else { return }
            _ = unsafe send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
            while unsafe recv(connection, &request, request.count, 0) > 0 {}
        }
    }

    deinit {
        // Wakes the accepting thread, which then ends.
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }
}
