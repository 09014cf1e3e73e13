// The input of a connection: bytes in, requests out.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire
internal import Reactor

extension Worker {
    /// Requests read from one connection before the others have their turn.
    private static let requestBudget = 64
    /// A payload's rest of at least so many bytes is received straight into its buffer.
    private static let directByteCountMin = 16 << 10

    /// Reads what has come in, as far as there is room for what it asks.
    func advance(_ connection: Connection) {
        guard connection.takesInput else { return freeIfUnused(connection) }
        connection.isBlocked = false
        connection.wantsInput = false
        var budget = Self.requestBudget
        while connection.takesInput {
            if connection.fillSlot != RequestSlot.none {
                guard fillPayload(connection) else { break }
            } else if connection.splitSlot != RequestSlot.none {
                guard issueParts(connection) else { break }
            } else if let request = connection.pending {
                guard begin(request, connection) else { break }
                connection.pending = nil
            } else {
                guard budget > 0 else { return markReady(connection) }
                budget -= 1
                guard step(connection) else { break }
            }
        }
        if connection.wantsInput, connection.takesInput { receive(connection) }
    }

    /// Lets the session take the next step; false when the connection has to wait for something.
    private func step(_ connection: Connection) -> Bool {
        guard !isHandshakingTLS(connection) else { return advanceTLS(connection) }
        guard canStep(connection) else {
            connection.isBlocked = true
            return false
        }
        let (consumedByteCount, event) = connection.session.next(input: connection.input)
        connection.consume(consumedByteCount)
        switch event {
        case .needMore:
            if fetch(connection) { return true }
            connection.wantsInput = true
            return false
        case .request(let request):
            counters.requestCount &+= 1
            connection.pending = request
            return true
        case .output(let bytes):
            write(bytes, connection)
            return true
        case .open:
            open(connection)
            return true
        case .startTLS:
            beginTLS(connection)
            return true
        case .wait:
            return false
        case .close(let reason):
            end(connection, reason)
            return false
        }
    }

    /// Whether there is room for whatever the session may do next.
    private func canStep(_ connection: Connection) -> Bool {
        // A reply that must be whole is on its way: nothing may come between its parts.
        guard connection.streamingSlot == RequestSlot.none else { return false }
        guard connection.deferredHead == RequestSlot.none else { return false }
        guard connection.slotCount < limits.requestsPerConnectionMax else { return false }
        return ensureRoom(connection, byteCount: connection.session.nextOutputByteCountMax)
    }

    /// Queues bytes of the session for the client.
    private func write(_ bytes: ByteRegion, _ connection: Connection) {
        connection.filling.room.copy(from: bytes)
        connection.filling.didWrite(byteCount: bytes.byteCount)
        markFlush(connection)
    }

    private func end(_ connection: Connection, _ reason: NBDCloseReason) {
        guard reason.isOrderly else {
            counters.violationCount &+= 1
            return drop(connection)
        }
        drain(connection)
    }

    // MARK: - Receiving

    /// Has more bytes received, into the buffer that waits for them where that is worth it.
    private func receive(_ connection: Connection) {
        guard !connection.isReceiving, !connection.isInputEnded else { return }
        guard connection.tls == nil else { return receiveCiphertext(connection) }
        let target = receiveTarget(connection)
        connection.isReceiving = true
        reactor.receive(
            connection.socket,
            into: target,
            token: token(TokenKind.receive, connection)
        )
    }

    /// Where the next bytes go.
    func receiveTarget(_ connection: Connection) -> ByteRegion {
        if connection.fillSlot != RequestSlot.none {
            let rest = fillRest(connection)
            if rest.byteCount >= Self.directByteCountMin {
                connection.isReceivingPayload = true
                return rest
            }
        }
        connection.isReceivingPayload = false
        // Bytes are asked for only when all that came before are used up.
        precondition(connection.receiveEnd == 0, "receiving behind bytes not yet read")
        growReceiveChunk(connection)
        return connection.receiveChunk
    }

    /// The part of the payload being received that has not come.
    private func fillRest(_ connection: Connection) -> ByteRegion {
        let slot = connection.fillSlot
        return slots[slot].buffer.slice(
            connection.filledByteCount,
            Int(slots[slot].byteCount) - connection.filledByteCount
        )
    }

    func onReceived(_ connection: Connection, _ result: Int32) {
        connection.isReceiving = false
        guard connection.takesInput else { return }
        guard result > 0 else {
            guard result == 0 else { return drop(connection) }
            connection.isInputEnded = true
            guard connection.tls == nil else { return markReady(connection) }
            return onInputEnded(connection)
        }
        counters.receiveCount &+= 1
        if connection.tls != nil {
            onCiphertext(connection, byteCount: Int(result))
        } else {
            didReceive(connection, byteCount: Int(result))
        }
        markReady(connection)
    }

    /// Counts plaintext that came to ``receiveTarget(_:)``.
    func didReceive(_ connection: Connection, byteCount: Int) {
        if connection.isReceivingPayload {
            connection.filledByteCount += byteCount
            connection.isReceivingPayload = false
        } else {
            connection.receiveEnd += byteCount
        }
    }

    /// The client will send no more: what it asked for is still answered.
    func onInputEnded(_ connection: Connection) {
        connection.isReceivingPayload = false
        drain(connection)
    }

    /// Moves from the small chunk that every connection has to a large one, while the pool has
    /// plenty: the second half of it is for requests.
    private func growReceiveChunk(_ connection: Connection) {
        guard connection.state == .open,
            connection.receiveChunk.byteCount < NodeLimits.receiveByteCount,
            pool.freeByteCount > pool.byteCount / 2,
            let chunk = pool.allocate(byteCount: NodeLimits.receiveByteCount)
        else { return }
        connection.receiveChunk = chunk
    }

    /// Gives the large chunk of a closed connection back.
    func shrinkReceiveChunk(_ connection: Connection) {
        guard connection.receiveChunk.byteCount > ConnectionMemory.receiveByteCount else { return }
        pool.release(connection.receiveChunk)
        connection.receiveChunk = connection.memory.receive
        hasFreed = true
    }

    // MARK: - Payloads

    /// Moves received bytes into the buffer of the payload; true when it is complete and sent on.
    private func fillPayload(_ connection: Connection) -> Bool {
        let input = connection.input
        let rest = fillRest(connection)
        let byteCount = min(input.byteCount, rest.byteCount)
        if byteCount > 0 {
            rest.copy(from: input.slice(0, byteCount))
            connection.consume(byteCount)
            connection.filledByteCount += byteCount
        }
        guard byteCount == rest.byteCount else {
            if fetch(connection) { return true }
            connection.wantsInput = true
            if connection.deadline == nil {
                let limit = UInt64(limits.payloadSeconds) * 1_000_000_000
                connection.deadline = now.advanced(byNanoseconds: limit)
            }
            return false
        }
        let slot = connection.fillSlot
        counters.writtenByteCount &+= UInt64(connection.filledByteCount)
        connection.fillSlot = RequestSlot.none
        connection.filledByteCount = 0
        connection.deadline = nil
        submit(slot, connection)
        return true
    }

    // MARK: - Opening

    /// Opens the export that the session has chosen, here or on the reactor of its store.
    private func open(_ connection: Connection) {
        guard !isStopping else {
            return connection.session.onOpenRefused(.shutdown, text: "the server is shutting down")
        }
        guard let name = connection.session.export?.name,
            let entry = directory.catalog.entry(named: name)
        else {
            return connection.session.onOpenRefused(.unknown, text: "no such export any more")
        }
        let storeIndex = Int(entry.key.storeIndex)
        connection.export = entry.key
        connection.isReadOnlyExport = entry.isReadOnly
        connection.storeWorker = storeWorkers[storeIndex]
        connection.host = hostsByStore[storeIndex]
        if connection.storeWorker == index, connection.host == nil {
            return onAttached(connection, openService(entry.key))
        }
        guard let host = connection.host else {
            connection.state = .opening
            connection.isAttaching = true
            var message = HopMessage(.attach, worker: index)
            message.connection = token(0, connection)
            message.key = entry.key
            return post(message, to: Int(connection.storeWorker))
        }
        let handle = host.store.state == .ready ? host.open(entry.key) : nil
        onAttached(connection, handle)
    }

    /// Takes the answer of the export's store.
    func onAttached(_ connection: Connection, _ handle: VolumeHandle?) {
        guard let handle else {
            connection.state = .handshake
            connection.session.onOpenRefused(.policy, text: "the volume cannot be opened now")
            return markReady(connection)
        }
        connection.isAttached = true
        connection.handle = handle
        // It may have been taken away while the answer was under way.
        guard let key = connection.export, isStillExported(key, connection) else {
            return drop(connection)
        }
        connection.state = .open
        endTLSHandshake(connection)
        connection.socket.enlargeLocalBuffer(byteCount: NodeLimits.localSocketByteCount)
        connection.deadline = nil
        connection.session.onOpened()
        markReady(connection)
    }

    /// Takes the connection off its export; none of its requests is in work.
    func detach(_ connection: Connection) {
        guard connection.isAttached, let key = connection.export else { return }
        connection.isAttached = false
        if let host = connection.host { return host.close(key) }
        if connection.storeWorker == index { return closeService(connection.handle) }
        var message = HopMessage(.detach, worker: index)
        message.key = key
        message.handle = connection.handle
        post(message, to: Int(connection.storeWorker))
    }

    /// Whether what the connection was promised still holds.
    func isStillExported(_ key: ExportKey, _ connection: Connection) -> Bool {
        guard let entry = directory.catalog.entry(key) else { return false }
        return connection.isReadOnlyExport || !entry.isReadOnly
    }
}
