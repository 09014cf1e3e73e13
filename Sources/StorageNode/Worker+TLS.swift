// Connections under TLS: the ring moves ciphertext, the session sees plaintext.

internal import BlockCore
internal import NBDSession
internal import Reactor

/// The TLS side of one connection.
final class TLSConnection {
    /// Ciphertext received and not yet taken, and ciphertext to send: one full record and more.
    static let bufferByteCount = 32 << 10
    /// Both.
    static let buffersByteCount = 2 * bufferByteCount

    let session: TLSSession
    /// Both buffers, of the pool.
    let buffers: ByteRegion
    let incoming: ByteRegion
    let outgoing: ByteRegion
    var incomingStart = 0
    var incomingEnd = 0
    var isSending = false
    var isShutDown = false
    /// An export was opened: it is not one of the handshakes any more.
    var hasOpened = false
    /// How far the batch on its way has been encrypted.
    var regionIndex = 0
    var regionOffset = 0

    init(session: TLSSession, buffers: ByteRegion) {
        self.session = session
        self.buffers = buffers
        incoming = buffers.slice(0, Self.bufferByteCount)
        outgoing = buffers.slice(Self.bufferByteCount, Self.bufferByteCount)
    }
}

extension Worker {
    // MARK: - Handshake

    /// Whether the connection is between plain and encrypted.
    func isHandshakingTLS(_ connection: Connection) -> Bool { connection.isStartingTLS }

    /// Begins TLS once what was said in the clear has been sent.
    func beginTLS(_ connection: Connection) { connection.isStartingTLS = true }

    /// Goes on with the handshake; false when it has to wait for the other side.
    func advanceTLS(_ connection: Connection) -> Bool {
        guard let tls = connection.tls else { return createTLS(connection) }
        let isDone = fetch(connection)
        guard connection.takesInput else { return false }
        encrypt(connection, tls)
        guard tls.session.state == .established else {
            connection.wantsInput = true
            return isDone
        }
        connection.isStartingTLS = false
        connection.session.onTLSEstablished()
        return true
    }

    private func createTLS(_ connection: Connection) -> Bool {
        guard connection.filling.isEmpty, !connection.isSending else {
            connection.isBlocked = true
            return false
        }
        guard mayCreateTLS, let session = try? shared.tls?.makeSession(),
            let buffers = pool.allocate(byteCount: TLSConnection.buffersByteCount)
        else {
            counters.refusedCount &+= 1
            drop(connection)
            return false
        }
        connection.tls = TLSConnection(session: session, buffers: buffers)
        tlsCount += 1
        tlsHandshakeCount += 1
        return true
    }

    /// Whether TLS connections have not used up their part of the pool.
    private var mayCreateTLS: Bool {
        let byteCount = TLSConnection.buffersByteCount
        return (tlsCount + 1) * byteCount <= pool.byteCount / NodeLimits.tlsPoolDivisor
            && (tlsHandshakeCount + 1) * byteCount
                <= pool.byteCount / NodeLimits.tlsHandshakePoolDivisor
    }

    /// Counts the connection no more among those that have not opened an export.
    func endTLSHandshake(_ connection: Connection) {
        guard let tls = connection.tls, !tls.hasOpened else { return }
        tls.hasOpened = true
        tlsHandshakeCount -= 1
    }

    /// Gives back what TLS needed.
    func endTLS(_ connection: Connection) {
        connection.isStartingTLS = false
        guard let tls = connection.tls else { return }
        endTLSHandshake(connection)
        tlsCount -= 1
        pool.release(tls.buffers)
        connection.tls = nil
        hasFreed = true
    }

    // MARK: - Input

    /// Has ciphertext received.
    func receiveCiphertext(_ connection: Connection) {
        guard let tls = connection.tls else { return }
        if tls.incomingStart > 0 {
            let rest = tls.incoming.slice(tls.incomingStart, tls.incomingEnd - tls.incomingStart)
            tls.incoming.copy(from: rest)
            tls.incomingStart = 0
            tls.incomingEnd = rest.byteCount
        }
        let room = tls.incoming.suffix(from: tls.incomingEnd)
        guard !room.isEmpty else { return }
        connection.isReceiving = true
        reactor.receive(
            connection.socket,
            into: room,
            token: token(TokenKind.receive, connection)
        )
    }

    func onCiphertext(_ connection: Connection, byteCount: Int) {
        connection.tls?.incomingEnd += byteCount
    }

    /// Gets plaintext to where it is wanted; false when the client must send more first.
    ///
    /// Without TLS plaintext comes from the socket, so there is never any to be had here.
    func fetch(_ connection: Connection) -> Bool {
        guard let tls = connection.tls else { return false }
        let target = receiveTarget(connection)
        while true {
            let rest = tls.incoming.slice(tls.incomingStart, tls.incomingEnd - tls.incomingStart)
            let takenByteCount = tls.session.receiveCiphertext(rest)
            tls.incomingStart += takenByteCount
            switch tls.session.readPlaintext(into: target) {
            case .bytes(let byteCount):
                didReceive(connection, byteCount: byteCount)
                return true
            case .wantMore where takenByteCount > 0:
                continue
            case .wantMore where connection.isInputEnded:
                // All that came has been read. What it asked for is still answered, so the
                // session is not told yet: it could send nothing any more.
                onInputEnded(connection)
                return false
            case .wantMore, .wantDrain:
                connection.isReceivingPayload = false
                encrypt(connection, tls)
                // Room for ciphertext may be what was missing.
                connection.isBlocked = tls.isSending
                return false
            case .closed:
                onInputEnded(connection)
                return false
            case .failed:
                connection.isReceivingPayload = false
                failTLS(connection, tls)
                return false
            }
        }
    }

    private func failTLS(_ connection: Connection, _ tls: TLSConnection) {
        if let failure = tls.session.failure, !failure.isTruncation {
            shared.sink(.tlsFailed(failure))
        }
        counters.violationCount &+= 1
        // The alert tells the client why; it is sent when the socket takes it at once.
        encrypt(connection, tls)
        drain(connection)
    }

    // MARK: - Output

    /// Begins to encrypt and send the batch on its way.
    func sendUnderTLS(_ connection: Connection) {
        guard let tls = connection.tls else { return }
        tls.regionIndex = 0
        tls.regionOffset = 0
        encrypt(connection, tls)
    }

    /// Sends ciphertext that no batch asked for: answers of the protocol itself.
    func flushTLS(_ connection: Connection) {
        guard let tls = connection.tls else { return }
        encrypt(connection, tls)
    }

    /// Whether everything was sent, the end of the stream included.
    func isTLSDrained(_ connection: Connection) -> Bool {
        guard let tls = connection.tls else { return true }
        if !tls.isShutDown {
            tls.isShutDown = true
            checkEnd(connection, tls)
            tls.session.shutdown()
            encrypt(connection, tls)
        }
        return !tls.isSending
    }

    /// Tells the session that its stream has ended, when it has, after everything was answered.
    ///
    /// Without close_notify nobody knows whether more was on its way. What came was whole, or was
    /// given up with the connection, so this is no violation; clients that are killed end so.
    private func checkEnd(_ connection: Connection, _ tls: TLSConnection) {
        guard connection.isInputEnded, tls.session.state == .established else { return }
        tls.session.transportEnded()
        let result = tls.session.readPlaintext(into: connection.memory.receive)
        if result == .failed, tls.session.failure?.isTruncation == true {
            counters.truncatedCount &+= 1
        }
    }

    /// Encrypts what fits and sends it; the end of the batch is the end of its last ciphertext.
    private func encrypt(_ connection: Connection, _ tls: TLSConnection) {
        guard !tls.isSending else { return }
        var byteCount = 0
        while byteCount < tls.outgoing.byteCount {
            if connection.isSending { feed(connection.sending, tls) }
            let taken = tls.session.takeCiphertext(into: tls.outgoing.suffix(from: byteCount))
            guard taken > 0 else { break }
            byteCount += taken
        }
        if byteCount > 0 {
            tls.isSending = true
            counters.sendCount &+= 1
            return reactor.send(
                connection.socket,
                tls.outgoing.slice(0, byteCount),
                token: token(TokenKind.send, connection)
            )
        }
        guard connection.isSending else { return }
        // Nothing to take although a batch is under way: it is through, or the session is dead.
        guard tls.regionIndex == connection.sending.regions.count else { return drop(connection) }
        onBatchSent(connection)
    }

    private func feed(_ batch: ReplyBatch, _ tls: TLSConnection) {
        while tls.regionIndex < batch.regions.count {
            let rest = batch.regions[tls.regionIndex].suffix(from: tls.regionOffset)
            let byteCount = tls.session.writePlaintext(rest)
            guard byteCount > 0 else { return }
            tls.regionOffset += byteCount
            guard byteCount == rest.byteCount else { continue }
            tls.regionIndex += 1
            tls.regionOffset = 0
        }
    }

    func onCiphertextSent(_ connection: Connection) {
        guard let tls = connection.tls else { return }
        tls.isSending = false
        encrypt(connection, tls)
        guard connection.takesOutput else { return }
        if connection.isBlocked || connection.isStartingTLS { markReady(connection) }
        if connection.state == .draining, !tls.isSending { markFlush(connection) }
    }
}
