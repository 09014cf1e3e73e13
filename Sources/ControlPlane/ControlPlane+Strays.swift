// Volumes that a node holds and the metadata does not know.

public import ControlAPI
import Metadata

extension ControlPlane {
    /// The volumes that a node holds and the metadata does not know, by name.
    public func strays(of node: String) async throws(ControlError) -> [StrayVolume] {
        let held = try await read(node, until: changeDeadline) { service throws(ControlError) in
            try await service.volumes()
        }
        // Read afterwards: a volume is known before its node makes it.
        let volumes = try await meta(await metadata.allVolumes()).map(\.value)
        // A replica that was replaced is as unknown as a volume that was forgotten.
        let known = Set(volumes.filter { !$0.isReplicated || $0.lies(on: node) }.map(\.id))
        return held.filter { !known.contains($0.id) }.map { volume in
            StrayVolume(
                id: volume.id,
                name: volume.name,
                byteCount: volume.byteCount,
                access: volume.access,
                epoch: volume.epoch,
                snapshots: volume.snapshots.map(\.name)
            )
        }
    }

    /// Deletes one of them, with its snapshots.
    public func deleteStray(_ id: UInt64, of node: String) async throws(ControlError) {
        let deadline = changeDeadline
        let record = try await requireNode(node).value
        let held: NodeVolume
        do throws(ControlError) {
            held = try await read(record, until: deadline) { service throws(ControlError) in
                try await service.volume(id)
            }
        } catch  where error.code == .volumeNotFound {
            let lost = try await requireGone(id, from: record)
            // An earlier attempt whose answer was lost: what is left of it is our record.
            return try await notePurged(id, lost.name, from: node)
        }
        try await locks.withLock(held.name) { [self] () throws(ControlError) in
            if let known = try await meta(await metadata.volume(id: id)),
                !known.value.isReplicated || known.value.lies(on: node)
            {
                throw ControlError(
                    .inUse,
                    "The volume \(id) is the cluster's volume '\(known.value.name)'.",
                    help: "'volctl volume delete \(known.value.name)' deletes it."
                )
            }
            // Of the same record: a node that came back with other stores meanwhile refuses.
            let service = try await strayService(held, on: record)
            try await answered(by: node, until: deadline) { () throws(ControlError) in
                do throws(ControlError) {
                    try await service.deleteVolume(id)
                } catch  where error.code == .volumeNotFound {
                    // Gone is what we want.
                }
            }
            try await notePurged(id, held.name, from: node)
        }
    }

    /// What is known of a lost volume that a node does not hold and cannot get back: it has the
    /// stores that the volume was lost with.
    ///
    /// One that has others says nothing of it. The record is what closes the volume when its
    /// store is back, so it is kept; also when it does not say which store that is.
    private func requireGone(
        _ id: UInt64,
        from node: NodeRecord
    ) async throws(ControlError) -> LostVolumeRecord {
        let lost = try await meta(await metadata.lostVolume(id))
        guard let lost, lost.node == node.name || node.hasStores(of: lost) else {
            throw ControlError(
                .volumeNotFound,
                "The node '\(node.name)' has no volume with the id \(id).",
                help: "'volctl node strays \(node.name)' lists those that can be purged, with "
                    + "their ids."
            )
        }
        guard node.hasStores(of: lost) else {
            throw ControlError(
                .volumeNotFound,
                "The node '\(node.name)' has another store than the one that the volume "
                    + "'\(lost.name)' (id \(id)) was lost with.",
                help: "There is nothing to purge: should that store come back, the volume is "
                    + "closed there, and can be purged then."
            )
        }
        return lost
    }

    private func notePurged(
        _ id: UInt64,
        _ name: String,
        from node: String
    ) async throws(ControlError) {
        let event = EventRecord(
            time: now,
            kind: "volume.purged",
            subject: name,
            message: "deleted from '\(node)', where it was unknown to the metadata (id \(id))"
        )
        try await meta(await metadata.notePurged(id, event: event))
    }

    /// Closes a volume that was forgotten with its node, which has come back with it: its name
    /// may have been given to another one since.
    func closeStray(
        _ held: NodeVolume,
        on node: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        guard held.access != .none else { return }
        let service = try await strayService(held, on: try await requireNode(node).value)
        // Under the highest epoch it is closed all the same; only its name stays what it was.
        let epoch = held.epoch < APILimits.epochMax ? held.epoch + 1 : held.epoch
        try await answered(by: node, until: deadline) { [self] () throws(ControlError) in
            try await setAccess(.none, epoch: epoch, held.id, service)
        }
        let event = EventRecord(
            time: now,
            kind: "volume.closed",
            subject: held.name,
            message:
                "came back with '\(node)', which had been deleted as lost, and is closed there "
                + "(id \(held.id)); 'volctl node strays \(node)' lists it"
        )
        await report(event)
    }

    /// Asks a node what only it knows, briefly when it is down.
    func read<Value: Sendable>(
        _ node: String,
        until deadline: ContinuousClock.Instant,
        _ question: @escaping @Sendable (any NodeService) async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await read(try await requireNode(node).value, until: deadline, question)
    }

    /// The same, of the node that the record tells of: one that has other stores does not answer.
    private func read<Value: Sendable>(
        _ node: NodeRecord,
        until deadline: ContinuousClock.Instant,
        _ question: @escaping @Sendable (any NodeService) async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        let service = try connect(node)
        do throws(ControlError) {
            try await requireAnswer(of: node.name, until: deadline)
            return try await answered(by: node.name, until: deadline) { () throws(ControlError) in
                try await question(service)
            }
        } catch  where error.code == .outcomeUnknown {
            throw .nodeSilent(node.name)
        } catch  where error.code == .unreachable {
            throw .nodeGone(node.name)
        }
    }

    /// The API of the node, for a change of a volume of which it alone knows.
    private func strayService(
        _ held: NodeVolume,
        on node: NodeRecord
    ) async throws(ControlError) -> any NodeService {
        let operation = NodeOperation(
            term: term,
            revision: try await meta(await metadata.revision()),
            epochMax: held.epoch
        )
        return try connect(node).carryingOut(operation)
    }
}
