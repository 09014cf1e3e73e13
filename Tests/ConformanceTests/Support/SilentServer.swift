import Foundation
import Synchronization
import TestSupport

/// A server on the loopback interface that takes connections, says `start` and then nothing more.
final class SilentServer: Sendable {
    /// Outlives the server, for the threads.
    private final class Progress: Sendable {
        let isAsked = Atomic(false)
    }

    private let listener: LoopbackListener
    private let progress: Progress

    var port: UInt16 { listener.port }

    /// Whether it was asked for something, and has said what it says.
    var isAsked: Bool { progress.isAsked.load(ordering: .acquiring) }

    init(start: String) throws {
        let progress = Progress()
        self.progress = progress
        listener = try LoopbackListener { connection in
            Thread.detachNewThread {
                defer { close(connection) }
                guard LoopbackConnection.receive(connection) else { return }
                LoopbackConnection.send(start, connection)
                progress.isAsked.store(true, ordering: .releasing)
                // Held until the other side has had enough.
                while LoopbackConnection.receive(connection) {}
            }
        }
    }
}
