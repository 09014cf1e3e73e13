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
        while let slot = waitingReads.first, let target = readTarget() {
            _ = waitingReads.popFirst()
            let index = Int(slot)
            requests[index].target = Int32(target)
            let token = UInt64(requests[index].generation) << 32 | UInt64(index)
            send(
                .read(token: token, range: requests[index].range, floor: committed),
                to: target
            )
        }
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

    /// A complete replica that has everything committed: the local one, or the one that is furthest.
    private func readTarget() -> Int? {
        var best: Int?
        for slot in peers.indices where peers[slot].isStreaming && peers[slot].isComplete {
            guard peers[slot].applied >= committed || policy.defect == .readBehind else { continue }
            if slot == localSlot || policy.defect == .readBehind { return slot }
            guard let found = best else {
                best = slot
                continue
            }
            if peers[slot].applied > peers[found].applied { best = slot }
        }
        return best
    }

    /// Whether W replicas still answer no other process's seal: then nobody else serves.
    var grantsHold: Bool {
        if policy.defect == .readsWithoutGrant { return true }
        var count = 0
        for peer in peers {
            if let end = peer.grantEnd, now < end { count += 1 }
        }
        return count >= policy.writeQuorum
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

    /// What was read has come.
    func onReadDone(_ slot: Int, token: UInt64, payload: PayloadID, number: WriteNumber) {
        guard let index = requestIndex(token, slot) else { return }
        guard number.isValid, number.epoch <= epoch else {
            ignoredCount += 1
            return
        }
        requests[index].target = -1
        requests[index].payload = payload
        requests[index].shownAfter = number.epoch == epoch ? number.counter : 0
        if policy.defect == .uncommittedRead { requests[index].shownAfter = 0 }
        heldReads.append(Int32(index))
    }

    /// Somebody else must be asked.
    func onReadRefused(_ slot: Int, token: UInt64) {
        guard let index = requestIndex(token, slot) else { return }
        requeue(index)
    }

    /// Asks others for what was asked of a replica that is gone.
    func requeueReads(of slot: Int) {
        for index in 0..<requests.count
        where requests[index].kind == .read && requests[index].target == Int32(slot) {
            requeue(index)
        }
    }

    private func requeue(_ index: Int) {
        requests[index].target = -1
        requests[index].generation &+= 1
        waitingReads.append(Int32(index))
    }

    private func requestIndex(_ token: UInt64, _ slot: Int) -> Int? {
        let index = Int(token & 0xFFFF_FFFF)
        guard index < requests.count, requests[index].kind == .read,
            requests[index].generation == UInt32(token >> 32),
            requests[index].target == Int32(slot)
        else {
            ignoredCount += 1
            return nil
        }
        return index
    }
}
