// What is sent: headers with their numbers, data and digests.

public import BlockCore
public import ISCSIWire

extension ISCSISession {
    /// The event that sends what has been encoded.
    func emit() -> ISCSIEvent { .output(output.slice(0, outputByteCount)) }

    /// A header of ours with the numbers that are due: StatSN, ExpCmdSN, MaxCmdSN.
    func responseHeader(_ opcode: ISCSIOpcode, taskTag: UInt32) -> ISCSIHeader {
        var header = ISCSIHeader(opcode)
        header.flags = 0x80
        header.taskTag = taskTag
        header.word24 = statusNumber
        header.word28 = expectedCommand
        header.long32 = UInt64(lastCommand) << 32
        return header
    }

    /// MaxCmdSN.
    var lastCommand: UInt32 {
        let free = login.names.isDiscovery ? 1 : Self.taskCountMax - busyCount
        return expectedCommand &+ UInt32(free) &- 1
    }

    private var hasHeaderDigest: Bool { login.isDone && parameters.hasHeaderDigest }
    private var hasDataDigest: Bool { login.isDone && parameters.hasDataDigest }

    /// Writes a header and its digest; the bytes written.
    func write(_ header: ISCSIHeader, into region: ByteRegion) -> Int {
        header.encode(into: region)
        guard hasHeaderDigest else { return ISCSILimits.headerByteCount }
        let checksum = region.slice(0, ISCSILimits.headerByteCount).crc32c()
        ISCSIDigest.store(checksum, into: region, at: ISCSILimits.headerByteCount)
        return ISCSILimits.headerByteCount + ISCSILimits.digestByteCount
    }

    /// Writes a whole PDU; the bytes written.
    func frame(_ header: ISCSIHeader, data: ByteRegion = .empty, into region: ByteRegion) -> Int {
        var end = write(header, into: region)
        guard !data.isEmpty else { return end }
        let target = region.suffix(from: end)
        target.copy(from: data)
        end += data.byteCount
        return end + writeTail(of: data, into: region.suffix(from: end))
    }

    // MARK: - Data-In

    /// Bytes of the next Data-In, of `restByteCount` that are left: what a PDU and a sequence hold.
    public func dataInByteCount(_ task: Int32, restByteCount: UInt32) -> UInt32 {
        let burst = parameters.burstByteCount - tasks[Int(task)].burstByteCount
        return min(restByteCount, parameters.peerSegmentByteCount, burst)
    }

    /// Bytes of a Data-In header with its digest.
    public var dataInHeaderByteCount: Int {
        ISCSILimits.headerByteCount + (hasHeaderDigest ? ISCSILimits.digestByteCount : 0)
    }

    /// The most bytes of ``writeTail(of:into:)``.
    public static var tailByteCountMax: Int { 3 + ISCSILimits.digestByteCount }

    /// Writes the header of a Data-In; the data and ``writeTail(of:into:)`` follow it.
    ///
    /// - Parameters:
    ///   - task: A task whose data this is.
    ///   - offset: Where in the command's data.
    ///   - byteCount: At most ``dataInByteCount(_:restByteCount:)``.
    ///   - isLast: Whether it is the command's last data; then GOOD rides along, and ``finish(_:)``
    ///     is due.
    ///   - totalByteCount: What the command yields, whatever the initiator has room for.
    ///   - region: At least ``dataInHeaderByteCount`` bytes.
    /// - Returns: The bytes written.
    public func writeDataIn(
        _ task: Int32,
        offset: UInt32,
        byteCount: UInt32,
        isLast: Bool,
        totalByteCount: UInt32,
        into region: ByteRegion
    ) -> Int {
        let index = Int(task)
        var answer = responseHeader(.dataIn, taskTag: tasks[index].taskTag)
        answer.lun = tasks[index].lun
        answer.dataByteCount = byteCount
        answer.word20 = ISCSILimits.noTag
        answer.long32 |= UInt64(tasks[index].sentCount)
        answer.long40 = UInt64(offset) << 32
        tasks[index].sentCount &+= 1
        tasks[index].burstByteCount += byteCount
        let isBurstFull = tasks[index].burstByteCount >= parameters.burstByteCount
        answer.flags = isLast || isBurstFull ? 0x80 : 0
        if isBurstFull { tasks[index].burstByteCount = 0 }
        if isLast {
            let residual = residual(index, dataOut: 0, dataIn: totalByteCount)
            answer.flags |= 0x01 | residual.flags
            answer.long40 |= UInt64(residual.byteCount)
            // The slot is free as soon as this is on its way.
            answer.long32 = UInt64(lastCommand(after: index)) << 32 | answer.long32 & 0xFFFF_FFFF
            statusNumber &+= 1
        } else {
            answer.word24 = 0
        }
        return write(answer, into: region)
    }

    /// Writes what follows data: padding and digest.
    public func writeTail(of data: ByteRegion, into region: ByteRegion) -> Int {
        let padding = (4 - data.byteCount % 4) % 4
        if padding > 0 { region.slice(0, padding).zero() }
        guard hasDataDigest else { return padding }
        var checksum = data.crc32c()
        if padding > 0 { checksum = region.slice(0, padding).crc32c(seed: checksum) }
        ISCSIDigest.store(checksum, into: region, at: padding)
        return padding + ISCSILimits.digestByteCount
    }

    // MARK: - Responses

    /// The most bytes of ``writeResponse(_:status:sense:dataOut:dataIn:into:)``.
    public static var responseByteCountMax: Int { 48 + 4 + 2 + 252 + tailByteCountMax }

    /// Writes a SCSI Response; ``finish(_:)`` is due.
    ///
    /// - Parameters:
    ///   - task: The task.
    ///   - status: SCSI's.
    ///   - sense: Sense data, at most 252 bytes; empty for none.
    ///   - dataOut: Bytes of data-out that the command asks for.
    ///   - dataIn: Bytes of data-in that it has sent.
    ///   - region: At least ``responseByteCountMax`` bytes.
    /// - Returns: The bytes written.
    public func writeResponse(
        _ task: Int32,
        status: UInt8,
        sense: ByteRegion,
        dataOut: UInt32,
        dataIn: UInt32,
        into region: ByteRegion
    ) -> Int {
        let index = Int(task)
        var answer = responseHeader(.response, taskTag: tasks[index].taskTag)
        let residual = residual(index, dataOut: dataOut, dataIn: dataIn)
        answer.flags = 0x80 | residual.flags
        answer.byte3 = status
        answer.long32 = UInt64(lastCommand(after: index)) << 32
        answer.long32 |= UInt64(tasks[index].reads ? tasks[index].sentCount : 0)
        answer.long40 = UInt64(residual.byteCount)
        statusNumber &+= 1
        guard !sense.isEmpty else { return frame(answer, into: region) }
        answer.dataByteCount = UInt32(2 + sense.byteCount)
        var end = write(answer, into: region)
        let data = region.slice(end, 2 + sense.byteCount)
        data.storeBigEndian(UInt16(sense.byteCount), at: 0)
        data.copy(from: sense, at: 2)
        end += data.byteCount
        return end + writeTail(of: data, into: region.suffix(from: end))
    }

    /// MaxCmdSN as it is once the task is finished.
    private func lastCommand(after index: Int) -> UInt32 {
        tasks[index].isImmediate ? lastCommand : lastCommand &+ 1
    }

    /// What the initiator expected and did not get, or the other way round.
    ///
    /// Spec: RFC 7143, 11.4.5.
    private func residual(
        _ index: Int,
        dataOut: UInt32,
        dataIn: UInt32
    ) -> (flags: UInt8, byteCount: UInt32) {
        let task = tasks[index]
        let expected = task.reads || task.writes ? task.expectedByteCount : 0
        let actual =
            task.writes ? dataOut : task.reads ? dataIn : max(dataOut, dataIn)
        if actual > expected { return (0x04, actual - expected) }
        if actual < expected { return (0x02, expected - actual) }
        return (0, 0)
    }

    /// The most bytes of the small responses below.
    public static var smallResponseByteCountMax: Int { 128 }

    /// Writes the answer to a request about tasks; the bytes written.
    public func managementResponse(
        _ taskTag: UInt32,
        _ outcome: ISCSITaskOutcome,
        into region: ByteRegion
    ) -> Int {
        var answer = responseHeader(.taskManagementResponse, taskTag: taskTag)
        answer.byte2 = outcome.rawValue
        statusNumber &+= 1
        return frame(answer, into: region)
    }

    /// Writes a NOP-In that wants an answer; the bytes written.
    public func writePing(into region: ByteRegion) -> Int {
        var ping = responseHeader(.nopIn, taskTag: ISCSILimits.noTag)
        // Any tag that is no R2T's: its place is beyond the tasks.
        ping.word20 = 0xFE
        return frame(ping, into: region)
    }

    /// Writes an asynchronous message.
    ///
    /// - Parameters:
    ///   - event: What it says.
    ///   - seconds: How long the initiator has.
    ///   - region: At least ``smallResponseByteCountMax`` bytes.
    /// - Returns: The bytes written.
    public func writeAsyncMessage(
        _ event: ISCSIAsyncEvent,
        seconds: UInt16,
        into region: ByteRegion
    ) -> Int {
        var message = responseHeader(.asyncMessage, taskTag: ISCSILimits.noTag)
        message.long32 |= UInt64(event.rawValue) << 24
        message.long40 = UInt64(seconds) << 32
        statusNumber &+= 1
        return frame(message, into: region)
    }

    /// Refuses the PDU whose header came last.
    func reject(_ reason: ISCSIRejectReason) -> ISCSIEvent {
        var answer = responseHeader(.reject, taskTag: ISCSILimits.noTag)
        answer.byte2 = reason.rawValue
        answer.dataByteCount = UInt32(ISCSILimits.headerByteCount)
        statusNumber &+= 1
        // The header that is refused goes back, as it was read.
        let copy = tail.slice(0, ISCSILimits.headerByteCount)
        header.encode(into: copy)
        outputByteCount = frame(answer, data: copy, into: output)
        return emit()
    }
}
