// Full feature phase: what a header asks for.

import BlockCore
import ISCSIWire

extension ISCSISession {
    /// Acts on a header; nil when its data has to come first, or nothing is to be said.
    func onRequest(_ additional: ByteRegion) -> ISCSIEvent? {
        guard let opcode = header.opcode, opcode.isRequest else { return reject(.notSupported) }
        // Data has no number of its own, and SNACK's word is something else.
        if opcode == .dataOut { return onDataOut() }
        if opcode == .snack { return reject(.snack) }
        if opcode == .login { return reject(.protocolError) }
        if login.names.isDiscovery, opcode == .command || opcode == .taskManagement {
            return reject(.protocolError)
        }
        guard header.isImmediate || isAnswerToPing else {
            let distance = Int32(bitPattern: header.commandNumber &- expectedCommand)
            // Outside of the window it is dropped silently. Spec: RFC 7143, 4.2.2.1.
            guard distance >= 0, distance < Int32(Self.taskCountMax - busyCount) else { return nil }
            // On one connection nothing overtakes: what is missing does not come any more.
            guard distance == 0 else { return close(.commandNumber) }
            expectedCommand &+= 1
            return onAccepted(opcode, additional)
        }
        return onAccepted(opcode, additional)
    }

    /// Whether it only answers a ping, and so has no number; spec: RFC 7143, 11.18.
    private var isAnswerToPing: Bool {
        header.opcode == .nopOut && header.taskTag == ISCSILimits.noTag
    }

    private func onAccepted(_ opcode: ISCSIOpcode, _ additional: ByteRegion) -> ISCSIEvent? {
        switch opcode {
        case .command: return onCommand(additional)
        case .nopOut:
            if header.taskTag != ISCSILimits.noTag { sink = .gather }
            return nil
        case .text:
            guard header.dataByteCount <= UInt32(Self.gatheringByteCount) else {
                return reject(.protocolError)
            }
            sink = .gather
            return nil
        case .taskManagement: return onManagement()
        case .logout: return onLogout()
        default: return reject(.notSupported)
        }
    }

    // MARK: - Commands

    private func onCommand(_ additional: ByteRegion) -> ISCSIEvent? {
        guard let task = takeTask() else { return reject(.tooManyImmediate) }
        let index = Int(task)
        tasks[index].taskTag = header.taskTag
        tasks[index].lun = header.lun
        tasks[index].blockHigh = header.long32
        tasks[index].blockLow = header.long40
        tasks[index].reads = header.flags & 0x40 != 0
        tasks[index].writes = header.flags & 0x20 != 0
        tasks[index].expectedByteCount = header.word20
        tasks[index].expectedReadByteCount = 0
        if tasks[index].reads, tasks[index].writes {
            let byteCount = ISCSIAdditionalHeader.expectedReadByteCount(additional)
            tasks[index].expectedReadByteCount = byteCount ?? 0
        }
        tasks[index].isUnsolicited = tasks[index].writes && !header.isFinal
        judgeImmediate(index)
        if header.dataByteCount > 0 {
            sink = .task(task)
        } else {
            pendingTask = task
        }
        return .command(task)
    }

    /// Looks whether the data that a command brings along was agreed on.
    private func judgeImmediate(_ index: Int) {
        let byteCount = header.dataByteCount
        if tasks[index].isUnsolicited, parameters.needsInitialR2T {
            tasks[index].damage = .unexpectedData
            tasks[index].isUnsolicited = false
        }
        guard byteCount > 0 else { return }
        let isAgreed =
            tasks[index].writes && parameters.allowsImmediateData
            && byteCount <= tasks[index].expectedByteCount
            && byteCount <= parameters.firstBurstByteCount
        if !isAgreed { tasks[index].damage = .unexpectedData }
    }

    private func takeTask() -> Int32? {
        let isImmediate = header.isImmediate
        let range =
            isImmediate
            ? Self.taskCountMax..<tasks.count : 0..<Self.taskCountMax
        // The window says that there is one, unless it is immediate.
        guard let index = range.first(where: { tasks[$0].state == .free }) else { return nil }
        var task = ISCSITask()
        task.generation = tasks[index].generation &+ 1
        task.state = .fresh
        task.isImmediate = isImmediate
        tasks[index] = task
        if isImmediate { immediateBusyCount += 1 } else { busyCount += 1 }
        return Int32(index)
    }

    // MARK: - Tasks

    private func onManagement() -> ISCSIEvent {
        guard let function = ISCSITaskFunction(rawValue: header.flags & 0x7F) else {
            outputByteCount = managementResponse(header.taskTag, .notSupported, into: output)
            return emit()
        }
        return .management(
            ISCSIManagement(
                function: function,
                lun: header.lun,
                referencedTag: header.word20,
                taskTag: header.taskTag
            )
        )
    }

    /// The task with an initiator's tag.
    public func task(withTag tag: UInt32) -> Int32? {
        for index in 0..<tasks.count
        where tasks[index].state != .free && tasks[index].taskTag == tag {
            return Int32(index)
        }
        return nil
    }

    /// The tasks that are not free, in no order.
    public func forEachTask(_ body: (Int32) -> Void) {
        for index in 0..<tasks.count where tasks[index].state != .free { body(Int32(index)) }
    }

    /// Whether a task is the driver's to carry out: all data that is going to come has come.
    public func isReady(_ task: Int32) -> Bool { tasks[Int(task)].state == .ready }

    /// Ends a task: its response was written, or it was aborted and gets none.
    ///
    /// Data that still comes for it is thrown away.
    public func finish(_ task: Int32) {
        precondition(tasks[Int(task)].state != .free, "a task that ended twice")
        if case .task(let receiving) = sink, receiving == task { sink = .skip }
        if pendingTask == task { pendingTask = -1 }
        free(task)
    }

    func free(_ task: Int32) {
        let index = Int(task)
        tasks[index].state = .free
        tasks[index].generation &+= 1
        if tasks[index].isImmediate { immediateBusyCount -= 1 } else { busyCount -= 1 }
    }

    // MARK: - Logout

    private func onLogout() -> ISCSIEvent {
        let reason = header.flags & 0x7F
        var answer = responseHeader(.logoutResponse, taskTag: header.taskTag)
        // Recovery needs a second connection: not supported.
        answer.byte2 = reason <= 1 ? 0 : 2
        answer.long40 = 2 << 48
        statusNumber &+= 1
        outputByteCount = frame(answer, into: output)
        if reason <= 1 { phase = .closing }
        return emit()
    }

    /// Acts on text or an echo whose data has come.
    func onGathered() -> ISCSIEvent? {
        if header.opcode == .text { return onText(gathering.slice(0, segmentByteCount)) }
        let byteCount = min(
            segmentByteCount,
            Self.echoByteCountMax,
            Int(parameters.peerSegmentByteCount)
        )
        var answer = responseHeader(.nopIn, taskTag: header.taskTag)
        answer.flags = 0x80
        answer.lun = header.lun
        answer.word20 = ISCSILimits.noTag
        answer.dataByteCount = UInt32(byteCount)
        statusNumber &+= 1
        outputByteCount = frame(answer, data: gathering.slice(0, byteCount), into: output)
        return emit()
    }
}
