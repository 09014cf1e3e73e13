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
        /// Whether it was reported that room is scarce there.
        var isScarce = false
    }

    private let entries = Mutex<[String: Entry]>([:])

    /// Notes what a node said.
    ///
    /// - Returns: Whether room has become scarce there, or ample again; nil when it is as it was.
    func update(_ name: String, _ entry: Entry) -> Bool? {
        entries.withLock { entries in
            let wasScarce = entries[name]?.isScarce ?? false
            var entry = entry
            entry.isScarce = entry.space.isScarce(before: wasScarce)
            entries[name] = entry
            return entry.isScarce == wasScarce ? nil : entry.isScarce
        }
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
