// Snapshots of replicated volumes in the node API: taken by the primary here, deleted, cloned and
// rolled back to where the replicas are.

import BlockCore
import ControlAPI
import LogStore
import Replication
import StorageNode

extension NodeAdmin {
    func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken {
        do throws(ServiceError) {
            let number = try await node.takeSnapshot(
                of: VolumeID(volume),
                id: taking.snapshot,
                leaseEpoch: Epoch(taking.leaseEpoch)
            )
            return NodeSnapshotTaken(number: number.rawValue)
        } catch {
            throw ControlError(error)
        }
    }

    func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {
        do throws(StoreCommandError) {
            try await node.deleteReplicaSnapshot(of: VolumeID(volume), id: snapshot)
        } catch .volumeNotFound, .snapshotNotFound {
            // Gone is what is wanted; but of a store that has stopped nobody knows.
            guard await node.areStoresReady() else { throw Self.storeStopped }
        } catch {
            throw ControlError(error.code, "The node refused: \(error.text).")
        }
    }

    func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) {
        let new = creation.volume
        try await requireFree(new.name, of: new.id)
        let specification = VolumeSpecification(
            id: VolumeID(new.id),
            name: new.name,
            byteCount: new.byteCount,
            logicalBlockByteCount: new.logicalBlockByteCount,
            durability: new.durability.store,
            epoch: new.epoch ?? 0,
            descriptor: Array(new.descriptor.utf8)
        )
        do throws(ReplicaSnapshotError) {
            try await node.cloneReplica(
                of: VolumeID(volume),
                instance: ReplicaInstance(creation.instance),
                id: snapshot,
                number: WriteNumber(rawValue: creation.number),
                specification: specification,
                newInstance: ReplicaInstance(creation.newInstance)
            )
        } catch {
            throw await refusal(error)
        }
    }

    func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) {
        do throws(ReplicaSnapshotError) {
            try await node.rollBackReplica(
                of: VolumeID(volume),
                instance: ReplicaInstance(rollback.instance),
                id: snapshot,
                number: WriteNumber(rawValue: rollback.number),
                epoch: Epoch(rollback.epoch),
                newInstance: ReplicaInstance(rollback.newInstance)
            )
        } catch {
            throw await refusal(error)
        }
    }

    /// What the metadata service hears of a clone or rollback that was not made.
    private func refusal(_ error: ReplicaSnapshotError) async -> ControlError {
        switch error {
        case .notFound:
            guard await node.areStoresReady() else { return Self.storeStopped }
            return ControlError(.snapshotNotFound, "This node has no such snapshot.")
        case .notComplete:
            return ControlError(
                .notComplete,
                "The replica here is another one, or lacks something of the snapshot."
            )
        case .inUse:
            return ControlError(.inUse, "The node refused: the replica is in use.")
        case .refused(let error):
            return ControlError(error.code, "The node refused: \(error.text).")
        }
    }
}

extension NodeReplicaSnapshot {
    /// What a snapshot's name in the store says; nil when it is none of a replica.
    init?(name: String) {
        guard let mark = SnapshotMark(name: name) else { return nil }
        self.init(id: mark.id, number: mark.number.rawValue)
    }
}

extension ControlError {
    /// What the metadata service hears of a primary that does not do what it was asked for.
    init(_ error: ServiceError) {
        switch error {
        case .outdated:
            self.init(.outdated, "The node serves the volume under a higher epoch.")
        case .invalid(let needed):
            self.init(.invalidArgument, "A volume to serve has \(needed).")
        case .stopping:
            self.init(.unavailable, "The node is stopping.")
        case .notServing:
            self.init(.volumeNotFound, "The node does not serve the volume under this epoch.")
        case .unknownOutcome:
            self.init(.unavailable, "The snapshot was not known to be safe in time.")
        case .noRoom:
            self.init(
                .noSpace,
                "Too few of the stores that have replicas of the volume have room for a snapshot."
            )
        case .tooManySnapshots:
            self.init(.limitReached, "The volume has as many snapshots as there may be.")
        }
    }
}
