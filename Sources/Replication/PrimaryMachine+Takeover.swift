// Taking over: seal, choose a source, open, renew the tail. Also how every connection begins.

internal import BlockCore

extension PrimaryMachine {
    /// Introduces itself over a new link.
    func greet(_ slot: Int) {
        peers[slot].status = nil
        peers[slot].isOpening = false
        peers[slot].isStreaming = false
        peers[slot].isStaging = false
        peers[slot].resync = nil
        peers[slot].waitsForRoomSince = nil
        dropFetches(of: slot)
        forgetWeight(of: slot)
        send(.seal, to: slot)
    }

    /// Forgets what was under way over a link.
    func loseLink(_ slot: Int) {
        peers[slot].isLinked = false
        peers[slot].room = .plentiful
        peers[slot].isPassedBy = false
        peers[slot].status = nil
        peers[slot].isOpening = false
        peers[slot].isStreaming = false
        peers[slot].isStaging = false
        peers[slot].resync = nil
        peers[slot].waitsForRoomSince = nil
        dropFetches(of: slot)
        forgetWeight(of: slot)
        requeueReads(of: slot)
        if state == .renewing, slot == sourceSlot { stop(.sourceLost) }
    }

    /// Takes what a replica says of itself, and opens it when the lineage is known.
    func onSealed(_ slot: Int, _ status: ReplicaStatus, _ incarnation: Incarnation) {
        guard status.isValid(answering: epoch), status.record.instance == peers[slot].instance,
            status.record.accepted < epoch || status.applied < nextCounter
        else {
            ignoredCount += 1
            return
        }
        let isRestarted = peers[slot].incarnation != incarnation
        if state == .renewing, slot == sourceSlot, isRestarted { return stop(.sourceLost) }
        peers[slot].incarnation = incarnation
        peers[slot].status = status
        lastAnswerAt = now
        guard state != .sealing else { return }
        open(slot)
    }

    // MARK: - Choosing

    /// Chooses a source when enough replicas have answered.
    func chooseSource() {
        guard let source = source() else { return }
        guard let status = peers[source].status else { return }
        sourceSlot = source
        lineage = status.record.lineage.continued(from: status.end)
        snapshots = status.snapshots.filter { $0.number <= status.end }
        renewFrom = status.record.isComplete ? tailStart(of: status) : status.end
        state = .renewing
        if policy.defect != .tailNotRenewed {
            renewal = BlockWalk(slot: source, above: renewFrom)
        }
        for slot in peers.indices where peers[slot].status != nil { open(slot) }
    }

    /// Where the tail of a complete source begins: at what is known to be committed of its epoch.
    ///
    /// After a loss of all power nobody knows. Then it is what all have who answered and were
    /// complete in that epoch: to write again all that the epoch wrote would take as long as it is
    /// large.
    private func tailStart(of source: ReplicaStatus) -> WriteNumber {
        var known = WriteNumber.zero
        var shared = source.end
        for case let status? in peers.map(\.status) {
            known = max(known, status.committed)
            if status.record.isComplete, status.record.accepted == source.record.accepted {
                shared = min(shared, status.end)
            }
        }
        let begin = WriteNumber(epoch: source.record.accepted, counter: 0)
        return known < begin ? shared : min(known, source.end)
    }

    /// The replica to go on from: of enough answers the one that has the most.
    ///
    /// Enough are N − W + 1 that remember: one of them took part in every commit. Replicas that
    /// forgot count too when there is nobody else to wait for, or nobody else has come for long.
    /// New replicas in the place of lost ones say nothing.
    private func source() -> Int? {
        var answerCount = 0
        var witnessCount = 0
        var rememberingCount = 0
        var best: Int?
        for slot in peers.indices where voters.contains(slot) {
            guard let status = peers[slot].status else { continue }
            answerCount += 1
            if status.record.isBlank, policy.defect != .blankCounted { continue }
            witnessCount += 1
            if status.record.remembers || policy.isWritethrough
                || policy.defect == .amnesiacCounted
            {
                rememberingCount += 1
            }
            guard let found = best, let other = peers[found].status else {
                best = slot
                continue
            }
            if isBetter(status, than: other) { best = slot }
        }
        guard witnessCount >= policy.sealQuorum else { return nil }
        if rememberingCount >= policy.sealQuorum { return best }
        let patience = lastAnswerAt.advanced(byNanoseconds: policy.amnesiaNanoseconds)
        return answerCount == policy.replicaCount || now >= patience ? best : nil
    }

    private func isBetter(_ status: ReplicaStatus, than other: ReplicaStatus) -> Bool {
        if policy.defect == .anySource { return false }
        if status.end != other.end { return status.end > other.end }
        return status.record.isComplete && !other.record.isComplete
    }

    // MARK: - Opening

    /// Tells a sealed replica to follow, from where the window can serve it.
    func open(_ slot: Int) {
        guard let status = peers[slot].status else { return }
        peers[slot].hasForgotten = !status.record.remembers
        peers[slot].resync = nil
        let isFollower = status.record.accepted == epoch
        // One that lacks a snapshot takes no stream yet, and is to be in step with what it gets then.
        let isPassedBy =
            isFollower && peers[slot].isPassedBy
            && !snapshots.contains { $0.number > status.end }
        peers[slot].isPassedBy = false
        if isFollower, status.applied + 1 >= windowStart, !isPassedBy {
            peers[slot].nextToSend = status.applied + 1
        } else {
            // It misses what the window no longer has, or everything of this epoch, or what it had no
            // room for.
            let start = isPassedBy ? nextCounter : windowStart
            peers[slot].nextToSend = start
            peers[slot].streamStart = start
            peers[slot].common =
                isFollower
                ? status.end : status.record.lineage.commonPoint(end: status.end, with: lineage)
            peers[slot].isNear = !isFollower && isNear(slot, status)
        }
        if isFollower, !status.record.isComplete { peers[slot].common = status.record.common }
        peers[slot].isComplete = false
        peers[slot].applied = peers[slot].nextToSend - 1
        peers[slot].durable = 0
        peers[slot].flushAsked = 0
        peers[slot].isStaging =
            !isWhole(slot, status) && nextStage(slot) != nil && policy.defect != .snapshotsNotStaged
        peers[slot].areStraysGone = policy.defect == .straysInSnapshots
        peers[slot].isNear = peers[slot].isNear && !peers[slot].isStaging
        peers[slot].isHolding = !peers[slot].isStaging
        peers[slot].isOpening = true
        send(.open(lineage: lineage, start: peers[slot].nextToSend), to: slot)
    }

    /// Whether a replica is complete at once when it is opened: then the stream brings it all.
    private func isWhole(_ slot: Int, _ status: ReplicaStatus) -> Bool {
        guard status.record.isComplete else { return false }
        return status.record.accepted == epoch
            ? status.applied + 1 == peers[slot].nextToSend
            : windowStart == 1 && status.end == lineage.base
    }

    /// Whether a replica that is not exactly where the source is lacks only what is renewed.
    private func isNear(_ slot: Int, _ status: ReplicaStatus) -> Bool {
        guard windowStart == 1 else { return false }
        if slot == sourceSlot, lineage.base == status.end { return true }
        return status.record.isComplete && status.record.accepted == lineage.base.epoch
            && status.end >= renewFrom && status.end <= lineage.base
    }

    /// A replica follows: what it says now is the truth about it.
    func onOpened(_ slot: Int, isComplete: Bool, applied: UInt64, durable: UInt64) {
        guard peers[slot].isOpening, applied < nextCounter, durable <= applied else {
            ignoredCount += 1
            return
        }
        peers[slot].isOpening = false
        guard !peers[slot].isStaging else {
            // It was told that it is complete before it was greeted anew, and has become so since.
            if isComplete { greet(slot) }
            return
        }
        peers[slot].isStreaming = true
        peers[slot].isComplete =
            isComplete || policy.defect == .tailNotRenewed && peers[slot].isNear
            || policy.defect == .incompleteCounted
        peers[slot].applied = applied
        peers[slot].durable = durable
        // Where that is before the window's start, it is greeted again.
        peers[slot].nextToSend = applied + 1
    }

    // MARK: - The tail

    /// Writes the source's tail again, block by block.
    func advanceRenewal() {
        guard var walk = renewal else { return finishRenewal() }
        // The source must follow first: what it reads for us is then what it will keep.
        guard peers[sourceSlot].isStreaming else { return }
        renewal = nil
        advance(&walk, purpose: .renewal, of: sourceSlot)
        if walk.isDone { finishRenewal() } else { renewal = walk }
    }

    private func finishRenewal() {
        tailCount = nextCounter - 1
        state = .open
    }

    /// Gives up an epoch in which nobody is complete: the next one chooses its source anew.
    ///
    /// Such an epoch has committed nothing that replicas at hand do not know of: the same rule that
    /// chose this source chooses the next.
    func checkStuck() {
        var sealedCount = 0
        var hasComplete = false
        for slot in peers.indices where voters.contains(slot) {
            guard let status = peers[slot].status, !status.record.isBlank else { continue }
            sealedCount += 1
            if peers[slot].isComplete || peers[slot].isNear { hasComplete = true }
        }
        guard state == .open, !hasComplete, sealedCount >= policy.sealQuorum else {
            stuckSince = nil
            return
        }
        guard let since = stuckSince else {
            stuckSince = now
            return
        }
        if now >= since.advanced(byNanoseconds: policy.stuckNanoseconds) { stop(.stuck) }
    }

    /// Asks for grants, and says what is committed.
    func renewGrants() {
        let interval = policy.grantNanoseconds / 4
        if let lastRenewAt, now < lastRenewAt.advanced(byNanoseconds: interval) { return }
        lastRenewAt = now
        let committed = WriteNumber(epoch: epoch, counter: self.committed)
        for slot in peers.indices where peers[slot].isStreaming {
            send(.renew(sentAt: now, committed: isServing ? committed : .zero), to: slot)
        }
    }
}
