// Numbering writes, the window, what is committed and hardened, and who is acknowledged when.

public import BlockCore

extension PrimaryMachine {
    /// Takes a client's write, or a trim when it has no payload.
    ///
    /// - Parameters:
    ///   - token: Comes back with the end.
    ///   - range: The blocks.
    ///   - payload: Their bytes; the primary has them until it releases them.
    ///   - isForced: Whether it must be durable before it is acknowledged (FUA).
    ///   - now: The time.
    /// - Returns: False when as many requests are under way as there may be, or the primary is over;
    ///   the payload is then the caller's.
    /// - Precondition: the range is valid: the front has checked it.
    public func submitWrite(
        token: UInt64,
        range: BlockRange,
        payload: PayloadID,
        isForced: Bool,
        now: Instant
    ) -> Bool {
        precondition(range.isValid, "a range beyond any volume")
        precondition(range.count <= policy.requestBlockCountMax, "a write of too many blocks")
        guard let slot = takeRequest(.write, token, now) else { return false }
        requests[slot].range = range
        requests[slot].payload = payload
        requests[slot].isForced = isForced || policy.isWritethrough
        waitingWrites.append(Int32(slot))
        pump()
        return true
    }

    /// Takes a client's flush: everything acknowledged before it is to be durable.
    ///
    /// - Parameters:
    ///   - token: Comes back with the end.
    ///   - now: The time.
    /// - Returns: False when it cannot be taken now.
    public func submitFlush(token: UInt64, now: Instant) -> Bool {
        guard let slot = takeRequest(.flush, token, now) else { return false }
        requests[slot].through = nextCounter - 1
        flushWanted = max(flushWanted, nextCounter - 1)
        flushes.append(Int32(slot))
        pump()
        return true
    }

    func takeRequest(_ kind: ClientRequest.Kind, _ token: UInt64, _ now: Instant) -> Int? {
        guard state != .stopped else { return nil }
        self.now = now
        budget.noteRequest(now: now)
        guard let slot = freeRequests.popFirst() else { return nil }
        var request = ClientRequest()
        request.kind = kind
        request.token = token
        request.generation = requests[Int(slot)].generation &+ 1
        requests[Int(slot)] = request
        return Int(slot)
    }

    func end(_ slot: Int, _ result: ClientResult) {
        actions.append(.complete(token: requests[slot].token, result))
        requests[slot].kind = .free
        freeRequests.append(Int32(slot))
    }

    // MARK: - Numbers

    /// Gives numbers to the writes that wait, in their order, while there is room to keep them.
    func numberWaiting() {
        while isServing, let slot = waitingWrites.first {
            let request = requests[Int(slot)]
            if request.snapshot != 0, isKnown(request.snapshot) {
                // Somebody else asked for it too, before it was numbered.
                _ = waitingWrites.popFirst()
                awaitSnapshot(Int(slot))
                continue
            }
            guard hasClientRoom(request.range) else { return }
            var light = SlotSet()
            switch admission(of: request) {
            case .granted: break
            case .later: return
            case .refused:
                switch weigh(slot) {
                case .granted: light = weighing?.light ?? light
                case .later: return
                case .refused:
                    _ = waitingWrites.popFirst()
                    refuse(Int(slot))
                    continue
                }
            }
            weighing = nil
            _ = waitingWrites.popFirst()
            if request.snapshot != 0 { noteSnapshot(request.snapshot) }
            let isBold = policy.defect == .snapshotNotAwaited && request.kind == .snapshot
            requests[Int(slot)].through = isBold ? 0 : nextCounter
            if request.isForced {
                flushWanted = nextCounter
                forcedWrites.append(slot)
            } else {
                numberedWrites.append(slot)
            }
            var entry = WindowEntry(
                range: request.range,
                payload: request.payload,
                snapshot: request.snapshot
            )
            entry.promised = roomySlots(for: entry).union(light)
            number(entry)
            notePromises(entry.promised)
        }
    }

    /// Ends a request for which there is no room.
    private func refuse(_ slot: Int) {
        weighing = nil
        release(requests[slot].payload)
        refusedCount &+= 1
        end(slot, .noRoom)
    }

    /// Whether the window can keep another write of a client; a write larger than the window goes
    /// alone.
    private func hasClientRoom(_ range: BlockRange) -> Bool {
        guard hasRoom() else { return false }
        guard nextCounter > windowStart else { return true }
        return Int(nextCounter - windowStart) < policy.windowCountMax
            && windowByteCount + range.byteCount <= policy.windowByteCountMax
    }

    /// Whether the window can keep another write at all.
    func hasRoom() -> Bool {
        guard nextCounter < WriteNumber.writeCounterMax else {
            stop(.numbersExhausted)
            return false
        }
        return !isCrammed
    }

    /// Whether the window has no room left, not even for what is written again.
    var isCrammed: Bool { Int(nextCounter - windowStart) >= window.count }

    /// Gives the next number to a write.
    ///
    /// - Precondition: ``hasRoom()``.
    func number(_ entry: WindowEntry) {
        chargedTotal += entry.charge
        window[windowIndex(nextCounter)] = entry
        window[windowIndex(nextCounter)].chargedThrough = chargedTotal
        windowByteCount += entry.range.byteCount
        if policy.isWritethrough { flushWanted = nextCounter }
        nextCounter += 1
        if policy.defect == .staleRewrite { return }
        // Whoever reads a block to rewrite it would now write something older.
        for index in fetches.indices where fetches[index].purpose == .stray {
            let block = BlockRange(first: fetches[index].entry.block, count: 1)
            if entry.range.overlaps(block) { fetches[index].isCancelled = true }
        }
    }

    /// Sends each replica what it has not been sent.
    func stream() {
        for slot in peers.indices where peers[slot].isStreaming {
            guard peers[slot].nextToSend >= windowStart else {
                // It was dropped, and the window went on without it. Who waits for room is not
                // greeted until there is some, or patience ends.
                if peers[slot].waitsForRoomSince == nil { greet(slot) }
                continue
            }
            guard !isGathering(slot) else { continue }
            while peers[slot].nextToSend < nextCounter {
                let counter = peers[slot].nextToSend
                guard maySend(counter, to: slot) else {
                    peers[slot].waitsForRoomSince = peers[slot].waitsForRoomSince ?? now
                    break
                }
                peers[slot].waitsForRoomSince = nil
                let entry = window[windowIndex(counter)]
                let number = WriteNumber(epoch: epoch, counter: counter)
                send(entry.message(number), to: slot)
                peers[slot].nextToSend = counter + 1
            }
        }
    }

    /// Whether what waits for a replica goes later, with more: until it has answered for what it was
    /// sent, or enough waits.
    ///
    /// Writes that come together cost a replica little more than one: a turn, a record of the log
    /// that is made durable, an answer. It waits for what is under way before it makes more durable,
    /// so what comes meanwhile gains nothing by being there.
    private func isGathering(_ slot: Int) -> Bool {
        let answered = policy.isWritethrough ? peers[slot].durable : peers[slot].applied
        guard answered + 1 < peers[slot].nextToSend else { return false }
        var blockCount: UInt32 = 0
        for counter in peers[slot].nextToSend..<nextCounter {
            let entry = window[windowIndex(counter)]
            blockCount += entry.range.count
            if entry.snapshot != 0 || blockCount >= policy.gatheredBlockCount { return false }
        }
        return true
    }

    // MARK: - Progress

    /// A replica has more than before.
    func onProgress(_ slot: Int, applied: UInt64, durable: UInt64) {
        guard peers[slot].isStreaming, applied < nextCounter, durable <= applied else {
            ignoredCount += 1
            return
        }
        peers[slot].applied = max(peers[slot].applied, applied)
        peers[slot].durable = max(peers[slot].durable, durable)
        // One that was dropped and has caught up since is waited for like any other.
        if peers[slot].durable + 1 >= windowStart { peers[slot].isHolding = true }
    }

    /// Finds what is committed and hardened now, and tells who waits for it.
    func advanceCounters() {
        guard state == .open || state == .renewing else { return }
        if let counter = quorumCounter(ofDurable: policy.isWritethrough) {
            committed = max(committed, counter)
            if state == .open, committed >= tailCount, !isServing {
                isServing = true
                numberWaiting()
                stream()
            }
        }
        if let counter = quorumCounter(ofDurable: true) { hardened = max(hardened, counter) }
        advanceMove()
        acknowledge()
        recall()
    }

    /// The greatest counter that W complete replicas have; nil while fewer are complete.
    func quorumCounter(ofDurable: Bool) -> UInt64? {
        let quorum = policy.writeQuorum - (policy.defect == .commitWithOneLess ? 1 : 0)
        var result: UInt64?
        for peer in peers where peer.isComplete {
            let value = ofDurable ? peer.durable : peer.applied
            guard value >= result ?? 0 else { continue }
            let having = slots {
                $0.isComplete && (ofDurable ? $0.durable : $0.applied) >= value
            }
            if isQuorum(having, of: quorum) { result = value }
        }
        return result
    }

    /// Ends the requests that waited for what is now committed or hardened.
    private func acknowledge() {
        guard isServing else { return }
        let safe = policy.defect == .flushNotHardened ? committed : hardened
        acknowledge(numberedWrites, through: committed)
        acknowledge(forcedWrites, through: min(safe, committed))
        while let slot = flushes.first, requests[Int(slot)].through <= safe {
            _ = flushes.popFirst()
            end(Int(slot), .flushed)
        }
    }

    /// The number that a write has, or a snapshot, which an earlier request may have taken; nil for
    /// one that was deleted meanwhile.
    private func number(of request: ClientRequest) -> WriteNumber? {
        guard request.snapshot == 0 else {
            return snapshots.first { $0.id == request.snapshot }?.number
        }
        return WriteNumber(epoch: epoch, counter: request.through)
    }

    private func acknowledge(_ writes: FixedRing<Int32>, through: UInt64) {
        while let slot = writes.first, requests[Int(slot)].through <= through {
            _ = writes.popFirst()
            let number = number(of: requests[Int(slot)])
            end(Int(slot), number.map { .written($0) } ?? .unknown)
        }
    }

    /// Tells replicas that forgot, once they have everything committed again.
    private func recall() {
        guard isServing else { return }
        for slot in peers.indices {
            guard peers[slot].hasForgotten, peers[slot].isStreaming, peers[slot].isComplete,
                peers[slot].applied >= committed, let incarnation = peers[slot].incarnation
            else { continue }
            peers[slot].hasForgotten = false
            send(.recall(incarnation), to: slot)
        }
    }

    // MARK: - The window

    /// Lets go of what all who are streamed to have durable, and of those who hold the rest up.
    func releaseWindow() {
        guard state == .open || state == .renewing else { return }
        releaseDurable()
        while isWindowFull, hardened >= windowStart, drop(isWithQuorum: true) { releaseDurable() }
        // While W are not complete nothing is hardened, and to make them so takes room.
        while isCrammed, anchored >= windowStart, drop(isWithQuorum: hasQuorumDurable) {
            releaseDurable()
        }
        numberWaiting()
        stream()
    }

    /// Waits no longer for those who lack the oldest write.
    ///
    /// - Parameter isWithQuorum: Whether W others have it durable. Otherwise those who are about to
    ///   have it, or to say where they are, are waited for: who is dropped has the longer way back.
    /// - Returns: Whether there was anybody to drop.
    private func drop(isWithQuorum: Bool) -> Bool {
        var result = false
        for slot in peers.indices where peers[slot].isHolding && peers[slot].durable < windowStart {
            let isSource = state == .renewing && slot == sourceSlot
            let isComing = peers[slot].isStreaming || peers[slot].isOpening
            // One that counts for nothing is not waited for.
            if isSource || isComing && !isWithQuorum && voters.contains(slot) { continue }
            peers[slot].isHolding = false
            result = true
        }
        return result
    }

    /// The counter up to which somebody has everything durable from whom the others can be made
    /// complete: a replica that is complete, or will be when its stream has passed the tail.
    private var anchored: UInt64 {
        var result: UInt64 = 0
        for slot in peers.indices where voters.contains(slot) {
            guard peers[slot].isComplete || peers[slot].isNear else { continue }
            result = max(result, peers[slot].durable)
        }
        return result
    }

    /// Whether W replicas, complete or not, have the oldest write durable.
    private var hasQuorumDurable: Bool {
        isQuorum(slots { $0.durable >= windowStart })
    }

    private var isWindowFull: Bool {
        Int(nextCounter - windowStart) >= policy.windowCountMax
            || windowByteCount > policy.windowByteCountMax / 4 * 3
    }

    private func releaseDurable() {
        var through = max(hardened, anchored)
        for peer in peers where peer.isHolding { through = min(through, peer.durable) }
        while windowStart <= through {
            let index = windowIndex(windowStart)
            windowByteCount -= window[index].range.byteCount
            release(window[index].payload)
            windowStart += 1
        }
    }

    /// Asks for flushes where somebody waits for durability, or half of the window is used.
    func askForFlushes() {
        let count = nextCounter - windowStart
        if Int(count) > policy.windowCountMax / 2 || windowByteCount > policy.windowByteCountMax / 2
        {
            flushWanted = nextCounter - 1
        }
        for slot in peers.indices where peers[slot].isStreaming {
            let through = min(flushWanted, peers[slot].nextToSend - 1)
            guard through > peers[slot].durable, through > peers[slot].flushAsked else { continue }
            peers[slot].flushAsked = through
            send(.flush(through: through), to: slot)
        }
    }
}

extension WindowEntry {
    /// What a replica is told of it.
    func message(_ number: WriteNumber) -> PrimaryMessage.Body {
        snapshot == 0
            ? .write(number: number, range: range, payload: payload)
            : .snapshot(SnapshotMark(id: snapshot, number: number))
    }
}
