// Snapshots: entries of the stream, and how a replica that missed some is given them.
//
// A replica that missed snapshots gets them one by one, the oldest first: the blocks of the snapshot that
// it lacks, with the numbers they have, then the word to keep what it has as that snapshot. Only then does
// it take the stream. So nothing ever has to go below a snapshot that is there.

public import BlockCore

extension PrimaryMachine {
    /// Takes a request for a snapshot: of what is acknowledged now, and of nothing sent after its end.
    ///
    /// Asked again for the same, it says the number that it has.
    ///
    /// - Parameters:
    ///   - token: Comes back with the end: ``ClientResult/written(_:)`` with the snapshot's number,
    ///     once W replicas have it durably, or ``ClientResult/noRoom``.
    ///   - id: The snapshot's id, which no other one has.
    ///   - now: The time.
    /// - Returns: False when it cannot be taken now, or there are ``SnapshotMark/countMax``.
    /// - Precondition: The id is not 0.
    public func submitSnapshot(token: UInt64, id: UInt64, now: Instant) -> Bool {
        precondition(id != 0, "a snapshot without id")
        let isKnown = isKnown(id)
        guard isKnown || snapshots.count + waitingSnapshotCount < SnapshotMark.countMax,
            let slot = takeRequest(.snapshot, token, now)
        else { return false }
        requests[slot].snapshot = id
        requests[slot].isForced = true
        if isKnown { awaitSnapshot(slot) } else { waitingWrites.append(Int32(slot)) }
        pump()
        return true
    }

    /// Whether a snapshot is there, or on its way.
    public func isKnown(_ id: UInt64) -> Bool { snapshots.contains { $0.id == id } }

    /// Waits for a snapshot that is on its way, or safe already: whatever is numbered by now covers
    /// it.
    func awaitSnapshot(_ slot: Int) {
        requests[slot].through = nextCounter - 1
        flushWanted = max(flushWanted, nextCounter - 1)
        forcedWrites.append(Int32(slot))
    }

    private var waitingSnapshotCount: Int {
        (0..<requests.count).count { requests[$0].kind == .snapshot }
    }

    /// A snapshot was deleted, by whoever manages the volume, or is not where it was looked for:
    /// replicas that are being given it begin anew, without it.
    public func forgetSnapshot(_ id: UInt64) {
        snapshots.removeAll { $0.id == id }
        guard state != .stopped else { return }
        for slot in peers.indices where peers[slot].resync?.stage?.id == id { greet(slot) }
    }

    /// A snapshot gets the next number: from now on nobody who is not complete takes the stream
    /// before having it.
    func noteSnapshot(_ id: UInt64) {
        snapshots.append(SnapshotMark(id: id, number: nextNumber))
        if policy.defect == .snapshotsNotStaged { return }
        for slot in peers.indices
        where !peers[slot].isComplete && (peers[slot].isStreaming || peers[slot].isOpening)
            && !peers[slot].isStaging
        {
            greet(slot)
        }
    }

    // MARK: - Stages

    /// The oldest snapshot that a replica lacks.
    func nextStage(_ slot: Int) -> SnapshotMark? {
        snapshots.first { $0.number > peers[slot].common }
    }

    /// Begins with the next snapshot, or, when it has all, has it take the stream.
    func beginStage(_ slot: Int) {
        guard let mark = nextStage(slot) else { return endStages(slot) }
        guard stageNumberMin.counter + stageCount < WriteNumber.counterMax else {
            return stop(.numbersExhausted)
        }
        stageCount += 1
        guard !peers[slot].areStraysGone else {
            peers[slot].resync = missingBlocks(of: mark, slot)
            return
        }
        var walk = BlockWalk(slot: slot, above: peers[slot].common)
        walk.fetched = .snapshot(mark.id)
        peers[slot].resync = Resync(
            phase: .stageStrays,
            walk: walk,
            stage: mark,
            stageNumber: WriteNumber(
                epoch: stageNumberMin.epoch,
                counter: stageNumberMin.counter + stageCount
            )
        )
    }

    /// The least number under which blocks are overwritten in stages of this epoch: greater than those
    /// of all writes before it, and less than those of its own.
    var stageNumberMin: WriteNumber {
        WriteNumber(epoch: Epoch(epoch.rawValue - 1), counter: WriteNumber.writeCounterMax)
    }

    private func missingBlocks(of mark: SnapshotMark, _ slot: Int) -> Resync {
        var walk = BlockWalk(slot: -1, above: peers[slot].common)
        walk.scanned = .snapshot(mark.id)
        walk.fetched = .snapshot(mark.id)
        return Resync(phase: .stageMissing, walk: walk, stage: mark)
    }

    /// Goes on with the snapshot that a replica is given.
    func advanceStage(_ resync: inout Resync, _ slot: Int) {
        guard let mark = resync.stage else { preconditionFailure("a stage of no snapshot") }
        switch resync.phase {
        case .stageStrays:
            advance(&resync.walk, purpose: .stageStray, of: slot)
            guard isWhole(resync.walk) else { return }
            peers[slot].areStraysGone = true
            resync = missingBlocks(of: mark, slot)
        case .stageMissing:
            if resync.walk.slot < 0 || !canShow(resync.walk.slot, resync.walk.scanned) {
                guard let helper = peers.indices.first(where: { canShow($0, resync.walk.scanned) })
                else { return }
                resync.walk.slot = helper
                resync.walk.token = 0
            }
            advance(&resync.walk, purpose: .stageMissing, of: slot)
            guard isWhole(resync.walk), let life = peers[slot].incarnation else { return }
            guard peers[slot].room.layerCount > 0 else {
                resync.walk.hasLeftOut = true
                return
            }
            resync.phase = .keeping
            send(.keep(life, mark), to: slot)
        default: return
        }
    }

    /// A replica has kept the snapshot, durably: it has everything up to there.
    func onKept(_ slot: Int, _ number: WriteNumber) {
        guard let resync = peers[slot].resync, resync.phase == .keeping,
            resync.stage?.number == number
        else {
            ignoredCount += 1
            return
        }
        peers[slot].common = number
        peers[slot].resync = nil
    }

    /// A replica has all snapshots: it takes the stream, from where the window can serve it.
    private func endStages(_ slot: Int) {
        let common = peers[slot].common
        let first = common.epoch == epoch ? common.counter + 1 : 1
        let start = max(windowStart, first)
        peers[slot].isStaging = false
        peers[slot].isOpening = true
        peers[slot].isHolding = true
        peers[slot].nextToSend = start
        peers[slot].streamStart = start
        peers[slot].applied = start - 1
        send(.open(lineage: lineage, start: start), to: slot)
    }

    /// Whether a replica has all of a snapshot.
    func canShow(_ slot: Int, _ view: ReplicaView) -> Bool {
        guard case .snapshot(let id) = view, let mark = snapshots.first(where: { $0.id == id })
        else { return false }
        let peer = peers[slot]
        return peer.isComplete && peer.isStreaming
            && (mark.number.epoch < epoch || peer.applied >= mark.number.counter)
    }

    /// The snapshot that was to be looked at was deleted meanwhile.
    func onViewMissing(_ slot: Int, _ token: UInt64) {
        if let index = fetches.firstIndex(where: { $0.token == token && $0.helper == slot }) {
            if case .snapshot(let id) = fetches[index].view { forgetSnapshot(id) }
            return
        }
        let target = peers.first { $0.resync?.walk.token == token && $0.resync?.walk.slot == slot }
        guard let mark = target?.resync?.stage else {
            ignoredCount += 1
            return
        }
        forgetSnapshot(mark.id)
    }
}
