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
        /// The failures that were reported.
        var reportedFailures = StoreFailures()
        /// When that was.
        var failuresReportedAt = Date.distantPast
    }

    /// How long nothing is reported of a node's failed requests after some were, in seconds.
    static var failureSilenceSeconds: TimeInterval { 60 }

    /// What is to be reported of a node.
    struct Change {
        /// Its room.
        var room: RoomChange
        /// What its stores could not serve, when that is more than was reported.
        var failures: StoreFailures?
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
    /// - Returns: What is to be reported of it.
    func update(_ name: String, _ entry: Entry) -> Change {
        entries.withLock { entries in
            var entry = entry
            let previous = entries[name]
            let room = entry.noteRoom(after: previous)
            let failures = entry.noteFailures(after: previous)
            entries[name] = entry
            return Change(room: room, failures: failures)
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

extension NodeTable.Entry {
    /// Notes what is reported of its room.
    fileprivate mutating func noteRoom(after previous: Self?) -> NodeTable.RoomChange {
        let reported = previous?.reportedRoom ?? .ample
        let room = space.room ?? .ample
        // One that refuses writes now and then is reported once, until there is room again.
        reportedRoom = room == .ample ? room : max(room, reported)
        guard reportedRoom != reported else { return .none }
        return switch room {
        case .ample: .roomy
        case .scarce: .filling
        case .refusing: .full
        case .waiting: .waiting
        }
    }

    /// Notes what is reported of its failures; nil when there is nothing new.
    fileprivate mutating func noteFailures(after previous: Self?) -> StoreFailures? {
        let failures = StoreFailures(stores: stores ?? [])
        var reported = previous?.reportedFailures ?? StoreFailures()
        // It was started anew.
        if failures.requestCount < reported.requestCount { reported.requestCount = 0 }
        if !failures.stopped { reported.stopped = false }
        reportedFailures = reported
        failuresReportedAt = previous?.failuresReportedAt ?? .distantPast
        let hasStopped = failures.stopped && !reported.stopped
        let isDue =
            lastSeenAt.timeIntervalSince(failuresReportedAt)
            >= NodeTable.failureSilenceSeconds
        guard hasStopped || failures.requestCount > reported.requestCount && isDue else {
            return nil
        }
        reportedFailures = failures
        failuresReportedAt = lastSeenAt
        return failures
    }
}
