// Replies on their way: all of one turn to one connection in one send.

internal import BlockCore
internal import Reactor

extension Worker {
    // MARK: - Room

    /// Makes room for a reply; false when the connection must wait until something was sent.
    func ensureRoom(_ connection: Connection, byteCount: Int, regionCount: Int = 0) -> Bool {
        if hasRoom(connection, byteCount, regionCount) { return true }
        if !connection.filling.isEmpty {
            guard !connection.isSending else { return false }
            flush(connection)
        }
        guard connection.filling.chunk.isEmpty else {
            return hasRoom(connection, byteCount, regionCount)
        }
        giveChunk(connection)
        return hasRoom(connection, byteCount, regionCount)
    }

    private func hasRoom(_ connection: Connection, _ byteCount: Int, _ regionCount: Int) -> Bool {
        connection.filling.roomByteCount >= byteCount
            && connection.filling.hasRoom(regionCount: regionCount)
    }

    /// Gives the filling batch a chunk: the other batch's idle one, a large one while the pool
    /// has plenty, else the connection's own.
    private func giveChunk(_ connection: Connection) {
        if !connection.isSending, !connection.sending.chunk.isEmpty {
            return swap(&connection.filling, &connection.sending)
        }
        if connection.state == .open, pool.freeByteCount > pool.byteCount / 2,
            let chunk = pool.allocate(byteCount: NodeLimits.transmitByteCount)
        {
            return connection.filling.adopt(chunk: chunk, isOwn: false)
        }
        guard !connection.isOwnChunkBusy else { return }
        connection.filling.adopt(chunk: connection.memory.transmit, isOwn: true)
    }

    // MARK: - Sending

    /// Sends what has gathered, unless the last send is still under way.
    func flush(_ connection: Connection) {
        guard connection.takesOutput else { return freeIfUnused(connection) }
        guard !connection.isSending else { return }
        guard !connection.filling.isEmpty else {
            if connection.tls != nil { flushTLS(connection) }
            return closeIfDrained(connection)
        }
        connection.filling.closeRegion()
        swap(&connection.filling, &connection.sending)
        connection.isSending = true
        connection.sendingSince = now
        guard connection.tls == nil else { return sendUnderTLS(connection) }
        counters.sendCount &+= 1
        let regions = connection.sending.regions
        reactor.send(
            connection.socket,
            regions.span,
            token: token(TokenKind.send, connection)
        )
    }

    func onSent(_ connection: Connection, _ result: Int32) {
        guard connection.takesOutput else {
            connection.isSending = false
            return
        }
        guard result >= 0 else {
            connection.isSending = false
            return drop(connection)
        }
        if connection.tls != nil { return onCiphertextSent(connection) }
        onBatchSent(connection)
    }

    /// Frees what was sent and goes on with what waited for it.
    func onBatchSent(_ connection: Connection) {
        connection.isSending = false
        connection.sendingSince = nil
        release(connection.sending.reset(pool: pool), of: connection)
        resumeReplies(connection)
        guard connection.takesOutput else { return }
        if !connection.filling.isEmpty || connection.state == .draining { markFlush(connection) }
    }
}
