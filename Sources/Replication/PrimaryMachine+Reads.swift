// Reads: whom to ask, and when what came back may be shown.

public import BlockCore

extension PrimaryMachine {
    /// Takes a client's read.
    ///
    /// - Parameters:
    ///   - token: Comes back with the end.
    ///   - range: The blocks.
    ///   - now: The time.
    /// - Returns: False when it cannot be taken now.
    /// - Precondition: the range is valid: the front has checked it.
    public func submitRead(token: UInt64, range: BlockRange, now: Instant) -> Bool {
        precondition(range.isValid, "a range beyond any volume")
        precondition(range.count <= policy.requestBlockCountMax, "a read of too many blocks")
        guard let slot = takeRequest(.read, token, now) else { return false }
        requests[slot].range = range
        waitingReads.append(Int32(slot))
        pump()
        return true
    }

    /// Sends the reads that wait, and shows what may be shown.
    func serveReads() {
        guard isServing, state == .open else { return }
        sendReads()
        hedgeReads()
        guard !heldReads.isEmpty, grantsHold else { return }
        for _ in 0..<heldReads.count {
            guard let slot = heldReads.popFirst() else { break }
            let index = Int(slot)
            if requests[index].shownAfter <= committed {
                end(index, .read(requests[index].payload))
            } else {
                heldReads.append(slot)
            }
        }
    }

    private func sendReads() {
        guard !waitingReads.isEmpty, readTarget(besides: SlotSet()) != nil else { return }
        for _ in 0..<waitingReads.count {
            guard let slot = waitingReads.popFirst() else { break }
            let index = Int(slot)
            forgetFailures(index)
            if let target = readTarget(besides: requests[index].failed) {
                ask(target, index)
            } else {
                waitingReads.append(slot)
            }
        }
    }

    /// Lets replicas be asked again that had a damaged block, when there are no others: it may have
    /// been repaired since, or written anew.
    private func forgetFailures(_ index: Int) {
        let pause = PrimaryMachine.readRetryNanoseconds
        guard !requests[index].failed.isEmpty,
            now >= requests[index].failedAt.advanced(byNanoseconds: pause),
            readTarget(besides: requests[index].failed) == nil
        else { return }
        requests[index].failed = SlotSet()
        requests[index].isRetried = true
    }

    /// How long a repair is waited for before a damaged block is read again: some round trips.
    private static var readRetryNanoseconds: UInt64 { 100_000_000 }

    /// Asks one replica more for what was not answered in time.
    ///
    /// Whose device hangs, or whose process is frozen, is noticed by its link's owner only after a
    /// second, and the replica of the same node has no link that could break.
    private func hedgeReads() {
        guard let due = nextHedgeAt, now >= due else { return }
        nextHedgeAt = nil
        for index in 0..<requests.count
        where requests[index].kind == .read && !requests[index].asked.isEmpty {
            let asked = requests[index].asked
            if now >= requests[index].askedAt.advanced(byNanoseconds: policy.hedgeNanoseconds) {
                for slot in peers.indices where asked.contains(slot) { peers[slot].isLate = true }
                if let target = readTarget(besides: asked.union(requests[index].failed)) {
                    ask(target, index)
                } else {
                    requests[index].askedAt = now
                }
            }
            noteHedge(index)
        }
    }

    private func ask(_ target: Int, _ index: Int) {
        let isHedge = !requests[index].asked.isEmpty
        requests[index].asked.insert(target)
        requests[index].askedAt = now
        noteHedge(index)
        let token = UInt64(requests[index].generation) << 32 | UInt64(index)
        let isBold = policy.defect == .hedgeBehind && isHedge
        let body = PrimaryMessage.Body.read(
            token: token,
            range: requests[index].range,
            floor: isBold ? 0 : committed
        )
        send(body, to: target)
    }

    /// Notes when a read that was just asked for is late.
    private func noteHedge(_ index: Int) {
        guard policy.hedgeNanoseconds > 0, policy.defect != .neverHedged else { return }
        let due = requests[index].askedAt.advanced(byNanoseconds: policy.hedgeNanoseconds)
        nextHedgeAt = min(nextHedgeAt ?? due, due)
    }

    /// A complete replica that has everything committed: one that is not late, and of these the
    /// local one, or the one that is furthest.
    private func readTarget(besides others: SlotSet) -> Int? {
        var best: Int?
        for slot in peers.indices where !others.contains(slot) && isReadable(slot) {
            let isBold =
                policy.defect == .readBehind
                || policy.defect == .hedgeBehind && !others.isEmpty
            guard peers[slot].applied >= committed || isBold else { continue }
            if policy.defect == .readBehind { return slot }
            guard let found = best else {
                best = slot
                continue
            }
            if isBetterTarget(slot, than: found) { best = slot }
        }
        return best
    }

    private func isBetterTarget(_ slot: Int, than other: Int) -> Bool {
        if peers[slot].isLate != peers[other].isLate { return peers[other].isLate }
        if policy.defect == .hedgeBehind { return peers[slot].applied < peers[other].applied }
        if slot == localSlot || other == localSlot { return slot == localSlot }
        return peers[slot].applied > peers[other].applied
    }

    /// Whether a replica counts, and takes the stream.
    package func isReadable(_ slot: Int) -> Bool {
        peers[slot].isStreaming && peers[slot].isComplete
    }

    /// Whether W replicas still answer no other process's seal: then nobody else serves.
    var grantsHold: Bool {
        if policy.defect == .readsWithoutGrant { return true }
        return isQuorum(slots { $0.grantEnd.map { now < $0 } ?? false })
    }

    /// A grant holds from when it was asked for, shortened by what clocks may differ.
    func onGranted(_ slot: Int, sentAt: Instant) {
        guard sentAt <= now else {
            ignoredCount += 1
            return
        }
        let end = sentAt.advanced(byNanoseconds: policy.reliableGrantNanoseconds)
        if let other = peers[slot].grantEnd, other >= end { return }
        peers[slot].grantEnd = end
    }

    /// What was read has come; the first answer counts.
    func onReadDone(_ slot: Int, token: UInt64, payload: PayloadID, number: WriteNumber) {
        peers[slot].isLate = false
        guard let index = requestIndex(token, slot) else {
            return policy.defect == .latePayloadKept ? () : release(payload)
        }
        guard number.isValid, number.epoch <= epoch else {
            ignoredCount += 1
            release(payload)
            return withdraw(index, slot)
        }
        requests[index].asked = SlotSet()
        requests[index].payload = payload
        requests[index].shownAfter = number.epoch == epoch ? number.counter : 0
        if policy.defect == .uncommittedRead { requests[index].shownAfter = 0 }
        heldReads.append(Int32(index))
    }

    /// Somebody else must be asked.
    func onReadRefused(_ slot: Int, token: UInt64) {
        peers[slot].isLate = false
        guard let index = requestIndex(token, slot) else { return }
        withdraw(index, slot)
    }

    /// A replica has a damaged block: others are asked, and it is repaired from one of them.
    func onReadFailed(_ slot: Int, token: UInt64, block: UInt64) {
        peers[slot].isLate = false
        guard let index = requestIndex(token, slot) else { return }
        requests[index].failed.insert(slot)
        requests[index].failedAt = now
        if requests[index].range.overlaps(BlockRange(first: block, count: 1)) {
            repair(block, in: slot)
        }
        if requests[index].isRetried, voters.subtracting(requests[index].failed).isEmpty {
            requests[index].asked = SlotSet()
            end(index, .damaged)
        } else {
            withdraw(index, slot)
        }
    }

    /// Asks another replica for a block that is damaged in one.
    ///
    /// Where there is none at hand, or too much to do, the next read of it will ask again.
    private func repair(_ block: UInt64, in slot: Int) {
        let isUnderWay = fetches.contains {
            $0.purpose == .repair && $0.slot == slot && $0.entry.block == block
        }
        var others = SlotSet()
        others.insert(slot)
        guard !isUnderWay, fetches.count < policy.fetchCountMax,
            let helper = readTarget(besides: others)
        else { return }
        let token = takeToken()
        let entry = ScanEntry(block: block, number: .zero)
        fetches.append(
            Fetch(token: token, purpose: .repair, slot: slot, entry: entry, helper: helper)
        )
        send(.fetch(token: token, view: .volume, block: block), to: helper)
    }

    /// Asks others for what was asked of a replica that is gone.
    func requeueReads(of slot: Int) {
        for index in 0..<requests.count
        where requests[index].kind == .read && requests[index].asked.contains(slot) {
            withdraw(index, slot)
        }
    }

    /// Expects no answer of a replica any more; asks anew when there is nobody else to answer.
    private func withdraw(_ index: Int, _ slot: Int) {
        requests[index].asked.remove(slot)
        guard requests[index].asked.isEmpty else { return }
        requests[index].generation &+= 1
        waitingReads.append(Int32(index))
    }

    private func requestIndex(_ token: UInt64, _ slot: Int) -> Int? {
        let index = Int(token & 0xFFFF_FFFF)
        guard index < requests.count, requests[index].kind == .read,
            requests[index].generation == UInt32(token >> 32),
            requests[index].asked.contains(slot)
        else {
            ignoredCount += 1
            return nil
        }
        return index
    }
}
