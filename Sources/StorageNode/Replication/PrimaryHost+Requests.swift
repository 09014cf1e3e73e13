// Clients' requests of a replicated volume: cut into pieces that the machine takes, and put
// together again.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

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
        guard !primary.isGone else { return .unavailable }
        if primary.isEnded || primary.isDeposed {
            // What lies here may be out of date; of all else, that waits until its connection ends.
            return request.kind == .blockStatus ? .unavailable : nil
        }
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
        if let failure = operation.failure {
            guard operation.pendingCount == 0 else { return .blocked }
            finish(index, failure, primary)
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

    // MARK: - Ends

    /// Takes the end of a piece.
    func onMachineCompletion(_ token: UInt64, _ result: ClientResult, _ primary: PrimaryHost) {
        primary.isWaitingWorthwhile = true
        guard token != PrimaryHost.ownFlushToken else {
            primary.abandonAt = now.advanced(byNanoseconds: PrimaryHost.dropNanoseconds)
            return replication.scheduleTick(now)
        }
        guard !PrimaryHost.isSnapshotToken(token) else {
            return onSnapshotEnd(token, result, primary)
        }
        let index = Piece.operation(token)
        primary.operations[index].pendingCount -= 1
        switch result {
        case .unknown: primary.operations[index].isOpen = true
        case .damaged: primary.operations[index].failure = .mediaError
        case .noRoom: primary.operations[index].failure = .noSpace
        case .written, .flushed: break
        case .read(let payload):
            take(payload, token, index, primary)
        }
        guard primary.operations[index].pendingCount == 0 else { return }
        if let failure = primary.operations[index].failure, !primary.operations[index].isQueued {
            return finish(index, failure, primary)
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
    ///
    /// As many blocks as were asked for: that an answer of another node has them nobody has checked.
    private func take(
        _ payload: PayloadID,
        _ token: UInt64,
        _ index: Int32,
        _ primary: PrimaryHost
    ) {
        let operation = primary.operations[index]
        let bytes = replication.payloads.region(payload)
        let isEdge = Piece.isEdge(token)
        let offset = isEdge ? 0 : Piece.offset(token)
        let first = operation.first + offset
        let end = isEdge ? first + 1 : Piece.end(first, isZero: false, before: operation.end)
        guard bytes.isEmpty || bytes.byteCount == Int(end - first) * 4096 else {
            replication.payloads.release(payload)
            primary.operations[index].failure = .mediaError
            return
        }
        switch (isEdge, Piece.isTail(token)) {
        case (true, true): primary.operations[index].tail = payload
        case (true, false): primary.operations[index].head = payload
        case (false, _):
            let target = operation.request.region.slice(Int(offset) * 4096, Int(end - first) * 4096)
            if bytes.isEmpty { target.zero() } else { target.copy(from: bytes) }
            replication.payloads.release(payload)
        }
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
        switch Token(rawValue: completion.token).kind {
        case TokenKind.localRequest: finish(completion)
        case TokenKind.iscsiRequest: finishISCSI(completion)
        default: returnHop(completion)
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
        for slot in slots.indices {
            guard let local = slots[slot].local else { continue }
            let summary = machine.summary(slot: slot)
            if summary.isComplete, summary.behindCount == 0 { return local }
        }
        return nil
    }
}
