// Snapshots of replicated volumes: taken by the primary, deleted on every node that has a replica.
//
// Invariants:
//   a snapshot has its id in the metadata before any node hears of it, and no id is given twice;
//   whoever is the primary is asked for the same id until one says its number, so that it does not
//   matter how often, or whom else, it was asked;
//   a snapshot on a node that no record and no operation under way knows is deleted there.

import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// How long primaries are asked for a snapshot in all, in milliseconds: longer than a node that
    /// fell silent takes to count as down.
    static var snapshotMillisecondsMax: Int64 { 12_000 }
    /// How long one answer is waited for, in milliseconds: the next question finds what the one
    /// before it began, or another primary.
    static var snapshotAttemptMillisecondsMax: Int64 { 2_500 }
    /// The longest pause between two questions, in milliseconds.
    static var snapshotPauseMillisecondsMax: Int64 { 200 }

    // MARK: - Taking

    /// What a snapshot of a replicated volume is to be called, and who is to take it.
    func planReplicaSnapshot(
        _ name: String,
        of volume: VolumeRecord
    ) async throws(ControlError) -> PendingOperation.Kind {
        let count = try await meta(await metadata.snapshots(of: volume.id)).count
        guard count < APILimits.replicaSnapshotCountMax else {
            throw ControlError(
                .limitReached,
                "The volume '\(volume.name)' has \(count) snapshots, which is the most.",
                help: "Delete some: 'volctl snapshot list \(volume.name)' shows them."
            )
        }
        let id = UInt64.random(in: 1...APILimits.snapshotIDMax)
        guard volume.served == nil else { return .createSnapshot(name: name, id: id) }
        let live = try await meta(await metadata.liveNode(volume.primary))
        // Whoever served it last most likely can; when not, another one is looked for.
        let choice =
            if let live {
                PrimaryChoice(node: volume.primary, session: live.session)
            } else {
                try await choosePrimary(of: volume)
            }
        return .createSnapshot(name: name, id: id, primary: choice.node, session: choice.session)
    }

    /// Has a volume's primary take a snapshot, or the next one when that one is gone; a volume that
    /// no host has is served to nobody for that time.
    ///
    /// - Parameters:
    ///   - name: The snapshot.
    ///   - id: What the replicas are to call it.
    ///   - session: That of the node that serves a volume for it which no host has.
    ///   - volume: The volume with its pending operation.
    ///   - isFirstAttempt: Whether nobody was asked for it before.
    ///   - deadline: When to wait no more.
    /// - Returns: The snapshot.
    /// - Throws: The last node's error; it may have been taken all the same.
    func takeSnapshot(
        _ name: String,
        _ id: UInt64,
        session: UInt64?,
        of volume: Versioned<VolumeRecord>,
        isFirstAttempt: Bool,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> SnapshotRecord {
        let limit = min(deadline, .now + patient(Self.snapshotMillisecondsMax))
        var turn = SnapshotTurn(volume: volume, session: session, needsLease: !isFirstAttempt)
        var pause: Int64 = 10
        while true {
            do throws(ControlError) {
                if volume.value.served == nil { try await serveToNobody(&turn, until: limit) }
                let number = try await askForSnapshot(id, of: turn.volume, until: limit)
                return SnapshotRecord(
                    name: name,
                    layer: 0,
                    byteCount: turn.volume.value.byteCount,
                    createdAt: now,
                    mark: SnapshotMarkRecord(id: id, number: number)
                )
            } catch {
                guard error.mayPass, .now + .milliseconds(pause) < limit else { throw error }
                turn.note(error)
                logger.info(
                    "a snapshot is asked for again",
                    metadata: ["volume": "\(volume.value.name)", "reason": "\(error.detail)"]
                )
            }
            await stopped.wait(atMostMilliseconds: Int(pause))
            pause = min(2 * pause, Self.snapshotPauseMillisecondsMax)
            // The volume may have another primary now.
            guard let current = try await underWay(volume) else {
                throw ControlError(.busy, "Somebody else has carried on the snapshot '\(name)'.")
            }
            turn.volume = current
        }
    }

    /// The volume as it is now, if its operation is still the same.
    func underWay(
        _ volume: Versioned<VolumeRecord>
    ) async throws(ControlError) -> Versioned<VolumeRecord>? {
        let current = try await meta(await metadata.volume(id: volume.value.id))
        guard let pending = current?.value.pending, pending.key == volume.value.pending?.key
        else { return nil }
        return current
    }

    private func askForSnapshot(
        _ id: UInt64,
        of volume: Versioned<VolumeRecord>,
        until limit: ContinuousClock.Instant
    ) async throws(ControlError) -> UInt64 {
        let name = volume.value.primary
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        let taking = NodeSnapshotTaking(snapshot: id, leaseEpoch: volume.value.leaseEpoch ?? 0)
        let own = ContinuousClock.now + patient(Self.snapshotAttemptMillisecondsMax)
        return try await answered(by: name, until: min(limit, own)) { () throws(ControlError) in
            try await node.takeSnapshot(of: volume.value.id, taking)
        }.number
    }

    /// Has a volume that no host has served, without an export.
    private func serveToNobody(
        _ turn: inout SnapshotTurn,
        until limit: ContinuousClock.Instant
    ) async throws(ControlError) {
        if turn.needsLease || turn.mayBeGone {
            let choice = try await choosePrimary(of: turn.volume.value)
            let isOther =
                choice.node != turn.volume.value.primary || choice.session != turn.session
            if turn.needsLease || isOther {
                var changed = turn.volume
                changed.value.takeLease(on: choice.node, session: choice.session, at: now)
                let update = changed
                guard let updated = try await meta(await metadata.update([update])).first else {
                    throw ControlError(.busy, "Somebody else changes '\(changed.value.name)'.")
                }
                turn = SnapshotTurn(volume: updated, session: choice.session, needsLease: false)
            }
        }
        guard !turn.isServed else { return }
        let served = ServedRecord(
            exportEpoch: turn.volume.value.epoch,
            readOnly: true,
            session: turn.session,
            since: now
        )
        try await assign(
            turn.volume,
            served,
            try await nodesByName(),
            access: NodeVolumeAccess.none,
            until: limit
        )
        turn.isServed = true
    }

    /// Takes a volume back that was served to nobody.
    func endServingToNobody(_ volume: Versioned<VolumeRecord>) async {
        guard volume.value.served == nil else { return }
        // Whom it was given to last: that may be another one than at first.
        guard let current = try? await metadata.volume(id: volume.value.id) else { return }
        await stopQuietly(current)
        serviceTable.forget(volume.value.id)
    }

    // MARK: - Deleting

    /// Deletes a snapshot on every node that has a replica, and has the primary forget it.
    ///
    /// Nodes that do not answer delete it when they are compared with the metadata.
    ///
    /// - Throws: A node's refusal, when none did it.
    func deleteReplicaSnapshot(
        _ name: String,
        of volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        let record = volume.value
        let snapshot = try await meta(await metadata.snapshot(name, of: record.id))
        guard let id = snapshot?.mark?.id else { return }
        var names = record.allReplicas.map(\.node)
        if record.served != nil, !names.contains(record.primary) { names.append(record.primary) }
        let answers = await withEach(names) { [self] (name) throws(ControlError) in
            try await asked(name, of: volume) { node throws(ControlError) in
                try await Self.deleteSnapshot(id, of: record.id, on: node)
            }
        }
        let failures = answers.compactMap(\.1)
        guard failures.count == answers.count, let refusal = failures.first(where: \.isRefusal)
        else { return }
        throw refusal
    }

    /// Deletes snapshots of a replica that nobody knows: what was given up was taken after all, or
    /// the node was away when they were deleted.
    ///
    /// - Parameters:
    ///   - held: The replica, as its node said while nothing else changed the volume.
    ///   - volume: The volume, without a pending operation.
    ///   - name: The node.
    ///   - deadline: When to wait no more.
    /// - Throws: The node's error.
    func deleteUnknownSnapshots(
        of held: NodeVolume,
        _ volume: Versioned<VolumeRecord>,
        on name: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        let unknown = try await unknownSnapshots(of: held)
        guard !unknown.isEmpty else { return }
        // A snapshot that another process began meanwhile would look so, too.
        let current = try await meta(await metadata.volume(id: held.id))
        guard current?.revision == volume.revision else { return }
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        try await answered(by: name, until: deadline) { () throws(ControlError) in
            for id in unknown { try await Self.deleteSnapshot(id, of: held.id, on: node) }
        }
        logger.notice(
            "deleted snapshots of a replica that are not known",
            metadata: [
                "volume": "\(volume.value.name)", "node": "\(name)", "count": "\(unknown.count)",
            ]
        )
    }

    /// The ids of a replica's snapshots that the metadata does not know.
    func unknownSnapshots(of held: NodeVolume) async throws(ControlError) -> [UInt64] {
        let marks = held.snapshots.compactMap(\.replica)
        guard !marks.isEmpty else { return [] }
        let known = try await meta(await metadata.snapshots(of: held.id))
        let ids = Set(known.compactMap(\.mark?.id))
        return marks.map(\.id).filter { !ids.contains($0) }
    }

    private static func deleteSnapshot(
        _ id: UInt64,
        of volume: UInt64,
        on node: any NodeService
    ) async throws(ControlError) {
        do throws(ControlError) {
            try await node.deleteReplicaSnapshot(of: volume, id)
        } catch  where error.code == .volumeNotFound || error.code == .snapshotNotFound {
            // Gone is what we want.
        }
    }
}

/// Who is asked for a snapshot, and what of that is known.
private struct SnapshotTurn {
    /// The volume, with the primary and its lease epoch.
    var volume: Versioned<VolumeRecord>
    /// The session of the node that the lease was given to, while no host has the volume.
    var session: UInt64?
    /// Whether the lease may have been given to somebody who is not known any more.
    var needsLease: Bool
    /// Whether the node has taken the volume.
    var isServed = false
    /// Whether the node may not be there any more.
    var mayBeGone = false

    init(volume: Versioned<VolumeRecord>, session: UInt64?, needsLease: Bool) {
        self.volume = volume
        self.session = session
        self.needsLease = needsLease
    }

    /// Draws conclusions from what a node answered, or did not.
    mutating func note(_ error: ControlError) {
        switch error.code {
        case .unavailable, .busy:
            // It is not that far yet. One that did not even take the volume may be another process.
            mayBeGone = !isServed
        case .outdated, .volumeNotFound:
            needsLease = true
            isServed = false
        default:
            mayBeGone = true
            isServed = false
        }
    }
}

extension ControlError {
    /// Whether the next question, or the next primary, may have another answer.
    fileprivate var mayPass: Bool {
        switch code {
        case .unavailable, .busy, .unreachable, .outcomeUnknown, .outdated, .volumeNotFound: true
        default: false
        }
    }
}
