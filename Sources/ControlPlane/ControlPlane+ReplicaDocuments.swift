// How the replicas of a volume are, for its document.

import ControlAPI
import Metadata

extension ControlPlane {
    /// The newest word of a volume's primary, if it is of the lease that it has now.
    func currentReport(of volume: VolumeRecord) -> ServiceTable.Report? {
        guard let report = serviceTable.report(volume.id), report.node == volume.primary,
            report.status.leaseEpoch == volume.leaseEpoch
        else { return nil }
        return report
    }

    /// How each replica is; nil for a volume that is not replicated.
    func replicaStates(
        of volume: VolumeRecord,
        _ live: [String: NodeLiveRecord]
    ) -> [VolumeReplicaState]? {
        let report = currentReport(of: volume)
        return volume.placements?.map { placement in
            let peer = report?.status.replicas.first { $0.instance == placement.instance }
            let isDown = live[placement.node] == nil
            guard let peer else {
                return VolumeReplicaState(node: placement.node, state: isDown ? .down : .unknown)
            }
            let state: VolumeReplicaState.State =
                if isDown || !peer.isLinked {
                    .down
                } else if peer.isComplete {
                    .complete
                } else {
                    peer.resync == nil ? .behind : .resyncing
                }
            return VolumeReplicaState(
                node: placement.node,
                state: state,
                behind: peer.behindCount,
                lacksRoom: peer.lacksRoom,
                resyncPerMille: peer.resyncPerMille
            )
        }
    }

    /// How far a volume's move is; nil when none of its replicas moves.
    func moveDocument(of volume: VolumeRecord) -> VolumeMove? {
        guard let move = volume.move, let from = volume.leavingNode else { return nil }
        let told = currentReport(of: volume)?.status.move
        let isTold = told?.replica.instance == move.to.instance
        return VolumeMove(
            from: from,
            to: move.to.node,
            phase: isTold ? told?.phase : nil,
            perMille: isTold ? told?.replica.resyncPerMille : nil
        )
    }

    /// What is wrong with a replicated volume.
    func warning(of volume: VolumeRecord, _ live: [String: NodeLiveRecord]) -> String? {
        if volume.served?.isQuarantined == true {
            return
                "It is not served: \(Self.poisonDeathCount) nodes in a row died soon after they were "
                + "given it. It is served again when '\(volume.primary)' is back, or by 'volctl "
                + "attach \(volume.name) --host HOST'."
        }
        let down = volume.holders.filter { live[$0] == nil }
        let upCount = volume.holders.count - down.count
        let hasQuorum = upCount >= volume.writeQuorum ?? 1
        if hasQuorum, let text = roomWarning(of: volume, live) { return text }
        guard !down.isEmpty else { return nil }
        let names = down.joined(separator: "', '")
        let what =
            "\(counted(down.count, "replica")) on '\(names)' \(down.count == 1 ? "is" : "are") down"
        return !hasQuorum
            ? "Requests wait: \(what), \(volume.writeQuorum ?? 1) are needed."
            : "\(what.capitalizedFirst)."
    }

    /// Whose stores have no room for a volume, and what that does to its writes.
    private func roomWarning(
        of volume: VolumeRecord,
        _ live: [String: NodeLiveRecord]
    ) -> String? {
        let full = replicaStates(of: volume, live)?.filter { $0.lacksRoom == true } ?? []
        let names = full.map { "'\($0.node)'" }.joined(separator: ", ")
        if currentReport(of: volume)?.status.refusesWrites == true {
            return
                "Writes are refused: the stores of too few replicas have room (none: \(names)). "
                + "Reads and trims go on; delete snapshots, or other volumes there."
        }
        guard !full.isEmpty else { return nil }
        return "The store of its replica on \(names) has no room: that falls behind."
    }
}

extension String {
    /// The same with its first letter large.
    fileprivate var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}

extension NodePeerStatus {
    /// How much of the volume was looked at for what it lacks, in thousandths.
    fileprivate var resyncPerMille: Int? {
        guard let done = resyncDoneCount, let total = resyncTotalCount, total > 0 else {
            return nil
        }
        return Int(min(done, total) * 1000 / total)
    }
}

extension VolumeRecord {
    /// The node of the replica that moves elsewhere.
    var leavingNode: String? {
        move.flatMap { move in placements?.first { $0.instance == move.from }?.node }
    }

    /// The node that is asked for what only nodes know of it: one that has a part of it.
    var teller: String { lies(on: primary) ? primary : holders.first ?? primary }
}
