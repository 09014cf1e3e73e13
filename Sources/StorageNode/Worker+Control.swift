// What the control plane asks of a worker. Rare, so it may allocate.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import Reactor

/// How a command ended.
typealias CommandResult = Result<StoreCommandResult, StoreCommandError>

extension Worker {
    // MARK: - Commands

    /// Carries out a command on a store of this worker.
    ///
    /// What takes a volume or snapshot away first sees its connections off; what changes data
    /// under them is refused while there are any.
    func perform(
        _ command: StoreCommand,
        on host: StoreHost,
        _ completion: @escaping (CommandResult) -> Void
    ) {
        switch command {
        case .createVolume, .createSnapshot, .cloneSnapshot, .setReplica:
            submit(command, on: host, completion)
        case .resizeVolume(let volume, let byteCount):
            guard let now = host.store.specification(of: volume)?.byteCount, byteCount < now else {
                return submit(command, on: host, completion)
            }
            performUnused(volume, command, on: host, completion)
        case .rollback(let volume, _):
            performUnused(volume, command, on: host, completion)
        case .deleteVolume(let volume):
            guard host.store.specification(of: volume) != nil else {
                return completion(.failure(.volumeNotFound))
            }
            guard let replica = replication.replicasByVolume[volume] else {
                return performWithdrawn(.volume(volume), command, on: host, completion)
            }
            end(replica) { [self] in
                performWithdrawn(.volume(volume), command, on: host, completion)
            }
        case .deleteSnapshot(let layer):
            guard let volume = host.volume(ofSnapshot: layer) else {
                return completion(.failure(.snapshotNotFound))
            }
            performWithdrawn(.export(volume, layer), command, on: host, completion)
        case .updateVolume(let specification):
            update(specification, on: host, completion)
        }
    }

    /// Changes a volume, after those who lose it by that are gone.
    ///
    /// That order is the fence: nobody can open it under a new epoch while a write of the
    /// earlier one's host is still in work.
    private func update(
        _ specification: VolumeSpecification,
        on host: StoreHost,
        _ completion: @escaping (CommandResult) -> Void
    ) {
        guard let before = host.store.specification(of: specification.id) else {
            return completion(.failure(.volumeNotFound))
        }
        guard specification.epoch >= before.epoch else {
            return completion(.failure(.outdated))
        }
        let command = StoreCommand.updateVolume(specification)
        // `none` also when it was so: whoever asks waits until nobody is left.
        if specification.access == .none || specification.access < before.access
            || specification.epoch > before.epoch
        {
            let exports = Withdrawal.export(specification.id, .none)
            performWithdrawn(exports, command, on: host, completion)
        } else {
            submit(command, on: host, completion)
        }
    }

    /// Carries out a command that changes a volume's data or gives some up, unless somebody has
    /// it open; nobody can open it before that has ended.
    private func performUnused(
        _ volume: VolumeID,
        _ command: StoreCommand,
        on host: StoreHost,
        _ completion: @escaping (CommandResult) -> Void
    ) {
        let exports = Withdrawal.export(volume, .none)
        guard host.connectionCount(of: exports) == 0 else { return completion(.failure(.inUse)) }
        performWithdrawn(exports, command, on: host, completion)
    }

    /// Carries out a command when nobody uses `exports` any more.
    private func performWithdrawn(
        _ exports: Withdrawal,
        _ command: StoreCommand,
        on host: StoreHost,
        _ completion: @escaping (CommandResult) -> Void
    ) {
        host.withdraw(exports)
        sendExports(host)
        host.whenUnused(exports) { [self] in
            submit(command, on: host, restoring: exports, completion)
        }
    }

    private func submit(
        _ command: StoreCommand,
        on host: StoreHost,
        restoring exports: Withdrawal? = nil,
        _ completion: @escaping (CommandResult) -> Void
    ) {
        host.submit(command) { [self] result in
            if let exports { host.restore(exports) }
            if case .success(let made) = result { host.refreshExports(of: made.volume) }
            sendExports(host)
            completion(result)
        }
        pump(host)
    }

    // MARK: - Exports

    /// Tells the node what a store exports, all of it worked out anew.
    func publishExports(_ host: StoreHost) {
        host.refreshExports()
        sendExports(host)
    }

    /// Tells the node what a store exports and has not withdrawn.
    private func sendExports(_ host: StoreHost) {
        let volumes = host.exportsByName
        let entries = volumes.flatMap(\.entries).filter { !host.isWithdrawn($0.key) }
        publisher?(host.index, entries, volumes.map(\.summary))
    }

    /// Takes a new catalogue, and sees off the connections whose export is gone.
    func onCatalog(_ catalog: ExportCatalog) {
        directory.catalog = catalog
        onISCSICatalog(catalog)
        for index in connections.indices {
            let connection = connections[index]
            guard connection.state == .open || connection.state == .draining,
                let key = connection.export
            else { continue }
            if !isStillExported(key, connection) { drop(connection) }
        }
    }

    // MARK: - Stopping

    /// Accepts no more and answers new requests with the protocol's word for a shutdown.
    func beginStopping(_ drained: @escaping () -> Void) {
        isStopping = true
        onDrained = drained
        stopDeadline = MonotonicClock.now().advanced(
            byNanoseconds: UInt64(limits.shutdownSeconds) * 1_000_000_000
        )
        for index in listeners.indices {
            listeners[index].listener.removePath()
            reactor.close(
                listeners[index].listener.socket,
                token: Token(kind: TokenKind.listenerClose, index: UInt32(index)).rawValue
            )
        }
        for index in connections.indices {
            let connection = connections[index]
            switch connection.state {
            case .handshake, .opening: drop(connection)
            case .open:
                connection.session.beginShutdown()
                markReady(connection)
            case .free, .draining, .closing, .closed: break
            }
        }
        sweepAt = now.advanced(byNanoseconds: 20_000_000)
        reportDrained()
    }

    /// While stopping: connections that have nothing in work are closed, after a while all are.
    func scheduleStopSweep() {
        sweepAt = now.advanced(byNanoseconds: 20_000_000)
        let isLate = stopDeadline.map { $0 <= now } ?? false
        for index in connections.indices {
            let connection = connections[index]
            guard connection.state != .free, connection.state != .closing,
                connection.state != .closed
            else { continue }
            let isQuiet =
                connection.slotCount == 0 && connection.filling.isEmpty && !connection.isSending
            if isLate || isQuiet { drop(connection) }
        }
        stopISCSI(isLate: isLate)
        reportDrained()
    }

    /// Tells that the last connection is gone.
    func reportDrained() {
        guard isStopping, let onDrained else { return }
        // A store that never answers must not keep the node from ending.
        let grace = UInt64(NodeLimits.storeGraceSeconds) * 1_000_000_000
        let isOverdue = stopDeadline.map { $0.advanced(byNanoseconds: grace) <= now }
        guard counters.connectionCountNow == 0 || isOverdue == true else { return }
        self.onDrained = nil
        onDrained()
    }
}
