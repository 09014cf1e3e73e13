// What a replica does for the primary it follows: writes, flushes, reads, resync.

internal import BlockCore

extension ReplicaMachine {
    /// Takes a message of the epoch that the replica follows.
    func onFollowerMessage(_ message: PrimaryMessage, _ link: LinkID, _ now: Instant) {
        func address(_ token: UInt64) -> ReplyAddress {
            ReplyAddress(link: link, epoch: message.epoch, token: token)
        }
        switch message.body {
        case .write(let number, let range, let payload):
            onWrite(message, number, range, payload, link)
        case .flush(let through):
            guard through > durable else {
                tellProgress(to: link)
                return
            }
            streamLink = link
            isFlushWanted = true
            startFlush()
        case .snapshot(let mark): onSnapshot(message, mark, link)
        case .keep(let life, let mark): onKeep(message, life, mark, link, now)
        case .complete(let life): onComplete(message, life, link, now)
        case .recall(let life):
            if life == incarnation, record.isComplete { record.remembers = true }
        case .read(let token, let range, let floor):
            let isBold = policy.defect == .readBehind
            guard range.isValid, range.count <= policy.requestBlockCountMax, record.isComplete,
                applied >= floor || isBold
            else {
                send(.readRefused(token: token), to: link, epoch: message.epoch)
                return
            }
            actions.append(.read(range, address(token)))
        case .weigh(let token, let range):
            guard range.isValid, range.count <= policy.requestBlockCountMax else {
                return ignore(message.body)
            }
            actions.append(.weigh(range, address(token)))
        case .scan(let token, let view, let above, let from):
            guard above.isValid, from < BlockRange.blockCountMax else {
                return ignore(message.body)
            }
            guard hasView(view) else { return onViewMissing(address(token)) }
            actions.append(.scan(view, above: above, from: from, address(token)))
        case .fetch(let token, let view, let block):
            guard block < BlockRange.blockCountMax else { return ignore(message.body) }
            guard hasView(view) else { return onViewMissing(address(token)) }
            actions.append(.fetch(view, block: block, address(token)))
        case .fill(let token, let block, let number, let payload):
            // What an earlier link still brings may belong below a snapshot that was kept since.
            guard block < BlockRange.blockCountMax, number.isValid, link == streamLink,
                number.epoch <= record.accepted, !record.isComplete
            else { return ignore(message.body) }
            actions.append(.fill(block: block, number: number, payload: payload, address(token)))
        case .repair(let block, let number, let payload):
            // One number is one write: whatever has it, has these bytes, complete or not.
            guard block < BlockRange.blockCountMax, number.isValid, number != .zero,
                number.epoch <= record.accepted
            else { return ignore(message.body) }
            actions.append(.repair(block: block, number: number, payload: payload))
        case .seal, .open, .renew, .release:
            preconditionFailure("handled before")
        }
    }

    /// Appends the next write of the stream; what was there already, or skips one, is ignored.
    private func onWrite(
        _ message: PrimaryMessage,
        _ number: WriteNumber,
        _ range: BlockRange,
        _ payload: PayloadID,
        _ link: LinkID
    ) {
        guard number.isValid, number.epoch == message.epoch, range.isValid,
            range.count <= policy.requestBlockCountMax
        else { return ignore(message.body) }
        if policy.defect == .lowerEpochAccepted, message.epoch < record.accepted {
            let counter = number.counter
            actions.append(.append(number: number, range: range, payload: payload))
            staleAppendCount += 1
            send(.progress(applied: counter, durable: counter), to: link, epoch: message.epoch)
            return
        }
        guard number.counter == received + 1 else { return ignore(message.body) }
        streamLink = link
        received += 1
        actions.append(.append(number: number, range: range, payload: payload))
    }

    /// Says how far the stream is, to whom it comes from.
    func tellProgress() {
        if let streamLink { tellProgress(to: streamLink) }
    }

    private func tellProgress(to link: LinkID) {
        // What was not taken yet is said anew, not twice.
        if case .send(link, let last)? = actions.last, case .progress = last.body,
            last.epoch == record.accepted
        {
            actions.removeLast()
        }
        tellRoom(to: link)
        send(.progress(applied: applied, durable: durable), to: link, epoch: record.accepted)
    }

    /// Says what the store has room for, where the stream comes from, if that is not known there.
    ///
    /// Before what is told of progress: what is applied has taken its part of it.
    func tellRoom(to link: LinkID) {
        guard link == streamLink, room != toldRoom else { return }
        toldRoom = room
        if room != .plentiful { hasLackedRoom = true }
        send(.room(room), to: link, epoch: record.accepted)
    }

    /// Starts a flush when one is wanted and none is under way: it covers all that was received.
    func startFlush() {
        guard isFlushWanted, !isFlushing else { return }
        isFlushWanted = false
        isFlushing = true
        flushThrough = received
        actions.append(.flush)
    }

    // MARK: - Ends of storage operations

    /// An old block is in memory.
    public func onFilled(_ address: ReplyAddress) { answer(address, .filled(token: address.token)) }

    /// It is known how much room a range would take.
    ///
    /// - Parameters:
    ///   - address: As in the action.
    ///   - blockCount: Blocks of which there is no copy above all snapshots.
    public func onWeighed(_ address: ReplyAddress, blockCount: UInt32) {
        answer(address, .weighed(token: address.token, blockCount: blockCount))
    }

    /// An old block found no room.
    public func onFillRefused(_ address: ReplyAddress) {
        answer(address, .fillRefused(token: address.token))
    }

    /// A client's read ended.
    ///
    /// - Parameters:
    ///   - address: As in the action.
    ///   - payload: The bytes.
    ///   - number: The greatest number among the blocks.
    public func onRead(_ address: ReplyAddress, payload: PayloadID, number: WriteNumber) {
        answer(address, .readDone(token: address.token, payload: payload, number: number))
    }

    /// A client's read met a block whose bytes do not have their checksum, or cannot be read.
    ///
    /// - Parameters:
    ///   - address: As in the action.
    ///   - block: The first such block; it may be repaired from another replica.
    public func onReadFailed(_ address: ReplyAddress, block: UInt64) {
        answer(address, .readFailed(token: address.token, block: block))
    }

    /// The same of a block that was to be fetched.
    ///
    /// - Parameters:
    ///   - address: As in the action.
    ///   - number: The number of the copy: who has the same has the same bytes.
    public func onFetchFailed(_ address: ReplyAddress, number: WriteNumber) {
        answer(address, .fetchFailed(token: address.token, number: number))
    }

    /// Entries of one answer to a scan.
    public var scanCountMax: Int { policy.scanCountMax }

    /// A block was read.
    public func onFetched(_ address: ReplyAddress, payload: PayloadID, number: WriteNumber) {
        answer(address, .fetched(token: address.token, payload: payload, number: number))
    }

    /// Blocks above a number were found.
    public func onScanned(_ address: ReplyAddress, entries: [ScanEntry], next: UInt64?) {
        answer(address, .scanned(token: address.token, entries: entries, next: next))
    }

    /// The snapshot that was to be looked at is not here any more.
    public func onViewMissing(_ address: ReplyAddress) {
        answer(address, .viewMissing(token: address.token))
    }

    /// Answers, unless the epoch that asked is over by now.
    private func answer(_ address: ReplyAddress, _ body: ReplicaMessage.Body) {
        guard address.epoch == record.promised || policy.defect == .lowerEpochAccepted else {
            send(.refused(promised: record.promised), to: address.link, epoch: address.epoch)
            return release(body.payload)
        }
        send(body, to: address.link, epoch: address.epoch)
    }
}
