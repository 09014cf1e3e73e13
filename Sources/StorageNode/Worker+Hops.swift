// Messages between reactors: connections that live on one and stores that live on another.

internal import BlockCore
internal import LogStore
internal import Reactor

extension Worker {
    /// Sends a message; the receiver is woken at the end of the turn.
    func post(_ message: HopMessage, to worker: Int) {
        needsWake[worker] = true
        // Behind those that wait: a receiver counts on the order of one sender's messages.
        if backlogs[worker].isEmpty, peers[worker].enqueue(message) { return }
        backlogs[worker].append(message)
        hasBacklog = true
    }

    /// Sends what found a mailbox full.
    func postBacklogs() {
        guard hasBacklog else { return }
        hasBacklog = false
        for worker in backlogs.indices where !backlogs[worker].isEmpty {
            var count = 0
            while count < backlogs[worker].count, peers[worker].enqueue(backlogs[worker][count]) {
                count += 1
            }
            backlogs[worker].removeFirst(count)
            needsWake[worker] = true
            if !backlogs[worker].isEmpty { hasBacklog = true }
        }
    }

    func wakePeers() {
        for worker in needsWake.indices where needsWake[worker] {
            needsWake[worker] = false
            peerWakers[worker].wake()
        }
    }

    func receiveMessages() {
        while let message = mailbox.receive() {
            switch message.kind {
            case .adopt: adopt(Socket(descriptor: message.descriptor))
            case .attach: onAttach(message)
            case .attached: onAttachedMessage(message)
            case .detach: onDetach(message)
            case .adoptPeer:
                adoptPeer(
                    Socket(descriptor: message.descriptor),
                    TLSSession.taken(message.session),
                    message.hello,
                    triedCount: Int(message.triedCount)
                )
            case .request: onRequest(message)
            case .completion:
                dropUnanswered(message.completion)
                finish(message.completion)
            }
        }
    }

    private func host(of message: HopMessage) -> StoreHost? {
        hostsByStore[Int(message.key.storeIndex)]
    }

    // MARK: - On the store's side

    private func onAttach(_ message: HopMessage) {
        var answer = HopMessage(.attached, worker: index)
        answer.connection = message.connection
        answer.key = message.key
        if let host = host(of: message) {
            if host.store.state == .ready, let handle = host.open(message.key) {
                answer.handle = handle
                answer.isOpened = true
            }
        } else if let handle = openService(message.key) {
            answer.handle = handle
            answer.isOpened = true
        }
        post(answer, to: Int(message.worker))
    }

    private func onDetach(_ message: HopMessage) {
        if let host = host(of: message) { return host.close(message.key) }
        closeService(message.handle)
    }

    private func onRequest(_ message: HopMessage) {
        let entry = remotes.take(
            worker: message.worker,
            token: message.request.token,
            region: message.request.region
        )
        var request = message.request
        request.token = Token(kind: TokenKind.remoteRequest, index: UInt32(entry)).rawValue
        guard let host = host(of: message) else { return submitToService(request) }
        submit(request, to: host)
    }

    /// Sends a completion back, with its data in the request's own memory.
    func returnHop(_ completion: StoreCompletion) {
        let index = Int32(bitPattern: Token(rawValue: completion.token).index)
        let entry = remotes.release(index)
        var message = HopMessage(.completion, worker: self.index)
        message.completion = completion
        message.completion.token = entry.token
        let data = completion.region
        if !data.isEmpty, !entry.region.holds(data) {
            entry.region.copy(from: data)
            message.completion.region = entry.region.slice(0, data.byteCount)
        }
        post(message, to: Int(entry.worker))
    }

    // MARK: - On the connection's side

    private func onAttachedMessage(_ message: HopMessage) {
        guard let connection = connection(Token(rawValue: message.connection)) else {
            preconditionFailure("a connection that did not wait for its export")
        }
        connection.isAttaching = false
        guard connection.state == .opening else {
            // It is going, and its place was kept for this answer.
            if message.isOpened {
                var detach = HopMessage(.detach, worker: index)
                detach.key = message.key
                detach.handle = message.handle
                post(detach, to: Int(message.worker))
            }
            return freeIfUnused(connection)
        }
        onAttached(connection, message.isOpened ? message.handle : nil)
    }
}
