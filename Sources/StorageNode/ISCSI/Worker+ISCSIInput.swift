// The input of an iSCSI connection: bytes in, commands and their data out.

internal import BlockCore
internal import ISCSISession
internal import ISCSIWire
internal import Reactor
internal import SCSI

extension Worker {
    /// Steps of one connection before the others have their turn.
    private static let stepBudget = 256

    func advanceReadyISCSI() {
        guard let iscsi else { return }
        var count = iscsi.ready.count
        while count > 0, let index = iscsi.ready.popFirst() {
            count -= 1
            let connection = iscsi.connections[Int(index)]
            connection.isReady = false
            advance(connection)
        }
    }

    func flushAllISCSI() {
        guard let iscsi else { return }
        while let index = iscsi.flushing.popFirst() {
            let connection = iscsi.connections[Int(index)]
            connection.wantsFlush = false
            flush(connection)
        }
    }

    /// Reads what has come in, as far as there is room for what it asks.
    private func advance(_ connection: ISCSIConnection) {
        guard connection.takesInput else { return freeIfUnused(connection) }
        connection.isBlocked = false
        var budget = Self.stepBudget
        while connection.takesInput {
            guard budget > 0 else { return markReady(connection) }
            budget -= 1
            guard connection.deferred.isEmpty,
                ensureRoom(connection, byteCount: connection.session.nextOutputByteCountMax)
            else {
                connection.isBlocked = true
                return
            }
            let (consumedByteCount, event) = connection.session.next(input: connection.input)
            let isMore = act(event, connection)
            connection.consume(consumedByteCount)
            guard isMore else { break }
        }
        if connection.takesInput { receive(connection) }
    }

    /// Does what the session says; false when it wants more bytes.
    private func act(_ event: ISCSIEvent, _ connection: ISCSIConnection) -> Bool {
        switch event {
        case .needMore: return false
        case .output(let bytes):
            // Somebody has been answered: from here on the connection cannot begin anew elsewhere.
            connection.filling.room.copy(from: bytes)
            didWrite(bytes.byteCount, connection)
        case .command(let task): onCommand(task, connection)
        case .data(let task, let offset, let bytes):
            counters.writtenByteCount &+= UInt64(bytes.byteCount)
            connection.slots[Int(task)].buffer.copy(from: bytes, at: Int(offset))
            connection.slots[Int(task)].movedAt = now
        case .ready(let task): onReady(task, connection)
        case .management(let request): manage(request, connection)
        case .loggedIn:
            connection.state = .open
            connection.deadline = nil
            connection.loginBytes = []
        case .close(let reason):
            end(connection, reason)
            return false
        }
        return true
    }

    private func end(_ connection: ISCSIConnection, _ reason: ISCSICloseReason) {
        switch reason {
        case .orderly: drain(connection)
        case .handedOver: handOver(connection)
        default:
            counters.violationCount &+= 1
            drop(connection)
        }
    }

    private func receive(_ connection: ISCSIConnection) {
        guard !connection.isReceiving else { return }
        precondition(connection.receiveEnd == 0, "receiving behind bytes not yet read")
        connection.isReceiving = true
        reactor.receive(
            connection.socket,
            into: connection.memory.receive,
            token: token(TokenKind.iscsiReceive, connection)
        )
    }

    func onISCSIReceived(_ connection: ISCSIConnection, _ result: Int32) {
        connection.isReceiving = false
        guard connection.takesInput else { return }
        guard result > 0 else { return drop(connection) }
        counters.receiveCount &+= 1
        connection.receiveEnd += Int(result)
        connection.heardAt = now
        connection.isPinged = false
        if connection.state == .login { noteLogin(connection) }
        markReady(connection)
    }

    /// Keeps what was received before the target is known, in case that another reactor has it.
    private func noteLogin(_ connection: ISCSIConnection) {
        let bytes = connection.input
        guard connection.unit == nil,
            connection.loginBytes.count + bytes.byteCount <= ISCSIMemory.receiveByteCount
        else { return }
        connection.loginBytes += bytes.array()
    }
}
