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
        /// Its stores one by one, when it tells.
        var stores: [NodeStore]?
        /// When it was heard from.
        var lastSeenAt: Date
        /// The least room that was reported since there was enough.
        var reportedRoom = StoreRoom.ample
    }

    /// What is to be reported of a node's room.
    enum RoomChange {
        /// Nothing that was not.
        case none
        /// It has become scarce.
        case filling
        /// Writes are refused.
        case full
        /// Writes wait for space on the file system of a store.
        case waiting
        /// There is enough again.
        case roomy
    }

    private let entries = Mutex<[String: Entry]>([:])

    /// Notes what a node said.
    ///
    /// - Returns: What is to be reported of its room.
    func update(_ name: String, _ entry: Entry) -> RoomChange {
        entries.withLock { entries in
            let reported = entries[name]?.reportedRoom ?? .ample
            let room = entry.space.room ?? .ample
            var entry = entry
            // One that refuses writes now and then is reported once, until there is room again.
            entry.reportedRoom = room == .ample ? room : max(room, reported)
            entries[name] = entry
            guard entry.reportedRoom != reported else { return .none }
            switch room {
            case .ample: return .roomy
            case .scarce: return .filling
            case .refusing: return .full
            case .waiting: return .waiting
            }
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
