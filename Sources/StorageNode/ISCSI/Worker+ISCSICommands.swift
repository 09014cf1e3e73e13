// From commands to plans, and from plans to what is done about them.

internal import BlockCore
internal import ISCSISession
internal import LogStore
internal import Reactor
internal import SCSI

extension Worker {
    // MARK: - Planning

    /// Judges a new command and says what of its data is wanted.
    func onCommand(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        let asked = connection.session.command(task)
        counters.requestCount &+= 1
        counters.requestCountNow &+= 1
        precondition(connection.slots[index].state == .free, "two commands in one place")
        connection.slots[index].state = .receiving
        connection.slots[index].movedAt = now
        connection.slots[index].command = SCSICommand(
            block: SCSICommandBlock(high: asked.blockHigh, low: asked.blockLow),
            nexus: connection.nexus,
            dataOutByteCount: asked.dataOutByteCount,
            dataInByteCount: asked.dataInByteCount
        )
        connection.slotCount += 1
        let plan = plan(task, lun: asked.lun, connection)
        take(plan, task, connection)
        let wanted = prepare(task, connection)
        connection.session.accept(task, wantedByteCount: wanted)
    }

    private func plan(_ task: Int32, lun: UInt64, _ connection: ISCSIConnection) -> SCSIPlan {
        guard let iscsi, let unit = connection.unit else {
            return .fail(.illegalRequest, .unitNotSupported)
        }
        let command = connection.slots[Int(task)].command
        guard Self.isUnit(lun) else {
            return LogicalUnit.planForAbsentUnit(
                command,
                lunInventory: unit.logical.lunInventory,
                dataIn: iscsi.dataIn
            )
        }
        return unit.logical.plan(command, dataIn: iscsi.dataIn)
    }

    /// Whether a LUN is the target's only unit: 0, in the peripheral or the flat form.
    ///
    /// Spec: SAM-5, 4.7.7.
    static func isUnit(_ lun: UInt64) -> Bool { lun == 0 || lun == 0x4000 << 48 }

    /// Takes a plan as the command's, with the data that the unit has put down for it.
    private func take(_ plan: SCSIPlan, _ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        connection.slots[index].plan = plan
        connection.slots[index].dataOutByteCount = plan.dataOutByteCount
        connection.slots[index].dataInByteCount = plan.dataInByteCount
        guard case .reply(let reply) = plan.step, reply.dataInByteCount > 0 else { return }
        keep(reply.dataInByteCount, task, connection)
    }

    /// Keeps what a unit has put down, as far as the initiator has room for it.
    @discardableResult
    func keep(_ byteCount: UInt32, _ task: Int32, _ connection: ISCSIConnection) -> Bool {
        guard let iscsi else { return false }
        let index = Int(task)
        let room = connection.slots[index].command.dataInByteCount
        let kept = Int(min(byteCount, room))
        connection.slots[index].dataInByteCount = byteCount
        guard kept > 0 else { return true }
        if connection.slots[index].buffer.isEmpty {
            guard let buffer = takeMemory(kept, connection) else {
                connection.slots[index].plan = .reply(SCSIReply(.busy))
                return false
            }
            connection.slots[index].buffer = buffer
        }
        let buffer = connection.slots[index].buffer
        guard buffer.byteCount >= kept else {
            // No command that brings parameters along is answered with more than they are.
            connection.slots[index].plan = .reply(SCSIReply(.hardwareError, .internalFailure))
            return false
        }
        buffer.copy(from: iscsi.dataIn.slice(0, kept))
        connection.slots[index].data = buffer.slice(0, kept)
        return true
    }

    /// Gets the memory that a plan needs; the bytes of data-out that it wants.
    ///
    /// Without memory the command is answered TASK SET FULL: a connection that waited for memory
    /// could not read the data of the commands that hold it.
    private func prepare(_ task: Int32, _ connection: ISCSIConnection) -> UInt32 {
        let index = Int(task)
        let block = BlockGeometry.blockByteCount
        let wanted: Int
        let needed: Int
        switch connection.slots[index].plan.step {
        case .reply, .storeReservations: return 0
        case .collect(let byteCount):
            wanted = Int(byteCount)
            needed = wanted
        case .perform(let operation):
            wanted = Int(operation.dataOutByteCount)
            needed =
                operation.kind == .read ? Int(operation.byteCount) + 2 * block : wanted + 2 * block
        }
        guard needed > 0, wanted > 0 || connection.slots[index].plan.isRead else { return 0 }
        guard let buffer = takeMemory((needed + block - 1) & ~(block - 1), connection) else {
            let isAlone = connection.slotCount == 1
            connection.slots[index].plan = .reply(SCSIReply(isAlone ? .busy : .taskSetFull))
            return 0
        }
        connection.slots[index].buffer = buffer
        return UInt32(wanted)
    }

    // MARK: - Carrying out

    /// Goes on with a command whose data has come.
    func onReady(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        switch connection.session.damage(of: task) {
        case .none: break
        case .digest: return refuse(task, .protocolDigestError, connection)
        case .unexpectedData: return refuse(task, .unexpectedUnsolicitedData, connection)
        case .missingData: return refuse(task, .notEnoughUnsolicitedData, connection)
        }
        if case .collect(let byteCount) = connection.slots[index].plan.step,
            let unit = connection.unit, let iscsi
        {
            let plan = unit.logical.plan(
                connection.slots[index].command,
                parameters: connection.slots[index].buffer.slice(0, Int(byteCount)),
                dataIn: iscsi.dataIn
            )
            let dataOut = connection.slots[index].dataOutByteCount
            take(plan, task, connection)
            connection.slots[index].dataOutByteCount = dataOut
        }
        carryOut(task, connection)
    }

    private func carryOut(_ task: Int32, _ connection: ISCSIConnection) {
        let index = Int(task)
        switch connection.slots[index].plan.step {
        case .reply(let reply): answer(task, reply, connection)
        case .perform(let operation):
            connection.slots[index].operation = operation
            begin(task, connection)
        case .storeReservations: storeReservations(task, connection)
        // A plan made of parameters collects nothing.
        case .collect: answer(task, SCSIReply(.hardwareError, .internalFailure), connection)
        }
    }

    private func refuse(_ task: Int32, _ code: SenseCode, _ connection: ISCSIConnection) {
        connection.slots[Int(task)].data = .empty
        answer(task, SCSIReply(.abortedCommand, code), connection)
    }

    /// Reservations live as long as the node serves the volume.
    ///
    /// Those that are to outlive a power loss are refused: nothing here could keep the promise.
    private func storeReservations(_ task: Int32, _ connection: ISCSIConnection) {
        guard let unit = connection.unit else { return }
        let isKept = unit.logical.pendingReservations?.persistsThroughPowerLoss != true
        let outcome = unit.logical.reservationsStored(isKept ? .stored : .failed)
        let reply =
            isKept ? outcome.reply : SCSIReply(.invalidField(parameters: 20, bit: 0))
        var aborted: Set<ISCSISlotReference> = []
        for nexus in unit.connections.indices
        where outcome.aborted.contains(NexusIndex(UInt8(nexus))) {
            guard let other = unit.connections[nexus], other !== connection else { continue }
            aborted.formUnion(abortAll(of: other, for: connection))
            unit.logical.raise(.commandsCleared, for: NexusIndex(UInt8(nexus)))
        }
        // Whoever preempts relies on nothing of the other's coming afterwards.
        connection.slots[Int(task)].state = .working
        wait(aborted, .command(connection.reference(task), reply), connection)
    }
}

extension SCSIPlan {
    /// Whether it reads blocks for the initiator.
    fileprivate var isRead: Bool {
        guard case .perform(let operation) = step else { return false }
        return operation.kind == .read
    }
}
