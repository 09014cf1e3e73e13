// Copies of replicas' snapshots, and their deletion, as the control plane asks for them. Rare, so it may
// allocate.

internal import BlockCore
internal import LogStore
internal import Replication

/// How a copy of a snapshot, or a way back to it, ended.
typealias SnapshotResult = Result<Void, ReplicaSnapshotError>

/// A replica's snapshot of which a copy is to be made.
struct SnapshotSource {
    var volume: VolumeID
    var instance: ReplicaInstance
    var mark: SnapshotMark
}

extension Worker {
    /// Deletes a replica's snapshot; done when there is none.
    func deleteReplicaSnapshot(
        of volume: VolumeID,
        id: UInt64,
        on host: StoreHost,
        _ done: @escaping (Result<Void, StoreCommandError>) -> Void
    ) {
        let found = host.store.volume(volume)?.replicaSnapshots.first { $0.mark.id == id }
        guard let found else { return done(.success(())) }
        let replica = replication.replicasByVolume[volume]
        if let replica {
            replica.machine.onSnapshotDeleted(id)
            replica.layers[id] = nil
            closeViews(of: replica)
        }
        perform(.deleteSnapshot(layer: found.layer), on: host) { result in
            switch result {
            case .success, .failure(.snapshotNotFound): done(.success(()))
            case .failure(let error): done(.failure(error))
            }
        }
    }

    /// Makes a volume that stands on a replica's snapshot.
    func clone(
        _ source: SnapshotSource,
        as specification: VolumeSpecification,
        on host: StoreHost,
        _ done: @escaping (SnapshotResult) -> Void
    ) {
        if let made = host.store.specification(of: specification.id) {
            let isSame = made.replicaInstance == specification.replicaInstance
            return done(isSame ? .success(()) : .failure(.refused(.alreadyExists)))
        }
        guard let replica = replica(of: source.volume, instance: source.instance),
            replica.host === host, let layer = replica.layers[source.mark.id]
        else { return done(.failure(.notFound)) }
        guard replica.machine.isWhole(source.mark) else { return done(.failure(.notComplete)) }
        perform(.cloneSnapshot(layer: layer, specification), on: host) { result in
            done(result.map { _ in () }.mapError { .refused($0) })
        }
    }

    /// Takes a replica back to its snapshot, in three steps of which each may be the last before a
    /// crash: it becomes another replica, which knows nothing; its volume goes back; it is complete.
    func rollBack(
        to source: SnapshotSource,
        as goal: ReplicaRecord,
        on host: StoreHost,
        _ done: @escaping (SnapshotResult) -> Void
    ) {
        guard let specification = host.store.specification(of: source.volume),
            let record = ReplicaRecord(decoding: specification.replica)
        else { return done(.failure(.notFound)) }
        let snapshots = host.store.volume(source.volume)?.replicaSnapshots ?? []
        guard let snapshot = snapshots.first(where: { $0.mark == source.mark }) else {
            return done(.failure(.notFound))
        }
        if record.instance == goal.instance {
            guard record.isBlank else { return done(.success(())) }
        } else {
            guard let replica = replica(of: source.volume, instance: source.instance),
                replica.host === host
            else { return done(.failure(.notFound)) }
            guard replica.machine.isWhole(source.mark) else { return done(.failure(.notComplete)) }
        }
        let steps: [StoreCommand] = [
            .setReplica(
                volume: source.volume,
                record: ReplicaRecord.replacing(goal.instance).encoded()
            ),
            .rollback(volume: source.volume, layer: snapshot.layer),
            .setReplica(volume: source.volume, record: goal.encoded()),
        ]
        guard let replica = replication.replicasByVolume[source.volume] else {
            return perform(steps[...], on: host, done)
        }
        end(replica) { [self] in perform(steps[...], on: host, done) }
    }

    private func perform(
        _ steps: ArraySlice<StoreCommand>,
        on host: StoreHost,
        _ done: @escaping (SnapshotResult) -> Void
    ) {
        guard let step = steps.first else { return done(.success(())) }
        perform(step, on: host) { [self] result in
            switch result {
            case .success: perform(steps.dropFirst(), on: host, done)
            case .failure(.inUse): done(.failure(.inUse))
            case .failure(let error): done(.failure(.refused(error)))
            }
        }
    }
}

extension VolumeSpecification {
    /// The replica that the volume is; nil for one that is none.
    fileprivate var replicaInstance: ReplicaInstance? {
        ReplicaRecord(decoding: replica)?.instance
    }
}
