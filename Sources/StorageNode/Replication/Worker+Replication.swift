// The part of a reactor's turn that replication takes.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

extension Worker {
    /// Carries out what machines want until none wants anything; links send afterwards.
    func settleReplication() {
        guard replication.isUsed else { return }
        resumePeers()
        while true {
            if let replica = replication.failed.popLast() {
                shared.sink(.replicaFailed(volume: replica.volume, path: replica.host.path))
                end(replica)
            } else if let index = replication.markedReplicas.popLast() {
                let replica = replication.replicas[Int(index)]
                replica.isMarked = false
                if !replica.isEnded { carryOut(replica) }
            } else if let index = replication.markedPrimaries.popLast() {
                guard let primary = replication.primaries[Int(index)] else { continue }
                primary.isMarked = false
                carryOut(primary)
            } else {
                break
            }
        }
        if replication.resyncs.takeWish(now: now) {
            replication.scheduleTick(
                now.advanced(byNanoseconds: ReplicationState.resyncPauseNanoseconds)
            )
        }
    }

    /// Lets clocks have their say.
    func tickReplication() {
        guard let due = replication.tickAt, due <= now else { return }
        replication.tickAt = nil
        guard replication.isUsed else { return }
        var isConnecting = false
        var hedgeAt: Instant?
        for case let primary? in replication.primaries where !primary.isGone {
            if let due = primary.abandonAt, due <= now {
                abandon(primary)
                continue
            }
            if let due = primary.machine?.onTick(now: now) {
                hedgeAt = min(hedgeAt ?? due, due)
            }
            watchRoom(primary)
            if !primary.snapshotWaits.isEmpty { expireSnapshotWaits(primary) }
            for slot in primary.slots.indices
            where !primary.isDeposed && !primary.slots[slot].isVacant {
                connect(primary, slot)
                if primary.slots[slot].link == nil { isConnecting = true }
            }
            mark(primary)
        }
        for replica in replication.replicasByVolume.values {
            replica.noteRoom()
            replica.machine.onTick(now: now)
            retry(replica)
            tellRepairs(replica)
            mark(replica)
        }
        for case let link? in replication.links {
            checkGreeting(link)
            checkSilence(link)
        }
        replication.tickAt = now.advanced(
            byNanoseconds: isConnecting
                ? ReplicationState.shortTickNanoseconds : ReplicationState.tickNanoseconds
        )
        if let hedgeAt { replication.scheduleTick(max(hedgeAt, now)) }
    }

    private func checkSilence(_ link: PeerLink) {
        var limit = PeerLink.idleNanosecondsMax
        // While it is not followed a primary has nothing to say, and hears nothing.
        if case .primary(let primary, let slot) = link.role,
            link.state == .greeting || primary.machine?.isStreaming(slot: slot) == true
        {
            limit = PeerLink.silenceNanosecondsMax
        }
        guard link.heardAt.advanced(byNanoseconds: limit) <= now else { return }
        // One that does not accept at all is silent for other reasons.
        if let tls = link.tls, tls.hasReceived, !tls.isEstablished { tell(.isLate, of: link) }
        close(link)
    }

    // MARK: - Serving

    /// Serves a volume, or goes on serving it under what has changed.
    func serve(_ assignment: ServiceAssignment) -> Result<ServiceStatus, ServiceError> {
        guard !isStopping else { return .failure(.stopping) }
        let found = replication.primaries.lazy.compactMap { $0 }
            .first { $0.assignment.volume == assignment.volume && !$0.isEnded }
        guard let primary = found else {
            let primary = replication.add(assignment)
            takeOver(primary)
            publishServices()
            return .success(status(of: primary))
        }
        let before = primary.assignment
        guard assignment.leaseEpoch >= before.leaseEpoch else { return .failure(.outdated) }
        guard
            assignment.leaseEpoch > before.leaseEpoch
                || assignment.placements.count == before.placements.count
        else { return .failure(.invalid("as many replicas as it has under this epoch")) }
        if assignment.leaseEpoch > before.leaseEpoch {
            primary.machine?.close(now: now)
            carryOut(primary)
            primary.assignment = assignment
            layOutSlots(of: primary)
            takeOver(primary)
        } else {
            guard mayBecome(assignment, primary) else {
                return .failure(.invalid("the replicas that count under this epoch"))
            }
            primary.assignment = assignment
            changeSlots(of: primary)
        }
        publishServices()
        return .success(status(of: primary))
    }

    /// Gives a volume back in order: what was acknowledged is made durable, grants are released.
    func stopServing(
        _ volume: VolumeID,
        leaseEpoch: Epoch,
        _ done: @escaping () -> Void
    ) {
        let found = replication.primaries.lazy.compactMap { $0 }
            .first { $0.assignment.volume == volume && !$0.isEnded }
        guard let primary = found, primary.assignment.leaseEpoch <= leaseEpoch else {
            return done()
        }
        primary.isEnded = true
        primary.onEnded = done
        publishServices()
        let isFlushing =
            primary.machine?.isServing == true
            && primary.machine?.submitFlush(token: PrimaryHost.ownFlushToken, now: now) == true
        // Replicas that are gone must not hold it up.
        primary.abandonAt = now.advanced(
            byNanoseconds: isFlushing ? PrimaryHost.endNanosecondsMax : PrimaryHost.dropNanoseconds
        )
        mark(primary)
        replication.scheduleTick(now)
    }

    /// Ends a primary and the connections that it still has: requests in work end without an answer,
    /// because who serves the volume next may have carried them out.
    func abandon(_ primary: PrimaryHost) {
        guard !primary.isGone else { return }
        primary.isGone = true
        primary.isEnded = true
        primary.machine?.close(now: now)
        carryOut(primary)
        primary.machine = nil
        flushLinks()
        for slot in primary.slots.indices { cutLink(primary, slot) }
        dropConnections(of: primary)
        for index in primary.operations.indices { finish(index, .unavailable, primary) }
        while primary.waiting.popFirst() != nil {}
        endSnapshotWaits(primary)
        let onEnded = primary.onEnded
        primary.onEnded = nil
        onEnded?()
        removeIfUnused(primary)
    }

    private func dropConnections(of primary: PrimaryHost) {
        dropISCSI(service: UInt32(primary.index))
        for connection in connections
        where connection.isAttached && connection.storeWorker == index && isOfService(connection) {
            if connection.handle.rawValue == UInt32(primary.index) { drop(connection) }
        }
    }

    /// Whether the connection's export is a replicated volume.
    private func isOfService(_ connection: Connection) -> Bool {
        guard let key = connection.export else { return false }
        return Int(key.storeIndex) >= shared.configuration.stores.count
    }

    /// Ends the connection of a request that another reactor's primary left unanswered: it is
    /// there no more.
    func dropUnanswered(_ completion: StoreCompletion) {
        guard completion.status == .unavailable else { return }
        let slot = Int32(bitPattern: Token(rawValue: completion.token).index)
        let connection = connections[Int(slots[slot].connection)]
        if connection.takesOutput, isOfService(connection) { drop(connection) }
    }

    /// Frees the place of a primary that is over, when no connection refers to it.
    func removeIfUnused(_ primary: PrimaryHost) {
        if primary.isGone, primary.connectionCount == 0 { replication.remove(primary) }
    }

    /// Ends everything that is replicated: the node stops.
    func stopReplication() {
        for case let primary? in replication.primaries { abandon(primary) }
        for replica in replication.replicas { end(replica) }
        for case let link? in replication.links { close(link) }
    }

    // MARK: - What is told

    func status(of primary: PrimaryHost) -> ServiceStatus {
        ServiceStatus(
            assignment: primary.assignment,
            state: state(of: primary),
            stopReason: primary.stopReason?.text,
            needsEpoch: primary.stopReason != nil,
            connectionCount: primary.connectionCount,
            refusesWrites: primary.room.refusesWrites,
            peers: primary.machine?.peerSummaries ?? [],
            move: moveStatus(of: primary)
        )
    }

    /// What this reactor serves.
    func serviceStatuses() -> [ServiceStatus] {
        replication.primaries.compactMap { $0 }.filter { !$0.isEnded && !$0.isDeposed }
            .map { status(of: $0) }
    }

    /// Tells the node what this reactor's services export.
    func publishServices() {
        let served = replication.primaries.compactMap { $0 }.filter {
            !$0.isEnded && !$0.isDeposed && $0.assignment.access != .none
        }
        let index = Int32(shared.configuration.stores.count) + self.index
        let entries = served.flatMap { primary in
            ExportCatalog.entries(
                of: primary.assignment.specification,
                snapshots: [],
                storeIndex: index,
                naming: shared.configuration.exportNaming
            )
        }
        publisher?(index, entries, [])
    }

    // MARK: - Connections of clients

    /// The service of an export, unless it is another one by now.
    func primary(of key: ExportKey) -> PrimaryHost? {
        guard Int(key.storeIndex) == shared.configuration.stores.count + Int(index) else {
            return nil
        }
        return replication.primaries.lazy.compactMap { $0 }.first { primary in
            primary.assignment.volume == key.volume && primary.assignment.exportEpoch == key.epoch
                && !primary.isEnded && !primary.isDeposed
        }
    }

    /// Opens a service for one more connection; nil when it is gone.
    func openService(_ key: ExportKey) -> VolumeHandle? {
        guard let primary = primary(of: key), primary.assignment.access != .none else { return nil }
        primary.connectionCount += 1
        return VolumeHandle(UInt32(primary.index))
    }

    /// Takes a connection off a service; it has no request in flight.
    func closeService(_ handle: VolumeHandle) {
        guard let primary = replication.primaries[Int(handle.rawValue)] else { return }
        primary.connectionCount -= 1
        removeIfUnused(primary)
    }

    /// Gives a client's request to the service that its connection has open.
    func submitToService(_ request: StoreRequest) {
        guard let primary = replication.primaries[Int(request.volume.rawValue)] else {
            preconditionFailure("a request for a service that has gone before its connections")
        }
        submit(request, to: primary)
    }
}

extension ServiceAssignment {
    /// The volume as an export shows it.
    var specification: VolumeSpecification {
        VolumeSpecification(
            id: volume,
            name: name,
            byteCount: byteCount,
            logicalBlockByteCount: logicalBlockByteCount,
            durability: durability,
            access: access,
            epoch: exportEpoch
        )
    }
}
