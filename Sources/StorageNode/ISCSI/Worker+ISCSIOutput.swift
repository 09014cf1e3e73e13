// The output of an iSCSI connection: responses, and data in as many PDUs as it takes.

internal import BlockCore
internal import ISCSISession
internal import Reactor
internal import SCSI

extension Worker {
    /// Regions that a PDU with data by reference takes: what was written before it, and the data.
    private static let regionCount = ReplyBatch.regionsPerPayload

    // MARK: - Room

    /// Makes room for `byteCount` bytes; false when something has to be sent first.
    func ensureRoom(
        _ connection: ISCSIConnection,
        byteCount: Int,
        regionCount: Int = 0
    ) -> Bool {
        if hasRoom(connection, byteCount, regionCount) { return true }
        guard !connection.isSending, !connection.filling.isEmpty else { return false }
        flush(connection)
        return hasRoom(connection, byteCount, regionCount)
    }

    private func hasRoom(
        _ connection: ISCSIConnection,
        _ byteCount: Int,
        _ regionCount: Int
    ) -> Bool {
        connection.filling.roomByteCount >= byteCount
            && connection.filling.hasRoom(regionCount: regionCount)
    }

    func didWrite(_ byteCount: Int, _ connection: ISCSIConnection) {
        connection.filling.didWrite(byteCount: byteCount)
        markFlush(connection)
    }

    // MARK: - Sending

    /// Sends what has gathered, unless the last send is still under way.
    func flush(_ connection: ISCSIConnection) {
        guard connection.takesOutput else { return freeIfUnused(connection) }
        guard !connection.isSending else { return }
        guard !connection.filling.isEmpty else { return closeIfDrained(connection) }
        connection.filling.closeRegion()
        swap(&connection.filling, &connection.sending)
        connection.isSending = true
        connection.sendingSince = now
        counters.sendCount &+= 1
        let regions = connection.sending.regions
        reactor.send(
            connection.socket,
            regions.span,
            token: token(TokenKind.iscsiSend, connection)
        )
    }

    func onISCSISent(_ connection: ISCSIConnection, _ result: Int32) {
        connection.isSending = false
        connection.sendingSince = nil
        guard connection.takesOutput else { return }
        guard result >= 0 else { return drop(connection) }
        let releasedByteCount = connection.sending.reset(pool: pool)
        connection.heldByteCount -= releasedByteCount
        if releasedByteCount > 0 { hasFreed = true }
        resume(connection)
        if !connection.filling.isEmpty || connection.state == .draining { markFlush(connection) }
        if connection.isBlocked { markReady(connection) }
    }

    /// Writes what waited for room, in order.
    private func resume(_ connection: ISCSIConnection) {
        while connection.takesOutput, let task = connection.deferred.first {
            guard emit(task, connection) else { return }
            _ = connection.deferred.popFirst()
        }
    }

    // MARK: - Answers

    /// Answers a command, now or when its turn comes; its slot is free afterwards.
    func answer(_ task: Int32, _ reply: SCSIReply, _ connection: ISCSIConnection) {
        let index = Int(task)
        connection.slots[index].reply = reply
        connection.slots[index].state = .answering
        endChange(task, connection)
        guard connection.takesOutput, !connection.slots[index].isAborted else {
            return endSlot(task, connection)
        }
        if connection.deferred.isEmpty, emit(task, connection) { return }
        connection.deferred.append(task)
    }

    /// Writes an answer, or as much of it as there is room for; false when some is left.
    private func emit(_ task: Int32, _ connection: ISCSIConnection) -> Bool {
        let index = Int(task)
        guard !connection.slots[index].isAborted else {
            endSlot(task, connection)
            return true
        }
        let hasData =
            connection.slots[index].reply.status == .good && !connection.slots[index].data.isEmpty
        return hasData ? emitData(task, connection) : emitResponse(task, connection)
    }

    private func emitResponse(_ task: Int32, _ connection: ISCSIConnection) -> Bool {
        guard ensureRoom(connection, byteCount: ISCSISession.responseByteCountMax) else {
            return false
        }
        let slot = connection.slots[Int(task)]
        let isGood = slot.reply.status == .good || slot.reply.status == .conditionMet
        if !isGood { counters.errorCount &+= 1 }
        var sense = ByteRegion.empty
        if slot.reply.status == .checkCondition, let iscsi {
            let isDescriptor = connection.unit?.logical.isDescriptorSense ?? false
            let byteCount = slot.reply.sense.encode(
                into: iscsi.sense,
                isDescriptorFormat: isDescriptor
            )
            sense = iscsi.sense.slice(0, byteCount)
        }
        let byteCount = connection.session.writeResponse(
            task,
            status: slot.reply.status.rawValue,
            sense: sense,
            dataOut: isGood ? slot.dataOutByteCount : 0,
            dataIn: isGood ? slot.dataInByteCount : 0,
            into: connection.filling.room
        )
        didWrite(byteCount, connection)
        endSlot(task, connection)
        return true
    }

    /// Writes Data-In PDUs: small data is copied beside its header, large data goes by reference.
    private func emitData(_ task: Int32, _ connection: ISCSIConnection) -> Bool {
        let index = Int(task)
        let session = connection.session
        while true {
            let slot = connection.slots[index]
            let total = UInt32(slot.data.byteCount)
            let rest = total - slot.sentByteCount
            let byteCount = session.dataInByteCount(task, restByteCount: rest)
            let isCopied =
                Int(byteCount) <= NodeLimits.copiedReplyByteCountMax && !slot.isReferenced
            let frameByteCount = session.dataInHeaderByteCount + ISCSISession.tailByteCountMax
            guard
                ensureRoom(
                    connection,
                    byteCount: frameByteCount + (isCopied ? Int(byteCount) : 0),
                    regionCount: isCopied ? 0 : Self.regionCount
                )
            else { return false }
            let isLast = byteCount == rest
            let headerByteCount = session.writeDataIn(
                task,
                offset: slot.sentByteCount,
                byteCount: byteCount,
                isLast: isLast,
                totalByteCount: slot.dataInByteCount,
                into: connection.filling.room
            )
            didWrite(headerByteCount, connection)
            counters.readByteCount &+= UInt64(byteCount)
            let data = slot.data.slice(Int(slot.sentByteCount), Int(byteCount))
            connection.slots[index].sentByteCount += byteCount
            if isCopied {
                connection.filling.room.copy(from: data)
                connection.filling.didWrite(byteCount: data.byteCount)
            } else {
                connection.filling.append(
                    data: data,
                    owning: isLast ? takeBuffer(task, connection) : .empty
                )
                connection.slots[index].isReferenced = true
            }
            let tail = session.writeTail(of: data, into: connection.filling.room)
            connection.filling.didWrite(byteCount: tail)
            guard isLast else { continue }
            endSlot(task, connection)
            return true
        }
    }

    /// Takes a slot's buffer for a batch, which gives it back to the pool.
    private func takeBuffer(_ task: Int32, _ connection: ISCSIConnection) -> ByteRegion {
        let buffer = connection.slots[Int(task)].buffer
        connection.slots[Int(task)].buffer = .empty
        return buffer
    }

    // MARK: - Ends

    /// Ends a slot and its task.
    func endSlot(_ task: Int32, _ connection: ISCSIConnection) {
        connection.session.finish(task)
        freeSlot(task, connection)
    }

    /// Frees a slot and its memory; its task has ended, or its session has.
    func freeSlot(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        endChange(task, connection)
        release(connection.slots[index].buffer, connection)
        release(connection.slots[index].second, connection)
        let reference = connection.reference(task)
        let generation = connection.slots[index].generation &+ 1
        connection.slots[index] = ISCSISlot()
        connection.slots[index].generation = generation
        connection.slotCount -= 1
        counters.requestCountNow &-= 1
        if let iscsi, !iscsi.waits.isEmpty { settleWaits(reference) }
        if connection.slotCount == 0, connection.state == .closed { freeIfUnused(connection) }
    }

    private func release(_ buffer: ByteRegion, _ connection: ISCSIConnection) {
        guard !buffer.isEmpty else { return }
        pool.release(buffer)
        connection.heldByteCount -= buffer.byteCount
        hasFreed = true
    }

    /// Takes memory of the pool; nil when there is none for this connection now.
    func takeMemory(_ byteCount: Int, _ connection: ISCSIConnection) -> ByteRegion? {
        guard
            NodeLimits.mayTake(
                byteCount,
                held: connection.heldByteCount,
                free: pool.freeByteCount
            ), let buffer = pool.allocate(byteCount: byteCount)
        else {
            counters.resourceWaitCount &+= 1
            return nil
        }
        connection.heldByteCount += buffer.byteCount
        return buffer
    }
}
