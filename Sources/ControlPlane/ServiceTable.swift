// What nodes say of the replicated volumes that they serve, kept in memory only: a heartbeat after
// a restart it is whole again.

package import ControlAPI
package import Foundation
import Synchronization

/// The newest word on each replicated volume from its primary.
package final class ServiceTable: Sendable {
    /// What changed in a volume, to be reported.
    package enum Change: Sendable, Hashable {
        /// Requests are answered, under a lease epoch of which that was not known.
        case served(node: String, leaseEpoch: UInt64)
        /// Too few replicas are to be reached.
        case suspended(node: String)
        /// They are again.
        case resumed(node: String)
        /// A replica is not to be reached.
        case replicaDown(node: String)
        /// It is again.
        case replicaBack(node: String)
        /// It has everything again, and counts.
        case replicaComplete(node: String)
        /// Writes are refused: the stores of too few replicas have room.
        case full(node: String)
        /// They are taken again.
        case roomy(node: String)
        /// The store of a replica has no room for what it lacks.
        case replicaFull(node: String)
        /// It has again.
        case replicaRoomy(node: String)
    }

    /// What a node said of a volume.
    package struct Report: Sendable {
        /// The node.
        package var node: String
        /// What it said.
        package var status: NodeServiceStatus
    }

    /// What heartbeats and answers have told.
    private struct State {
        var reports: [UInt64: Report] = [:]
        /// The lease epochs under which volumes were reported as served.
        var servedEpochs: [UInt64: UInt64] = [:]
        /// When nodes told all that they serve.
        var heardAt: [String: Date] = [:]
        /// Attempts in a row to have volumes served that failed.
        var failureCounts: [UInt64: Int] = [:]
        /// When nodes were first seen to be down.
        var downSince: [String: Date] = [:]
    }

    private let state = Mutex(State())

    /// Knows nothing.
    package init() {}

    /// Notes all that a node serves.
    ///
    /// - Returns: The changes to be reported, by volume.
    package func update(
        _ node: String,
        _ services: [NodeServiceStatus],
        at time: Date
    ) -> [(volume: NodeServiceStatus, change: Change)] {
        state.withLock { state in
            state.heardAt[node] = time
            let told = Set(services.map(\.volume))
            let silent = state.reports.filter { $0.value.node == node && !told.contains($0.key) }
            for id in silent.keys { state.reports[id] = nil }
            return services.flatMap { status in
                Self.note(status, on: node, &state).map { (status, $0) }
            }
        }
    }

    /// Notes what a node answered of one volume.
    func note(_ status: NodeServiceStatus, on node: String) {
        state.withLock { state in
            // What an answer tells is told by the next heartbeat, too, with its changes.
            guard (state.reports[status.volume]?.status.leaseEpoch ?? 0) < status.leaseEpoch
            else { return }
            state.reports[status.volume] = Report(node: node, status: status)
        }
    }

    /// The newest word on a volume.
    package func report(_ volume: UInt64) -> Report? { state.withLock { $0.reports[volume] } }

    /// When a node told all that it serves.
    func heardAt(_ node: String) -> Date? { state.withLock { $0.heardAt[node] } }

    /// When a node was first seen to be down; nil when it was not.
    func downSince(_ node: String) -> Date? { state.withLock { $0.downSince[node] } }

    /// Forgets a volume that is served no more.
    func forget(_ volume: UInt64) {
        state.withLock { state in
            state.reports[volume] = nil
            state.servedEpochs[volume] = nil
            state.failureCounts[volume] = nil
        }
    }

    /// Notes an attempt to have a volume served that failed.
    ///
    /// - Returns: How many did in a row.
    func noteFailure(_ volume: UInt64) -> Int {
        state.withLock { state in
            state.failureCounts[volume, default: 0] += 1
            return state.failureCounts[volume, default: 1]
        }
    }

    /// Whether the last attempt to have a volume served failed.
    func hasFailed(_ volume: UInt64) -> Bool {
        state.withLock { $0.failureCounts[volume] != nil }
    }

    /// Notes that a volume was given to a node.
    func noteSuccess(_ volume: UInt64) { state.withLock { $0.failureCounts[volume] = nil } }

    /// Notes which nodes are down.
    ///
    /// - Returns: Since when each has been seen to be.
    func noteDown(_ nodes: Set<String>, at time: Date) -> [String: Date] {
        state.withLock { state in
            var since: [String: Date] = [:]
            for node in nodes { since[node] = state.downSince[node] ?? time }
            state.downSince = since
            return since
        }
    }

    private static func note(
        _ status: NodeServiceStatus,
        on node: String,
        _ state: inout State
    ) -> [Change] {
        let previous = state.reports[status.volume]
        // A primary that was replaced, and has not heard of it.
        if let previous, previous.status.leaseEpoch > status.leaseEpoch { return [] }
        state.reports[status.volume] = Report(node: node, status: status)
        var changes: [Change] = []
        let wasServed = state.servedEpochs[status.volume] == status.leaseEpoch
        let isSame = previous?.status.leaseEpoch == status.leaseEpoch
        let before = isSame ? previous?.status.state : nil
        switch status.state {
        case .serving where !wasServed:
            state.servedEpochs[status.volume] = status.leaseEpoch
            changes.append(.served(node: node, leaseEpoch: status.leaseEpoch))
        case .serving where before == .suspended: changes.append(.resumed(node: node))
        case .suspended where before != .suspended: changes.append(.suspended(node: node))
        default: break
        }
        let refused = isSame && previous?.status.refusesWrites == true
        let refuses = status.refusesWrites == true
        if refuses != refused { changes.append(refuses ? .full(node: node) : .roomy(node: node)) }
        guard isSame, let previous else { return changes }
        let known = Dictionary(previous.status.replicas.map { ($0.instance, $0) }) { $1 }
        for replica in status.replicas {
            guard let before = known[replica.instance] else { continue }
            // While a primary begins it is linked to nobody yet.
            if wasServed, before.isLinked, !replica.isLinked {
                changes.append(.replicaDown(node: replica.node))
            }
            if wasServed, !before.isLinked, replica.isLinked {
                changes.append(.replicaBack(node: replica.node))
            }
            if wasServed, !before.isComplete, replica.isComplete {
                changes.append(.replicaComplete(node: replica.node))
            }
            let (lacked, lacks) = (before.lacksRoom == true, replica.lacksRoom == true)
            if lacks != lacked {
                changes.append(
                    lacks
                        ? .replicaFull(node: replica.node) : .replicaRoomy(node: replica.node)
                )
            }
        }
        return changes
    }
}
