// Data-out: what is due, what has come, what is asked for next.
//
// A task's data comes unasked first (with the command, and up to the first burst), then in answer to
// R2Ts, of which one is outstanding. Its target transfer tag holds the task's place and generation, so
// that data for a task that has ended is known for what it is, and thrown away.
//
// Spec: RFC 7143, 4.2.5, 11.7, 11.8.

import BlockCore
import ISCSIWire

extension ISCSISession {
    /// Says how much of a command's data is wanted, from its start.
    ///
    /// What the initiator does not send is not waited for: `wantedByteCount` is cut to it.
    public func accept(_ task: Int32, wantedByteCount: UInt32) {
        let index = Int(task)
        precondition(tasks[index].state == .fresh, "a task that was accepted before")
        let offered = tasks[index].writes ? tasks[index].expectedByteCount : 0
        tasks[index].wantedByteCount =
            tasks[index].damage == .none ? min(wantedByteCount, offered) : 0
        tasks[index].state = .receiving
    }

    /// Acts on the end of a PDU with data of a task.
    func onTaskData(_ task: Int32, isIntact: Bool) -> ISCSIEvent? {
        let index = Int(task)
        if !isIntact {
            tasks[index].damage = .digest
            tasks[index].wantedByteCount = 0
        }
        if header.opcode == .command { tasks[index].receivedByteCount = UInt32(segmentByteCount) }
        guard isIntact else {
            pendingTask = task
            return reject(.dataDigest)
        }
        return advanceData(task)
    }

    /// Asks for more data of a task, or hands it over; nil when more is on its way.
    func advanceData(_ task: Int32) -> ISCSIEvent? {
        let index = Int(task)
        guard tasks[index].state == .receiving else { return nil }
        guard !tasks[index].isUnsolicited else { return nil }
        let received = tasks[index].receivedByteCount
        // The sequence that was asked for is not complete.
        guard received >= tasks[index].solicitedEnd || tasks[index].damage != .none else {
            return nil
        }
        guard received < tasks[index].wantedByteCount else {
            tasks[index].state = .ready
            return .ready(task)
        }
        return requestData(index)
    }

    private func requestData(_ index: Int) -> ISCSIEvent {
        let offset = tasks[index].receivedByteCount
        let byteCount = min(parameters.burstByteCount, tasks[index].wantedByteCount - offset)
        tasks[index].generation &+= 1
        tasks[index].solicitedEnd = offset + byteCount
        tasks[index].dataNumber = 0
        var ask = responseHeader(.readyToTransfer, taskTag: tasks[index].taskTag)
        ask.flags = 0x80
        ask.lun = tasks[index].lun
        ask.word20 = transferTag(index)
        ask.long32 |= UInt64(tasks[index].sentCount)
        ask.long40 = UInt64(offset) << 32 | UInt64(byteCount)
        tasks[index].sentCount &+= 1
        outputByteCount = frame(ask, into: output)
        return emit()
    }

    private func transferTag(_ index: Int) -> UInt32 {
        (tasks[index].generation & 0xFF_FFFF) << 8 | UInt32(index)
    }

    // MARK: - Data-Out

    func onDataOut() -> ISCSIEvent? {
        let number = UInt32(truncatingIfNeeded: header.long32)
        let offset = UInt32(truncatingIfNeeded: header.long40 >> 32)
        guard let index = taskOfData() else { return nil }
        let task = tasks[index]
        let isSolicited = header.word20 != ISCSILimits.noTag
        let limit =
            isSolicited
            ? task.solicitedEnd : min(parameters.firstBurstByteCount, task.expectedByteCount)
        let end = UInt64(offset) + UInt64(header.dataByteCount)
        let isFitting =
            number == task.dataNumber && offset == task.receivedByteCount && end <= UInt64(limit)
        guard isFitting else { return onMisplacedData(index, isSolicited: isSolicited) }
        tasks[index].dataNumber &+= 1
        tasks[index].receivedByteCount = UInt32(end)
        if header.isFinal {
            tasks[index].isUnsolicited = false
            // A sequence that ends early leaves a hole.
            if isSolicited, end < UInt64(limit) { damage(index, .missingData) }
        }
        if header.dataByteCount > 0 {
            sink = .task(Int32(index))
            sinkOffset = offset
            return nil
        }
        return advanceData(Int32(index))
    }

    /// The task that data is for; nil for one that has ended, whose data is thrown away.
    private func taskOfData() -> Int? {
        if header.word20 == ISCSILimits.noTag {
            guard let task = task(withTag: header.taskTag), tasks[Int(task)].isUnsolicited else {
                return nil
            }
            return Int(task)
        }
        let index = Int(header.word20 & 0xFF)
        guard index < tasks.count, tasks[index].state == .receiving,
            header.word20 == transferTag(index), header.taskTag == tasks[index].taskTag
        else { return nil }
        return index
    }

    private func onMisplacedData(_ index: Int, isSolicited: Bool) -> ISCSIEvent? {
        damage(index, .missingData)
        if header.isFinal || isSolicited { tasks[index].isUnsolicited = false }
        // What else comes for this request belongs to nobody.
        if isSolicited { tasks[index].generation &+= 1 }
        pendingTask = Int32(index)
        return nil
    }

    private func damage(_ index: Int, _ damage: ISCSIDamage) {
        if tasks[index].damage == .none { tasks[index].damage = damage }
        tasks[index].wantedByteCount = 0
    }
}
