// iSCSI connections: how they begin, what they log in to, how they end.

internal import BlockCore
internal import ISCSISession
internal import ISCSIWire
internal import LogStore
internal import Reactor
internal import SCSI

extension Worker {
    /// Seconds without a word from an initiator until it is asked whether it is there.
    private static let silenceSeconds: UInt64 = 15
    /// Seconds without an answer until its connection is dropped.
    private static let answerSeconds: UInt64 = 45

    // MARK: - Beginning

    /// Takes a new connection; `bytes` is what another reactor has received of it.
    func adoptISCSI(_ socket: Socket, bytes: [UInt8] = []) {
        guard !isStopping, let connection = freeISCSIPlace() else {
            counters.refusedCount &+= 1
            shared.connectionCount.remove()
            return socket.closeUnused()
        }
        counters.acceptedCount &+= 1
        counters.connectionCountNow &+= 1
        socket.disableDelay()
        connection.begin(
            socket: socket,
            deadline: now.advanced(byNanoseconds: UInt64(limits.handshakeSeconds) * 1_000_000_000),
            now: now
        )
        connection.memory.receive.copy(from: bytes)
        connection.receiveEnd = bytes.count
        connection.loginBytes = bytes
        if sweepAt < now { scheduleSweep() }
        markReady(connection)
    }

    private func freeISCSIPlace() -> ISCSIConnection? {
        guard let iscsi else { return nil }
        if let index = iscsi.freeConnections.popLast() { return iscsi.connections[Int(index)] }
        let lotCount = min(
            ISCSIFront.lotCount,
            limits.iscsiConnectionCountMax - iscsi.connections.count
        )
        guard lotCount > 0,
            let arena = MemoryArena(sparseByteCountIfGranted: ISCSIMemory.byteCount * lotCount)
        else { return nil }
        iscsi.arenas.append(arena)
        for _ in 0..<lotCount {
            let memory = arena.allocate(byteCount: ISCSIMemory.byteCount)
            let index = Int32(iscsi.connections.count)
            iscsi.connections.append(ISCSIConnection(index: index, memory: memory, worker: self))
            iscsi.freeConnections.append(index)
        }
        iscsi.freeConnections.reverse()
        return iscsi.freeConnections.popLast().map { iscsi.connections[Int($0)] }
    }

    // MARK: - Login

    /// Judges who wants what.
    ///
    /// What an initiator may not see it cannot tell from what is not there.
    func admit(_ login: ISCSILogin, _ connection: ISCSIConnection) -> ISCSIAdmission {
        let access = shared.configuration.iscsiAccess
        guard !isStopping else { return .refused(.serviceUnavailable) }
        guard !login.isDiscovery else {
            guard let rule = access.rule(for: login.initiatorName) else { return .refused(.notFound) }
            return .welcome(rule.credentials)
        }
        guard let name = ISCSITargetName.export(of: login.targetName),
            let entry = directory.catalog.entry(named: name), !name.isEmpty, entry.isTarget,
            let grant = access.grant(to: login.initiatorName, volume: entry.volumeName)
        else { return .refused(.notFound) }
        let place = Int(storeWorkers[Int(entry.key.storeIndex)])
        guard place == Int(index) else {
            connection.destination = place
            return .elsewhere
        }
        return .welcome(grant.credentials)
    }

    /// Makes the session of a login that has proved itself.
    func establish(_ login: ISCSILogin, _ connection: ISCSIConnection) -> ISCSIEstablishment {
        guard let iscsi else { return .refused(.targetError) }
        let handle = iscsi.takeHandle()
        guard !login.isDiscovery else { return .established(tsih: handle) }
        // It may have been taken away since it was admitted.
        guard let name = ISCSITargetName.export(of: login.targetName),
            let entry = directory.catalog.entry(named: name),
            let unit = iscsiUnit(entry)
        else { return .refused(.notFound) }
        endEarlierSession(login, unit)
        // What it had in work may still change the volume: nothing new goes before it is over.
        guard !hasWork(of: login, unit) else { return .refused(.serviceUnavailable) }
        guard let nexus = unit.freeNexus else { return .refused(.outOfResources) }
        guard open(unit) else { return .refused(.serviceUnavailable) }
        let port = InitiatorPort(name: login.initiatorName, isid: login.isid)
        unit.connections[Int(nexus.rawValue)] = connection
        unit.logical.attach(nexus, NexusIdentity(initiator: port, targetPort: 1))
        connection.unit = unit
        connection.nexus = nexus
        connection.isNexusAttached = true
        return .established(tsih: handle)
    }

    /// Ends the session that the same initiator port had.
    ///
    /// Spec: RFC 7143, 6.3.5, session reinstatement.
    private func endEarlierSession(_ login: ISCSILogin, _ unit: ISCSIUnit) {
        for case let other? in unit.connections
        where other.session.identity.isid == login.isid
            && other.session.identity.initiatorName == login.initiatorName
        {
            drop(other)
        }
    }

    /// Whether an operation of an earlier session of the same initiator port is under way.
    private func hasWork(of login: ISCSILogin, _ unit: ISCSIUnit) -> Bool {
        iscsi?.connections.contains { other in
            other.unit === unit && other.slotCount > 0
                && other.session.identity.isid == login.isid
                && other.session.identity.initiatorName == login.initiatorName
                && (0..<other.slots.count).contains { other.slots[$0].state == .working }
        } ?? false
    }

    /// The unit of an export; nil when it is not there any more.
    private func iscsiUnit(_ entry: ExportEntry) -> ISCSIUnit? {
        if let unit = iscsi?.units[entry.key] { return unit }
        guard let durability = durability(of: entry.key) else { return nil }
        let unit = ISCSIUnit(
            key: entry.key,
            description: description(of: entry, durability),
            host: hostsByStore[Int(entry.key.storeIndex)]
        )
        iscsi?.units[entry.key] = unit
        return unit
    }

    private func description(
        of entry: ExportEntry,
        _ durability: Durability
    ) -> LogicalUnitDescription {
        LogicalUnitDescription(
            entry,
            store: hostsByStore[Int(entry.key.storeIndex)]?.store.identity,
            durability: durability,
            isRemovable: shared.configuration.hasRemovableUnits
        )
    }

    private func durability(of key: ExportKey) -> Durability? {
        guard let host = hostsByStore[Int(key.storeIndex)] else {
            return primary(of: key)?.assignment.durability
        }
        return host.store.specification(of: key.volume)?.durability
    }

    /// Opens a unit's volume for one more connection.
    private func open(_ unit: ISCSIUnit) -> Bool {
        let handle: VolumeHandle?
        if let host = unit.host {
            handle = host.store.state == .ready ? host.open(unit.key) : nil
        } else {
            handle = openService(unit.key)
        }
        guard let handle else { return false }
        unit.handle = handle
        unit.openCount += 1
        return true
    }

    /// The targets that an initiator may see.
    func targets(for login: ISCSILogin, named name: String?) -> [ISCSITargetEntry] {
        let access = shared.configuration.iscsiAccess
        let portals = iscsi?.portals ?? []
        return directory.catalog.entries.compactMap { entry in
            let target = ISCSITargetName.name(of: entry.name)
            guard entry.isTarget, name == nil || name == target,
                access.grant(to: login.initiatorName, volume: entry.volumeName) != nil
            else { return nil }
            return ISCSITargetEntry(name: target, addresses: portals)
        }
    }

    /// Gives a connection to the reactor that has its target.
    func handOver(_ connection: ISCSIConnection) {
        guard let place = connection.destination,
            let copy = connection.socket.duplicated()
        else { return drop(connection) }
        let bytes = connection.loginBytes
        guard shared.connectionCount.add(limit: limits.placeCountMax) else {
            copy.closeUnused()
            return drop(connection)
        }
        peerControls[place].run { $0.adoptISCSI(copy, bytes: bytes) }
        drop(connection)
    }

    // MARK: - Changes

    /// Takes a new catalogue: sees off those whose volume is gone, tells the others what changed.
    func onISCSICatalog(_ catalog: ExportCatalog) {
        guard let iscsi else { return }
        for (key, unit) in iscsi.units {
            guard let entry = catalog.entry(key) else {
                for case let connection? in unit.connections { drop(connection) }
                iscsi.units[key] = nil
                continue
            }
            guard let durability = durability(of: key) else { continue }
            let description = description(of: entry, durability)
            if description != unit.logical.description { unit.logical.update(description) }
        }
    }

    /// Drops the connections to a replicated volume that is served here no more.
    func dropISCSI(service handle: UInt32) {
        guard let iscsi else { return }
        for unit in iscsi.units.values where unit.host == nil && unit.openCount > 0 {
            guard unit.handle.rawValue == handle else { continue }
            for case let connection? in unit.connections { drop(connection) }
        }
    }

    // MARK: - Ending

    /// Closes when everything said was sent.
    func drain(_ connection: ISCSIConnection) {
        guard connection.takesInput else { return }
        connection.state = .draining
        closeIfDrained(connection)
    }

    func closeIfDrained(_ connection: ISCSIConnection) {
        guard connection.state == .draining else { return }
        guard connection.filling.isEmpty, !connection.isSending else {
            return markFlush(connection)
        }
        drop(connection)
    }

    /// Closes the socket now; what is in work ends unanswered.
    func drop(_ connection: ISCSIConnection) {
        guard connection.takesOutput else { return }
        connection.state = .closing
        connection.deadline = nil
        detachNexus(connection)
        reactor.close(connection.socket, token: token(TokenKind.iscsiClose, connection))
    }

    private func detachNexus(_ connection: ISCSIConnection) {
        guard connection.isNexusAttached, let unit = connection.unit else { return }
        connection.isNexusAttached = false
        unit.connections[Int(connection.nexus.rawValue)] = nil
        unit.logical.detach(connection.nexus)
    }

    func onISCSIClosed(_ connection: ISCSIConnection) {
        precondition(connection.state == .closing, "closed without being asked to")
        connection.state = .closed
        connection.isSending = false
        connection.isReceiving = false
        connection.heldByteCount -= connection.sending.reset(pool: pool)
        connection.heldByteCount -= connection.filling.reset(pool: pool)
        while connection.deferred.popFirst() != nil {}
        for task in 0..<connection.slots.count {
            switch connection.slots[task].state {
            case .free: break
            // Its operation's end frees it.
            case .working: connection.slots[task].isAborted = true
            case .receiving, .queued, .answering: freeSlot(Int32(task), connection)
            }
        }
        hasFreed = true
        freeIfUnused(connection)
    }

    /// Frees the place of a closed connection when no request of it is in work.
    func freeIfUnused(_ connection: ISCSIConnection) {
        guard connection.state == .closed, connection.slotCount == 0, !connection.isReady,
            !connection.wantsFlush
        else { return }
        precondition(connection.heldByteCount == 0, "a connection that ended with buffers")
        if let unit = connection.unit {
            connection.unit = nil
            unit.openCount -= 1
            if let host = unit.host { host.close(unit.key) } else { closeService(unit.handle) }
        }
        connection.session.end()
        connection.loginBytes = []
        connection.state = .free
        connection.generation &+= 1
        iscsi?.freeConnections.append(connection.index)
        counters.connectionCountNow &-= 1
        shared.connectionCount.remove()
        reportDrained()
    }

    // MARK: - Once a second

    func sweepISCSI() {
        guard let iscsi else { return }
        for index in iscsi.connections.indices where iscsi.connections[index].state != .free {
            sweep(iscsi.connections[index])
        }
    }

    private func sweep(_ connection: ISCSIConnection) {
        guard connection.takesOutput else { return }
        if let deadline = connection.deadline, deadline <= now {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        let second: UInt64 = 1_000_000_000
        if let since = connection.sendingSince,
            since.advanced(byNanoseconds: UInt64(limits.unreadSeconds) * second) <= now
        {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        guard connection.state == .open else { return }
        let payload = UInt64(limits.payloadSeconds) * second
        if (0..<connection.slots.count).contains(where: { task in
            connection.slots[task].state == .receiving
                && connection.slots[task].movedAt.advanced(byNanoseconds: payload) <= now
        }) {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        if isStopping, connection.slotCount == 0 { return drop(connection) }
        let heardAt = connection.heardAt
        if heardAt.advanced(byNanoseconds: Self.answerSeconds * second) <= now, connection.isPinged
        {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        guard !connection.isPinged,
            heardAt.advanced(byNanoseconds: Self.silenceSeconds * second) <= now,
            ensureRoom(connection, byteCount: ISCSISession.smallResponseByteCountMax)
        else { return }
        connection.isPinged = true
        let byteCount = connection.session.writePing(into: connection.filling.room)
        didWrite(byteCount, connection)
    }

    /// While stopping: sees off the connections, after a while all of them.
    func stopISCSI(isLate: Bool) {
        guard let iscsi else { return }
        for connection in iscsi.connections where connection.takesOutput {
            let isQuiet =
                connection.slotCount == 0 && connection.filling.isEmpty && !connection.isSending
            if isLate || isQuiet || connection.state == .login { drop(connection) }
        }
    }

    // MARK: - Queues

    func markReady(_ connection: ISCSIConnection) {
        guard !connection.isReady else { return }
        connection.isReady = true
        iscsi?.ready.append(connection.index)
    }

    func markFlush(_ connection: ISCSIConnection) {
        guard !connection.wantsFlush else { return }
        connection.wantsFlush = true
        iscsi?.flushing.append(connection.index)
    }

    func token(_ kind: UInt8, _ connection: ISCSIConnection) -> UInt64 {
        Token(
            kind: kind,
            index: UInt32(connection.index),
            generation: connection.generation
        ).rawValue
    }

    /// The connection that a token is for, unless its place has a new one.
    func iscsiConnection(_ token: Token) -> ISCSIConnection? {
        guard let iscsi, Int(token.index) < iscsi.connections.count else { return nil }
        let connection = iscsi.connections[Int(token.index)]
        guard connection.generation & Token.generationMask == token.generation else { return nil }
        return connection.state == .free ? nil : connection
    }
}
