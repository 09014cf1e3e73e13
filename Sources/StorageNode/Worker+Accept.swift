// New connections, and the end of old ones.

internal import BlockCore
internal import NBDSession
internal import NBDWire
internal import Reactor

/// A listening socket of one worker.
struct ListenerState {
    var listener: Listener
    /// For other nodes' primaries, not for clients.
    var isForPeers = false
    /// For iSCSI initiators.
    var isForInitiators = false
    var isArmed = false
    var isClosed = false
}

extension Worker {
    // MARK: - Accepting

    /// Lets clients in.
    func beginAccepting() {
        isAccepting = true
        for index in listeners.indices { accept(index) }
    }

    /// Accepts on a listener until something is wrong with it.
    func accept(_ index: Int) {
        listeners[index].isArmed = true
        reactor.accept(
            listeners[index].listener.socket,
            token: Token(kind: TokenKind.accept, index: UInt32(index)).rawValue
        )
    }

    func onAccepted(_ index: Int, _ completion: Completion) {
        if completion.isFinal { listeners[index].isArmed = false }
        guard completion.result >= 0 else {
            // A cancelled accept is the node's own doing; the rest is tried again by the sweep.
            if !isStopping { shared.sink(.acceptFailed(errno: completion.errno)) }
            return
        }
        let socket = Socket(descriptor: completion.result)
        guard !isStopping else { return socket.closeUnused() }
        guard !listeners[index].isForPeers else { return adoptPeer(socket) }
        guard shared.connectionCount.add(limit: limits.connectionCountMax) || makeRoom() else {
            counters.refusedCount &+= 1
            return socket.closeUnused()
        }
        // Where an initiator belongs is known when it says what it wants.
        guard !listeners[index].isForInitiators else { return adoptISCSI(socket) }
        let worker = placeOfNext()
        guard worker != Int(self.index) else { return adopt(socket) }
        var message = HopMessage(.adopt, worker: self.index)
        message.descriptor = socket.descriptor
        post(message, to: worker)
    }

    /// The worker for the next connection: that of the only store, else each in turn.
    private func placeOfNext() -> Int {
        let spreads = shared.configuration.spreadsConnections
        let storeCount = shared.configuration.stores.count
        if !spreads, storeCount == 1 { return Int(storeWorkers[0]) }
        nextWorker += 1
        if spreads { return nextWorker % peers.count }
        return Int(storeWorkers[nextWorker % storeCount])
    }

    /// Lets the connection that has been in its handshake longest make room for a new one, which
    /// may mean well: somebody who only connects must not keep everybody else out.
    private func makeRoom() -> Bool {
        var oldest: Connection?
        for connection in connections where connection.state == .handshake {
            guard let deadline = connection.deadline else { continue }
            if deadline < oldest?.deadline ?? Instant(nanoseconds: .max) { oldest = connection }
        }
        guard let oldest else { return false }
        counters.refusedCount &+= 1
        drop(oldest)
        return shared.connectionCount.add(limit: limits.placeCountMax)
    }

    /// Takes a new connection.
    func adopt(_ socket: Socket) {
        guard !isStopping else {
            shared.connectionCount.remove()
            return socket.closeUnused()
        }
        guard let connection = freePlace() else {
            counters.refusedCount &+= 1
            shared.connectionCount.remove()
            return socket.closeUnused()
        }
        counters.acceptedCount &+= 1
        counters.connectionCountNow &+= 1
        socket.disableDelay()
        connection.begin(
            socket: socket,
            deadline: now.advanced(byNanoseconds: UInt64(limits.handshakeSeconds) * 1_000_000_000)
        )
        connection.session.reset(exports: directory, tlsMode: tlsMode)
        if !needsSweep { scheduleSweep() }
        // The server speaks first.
        markReady(connection)
    }

    private var tlsMode: NBDTLSMode {
        switch shared.configuration.tlsPolicy {
        case .off: .off
        case .allow: .allow
        case .require: .require
        }
    }

    /// A place for a connection; nil when the system grants no memory for more.
    private func freePlace() -> Connection? {
        if let index = freeConnections.popLast() { return connections[Int(index)] }
        // Memory comes in lots, so that a node with ten clients does not pay for thousands.
        let lotCount = 64
        // Sparse: most connections never touch most of theirs.
        let byteCount = ConnectionMemory.byteCount * lotCount
        guard let arena = MemoryArena(sparseByteCountIfGranted: byteCount) else { return nil }
        connectionArenas.append(arena)
        for _ in 0..<lotCount {
            let memory = arena.allocate(byteCount: ConnectionMemory.byteCount)
            let index = Int32(connections.count)
            connections.append(Connection(index: index, memory: memory))
            freeConnections.append(index)
        }
        freeConnections.reverse()
        return freeConnections.popLast().map { connections[Int($0)] }
    }

    // MARK: - Ending

    /// Takes no more input; closes when everything in work was answered and sent.
    func drain(_ connection: Connection) {
        guard connection.takesInput || connection.state == .opening else { return }
        guard connection.state == .open else { return finishHandshake(connection) }
        connection.state = .draining
        abandonInput(connection)
        closeIfDrained(connection)
    }

    /// Ends a connection that has no request: what was said is still sent.
    private func finishHandshake(_ connection: Connection) {
        if connection.state == .opening { return drop(connection) }
        connection.state = .draining
        closeIfDrained(connection)
    }

    /// Closes a draining connection that has nothing left to send.
    func closeIfDrained(_ connection: Connection) {
        guard connection.state == .draining, connection.slotCount == 0 else { return }
        guard connection.filling.isEmpty, !connection.isSending else {
            return markFlush(connection)
        }
        guard isTLSDrained(connection) else { return }
        drop(connection)
    }

    /// Closes the socket now; requests in work end unanswered.
    func drop(_ connection: Connection) {
        guard connection.state != .closing, connection.state != .closed else { return }
        precondition(connection.state != .free, "dropping what is not there")
        connection.state = .closing
        connection.deadline = nil
        // Replies first: what waits in their queue must not be freed under it.
        abandonReplies(connection)
        abandonInput(connection)
        reactor.close(connection.socket, token: token(TokenKind.close, connection))
    }

    /// Forgets the request that was still coming in, and with it the parts not yet handed out.
    private func abandonInput(_ connection: Connection) {
        connection.pending = nil
        let fill = connection.fillSlot
        connection.fillSlot = RequestSlot.none
        connection.filledByteCount = 0
        let split = connection.splitSlot
        connection.splitSlot = RequestSlot.none
        if fill != RequestSlot.none {
            let parent = slots[fill].parent
            // The kernel may still write into the buffer of a receive in flight.
            if connection.isReceivingPayload {
                connection.orphanedBuffer = slots[fill].buffer
                slots[fill].buffer = .empty
            }
            freeSlot(fill, connection)
            if parent != RequestSlot.none { slots[parent].partCount -= 1 }
        }
        guard split != RequestSlot.none else { return }
        // Bytes that never came are not answered for.
        slots[split].isAbandoned = true
        if slots[split].partCount == 0, !slots[split].isQueued { freeSlot(split, connection) }
    }

    /// Frees what waited to be sent.
    private func abandonReplies(_ connection: Connection) {
        while let slot = takeDeferred(connection) {
            slots[slot].isQueued = false
            endSlot(slot, connection)
        }
        let streaming = connection.streamingSlot
        connection.streamingSlot = RequestSlot.none
        guard streaming != RequestSlot.none else { return }
        slots[streaming].isQueued = false
        endSplit(streaming, connection)
    }

    func onClosed(_ connection: Connection) {
        precondition(connection.state == .closing, "closed without being asked to")
        connection.state = .closed
        connection.isSending = false
        connection.isReceiving = false
        release(connection.sending.reset(pool: pool), of: connection)
        release(connection.filling.reset(pool: pool), of: connection)
        releaseChunks(connection)
        if !connection.orphanedBuffer.isEmpty {
            giveMemory(connection.orphanedBuffer, connection)
            hasFreed = true
            connection.orphanedBuffer = .empty
        }
        shrinkReceiveChunk(connection)
        endTLS(connection)
        connection.session.end()
        freeIfUnused(connection)
    }

    /// Frees the place of a closed connection when no request of it is in work.
    func freeIfUnused(_ connection: Connection) {
        guard connection.state == .closed, connection.slotCount == 0, !connection.isReady,
            !connection.isWaiting, !connection.wantsFlush, !connection.isAttaching
        else { return }
        precondition(connection.heldByteCount == 0, "a connection that ended with buffers")
        detach(connection)
        connection.host = nil
        connection.state = .free
        connection.generation &+= 1
        freeConnections.append(connection.index)
        counters.connectionCountNow &-= 1
        shared.connectionCount.remove()
        reportDrained()
    }

    // MARK: - Once a second

    /// Whether anything has a time limit.
    var needsSweep: Bool {
        counters.connectionCountNow > 0 || isStopping
            || (isAccepting && listeners.contains { !$0.isArmed && !$0.isClosed })
            || counters.refusedCount != refusedReportedCount
            || hosts.contains { $0.needsWatch }
    }

    func scheduleSweep() { sweepAt = now.advanced(byNanoseconds: 1_000_000_000) }

    func sweep() {
        scheduleSweep()
        if isStopping { scheduleStopSweep() }
        if isAccepting, !isStopping {
            for index in listeners.indices where !listeners[index].isArmed { accept(index) }
        }
        if counters.refusedCount != refusedReportedCount {
            shared.sink(.connectionsRefused(count: counters.refusedCount - refusedReportedCount))
            refusedReportedCount = counters.refusedCount
        }
        for index in hosts.indices { watch(hosts[index]) }
        for index in connections.indices where connections[index].state != .free {
            sweep(connections[index])
        }
        sweepISCSI()
    }

    private func sweep(_ connection: Connection) {
        if let deadline = connection.deadline, deadline <= now, connection.state != .closing {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        // Replies that nobody reads are kept only while nobody needs their memory.
        if connection.isSending, !waiting.isEmpty, let since = connection.sendingSince,
            since.advanced(byNanoseconds: UInt64(limits.unreadSeconds) * 1_000_000_000) <= now
        {
            counters.timedOutCount &+= 1
            return drop(connection)
        }
        guard connection.takesOutput, !connection.isSending, connection.filling.isEmpty else {
            return
        }
        releaseChunks(connection)
    }

    /// Gives back the chunks of replies that were sent.
    private func releaseChunks(_ connection: Connection) {
        connection.sending.releaseChunk(pool: pool)
        connection.filling.releaseChunk(pool: pool)
        hasFreed = true
    }
}
