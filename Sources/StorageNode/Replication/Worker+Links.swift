// Connections between primaries and replicas: how they begin and end.

internal import BlockCore
internal import LogStore
internal import PeerWire
internal import Reactor
internal import Replication

extension Worker {
    // MARK: - Opening

    /// Connects to the node of a replica and says what for; nil when that fails at once.
    func openPeer(_ address: PeerAddress, _ primary: PrimaryHost, _ slot: Int) -> PeerLink? {
        let node = primary.slots[slot].placement.node
        let session: TLSSession?
        do throws(PeerTLSRefusal) {
            session = try dialSession(node, at: address)
        } catch { return nil }
        guard replication.linkCount < limits.peerLinkCountMax,
            let socket = try? Socket.connectTCP(host: address.host, port: address.port)
        else { return nil }
        socket.disableDelay()
        let role = PeerLink.Role.primary(primary, slot: slot)
        guard let link = replication.addLink(socket, .greeting, role, session, now) else {
            socket.closeUnused()
            return nil
        }
        link.volume = primary.assignment.volume
        link.instance = primary.slots[slot].placement.instance
        let hello = PeerHello(
            volume: link.volume,
            instance: link.instance,
            process: replication.process,
            volumeByteCount: primary.assignment.byteCount
        )
        link.filling.didWrite(byteCount: PeerFrameWriter.encode(hello, into: link.filling.room))
        markLink(link)
        // Under TLS that begins the handshake; the hello waits for its end.
        proceed(link)
        receive(link)
        return link
    }

    /// Takes a connection that was accepted.
    func adoptPeer(_ socket: Socket) {
        let session: TLSSession?
        do throws(PeerTLSRefusal) {
            session = try acceptSession()
        } catch { return socket.closeUnused() }
        guard !isStopping, makeRoomForPeer(),
            let link = replication.addLink(socket, .awaitingHello, .none, session, now)
        else { return socket.closeUnused() }
        socket.disableDelay()
        receive(link)
    }

    /// Takes a connection whose hello another reactor has read.
    func adoptPeer(
        _ socket: Socket,
        _ session: TLSSession?,
        _ hello: PeerHello,
        triedCount: Int
    ) {
        guard !isStopping, replication.linkCount < limits.peerLinkCountMax,
            let link = replication.addLink(socket, .awaitingHello, .none, session, now)
        else { return socket.closeUnused() }
        onHello(link, hello, triedCount: triedCount)
        receive(link)
    }

    func onHello(_ link: PeerLink, _ hello: PeerHello, triedCount: Int) {
        link.volume = hello.volume
        link.instance = hello.instance
        guard let replica = replica(of: hello.volume, instance: hello.instance) else {
            guard triedCount + 1 < peers.count else { return refuse(link, hello, .unknownVolume) }
            return handOver(link, hello, triedCount: triedCount + 1)
        }
        let byteCount = replica.host.store.byteCount(of: replica.volume) ?? 0
        guard hello.volumeByteCount > byteCount else { return accept(link, hello, replica) }
        // The volume has grown while this replica was away.
        let generation = link.generation
        replica.host.submit(.resizeVolume(replica.volume, byteCount: hello.volumeByteCount)) {
            [self] result in
            guard let link = replication.links[Int(link.index)], link.generation == generation,
                link.state == .awaitingHello
            else { return }
            guard case .success = result, !replica.isEnded else {
                return refuse(link, hello, .busy)
            }
            accept(link, hello, replica)
        }
        pump(replica.host)
    }

    private func accept(_ link: PeerLink, _ hello: PeerHello, _ replica: ReplicaHost) {
        let name = replication.nextLink()
        replica.sinks[name] = .peer(link)
        link.role = .replica(replica, name)
        link.state = .open
        let answer = PeerHelloAnswer(to: hello)
        link.filling.didWrite(byteCount: PeerFrameWriter.encode(answer, into: link.filling.room))
        markLink(link)
        parse(link)
    }

    private func refuse(_ link: PeerLink, _ hello: PeerHello, _ refusal: PeerRefusal) {
        let answer = PeerHelloAnswer(to: hello, refusal: refusal)
        link.filling.didWrite(byteCount: PeerFrameWriter.encode(answer, into: link.filling.room))
        link.state = .draining
        markLink(link)
    }

    /// Gives the connection to the next reactor, which may have the replica.
    ///
    /// Under another descriptor: the old one is closed here, where it was watched.
    private func handOver(_ link: PeerLink, _ hello: PeerHello, triedCount: Int) {
        guard link.receiveEnd == link.receiveStart, !link.isReceiving, link.tls?.isEmpty ?? true,
            let copy = link.socket.duplicated()
        else { return refuse(link, hello, .busy) }
        var message = HopMessage(.adoptPeer, worker: index)
        message.descriptor = copy.descriptor
        message.hello = hello
        message.triedCount = Int32(triedCount)
        if let tls = link.tls {
            // From here on the session is the other reactor's.
            link.tls = nil
            message.session = tls.session.passed()
        }
        post(message, to: (Int(index) + 1) % peers.count)
        close(link)
    }

    // MARK: - The end

    /// Cuts a link, and tells whose it is.
    func close(_ link: PeerLink) {
        guard link.state != .closing, link.state != .closed else { return }
        link.state = .closing
        reactor.close(link.socket, token: token(TokenKind.peerClose, link))
        let role = link.role
        link.role = .none
        switch role {
        case .primary(let primary, let slot): loseLink(primary, slot)
        case .replica(let replica, let name):
            replica.sinks[name] = nil
            replica.machine.onLinkClosed(name)
            mark(replica)
        case .none: break
        }
    }

    func onPeerClosed(_ link: PeerLink) {
        link.state = .closed
        for payload in link.filling.payloads + link.sending.payloads {
            replication.payloads.release(payload)
        }
        link.filling.reset()
        link.sending.reset()
        while let waiting = link.backlog.popFirst() {
            switch waiting {
            case .primary(let message): replication.payloads.release(message.body.payload)
            case .replica(let message): replication.payloads.release(message.body.payload)
            }
        }
        replication.remove(link)
    }

    func token(_ kind: UInt8, _ link: PeerLink) -> UInt64 {
        Token(kind: kind, index: UInt32(link.index), generation: link.generation).rawValue
    }

    /// The link that a token is for, unless its place has a new one.
    func link(_ token: Token) -> PeerLink? {
        guard let link = replication.links[Int(token.index)], link.generation == token.generation
        else { return nil }
        return link
    }
}

extension PeerLink.State {
    var takesInput: Bool { self == .greeting || self == .awaitingHello || self == .open }
    var takesOutput: Bool { self != .closing && self != .closed }
}
