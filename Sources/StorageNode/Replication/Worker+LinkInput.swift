// Frames of replication in: received, decoded, checked, and given to whose they are.

internal import BlockCore
internal import LogStore
internal import PeerWire
internal import Reactor
internal import Replication

extension Worker {
    func receive(_ link: PeerLink) {
        guard !link.isReceiving, !link.isBlocked, link.state.takesInput else { return }
        if let tls = link.tls { return receiveCiphertext(link, tls) }
        let room = inputRoom(link)
        guard !room.isEmpty else { return }
        link.isReceiving = true
        reactor.receive(link.socket, into: room, token: token(TokenKind.peerReceive, link))
    }

    /// Where the next bytes of frames belong.
    func inputRoom(_ link: PeerLink) -> ByteRegion {
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
        return link.chunk.slice(link.receiveEnd, max(0, byteCount))
    }

    func onPeerReceived(_ link: PeerLink, _ result: Int32) {
        link.isReceiving = false
        guard link.state.takesInput else { return }
        guard result > 0 else { return onPeerEnded(link, result) }
        link.heardAt = now
        if let tls = link.tls {
            tls.didReceive(byteCount: Int(result))
        } else {
            link.receiveEnd += Int(result)
        }
        proceed(link)
        receive(link)
    }

    /// Goes on with what has come.
    func proceed(_ link: PeerLink) {
        if let tls = link.tls { decrypt(link, tls) } else { parse(link) }
    }

    /// Handles the frames that are there.
    func parse(_ link: PeerLink) {
        link.isBlocked = false
        do throws(PeerFault) {
            while link.state.takesInput, try parseFrame(link) {}
        } catch PeerFault.tls {
            tell(.isRequired, of: link)
            close(link)
        } catch {
            shared.sink(.peerViolation(volume: link.volume, reason: error.text))
            close(link)
        }
    }

    /// Handles one frame; false when it is not whole, or there is no memory for it.
    private func parseFrame(_ link: PeerLink) throws(PeerFault) -> Bool {
        let input = link.input
        if link.state != .open, PeerSpeech.isTLS(input) { throw .tls }
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
            replication.payloads.keep(checksums, of: payload)
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
            let byteCount = replica.host.store.byteCount(of: replica.volume) ?? 0
            guard header.volume == link.volume,
                frame.endBlock <= byteCount >> BlockGeometry.blockShift
            else { throw .outOfTurn }
            deliver(message, to: replica, from: name)
        case (.replica(let message), .primary(let primary, let slot), .open):
            guard header.volume == link.volume, primary.assignment.contains(message.body) else {
                throw .outOfTurn
            }
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
            proceed(link)
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
}

extension ServiceAssignment {
    /// Whether what a replica says is of blocks that the volume has: a damaged one is looked for in
    /// others.
    fileprivate func contains(_ body: ReplicaMessage.Body) -> Bool {
        guard case .readFailed(_, let block) = body else { return true }
        return block < byteCount >> BlockGeometry.blockShift
    }
}

/// Why a link is cut.
enum PeerFault: Error {
    /// What came does not decode.
    case wire(PeerWireError)
    /// A payload's checksum does not match.
    case payloadDamaged
    /// No frame, but the beginning of TLS.
    case tls
    /// A frame that nobody expects now, of another volume, or beyond its end.
    case outOfTurn

    /// For people.
    var text: String {
        switch self {
        case .wire(let error): error.text
        case .payloadDamaged: "the checksum of a payload does not match"
        case .tls: "TLS where frames are expected"
        case .outOfTurn: "a frame out of turn"
        }
    }
}
