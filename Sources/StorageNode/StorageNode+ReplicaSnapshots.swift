// Snapshots of replicated volumes: taken by their primary, deleted and copied replica by replica.

public import BlockCore
public import LogStore
public import Replication

/// Why a replica's snapshot was not copied, or gone back to; nothing was changed, or the same can be
/// asked again.
public enum ReplicaSnapshotError: Error, Sendable, Hashable {
    /// The node has no such replica, or it has no such snapshot.
    case notFound
    /// The replica does not have everything up to the snapshot yet.
    case notComplete
    /// A primary uses the replica.
    case inUse
    /// The store refused.
    case refused(StoreCommandError)
}

extension StorageNode {
    /// Takes a snapshot of a volume that is served here.
    ///
    /// - Parameters:
    ///   - volume: The volume.
    ///   - id: The snapshot's id, which no other one of the volume ever had; not 0. Asked again for the
    ///     same, its number is told.
    ///   - leaseEpoch: The epoch under which the volume is served.
    /// - Returns: The snapshot's number, when W replicas have it durably.
    /// - Throws: ``ServiceError/notServing``, ``ServiceError/tooManySnapshots``, or
    ///   ``ServiceError/unknownOutcome``, at the latest after 10 s.
    public func takeSnapshot(
        of volume: VolumeID,
        id: UInt64,
        leaseEpoch: Epoch
    ) async throws(ServiceError) -> WriteNumber {
        guard id != 0 else { throw .invalid("a snapshot's id that is not 0") }
        guard let index = await workerServing(volume) else { throw .notServing }
        let result: Result<WriteNumber, ServiceError> = await onWorker(index) { worker, done in
            worker.takeSnapshot(of: volume, id: id, leaseEpoch: leaseEpoch, done)
        }
        return try result.get()
    }

    /// Deletes the snapshot of a replica, and has the primary here forget it; done when there is none.
    public func deleteReplicaSnapshot(
        of volume: VolumeID,
        id: UInt64
    ) async throws(StoreCommandError) {
        for index in workers.indices {
            let _: Bool = await onWorker(index) { worker, done in
                worker.forgetSnapshot(of: volume, id: id)
                done(true)
            }
        }
        guard let store = store(of: volume) else { return }
        let result: Result<Void, StoreCommandError> = await onStore(store) { worker, host, done in
            worker.deleteReplicaSnapshot(of: volume, id: id, on: host, done)
        }
        try result.get()
    }

    /// Makes a replica of another volume out of a snapshot of the replica here.
    ///
    /// It is complete, and the same as those that other nodes make of it. Done when it is there already.
    ///
    /// - Parameters:
    ///   - volume: The volume whose snapshot it is.
    ///   - instance: The replica here.
    ///   - id: The snapshot.
    ///   - number: Its number.
    ///   - specification: The new volume; its replica record is made here.
    ///   - newInstance: The new replica. Its volume's epochs must be greater than all that the parent's
    ///     had when it was made: a replica may have blocks of the snapshot under numbers of later ones.
    /// - Throws: ``ReplicaSnapshotError``; nothing was made.
    public func cloneReplica(
        of volume: VolumeID,
        instance: ReplicaInstance,
        id: UInt64,
        number: WriteNumber,
        specification: VolumeSpecification,
        newInstance: ReplicaInstance
    ) async throws(ReplicaSnapshotError) {
        guard id != 0, number.isValid, number.counter > 0, number.epoch < WriteNumber.epochMax
        else {
            throw .refused(.invalid)
        }
        guard let store = store(of: volume) else { throw .notFound }
        let source = SnapshotSource(
            volume: volume,
            instance: instance,
            mark: SnapshotMark(id: id, number: number)
        )
        var specification = specification
        specification.replica = ReplicaRecord.made(newInstance, at: number).encoded()
        let clone = specification
        let result: SnapshotResult = await onStore(store) { worker, host, done in
            worker.clone(source, as: clone, on: host, done)
        }
        try result.get()
    }

    /// Takes the replica here back to its snapshot, as another replica, of a new epoch.
    ///
    /// Done when it is that one already. Nobody may serve the volume meanwhile.
    ///
    /// - Parameters:
    ///   - volume: The volume.
    ///   - instance: The replica as it is.
    ///   - id: The snapshot.
    ///   - number: Its number.
    ///   - epoch: An epoch that no primary ever had, above the number's and below all that come.
    ///   - newInstance: The replica as it will be.
    /// - Throws: ``ReplicaSnapshotError``; the same is to be asked again, because it may be on its way.
    public func rollBackReplica(
        of volume: VolumeID,
        instance: ReplicaInstance,
        id: UInt64,
        number: WriteNumber,
        epoch: Epoch,
        newInstance: ReplicaInstance
    ) async throws(ReplicaSnapshotError) {
        guard id != 0, number.isValid, number.counter > 0, epoch > number.epoch,
            epoch < WriteNumber.epochMax
        else { throw .refused(.invalid) }
        guard let store = store(of: volume) else { throw .notFound }
        let source = SnapshotSource(
            volume: volume,
            instance: instance,
            mark: SnapshotMark(id: id, number: number)
        )
        let goal = ReplicaRecord.made(newInstance, at: WriteNumber(epoch: epoch, counter: 0))
        let result: SnapshotResult = await onStore(store) { worker, host, done in
            worker.rollBack(to: source, as: goal, on: host, done)
        }
        try result.get()
    }
}
