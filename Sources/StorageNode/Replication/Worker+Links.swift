// Connections between primaries and replicas: opening, frames in, frames out, the end.

internal import BlockCore
internal import LogStore
internal import PeerWire
internal import Reactor
internal import Replication

extension Worker {
    // MARK: - Opening

    /// Connects to the node of a replica and says what for; nil when that fails at once.
    func openPeer(_ address: PeerAddress, _ primary: PrimaryHost, _ slot: Int) -> PeerLink? {
        guard let socket = try? Socket.connectTCP(host: address.host, port: address.port) else {
            return nil
        }
        socket.disableDelay()
        let role = PeerLink.Role.primary(primary, slot: slot)
        guard let link = replication.addLink(socket, .greeting, role, now) else {
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
        receive(link)
        return link
    }

    /// Takes a connection that was accepted.
    func adoptPeer(_ socket: Socket) {
        guard !isStopping, let link = replication.addLink(socket, .awaitingHello, .none, now) else {
            return socket.closeUnused()
        }
        socket.disableDelay()
        receive(link)
    }

    /// Takes a connection whose hello another reactor has read.
    func adoptPeer(_ socket: Socket, _ hello: PeerHello, triedCount: Int) {
        guard !isStopping, let link = replication.addLink(socket, .awaitingHello, .none, now) else {
            return socket.closeUnused()
        }
        onHello(link, hello, triedCount: triedCount)
        receive(link)
    }

    private func onHello(_ link: PeerLink, _ hello: PeerHello, triedCount: Int) {
        link.volume = hello.volume
        link.instance = hello.instance
        guard let replica = replica(of: hello.volume, instance: hello.instance) else {
            guard triedCount + 1 < peers.count else { return refuse(link, hello, .unknownVolume) }
            return handOver(link, hello, triedCount: triedCount + 1)
        }
        let byteCount = replica.host.store.specification(of: replica.volume)?.byteCount ?? 0
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
        guard link.receiveEnd == link.receiveStart, !link.isReceiving,
            let copy = link.socket.duplicated()
        else { return refuse(link, hello, .busy) }
        var message = HopMessage(.adoptPeer, worker: index)
        message.descriptor = copy.descriptor
        message.hello = hello
        message.triedCount = Int32(triedCount)
        post(message, to: (Int(index) + 1) % peers.count)
        close(link)
    }

    // MARK: - Input

    private func receive(_ link: PeerLink) {
        guard !link.isReceiving, !link.isBlocked, link.state.takesInput else { return }
        link.makeRoom()
        var byteCount = link.chunk.byteCount - link.receiveEnd
        if link.state == .awaitingHello {
            // Until it is known whose the connection is no more than the hello is taken from it.
            let input = link.input
            var wanted = PeerLimits.headerByteCount
            if input.byteCount >= wanted, let header = try? PeerFrameReader.header(input) {
                wanted += header.bodyByteCount
            }
            byteCount = min(wanted - input.byteCount, byteCount)
        }
        guard byteCount > 0 else { return }
        link.isReceiving = true
        reactor.receive(
            link.socket,
            into: link.chunk.slice(link.receiveEnd, byteCount),
            token: token(TokenKind.peerReceive, link)
        )
    }

    func onPeerReceived(_ link: PeerLink, _ result: Int32) {
        link.isReceiving = false
        guard link.state.takesInput else { return }
        guard result > 0 else { return close(link) }
        link.heardAt = now
        link.receiveEnd += Int(result)
        parse(link)
        receive(link)
    }

    /// Handles the frames that are there.
    private func parse(_ link: PeerLink) {
        link.isBlocked = false
        do throws(PeerFault) {
            while link.state.takesInput, try parseFrame(link) {}
        } catch {
            shared.sink(.peerViolation(volume: link.volume, reason: error.text))
            close(link)
        }
    }

    /// Handles one frame; false when it is not whole, or there is no memory for it.
    private func parseFrame(_ link: PeerLink) throws(PeerFault) -> Bool {
        let input = link.input
        guard input.byteCount >= PeerLimits.headerByteCount else { return false }
        let header = try wire { () throws(PeerWireError) in try PeerFrameReader.header(input) }
        let bodyEnd = PeerLimits.headerByteCount + header.bodyByteCount
        let frameByteCount = bodyEnd + header.payloadByteCount
        guard input.byteCount >= frameByteCount else { return false }
        let body = input.slice(PeerLimits.headerByteCount, header.bodyByteCount)
        var payload = PayloadID.zeroes
        if header.payloadByteCount > 0 {
            let bytes = input.slice(bodyEnd, header.payloadByteCount)
            guard let taken = replication.payloads.allocate(byteCount: bytes.byteCount) else {
                link.isBlocked = true
                replication.isStarved = true
                return false
            }
            replication.payloads.region(taken).copy(from: bytes)
            payload = taken
        }
        do throws(PeerFault) {
            let frame = try wire { () throws(PeerWireError) in
                try PeerFrameReader.frame(header, body: body, payload: payload)
            }
            let checksums = PeerFrameReader.blockChecksums(of: header, body: body)
            let bytes = replication.payloads.region(payload)
            guard PeerFrameReader.payloadMatches(bytes, checksums: checksums) else {
                throw .payloadDamaged
            }
            link.consume(frameByteCount)
            try handle(frame, header, payload, link)
        } catch {
            replication.payloads.release(payload)
            throw error
        }
        return link.state.takesInput
    }

    private func handle(
        _ frame: PeerFrame,
        _ header: PeerFrameHeader,
        _ payload: PayloadID,
        _ link: PeerLink
    ) throws(PeerFault) {
        switch (frame, link.role, link.state) {
        case (.hello(let hello), .none, .awaitingHello):
            onHello(link, hello, triedCount: 0)
        case (.helloAnswer(let answer), .primary(let primary, let slot), .greeting):
            guard answer.refusal == nil else { return close(link) }
            link.state = .open
            onPeerOpen(primary, slot)
        case (.primary(let message), .replica(let replica, let name), .open):
            let byteCount = replica.host.store.specification(of: replica.volume)?.byteCount ?? 0
            guard header.volume == link.volume,
                frame.endBlock <= byteCount >> BlockGeometry.blockShift
            else { throw .outOfTurn }
            deliver(message, to: replica, from: name)
        case (.replica(let message), .primary(let primary, let slot), .open):
            guard header.volume == link.volume else { throw .outOfTurn }
            deliver(message, to: primary, slot: slot)
        default: throw .outOfTurn
        }
    }

    private func wire<Value>(
        _ body: () throws(PeerWireError) -> Value
    ) throws(PeerFault) -> Value {
        do throws(PeerWireError) { return try body() } catch { throw .wire(error) }
    }

    /// Goes on with links that waited for memory.
    func resumePeers() {
        guard replication.isStarved,
            replication.payloads.freedCount != replication.starvedMark
        else { return }
        replication.isStarved = false
        replication.starvedMark = replication.payloads.freedCount
        for case let link? in replication.links where link.isBlocked {
            parse(link)
            receive(link)
        }
        for replica in replication.replicasByVolume.values where !replica.looks.isEmpty {
            mark(replica)
        }
        for case let primary? in replication.primaries where !primary.waiting.isEmpty {
            primary.isWaitingWorthwhile = true
            mark(primary)
        }
    }

    // MARK: - Output

    func send(_ message: PrimaryMessage, over link: PeerLink) {
        guard link.state == .open else { return }
        if link.backlog.isEmpty, encode(message, link) { return markLink(link) }
        let payload = message.body.payload
        replication.payloads.retain(payload)
        link.heldByteCount += replication.payloads.region(payload).byteCount
        link.backlog.append(.primary(message))
        closeIfOverfull(link)
    }

    func send(_ message: ReplicaMessage, over link: PeerLink) {
        let payload = message.body.payload
        guard link.state == .open else { return replication.payloads.release(payload) }
        if link.backlog.isEmpty, encode(message, link) {
            replication.payloads.release(payload)
            return markLink(link)
        }
        // What the message held is held for the queue now.
        link.heldByteCount += replication.payloads.region(payload).byteCount
        link.backlog.append(.replica(message))
        closeIfOverfull(link)
    }

    private func closeIfOverfull(_ link: PeerLink) {
        if link.heldByteCount > replication.linkByteCountMax { close(link) }
    }

    /// Writes a frame into the batch that fills; false when it has no room.
    private func encode(_ message: PrimaryMessage, _ link: PeerLink) -> Bool {
        let payload = message.body.payload
        let bytes = replication.payloads.region(payload)
        guard hasRoom(link, bytes) else { return false }
        let byteCount = PeerFrameWriter.encode(
            primary: message,
            volume: link.volume,
            payloadByteCount: bytes.byteCount,
            blockChecksums: replication.checksums(of: bytes),
            into: link.filling.room
        )
        append(byteCount, payload, bytes, link)
        return true
    }

    private func encode(_ message: ReplicaMessage, _ link: PeerLink) -> Bool {
        let payload = message.body.payload
        let bytes = replication.payloads.region(payload)
        guard hasRoom(link, bytes) else { return false }
        let byteCount = PeerFrameWriter.encode(
            replica: message,
            volume: link.volume,
            payloadByteCount: bytes.byteCount,
            blockChecksums: replication.checksums(of: bytes),
            into: link.filling.room
        )
        append(byteCount, payload, bytes, link)
        return true
    }

    private func hasRoom(_ link: PeerLink, _ bytes: ByteRegion) -> Bool {
        let copied = bytes.byteCount <= PeerBatch.copiedByteCountMax ? bytes.byteCount : 0
        return link.filling.hasRoom(byteCount: PeerLimits.frameByteCountMax + copied)
    }

    private func append(
        _ headByteCount: Int,
        _ payload: PayloadID,
        _ bytes: ByteRegion,
        _ link: PeerLink
    ) {
        link.filling.didWrite(byteCount: headByteCount)
        guard !bytes.isEmpty else { return }
        if bytes.byteCount <= PeerBatch.copiedByteCountMax {
            link.filling.room.copy(from: bytes)
            link.filling.didWrite(byteCount: bytes.byteCount)
        } else {
            replication.payloads.retain(payload)
            link.filling.append(payload, bytes)
        }
    }

    func markLink(_ link: PeerLink) {
        guard !link.isMarked else { return }
        link.isMarked = true
        replication.markedLinks.append(link.index)
    }

    /// Sends what has gathered on all links.
    func flushLinks() {
        while let index = replication.markedLinks.popLast() {
            guard let link = replication.links[Int(index)] else { continue }
            link.isMarked = false
            flush(link)
        }
    }

    private func flush(_ link: PeerLink) {
        guard link.state.takesOutput, !link.isSending else { return }
        guard !link.filling.isEmpty else {
            if link.state == .draining { close(link) }
            return
        }
        link.filling.closeRegion()
        swap(&link.filling, &link.sending)
        link.isSending = true
        let regions = link.sending.regions
        reactor.send(link.socket, regions.span, token: token(TokenKind.peerSend, link))
    }

    func onPeerSent(_ link: PeerLink, _ result: Int32) {
        link.isSending = false
        for payload in link.sending.payloads { replication.payloads.release(payload) }
        link.sending.reset()
        guard link.state.takesOutput else { return }
        guard result >= 0 else { return close(link) }
        refill(link)
        markLink(link)
    }

    /// Writes what waited for room.
    private func refill(_ link: PeerLink) {
        while let next = link.backlog.first {
            let payload: PayloadID
            switch next {
            case .primary(let message):
                guard encode(message, link) else { return }
                payload = message.body.payload
            case .replica(let message):
                guard encode(message, link) else { return }
                payload = message.body.payload
            }
            _ = link.backlog.popFirst()
            link.heldByteCount -= replication.payloads.region(payload).byteCount
            replication.payloads.release(payload)
        }
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

/// Why a link is cut.
enum PeerFault: Error {
    /// What came does not decode.
    case wire(PeerWireError)
    /// A payload's checksum does not match.
    case payloadDamaged
    /// A frame that nobody expects now, of another volume, or beyond its end.
    case outOfTurn

    /// For people.
    var text: String {
        switch self {
        case .wire(let error): error.text
        case .payloadDamaged: "the checksum of a payload does not match"
        case .outOfTurn: "a frame out of turn"
        }
    }
}

extension PeerLink.State {
    var takesInput: Bool { self == .greeting || self == .awaitingHello || self == .open }
    var takesOutput: Bool { self != .closing && self != .closed }
}
