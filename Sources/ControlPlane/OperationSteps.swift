// What each kind of operation asks of the node. Each may find that an earlier attempt, whose
// answer was lost, has done it already.

import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// Asks the node to carry out an operation.
    ///
    /// - Parameters:
    ///   - kind: The operation.
    ///   - volume: Its volume.
    ///   - node: The volume's node.
    ///   - isFirstAttempt: Whether the node cannot have heard of it before. Then something that
    ///     is there already is a stranger's, not ours.
    /// - Returns: What the metadata keeps of the node's answer.
    /// - Throws: The node's error; whether it changed something, its code tells.
    func carryOut(
        _ kind: PendingOperation.Kind,
        on volume: VolumeRecord,
        _ node: any NodeService,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        switch kind {
        case .create:
            return try await create(volume, node, isFirstAttempt: isFirstAttempt)
        case .clone:
            return try await clone(volume, node, isFirstAttempt: isFirstAttempt)
        case .delete:
            do throws(ControlError) {
                try await node.deleteVolume(volume.id)
            } catch  where error.code == .volumeNotFound {
                // Gone is what we want.
            } catch  where error.code == .inUse {
                throw await namingClones(of: volume, error)
            }
            return .done
        case .resize(let byteCount):
            let update = NodeVolumeUpdate(byteCount: byteCount)
            return .volume(byteCount: try await node.updateVolume(volume.id, update).byteCount)
        case .createSnapshot(let name, _, _, _):
            return .snapshot(
                try await snapshot(name, of: volume, node, isFirstAttempt: isFirstAttempt)
            )
        case .deleteSnapshot(let name):
            do throws(ControlError) {
                try await node.deleteSnapshot(volume: volume.id, name: name)
            } catch  where error.code == .snapshotNotFound || error.code == .volumeNotFound {
                // Gone is what we want.
            }
            return .done
        case .rollback(let name, let topLayer, _):
            let after = try await rollback(
                volume,
                to: name,
                from: topLayer,
                node,
                isFirstAttempt: isFirstAttempt
            )
            return .volume(byteCount: after.byteCount)
        case .attach(let attachment, let takeover, _, _, _):
            var all = try await attachmentsRecord(volume.id)
            all.attach(attachment, takeover: takeover, at: now)
            try await setAccess(all.access, epoch: attachment.epoch, volume.id, node)
            return .done
        case .move:
            preconditionFailure("only replicated volumes have primaries that move")
        case .detach(let host):
            var all = try await attachmentsRecord(volume.id)
            let epoch = all.detach(host, at: now, epoch: volume.epoch)
            do throws(ControlError) {
                try await setAccess(all.access, epoch: epoch, volume.id, node)
            } catch  where error.code == .volumeNotFound {
                // Lost with its store: nobody has it any more.
            }
            return .done
        }
    }

    private func create(
        _ volume: VolumeRecord,
        _ node: any NodeService,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        let creation = NodeVolumeCreation(
            id: volume.id,
            name: volume.name,
            byteCount: volume.byteCount,
            logicalBlockByteCount: volume.logicalBlockByteCount,
            durability: volume.durabilityMode,
            epoch: volume.epoch,
            descriptor: volume.descriptor
        )
        return try await making(volume, node, isFirstAttempt: isFirstAttempt) {
            () throws(ControlError) in
            try await node.createVolume(creation)
        }
    }

    private func clone(
        _ volume: VolumeRecord,
        _ node: any NodeService,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        guard let source = volume.source else {
            preconditionFailure("a clone has a source")
        }
        let creation = NodeCloneCreation(
            id: volume.id,
            name: volume.name,
            durability: volume.durabilityMode,
            epoch: volume.epoch,
            descriptor: volume.descriptor
        )
        return try await making(volume, node, isFirstAttempt: isFirstAttempt) {
            () throws(ControlError) in
            try await node.clone(volume: source.volumeID, snapshot: source.snapshot, creation)
        }
    }

    /// What the node says of a volume that it is asked to make, or was in an earlier attempt.
    ///
    /// That it refuses now does not mean that it did then: the snapshot may be gone since, the
    /// store full, the name taken by our own.
    private func making(
        _ volume: VolumeRecord,
        _ node: any NodeService,
        isFirstAttempt: Bool,
        _ make: () async throws(ControlError) -> NodeVolume
    ) async throws(ControlError) -> ClusterMetadata.Outcome {
        do throws(ControlError) {
            return .volume(byteCount: try await make().byteCount)
        } catch  where error.isRefusal {
            if !isFirstAttempt {
                do throws(ControlError) {
                    return .volume(byteCount: try await node.volume(volume.id).byteCount)
                } catch  where error.code == .volumeNotFound {
                    // So it was not made then either.
                }
            }
            guard error.code == .alreadyExists else { throw error }
            throw ControlError(
                .alreadyExists,
                "The node '\(volume.primary)' holds a volume '\(volume.name)' that the metadata "
                    + "does not know.",
                help: "See 'volctl events'; choose another name."
            )
        }
    }

    private func snapshot(
        _ name: String,
        of volume: VolumeRecord,
        _ node: any NodeService,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> SnapshotRecord {
        let made: NodeSnapshot
        do throws(ControlError) {
            made = try await node.createSnapshot(volume: volume.id, name: name)
        } catch  where error.isRefusal && !isFirstAttempt {
            // As with a volume: the store may be full now, and was not when it took ours.
            let snapshots = try await node.volume(volume.id).snapshots
            guard let ours = snapshots.first(where: { $0.name == name }) else { throw error }
            made = ours
        }
        return SnapshotRecord(
            name: name,
            layer: made.layer,
            byteCount: made.byteCount,
            createdAt: now
        )
    }

    private func rollback(
        _ volume: VolumeRecord,
        to name: String,
        from topLayer: UInt64?,
        _ node: any NodeService,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> NodeVolume {
        do throws(ControlError) {
            return try await node.rollback(volume: volume.id, snapshot: name)
        } catch  where error.isRefusal && !isFirstAttempt {
            // As with a snapshot: that it refuses now does not mean that it did then.
            let held = try await node.volume(volume.id)
            guard let topLayer, let now = held.topLayer, now != topLayer else { throw error }
            return held
        }
    }

    /// Tells the node who may use a volume; those who had it under an earlier epoch lose it
    /// before it answers.
    ///
    /// - Parameters:
    ///   - access: Who may.
    ///   - epoch: The fencing number of that.
    ///   - id: The volume.
    ///   - node: Its node.
    /// - Throws: The node's error; whether it changed something, its code tells.
    func setAccess(
        _ access: NodeVolumeAccess,
        epoch: UInt64,
        _ id: UInt64,
        _ node: any NodeService
    ) async throws(ControlError) {
        _ = try await node.updateVolume(id, NodeVolumeUpdate(access: access, epoch: epoch))
    }

    func attachmentsRecord(_ id: UInt64) async throws(ControlError) -> AttachmentsRecord {
        try await meta(await metadata.attachments(of: id))
    }

    private func namingClones(of volume: VolumeRecord, _ error: ControlError) async -> ControlError
    {
        let all = (try? await metadata.allVolumes()) ?? []
        let clones = all.map(\.value).filter { $0.source?.volumeID == volume.id }
        return .inUse(volume, by: clones) ?? error
    }
}

extension AttachmentsRecord {
    /// Who may use a volume that these hosts have.
    var access: NodeVolumeAccess {
        var access = NodeVolumeAccess.none
        for attachment in current {
            guard attachment.readOnly else { return .readWrite }
            access = .readOnly
        }
        return access
    }
}

extension VolumeRecord {
    var durabilityMode: DurabilityMode { DurabilityMode(rawValue: durability) ?? .writeback }
}

extension PendingOperation.Kind {
    /// The highest epoch that the volume can have on its node while this is carried out.
    ///
    /// - Parameters:
    ///   - epoch: The volume's epoch in the metadata.
    ///   - isFirstAttempt: Whether the node cannot have heard of the operation's own yet.
    /// - Returns: The epoch.
    func epochMax(after epoch: UInt64, isFirstAttempt: Bool) -> UInt64 {
        switch self {
        case .attach(let attachment, _, _, _, _):
            // A takeover may begin above what the metadata knew.
            isFirstAttempt ? max(epoch, attachment.epoch &- 1) : attachment.epoch
        case .detach: isFirstAttempt ? epoch : epoch + 1
        default: epoch
        }
    }

    /// Whether other hosts have the volume after it.
    var changesHosts: Bool {
        switch self {
        case .attach, .detach: true
        default: false
        }
    }

    /// The operation in words, for messages.
    var words: String {
        switch self {
        case .create: "creation"
        case .clone: "cloning"
        case .delete: "deletion"
        case .resize: "resizing"
        case .createSnapshot(let name, _, _, _): "snapshot '\(name)'"
        case .deleteSnapshot(let name): "deletion of snapshot '\(name)'"
        case .rollback(let name, _, _): "rollback to '\(name)'"
        case .move(let primary, _, _): "move to '\(primary)'"
        case .attach(let attachment, _, _, _, _): "attaching to '\(attachment.host)'"
        case .detach(let host): "detaching from '\(host)'"
        }
    }

    /// The kind of the event that tells of it.
    var eventKind: String {
        switch self {
        case .create: "volume.created"
        case .clone: "volume.cloned"
        case .delete: "volume.deleted"
        case .resize: "volume.resized"
        case .createSnapshot: "snapshot.created"
        case .deleteSnapshot: "snapshot.deleted"
        case .rollback: "volume.rolled_back"
        case .attach: "volume.attached"
        case .move: "volume.moved"
        case .detach: "volume.detached"
        }
    }

    func eventMessage(_ volume: VolumeRecord) -> String {
        switch self {
        case .create:
            "created on '\(volume.holders.joined(separator: "', '"))', "
                + Self.size(volume.byteCount)
        case .clone:
            "cloned from '\(volume.source?.volumeName ?? "")@\(volume.source?.snapshot ?? "")'"
        case .delete: "deleted"
        case .resize(let byteCount):
            "resized from \(Self.size(volume.byteCount)) to \(Self.size(byteCount))"
        case .createSnapshot(let name, _, _, _): "snapshot '\(name)' taken"
        case .deleteSnapshot(let name): "snapshot '\(name)' deleted"
        case .rollback(let name, _, _): "rolled back to snapshot '\(name)'"
        case .move(let primary, _, _):
            "its primary is on '\(primary)' now, lease \(volume.leaseEpoch ?? 0)"
        case .attach(let attachment, let takeover, let primary, _, _):
            (takeover ? "taken over by" : "attached to") + " host '\(attachment.host)'"
                + (attachment.readOnly ? ", read-only" : "") + ", epoch \(attachment.epoch)"
                + (primary.map { " on '\($0)', lease \(volume.leaseEpoch ?? 0)" } ?? "")
        case .detach(let host): "detached from host '\(host)'"
        }
    }

    private static func size(_ byteCount: UInt64) -> String {
        ByteSize(byteCount: byteCount).exactText
    }
}
