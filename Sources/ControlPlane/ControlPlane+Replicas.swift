// What each kind of operation asks of the nodes of a replicated volume.
//
// No operation on one but a rollback stays pending because a node is silent: replicas have
// instances and primaries have lease epochs that are given once, so what a node did under them
// unheard harms nobody, and what it was to delete it is told when it is back.

import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// How long a node that is up may take for its part of an operation, in milliseconds.
    static var replicaMillisecondsMax: Int64 { 5_000 }

    /// Carries a pending operation on a replicated volume to its end.
    ///
    /// - Returns: The volume after it.
    /// - Throws: ``ControlError``; the operation is abandoned then, except a rollback that has begun.
    func driveReplicated(
        _ volume: Versioned<VolumeRecord>,
        _ pending: PendingOperation,
        isFirstAttempt: Bool,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> VolumeRecord {
        let outcome: ClusterMetadata.Outcome
        do throws(ControlError) {
            outcome = try await carryOut(
                pending.kind,
                onReplicated: volume,
                isFirstAttempt: isFirstAttempt,
                until: deadline
            )
        } catch {
            if case .rollback = pending.kind, error.leavesOutcomeOpen { throw error }
            try await abandonReplicated(volume)
            guard !error.isRefusal else { throw error }
            throw ControlError(
                .unavailable,
                error.detail,
                help: error.help ?? "See 'volctl node list', and try again."
            )
        }
        let event = EventRecord(
            time: now,
            kind: pending.kind.eventKind,
            subject: volume.value.name,
            message: pending.kind.eventMessage(volume.value)
        )
        async let ending: Void = endServing(after: pending.kind, volume)
        try await whileUnderWay(volume) { [self] (volume) throws(ControlError) in
            try await meta(await metadata.finish(volume, outcome: outcome, at: now, event: event))
        }
        await ending
        let after = try await meta(await metadata.volume(id: volume.value.id))
        guard let after else {
            serviceTable.forget(volume.value.id)
            return volume.value
        }
        if after.value.served == nil { serviceTable.forget(after.value.id) }
        if pending.kind.changesHosts { describeSoon(after.value.id) }
        if case .resize = pending.kind { await tellPrimary(of: after) }
        return after.value
    }

    private func endServing(
        after kind: PendingOperation.Kind,
        _ volume: Versioned<VolumeRecord>
    ) async {
        guard case .createSnapshot = kind else { return }
        await endServingToNobody(volume)
    }

    /// Ends an operation: its volume may have got another primary since it was read.
    ///
    /// - Parameters:
    ///   - volume: The volume with its pending operation, as read.
    ///   - end: Says whether the volume was still as it was read.
    /// - Throws: What `end` throws.
    private func whileUnderWay(
        _ volume: Versioned<VolumeRecord>,
        _ end: (Versioned<VolumeRecord>) async throws(ControlError) -> Bool
    ) async throws(ControlError) {
        var current = volume
        while try await !end(current) {
            guard let next = try await underWay(volume) else { return }
            current = next
        }
    }

    private func abandonReplicated(
        _ volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        let isInMaking = volume.value.state == .creating
        let leaving = isInMaking ? volume.value.placements ?? [] : []
        try await whileUnderWay(volume) { [self] (volume) throws(ControlError) in
            try await meta(await metadata.abandon(volume, leaving: leaving))
        }
        let id = volume.value.id
        switch volume.value.pending?.kind {
        case .attach, .move, .detach:
            // Its hosts have it all the same, and its primary may have been stopped.
            guard volume.value.served != nil else { break }
            _ = serviceTable.noteFailure(id)
            serveSoon.yield(String(id))
        case .createSnapshot:
            await endServingToNobody(volume)
            // It may have been taken all the same.
            for node in volume.value.holders { reconcileSoon.yield(node) }
        default: break
        }
        let nodes = Set(leaving.map(\.node))
        await withTaskGroup(of: Void.self) { group in
            for node in nodes { group.addTask { await self.removeDiscarded(on: node) } }
        }
    }

    /// Tells a primary of the size or placements that its volume has now.
    func tellPrimary(of volume: Versioned<VolumeRecord>) async {
        do throws(ControlError) {
            try await tell(volume)
        } catch {
            // One that no host has is looked at with the moves.
            guard volume.value.served != nil else { return }
            _ = serviceTable.noteFailure(volume.value.id)
            serveSoon.yield(String(volume.value.id))
        }
    }

    private func carryOut(
        _ kind: PendingOperation.Kind,
        onReplicated volume: Versioned<VolumeRecord>,
        isFirstAttempt: Bool,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        switch kind {
        case .create:
            try await createReplicas(of: volume, until: deadline)
            return .volume(byteCount: volume.value.byteCount)
        case .clone: return try await cloneReplicas(of: volume)
        case .delete:
            try await requireNoClones(of: volume.value)
            return .deleted(leaving: await deleteReplicas(of: volume))
        case .resize(let byteCount):
            try await resizeReplicas(of: volume, to: byteCount)
            return .volume(byteCount: byteCount)
        case .attach(let attachment, let takeover, let primary, let old, let session):
            // One more reader beside others: its primary knows all that it needs.
            guard primary != nil else { return .done }
            var all = try await attachmentsRecord(volume.value.id)
            all.attach(attachment, takeover: takeover, at: now)
            let served = ServedRecord(
                exportEpoch: attachment.epoch,
                readOnly: all.current.allSatisfy(\.readOnly),
                session: session,
                since: now
            )
            try await takeOver(volume, served, from: old, isForced: takeover, until: deadline)
            return .done
        case .move(_, let old, let session):
            guard var served = volume.value.served else { return .done }
            served.session = session
            try await takeOver(volume, served, from: old, isForced: false, until: deadline)
            return .done
        case .detach(let host):
            var all = try await attachmentsRecord(volume.value.id)
            _ = all.detach(host, at: now, epoch: volume.value.epoch)
            guard all.current.isEmpty else { return .done }
            let name = volume.value.primary
            let leaseEpoch = volume.value.leaseEpoch ?? 0
            try await requireAnswer(of: name, until: deadline)
            try await stopServing(volume, on: name, leaseEpoch: leaseEpoch, until: deadline)
            return .done
        case .createSnapshot(let name, let id, _, let session):
            guard let id else { preconditionFailure("a snapshot of replicas has an id") }
            return .snapshot(
                try await takeSnapshot(
                    name,
                    id,
                    session: session,
                    of: volume,
                    isFirstAttempt: isFirstAttempt,
                    until: deadline
                )
            )
        case .deleteSnapshot(let name):
            try await deleteReplicaSnapshot(name, of: volume)
            return .done
        case .rollback(let name, _, let placements):
            return try await rollBackReplicas(
                of: volume,
                to: name,
                placements ?? [],
                isFirstAttempt: isFirstAttempt
            )
        }
    }

    // MARK: - Replicas

    /// What a node is told of a replica that it is to make.
    static func creation(
        of placement: PlacementRecord,
        _ volume: VolumeRecord,
        isReplacement: Bool
    ) -> NodeVolumeCreation {
        NodeVolumeCreation(
            id: volume.id,
            name: volume.name,
            byteCount: volume.byteCount,
            logicalBlockByteCount: volume.logicalBlockByteCount,
            durability: volume.durabilityMode,
            epoch: volume.epoch,
            descriptor: volume.descriptor,
            replica: NodeReplicaCreation(
                instance: placement.instance,
                isReplacement: isReplacement
            )
        )
    }

    private func createReplicas(
        of volume: Versioned<VolumeRecord>,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        let answers = await withEachReplica(of: volume) {
            [self] (placement) throws(ControlError) in
            try await createReplica(placement, of: volume, isReplacement: false)
        }
        for (_, error) in answers { if let error { throw error } }
    }

    /// Has a node make a replica; it may have made it in an earlier attempt.
    func createReplica(
        _ placement: PlacementRecord,
        of volume: Versioned<VolumeRecord>,
        isReplacement: Bool
    ) async throws(ControlError) {
        let creation = Self.creation(of: placement, volume.value, isReplacement: isReplacement)
        let id = volume.value.id
        try await asked(placement.node, of: volume) { node throws(ControlError) in
            do throws(ControlError) {
                _ = try await node.createVolume(creation)
            } catch  where error.code == .alreadyExists {
                let held = try? await node.volume(id)
                guard held?.replica?.instance == placement.instance else {
                    throw ControlError(
                        .alreadyExists,
                        "The node '\(placement.node)' holds a volume '\(volume.value.name)' that "
                            + "is not this one.",
                        help: "See 'volctl node strays \(placement.node)'; choose another name."
                    )
                }
            }
        }
    }

    /// Deletes all replicas of a volume.
    ///
    /// - Returns: Those of which it is not known whether they are gone.
    private func deleteReplicas(of volume: Versioned<VolumeRecord>) async -> [PlacementRecord] {
        let id = volume.value.id
        async let stopping: Void = stopQuietly(volume)
        let answers = await withEachReplica(of: volume) {
            [self] (placement) throws(ControlError) in
            try await asked(placement.node, of: volume) { node throws(ControlError) in
                do throws(ControlError) {
                    try await node.deleteVolume(id)
                } catch  where error.code == .volumeNotFound {
                    // Gone is what we want.
                }
            }
        }
        await stopping
        return answers.filter { $0.1 != nil }.map(\.0)
    }

    /// Asks a volume's primary to stop, if its node is up; a stray service is stopped later.
    func stopQuietly(_ volume: Versioned<VolumeRecord>) async {
        let limit = ContinuousClock.now + patient(Self.stopMillisecondsMax)
        let name = volume.value.primary
        guard (try? await metadata.liveNode(name)) != .some(nil) else { return }
        try? await stopServing(
            volume,
            on: name,
            leaseEpoch: volume.value.leaseEpoch ?? 0,
            until: limit
        )
    }

    /// Gives all replicas another size; nodes that do not answer are told when they are back.
    private func resizeReplicas(
        of volume: Versioned<VolumeRecord>,
        to byteCount: UInt64
    ) async throws(ControlError) {
        let id = volume.value.id
        let answers = await withEachReplica(of: volume) {
            [self] (placement) throws(ControlError) in
            try await asked(placement.node, of: volume) { node throws(ControlError) in
                _ = try await node.updateVolume(id, NodeVolumeUpdate(byteCount: byteCount))
            }
        }
        let counting = answers.filter { $0.0.instance != volume.value.move?.to.instance }
        let failures = counting.compactMap(\.1)
        let doneCount = counting.count - failures.count
        guard doneCount < volume.value.writeQuorum ?? 1 else { return }
        if let refusal = failures.first(where: \.isRefusal) { throw refusal }
        throw ControlError(
            .unavailable,
            "\(doneCount) of \(counting.count) replicas of '\(volume.value.name)' were resized; "
                + "the other nodes do not answer.",
            help: "See 'volctl node list'; try again when they are up."
        )
    }

    /// Does something with each replica, all at once.
    ///
    /// - Returns: What went wrong with each; nil when nothing did.
    func withEachReplica(
        of volume: Versioned<VolumeRecord>,
        _ body: @escaping @Sendable (PlacementRecord) async throws(ControlError) -> Void
    ) async -> [(PlacementRecord, ControlError?)] {
        await withEach(volume.value.allReplicas, body)
    }

    /// Does something with each of some things, all at once.
    ///
    /// - Returns: What went wrong with each; nil when nothing did.
    func withEach<Item: Sendable>(
        _ items: [Item],
        _ body: @escaping @Sendable (Item) async throws(ControlError) -> Void
    ) async -> [(Item, ControlError?)] {
        await withTaskGroup(of: (Item, ControlError?).self) { group in
            for item in items {
                group.addTask {
                    do throws(ControlError) {
                        try await body(item)
                        return (item, nil)
                    } catch {
                        return (item, error)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    /// Asks a node that is up for its part of an operation.
    func asked(
        _ name: String,
        of volume: Versioned<VolumeRecord>,
        _ change: @escaping @Sendable (any NodeService) async throws(ControlError) -> Void
    ) async throws(ControlError) {
        guard try await meta(await metadata.liveNode(name)) != nil else { throw .nodeSilent(name) }
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        let limit = ContinuousClock.now + patient(Self.replicaMillisecondsMax)
        try await answered(by: name, until: limit) { () throws(ControlError) in
            try await change(node)
        }
    }

    // MARK: - Replicas that are to go

    /// Has a node delete what it was to delete while it did not answer.
    func removeDiscarded(on name: String) async {
        do throws(ControlError) {
            let discarded = try await meta(await metadata.discardedReplicas(of: name))
            guard !discarded.isEmpty, try await meta(await metadata.liveNode(name)) != nil else {
                return
            }
            var left = discarded
            var isGettingOn = true
            // A clone goes before what it stands on, whatever their order.
            while isGettingOn, !left.isEmpty {
                let round = left
                left = try await remove(round, on: name)
                isGettingOn = left.count < round.count
                let kept = left
                let gone = round.filter { !kept.contains($0) }.map(\.value)
                try await meta(await metadata.forgetDiscarded(gone, of: name))
            }
        } catch {
            logger.info(
                "replicas that are not needed stay on a node for now",
                metadata: ["node": "\(name)", "reason": "\(error.detail)"]
            )
        }
    }

    /// - Returns: Those that the node refuses to delete.
    private func remove(
        _ discarded: [Versioned<DiscardedReplicaRecord>],
        on name: String
    ) async throws(ControlError) -> [Versioned<DiscardedReplicaRecord>] {
        var kept: [Versioned<DiscardedReplicaRecord>] = []
        for replica in discarded {
            do throws(ControlError) {
                try await remove(replica, on: name)
            } catch  where error.isRefusal {
                kept.append(replica)
                logger.warning(
                    "a node keeps a replica that is not needed",
                    metadata: ["node": "\(name)", "reason": "\(error.detail)"]
                )
            }
        }
        return kept
    }

    private func remove(
        _ discarded: Versioned<DiscardedReplicaRecord>,
        on name: String
    ) async throws(ControlError) {
        let replica = discarded.value
        // In the order of the volume's changes: another replica may be made there since.
        let operation = NodeOperation(
            term: term,
            revision: discarded.revision,
            epochMax: APILimits.epochMax
        )
        let node = try await nodeService(name).carryingOut(operation)
        let limit = ContinuousClock.now + patient(Self.replicaMillisecondsMax)
        try await answered(by: name, until: limit) { () throws(ControlError) in
            do throws(ControlError) {
                let held = try await node.volume(replica.volumeID)
                // Another one has its place, or it is none that was put there for us.
                guard held.replica?.instance == replica.instance else { return }
                try await node.deleteVolume(replica.volumeID)
            } catch  where error.code == .volumeNotFound {
                // Gone is what we want.
            }
        }
    }
}
