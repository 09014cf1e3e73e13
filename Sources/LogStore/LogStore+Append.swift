// Appending records: room, sealing, durability.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    // MARK: - Room

    /// Makes the open batch one of `stream` with room for a record.
    ///
    /// - Parameters:
    ///   - stream: Where the record belongs.
    ///   - privilege: How deep into the reserve it may go.
    ///   - tailByteCount: Bytes of tail for the least useful record.
    ///   - payloadBlockCount: Payload blocks of the least useful record.
    /// - Returns: false when no buffer or no segment is free now. What is under way (a write, a
    ///   checkpoint, cleaning) makes room, and ``resourcesChanged`` tells; when nothing is under
    ///   way that could, who waits is refused.
    func makeRoom(
        _ stream: LogStream,
        _ privilege: LogPrivilege,
        tailByteCount: Int,
        payloadBlockCount: Int
    ) -> Bool {
        // For the open batch too: who opened it may go deeper.
        guard segments.reserved.count >= appendFloor(privilege) else {
            wantSpace(privilege)
            return false
        }
        let recordByteCount = RecordHeader.byteCount + tailByteCount
        if log.open >= 0 {
            let batch = log.batches[log.open]
            let recordRoom = BatchHeader.recordByteCountMax - Int(batch.recordByteCount)
            let payloadRoom = Int(batch.payloadBlockCountMax - batch.payloadBlockCount)
            if batch.stream == stream, recordRoom >= recordByteCount,
                payloadRoom >= payloadBlockCount
            {
                return true
            }
            if batch.recordCount == 0 { abandonOpenBatch() } else { sealBatch() }
        }
        return openBatch(stream, privilege, payloadBlockCountMin: payloadBlockCount)
    }

    private func openBatch(
        _ stream: LogStream,
        _ privilege: LogPrivilege,
        payloadBlockCountMin: Int
    ) -> Bool {
        let slot = log.freeSlot()
        guard slot >= 0 else { return false }
        var head = log.heads[stream.rawValue]
        if head.segment >= 0,
            segments.blockCount - Int(head.blockOffset) < 1 + max(payloadBlockCountMin, 1)
        {
            segments.change(Int(head.segment)) { $0.state = .closed }
            head.segment = -1
            log.heads[stream.rawValue] = head
        }
        if head.segment < 0 {
            guard let segment = takeSegment(stream, privilege) else { return false }
            head = StreamHead(segment: Int32(segment), blockOffset: 0)
            log.heads[stream.rawValue] = head
        }
        let room = segments.blockCount - Int(head.blockOffset) - 1
        var batch = Batch()
        batch.state = .open
        batch.stream = stream
        batch.sequence = log.nextSequence
        batch.segment = head.segment
        batch.location = segments.location(of: Int(head.segment)) + UInt64(head.blockOffset)
        batch.payloadBlockCountMax = Int32(min(room, LogWriter.payloadBlockCountMax))
        log.batches[slot] = batch
        log.open = slot
        log.openSince = now
        segments.segments[Int(head.segment)].unwrittenBatchCount += 1
        return true
    }

    private func abandonOpenBatch() {
        let batch = log.batches[log.open]
        segments.segments[Int(batch.segment)].unwrittenBatchCount -= 1
        log.batches[log.open].state = .free
        log.open = -1
    }

    // MARK: - Records

    /// Payload blocks that one more record with `tailByteCountPerBlock` can take now.
    func payloadRoom(tailByteCountPerBlock: Int) -> Int {
        let batch = log.batches[log.open]
        let tailRoom =
            BatchHeader.recordByteCountMax - Int(batch.recordByteCount) - RecordHeader.byteCount
        let payload = Int(batch.payloadBlockCountMax - batch.payloadBlockCount)
        return min(payload, tailRoom / tailByteCountPerBlock)
    }

    /// Puts a record's fixed part into the open batch and reserves its tail and payload.
    ///
    /// - Precondition: ``makeRoom(_:_:tailByteCount:payloadBlockCount:)`` said there is room.
    func beginRecord(_ record: RecordHeader) -> RecordSpan {
        let slot = log.open
        let region = log.region(slot)
        let batch = log.batches[slot]
        let offset = BatchHeader.recordsOffset + Int(batch.recordByteCount)
        let payloadCount = Int(record.payloadBlockCount)
        precondition(
            offset + RecordHeader.byteCount + Int(record.tailByteCount) <= 4096,
            "record beyond the header block"
        )
        precondition(
            Int(batch.payloadBlockCount) + payloadCount <= Int(batch.payloadBlockCountMax),
            "payload beyond the batch"
        )
        record.encode(into: region, at: offset)
        let payloadOffset = (1 + Int(batch.payloadBlockCount)) * 4096
        let span = RecordSpan(
            header: region,
            tailOffset: offset + RecordHeader.byteCount,
            payload: region.slice(payloadOffset, payloadCount * 4096),
            location: batch.location + 1 + UInt64(batch.payloadBlockCount),
            batchSequence: batch.sequence
        )
        log.batches[slot].recordCount += 1
        log.batches[slot].recordByteCount += Int32(RecordHeader.byteCount)
        log.batches[slot].recordByteCount += Int32(record.tailByteCount)
        log.batches[slot].payloadBlockCount += Int32(payloadCount)
        if batch.recordCount == 0 {
            // The sequence counts only batches that have something to say.
            log.nextSequence = batch.sequence + 1
        }
        return span
    }

    // MARK: - Sealing

    /// Hands the open batch to the device.
    func sealBatch() {
        let slot = log.open
        precondition(slot >= 0 && log.batches[slot].recordCount > 0, "nothing to seal")
        let batch = log.batches[slot]
        let region = log.region(slot)
        BatchHeader(
            identity: log.identity,
            incarnation: log.incarnation,
            sequence: batch.sequence,
            location: batch.location,
            payloadBlockCount: UInt32(batch.payloadBlockCount),
            recordCount: batch.recordCount,
            recordByteCount: UInt32(batch.recordByteCount),
            promisedSequence: log.durablePromise
        ).encode(into: region)

        // A durable write says nothing of earlier batches, so it only helps when they are
        // durable already or are being written durably themselves.
        let isWanted = log.durableTarget >= batch.sequence
        let isDurable = isWanted && log.lastVolatile <= log.durableThrough
        if !isDurable { log.lastVolatile = batch.sequence }
        log.batches[slot].isDurableWrite = isDurable
        log.batches[slot].state = .writing
        log.inFlight.append(Int32(slot))
        log.sealedThrough = batch.sequence
        log.open = -1
        let blockCount = 1 + Int(batch.payloadBlockCount)
        log.heads[batch.stream.rawValue].blockOffset += Int32(blockCount)
        // What a checkpoint writes is no reason for the next: a manifest may be larger than what
        // may be written between two.
        if batch.stream.isRepeated {
            log.byteCountSinceCheckpoint += UInt64(blockCount * 4096)
        }
        segments.segments[Int(batch.segment)].lastBatchSequence = batch.sequence
        counters.batchCount += 1
        counters.batchByteCount += UInt64(blockCount * 4096)
        if isDurable { counters.durableBatchCount += 1 }

        let operation = ops.take(.batchWrite, owner: Int32(slot))
        deviceRequests.append(
            DeviceRequest(
                kind: isDurable ? .writeDurable : .write,
                offset: batch.location * 4096,
                region: region.slice(0, blockCount * 4096),
                token: ops.token(operation)
            )
        )
    }

    /// A batch's write ended.
    func finishBatchWrite(_ slot: Int, errno: Int32) {
        guard errno == 0 else {
            fail(.deviceError(errno: errno))
            return
        }
        log.batches[slot].state = .written
        while let first = log.inFlight.first, log.batches[Int(first)].state == .written {
            _ = log.inFlight.popFirst()
            let batch = log.batches[Int(first)]
            log.writtenThrough = batch.sequence
            if batch.stream.isRepeated { log.writtenPromise = batch.sequence }
            if batch.isDurableWrite, log.durableThrough == batch.sequence - 1 {
                log.durableThrough = batch.sequence
                log.durablePromise = log.writtenPromise
            }
            segments.segments[Int(batch.segment)].unwrittenBatchCount -= 1
            log.batches[Int(first)].state = .free
        }
        resourcesChanged = true
        completeDurable()
        issueFlush()
    }

    // MARK: - Durability

    /// Sends a flush when the first who waits has a batch that is written but not durable.
    func issueFlush() {
        guard !log.isFlushing, log.writtenThrough > log.durableThrough,
            let needed = firstDurabilityNeeded, needed <= log.writtenThrough
        else { return }
        log.isFlushing = true
        log.flushingPromise = log.writtenPromise
        counters.flushCount += 1
        let operation = ops.take(.flush, owner: -1)
        ops.operations[operation].location = log.writtenThrough
        deviceRequests.append(.flush(token: ops.token(operation)))
    }

    /// The earliest batch whose durability somebody waits for.
    private var firstDurabilityNeeded: UInt64? {
        var needed = checkpoint.waitSequence ?? UInt64.max
        if let first = durabilityWaiters.first {
            needed = min(needed, requests[Int(first)].waitSequence)
        }
        if let first = durableCommands.first { needed = min(needed, first.waitSequence) }
        return needed == UInt64.max ? nil : needed
    }

    func finishFlush(covering sequence: UInt64, errno: Int32) {
        log.isFlushing = false
        guard errno == 0 else {
            fail(.deviceError(errno: errno))
            return
        }
        log.durableThrough = max(log.durableThrough, sequence)
        log.durablePromise = max(log.durablePromise, log.flushingPromise)
        completeDurable()
        issueFlush()
    }

    /// Completes requests and commands whose batches are durable.
    func completeDurable() {
        while let first = durabilityWaiters.first,
            requests[Int(first)].waitSequence <= log.durableThrough
        {
            _ = durabilityWaiters.popFirst()
            finish(Int(first), .ok)
        }
        completeDurableCommands()
    }

    /// Seals the open batch when its time has come, at the end of a turn.
    func closeTurn() {
        if let segment = segments.miscounted {
            fail(.corrupt(offset: segments.location(of: segment) * 4096))
            return
        }
        if log.hasOpenRecords, shouldSeal() { sealBatch() }
        issueFlush()
    }

    /// Batches written at once while somebody waits: enough to keep the device busy, few
    /// enough that those who arrive meanwhile share the next one.
    ///
    /// Measured: durable writes at QD32 55 to 66,000 a second with 2, 62 to 68,000 with 3, no
    /// better with 4.
    private static var durableInFlightMax: Int { 3 }
    /// Payload blocks at which a batch goes without waiting for company (512 KiB).
    private static var sealBlockCount: Int { 128 }

    private func shouldSeal() -> Bool {
        let batch = log.batches[log.open]
        if Int(batch.payloadBlockCount) >= LogStore.sealBlockCount { return true }
        if log.durableTarget >= batch.sequence {
            return log.inFlight.count < LogStore.durableInFlightMax
        }
        if case .closing = state { return true }
        return now.nanoseconds &- log.openSince.nanoseconds >= configuration.writebackNanoseconds
    }

    /// When the open batch goes at the latest.
    func nextDeadline() -> Instant? {
        // Behind durable batches it goes when one of them ends.
        guard log.hasOpenRecords, log.durableTarget < log.batches[log.open].sequence else {
            return nil
        }
        return log.openSince.advanced(byNanoseconds: configuration.writebackNanoseconds)
    }

    /// Asks for durability of everything appended so far.
    ///
    /// - Returns: The batch to wait for.
    func wantDurable() -> UInt64 {
        let target = log.lastSequenceWithRecords
        log.durableTarget = max(log.durableTarget, target)
        return target
    }

    /// The store stops: a write or a flush failed, so nothing more may be promised.
    func fail(_ error: StoreError) {
        if case .failed = state { return }
        state = .failed(error)
        failEverything()
    }
}

extension LogWriter {
    /// The last batch that has a record.
    var lastSequenceWithRecords: UInt64 {
        hasOpenRecords ? batches[open].sequence : sealedThrough
    }
}
