// Block operations: from what a command asks of the volume to requests of its store.
//
// Each operation is one request, or several one after the other; `step` says which is next. What is
// read is brought into the slot's own memory before its store is called again. Operations that read,
// compare and write exclude other changes of the unit while they last.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import SCSI

extension Worker {
    // MARK: - Beginning

    /// Begins an operation, now or when those that exclude it have ended.
    func begin(_ task: Int32, _ connection: ISCSIConnection) {
        guard let unit = connection.unit else { return }
        let index = Int(task)
        let kind = connection.slots[index].operation.kind
        guard kind.changes else { return start(task, connection) }
        guard mayChange(kind, unit), unit.waiting.isEmpty else {
            connection.slots[index].state = .queued
            unit.waiting.append(connection.reference(task))
            return
        }
        beginChange(kind, unit)
        connection.slots[index].isChanging = true
        start(task, connection)
    }

    private func mayChange(_ kind: BlockOperation.Kind, _ unit: ISCSIUnit) -> Bool {
        !unit.isExclusive && (!kind.isExclusive || unit.changeCount == 0)
    }

    private func beginChange(_ kind: BlockOperation.Kind, _ unit: ISCSIUnit) {
        if kind.isExclusive { unit.isExclusive = true } else { unit.changeCount += 1 }
    }

    /// Ends a change, and lets those begin that have waited for it.
    func endChange(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        guard connection.slots[index].isChanging, let unit = connection.unit else { return }
        connection.slots[index].isChanging = false
        if connection.slots[index].operation.kind.isExclusive {
            unit.isExclusive = false
        } else {
            unit.changeCount -= 1
        }
        while let next = unit.waiting.first {
            guard let other = holder(next), other.slots[Int(next.task)].state == .queued else {
                _ = unit.waiting.popFirst()
                continue
            }
            let kind = other.slots[Int(next.task)].operation.kind
            guard mayChange(kind, unit) else { return }
            _ = unit.waiting.popFirst()
            beginChange(kind, unit)
            other.slots[Int(next.task)].isChanging = true
            other.slots[Int(next.task)].state = .working
            // Completions may be being handled: the store is called afterwards.
            iscsi?.again.append(next)
        }
    }

    /// The connection of a slot that is still the one it was.
    func holder(_ reference: ISCSISlotReference) -> ISCSIConnection? {
        guard let iscsi else { return nil }
        let connection = iscsi.connections[Int(reference.connection)]
        let slot = connection.slots[Int(reference.task)]
        guard slot.generation == reference.generation, slot.state != .free else { return nil }
        return connection
    }

    private func start(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        connection.slots[index].state = .working
        connection.slots[index].step = 0
        connection.slots[index].index = 0
        connection.slots[index].progressByteCount = 0
        advance(task, connection)
    }

    // MARK: - Steps

    /// Asks the store for what is next, or ends the operation.
    private func advance(_ task: Int32, _ connection: ISCSIConnection) {
        let slot = connection.slots[Int(task)]
        guard !slot.isAborted, connection.takesOutput else {
            return finish(task, .failed, connection)
        }
        let operation = slot.operation
        switch operation.kind {
        case .read: request(.read, slot.buffer, task, connection)
        case .write:
            if slot.step == 0 {
                request(.write, slot.buffer, task, connection)
            } else {
                finish(task, .done, connection)
            }
        case .flush:
            if slot.step == 0 {
                request(.flush, .empty, task, connection)
            } else {
                finish(task, .done, connection)
            }
        case .prefetch: finish(task, .done, connection)
        case .verify, .compare, .compareSame: advanceVerify(task, connection)
        case .writeAndVerify, .writeAndCompare: advanceWriteAndVerify(task, connection)
        case .compareAndWrite, .orWrite: advanceExclusive(task, connection)
        case .unmap: advanceUnmap(task, connection)
        case .writeZeroes:
            if slot.step == 0 {
                request(.writeZeroes, .empty, task, connection)
            } else {
                finish(task, .done, connection)
            }
        case .writeSame: advanceWriteSame(task, connection)
        case .blockStatus: advanceStatus(task, connection)
        case .copy: advanceCopy(task, connection)
        }
    }

    private func advanceVerify(_ task: Int32, _ connection: ISCSIConnection) {
        let slot = connection.slots[Int(task)]
        guard slot.step == 0 else {
            let operation = slot.operation
            let read = slot.second.slice(0, Int(operation.byteCount))
            var offset: UInt64?
            if operation.kind == .compare { offset = read.firstDifference(from: slot.buffer) }
            if operation.kind == .compareSame {
                let block = slot.buffer.slice(0, Int(operation.dataOutByteCount))
                offset = read.firstDifference(fromCopiesOf: block)
            }
            return finish(task, offset.map { .miscompare(offset: $0) } ?? .done, connection)
        }
        readSecond(task, connection)
    }

    private func advanceWriteAndVerify(_ task: Int32, _ connection: ISCSIConnection) {
        let slot = connection.slots[Int(task)]
        switch slot.step {
        case 0: request(.write, slot.buffer, flags: [.forceUnitAccess], task, connection)
        case 1: readSecond(task, connection)
        default:
            var offset: UInt64?
            if slot.operation.kind == .writeAndCompare {
                let read = slot.second.slice(0, Int(slot.operation.byteCount))
                offset = read.firstDifference(from: slot.buffer)
            }
            finish(task, offset.map { .miscompare(offset: $0) } ?? .done, connection)
        }
    }

    /// Read, compare or combine, write: nothing else changes the volume meanwhile.
    private func advanceExclusive(_ task: Int32, _ connection: ISCSIConnection) {
        let slot = connection.slots[Int(task)]
        let byteCount = Int(slot.operation.byteCount)
        switch slot.step {
        case 0: readSecond(task, connection)
        case 1:
            let read = slot.second.slice(0, byteCount)
            if slot.operation.kind == .orWrite {
                read.combine(with: slot.buffer)
            } else {
                if let offset = read.firstDifference(from: slot.buffer) {
                    return finish(task, .miscompare(offset: offset), connection)
                }
                read.copy(from: slot.buffer.slice(byteCount, byteCount))
            }
            request(.write, slot.second, task, connection)
        default: finish(task, .done, connection)
        }
    }

    /// Deallocates range by range; what a range covers of a block in part becomes zeroes, too.
    private func advanceUnmap(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        guard let unit = connection.unit else { return }
        while connection.slots[index].index < Int32(connection.slots[index].operation.rangeCount) {
            let range = unit.logical.unmapRange(
                at: Int(connection.slots[index].index),
                in: connection.slots[index].buffer
            )
            connection.slots[index].index += 1
            guard range.byteCount > 0 else { continue }
            return request(.writeZeroes, .empty, range: range, task, connection)
        }
        finish(task, .done, connection)
    }

    /// Writes copies of one block, as many at a time as a request holds.
    private func advanceWriteSame(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        let operation = connection.slots[index].operation
        let rest = operation.byteCount - connection.slots[index].progressByteCount
        guard rest > 0 else { return finish(task, .done, connection) }
        if connection.slots[index].second.isEmpty {
            let blockByteCount = connection.unit?.logical.description.blockByteCount ?? 512
            let byteCount = min(operation.byteCount, UInt64(Self.sameByteCount))
            guard takeSecond(Int(byteCount), task, connection) else {
                return finish(task, .busy, connection)
            }
            let block = connection.slots[index].buffer.slice(0, Int(blockByteCount))
            var offset = 0
            while offset < Int(byteCount) {
                connection.slots[index].second.copy(from: block, at: offset)
                offset += block.byteCount
            }
        }
        let byteCount = min(rest, UInt64(Self.sameByteCount))
        let range = BlockRange(
            offset: operation.offset + connection.slots[index].progressByteCount,
            byteCount: byteCount
        )
        connection.slots[index].progressByteCount += byteCount
        request(.write, connection.slots[index].second, range: range, task, connection)
    }

    /// Bytes that WRITE SAME writes at a time.
    private static var sameByteCount: Int { 256 << 10 }
    /// Memory for the extents of a status: what NBD's has.
    private static var statusByteCount: Int { 16 << 10 }

    private func advanceStatus(_ task: Int32, _ connection: ISCSIConnection) {
        guard takeSecond(Self.statusByteCount, task, connection) else {
            return finish(task, .busy, connection)
        }
        let slot = connection.slots[Int(task)]
        request(.blockStatus, slot.second, task, connection)
    }

    /// Copies segment by segment, each read and written in one request.
    private func advanceCopy(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        guard let unit = connection.unit else { return }
        while connection.slots[index].index < Int32(connection.slots[index].operation.rangeCount) {
            let slot = connection.slots[index]
            guard let segment = unit.logical.copySegment(at: Int(slot.index), in: slot.buffer)
            else { return finish(task, .peerUnreachable, connection) }
            let rest = segment.byteCount - slot.progressByteCount
            guard rest > 0 else {
                connection.slots[index].index += 1
                connection.slots[index].progressByteCount = 0
                continue
            }
            let byteCount = min(rest, UInt64(NodeLimits.partByteCountMax))
            if slot.second.isEmpty {
                guard takeSecond(NodeLimits.partByteCountMax, task, connection) else {
                    return finish(task, .busy, connection)
                }
            }
            let isWriting = slot.step % 2 == 1
            let start = isWriting ? segment.destinationOffset : segment.sourceOffset
            let range = BlockRange(offset: start + slot.progressByteCount, byteCount: byteCount)
            if isWriting { connection.slots[index].progressByteCount += byteCount }
            let second = connection.slots[index].second
            return request(isWriting ? .write : .read, second, range: range, task, connection)
        }
        finish(task, .done, connection)
    }

    // MARK: - Requests

    private func takeSecond(_ byteCount: Int, _ task: Int32, _ connection: ISCSIConnection) -> Bool
    {
        let block = BlockGeometry.blockByteCount
        let whole = (byteCount + block - 1) & ~(block - 1)
        guard let buffer = takeMemory(whole + block, connection) else { return false }
        connection.slots[Int(task)].second = buffer
        return true
    }

    /// Reads the operation's range into memory beside the initiator's data.
    private func readSecond(_ task: Int32, _ connection: ISCSIConnection) {
        let byteCount = Int(connection.slots[Int(task)].operation.byteCount)
        guard takeSecond(byteCount, task, connection) else {
            return finish(task, .busy, connection)
        }
        request(.read, connection.slots[Int(task)].second, task, connection)
    }

    private func request(
        _ kind: StoreRequest.Kind,
        _ region: ByteRegion,
        flags: StoreRequestFlags = [],
        range: BlockRange? = nil,
        _ task: Int32,
        _ connection: ISCSIConnection
    ) {
        guard let iscsi, let unit = connection.unit else { return }
        guard iscsi.requestCount < limits.iscsiRequestCountMax else {
            return finish(task, .busy, connection)
        }
        let slot = connection.slots[Int(task)]
        var flags = flags
        let asked = slot.operation.flags
        if asked.contains(.forceUnitAccess), kind != .read { flags.insert(.forceUnitAccess) }
        if kind == .writeZeroes, slot.operation.kind == .writeZeroes,
            !asked.contains(.mayDeallocate)
        {
            flags.insert(.noHole)
        }
        if kind == .blockStatus, slot.operation.rangeCount == 1 { flags.insert(.oneExtent) }
        let place =
            kind == .flush ? BlockRange(offset: 0, byteCount: 0) : range ?? slot.operation.range
        let request = StoreRequest(
            kind: kind,
            volume: unit.handle,
            offset: place.offset,
            byteCount: place.byteCount,
            region: region,
            flags: flags,
            token: Token(
                kind: TokenKind.iscsiRequest,
                index: UInt32(connection.index) << 8 | UInt32(task),
                generation: slot.generation
            ).rawValue
        )
        iscsi.requestCount += 1
        if let host = unit.host { submit(request, to: host) } else { submitToService(request) }
    }

    // MARK: - Completions

    /// Takes the end of a request; no store may be called from here.
    func finishISCSI(_ completion: StoreCompletion) {
        guard let iscsi else { return }
        iscsi.requestCount -= 1
        let token = Token(rawValue: completion.token)
        let connection = iscsi.connections[Int(token.index >> 8)]
        let task = Int32(token.index & 0xFF)
        let index = Int(task)
        precondition(connection.slots[index].state == .working, "a request that ended twice")
        precondition(
            connection.slots[index].generation & Token.generationMask == token.generation,
            "a request that ended late"
        )
        let operation = connection.slots[index].operation
        guard completion.status == .ok else {
            // A service that has gone leaves its clients' requests open: who serves next may have
            // carried them out.
            if completion.status == .unavailable, connection.unit?.host == nil { drop(connection) }
            let result = BlockResult(completion, offset: operation.offset)
            return finish(task, result, connection)
        }
        connection.slots[index].step &+= 1
        if operation.kind == .read { return finishRead(task, completion, connection) }
        if operation.kind == .blockStatus { return finishStatus(task, completion, connection) }
        settleSecond(task, completion, connection)
        switch operation.kind {
        case .write, .flush, .writeZeroes: finish(task, .done, connection)
        default: iscsi.again.append(connection.reference(task))
        }
    }

    private func finishRead(
        _ task: Int32,
        _ completion: StoreCompletion,
        _ connection: ISCSIConnection
    ) {
        let index = Int(task)
        let byteCount = Int(connection.slots[index].operation.dataInByteCount)
        let buffer = connection.slots[index].buffer
        var data = completion.region.isEmpty ? zeroes : completion.region
        // What lies in the store's memory is there until the store's next call only.
        if !completion.region.isEmpty, !buffer.holds(completion.region) {
            buffer.copy(from: completion.region)
            data = buffer
        }
        connection.slots[index].data = data.slice(0, byteCount)
        finish(task, .done, connection)
    }

    private func finishStatus(
        _ task: Int32,
        _ completion: StoreCompletion,
        _ connection: ISCSIConnection
    ) {
        guard let iscsi, let unit = connection.unit, completion.extentCount > 0 else {
            return finish(task, .failed, connection)
        }
        let slot = connection.slots[Int(task)]
        guard !slot.isAborted, connection.takesOutput else {
            return finish(task, .failed, connection)
        }
        let extents = (0..<Int(completion.extentCount)).lazy.map { index in
            BlockExtent(
                byteCount: slot.second.load(16 * index, as: UInt64.self),
                isAllocated: slot.second.load(16 * index + 8, as: UInt64.self) & 1 == 0
            )
        }
        let reply = unit.logical.completeStatus(
            slot.operation,
            extents: extents,
            dataIn: iscsi.dataIn
        )
        let isKept = keep(reply.dataInByteCount, task, connection)
        answer(task, isKept ? reply : SCSIReply(.busy), connection)
    }

    /// Brings what was read into the slot's own memory, at its start.
    private func settleSecond(
        _ task: Int32,
        _ completion: StoreCompletion,
        _ connection: ISCSIConnection
    ) {
        let slot = connection.slots[Int(task)]
        guard slot.isReading, !slot.second.isEmpty else { return }
        let byteCount = Int(completion.byteCount)
        guard !completion.region.isEmpty else { return slot.second.slice(0, byteCount).zero() }
        slot.second.move(from: completion.region)
    }

    /// Goes on with operations whose next request could not be submitted before.
    func submitAgainISCSI() {
        guard let iscsi else { return }
        var count = iscsi.again.count
        while count > 0, let reference = iscsi.again.popFirst() {
            count -= 1
            guard let connection = holder(reference) else { continue }
            advance(reference.task, connection)
        }
    }

    /// Ends an operation.
    private func finish(_ task: Int32, _ result: BlockResult, _ connection: ISCSIConnection) {
        let index = Int(task)
        guard let unit = connection.unit else { return }
        let isAborted = connection.slots[index].isAborted || !connection.takesOutput
        let reply = unit.logical.complete(
            connection.slots[index].operation,
            isAborted ? .failed : result
        )
        if isAborted { connection.slots[index].isAborted = true }
        answer(task, reply, connection)
    }
}

extension ISCSISlot {
    /// Whether the request that has just ended was a read into `second`.
    fileprivate var isReading: Bool {
        switch operation.kind {
        case .verify, .compare, .compareSame, .compareAndWrite, .orWrite: step == 1
        case .writeAndVerify, .writeAndCompare: step == 2
        case .copy: step % 2 == 1
        default: false
        }
    }
}

extension BlockOperation.Kind {
    /// Whether it changes the volume.
    fileprivate var changes: Bool {
        switch self {
        case .write, .writeAndVerify, .writeAndCompare, .compareAndWrite, .orWrite, .unmap,
            .writeZeroes, .writeSame, .copy:
            true
        case .read, .flush, .prefetch, .verify, .compare, .compareSame, .blockStatus: false
        }
    }

    /// Whether nothing else may change the volume meanwhile.
    fileprivate var isExclusive: Bool { self == .compareAndWrite || self == .orWrite }
}

extension BlockResult {
    /// What a store says, as logical units hear it: the one table of store statuses.
    fileprivate init(_ completion: StoreCompletion, offset: UInt64) {
        switch completion.status {
        case .ok: self = .done
        case .invalid: self = .outOfRange
        case .noSpace: self = .noSpace
        case .readOnly: self = .readOnly
        case .mediaError: self = .unreadable(offset: offset + completion.byteCount)
        case .unavailable: self = .notReady
        }
    }
}

extension ByteRegion {
    /// The offset of the first byte that differs from the one of `other`, which is as long or longer.
    fileprivate func firstDifference(from other: ByteRegion) -> UInt64? {
        let same = other.slice(0, byteCount)
        guard !equals(same) else { return nil }
        for offset in 0..<byteCount
        where load(offset, as: UInt8.self) != same.load(offset, as: UInt8.self) {
            return UInt64(offset)
        }
        return nil
    }

    /// The offset of the first byte that differs from copies of `block`, one after the other.
    fileprivate func firstDifference(fromCopiesOf block: ByteRegion) -> UInt64? {
        var offset = 0
        while offset < byteCount {
            let part = slice(offset, Swift.min(block.byteCount, byteCount - offset))
            if let found = part.firstDifference(from: block) { return UInt64(offset) + found }
            offset += block.byteCount
        }
        return nil
    }

    /// Sets the bits that `other` has set.
    fileprivate func combine(with other: ByteRegion) {
        var offset = 0
        while offset + 8 <= byteCount {
            store(load(offset, as: UInt64.self) | other.load(offset, as: UInt64.self), at: offset)
            offset += 8
        }
        while offset < byteCount {
            store(load(offset, as: UInt8.self) | other.load(offset, as: UInt8.self), at: offset)
            offset += 1
        }
    }

    /// Copies all of `source` to the start, also when it lies further behind in this region.
    fileprivate func move(from source: ByteRegion) {
        guard holds(source) else { return copy(from: source) }
        var offset = 0
        // Front to back, in pieces that do not overlap: what is overwritten was copied before.
        // SAFETY: addresses are only compared.
        let distance = unsafe source.address - address
        guard distance > 0 else { return }
        while offset < source.byteCount {
            let part = source.slice(offset, Swift.min(distance, source.byteCount - offset))
            copy(from: part, at: offset)
            offset += part.byteCount
        }
    }
}
