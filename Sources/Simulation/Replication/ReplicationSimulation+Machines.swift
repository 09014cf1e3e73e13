// What the owner of a machine does for it: send, store, and tell clients.

internal import BlockCore
internal import Replication

extension ReplicationSimulation {
    // MARK: - Replicas

    /// Puts a replica with an empty disk into a slot.
    func createReplica(_ slot: Int, record: ReplicaRecord) {
        let process = processes[slot]
        instances.append(record.instance)
        holders.append(slot)
        createDisk(process, record: record)
    }

    /// Puts an empty disk into a process, and starts a replica on it.
    func createDisk(_ process: SimulatedProcess, record: ReplicaRecord) {
        let comparesFills = scenario.policy.defect != .fillNotCompared
        process.disk = ReplicaDisk(record: record, comparesFills: comparesFills)
        startReplica(process, isNew: true)
    }

    /// Starts a replica's machine on what its disk holds.
    func startReplica(_ process: SimulatedProcess, isNew: Bool) {
        guard let disk = process.disk else { return }
        process.replica = ReplicaMachine(
            record: disk.record,
            streamed: disk.streamed,
            snapshots: disk.snapshots,
            incarnation: Incarnation(UInt64(process.storeLife)),
            policy: scenario.policy,
            isNew: isNew,
            now: process.localTime(now)
        )
        if let replica = process.replica { carryOut(replica, process) }
    }

    /// Carries out what a replica wants.
    ///
    /// - Parameters:
    ///   - replica: Whose actions there are.
    ///   - process: Where it lives.
    ///   - given: The payload that it was just given, which has to come out again.
    func carryOut(
        _ replica: ReplicaMachine,
        _ process: SimulatedProcess,
        given: PayloadID = .zeroes
    ) {
        guard process.disk != nil else { return }
        var actions: [ReplicaAction] = []
        swap(&actions, &replica.actions)
        let returned = actions.map(\.payload).filter(\.hasBytes)
        if returned != (given.hasBytes ? [given] : []) {
            fail("replica \(process.index) was given \(given) and gave back \(returned)")
        }
        for action in actions {
            switch action {
            case .release: break
            case .send(let link, let message): send(message, process, link: link)
            case .persist(let record): append(process, .recorded(record))
            case .flush: append(process, .flushing)
            case .append(let number, let range, let payload):
                if let fault = invariants.write(number, range, payload.rawValue) { fail(fault) }
                append(process, .appended(number: number, range: range, value: payload.rawValue))
            case .fill(let block, let number, let payload, let address):
                let copy = BlockCopy(number: number, value: payload.rawValue)
                append(process, .filled(address, block: block, copy))
            case .repair(let block, let number, let payload):
                let copy = BlockCopy(number: number, value: payload.rawValue)
                append(process, .repaired(block: block, copy))
            case .snapshot(let mark, let isStreamed):
                append(process, .snapshot(mark, isStreamed: isStreamed))
            case .skip: append(process, .skipped)
            case .dropSnapshot(let mark): append(process, .dropped(mark.id))
            case .read(let range, let address): read(process, .read(address, range))
            case .weigh(let range, let address): read(process, .weighed(address, range))
            case .fetch(let view, let block, let address):
                read(process, .fetched(address, view, block))
            case .scan(let view, let above, let from, let address):
                read(process, .scanned(address, view, above: above, from: from))
            }
        }
    }

    /// Puts something into the log, after what was put there before.
    private func append(_ process: SimulatedProcess, _ end: StorageEnd) {
        let delayMax: UInt64 = process.isDiskSlow ? 20_000_000 : 50_000
        let time = max(process.lastAppendAt, now + 2000 + random.below(delayMax))
        process.lastAppendAt = time
        events.add(.stored(process: process.index, life: process.storeLife, end), at: time)
    }

    /// Reads something that is in memory by then, whatever is still under way.
    private func read(_ process: SimulatedProcess, _ end: StorageEnd) {
        let time = now + 2000 + random.below(50_000)
        events.add(.stored(process: process.index, life: process.storeLife, end), at: time)
    }

    /// Flushes what is in the log now, after the flushes before.
    private func flush(_ process: SimulatedProcess, _ end: StorageEnd) {
        let usual = random.below(scenario.flushNanosecondsMax)
        let delay = 100_000 + (process.isDiskSlow ? 10 * usual : usual)
        let time = max(process.lastFlushAt, now + delay)
        process.lastFlushAt = time
        events.add(.stored(process: process.index, life: process.storeLife, end), at: time)
    }

    func stored(_ process: SimulatedProcess, _ life: Int, _ end: StorageEnd) {
        guard process.isAlive, process.storeLife == life, let disk = process.disk,
            let replica = process.replica
        else { return }
        let local = process.localTime(now)
        var given = PayloadID.zeroes
        switch end {
        case .appended(let number, let range, let value):
            disk.write(number: number, range: range, value: value)
            if let fault = trial.appended(disk, process.index) { fail(fault) }
            replica.room = disk.room
            replica.onAppended(now: local)
        case .filled(let address, let block, let copy):
            if let capacity = disk.capacity, copy.value != 0, disk.liveCount >= capacity {
                replica.onFillRefused(address)
                break
            }
            disk.fill(block: block, copy: copy)
            replica.onFilled(address)
        case .recorded(let record):
            disk.append(record)
            flush(process, .persisted(position: disk.position))
        case .flushing: flush(process, .flushed(position: disk.position))
        case .persisted(let position):
            disk.flushed(through: position)
            if let fault = invariants.persisted(disk.durableRecord) { fail(fault) }
            checkComplete(process, disk)
            replica.onPersisted(now: local)
        case .flushed(let position):
            disk.flushed(through: position)
            replica.onFlushed(now: local)
        case .read(let address, let range):
            let blocks = range.first..<range.first + UInt64(range.count)
            if let block = blocks.first(where: disk.isDamaged) {
                replica.onReadFailed(address, block: block)
                break
            }
            let copies = blocks.map { disk.copy($0) }
            let number = copies.map(\.number).max() ?? .zero
            given = PayloadID(newValue())
            readValues[given.rawValue] = copies.map(\.value)
            replica.onRead(address, payload: given, number: number)
        case .weighed(let address, let range):
            replica.onWeighed(address, blockCount: UInt32(disk.newCount(range)))
        case .snapshot(let mark, let isStreamed):
            disk.take(mark)
            if isStreamed { replica.onAppended(now: local) }
        case .skipped: replica.onAppended(now: local)
        case .dropped(let id): disk.drop(id)
        case .fetched(let address, let view, let block):
            guard disk.has(view) else {
                replica.onViewMissing(address)
                break
            }
            let copy = disk.copy(block, in: view)
            if disk.isDamaged(block, in: view) {
                replica.onFetchFailed(address, number: copy.number)
                break
            }
            given = PayloadID(copy.value)
            replica.onFetched(address, payload: given, number: copy.number)
        case .scanned(let address, let view, let above, let from):
            guard disk.has(view) else {
                replica.onViewMissing(address)
                break
            }
            let found = disk.scan(view, above: above, from: from, countMax: scenario.scanCountMax)
            replica.onScanned(address, entries: found.entries, next: found.next)
        case .repaired(let block, let copy):
            let isCompared = scenario.policy.defect != .repairNotCompared
            if let fault = disk.repair(block: block, with: copy, comparing: isCompared) {
                fail(fault)
            }
        }
        carryOut(replica, process, given: given)
    }

    /// A complete replica holds everything that was committed in epochs before the one it follows.
    private func checkComplete(_ process: SimulatedProcess, _ disk: ReplicaDisk) {
        let record = disk.durableRecord
        guard record.isComplete,
            instances.contains(record.instance) || move?.instance == record.instance
        else { return }
        for (block, number) in invariants.acknowledged where number.epoch < record.accepted {
            guard !checker.mayHaveLost(block), disk.copy(block).number < number else { continue }
            fail("replica \(process.index) is complete without write \(number) of block \(block)")
        }
    }

    /// A fresh value, with room for the blocks of one request below the next.
    func newValue() -> UInt64 {
        nextValue += 1
        return nextValue << 8
    }

    // MARK: - Primaries

    /// Carries out what a primary wants.
    func carryOut(_ primary: PrimaryMachine, _ process: SimulatedProcess) {
        if primary.isServing, !process.hasServed {
            process.hasServed = true
            report.takeoverCount += 1
            checker.beginServing(epoch: primary.epoch.rawValue, step: takeStep())
            note(4, primary.epoch.rawValue, 0, "epoch \(primary.epoch.rawValue) serves")
        }
        var actions: [PrimaryAction] = []
        swap(&actions, &primary.actions)
        var end: PrimaryStop?
        for action in actions {
            switch action {
            case .send(let slot, let message): send(message, process, slot: slot)
            case .complete(let token, let result): complete(token, result, process, primary.epoch)
            case .release(let payload): giveBack(payload, process)
            case .stopped(let reason):
                note(5, primary.epoch.rawValue, 0, "epoch \(primary.epoch.rawValue): \(reason)")
                end = reason
            }
        }
        guard let end else { return }
        if let kept = process.payloads.first {
            fail("the primary of epoch \(primary.epoch.rawValue) kept a payload: \(kept)")
        }
        stopped(process, end)
    }

    private func stopped(_ process: SimulatedProcess, _ reason: PrimaryStop) {
        endPrimary(process)
        switch reason {
        case .deposed, .closed, .numbersExhausted: break
        case .sourceLost, .stuck:
            // Whoever took the volume over tries again.
            if epochOwner[epoch] == process.index { requestEpoch(process) }
        }
    }
}
