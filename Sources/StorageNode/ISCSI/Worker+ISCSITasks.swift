// Task management: what is aborted, and when that is answered.
//
// A task whose data is still coming ends at once; one whose operation is under way ends with it, and
// nobody hears of it; one whose answer is on its way is answered. The answer to the request waits for
// all of them. Spec: RFC 7143, 4.2.3, 11.5, 11.6; SAM-5, 7.

internal import BlockCore
internal import ISCSISession
internal import ISCSIWire
internal import Reactor
internal import SCSI

extension Worker {
    /// Does what a request about tasks asks.
    func manage(_ request: ISCSIManagement, _ connection: ISCSIConnection) {
        guard let unit = connection.unit else {
            return respond(request.taskTag, .rejected, connection)
        }
        let waitingCount = iscsi?.waits.count { $0.connection == connection.index } ?? 0
        guard waitingCount < ISCSIAbortWait.countMax else {
            return respond(request.taskTag, .rejected, connection)
        }
        let isForTarget =
            request.function == .targetWarmReset || request.function == .targetColdReset
        guard isForTarget || Self.isUnit(request.lun) || request.function == .taskReassign else {
            return respond(request.taskTag, .noUnit, connection)
        }
        switch request.function {
        case .abortTask:
            guard let task = connection.session.task(withTag: request.referencedTag) else {
                return respond(request.taskTag, .noTask, connection)
            }
            let slots = abort(task, connection, for: connection)
            wait(slots, request, connection)
        case .abortTaskSet:
            wait(abortAll(of: connection, for: connection), request, connection)
        case .clearTaskSet:
            let slots = abortAll(of: unit, for: connection)
            unit.logical.raise(.commandsCleared, except: connection.nexus)
            wait(slots, request, connection)
        case .unitReset: reset(unit, .logicalUnit, request, connection)
        case .targetWarmReset: reset(unit, .targetWarm, request, connection)
        case .targetColdReset: reset(unit, .targetCold, request, connection)
        case .clearACA: respond(request.taskTag, .notSupported, connection)
        case .taskReassign: respond(request.taskTag, .noReassignment, connection)
        }
    }

    private func reset(
        _ unit: ISCSIUnit,
        _ reason: ResetReason,
        _ request: ISCSIManagement,
        _ connection: ISCSIConnection
    ) {
        let slots = abortAll(of: unit, for: connection)
        // Whoever asked for the reset of a unit is told, too: other tasks of its may have ended.
        unit.logical.reset(reason)
        wait(slots, request, connection, closesAll: reason == .targetCold)
    }

    // MARK: - Aborting

    /// Aborts a task for `asker`; what has to end before that may be answered.
    ///
    /// Answers of another initiator that are on their way are not waited for: it may never read them.
    private func abort(
        _ task: Int32,
        _ connection: ISCSIConnection,
        for asker: ISCSIConnection
    ) -> Set<ISCSISlotReference> {
        let reference = connection.reference(task)
        switch connection.slots[Int(task)].state {
        case .free: return []
        case .receiving, .queued:
            endSlot(task, connection)
            return []
        case .working:
            connection.slots[Int(task)].isAborted = true
            return [reference]
        case .answering where connection === asker: return [reference]
        case .answering:
            if connection.slots[Int(task)].sentByteCount == 0 {
                connection.slots[Int(task)].isAborted = true
            }
            return []
        }
    }

    /// Aborts all tasks of a connection for `asker`.
    func abortAll(
        of connection: ISCSIConnection,
        for asker: ISCSIConnection
    ) -> Set<ISCSISlotReference> {
        var slots: Set<ISCSISlotReference> = []
        for task in 0..<connection.slots.count where connection.slots[task].state != .free {
            slots.formUnion(abort(Int32(task), connection, for: asker))
        }
        return slots
    }

    private func abortAll(
        of unit: ISCSIUnit,
        for asker: ISCSIConnection
    ) -> Set<ISCSISlotReference> {
        var slots: Set<ISCSISlotReference> = []
        for case let connection? in unit.connections {
            slots.formUnion(abortAll(of: connection, for: asker))
        }
        return slots
    }

    // MARK: - Answers

    private func wait(
        _ slots: Set<ISCSISlotReference>,
        _ request: ISCSIManagement,
        _ connection: ISCSIConnection,
        closesAll: Bool = false
    ) {
        let answer = ISCSIAbortWait.Answer.management(taskTag: request.taskTag)
        wait(slots, answer, connection, closesAll: closesAll)
    }

    /// Answers when all of `slots` have ended, possibly at once.
    func wait(
        _ slots: Set<ISCSISlotReference>,
        _ answer: ISCSIAbortWait.Answer,
        _ connection: ISCSIConnection,
        closesAll: Bool = false
    ) {
        let wait = ISCSIAbortWait(
            connection: connection.index,
            generation: connection.generation,
            answer: answer,
            slots: slots,
            closesAll: closesAll
        )
        guard !slots.isEmpty else { return settle(wait) }
        iscsi?.waits.append(wait)
    }

    /// Takes the end of a slot that somebody may be waiting for.
    func settleWaits(_ reference: ISCSISlotReference) {
        guard let iscsi else { return }
        for index in iscsi.waits.indices { iscsi.waits[index].slots.remove(reference) }
        let ended = iscsi.waits.filter(\.slots.isEmpty)
        iscsi.waits.removeAll(where: \.slots.isEmpty)
        for wait in ended { settle(wait) }
    }

    private func settle(_ wait: ISCSIAbortWait) {
        guard let iscsi else { return }
        let connection = iscsi.connections[Int(wait.connection)]
        guard connection.generation == wait.generation else { return }
        if case .command(let reference, let reply) = wait.answer {
            if holder(reference) === connection { answer(reference.task, reply, connection) }
            return
        }
        guard connection.takesOutput, case .management(let taskTag) = wait.answer else { return }
        respond(taskTag, .complete, connection)
        guard wait.closesAll, let unit = connection.unit else { return }
        for case let other? in unit.connections { drain(other) }
    }

    private func respond(
        _ taskTag: UInt32,
        _ outcome: ISCSITaskOutcome,
        _ connection: ISCSIConnection
    ) {
        // Requests are read only while there is room for an answer to each; a later answer may have
        // to make room, which it can: what fills the batch is on its way.
        guard ensureRoom(connection, byteCount: ISCSISession.smallResponseByteCountMax) else {
            return drop(connection)
        }
        let byteCount = connection.session.managementResponse(
            taskTag,
            outcome,
            into: connection.filling.room
        )
        didWrite(byteCount, connection)
    }
}
