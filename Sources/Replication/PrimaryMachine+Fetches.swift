// Blocks on their way from one replica to where they are needed: for the tail of a takeover, for a
// replica that comes back, for a copy that is damaged.

internal import BlockCore

extension PrimaryMachine {
    /// A block has come from whom it was asked of.
    func onFetched(
        _ slot: Int,
        _ token: UInt64,
        _ payload: PayloadID,
        _ number: WriteNumber
    ) {
        guard let index = fetches.firstIndex(where: { $0.token == token && $0.helper == slot }),
            !fetches[index].isFilling, number.isValid, number.epoch <= epoch
        else {
            ignoredCount += 1
            return release(payload)
        }
        let fetch = fetches[index]
        if let wanted = fetch.wanted, number != wanted,
            !isAuthority(slot, fetch) || fetch.asked != fetch.view
        {
            release(payload)
            // What a stage has overwritten is below a snapshot, and older than its number says.
            guard slot == fetch.slot, fetch.purpose == .missing, number > wanted,
                number.counter < WriteNumber.writeCounterMax
            else { return askAnother(index) }
            // What it lacks nobody else has, and it has a newer one.
            pass(slot, number)
            return finish(index)
        }
        switch fetch.purpose {
        case .renewal: rewrite(index, payload)
        case .stray:
            // The helper's copy may be as new: then it is no stray, or it is filled anyway.
            let isStray = !fetch.isCancelled && number < fetch.entry.number
            if isStray { return rewrite(index, payload) }
            pass(fetch.slot, fetch.isCancelled ? lastNumber : number)
            finish(index)
            release(payload)
        case .missing:
            pass(fetch.slot, number)
            fill(index, number, payload)
        case .stageStray:
            // What is in the snapshot stays, or its successor is filled; anything else is overwritten
            // under a number that no write has.
            guard number != fetch.entry.number, let resync = peers[fetch.slot].resync else {
                finish(index)
                return release(payload)
            }
            fill(index, number > fetch.entry.number ? number : resync.stageNumber, payload)
        case .stageMissing: fill(index, number, payload)
        case .repair:
            finish(index)
            if number != .zero, peers[fetch.slot].isStreaming {
                let block = fetch.entry.block
                send(.repair(block: block, number: number, payload: payload), to: fetch.slot)
            }
            release(payload)
        }
    }

    /// Sends a block to the replica that lacks it.
    private func fill(_ index: Int, _ number: WriteNumber, _ payload: PayloadID) {
        guard !payload.hasBytes || hasRoomToFill(fetches[index].slot) else {
            leaveOut(fetches[index].slot)
            finish(index)
            return release(payload)
        }
        fetches[index].isFilling = true
        let fetch = fetches[index]
        let block = fetch.entry.block
        send(
            .fill(token: fetch.token, block: block, number: number, payload: payload),
            to: fetch.slot
        )
        release(payload)
    }

    /// The block is damaged where it was asked for.
    func onFetchFailed(_ slot: Int, _ token: UInt64, _ number: WriteNumber) {
        guard let index = fetches.firstIndex(where: { $0.token == token && $0.helper == slot }),
            !fetches[index].isFilling, number.isValid
        else {
            ignoredCount += 1
            return
        }
        // A repair can wait for the next read, and what has the same number has the same bytes.
        let isSame = fetches[index].purpose == .stageStray && number == fetches[index].entry.number
        guard fetches[index].purpose != .repair, !isSame else { return finish(index) }
        let fetch = fetches[index]
        if isAuthority(slot, fetch), fetch.asked == fetch.view { fetches[index].wanted = number }
        askAnother(index)
    }

    /// Whether what a replica has of a block is what is wanted, whatever its number.
    private func isAuthority(_ slot: Int, _ fetch: Fetch) -> Bool {
        switch fetch.purpose {
        case .renewal: slot == sourceSlot
        case .stray: canHelp(slot, fetch.slot) && peers[slot].applied + 1 >= windowStart
        case .missing: canHelp(slot, fetch.slot)
        case .stageStray, .stageMissing: canShow(slot, fetch.view)
        case .repair: true
        }
    }

    /// Asks the next replica for a block that the one asked does not have whole; when all were
    /// asked, begins anew after a while: others may have come, or theirs been repaired.
    ///
    /// First those that are as good, then anybody who may have the very same copy: even the one
    /// that is thought to lack it.
    func askAnother(_ index: Int) {
        if fetches[index].helper >= 0 { fetches[index].failed.insert(fetches[index].helper) }
        let fetch = fetches[index]
        let others = peers.indices.filter {
            (peers[$0].isStreaming || peers[$0].isFillable) && !fetch.failed.contains($0)
        }
        let authority = others.first { isAuthority($0, fetch) }
        guard let next = authority ?? (fetch.wanted == nil ? nil : others.first) else {
            fetches[index].helper = -1
            fetches[index].failed = SlotSet()
            fetches[index].retryAt = now.advanced(byNanoseconds: PrimaryMachine.retryNanoseconds)
            return
        }
        if fetch.purpose == .stray, next == authority,
            isBeingWritten(fetch.entry.block, beyond: next)
        {
            // What the one asked before may have had already, this one lacks.
            pass(fetch.slot, lastNumber)
            return finish(index)
        }
        fetches[index].helper = next
        fetches[index].asked = next == authority ? fetch.view : .volume
        fetches[index].token = takeToken()
        send(
            .fetch(
                token: fetches[index].token,
                view: fetches[index].asked,
                block: fetch.entry.block
            ),
            to: next
        )
    }

    /// After how long a block that is damaged wherever it was looked for is looked for again.
    private static var retryNanoseconds: UInt64 { 1_000_000_000 }

    /// Asks again for blocks that were damaged everywhere.
    func retryFetches() {
        for index in fetches.indices.reversed() {
            guard let time = fetches[index].retryAt, now >= time else { continue }
            fetches[index].retryAt = nil
            askAnother(index)
        }
    }

    /// Writes a block again under a new number.
    private func rewrite(_ index: Int, _ payload: PayloadID) {
        let fetch = fetches[index]
        let range = BlockRange(first: fetch.entry.block, count: 1)
        guard hasRoom() else {
            // The window will move: ask again then.
            retry(index)
            return release(payload)
        }
        finish(index)
        // Whatever room there is: the reserve is for it, and nobody can be told that there is none.
        number(WindowEntry(range: range, payload: payload, promised: .all))
        if fetch.purpose == .stray {
            pass(fetch.slot, lastNumber)
        }
    }

    private var lastNumber: WriteNumber { WriteNumber(epoch: epoch, counter: nextCounter - 1) }

    /// The number that the next write gets.
    package var nextNumber: WriteNumber { WriteNumber(epoch: epoch, counter: nextCounter) }

    /// A block has reached the replica that lacked it.
    func onFilled(_ slot: Int, _ token: UInt64) {
        guard let index = fetches.firstIndex(where: { $0.token == token && $0.slot == slot }),
            fetches[index].isFilling
        else {
            ignoredCount += 1
            return
        }
        finish(index)
    }

    /// A replica had no room for a block that it lacks.
    func onFillRefused(_ slot: Int, _ token: UInt64) {
        leaveOut(slot)
        onFilled(slot, token)
    }

    /// Ends a fetch; its walk has one less under way.
    private func finish(_ index: Int) {
        let fetch = fetches.remove(at: index)
        if fetch.isUnhurried { budget.end() }
        switch fetch.purpose {
        case .renewal: renewal?.inflightCount -= 1
        case .stray, .missing, .stageStray, .stageMissing:
            peers[fetch.slot].resync?.walk.inflightCount -= 1
        case .repair: break
        }
    }

    /// Puts a fetch back, to be made again.
    private func retry(_ index: Int) {
        let fetch = fetches[index]
        finish(index)
        switch fetch.purpose {
        case .renewal: renewal?.todo.append(fetch.entry)
        case .stray, .missing, .stageStray, .stageMissing:
            peers[fetch.slot].resync?.walk.todo.append(fetch.entry)
        case .repair: break
        }
    }

    /// Expects no block any more.
    func endFetches() {
        budget.end(fetches.count(where: \.isUnhurried))
        fetches.removeAll()
    }

    /// Forgets what a replica was asked for, or needed.
    func dropFetches(of slot: Int) {
        for index in fetches.indices.reversed() {
            if fetches[index].slot == slot, fetches[index].purpose != .renewal {
                let fetch = fetches.remove(at: index)
                if fetch.isUnhurried, policy.defect != .budgetLeaked { budget.end() }
            } else if fetches[index].helper == slot, !fetches[index].isFilling {
                retry(index)
            }
        }
        for other in peers.indices where peers[other].resync?.walk.slot == slot {
            // What was scanned stays scanned: the next helper has at least as much.
            peers[other].resync?.walk.token = 0
        }
    }
}
