// From requests to the store: slots, buffers, parts.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire
internal import Reactor

extension Worker {
    /// Memory for the extents of one BLOCK_STATUS context: 1023 extents and their cursor's end.
    private static let extentByteCount = 16 << 10

    // MARK: - Beginning

    /// Gives a request its slot and memory, and sends it on; false when there is none now.
    func begin(_ request: NBDRequest, _ connection: Connection) -> Bool {
        switch request.command {
        case .read, .write:
            return beginTransfer(request, connection)
        case .blockStatus:
            return beginStatus(request, connection)
        case .flush, .trim, .writeZeroes, .cache, .disconnect:
            guard let slot = takeSlot(.whole, request, connection) else { return false }
            slots[slot].offset = request.offset
            slots[slot].byteCount = request.byteCount
            submit(slot, connection)
            return true
        }
    }

    private func beginTransfer(_ request: NBDRequest, _ connection: Connection) -> Bool {
        if request.byteCount <= UInt64(NodeLimits.partByteCountMax),
            let buffer = takeBuffer(request, request.offset, request.byteCount, connection)
        {
            guard let slot = takeSlot(.whole, request, connection) else {
                return giveBack(buffer, connection)
            }
            place(slot, offset: request.offset, byteCount: request.byteCount, buffer)
            if request.command == .read {
                slots[slot].reply = NBDReadReply(request, mode: connection.session.mode)
                submit(slot, connection)
            } else {
                connection.fillSlot = slot
            }
            return true
        }
        guard request.byteCount > UInt64(NodeLimits.partByteCountMin) else {
            markWaiting(connection)
            return false
        }
        // Too large for one part, or for the memory there is: in parts.
        guard let slot = takeSlot(.split, request, connection) else { return false }
        slots[slot].offset = request.offset
        slots[slot].byteCount = request.byteCount
        if request.command == .read {
            slots[slot].reply = NBDReadReply(request, mode: connection.session.mode)
        }
        connection.splitSlot = slot
        return true
    }

    private func beginStatus(_ request: NBDRequest, _ connection: Connection) -> Bool {
        guard let buffer = takeMemory(Self.extentByteCount, connection) else {
            markWaiting(connection)
            return false
        }
        guard let slot = takeSlot(.whole, request, connection) else {
            return giveBack(buffer, connection)
        }
        place(slot, offset: request.offset, byteCount: request.byteCount, buffer)
        slots[slot].contextIndex = Int32(request.contextMask.trailingZeroBitCount)
        submit(slot, connection)
        return true
    }

    private func place(_ slot: Int32, offset: UInt64, byteCount: UInt64, _ buffer: ByteRegion) {
        slots[slot].offset = offset
        slots[slot].byteCount = byteCount
        slots[slot].buffer = buffer
    }

    // MARK: - Parts

    /// Hands out the next part of the split request; false when it has to wait.
    ///
    /// A READ's part goes to the store at once, a WRITE's when its payload has come.
    func issueParts(_ connection: Connection) -> Bool {
        let parent = connection.splitSlot
        let request = slots[parent].request
        let restByteCount = request.byteCount - slots[parent].issuedByteCount
        guard restByteCount > 0, !slots[parent].isAbandoned else {
            connection.splitSlot = RequestSlot.none
            endSplitIfDone(parent, connection)
            return true
        }
        guard slots[parent].partCount < NodeLimits.partsPerRequestMax else {
            connection.isBlocked = true
            return false
        }
        let offset = request.offset + slots[parent].issuedByteCount
        var byteCount = min(restByteCount, UInt64(NodeLimits.partByteCountMax))
        var buffer = takeBuffer(request, offset, byteCount, connection)
        while buffer == nil, byteCount > UInt64(NodeLimits.partByteCountMin) {
            byteCount = max(byteCount / 4 & ~4095, UInt64(NodeLimits.partByteCountMin))
            buffer = takeBuffer(request, offset, byteCount, connection)
        }
        guard let buffer else {
            markWaiting(connection)
            return false
        }
        guard let slot = takeSlot(.part, request, connection) else {
            return giveBack(buffer, connection)
        }
        counters.partCount &+= 1
        place(slot, offset: offset, byteCount: byteCount, buffer)
        slots[slot].parent = parent
        slots[parent].issuedByteCount += byteCount
        slots[parent].partCount += 1
        if request.command == .read {
            submit(slot, connection)
        } else {
            connection.fillSlot = slot
        }
        return true
    }

    // MARK: - To the store

    /// Sends a request, or a part of one, to its store: here, or on another reactor.
    func submit(_ slot: Int32, _ connection: Connection) {
        let token = Token(
            kind: TokenKind.localRequest,
            index: UInt32(slot),
            generation: slots[slot].generation
        ).rawValue
        let request = storeRequest(slot, connection, token: token)
        guard let host = connection.host else {
            if connection.storeWorker == index { return submitToService(request) }
            counters.hopCount &+= 1
            var message = HopMessage(.request, worker: index)
            message.request = request
            if let key = connection.export { message.key = key }
            return post(message, to: Int(connection.storeWorker))
        }
        submit(request, to: host)
    }

    private func storeRequest(
        _ slot: Int32,
        _ connection: Connection,
        token: UInt64
    ) -> StoreRequest {
        let request = slots[slot].request
        var flags: StoreRequestFlags = []
        if request.flags.contains(.forceUnitAccess) { flags.insert(.forceUnitAccess) }
        if request.flags.contains(.noHole) { flags.insert(.noHole) }
        if request.flags.contains(.oneExtent) { flags.insert(.oneExtent) }
        var result = StoreRequest(
            kind: request.command.storeKind,
            volume: connection.handle,
            offset: slots[slot].offset,
            byteCount: slots[slot].byteCount,
            region: slots[slot].buffer,
            flags: flags,
            token: token
        )
        if request.command == .blockStatus {
            let context = connection.session.context(at: Int(slots[slot].contextIndex))
            result.statusKind = context.kind.storeKind
            result.sinceLayer = LayerID(context.snapshotHandle)
        }
        return result
    }

    // MARK: - Slots and buffers

    /// Takes a slot for the connection; nil, and the connection waits, when there is none.
    private func takeSlot(
        _ role: RequestSlot.Role,
        _ request: NBDRequest,
        _ connection: Connection
    ) -> Int32? {
        // Its own are nobody else's; beyond them it takes of what all share.
        let sharedHeldCount = connection.slotCount - NodeLimits.ownSlotCount
        let sharedFreeCount = limits.slotCount - sharedSlotCount
        guard
            sharedHeldCount < 0
                || NodeLimits.mayTake(1, held: sharedHeldCount, free: sharedFreeCount),
            let slot = slots.take(role, connection: connection.index, request: request)
        else {
            markWaiting(connection)
            return nil
        }
        if sharedHeldCount >= 0 { sharedSlotCount += 1 }
        connection.slotCount += 1
        counters.requestCountNow &+= 1
        return slot
    }

    /// Takes memory for a part; nil when there is none for this connection now.
    ///
    /// The store wants whole blocks around the range and one more.
    private func takeBuffer(
        _ request: NBDRequest,
        _ offset: UInt64,
        _ byteCount: UInt64,
        _ connection: Connection
    ) -> ByteRegion? {
        let blockByteCount = BlockGeometry.blockByteCount
        let wholeByteCount = (Int(byteCount) + blockByteCount - 1) & ~(blockByteCount - 1)
        return takeMemory(wholeByteCount + blockByteCount, connection)
    }

    /// Takes memory of the pool, or the connection's own when its share of the pool is used up.
    private func takeMemory(_ byteCount: Int, _ connection: Connection) -> ByteRegion? {
        let held = connection.heldByteCount
        guard NodeLimits.mayTake(byteCount, held: held, free: pool.freeByteCount),
            let buffer = pool.allocate(byteCount: byteCount)
        else { return connection.takeOwnRequestBuffer(byteCount: byteCount) }
        connection.heldByteCount += buffer.byteCount
        return buffer
    }

    /// Gives back what ``takeMemory(_:_:)`` gave.
    func giveMemory(_ buffer: ByteRegion, _ connection: Connection) {
        guard !connection.giveOwnRequestBuffer(buffer) else { return }
        pool.release(buffer)
        connection.heldByteCount -= buffer.byteCount
    }

    /// Gives a buffer back for which there was no slot.
    private func giveBack(_ buffer: ByteRegion, _ connection: Connection) -> Bool {
        giveMemory(buffer, connection)
        return false
    }

    /// Counts pool bytes as given back.
    func release(_ byteCount: Int, of connection: Connection) {
        guard byteCount > 0 else { return }
        connection.heldByteCount -= byteCount
        hasFreed = true
    }

    /// Frees a slot and its buffer.
    func freeSlot(_ slot: Int32, _ connection: Connection) {
        let buffer = slots[slot].buffer
        if !buffer.isEmpty {
            slots[slot].buffer = .empty
            giveMemory(buffer, connection)
        }
        slots.release(slot)
        connection.slotCount -= 1
        if connection.slotCount >= NodeLimits.ownSlotCount { sharedSlotCount -= 1 }
        counters.requestCountNow &-= 1
        hasFreed = true
        switch connection.state {
        case .draining: if connection.slotCount == 0 { markFlush(connection) }
        case .closed: if connection.slotCount == 0 { markReady(connection) }
        default: if connection.isBlocked { markReady(connection) }
        }
    }
}

extension NBDCommand {
    /// What it is to a store.
    fileprivate var storeKind: StoreRequest.Kind {
        switch self {
        case .read: .read
        case .write: .write
        case .flush: .flush
        case .trim: .trim
        case .cache: .cache
        case .writeZeroes: .writeZeroes
        case .blockStatus: .blockStatus
        case .disconnect: preconditionFailure("a disconnect is no request")
        }
    }
}

extension NBDContextKind {
    /// What it is to a store.
    fileprivate var storeKind: BlockStatusKind {
        switch self {
        case .allocation: .allocation
        case .allocationDepth: .allocationDepth
        case .changedSince: .changedSince
        }
    }
}
