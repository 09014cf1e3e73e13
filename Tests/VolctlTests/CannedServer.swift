// A server that gives every connection the same bytes and closes it.

import Foundation
import Synchronization
import TestSupport

/// Listens on a loopback port; each connection gets `answer` once it has sent something.
final class CannedServer: Sendable {
    private let listener: LoopbackListener

    var port: UInt16 { listener.port }

    /// Listens; with `onConnection` the first connection has that done, and none gets an answer.
    init(answer: String, onConnection: (@Sendable () async -> Void)? = nil) throws {
        let isFirst = Mutex(true)
        listener = try LoopbackListener { connection in
            let wasFirst = isFirst.withLock { first in
                defer { first = false }
                return first
            }
            if wasFirst, let onConnection {
                Task {
                    await onConnection()
                    close(connection)
                }
                return
            }
            guard onConnection == nil else {
                close(connection)
                return
            }
            Thread.detachNewThread {
                defer { close(connection) }
                _ = LoopbackConnection.receive(connection)
                LoopbackConnection.send(answer, connection)
                shutdown(connection, Int32(SHUT_WR))
                while LoopbackConnection.receive(connection) {}
            }
        }
    }
}
