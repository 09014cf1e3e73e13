// A store in which nothing moves any more: who waits for room is told that there is none.

internal import BlockCore

extension LogStore {
    /// Refuses who waits for room when nothing is under way that could ever make any.
    ///
    /// After damage, for one, the cleaner cannot give back what the count of live blocks promises.
    /// Where it is the checkpoint that waits, the store stops.
    ///
    /// - Returns: Whether that changed anything.
    func refuseStuck() -> Bool {
        guard noteRest(), !log.hasOpenRecords else { return false }
        guard checkpoint.isIdle else {
            // A checkpoint may take what is left of the device. When that is not enough, nothing
            // can be made durable any more: clients learn that instead of waiting for ever.
            fail(.noRoom)
            return true
        }
        guard cleaner.isIdle else {
            deferVictim()
            return true
        }
        if retryTrims() { return true }
        // One at a time: who comes next may want less.
        if let slot = writeWaiters.popFirst() {
            finish(Int(slot), .noSpace)
            return true
        }
        guard let first = commands.first, first.trimSlot < 0 else { return false }
        commands.removeFirst()
        commandCompletions.append(
            CommandCompletion(token: first.token, result: .failure(.noSpace))
        )
        return true
    }

    /// Finds out whether nothing is under way that could make room.
    ///
    /// Reads could go on for ever, for clients who only read, and some of them bring pages that
    /// background work or a write waits for. So who waits is given the time that a failing device
    /// takes to answer.
    ///
    /// - Returns: Whether who waits may be refused.
    private func noteRest() -> Bool {
        guard ops.inFlightCount > 0 else {
            restMark = nil
            return true
        }
        guard ops.inFlightCount == ops.readCount, !writeWaiters.isEmpty || !commands.isEmpty else {
            restMark = nil
            return false
        }
        let mark =
            changeCount &+ log.sealedThrough &+ cleaner.judgedCount &+ layerJob.pageCount
        guard let rest = restMark, rest.mark == mark else {
            restMark = (mark, now)
            return false
        }
        return now.nanoseconds &- rest.since.nanoseconds >= LogStore.restNanosecondsMax
    }

    /// Time in which nothing but reads was under way, and nothing came of them for the log, after
    /// which who waits for room is refused: twice what the kernel gives a device for a command.
    private static var restNanosecondsMax: UInt64 { 60_000_000_000 }

    /// Tries the trims behind a write that must wait: they are what makes room.
    ///
    /// - Returns: Whether one of them went on.
    private func retryTrims() -> Bool {
        let count = writeWaiters.count
        let before = changeCount
        for _ in 0..<count {
            guard let slot = writeWaiters.popFirst() else { break }
            switch requests[Int(slot)].request.kind {
            case .trim, .writeZeroes: advance(Int(slot))
            case .read, .write, .flush, .cache, .blockStatus, .scan: writeWaiters.append(slot)
            }
        }
        return writeWaiters.count < count || changeCount > before
    }
}
