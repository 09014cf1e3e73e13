// Driving the stores of a worker: what they want goes to the ring, what they have done comes back.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import StorageIO

extension Worker {
    /// Device transfers that each store may have in flight: an equal part, so that no busy store
    /// has another one wait, nor a connection.
    private var deviceOperationShare: Int { max(limits.deviceOperationCount / hosts.count, 1) }

    /// Gives a request to a store and handles what that ends at once.
    func submit(_ request: StoreRequest, to host: StoreHost) {
        guard host.requestCount < host.admittedCountMax else { return host.waiting.append(request) }
        host.requestCount += 1
        host.store.submit(request)
        pump(host)
    }

    /// Gives a replica's request to its store.
    func submitOfReplica(_ request: StoreRequest, to host: StoreHost) {
        guard host.replicaRequestCount < host.replicaRequestCountMax else {
            return host.waitingReplicaRequests.append(request)
        }
        host.replicaRequestCount += 1
        host.store.submit(request)
        pump(host)
    }

    /// Gives the store requests that waited for others to end; false when there are none.
    private func submitWaiting(_ host: StoreHost) -> Bool {
        var isAny = false
        while host.replicaRequestCount < host.replicaRequestCountMax,
            let request = host.waitingReplicaRequests.popFirst()
        {
            host.replicaRequestCount += 1
            host.store.submit(request)
            isAny = true
        }
        while host.requestCount < host.admittedCountMax, let request = host.waiting.popFirst() {
            host.requestCount += 1
            host.store.submit(request)
            isAny = true
        }
        return isAny
    }

    /// Moves everything that a store has to say.
    ///
    /// Completions first, and all of them before the store is called again: their data may lie
    /// in its memory.
    func pump(_ host: StoreHost) {
        repeat {
            while let completion = host.store.completions.popFirst() {
                let token = Token(rawValue: completion.token)
                if token.kind == TokenKind.replicaRequest {
                    host.replicaRequestCount -= 1
                } else {
                    host.requestCount -= 1
                }
                switch completion.status {
                case .noSpace: host.room.onRefused(now: now)
                // That a store has stopped was told: its changes fail.
                case .mediaError:
                    if host.store.state == .ready {
                        host.failures.onFailed(host.store.lastFailedVolume)
                    }
                case .ok, .invalid, .readOnly, .unavailable: break
                }
                switch token.kind {
                case TokenKind.localRequest: finish(completion)
                case TokenKind.iscsiRequest: finishISCSI(completion)
                case TokenKind.replicaRequest: onReplicaCompletion(completion)
                default: returnHop(completion)
                }
            }
        } while submitWaiting(host)
        guard !host.store.deviceRequests.isEmpty else { return endCommands(host) }
        let share = deviceOperationShare
        while host.deviceOperationCount < share,
            let request = host.store.deviceRequests.popFirst()
        {
            host.deviceOperationCount += 1
            reactor.submit(
                request,
                to: host.deviceHandle,
                token: Token(kind: TokenKind.device, index: UInt32(host.place)).rawValue
            )
        }
        endCommands(host)
    }

    /// Ends a turn of a store's: what was batched goes out.
    func endTurn(_ host: StoreHost) {
        host.deadline = host.store.onTurn(now: now)
        pump(host)
        // Transfers beyond its share go when others of it end; there are some, so a turn comes.
        if host.store.state != host.lastState { onStateChanged(host) }
    }

    /// Tells what there is to tell of a store's room and of what failed; once a second.
    func watch(_ host: StoreHost) {
        if let count = host.failures.next(now: now) {
            let volume = host.failedVolumeName
            shared.sink(.requestsFailed(path: host.path, volume: volume, count: count))
        }
        let spaceWaitCount = reactor.spaceWaitCount(host.deviceHandle)
        switch host.room.onLook(spaceWaitCount: spaceWaitCount, now: now) {
        case .lasts(let seconds): shared.sink(.writesWait(path: host.path, seconds: seconds))
        case .isOver(let seconds): shared.sink(.writesGoOn(path: host.path, seconds: seconds))
        case nil: break
        }
        guard host.store.state == .ready else { return }
        let space = host.store.space
        while let notice = host.room.next(
            liveByteCount: space.liveByteCount,
            capacityByteCount: space.capacityByteCount,
            now: now
        ) {
            switch notice {
            case .scarce(let percent):
                shared.sink(.roomScarce(path: host.path, usedPercent: percent))
            case .ample(let percent):
                shared.sink(.roomAmple(path: host.path, usedPercent: percent))
            case .refused(let count):
                shared.sink(.writesRefused(path: host.path, count: count))
            }
        }
    }

    private func endCommands(_ host: StoreHost) {
        guard !host.store.commandCompletions.isEmpty else { return }
        let ended = host.store.commandCompletions
        host.store.commandCompletions.removeAll()
        for command in ended {
            host.commands.removeValue(forKey: command.token)?(command.result)
        }
    }

    private func onStateChanged(_ host: StoreHost) {
        host.lastState = host.store.state
        switch host.store.state {
        case .opening, .closing:
            break
        case .ready:
            let nanoseconds = MonotonicClock.now().nanoseconds - host.openedAt.nanoseconds
            if let offset = host.store.acceptedLossOffset {
                shared.sink(.lossAccepted(path: host.path, offset: offset))
            }
            shared.sink(.storeReady(path: host.path, milliseconds: nanoseconds / 1_000_000))
            publishExports(host)
            watch(host)
            for waiter in host.openWaiters { waiter(nil) }
            host.openWaiters = []
            // It was still opening when all were to close.
            if onStoresClosed != nil { close(host) }
        case .failed(let error):
            shared.sink(.storeFailed(path: host.path, error))
            for waiter in host.openWaiters { waiter(error) }
            host.openWaiters = []
            finishClosing()
        case .closed:
            finishClosing()
        }
    }

    // MARK: - The end

    /// Closes all stores; `onStoresClosed` is called when they are.
    ///
    /// One that is opening cannot be closed before it is ready.
    func closeStores() {
        // What could not be written has not been promised to be durable, and the node is to end.
        for host in hosts { reactor.stopWaitingForSpace(host.deviceHandle) }
        stopReplication()
        for host in hosts where host.store.state == .ready { close(host) }
        finishClosing()
    }

    private func close(_ host: StoreHost) {
        host.store.close()
        pump(host)
        // The store goes on in its next turn.
        host.deadline = now
    }

    private func finishClosing() {
        guard let onStoresClosed else { return }
        for host in hosts where host.store.state != .closed {
            guard case .failed = host.store.state else { return }
        }
        self.onStoresClosed = nil
        onStoresClosed()
    }
}
