// Volumes that no host has, served to nobody while their replicas are filled.
//
// Invariants:
//   a volume is tended only while no host has it: whoever attaches it takes another lease epoch
//   the epoch under which it is tended is in the metadata, with the session it was given to, before
//   a node hears of it

import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// Tells whoever serves a volume, to hosts or to nobody, what is so of it now.
    ///
    /// - Parameters:
    ///   - volume: The volume, with the lease epoch that is meant.
    ///   - joins: Whether both sets of replicas of its move are to count.
    /// - Returns: What the node says; nil when nobody serves it.
    /// - Throws: The node's error. It may have heard all the same.
    @discardableResult
    func tell(
        _ volume: Versioned<VolumeRecord>,
        joins: Bool = false
    ) async throws(ControlError) -> NodeServiceStatus? {
        let nodes = try await nodesByName()
        if let served = volume.value.served {
            return try await assign(volume, served, nodes, joins: joins)
        }
        guard let tended = volume.value.tended else { return nil }
        let served = ServedRecord(
            exportEpoch: volume.value.epoch,
            readOnly: true,
            session: tended.session,
            since: tended.since
        )
        return try await assign(
            volume,
            served,
            nodes,
            access: NodeVolumeAccess.none,
            joins: joins
        )
    }

    /// Has a volume that no host has served to nobody, unless it is already.
    ///
    /// - Returns: The volume as it is then; nil when somebody else changed it.
    /// - Throws: ``ControlError`` when no node that could serve it is up, or it does not answer.
    func tended(
        _ volume: Versioned<VolumeRecord>
    ) async throws(ControlError) -> Versioned<VolumeRecord>? {
        guard volume.value.served == nil, volume.value.pending == nil else { return volume }
        if try await isTended(volume.value) { return volume }
        let choice = try await choosePrimary(of: volume.value)
        var changed = volume
        changed.value.takeLease(on: choice.node, session: choice.session, at: now)
        changed.value.tended = TendedRecord(session: choice.session, since: now)
        let update = changed
        guard let updated = try await meta(await metadata.update([update])).first else {
            return nil
        }
        try await tell(updated)
        return updated
    }

    /// Whether a volume is served to nobody by a process that goes on.
    private func isTended(_ volume: VolumeRecord) async throws(ControlError) -> Bool {
        guard let tended = volume.tended,
            let live = try await meta(await metadata.liveNode(volume.primary)),
            live.session == tended.session
        else { return false }
        guard let report = currentReport(of: volume) else {
            // Not a word of it: it was never heard of, or the node has lost it.
            guard let heardAt = serviceTable.heardAt(volume.primary) else { return true }
            return heardAt.timeIntervalSince(tended.since) <= Self.unheardSeconds
        }
        return !report.status.needsEpoch && report.status.state != .stopped
    }

    /// Takes back volumes that are served to nobody and whose replicas lack nothing.
    func endTending(_ volumes: [Versioned<VolumeRecord>]) async {
        for volume in volumes
        where volume.value.tended != nil && volume.value.pending == nil
            && volume.value.move == nil && !lacksReplicas(volume.value)
        {
            var changed = volume
            changed.value.tended = nil
            let update = changed
            guard let updated = try? await metadata.update([update]).first else { continue }
            await stopQuietly(updated)
            serviceTable.forget(volume.value.id)
        }
    }

    /// Whether a replica is still to be filled, or its node may have to be replaced.
    private func lacksReplicas(_ volume: VolumeRecord) -> Bool {
        guard let report = currentReport(of: volume) else { return true }
        let complete = Set(report.status.replicas.filter(\.isComplete).map(\.instance))
        return !(volume.placements ?? []).allSatisfy { complete.contains($0.instance) }
    }
}
