// Frames of replication out: all of one turn to one peer in one send.

internal import BlockCore
internal import PeerWire
internal import Reactor
internal import Replication

extension Worker {
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

    private func encode(_ message: PrimaryMessage, _ link: PeerLink) -> Bool {
        write(message.body.payload, link) { byteCount, checksums in
            PeerFrameWriter.encode(
                primary: message,
                volume: link.volume,
                payloadByteCount: byteCount,
                blockChecksums: checksums,
                into: link.filling.room
            )
        }
    }

    private func encode(_ message: ReplicaMessage, _ link: PeerLink) -> Bool {
        write(message.body.payload, link) { byteCount, checksums in
            PeerFrameWriter.encode(
                replica: message,
                volume: link.volume,
                payloadByteCount: byteCount,
                blockChecksums: checksums,
                into: link.filling.room
            )
        }
    }

    /// Writes a frame into the batch that fills; false when it has no room.
    private func write(
        _ payload: PayloadID,
        _ link: PeerLink,
        _ head: (_ byteCount: Int, _ checksums: ByteRegion) -> Int
    ) -> Bool {
        let bytes = replication.payloads.region(payload)
        guard hasRoom(link, bytes) else { return false }
        let byteCount = head(bytes.byteCount, replication.payloads.checksums(payload))
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
        if let tls = link.tls { return encrypt(link, tls) }
        guard link.state.takesOutput, !link.isSending else { return }
        guard !link.filling.isEmpty else {
            if link.state == .draining { close(link) }
            return
        }
        beginBatch(link)
        let regions = link.sending.regions
        reactor.send(link.socket, regions.span, token: token(TokenKind.peerSend, link))
    }

    /// Makes what has gathered the batch that is on its way.
    func beginBatch(_ link: PeerLink) {
        link.filling.closeRegion()
        swap(&link.filling, &link.sending)
        link.isSending = true
    }

    /// Lets go of the batch that was sent, or encrypted, and writes what waited for room.
    func endBatch(_ link: PeerLink) {
        link.isSending = false
        for payload in link.sending.payloads { replication.payloads.release(payload) }
        link.sending.reset()
        refill(link)
    }

    func onPeerSent(_ link: PeerLink, _ result: Int32) {
        if let tls = link.tls { return onCiphertextSent(link, tls, result) }
        guard link.state.takesOutput, result >= 0 else {
            link.isSending = false
            return close(link)
        }
        endBatch(link)
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
}
