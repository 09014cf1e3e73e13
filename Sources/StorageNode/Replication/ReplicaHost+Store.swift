// What a replica asks of its store, and what comes of it.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

/// A replica's request at a store; its place in the table is in the request's token.
struct ReplicaRequest: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable { case free, step, flush, look }
    var kind = Kind.free
    var replica: Int32 = -1
    /// What is looked at, and for whom.
    var look: ReplicaHost.Look?
    /// Where what is read goes.
    var payload = PayloadID.zeroes
    /// Next in the list of free entries, or -1.
    var next: Int32 = -1
}

extension Worker {
    // MARK: - In order

    /// Goes on with what must be done in order.
    func step(_ replica: ReplicaHost) {
        while replica.current == nil, let step = replica.steps.popFirst() {
            switch step.kind {
            case .flush: submitFlush(replica)
            case .skip:
                replica.machine.onAppended(now: now)
                mark(replica)
            case .repair where !step.payload.hasBytes: break
            case .append, .fill, .repair, .persist, .snapshot, .drop:
                replica.current = step
                submit(step, replica)
            }
        }
    }

    private func submit(_ step: ReplicaHost.Step, _ replica: ReplicaHost) {
        switch step.kind {
        case .persist: return persist(replica)
        case .snapshot: return takeSnapshot(step, replica)
        case .drop: return dropSnapshot(step, replica)
        case .append, .fill, .repair, .flush, .skip: break
        }
        var request = StoreRequest(
            kind: step.payload == .zeroes
                ? .trim : step.payload == .allocatedZeroes ? .writeZeroes : .write,
            volume: replica.handle,
            offset: step.range.first << BlockGeometry.blockShift,
            byteCount: UInt64(step.range.byteCount),
            region: replication.payloads.region(step.payload),
            token: 0
        )
        request.number = step.number.rawValue
        request.checksums = replication.payloads.checksums(step.payload)
        if step.kind == .append { request.flags.insert(.streamed) }
        if step.kind == .repair { request.flags.insert(.repair) }
        if step.payload == .allocatedZeroes { request.flags.insert(.noHole) }
        submit(request, ReplicaRequest(kind: .step, replica: replica.index), replica)
    }

    private func submitFlush(_ replica: ReplicaHost) {
        let request = StoreRequest(
            kind: .flush,
            volume: replica.handle,
            offset: 0,
            byteCount: 0,
            token: 0
        )
        submit(request, ReplicaRequest(kind: .flush, replica: replica.index), replica)
    }

    private func persist(_ replica: ReplicaHost) {
        guard let record = replica.records.first else {
            preconditionFailure("a step of a record that is not there")
        }
        let command = StoreCommand.setReplica(volume: replica.volume, record: record.encoded())
        replica.requestCount += 1
        replica.host.submit(command) { [self] result in
            replica.requestCount -= 1
            guard !replica.isEnded else {
                replica.current = nil
                return finishEnd(replica)
            }
            switch result {
            case .success:
                _ = replica.records.popFirst()
                replica.current = nil
                replica.machine.onPersisted(now: now)
                mark(replica)
            case .failure(.noSpace), .failure(.tooMany):
                replica.retryAt = now.advanced(byNanoseconds: ReplicaHost.retryNanoseconds)
            case .failure: end(replica)
            }
        }
        pump(replica.host)
    }

    /// Tries again what found no room.
    func retry(_ replica: ReplicaHost) {
        guard let due = replica.retryAt, due <= now, let step = replica.current else { return }
        replica.retryAt = nil
        submit(step, replica)
        mark(replica)
    }

    /// Tells of blocks that were repaired: at once, then once a minute.
    func tellRepairs(_ replica: ReplicaHost) {
        let count = replica.repairedCount - replica.toldRepairedCount
        guard count > 0, replica.tellRepairedAt <= now else { return }
        replica.toldRepairedCount = replica.repairedCount
        replica.tellRepairedAt = now.advanced(
            byNanoseconds: FailureWatch.silenceSeconds * 1_000_000_000
        )
        shared.sink(
            .blocksRepaired(volume: replica.volume, path: replica.host.path, count: count)
        )
    }

    // MARK: - Out of turn

    /// Submits reads, as many as there may be.
    func look(_ replica: ReplicaHost) {
        closeViews(of: replica)
        while replica.requestCount < ReplicaHost.requestCountMax, var look = replica.looks.first {
            guard hasView(look, replica) else {
                _ = replica.looks.popFirst()
                replica.machine.onViewMissing(look.address)
                mark(replica)
                continue
            }
            let end = viewByteCount(look.view, replica)
            if look.kind == .fetch, look.range.first << BlockGeometry.blockShift >= end {
                // The volume has grown since: there is nothing.
                _ = replica.looks.popFirst()
                replica.machine.onFetched(look.address, payload: .zeroes, number: .zero)
                mark(replica)
                continue
            }
            if look.kind == .weigh {
                _ = replica.looks.popFirst()
                submitWeighing(look, replica)
                continue
            }
            guard openView(&look, replica) else { return }
            let isScan = look.kind == .scan
            let byteCount =
                isScan
                ? 16 * replica.machine.scanCountMax : look.range.byteCount
            guard let payload = replication.payloads.allocate(byteCount: byteCount) else {
                replication.isStarved = true
                close(look, replica)
                return
            }
            _ = replica.looks.popFirst()
            var request = StoreRequest(
                kind: isScan ? .scan : .read,
                volume: look.handle ?? replica.handle,
                offset: look.range.first << BlockGeometry.blockShift,
                byteCount: UInt64(look.range.byteCount),
                region: replication.payloads.region(payload),
                token: 0
            )
            if isScan {
                guard request.offset < end else {
                    replication.payloads.release(payload)
                    close(look, replica)
                    replica.machine.onScanned(look.address, entries: [], next: nil)
                    mark(replica)
                    continue
                }
                request.byteCount = end - request.offset
                request.number = look.above.rawValue
            }
            var entry = ReplicaRequest(kind: .look, replica: replica.index, look: look)
            entry.payload = payload
            submit(request, entry, replica)
        }
    }

    /// Asks how many blocks of a range would take room, whatever number they had.
    private func submitWeighing(_ look: ReplicaHost.Look, _ replica: ReplicaHost) {
        let request = StoreRequest(
            kind: .writeZeroes,
            volume: replica.handle,
            offset: look.range.first << BlockGeometry.blockShift,
            byteCount: UInt64(look.range.byteCount),
            flags: [.noHole, .weigh],
            number: WriteNumber(epoch: WriteNumber.epochMax, counter: WriteNumber.counterMax)
                .rawValue,
            token: 0
        )
        submit(request, ReplicaRequest(kind: .look, replica: replica.index, look: look), replica)
    }

    private func submit(_ request: StoreRequest, _ entry: ReplicaRequest, _ replica: ReplicaHost) {
        var request = request
        let index = replication.take(entry)
        request.token = Token(kind: TokenKind.replicaRequest, index: UInt32(index)).rawValue
        replica.requestCount += 1
        submitOfReplica(request, to: replica.host)
    }

    // MARK: - Ends

    /// Takes the end of a replica's request; the store must not be called from here.
    func onReplicaCompletion(_ completion: StoreCompletion) {
        let entry = replication.release(Int32(Token(rawValue: completion.token).index))
        let replica = replication.replicas[Int(entry.replica)]
        replica.requestCount -= 1
        mark(replica)
        switch entry.kind {
        case .step: finishStep(replica, completion)
        case .flush: finishFlush(replica, completion.status)
        case .look:
            if let look = entry.look { finishLook(look, replica, entry.payload, completion) }
        case .free: preconditionFailure("a request that ended twice")
        }
        if replica.isEnded { finishEnd(replica) }
    }

    private func finishStep(_ replica: ReplicaHost, _ completion: StoreCompletion) {
        guard let step = replica.current else { preconditionFailure("no step is under way") }
        let status = completion.status
        if step.kind == .repair {
            // Nobody waits for it: where there is no room, or it fails, the next read asks again.
            replica.current = nil
            replication.payloads.release(step.payload)
            replica.repairedCount += UInt64(status == .ok ? completion.extentCount : 0)
            return
        }
        if status == .noSpace, !replica.isEnded, let address = step.address {
            // What is in order goes on without it.
            replica.current = nil
            replication.payloads.release(step.payload)
            replica.machine.onFillRefused(address)
            return
        }
        if status == .noSpace, !replica.isEnded {
            replica.retryAt = now.advanced(byNanoseconds: ReplicaHost.retryNanoseconds)
            return
        }
        replica.current = nil
        replication.payloads.release(step.payload)
        guard !replica.isEnded else { return }
        guard status == .ok else { return replication.failed.append(replica) }
        replica.noteRoom()
        if let address = step.address {
            replica.machine.onFilled(address)
        } else {
            replica.machine.onAppended(now: now)
        }
    }

    private func finishFlush(_ replica: ReplicaHost, _ status: StoreStatus) {
        guard !replica.isEnded else { return }
        guard status == .ok else { return replication.failed.append(replica) }
        replica.machine.onFlushed(now: now)
    }

    private func finishLook(
        _ look: ReplicaHost.Look,
        _ replica: ReplicaHost,
        _ payload: PayloadID,
        _ completion: StoreCompletion
    ) {
        let address = look.address
        close(look, replica)
        guard look.kind != .weigh else {
            // What cannot be looked at counts in full.
            let isKnown = completion.status == .ok
            guard !replica.isEnded else { return }
            return replica.machine.onWeighed(
                address,
                blockCount: isKnown ? completion.extentCount : look.range.count
            )
        }
        guard !replica.isEnded, completion.status == .ok else {
            replication.payloads.release(payload)
            if !replica.isEnded { fail(look, replica, completion) }
            return
        }
        let number = WriteNumber(rawValue: completion.number)
        switch look.kind {
        case .read:
            replica.machine.onRead(address, payload: settled(payload, completion), number: number)
        case .fetch:
            replica.machine.onFetched(
                address,
                payload: settled(payload, completion),
                number: number
            )
        case .scan:
            let region = replication.payloads.region(payload)
            let entries = (0..<Int(completion.extentCount)).map { index in
                ScanEntry(
                    block: region.load(16 * index, as: UInt64.self),
                    number: WriteNumber(rawValue: region.load(16 * index + 8, as: UInt64.self))
                )
            }
            replication.payloads.release(payload)
            let end = viewByteCount(look.view, replica)
            let offset = look.range.first << BlockGeometry.blockShift
            let next = offset + completion.byteCount
            replica.machine.onScanned(
                address,
                entries: entries,
                next: next < end && completion.byteCount > 0
                    ? next >> BlockGeometry.blockShift : nil
            )
        case .weigh: preconditionFailure("ended before")
        }
    }

    /// Says that something could not be read; a replica that cannot read its map is over.
    private func fail(
        _ look: ReplicaHost.Look,
        _ replica: ReplicaHost,
        _ completion: StoreCompletion
    ) {
        let number = WriteNumber(rawValue: completion.number)
        switch look.kind {
        case .read:
            let block = look.range.first + completion.byteCount >> BlockGeometry.blockShift
            replica.machine.onReadFailed(look.address, block: block)
        case .fetch where number != .zero:
            replica.machine.onFetchFailed(look.address, number: number)
        case .fetch, .scan: replication.failed.append(replica)
        case .weigh: preconditionFailure("ended before")
        }
    }

    /// What was read, in the payload's own memory; zeroes take none.
    private func settled(_ payload: PayloadID, _ completion: StoreCompletion) -> PayloadID {
        guard !completion.region.isEmpty else {
            replication.payloads.release(payload)
            return .zeroes
        }
        let region = replication.payloads.region(payload)
        if !region.holds(completion.region) { region.copy(from: completion.region) }
        return payload
    }
}
