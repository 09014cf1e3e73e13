// Clients' requests of a replicated volume: cut into pieces that the machine takes, and put
// together again.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

/// How requests are cut.
enum Piece {
    /// Blocks of a read or a write in one piece: what one record of a replica's log and one frame of
    /// the wire take.
    static let dataBlockCount: UInt64 = 64
    /// Blocks of zeroes in one piece: a leaf of the map.
    static let zeroBlockCount: UInt64 = 256

    /// Where the piece that begins at `block` ends.
    static func end(_ block: UInt64, isZero: Bool, before limit: UInt64) -> UInt64 {
        let count = isZero ? zeroBlockCount : dataBlockCount
        return min((block / count + 1) * count, limit)
    }

    // Marks of a machine's request: which operation, and which piece of it.
    private static let edgeBit: UInt64 = 1 << 31

    static func token(_ operation: Int32, offset: UInt64) -> UInt64 {
        UInt64(UInt32(bitPattern: operation)) << 32 | offset
    }
    static func edgeToken(_ operation: Int32, isTail: Bool) -> UInt64 {
        token(operation, offset: edgeBit | (isTail ? 1 : 0))
    }
    static func operation(_ token: UInt64) -> Int32 { Int32(truncatingIfNeeded: token >> 32) }
    static func isEdge(_ token: UInt64) -> Bool { token & edgeBit != 0 }
    static func isTail(_ token: UInt64) -> Bool { token & 1 != 0 }
    static func offset(_ token: UInt64) -> UInt64 { token & (edgeBit - 1) }
}

extension Worker {
    // MARK: - Beginning

    /// Takes a client's request.
    func submit(_ request: StoreRequest, to primary: PrimaryHost) {
        if let status = refusal(request, primary) {
            return end(StoreCompletion(token: request.token, status: status))
        }
        switch request.kind {
        case .cache: return end(StoreCompletion(token: request.token, status: .ok))
        case .blockStatus: return reportStatus(request, primary)
        default: break
        }
        var operation = VolumeOperation()
        operation.request = request
        let shift = BlockGeometry.blockShift
        if request.kind == .trim {
            // A trim promises nothing about blocks that it covers in part.
            operation.first = (request.offset + 4095) >> shift
            operation.end = max((request.offset + request.byteCount) >> shift, operation.first)
        } else {
            operation.first = request.offset >> shift
            operation.end = (request.offset + request.byteCount + 4095) >> shift
        }
        operation.cursor = operation.first
        operation.state = .waiting
        let index = primary.operations.take(operation)
        if !primary.waiting.isEmpty || start(index, primary) != .taken { queue(index, primary) }
        mark(primary)
    }

    private func queue(_ index: Int32, _ primary: PrimaryHost) {
        guard !primary.operations[index].isQueued else { return }
        primary.operations[index].isQueued = true
        primary.waiting.append(index)
    }

    private func refusal(_ request: StoreRequest, _ primary: PrimaryHost) -> StoreStatus? {
        guard !primary.isEnded, !primary.isDeposed else { return .unavailable }
        if request.kind == .flush { return nil }
        let assignment = primary.assignment
        let (end, overflow) = request.offset.addingReportingOverflow(request.byteCount)
        let mask = UInt64(assignment.logicalBlockByteCount) - 1
        guard !overflow, end <= assignment.byteCount,
            (request.offset | request.byteCount) & mask == 0
        else { return .invalid }
        guard request.byteCount > 0 else { return .ok }
        switch request.kind {
        case .write, .writeZeroes, .trim: return assignment.access == .readWrite ? nil : .readOnly
        default: return nil
        }
    }

    /// Goes on with the requests that wait, in order; those that wait for others' blocks let the
    /// rest pass.
    func resumeWaiting(_ primary: PrimaryHost) {
        guard primary.isWaitingWorthwhile else { return }
        primary.isWaitingWorthwhile = false
        var count = primary.waiting.count
        while count > 0, let index = primary.waiting.popFirst() {
            count -= 1
            primary.operations[index].isQueued = false
            switch start(index, primary) {
            case .taken: break
            case .blocked: queue(index, primary)
            case .full:
                queue(index, primary)
                // The rest keeps its order behind it.
                for _ in 0..<count {
                    if let next = primary.waiting.popFirst() { primary.waiting.append(next) }
                }
                return
            }
        }
    }

    /// What became of an attempt to go on with a request.
    private enum Start {
        /// Everything of it is handed out.
        case taken
        /// Another request has some of its blocks.
        case blocked
        /// There is no room, or no primary.
        case full
    }

    /// Begins or goes on with a request.
    private func start(_ index: Int32, _ primary: PrimaryHost) -> Start {
        guard let machine = primary.machine, machine.state != .stopped else { return .full }
        let operation = primary.operations[index]
        // Pieces that the last primary left open come to their end first.
        guard !operation.isOpen else { return .blocked }
        if operation.isDamaged {
            guard operation.pendingCount == 0 else { return .blocked }
            finish(index, .mediaError, primary)
            return .taken
        }
        if operation.state == .waiting {
            if operation.isChange, primary.operations.isBlocked(operation, index: index) {
                return .blocked
            }
            if operation.isPartial { return readEdges(index, primary, machine) ? .taken : .full }
            primary.operations[index].state = .working
        }
        if operation.request.kind == .flush {
            guard operation.pendingCount == 0 else { return .taken }
            guard machine.submitFlush(token: Piece.token(index, offset: 0), now: now) else {
                return .full
            }
            primary.operations[index].pendingCount += 1
            return .taken
        }
        while primary.operations[index].cursor < primary.operations[index].end {
            guard issue(index, primary, machine) else { return .full }
        }
        finishIfDone(index, primary)
        return .taken
    }

    // MARK: - Pieces

    /// Hands out the next piece; false when there is no room for it now.
    private func issue(
        _ index: Int32,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) -> Bool {
        let operation = primary.operations[index]
        let block = operation.cursor
        let isZero = isZeroPiece(operation, block)
        var limit = operation.end
        if operation.request.kind == .writeZeroes {
            if !isZero {
                limit = block + 1
            } else if !operation.coversTail {
                limit = operation.end - 1
            }
        }
        let end = Piece.end(block, isZero: isZero, before: limit)
        let range = BlockRange(first: block, count: UInt32(end - block))
        let token = Piece.token(index, offset: block - operation.first)
        if operation.request.kind == .read {
            guard machine.submitRead(token: token, range: range, now: now) else { return false }
        } else {
            guard let payload = payload(operation, range, isZero: isZero) else { return false }
            let isForced = operation.request.flags.contains(.forceUnitAccess)
            guard
                machine.submitWrite(
                    token: token,
                    range: range,
                    payload: payload,
                    isForced: isForced,
                    now: now
                )
            else {
                replication.payloads.release(payload)
                return false
            }
        }
        primary.operations[index].cursor = end
        primary.operations[index].pendingCount += 1
        return true
    }

    private func isZeroPiece(_ operation: VolumeOperation, _ block: UInt64) -> Bool {
        switch operation.request.kind {
        case .trim: true
        case .writeZeroes:
            !(block == operation.first && !operation.coversHead)
                && !(block == operation.end - 1 && !operation.coversTail)
        default: false
        }
    }

    /// The bytes of a piece, over what its partial blocks held; nil when there is no room.
    private func payload(
        _ operation: VolumeOperation,
        _ range: BlockRange,
        isZero: Bool
    ) -> PayloadID? {
        let request = operation.request
        if isZero {
            let keepsBlocks = request.kind == .writeZeroes && request.flags.contains(.noHole)
            return keepsBlocks ? .allocatedZeroes : .zeroes
        }
        guard let payload = replication.payloads.allocate(byteCount: range.byteCount) else {
            replication.isStarved = true
            return nil
        }
        let region = replication.payloads.region(payload)
        if range.first == operation.first, !operation.coversHead {
            lay(operation.head, into: region.slice(0, 4096))
        }
        if range.first + UInt64(range.count) == operation.end, !operation.coversTail {
            // Of a single block there is one copy, the head's.
            let old = operation.end - operation.first == 1 ? operation.head : operation.tail
            lay(old, into: region.suffix(from: range.byteCount - 4096))
        }
        let start = range.first << BlockGeometry.blockShift
        let from = max(start, request.offset)
        let to = min(start + UInt64(range.byteCount), request.offset + request.byteCount)
        let target = region.slice(Int(from - start), Int(to - from))
        if request.kind == .writeZeroes {
            target.zero()
        } else {
            target.copy(from: request.region.slice(Int(from - request.offset), Int(to - from)))
        }
        return payload
    }

    private func lay(_ old: PayloadID, into block: ByteRegion) {
        let bytes = replication.payloads.region(old)
        if bytes.isEmpty { block.zero() } else { block.copy(from: bytes) }
    }

    // MARK: - Blocks that are covered in part

    /// Reads the first and the last block, as far as they are covered in part.
    private func readEdges(
        _ index: Int32,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) -> Bool {
        let operation = primary.operations[index]
        let isOneBlock = operation.end - operation.first == 1
        let needsHead = !operation.coversHead || isOneBlock
        let needsTail = !operation.coversTail && !isOneBlock
        guard machine.roomCount >= 2 else { return false }
        primary.operations[index].state = .readingEdges
        if needsHead { readEdge(index, operation.first, isTail: false, primary, machine) }
        if needsTail { readEdge(index, operation.end - 1, isTail: true, primary, machine) }
        return true
    }

    private func readEdge(
        _ index: Int32,
        _ block: UInt64,
        isTail: Bool,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) {
        let token = Piece.edgeToken(index, isTail: isTail)
        primary.operations[index].pendingCount += 1
        let isTaken = machine.submitRead(
            token: token,
            range: BlockRange(first: block, count: 1),
            now: now
        )
        precondition(isTaken, "there was room for two requests")
    }

    // MARK: - Ends

    /// Takes the end of a piece.
    func onMachineCompletion(_ token: UInt64, _ result: ClientResult, _ primary: PrimaryHost) {
        primary.isWaitingWorthwhile = true
        guard token != PrimaryHost.ownFlushToken else {
            primary.abandonAt = now.advanced(byNanoseconds: PrimaryHost.dropNanoseconds)
            return replication.scheduleTick(now)
        }
        let index = Piece.operation(token)
        primary.operations[index].pendingCount -= 1
        switch result {
        case .unknown: primary.operations[index].isOpen = true
        case .damaged: primary.operations[index].isDamaged = true
        case .written, .flushed: break
        case .read(let payload):
            if Piece.isEdge(token) {
                if Piece.isTail(token) {
                    primary.operations[index].tail = payload
                } else {
                    primary.operations[index].head = payload
                }
            } else {
                place(payload, Piece.offset(token), primary.operations[index])
                replication.payloads.release(payload)
            }
        }
        guard primary.operations[index].pendingCount == 0 else { return }
        if primary.operations[index].isDamaged, !primary.operations[index].isQueued {
            return finish(index, .mediaError, primary)
        }
        if primary.operations[index].isOpen { return beginAnew(index, primary) }
        if primary.operations[index].state == .readingEdges {
            primary.operations[index].state = .working
            if start(index, primary) != .taken { queue(index, primary) }
            return
        }
        finishIfDone(index, primary)
    }

    /// Puts what was read where the request wants it.
    private func place(_ payload: PayloadID, _ offset: UInt64, _ operation: VolumeOperation) {
        let first = operation.first + offset
        let end = Piece.end(first, isZero: false, before: operation.end)
        let target = operation.request.region.slice(Int(offset) * 4096, Int(end - first) * 4096)
        let bytes = replication.payloads.region(payload)
        if bytes.isEmpty { target.zero() } else { target.copy(from: bytes) }
    }

    private func releaseEdges(_ index: Int32, _ primary: PrimaryHost) {
        replication.payloads.release(primary.operations[index].head)
        replication.payloads.release(primary.operations[index].tail)
        primary.operations[index].head = .zeroes
        primary.operations[index].tail = .zeroes
    }

    /// Nobody knows what became of it: it is asked again of the next primary.
    private func beginAnew(_ index: Int32, _ primary: PrimaryHost) {
        releaseEdges(index, primary)
        primary.operations[index].isOpen = false
        primary.operations[index].cursor = primary.operations[index].first
        primary.operations[index].state = .waiting
        queue(index, primary)
    }

    private func finishIfDone(_ index: Int32, _ primary: PrimaryHost) {
        let operation = primary.operations[index]
        guard operation.state == .working, operation.pendingCount == 0,
            operation.cursor >= operation.end, !operation.isOpen
        else { return }
        finish(index, .ok, primary)
    }

    /// Ends a client's request.
    func finish(_ index: Int32, _ status: StoreStatus, _ primary: PrimaryHost) {
        releaseEdges(index, primary)
        let request = primary.operations[index].request
        primary.operations.release(index)
        primary.isWaitingWorthwhile = true
        var completion = StoreCompletion(token: request.token, status: status)
        if status == .ok, request.kind == .read {
            completion.byteCount = request.byteCount
            completion.region = request.region.slice(
                Int(request.offset & 4095),
                Int(request.byteCount)
            )
        }
        end(completion)
    }

    /// Gives a completion to whoever asked: a connection of this reactor or of another.
    private func end(_ completion: StoreCompletion) {
        if Token(rawValue: completion.token).kind == TokenKind.localRequest {
            finish(completion)
        } else {
            returnHop(completion)
        }
    }

    // MARK: - Status

    /// Says what is allocated: as the replica of this reactor has it, if it counts; otherwise all is.
    private func reportStatus(_ request: StoreRequest, _ primary: PrimaryHost) {
        if let replica = primary.completeLocalReplica {
            var inner = request
            inner.volume = replica.handle
            return submit(inner, to: replica.host)
        }
        request.region.store(request.byteCount, at: 0)
        let value: UInt64 =
            switch request.statusKind {
            case .allocation: 0
            case .allocationDepth, .changedSince: 1
            }
        request.region.store(value, at: 8)
        var completion = StoreCompletion(token: request.token, status: .ok)
        completion.region = request.region.slice(0, 16)
        completion.extentCount = 1
        completion.byteCount = request.byteCount
        end(completion)
    }
}

extension PrimaryHost {
    /// The replica of this reactor, if it counts and has everything committed.
    var completeLocalReplica: ReplicaHost? {
        guard let machine else { return nil }
        let summaries = machine.peerSummaries
        for (slot, summary) in zip(slots, summaries) where summary.isComplete {
            if let local = slot.local, summary.behindCount == 0 { return local }
        }
        return nil
    }
}
