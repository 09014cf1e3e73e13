// Making replicas complete: strays are rewritten, missing blocks filled, and the tail of a takeover
// is written again by the same means.

internal import BlockCore

extension PrimaryMachine {
    /// Takes an answer that is neither a refusal nor the answer to a seal.
    func onAnswer(_ slot: Int, _ body: ReplicaMessage.Body) {
        switch body {
        case .opened(let isComplete, let applied, let durable):
            onOpened(slot, isComplete: isComplete, applied: applied, durable: durable)
        case .progress(let applied, let durable):
            onProgress(slot, applied: applied, durable: durable)
        case .room(let room): onRoom(slot, room)
        case .weighed(let token, let blockCount): onWeighed(slot, token, blockCount)
        case .fillRefused(let token): onFillRefused(slot, token)
        case .granted(let sentAt): onGranted(slot, sentAt: sentAt)
        case .completed: onCompleted(slot)
        case .kept(let number): onKept(slot, number)
        case .viewMissing(let token): onViewMissing(slot, token)
        case .readDone(let token, let payload, let number):
            onReadDone(slot, token: token, payload: payload, number: number)
        case .readRefused(let token): onReadRefused(slot, token: token)
        case .scanned(let token, let entries, let next): onScanned(slot, token, entries, next)
        case .fetched(let token, let payload, let number): onFetched(slot, token, payload, number)
        case .filled(let token): onFilled(slot, token)
        case .readFailed(let token, let block): onReadFailed(slot, token: token, block: block)
        case .fetchFailed(let token, let number): onFetchFailed(slot, token, number)
        case .sealed, .refused: ignoredCount += 1
        }
    }

    // MARK: - Phases

    /// Goes on with every replica that is not complete.
    func advanceResyncs() {
        guard state == .open else { return }
        for slot in peers.indices where state == .open && peers[slot].isFillable {
            if peers[slot].resync == nil { begin(slot) }
            guard var resync = peers[slot].resync else { continue }
            peers[slot].resync = nil
            advance(&resync, slot)
            // A write that was numbered meanwhile does not touch it; a lost link does.
            if peers[slot].isFillable { peers[slot].resync = resync }
        }
    }

    private func begin(_ slot: Int) {
        guard !peers[slot].isStaging else { return beginStage(slot) }
        let walk = BlockWalk(slot: slot, above: peers[slot].common)
        let isShort = peers[slot].isNear || policy.defect == .straysNotRewritten
        var resync = Resync(phase: isShort ? .missing : .strays, walk: walk)
        if peers[slot].isNear { resync.phase = .passing }
        resync.walk.slot = resync.phase == .strays ? slot : -1
        peers[slot].resync = resync
    }

    private func advance(_ resync: inout Resync, _ slot: Int) {
        switch resync.phase {
        case .stageStrays, .stageMissing, .keeping: advanceStage(&resync, slot)
        case .strays:
            advance(&resync.walk, purpose: .stray, of: slot)
            guard resync.walk.isDone else { return }
            let passCounter = resync.walk.passCounter
            resync.phase = .missing
            resync.walk = BlockWalk(slot: -1, above: peers[slot].common)
            resync.walk.passCounter = passCounter
        case .missing:
            if resync.walk.slot < 0 || !canHelp(resync.walk.slot, slot) {
                guard let helper = helper(for: slot) else { return }
                resync.walk.slot = helper
                resync.walk.token = 0
            }
            advance(&resync.walk, purpose: .missing, of: slot)
            if isWhole(resync.walk) { resync.phase = .passing }
        case .passing:
            let goal = max(tailCount, max(committed, resync.walk.passCounter))
            guard peers[slot].applied >= goal, let incarnation = peers[slot].incarnation else {
                return
            }
            resync.phase = .told
            send(.complete(incarnation), to: slot)
        case .told: return
        }
    }

    /// A replica knows, durably, that it is complete: from now on it counts.
    private func onCompleted(_ slot: Int) {
        guard peers[slot].resync?.phase == .told else {
            ignoredCount += 1
            return
        }
        peers[slot].resync = nil
        peers[slot].isComplete = true
        peers[slot].isNear = false
        peers[slot].hasForgotten = false
    }

    /// A complete replica that has everything from before another's stream began.
    private func helper(for slot: Int) -> Int? {
        peers.indices.first { canHelp($0, slot) }
    }

    func canHelp(_ helper: Int, _ slot: Int) -> Bool {
        let peer = peers[helper]
        return peer.isComplete && peer.isStreaming
            && peer.applied + 1 >= peers[slot].streamStart
    }

    // MARK: - Walks

    /// Whether everything that a walk found has reached the replica.
    func isWhole(_ walk: BlockWalk) -> Bool {
        walk.isDone && (!walk.hasLeftOut || policy.defect == .leftOutForgotten)
    }

    /// Sends the next scan and the next fetches of a walk.
    func advance(_ walk: inout BlockWalk, purpose: Fetch.Purpose, of slot: Int) {
        if let cursor = walk.cursor, walk.token == 0, walk.todo.isEmpty {
            walk.token = takeToken()
            send(
                .scan(token: walk.token, view: walk.scanned, above: walk.above, from: cursor),
                to: walk.slot
            )
        }
        while let entry = walk.todo.last, mayFetch(purpose) {
            let isRewritten = purpose == .renewal || purpose == .stray
            guard !isRewritten || hasRoomToRewrite, let helper = fetchHelper(purpose, slot, walk)
            else { return }
            walk.todo.removeLast()
            if purpose == .stray, isBeingWritten(entry.block, beyond: helper) {
                walk.passCounter = nextCounter - 1
                continue
            }
            let token = takeToken()
            walk.inflightCount += 1
            if purpose.isUnhurried { budget.begin() }
            fetches.append(
                Fetch(
                    token: token,
                    purpose: purpose,
                    view: walk.fetched,
                    asked: walk.fetched,
                    slot: slot,
                    entry: entry,
                    helper: helper
                )
            )
            send(.fetch(token: token, view: walk.fetched, block: entry.block), to: helper)
        }
    }

    /// Whether another block may be asked for now.
    private func mayFetch(_ purpose: Fetch.Purpose) -> Bool {
        guard fetches.count < policy.fetchCountMax else { return false }
        guard purpose.isUnhurried, isQuorum(readableSlots) else { return true }
        return budget.admits(now: now)
    }

    /// Whether the window has room for another block that is to be written again, with those that
    /// are being fetched for it.
    private var hasRoomToRewrite: Bool {
        let fetchedCount = fetches.count { $0.purpose == .renewal || $0.purpose == .stray }
        return Int(nextCounter - windowStart) + fetchedCount < window.count
    }

    private func fetchHelper(_ purpose: Fetch.Purpose, _ slot: Int, _ walk: BlockWalk) -> Int? {
        switch purpose {
        case .renewal, .missing, .stageMissing, .repair: walk.slot
        case .stageStray: peers.indices.first { canShow($0, walk.fetched) }
        case .stray:
            // What the window let go and the helper lacks would not be seen to be on its way.
            peers.indices.first { canHelp($0, slot) && peers[$0].applied + 1 >= windowStart }
        }
    }

    /// Whether a write to a block is on its way that a replica does not have: it will be the newer
    /// one everywhere, and there is nothing to rewrite.
    func isBeingWritten(_ block: UInt64, beyond helper: Int) -> Bool {
        if policy.defect == .staleRewrite { return false }
        let range = BlockRange(first: block, count: 1)
        var counter = max(peers[helper].applied + 1, windowStart)
        while counter < nextCounter {
            if window[windowIndex(counter)].range.overlaps(range) { return true }
            counter += 1
        }
        return false
    }

    /// Takes the blocks that a scan found.
    private func onScanned(_ slot: Int, _ token: UInt64, _ entries: [ScanEntry], _ next: UInt64?) {
        let isSound = entries.allSatisfy {
            $0.number.isValid && $0.number.epoch <= epoch && $0.block < BlockRange.blockCountMax
        }
        guard isSound else {
            ignoredCount += 1
            return
        }
        if renewal?.token == token, slot == sourceSlot {
            renewal?.take(entries, next)
            return
        }
        for other in peers.indices {
            guard let resync = peers[other].resync, resync.walk.token == token,
                resync.walk.slot == slot
            else { continue }
            let wanted = wanted(entries, resync.phase, other)
            peers[other].resync?.walk.take(wanted, next)
            for entry in entries { pass(other, entry.number) }
            return
        }
        ignoredCount += 1
    }

    /// The entries of a scan that need anything: not those that the stream brings.
    private func wanted(_ entries: [ScanEntry], _ phase: Resync.Phase, _ slot: Int) -> [ScanEntry] {
        switch phase {
        case .stageStrays, .stageMissing: entries
        // What a stage of this epoch has overwritten has the bytes that it should have.
        case .strays: entries.filter { $0.number < stageNumberMin }
        default:
            entries.filter {
                $0.number.epoch < epoch || $0.number.counter < peers[slot].streamStart
            }
        }
    }

    /// Notes that a replica may have a copy ahead of its stream, or relies on one in it.
    func pass(_ slot: Int, _ number: WriteNumber) {
        guard number.epoch == epoch, let other = peers[slot].resync?.walk.passCounter else {
            return
        }
        peers[slot].resync?.walk.passCounter = max(other, number.counter)
    }
}

extension BlockWalk {
    /// Takes the answer to the scan under way.
    mutating func take(_ entries: [ScanEntry], _ next: UInt64?) {
        token = 0
        // A cursor that does not move would never end.
        if let next, let cursor, next > cursor { self.cursor = next } else { cursor = nil }
        todo.append(contentsOf: entries)
    }
}
