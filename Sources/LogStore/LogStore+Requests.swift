// Accepting, running and ending block requests.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    /// Leaves that one request handles before others get their turn.
    static var leafCountPerTurn: Int { 512 }

    func takeRequestSlot() -> Int {
        precondition(freeRequest >= 0, "more requests than requestCountMax")
        let slot = Int(freeRequest)
        freeRequest = requests[slot].next
        requestsInFlight += 1
        return slot
    }

    /// Validates a request and starts it.
    func begin(_ slot: Int, _ request: StoreRequest) {
        var entry = RequestSlot()
        entry.request = request
        entry.phase = .working
        requests[slot] = entry
        if let refusal = validate(request) {
            finish(slot, refusal)
            return
        }
        let shift = BlockGeometry.blockShift
        requests[slot].cursor = request.offset >> shift
        requests[slot].end = (request.offset + request.byteCount + 4095) >> shift
        switch request.kind {
        case .flush:
            beginFlush(slot)
            return
        case .write:
            markPartialBlocks(slot)
        case .read, .writeZeroes, .trim, .cache, .blockStatus, .scan:
            break
        }
        advance(slot)
    }

    private func validate(_ request: StoreRequest) -> StoreStatus? {
        guard Int(request.volume.rawValue) < catalogue.openVolumeCountMax else { return .invalid }
        switch state {
        case .ready: break
        case .failed(let error):
            switch request.kind {
            case .read, .blockStatus, .scan: if superblock != nil { return validateRange(request) }
            case .write, .writeZeroes, .trim, .flush, .cache: break
            }
            if case .deviceError = error { return .mediaError }
            return .unavailable
        case .opening, .closing, .closed: return .unavailable
        }
        return validateRange(request)
    }

    private func validateRange(_ request: StoreRequest) -> StoreStatus? {
        let volume = catalogue.open[Int(request.volume.rawValue)]
        guard volume.isUsed else { return .invalid }
        if request.kind == .flush { return nil }
        let (end, overflow) = request.offset.addingReportingOverflow(request.byteCount)
        guard !overflow, end <= volume.byteCount else { return .invalid }
        guard (request.offset | request.byteCount) & volume.blockMask == 0 else { return .invalid }
        switch request.kind {
        case .write, .writeZeroes, .trim:
            guard numberIsValid(request) else { return .invalid }
            let isRepair = request.flags.contains(.repair)
            if volume.isReadOnly, request.byteCount > 0, !isRepair { return .readOnly }
        case .scan:
            guard scanIsValid(request) else { return .invalid }
        case .read, .flush, .cache, .blockStatus:
            break
        }
        guard request.byteCount > 0 else { return .ok }
        if request.kind == .write || request.kind == .read {
            let blockCount = Int((end + 4095) >> 12) - Int(request.offset >> 12)
            guard request.region.byteCount >= blockCount * 4096 || request.kind == .write,
                request.region.byteCount >= Int(request.byteCount)
            else { return .invalid }
        }
        return nil
    }

    /// Goes on with a request until it ends or must wait, and queues it where it waits.
    func advance(_ slot: Int) {
        let kind = requests[slot].request.kind
        let progress =
            switch kind {
            case .read: advanceRead(slot)
            case .write where requests[slot].request.flags.contains(.repair): advanceRepair(slot)
            case .write:
                requests[slot].request.number == 0 ? advanceWrite(slot) : advanceNumbered(slot)
            case .writeZeroes, .trim:
                requests[slot].request.number == 0 ? advanceZero(slot) : advanceNumbered(slot)
            case .cache: advanceCache(slot)
            case .blockStatus: advanceStatus(slot)
            case .scan: advanceScan(slot)
            case .flush: Progress.done
            }
        guard case .needsResource = progress else { return }
        switch kind {
        case .read, .cache, .blockStatus, .scan: readWaiters.append(Int32(slot))
        case .write, .writeZeroes, .trim, .flush: writeWaiters.append(Int32(slot))
        }
    }

    /// Runs requests whose page arrived, and those who waited for something that changed.
    func runRequests() {
        while let slot = runnable.popFirst() { advance(Int(slot)) }
        guard resourcesChanged else { return }
        resourcesChanged = false
        run(readWaiters)
        run(writeWaiters)
        while let slot = runnable.popFirst() { advance(Int(slot)) }
    }

    /// Tries waiters in order, and stops at the first that must wait again.
    private func run(_ waiters: FixedRing<Int32>) {
        var remaining = waiters.count
        while remaining > 0, let slot = waiters.popFirst() {
            remaining -= 1
            let before = waiters.count
            advance(Int(slot))
            if waiters.count > before {
                // It went to the back of the queue: turn the rest behind it, keeping order.
                for _ in 0..<remaining {
                    if let next = waiters.popFirst() { waiters.append(next) }
                }
                return
            }
        }
    }

    /// Puts a request into a page's wait list.
    func wait(_ slot: Int, forFrame frame: Int) {
        requests[slot].next = map.frames[frame].waitHead
        map.frames[frame].waitHead = Int32(slot)
    }

    /// Makes every request that waits for a page runnable.
    func wake(_ frame: Int) {
        var slot = map.frames[frame].waitHead
        map.frames[frame].waitHead = -1
        while slot >= 0 {
            let next = requests[Int(slot)].next
            runnable.append(slot)
            slot = next
        }
    }

    // MARK: - Ending

    /// Ends a request.
    func finish(_ slot: Int, _ status: StoreStatus) {
        let entry = requests[slot]
        precondition(entry.phase != .free, "request ended twice")
        var completion = StoreCompletion(token: entry.request.token, status: status)
        if status == .mediaError {
            lastFailedVolume = catalogue.open[Int(entry.request.volume.rawValue)].volume
        }
        if status == .ok {
            switch entry.request.kind {
            case .read: describeRead(entry, &completion)
            case .blockStatus, .scan:
                completion.extentCount = entry.extentCount
                completion.byteCount = entry.coveredByteCount
            case .write where entry.request.flags.contains(.repair):
                completion.extentCount = entry.extentCount
            case .writeZeroes where entry.request.flags.contains(.weigh):
                completion.extentCount = entry.extentCount
            case .write, .writeZeroes, .trim, .flush, .cache: break
            }
        }
        if status == .mediaError, entry.request.kind == .read {
            // What the damaged copy is can be told, unless a map page is what cannot be read.
            completion.number = entry.numberMax
            let first = entry.request.offset >> BlockGeometry.blockShift
            if entry.failedBlock != .max {
                completion.byteCount = (entry.failedBlock - first) << BlockGeometry.blockShift
            }
        }
        releaseScratch(slot)
        requests[slot].phase = .free
        requests[slot].next = freeRequest
        freeRequest = Int32(slot)
        requestsInFlight -= 1
        if slot == trimRequest {
            trimRequest = -1
            trimStatus = status
            return
        }
        completions.append(completion)
    }

    private func describeRead(_ entry: RequestSlot, _ completion: inout StoreCompletion) {
        let request = entry.request
        completion.byteCount = request.byteCount
        completion.number = entry.numberMax
        guard entry.dataMask != 0 else { return }
        let start = Int(request.offset & 4095)
        if entry.cacheFrame >= 0 {
            completion.region =
                cache.block(entry.cacheFrame).slice(start, Int(request.byteCount))
        } else {
            completion.region = request.region.slice(start, Int(request.byteCount))
        }
        guard start == 0 else { return }
        let partBlockCount = holePartBlockCount(request)
        let partCount =
            (entry.end - (request.offset >> 12) + partBlockCount - 1) / partBlockCount
        let all = partCount >= 64 ? UInt64.max : (1 << partCount) - 1
        completion.holeMask = ~entry.dataMask & all
        completion.holePartByteCount = UInt32(partBlockCount * 4096)
    }

    /// Blocks per bit of a read's hole mask: the range in at most 64 parts.
    func holePartBlockCount(_ request: StoreRequest) -> UInt64 {
        let blockCount =
            ((request.offset + request.byteCount + 4095) >> 12) - (request.offset >> 12)
        return max((blockCount + 63) / 64, 1)
    }

    func releaseScratch(_ slot: Int) {
        if requests[slot].head.scratch >= 0 {
            scratch.give(requests[slot].head.scratch)
            requests[slot].head.scratch = -1
        }
        if requests[slot].tail.scratch >= 0 {
            scratch.give(requests[slot].tail.scratch)
            requests[slot].tail.scratch = -1
        }
    }

    /// Ends a change: at once in memory, or when it is durable.
    ///
    /// Of a numbered change in a writethrough volume too it is the flush that makes it durable, one
    /// for many: such changes come one after the other, and would be made durable one by one.
    func finishChange(_ slot: Int) {
        let request = requests[slot].request
        let volume = catalogue.open[Int(request.volume.rawValue)]
        guard
            request.flags.contains(.forceUnitAccess)
                || volume.isWritethrough && request.number == 0
        else {
            finish(slot, .ok)
            return
        }
        waitUntilDurable(slot)
    }

    private func beginFlush(_ slot: Int) { waitUntilDurable(slot) }

    private func waitUntilDurable(_ slot: Int) {
        let target = wantDurable()
        guard target > log.durableThrough else {
            finish(slot, .ok)
            return
        }
        requests[slot].phase = .hardening
        requests[slot].waitSequence = target
        releaseScratch(slot)
        durabilityWaiters.append(Int32(slot))
    }

    /// After a failure: everything that waits is refused.
    func failEverything() {
        while let slot = durabilityWaiters.popFirst() { finish(Int(slot), .mediaError) }
        while let slot = writeWaiters.popFirst() { finish(Int(slot), .mediaError) }
        // Those are in the log, and replay may find them there.
        for pending in durableCommands {
            commandCompletions.append(
                CommandCompletion(token: pending.token, result: .failure(.uncertain))
            )
        }
        for pending in commands {
            commandCompletions.append(
                CommandCompletion(token: pending.token, result: .failure(.unavailable))
            )
        }
        commands = []
        durableCommands = []
    }

    // MARK: - Device completions

    /// Hands a device completion to whoever asked.
    func finishOperation(_ completion: DeviceCompletion) {
        guard let index = ops.find(completion.token) else { return }
        let operation = ops.operations[index]
        switch operation.kind {
        case .requestRead: finishRequestRead(index, operation, completion.errno)
        case .scratchRead: finishScratchRead(index, operation, completion.errno)
        case .pageRead: finishPageRead(operation, completion.errno)
        case .batchWrite, .flush, .superblockWrite, .recoveryRead, .recoveryWrite, .cleanerRead:
            break
        }
        ops.release(index)
        resourcesChanged = true
        switch operation.kind {
        case .batchWrite: finishBatchWrite(Int(operation.owner), errno: completion.errno)
        case .flush: finishFlush(covering: operation.location, errno: completion.errno)
        case .superblockWrite: finishSuperblockWrite(errno: completion.errno)
        case .recoveryRead:
            finishRecoveryRead(location: operation.location, errno: completion.errno)
        case .recoveryWrite: finishRecoveryWrite(errno: completion.errno)
        case .cleanerRead: finishCleanerRead(errno: completion.errno)
        case .requestRead, .scratchRead, .pageRead: break
        }
    }
}
