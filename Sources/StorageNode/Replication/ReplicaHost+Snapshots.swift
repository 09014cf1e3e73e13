// A replica's snapshots: sealed layers of its store, named by ``SnapshotMark/name``.

internal import BlockCore
internal import LogStore
internal import Replication

/// A replica's snapshot in its store.
struct ReplicaSnapshot {
    var mark: SnapshotMark
    var layer: LayerID
    var byteCount: UInt64
    /// Whether the volume stands on it; a rollback leaves later ones aside.
    var isBelowVolume: Bool
}

extension VolumeSummary {
    /// The snapshots of a replica, in the order of their numbers.
    var replicaSnapshots: [ReplicaSnapshot] {
        snapshots.compactMap { snapshot in
            SnapshotMark(name: snapshot.name).map {
                ReplicaSnapshot(
                    mark: $0,
                    layer: snapshot.layer,
                    byteCount: snapshot.byteCount,
                    isBelowVolume: snapshot.isBelowVolume
                )
            }
        }.sorted { $0.mark.number < $1.mark.number }
    }
}

extension Worker {
    // MARK: - Steps

    /// Seals what the replica has; done also when that was done before.
    func takeSnapshot(_ step: ReplicaHost.Step, _ replica: ReplicaHost) {
        guard let mark = step.mark else { preconditionFailure("a snapshot without a mark") }
        let command = StoreCommand.createSnapshot(volume: replica.volume, name: mark.name)
        perform(command, replica) { [self] result in
            switch result {
            case .success(let made): replica.layers[mark.id] = made.layer
            case .failure(.alreadyExists):
                let snapshots = replica.host.store.volume(replica.volume)?.replicaSnapshots ?? []
                replica.layers[mark.id] = snapshots.first { $0.mark == mark }?.layer
            case .failure(.noSpace), .failure(.tooMany): return putOff(replica)
            case .failure: return end(replica)
            }
            replica.current = nil
            if step.isStreamed { replica.machine.onAppended(now: now) }
            self.mark(replica)
        }
    }

    /// Deletes a snapshot that was taken in vain.
    func dropSnapshot(_ step: ReplicaHost.Step, _ replica: ReplicaHost) {
        guard let mark = step.mark else { preconditionFailure("a snapshot without a mark") }
        guard let layer = replica.layers[mark.id] else {
            replica.current = nil
            return
        }
        perform(.deleteSnapshot(layer: layer), replica) { [self] result in
            switch result {
            case .success, .failure(.snapshotNotFound): break
            case .failure(.noSpace), .failure(.inUse): return putOff(replica)
            case .failure: return end(replica)
            }
            replica.layers[mark.id] = nil
            replica.current = nil
            self.mark(replica)
        }
    }

    private func perform(
        _ command: StoreCommand,
        _ replica: ReplicaHost,
        _ onEnd: @escaping (CommandResult) -> Void
    ) {
        replica.requestCount += 1
        replica.host.submit(command) { [self] result in
            replica.requestCount -= 1
            guard !replica.isEnded else {
                replica.current = nil
                return finishEnd(replica)
            }
            onEnd(result)
        }
        pump(replica.host)
    }

    private func putOff(_ replica: ReplicaHost) {
        replica.retryAt = now.advanced(byNanoseconds: ReplicaHost.retryNanoseconds)
    }

    // MARK: - Looks

    /// Whether what is to be looked at is there.
    func hasView(_ look: ReplicaHost.Look, _ replica: ReplicaHost) -> Bool {
        guard case .snapshot(let id) = look.view else { return true }
        return replica.layers[id].flatMap { replica.host.store.byteCount(ofSnapshot: $0) } != nil
    }

    /// Opens what is to be looked at, unless it is the volume; false while too much is open.
    func openView(_ look: inout ReplicaHost.Look, _ replica: ReplicaHost) -> Bool {
        guard case .snapshot(let id) = look.view else { return true }
        guard let layer = replica.layers[id],
            let handle = replica.host.store.openVolume(replica.volume, layer: layer)
        else { return false }
        look.handle = handle
        return true
    }

    /// Has what was opened for a look closed, when the store may be called.
    func close(_ look: ReplicaHost.Look, _ replica: ReplicaHost) {
        if let handle = look.handle { replica.handlesToClose.append(handle) }
    }

    func closeViews(of replica: ReplicaHost) {
        while let handle = replica.handlesToClose.popLast() {
            replica.host.store.closeVolume(handle)
        }
    }

    /// The bytes of what is looked at.
    ///
    /// A snapshot may be smaller than its volume is by now.
    func viewByteCount(_ view: ReplicaView, _ replica: ReplicaHost) -> UInt64 {
        let store = replica.host.store
        let own = store.byteCount(of: replica.volume) ?? 0
        guard case .snapshot(let id) = view, let layer = replica.layers[id] else { return own }
        return store.byteCount(ofSnapshot: layer) ?? own
    }
}
