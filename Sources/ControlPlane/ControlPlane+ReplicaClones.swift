// Clones and rollbacks of replicated volumes: each node makes its own replica of its own snapshot, so
// nothing is copied. A node that cannot gets a blank replica, which the volume's primary fills.
//
// A clone that too few nodes could make is undone. A rollback is not: once a replica has gone back,
// the others must follow, so it stays pending until enough of them have.

import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    // MARK: - Clones

    /// The record of a clone of a replicated volume: where its parent is, with replicas of its own.
    func cloneRecord(
        _ record: VolumeRecord,
        of parent: VolumeRecord,
        _ snapshot: SnapshotRecord
    ) throws(ControlError) -> VolumeRecord {
        guard parent.state == .ready else {
            throw ControlError(.busy, "The volume '\(parent.name)' is being deleted.")
        }
        guard let mark = snapshot.mark, let placements = parent.placements else { return record }
        var record = record
        record.source?.mark = mark
        record.placements = placements.map {
            PlacementRecord(node: $0.node, instance: newInstance())
        }
        record.writeQuorum = parent.writeQuorum
        record.primary = parent.teller
        record.replicas = parent.holders
        // Its replicas begin in the epoch of the snapshot's number, and have promised the next one; what
        // they inherit may have numbers of any epoch that the parent had. Its leases are above both.
        record.leaseEpoch = max(
            NodeSnapshotTaken.leaseEpoch(of: mark.number) + 1,
            parent.leaseEpoch ?? 0
        )
        return record
    }

    /// Has each node make its replica of a clone.
    ///
    /// - Returns: The clone's size and replicas; those that could not be made are to take the place
    ///   of lost ones.
    /// - Throws: ``ControlError`` when fewer could than commit a write.
    func cloneReplicas(
        of volume: Versioned<VolumeRecord>
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        guard let source = volume.value.source, let mark = source.mark else {
            preconditionFailure("a clone of a replicated volume has a source with a mark")
        }
        let parent = try await meta(await metadata.volume(id: source.volumeID))?.value
        guard let parent else { throw .volumeNotFound(source.volumeName) }
        let answers = await withEachReplica(of: volume) {
            [self] (placement) throws(ControlError) in
            guard let original = parent.placement(on: placement.node), original.isUnmade != true
            else { throw .notComplete(on: placement.node) }
            var new = Self.creation(of: placement, volume.value, isReplacement: false)
            new.replica = nil
            let creation = NodeReplicaCloneCreation(
                instance: original.instance,
                number: mark.number,
                volume: new,
                newInstance: placement.instance
            )
            try await asked(placement.node, of: volume) { node throws(ControlError) in
                try await node.cloneReplica(of: parent.id, mark.id, creation)
            }
        }
        let made = answers.filter { $0.1 == nil }.map(\.0.node)
        guard made.count >= volume.value.writeQuorum ?? 1 else {
            throw .tooFewMade(made.count, of: answers, "cloned", source.volumeName)
        }
        return .replicas(
            byteCount: volume.value.byteCount,
            placements: (volume.value.placements ?? []).map { $0.made(made.contains($0.node)) },
            leaving: []
        )
    }

    /// Refuses to delete a volume that clones stand on: no single node can say so for all.
    func requireNoClones(of volume: VolumeRecord) async throws(ControlError) {
        let all = try await meta(await metadata.allVolumes()).map(\.value)
        let clones = all.filter { $0.source?.volumeID == volume.id }
        guard let error = ControlError.inUse(volume, by: clones) else { return }
        throw error
    }

    // MARK: - Rollback

    /// What a replicated volume is to be rolled back with, refused where it could get stuck.
    func planReplicaRollback(
        of volume: VolumeRecord,
        to snapshot: SnapshotRecord
    ) async throws(ControlError) -> PendingOperation.Kind {
        let old = volume.placements ?? []
        let answers = await withEach(old.map(\.node)) { [self] (name) throws(ControlError) in
            let held = try await askedBriefly(name) { node throws(ControlError) in
                try await node.volume(volume.id)
            }
            guard let replica = held.replica, replica.isComplete,
                replica.instance == volume.placement(on: name)?.instance,
                held.snapshots.contains(where: { $0.replica?.id == snapshot.mark?.id })
            else { throw .notComplete(on: name) }
        }
        let ableCount = answers.count { $0.1 == nil }
        guard ableCount >= volume.writeQuorum ?? 1 else {
            throw ControlError(
                .unavailable,
                "\(ableCount) of \(answers.count) replicas of '\(volume.name)' have all of the "
                    + "snapshot '\(snapshot.name)' now; \(volume.writeQuorum ?? 1) are needed.",
                help: "See 'volctl volume show \(volume.name)'; replicas get what they lack while "
                    + "the volume is attached."
            )
        }
        return .rollback(
            snapshot: snapshot.name,
            topLayer: nil,
            placements: old.map { PlacementRecord(node: $0.node, instance: newInstance()) }
        )
    }

    /// Has each node roll its replica back.
    ///
    /// - Parameters:
    ///   - volume: The volume with its pending operation.
    ///   - name: The snapshot.
    ///   - placements: The replicas that it has then.
    ///   - isFirstAttempt: Whether no node can have heard of it before.
    /// - Returns: The volume's size and replicas.
    /// - Throws: ``ControlError/Code/outcomeUnknown`` when it has begun, or may have, and is to be
    ///   carried on; another one when nothing was changed.
    func rollBackReplicas(
        of volume: Versioned<VolumeRecord>,
        to name: String,
        _ placements: [PlacementRecord],
        isFirstAttempt: Bool
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        let record = volume.value
        let snapshot = try await meta(await metadata.snapshot(name, of: record.id))
        guard let snapshot, let mark = snapshot.mark else {
            throw .snapshotNotFound(name, of: record.name)
        }
        let answers = await withEachReplica(of: volume) { [self] (old) throws(ControlError) in
            guard let new = placements.first(where: { $0.node == old.node }) else {
                throw .notComplete(on: old.node)
            }
            let rollback = NodeReplicaRollback(
                instance: old.instance,
                number: mark.number,
                // They have promised the lease epoch itself then.
                epoch: (record.leaseEpoch ?? 2) - 1,
                newInstance: new.instance
            )
            try await asked(old.node, of: volume) { node throws(ControlError) in
                try await node.rollBackReplica(of: record.id, mark.id, rollback)
            }
        }
        let made = answers.filter { $0.1 == nil }.map(\.0.node)
        guard made.count >= record.writeQuorum ?? 1 else {
            let error = ControlError.tooFewMade(made.count, of: answers, "rolled back", record.name)
            let isUntouched =
                made.isEmpty
                && answers.compactMap(\.1).allSatisfy {
                    isFirstAttempt ? !$0.leavesOutcomeOpen : $0.isRefusal
                }
            guard !isUntouched else { throw error }
            throw ControlError(
                .outcomeUnknown,
                error.detail,
                help: "It has begun, so it ends by itself when more of their nodes answer; see "
                    + "'volctl node list'."
            )
        }
        return .replicas(
            byteCount: snapshot.byteCount,
            placements: placements.map { $0.made(made.contains($0.node)) },
            leaving: (record.placements ?? []).filter { !made.contains($0.node) }
        )
    }
}

extension PlacementRecord {
    /// The same, to be made in a lost one's place unless it was made.
    fileprivate func made(_ isMade: Bool) -> PlacementRecord {
        PlacementRecord(node: node, instance: instance, isUnmade: isMade ? nil : true)
    }
}

extension ControlError {
    fileprivate static func notComplete(on node: String) -> Self {
        ControlError(.notComplete, "The replica on '\(node)' has not all of the snapshot.")
    }

    /// Why what each replica had to do was done by too few.
    fileprivate static func tooFewMade(
        _ count: Int,
        of answers: [(PlacementRecord, ControlError?)],
        _ participle: String,
        _ volume: String
    ) -> Self {
        let failures = answers.compactMap { placement, error in
            error.map { (placement.node, $0) }
        }
        // A name that is taken or a full store is what helps to know; that a node is away is not.
        let refusal = failures.first { $0.1.isRefusal && $0.1.code != .notComplete }?.1
        if let refusal, count == 0, failures.allSatisfy({ $0.1.code == refusal.code }) {
            return refusal
        }
        let reasons = failures.map { "'\($0.0)': \($0.1.detail)" }.sorted()
        return ControlError(
            .unavailable,
            "\(count) of \(answers.count) replicas of '\(volume)' could be \(participle). "
                + reasons.joined(separator: " "),
            help: "See 'volctl volume show \(volume)' and 'volctl node list'; try again when "
                + "more of them are there and complete."
        )
    }

    /// That clones stand on a volume; nil when there are none.
    static func inUse(_ volume: VolumeRecord, by clones: [VolumeRecord]) -> Self? {
        let names = clones.map(\.name).sorted()
        guard !names.isEmpty else { return nil }
        let some = names.prefix(3).joined(separator: "', '")
        let more = names.count > 3 ? " and \(names.count - 3) more" : ""
        return ControlError(
            .inUse,
            "Clones of '\(volume.name)' share data with it: '\(some)'\(more).",
            help: "Delete the clones first."
        )
    }
}
