// A server that hangs: it accepts connections and says nothing, or not all of it.

import ControlAPI
import Foundation
import Synchronization
import TestSupport

/// Listens on a loopback port; each connection gets `start` once it has asked, and no more.
final class HungServer: Sendable {
    private struct Counts {
        var asked = 0
        var ended = 0
    }

    /// Outlives the server, for the threads.
    private final class CountBox: Sendable {
        let counts = Mutex(Counts())
    }

    let listener: LoopbackListener
    private let counts: CountBox

    init(start: String) throws {
        let counts = CountBox()
        self.counts = counts
        listener = try LoopbackListener { connection in
            Thread.detachNewThread {
                defer { close(connection) }
                guard LoopbackConnection.receive(connection) else { return }
                counts.counts.withLock { $0.asked += 1 }
                LoopbackConnection.send(start, connection)
                while LoopbackConnection.receive(connection) {}
                counts.counts.withLock { $0.ended += 1 }
            }
        }
    }

    var endpoint: APIEndpoint { .tcp(host: "127.0.0.1", port: Int(listener.port)) }

    /// How many requests have come.
    var askedCount: Int { counts.counts.withLock { $0.asked } }

    /// How many connections with a request the other side has ended.
    var endedCount: Int { counts.counts.withLock { $0.ended } }
}
