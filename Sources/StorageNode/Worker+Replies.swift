// From what came of requests to replies.
//
// A reply is written at once when there is room, else it waits in the connection's queue, in
// order. Data of a store is copied before the store is called again: either into the reply or,
// when the reply has to wait, into the request's own buffer.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire
internal import Reactor

extension Worker {
    /// The longest text with an error, in bytes.
    private static let errorTextByteCountMax = 64

    // MARK: - Completions

    /// Takes the end of a request of this worker.
    func finish(_ completion: StoreCompletion) {
        let token = Token(rawValue: completion.token)
        let slot = Int32(bitPattern: token.index)
        precondition(slots[slot].role != .free, "a request that ended twice")
        precondition(
            slots[slot].generation & Token.generationMask == token.generation,
            "a request that ended late"
        )
        slots[slot].status = completion.status
        slots[slot].data = completion.region
        slots[slot].holeMask = completion.holeMask
        slots[slot].holePartByteCount = completion.holePartByteCount
        slots[slot].extentCount = completion.extentCount
        let connection = connections[Int(slots[slot].connection)]
        guard connection.takesOutput else { return endSlot(slot, connection) }
        switch slots[slot].role {
        case .whole: answer(slot, connection)
        case .part: finishPart(slot, connection)
        case .split, .free: preconditionFailure("a request that no store was given")
        }
    }

    private func finishPart(_ slot: Int32, _ connection: Connection) {
        let parent = slots[slot].parent
        if slots[parent].request.command == .write {
            if slots[slot].status != .ok { slots[parent].status = slots[slot].status }
            freeSlot(slot, connection)
            slots[parent].partCount -= 1
            return endSplitIfDone(parent, connection)
        }
        guard let reply = slots[parent].reply, reply.mustBeWhole else {
            return answer(slot, connection)
        }
        finishStreamPart(slot, parent, connection)
    }

    /// Ends a split request whose parts have all been handed out and have all ended.
    func endSplitIfDone(_ parent: Int32, _ connection: Connection) {
        guard slots[parent].partCount == 0, connection.splitSlot != parent else { return }
        guard !slots[parent].isQueued else { return }
        let isAllIssued = slots[parent].issuedByteCount == slots[parent].request.byteCount
        let hasReply = slots[parent].request.command == .write && isAllIssued
        guard hasReply, connection.takesOutput else { return freeSlot(parent, connection) }
        answer(parent, connection)
    }

    /// Writes the slot's reply, now or when its turn comes.
    func answer(_ slot: Int32, _ connection: Connection) {
        let isNext =
            connection.deferredHead == RequestSlot.none
            && connection.streamingSlot == RequestSlot.none
        if isNext, emit(slot, connection) { return }
        settle(slot)
        deferReply(slot, connection)
    }

    /// Brings data that lies in a store's memory into the request's own.
    func settle(_ slot: Int32) {
        let data = slots[slot].data
        guard !data.isEmpty, !slots[slot].buffer.holds(data) else { return }
        slots[slot].buffer.copy(from: data)
        slots[slot].data = slots[slot].buffer.slice(0, data.byteCount)
    }

    // MARK: - The queue of replies

    private func deferReply(_ slot: Int32, _ connection: Connection) {
        slots[slot].next = RequestSlot.none
        if connection.deferredTail == RequestSlot.none {
            connection.deferredHead = slot
        } else {
            slots[connection.deferredTail].next = slot
        }
        connection.deferredTail = slot
    }

    func takeDeferred(_ connection: Connection) -> Int32? {
        let slot = connection.deferredHead
        guard slot != RequestSlot.none else { return nil }
        connection.deferredHead = slots[slot].next
        if connection.deferredHead == RequestSlot.none {
            connection.deferredTail = RequestSlot.none
        }
        slots[slot].next = RequestSlot.none
        return slot
    }

    /// Writes what waited for room, in order.
    func resumeReplies(_ connection: Connection) {
        if connection.streamingSlot != RequestSlot.none { stream(connection) }
        while connection.streamingSlot == RequestSlot.none, connection.takesOutput {
            let slot = connection.deferredHead
            guard slot != RequestSlot.none else { break }
            // Taken off first: what it does next may look at the queue.
            guard let taken = takeDeferred(connection) else { break }
            guard emit(taken, connection) else {
                putBack(taken, connection)
                break
            }
        }
        if connection.isBlocked { markReady(connection) }
    }

    private func putBack(_ slot: Int32, _ connection: Connection) {
        slots[slot].next = connection.deferredHead
        connection.deferredHead = slot
        if connection.deferredTail == RequestSlot.none { connection.deferredTail = slot }
    }

    /// Ends a slot whose reply nobody wants.
    func endSlot(_ slot: Int32, _ connection: Connection) {
        switch slots[slot].role {
        case .whole:
            freeSlot(slot, connection)
        case .part:
            let parent = slots[slot].parent
            freeSlot(slot, connection)
            slots[parent].partCount -= 1
            endSplit(parent, connection)
        case .split:
            endSplit(slot, connection)
        case .free:
            break
        }
    }

    /// Gives up a split request: frees what waits, and it itself when no part is in work.
    func endSplit(_ parent: Int32, _ connection: Connection) {
        slots[parent].isAbandoned = true
        while slots[parent].readyHead != RequestSlot.none {
            let part = slots[parent].readyHead
            slots[parent].readyHead = slots[part].next
            freeSlot(part, connection)
            slots[parent].partCount -= 1
        }
        guard slots[parent].partCount == 0, connection.splitSlot != parent else { return }
        freeSlot(parent, connection)
    }

    // MARK: - Writing

    /// Writes a reply and ends its slot; false, and nothing is changed, when there is no room.
    private func emit(_ slot: Int32, _ connection: Connection) -> Bool {
        switch (slots[slot].role, slots[slot].request.command) {
        case (.whole, .read):
            guard emitRead(slot, reply: slot, connection) else { return false }
            freeSlot(slot, connection)
        case (.part, .read):
            let parent = slots[slot].parent
            guard emitRead(slot, reply: parent, connection) else { return false }
            freeSlot(slot, connection)
            slots[parent].partCount -= 1
            endSplitIfDone(parent, connection)
        case (.split, .read):
            return beginStream(slot, connection)
        case (.whole, .blockStatus):
            return emitStatus(slot, connection)
        default:
            guard emitOutcome(slot, connection) else { return false }
            freeSlot(slot, connection)
        }
        return true
    }

    private func emitOutcome(_ slot: Int32, _ connection: Connection) -> Bool {
        let request = slots[slot].request
        let status = slots[slot].status
        guard status == .ok else { return emitFailure(request, status, connection) }
        guard ensureRoom(connection, byteCount: NBDReply.failureByteCountMax) else { return false }
        let byteCount = NBDReply.success(
            request,
            mode: connection.session.mode,
            into: connection.filling.room
        )
        didWrite(byteCount, connection)
        return true
    }

    func emitFailure(
        _ request: NBDRequest,
        _ status: StoreStatus,
        _ connection: Connection
    ) -> Bool {
        let roomByteCount = NBDReply.failureByteCountMax + Self.errorTextByteCountMax
        guard ensureRoom(connection, byteCount: roomByteCount) else { return false }
        counters.errorCount &+= 1
        let failure = ReplyFailure(status, isStopping: isStopping)
        let byteCount = NBDReply.failure(
            request,
            failure.error,
            text: failure.text,
            mode: connection.session.mode,
            into: connection.filling.room
        )
        didWrite(byteCount, connection)
        return true
    }

    private func didWrite(_ byteCount: Int, _ connection: Connection) {
        connection.filling.didWrite(byteCount: byteCount)
        markFlush(connection)
    }

    /// Writes one context's extents, and asks for the next context's.
    private func emitStatus(_ slot: Int32, _ connection: Connection) -> Bool {
        let request = slots[slot].request
        let extentCount = Int(slots[slot].extentCount)
        guard slots[slot].status == .ok, extentCount > 0 else {
            let status = slots[slot].status == .ok ? .mediaError : slots[slot].status
            guard emitFailure(request, status, connection) else { return false }
            freeSlot(slot, connection)
            return true
        }
        let mode = connection.session.mode
        let roomByteCount = NBDReply.blockStatusByteCount(descriptorCount: extentCount, mode: mode)
        guard ensureRoom(connection, byteCount: roomByteCount) else { return false }
        let index = slots[slot].contextIndex
        let restMask = request.contextMask & ~(UInt32.max >> (31 - UInt32(index)))
        let byteCount = NBDReply.blockStatus(
            request,
            contextID: connection.session.context(at: Int(index)).id,
            extents: slots[slot].buffer,
            extentCount: extentCount,
            isLast: restMask == 0,
            mode: mode,
            into: connection.filling.room
        )
        didWrite(byteCount, connection)
        guard restMask != 0 else {
            freeSlot(slot, connection)
            return true
        }
        slots[slot].contextIndex = Int32(restMask.trailingZeroBitCount)
        again.append(slot)
        return true
    }

    /// Submits what could not be submitted while completions were handled.
    func submitAgain() {
        while let slot = again.popFirst() {
            let connection = connections[Int(slots[slot].connection)]
            guard connection.takesOutput else {
                endSlot(slot, connection)
                continue
            }
            submit(slot, connection)
        }
    }
}

/// What a client is told when a store says no: the one table of store statuses.
struct ReplyFailure {
    var error: NBDError
    /// At most 64 bytes.
    var text: String

    init(_ status: StoreStatus, isStopping: Bool) {
        switch status {
        case .ok: (error, text) = (.inputOutput, "no failure")
        case .invalid: (error, text) = (.invalid, "the range is not inside the volume")
        case .noSpace: (error, text) = (.noSpace, "the store is full")
        case .readOnly: (error, text) = (.notPermitted, "the export is read-only")
        case .mediaError: (error, text) = (.inputOutput, "the device failed or data is damaged")
        case .unavailable:
            if isStopping {
                (error, text) = (.shutdown, "the server is shutting down")
            } else {
                (error, text) = (.inputOutput, "the store has stopped")
            }
        }
    }
}

extension ByteRegion {
    /// Whether all of `other` lies in this region.
    func holds(_ other: ByteRegion) -> Bool {
        guard !isEmpty, !other.isEmpty else { return false }
        // SAFETY: addresses are only compared.
        let distance = unsafe other.address - address
        return distance >= 0 && distance <= byteCount - other.byteCount
    }
}
