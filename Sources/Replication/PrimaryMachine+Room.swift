// Room on the replicas' stores: a write is numbered when W have room for it, and a replica that has
// none is waited for as long as that costs nobody anything.

internal import BlockCore

/// What becomes of a request that needs room.
enum Admission {
    /// W complete replicas have room for it.
    case granted
    /// That shows when what is on its way has come, or W are there.
    case later
    /// Too few have any.
    case refused
}

/// Whether a replica has room for something.
private enum RoomVerdict {
    case fits
    /// Not while what it has not applied may take it.
    case pending
    case lacking
}

extension PrimaryMachine {
    // MARK: - Before a write is numbered

    /// Whether a request finds room at W complete replicas.
    func admission(of request: ClientRequest) -> Admission {
        if policy.defect == .roomIgnored { return .granted }
        let entry = WindowEntry(
            range: request.range,
            payload: request.payload,
            snapshot: request.snapshot
        )
        let complete = readableSlots
        var fitting = SlotSet()
        var hopeful = SlotSet()
        for slot in peers.indices where complete.contains(slot) {
            switch verdict(entry, slot) {
            case .fits:
                fitting.insert(slot)
                hopeful.insert(slot)
            case .pending: hopeful.insert(slot)
            case .lacking: break
            }
        }
        if isQuorum(fitting) { return .granted }
        return isQuorum(complete) && !isQuorum(hopeful) ? .refused : .later
    }

    private func verdict(_ entry: WindowEntry, _ slot: Int) -> RoomVerdict {
        let room = peers[slot].room
        let limit = limit(of: entry, room)
        guard peers[slot].waitsForRoomSince == nil, entry.charge <= limit,
            entry.snapshot == 0 || room.layerCount > 0
        else { return .lacking }
        // Behind what it is not sent for want of room, it would not get it.
        guard peers[slot].nextToSend > peers[slot].lastUnpromised else { return .pending }
        if policy.defect == .roomUsedTwice { return .fits }
        let outstanding = chargedTotal - charged(through: peers[slot].applied)
        return isWithin(limit, outstanding + entry.charge) ? .fits : .pending
    }

    private func limit(of entry: WindowEntry, _ room: ReplicaRoom) -> UInt64 {
        UInt64(entry.isTrim ? room.trimBlockCount : room.writeBlockCount)
    }

    /// The replicas that have room for a write which is about to be numbered: they are sent it
    /// whatever becomes of their room.
    func roomySlots(for entry: WindowEntry) -> SlotSet {
        var result = SlotSet()
        for slot in peers.indices where peers[slot].isStreaming {
            if case .fits = verdict(entry, slot) { result.insert(slot) }
        }
        return result
    }

    /// Notes who was not asked for room for the write that was numbered last.
    func notePromises(_ promised: SlotSet) {
        for slot in peers.indices where !promised.contains(slot) {
            peers[slot].lastUnpromised = nextCounter - 1
        }
    }

    /// What the writes of this epoch up to a counter may have taken.
    ///
    /// What the window let go stays in its ring for a while; of what is overwritten there nothing is
    /// known but that a replica which is so far behind is not to be relied on: nothing then.
    private func charged(through counter: UInt64) -> UInt64 {
        guard counter > 0, counter + UInt64(window.count) >= nextCounter else { return 0 }
        return window[windowIndex(counter)].chargedThrough
    }

    /// Whether so much, of which a replica has not applied a part, is within what was told.
    private func isWithin(_ limit: UInt64, _ needed: UInt64) -> Bool {
        // As much as is told is as much as anybody may need.
        limit >= UInt64(ReplicaRoom.plentifulBlockCount) || needed <= limit
    }

    // MARK: - Before it is sent

    /// Whether a replica is sent a write now.
    ///
    /// What it had room for when that was numbered is always sent: somebody may have counted on it.
    func maySend(_ counter: UInt64, to slot: Int) -> Bool {
        let index = windowIndex(counter)
        let entry = window[index]
        let isBold = policy.defect == .roomIgnored
        if entry.promised.contains(slot) || isBold { return true }
        let room = peers[slot].room
        let needed = entry.chargedThrough - charged(through: peers[slot].applied)
        let fits =
            isWithin(limit(of: entry, room), needed)
            && (entry.snapshot == 0 || room.layerCount > 0)
        if fits { window[index].promised.insert(slot) }
        return fits
    }

    /// Whether a replica has room for blocks that it lacks, as many as are on their way at a time.
    func hasRoomToFill(_ slot: Int) -> Bool {
        let outstanding = charged(through: peers[slot].nextToSend - 1)
        let streamed = outstanding - min(charged(through: peers[slot].applied), outstanding)
        let fills = UInt64(policy.fetchCountMax) * (1 + RoomCharge.pageCount)
        return isWithin(UInt64(peers[slot].room.writeBlockCount), streamed + fills)
    }

    /// A replica says what its store has room for.
    func onRoom(_ slot: Int, _ room: ReplicaRoom) { peers[slot].room = room }

    // MARK: - Replicas without room

    /// A block was left out of what a replica is given: there is no room for it.
    func leaveOut(_ slot: Int) { peers[slot].resync?.walk.hasLeftOut = true }

    /// Opens those anew, where the stream is now, who have waited for room for long enough.
    func passByRoomless() {
        for slot in peers.indices {
            guard isStuckForRoom(slot) else {
                peers[slot].stuckForRoomSince = nil
                continue
            }
            guard let since = peers[slot].stuckForRoomSince else {
                peers[slot].stuckForRoomSince = now
                continue
            }
            let isPatient = peers[slot].isComplete || hasRoomToFill(slot)
            let pause =
                isPatient ? policy.roomPatienceNanoseconds : policy.roomRetryNanoseconds
            guard now >= since.advanced(byNanoseconds: pause) else { continue }
            peers[slot].stuckForRoomSince = nil
            peers[slot].isPassedBy = true
            greet(slot)
        }
    }

    /// Whether a replica does not get on for want of room.
    private func isStuckForRoom(_ slot: Int) -> Bool {
        let peer = peers[slot]
        guard peer.isStreaming || peer.isStaging, !peer.isOpening else { return false }
        if peer.isComplete { return peer.waitsForRoomSince != nil }
        guard let resync = peer.resync else { return peer.waitsForRoomSince != nil }
        switch resync.phase {
        case .stageStrays, .stageMissing, .strays, .missing:
            return resync.walk.isDone && resync.walk.hasLeftOut
        case .passing: return peer.waitsForRoomSince != nil
        case .keeping, .told: return false
        }
    }

    // MARK: - What is told

    /// Whether less than W complete replicas have room for a single block, though W are there.
    public var isOutOfRoom: Bool {
        let complete = readableSlots
        var roomy = complete
        for slot in peers.indices where lacksRoom(slot) { roomy.remove(slot) }
        return isQuorum(complete) && !isQuorum(roomy)
    }

    /// The slots of replicas whose stores have no room, a bit for each.
    public var roomlessSlots: UInt8 {
        var bits: UInt8 = 0
        for slot in peers.indices where lacksRoom(slot) { bits |= 1 << UInt8(slot) }
        return bits
    }

    /// Whether a replica's store has no room for a single block, or for what it lacks.
    func lacksRoom(_ slot: Int) -> Bool {
        guard peers[slot].isLinked else { return false }
        return peers[slot].waitsForRoomSince != nil
            || peers[slot].resync?.walk.hasLeftOut == true
            || UInt64(peers[slot].room.writeBlockCount) < 1 + RoomCharge.pageCount
    }
}

extension WindowEntry {
    /// Whether it takes no more than a trim does, which may go deeper.
    fileprivate var isTrim: Bool { snapshot == 0 && payload == .zeroes }

    /// What it takes of a store at most.
    var charge: UInt64 {
        snapshot == 0
            ? RoomCharge.blockCount(range, payload) : RoomCharge.snapshotBlockCount
    }
}
