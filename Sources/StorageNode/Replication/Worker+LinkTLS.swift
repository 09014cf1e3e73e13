// Links under TLS: the ring moves ciphertext, frames are read and written as without.

internal import BlockCore
internal import Glibc
internal import Reactor

extension Worker {
    // MARK: - Input

    /// Has ciphertext received.
    func receiveCiphertext(_ link: PeerLink, _ tls: PeerTLS) {
        let room = tls.receiveTarget()
        guard !room.isEmpty else { return }
        link.isReceiving = true
        reactor.receive(link.socket, into: room, token: token(TokenKind.peerReceive, link))
    }

    /// Decrypts what has come and handles its frames, as far as there is room for them.
    func decrypt(_ link: PeerLink, _ tls: PeerTLS) {
        // Frames that waited for memory.
        parse(link)
        tls.isStalled = false
        reading: while link.state.takesInput, !link.isBlocked {
            let room = inputRoom(link)
            guard !room.isEmpty else { break }
            switch tls.read(into: room) {
            case .bytes(let byteCount):
                link.receiveEnd += byteCount
                parse(link)
            case .wantMore: break reading
            case .wantDrain:
                tls.isStalled = true
                break reading
            case .closed: return close(link)
            case .failed: return failTLS(link, tls)
            }
        }
        // It may have gone to another reactor meanwhile.
        guard link.tls === tls else { return }
        if !tls.isEstablished { tls.isEstablished = tls.session.state == .established }
        encrypt(link, tls)
    }

    /// The other side has ended the connection, or the network has.
    func onPeerEnded(_ link: PeerLink, _ result: Int32) {
        if let tls = link.tls, !tls.isEstablished {
            // An end with bytes unread is a reset, for instance of a hello in TLS.
            let isAnswer = result == 0 || result == -ECONNRESET
            // Whoever only looks whether the port is open is no news.
            if isAnswer, link.isDialled || tls.hasReceived { tell(.ended, of: link) }
        }
        close(link)
    }

    // MARK: - Output

    /// Encrypts what is to be sent, as far as it fits, and sends it.
    func encrypt(_ link: PeerLink, _ tls: PeerTLS) {
        guard link.state.takesOutput, !tls.isSending else { return }
        var byteCount = 0
        while true {
            feed(link, tls)
            let gathered = tls.gather(behind: byteCount)
            guard gathered > 0 else { break }
            byteCount += gathered
        }
        guard byteCount > 0 else {
            if tls.session.failure != nil, link.state != .draining { return failTLS(link, tls) }
            let isDone = !link.isSending && link.filling.isEmpty
            if link.state == .draining, isDone || tls.session.failure != nil { close(link) }
            return
        }
        tls.isSending = true
        reactor.send(
            link.socket,
            tls.gathered(byteCount: byteCount),
            token: token(TokenKind.peerSend, link)
        )
    }

    /// Gives batches to the session until it takes no more.
    private func feed(_ link: PeerLink, _ tls: PeerTLS) {
        guard tls.isEstablished else { return }
        while link.isSending || !link.filling.isEmpty {
            if !link.isSending { beginBatch(link) }
            guard tls.write(link.sending.regions.span) else { return }
            endBatch(link)
        }
    }

    func onCiphertextSent(_ link: PeerLink, _ tls: PeerTLS, _ result: Int32) {
        tls.isSending = false
        guard link.state.takesOutput else { return }
        guard result >= 0 else { return onPeerEnded(link, result) }
        encrypt(link, tls)
        guard tls.isStalled else { return }
        decrypt(link, tls)
        receive(link)
    }

    // MARK: - Failures

    /// Ends a link whose session has failed: the other side is told why, in an alert.
    private func failTLS(_ link: PeerLink, _ tls: PeerTLS) {
        if let failure = tls.session.failure { tell(reason(failure, link, tls), of: link) }
        link.state = .draining
        guard tls.isSpokenToInTheClear else { return encrypt(link, tls) }
        // OpenSSL has no words for those who do not speak TLS.
        link.tls = nil
        link.filling.room.copy(from: PeerSpeech.alert)
        link.filling.didWrite(byteCount: PeerSpeech.alert.count)
        markLink(link)
    }

    /// What a failed session means between two nodes.
    private func reason(
        _ failure: TLSFailure,
        _ link: PeerLink,
        _ tls: PeerTLS
    ) -> PeerTLSFailure {
        if tls.isSpokenToInTheClear { return .isPlain }
        if let alert = failure.alert { return .refused(reason: alert) }
        if failure.isOtherName {
            return link.peer.map { .isAnother(expected: NodeCertificate.name(of: $0)) } ?? .isNoNode
        }
        return failure.isTruncation ? .ended : .failed(reason: "\(failure)")
    }

    /// Tells of a link that was not to be under TLS as both ends want it, unless that was just told.
    func tell(_ failure: PeerTLSFailure, of link: PeerLink) {
        tell(failure, of: link.peer ?? link.socket.peerAddress ?? "?", isDialled: link.isDialled)
    }

    /// The same of a node to which there is no link.
    func tell(_ failure: PeerTLSFailure, of other: String, isDialled: Bool) {
        guard replication.failures.shallTell(failure, of: other, now: now) else { return }
        shared.sink(.peerTLSFailed(peer: other, isDialled: isDialled, failure))
    }

    // MARK: - Beginning

    /// The session of a link to a node; nil for one without TLS.
    ///
    /// - Throws: ``PeerTLSRefusal`` when there is to be none.
    func dialSession(
        _ node: String,
        at address: PeerAddress
    ) throws(PeerTLSRefusal) -> TLSSession? {
        guard let credentials = shared.peerCredentials else {
            guard shared.configuration.allowsPlainPeers || address.isLoopback else {
                tell(.wouldBePlain, of: node, isDialled: true)
                throw PeerTLSRefusal()
            }
            return nil
        }
        guard let session = credentials.dial(node) else { throw PeerTLSRefusal() }
        return session
    }

    /// The session of a connection that was accepted; nil for one without TLS.
    ///
    /// - Throws: ``PeerTLSRefusal`` when memory runs out.
    func acceptSession() throws(PeerTLSRefusal) -> TLSSession? {
        guard let credentials = shared.peerCredentials else { return nil }
        guard let session = credentials.accept() else { throw PeerTLSRefusal() }
        return session
    }

    // MARK: - Limits of the greeting

    /// Ends a connection that has not said whose it is in time.
    func checkGreeting(_ link: PeerLink) {
        guard link.state == .awaitingHello, link.volume == .none,
            link.beganAt.advanced(byNanoseconds: UInt64(limits.peerGreetingSeconds) * 1_000_000_000)
                <= now
        else { return }
        tell(.isLate, of: link)
        close(link)
    }

    /// Whether one more connection may begin; the one that has been at it longest makes room.
    func makeRoomForPeer() -> Bool {
        var count = 0
        var oldest: PeerLink?
        for case let link? in replication.links
        where link.state == .awaitingHello && link.volume == .none {
            count += 1
            if link.beganAt < oldest?.beganAt ?? Instant(nanoseconds: .max) { oldest = link }
        }
        if count >= limits.peerGreetingCountMax, let oldest { close(oldest) }
        return replication.linkCount < limits.peerLinkCountMax
    }
}

/// A link is not to begin.
struct PeerTLSRefusal: Error {}

extension PeerAddress {
    /// Whether it is an address of this machine that no other one reaches.
    public var isLoopback: Bool {
        host == "localhost" || host == "::1" || Self.isLoopback(octets: host)
    }

    /// Spec: RFC 1122, section 3.2.1.3: 127.0.0.0/8.
    private static func isLoopback(octets host: String) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}

extension TLSSession {
    /// Gives a session to whoever takes the number, once: another reactor.
    consuming func passed() -> UInt {
        // SAFETY: the reference is counted until `taken` has it; the sender lets go of the session.
        unsafe UInt(bitPattern: Unmanaged.passRetained(self).toOpaque())
    }

    /// Takes a session that was passed; nil for 0.
    static func taken(_ number: UInt) -> TLSSession? {
        // SAFETY: the number comes from `passed`, and each is taken once.
        guard let address = unsafe UnsafeRawPointer(bitPattern: number) else { return nil }
        return unsafe Unmanaged<TLSSession>.fromOpaque(address).takeRetainedValue()
    }
}

extension Socket {
    /// The address at the other end of a TCP connection, without its port; nil for none.
    fileprivate var peerAddress: String? {
        var address = sockaddr_storage()
        var byteCount = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        // SAFETY: both hold what their counts say, and outlive the calls, which end the text with a
        // zero. Numbers are asked for: nothing is looked up.
        let isKnown = unsafe withUnsafeMutablePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe getpeername(descriptor, address, &byteCount) == 0
                    && getnameinfo(
                        address,
                        byteCount,
                        &text,
                        socklen_t(text.count),
                        nil,
                        0,
                        NI_NUMERICHOST
                    ) == 0
            }
        }
        guard isKnown else { return nil }
        return String(
            decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
    }
}
