// Replies with data: small ones copied, large ones by reference, holes without data, and replies
// that must be one message although their data comes in parts.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire

extension Worker {
    /// Writes the data of a finished read, whole or part; `replySlot` keeps the reply's account.
    ///
    /// - Returns: false, and nothing is changed, when there is no room.
    func emitRead(_ slot: Int32, reply replySlot: Int32, _ connection: Connection) -> Bool {
        guard var reply = slots[replySlot].reply else { preconditionFailure("no reply begun") }
        // Another part has failed; the client has been told.
        guard !reply.isFinished else { return true }
        let isWritten: Bool
        if slots[slot].status != .ok {
            isWritten = writeFailure(slot, &reply, connection)
            if isWritten { slots[replySlot].isAbandoned = true }
        } else if slots[slot].data.isEmpty, reply.mode != .simple {
            isWritten = writeHole(slot, &reply, connection)
        } else if slots[slot].holeMask != 0, !reply.mustBeWhole {
            isWritten = writeRuns(slot, &reply, connection)
        } else {
            isWritten = writeData(slot, &reply, connection)
        }
        if isWritten { slots[replySlot].reply = reply }
        return isWritten
    }

    private func writeFailure(
        _ slot: Int32,
        _ reply: inout NBDReadReply,
        _ connection: Connection
    ) -> Bool {
        guard ensureRoom(connection, byteCount: NBDReply.failureByteCountMax + 64) else {
            return false
        }
        counters.errorCount &+= 1
        let failure = ReplyFailure(slots[slot].status, isStopping: isStopping)
        let byteCount = reply.failure(
            failure.error,
            text: failure.text,
            failedOffset: slots[slot].role == .part ? slots[slot].offset : nil,
            into: connection.filling.room
        )
        connection.filling.didWrite(byteCount: byteCount)
        markFlush(connection)
        return true
    }

    private func writeHole(
        _ slot: Int32,
        _ reply: inout NBDReadReply,
        _ connection: Connection
    ) -> Bool {
        guard ensureRoom(connection, byteCount: NBDReply.holeByteCountMax) else { return false }
        let byteCount = reply.hole(
            offset: slots[slot].offset,
            byteCount: slots[slot].byteCount,
            into: connection.filling.room
        )
        connection.filling.didWrite(byteCount: byteCount)
        markFlush(connection)
        return true
    }

    private func writeData(
        _ slot: Int32,
        _ reply: inout NBDReadReply,
        _ connection: Connection
    ) -> Bool {
        let byteCount = Int(slots[slot].byteCount)
        guard ensureDataRoom(byteCount, connection) else { return false }
        let header = reply.data(
            offset: slots[slot].offset,
            byteCount: slots[slot].byteCount,
            into: connection.filling.room
        )
        connection.filling.didWrite(byteCount: header)
        writePayload(slot, connection)
        return true
    }

    /// Whether a header and `byteCount` bytes of data can be written.
    private func ensureDataRoom(_ byteCount: Int, _ connection: Connection) -> Bool {
        if byteCount <= NodeLimits.copiedReplyByteCountMax {
            return ensureRoom(connection, byteCount: NBDReply.dataHeaderByteCountMax + byteCount)
        }
        return ensureRoom(
            connection,
            byteCount: NBDReply.dataHeaderByteCountMax,
            regionCount: ReplyBatch.regionsPerPayload
        )
    }

    /// Writes all of a slot's data behind what was written last: a copy, or a reference with
    /// which the slot's buffer goes to the batch.
    private func writePayload(_ slot: Int32, _ connection: Connection) {
        let byteCount = Int(slots[slot].byteCount)
        let batch = connection.filling
        counters.readByteCount &+= UInt64(byteCount)
        markFlush(connection)
        let data = slots[slot].data
        guard byteCount > NodeLimits.copiedReplyByteCountMax else {
            let room = batch.room.slice(0, byteCount)
            if data.isEmpty { room.zero() } else { room.copy(from: data) }
            return batch.didWrite(byteCount: byteCount)
        }
        guard !data.isEmpty else {
            return batch.append(data: zeroes.slice(0, byteCount), owning: .empty)
        }
        settle(slot)
        let buffer = takeBuffer(slot, connection)
        batch.append(data: slots[slot].data, owning: buffer)
    }

    /// Takes a slot's buffer for a batch, which gives it back to the pool.
    private func takeBuffer(_ slot: Int32, _ connection: Connection) -> ByteRegion {
        let buffer = slots[slot].buffer
        // Not the connection's own: it holds so little that its data is copied.
        precondition(!connection.memory.request.holds(buffer), "a batch with a buffer not its own")
        slots[slot].buffer = .empty
        return buffer
    }

    // MARK: - Holes between data

    /// Writes data and holes in turn, as the store tells them apart.
    private func writeRuns(
        _ slot: Int32,
        _ reply: inout NBDReadReply,
        _ connection: Connection
    ) -> Bool {
        let runs = HoleRuns(slots[slot])
        guard runs.count <= NodeLimits.replyChunkCountMax else {
            return writeData(slot, &reply, connection)
        }
        let isCopied = runs.dataByteCount <= NodeLimits.copiedReplyByteCountMax
        let headerByteCount = runs.count * NBDReply.holeByteCountMax
        guard
            ensureRoom(
                connection,
                byteCount: headerByteCount + (isCopied ? runs.dataByteCount : 0),
                regionCount: isCopied ? 0 : runs.dataCount * ReplyBatch.regionsPerPayload
            )
        else { return false }
        if !isCopied { settle(slot) }
        counters.readByteCount &+= UInt64(runs.dataByteCount)
        let batch = connection.filling
        var cursor = runs
        while let run = cursor.next() {
            let offset = slots[slot].offset + UInt64(run.offset)
            if run.isHole {
                batch.didWrite(
                    byteCount: reply.hole(
                        offset: offset,
                        byteCount: UInt64(run.byteCount),
                        into: batch.room
                    )
                )
                continue
            }
            batch.didWrite(
                byteCount: reply.data(
                    offset: offset,
                    byteCount: UInt64(run.byteCount),
                    into: batch.room
                )
            )
            let data = slots[slot].data.slice(run.offset, run.byteCount)
            if isCopied {
                batch.room.copy(from: data)
                batch.didWrite(byteCount: run.byteCount)
            } else {
                // The first reference takes the buffer along; the others live as long.
                batch.append(data: data, owning: takeBuffer(slot, connection))
            }
        }
        markFlush(connection)
        return true
    }

    // MARK: - Replies that must be whole

    /// Takes a part of a reply that must be whole: it is sent when all before it are.
    func finishStreamPart(_ slot: Int32, _ parent: Int32, _ connection: Connection) {
        if slots[slot].status != .ok, slots[parent].status == .ok {
            slots[parent].status = slots[slot].status
            slots[parent].isAbandoned = true
        }
        // Behind the header a failure cannot be told. Spec: "Simple reply message".
        if slots[parent].status != .ok, connection.streamingSlot == parent {
            drop(connection)
            return endSlot(slot, connection)
        }
        guard slots[parent].status == .ok else {
            freeSlot(slot, connection)
            slots[parent].partCount -= 1
            let isTold = slots[parent].reply?.isFinished ?? true
            return isTold ? endSplit(parent, connection) : queueStream(parent, connection)
        }
        settle(slot)
        insertReady(slot, parent)
        if connection.streamingSlot == parent { return resumeReplies(connection) }
        if slots[slot].offset == slots[parent].offset { queueStream(parent, connection) }
    }

    /// Has the reply begin, or fail, when its turn comes.
    private func queueStream(_ parent: Int32, _ connection: Connection) {
        guard !slots[parent].isQueued else { return }
        slots[parent].isQueued = true
        answer(parent, connection)
    }

    /// Writes the header of a reply that must be whole, and the data at hand; or its failure.
    ///
    /// - Returns: false, and nothing is changed, when there is no room.
    func beginStream(_ parent: Int32, _ connection: Connection) -> Bool {
        guard var reply = slots[parent].reply else { preconditionFailure("no reply begun") }
        guard slots[parent].status == .ok else {
            guard writeFailure(parent, &reply, connection) else { return false }
            slots[parent].reply = reply
            slots[parent].isQueued = false
            endSplit(parent, connection)
            return true
        }
        let first = slots[parent].readyHead
        precondition(first != RequestSlot.none, "a reply that begins without data")
        guard ensureDataRoom(Int(slots[first].byteCount), connection) else { return false }
        let request = slots[parent].request
        let byteCount = reply.data(
            offset: request.offset,
            byteCount: request.byteCount,
            into: connection.filling.room
        )
        connection.filling.didWrite(byteCount: byteCount)
        slots[parent].reply = reply
        connection.streamingSlot = parent
        stream(connection)
        return true
    }

    /// Writes the data at hand of the reply that is on its way.
    func stream(_ connection: Connection) {
        let parent = connection.streamingSlot
        while true {
            let part = slots[parent].readyHead
            guard part != RequestSlot.none,
                slots[part].offset == slots[parent].offset + slots[parent].streamedByteCount,
                ensureDataRoom(Int(slots[part].byteCount), connection)
            else { return }
            slots[parent].readyHead = slots[part].next
            slots[parent].streamedByteCount += slots[part].byteCount
            writePayload(part, connection)
            freeSlot(part, connection)
            slots[parent].partCount -= 1
            guard slots[parent].streamedByteCount == slots[parent].byteCount else { continue }
            connection.streamingSlot = RequestSlot.none
            slots[parent].isQueued = false
            return endSplitIfDone(parent, connection)
        }
    }

    /// Keeps the finished parts in the order of their offsets; there are never more than
    /// ``NodeLimits/partsPerRequestMax``.
    private func insertReady(_ slot: Int32, _ parent: Int32) {
        var previous = RequestSlot.none
        var next = slots[parent].readyHead
        while next != RequestSlot.none, slots[next].offset < slots[slot].offset {
            previous = next
            next = slots[next].next
        }
        slots[slot].next = next
        if previous == RequestSlot.none {
            slots[parent].readyHead = slot
        } else {
            slots[previous].next = slot
        }
    }
}

/// Walks the holes and the data of a finished read.
struct HoleRuns {
    struct Run {
        var offset: Int
        var byteCount: Int
        var isHole: Bool
    }

    private let mask: UInt64
    private let partByteCount: Int
    private let byteCount: Int
    private var offset = 0
    /// The number of runs, of runs with data, and of bytes in these.
    private(set) var count = 0
    private(set) var dataCount = 0
    private(set) var dataByteCount = 0

    init(_ slot: RequestSlot) {
        mask = slot.holeMask
        partByteCount = Int(slot.holePartByteCount)
        byteCount = Int(slot.byteCount)
        precondition(partByteCount > 0, "hole parts without a size")
        var walk = self
        while let run = walk.next() {
            count += 1
            guard !run.isHole else { continue }
            dataCount += 1
            dataByteCount += run.byteCount
        }
    }

    mutating func next() -> Run? {
        guard offset < byteCount else { return nil }
        let first = offset
        let isHole = isHole(first)
        while offset < byteCount, self.isHole(offset) == isHole {
            offset = min(offset + partByteCount, byteCount)
        }
        return Run(offset: first, byteCount: offset - first, isHole: isHole)
    }

    private func isHole(_ offset: Int) -> Bool {
        let index = offset / partByteCount
        return index < 64 && mask & (1 << UInt64(index)) != 0
    }
}
