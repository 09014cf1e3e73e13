// What heartbeats tell, kept in memory only: a few seconds after a restart it is whole again.

import ControlAPI
import Foundation
import Synchronization

/// The newest word from each node.
final class NodeTable: Sendable {
    /// One node.
    struct Entry: Sendable {
        /// Its session.
        var session: UInt64
        /// Where its store's bytes are.
        var space: StoreSpaceUsage
        /// When it was heard from.
        var lastSeenAt: Date
    }

    private let entries = Mutex<[String: Entry]>([:])

    /// Notes what a node said.
    func update(_ name: String, _ entry: Entry) {
        entries.withLock { $0[name] = entry }
    }

    /// The newest word from a node.
    func entry(_ name: String) -> Entry? {
        entries.withLock { $0[name] }
    }

    /// Forgets a node.
    func remove(_ name: String) {
        entries.withLock { $0[name] = nil }
    }
}
