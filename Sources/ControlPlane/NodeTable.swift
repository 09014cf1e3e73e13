// What heartbeats tell, kept in memory only: a few seconds after a restart it is whole again.

package import ControlAPI
package import Foundation
import Synchronization

/// The newest word from each node.
package final class NodeTable: Sendable {
    /// One node.
    package struct Entry: Sendable {
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
        /// What was reported of its stores' failures, by their paths.
        var reported: [String: ReportedFailures] = [:]

        /// Creates an entry of which nothing was reported.
        package init(
            session: UInt64,
            space: StoreSpaceUsage,
            stores: [NodeStore]?,
            lastSeenAt: Date
        ) {
            self.session = session
            self.space = space
            self.stores = stores
            self.lastSeenAt = lastSeenAt
        }
    }

    /// What was reported of a store's failures in the node's session.
    struct ReportedFailures {
        var isStopped = false
        var requestCount: UInt64 = 0
        /// When the count was.
        var countedAt = Date.distantPast
    }

    /// Why a replica of a node that drains has found no other place; nil when all have.
    func drainProblem(_ node: String) -> String? { drainProblems.withLock { $0[node] } }

    /// Notes why a replica of a node that drains has found no other place.
    func noteDrain(_ node: String, problem: String?) {
        drainProblems.withLock { $0[node] = problem }
    }

    /// How long nothing is reported of a store's failed requests after some were, in seconds.
    static var failureSilenceSeconds: TimeInterval { 60 }

    /// What is to be reported of a node.
    package struct Change {
        /// Its room.
        var room: RoomChange
        /// What its stores could not serve and was not reported.
        package var failures: [FailureChange]
    }

    /// What is to be reported of a store's failures.
    package enum FailureChange: Hashable, Sendable {
        /// It has stopped.
        case stopped(store: String)
        /// So many requests have failed, the last one of this volume.
        case damaged(store: String, requestCount: UInt64, volume: String?)
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
    /// Why replicas of nodes that drain do not move, as it last was.
    private let drainProblems = Mutex<[String: String]>([:])
    /// Why nodes were refused when they asked last, by their names.
    private let refusals = Mutex<[String: String]>([:])

    /// Knows no node.
    package init() {}

    /// Notes what a node said.
    ///
    /// - Returns: What is to be reported of it.
    package func update(_ name: String, _ entry: Entry) -> Change {
        refusals.withLock { $0[name] = nil }
        return entries.withLock { entries in
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

    /// Notes why a node is refused.
    ///
    /// - Returns: Whether that is new.
    func noteRefusal(of name: String, _ reason: String) -> Bool {
        refusals.withLock { $0.updateValue(reason, forKey: name) != reason }
    }

    /// Forgets a node.
    func remove(_ name: String) {
        refusals.withLock { $0[name] = nil }
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

    /// Notes what is reported of its stores' failures: that one has stopped at once, further
    /// failed requests once a minute.
    fileprivate mutating func noteFailures(after previous: Self?) -> [NodeTable.FailureChange] {
        // A node that registers anew may have been started anew.
        if let previous, previous.session == session { reported = previous.reported }
        var changes: [NodeTable.FailureChange] = []
        for store in stores ?? [] {
            guard let failures = store.failures else { continue }
            var known = reported[store.path] ?? NodeTable.ReportedFailures()
            if failures.stopped, !known.isStopped { changes.append(.stopped(store: store.path)) }
            known.isStopped = failures.stopped
            let silence = lastSeenAt.timeIntervalSince(known.countedAt)
            if failures.requestCount > known.requestCount,
                silence >= NodeTable.failureSilenceSeconds
            {
                known.requestCount = failures.requestCount
                known.countedAt = lastSeenAt
                changes.append(
                    .damaged(
                        store: store.path,
                        requestCount: failures.requestCount,
                        volume: failures.volume
                    )
                )
            }
            reported[store.path] = known
        }
        return changes
    }
}
