// The clients of each primary: few hot blocks and a wider range, several requests in flight.

internal import BlockCore
internal import Replication

extension ReplicationSimulation {
    func scheduleClient(_ process: SimulatedProcess) {
        let event = ClusterEvent.client(process: process.index, primary: process.primaryCount)
        events.add(event, at: now + 1000 + random.below(scenario.thinkNanosecondsMax))
    }

    /// A client sends its next request.
    func submit(_ process: SimulatedProcess, _ count: Int) {
        guard process.isAlive, process.primaryCount == count, let primary = process.primary,
            primary.state != .stopped
        else { return }
        guard !isQuiet else { return submitFinalRead(process, primary) }
        guard !trial.isUnderWay else { return submitTrial(process, primary) }
        if submittedCount >= scenario.operationCount, scenario.operationCount > 0, !isHealing {
            return startHealing()
        }
        if isHealing, submittedCount >= scenario.operationCount + scenario.operationCount / 8 {
            // The rest are reads of everything; whoever is asked waits until then.
            scheduleClient(process)
            return
        }
        submittedCount += 1
        let isRead = random.chance(perMille: scenario.readPerMille)
        let kind: ClientOperation.Kind =
            random.chance(perMille: scenario.flushPerMille) ? .flush : isRead ? .read : .write
        guard !random.chance(perMille: scenario.snapshotPerMille) else {
            return submit(drawSnapshot(), process, primary)
        }
        let operation = ClientOperation(
            kind: kind,
            range: drawRange(),
            value: kind == .write ? newValue() : 0,
            isForced: random.chance(perMille: scenario.forcedPerMille),
            start: takeStep(),
            sentAt: now
        )
        submit(operation, process, primary)
    }

    private func drawRange() -> BlockRange {
        let blockCount = scenario.hotBlockCount + scenario.wideBlockCount
        let isHot = random.chance(perMille: scenario.hotPerMille)
        let first = UInt64(random.below(isHot ? scenario.hotBlockCount : blockCount))
        let count = random.within(1...scenario.requestBlockCountMax)
        return BlockRange(first: first, count: UInt32(min(count, blockCount - Int(first))))
    }

    func submit(
        _ operation: ClientOperation,
        _ process: SimulatedProcess,
        _ primary: PrimaryMachine
    ) {
        nextToken += 1
        let token = nextToken
        let local = process.localTime(now)
        process.operations[token] = operation
        note(6, token, operation.value, "\(process.index) asks \(token): \(operation)")
        let isTaken: Bool
        switch operation.kind {
        case .read: isTaken = primary.submitRead(token: token, range: operation.range, now: local)
        case .flush: isTaken = primary.submitFlush(token: token, now: local)
        case .snapshot:
            isTaken = primary.submitSnapshot(token: token, id: operation.value, now: local)
        case .write:
            for index in 0..<UInt64(operation.range.count) where operation.value != 0 {
                checker.beginWrite(
                    value: operation.value + index,
                    block: operation.range.first + index,
                    epoch: primary.epoch.rawValue,
                    step: operation.start
                )
            }
            isTaken = primary.submitWrite(
                token: token,
                range: operation.range,
                payload: PayloadID(operation.value),
                isForced: operation.isForced,
                now: local
            )
            if isTaken { take(PayloadID(operation.value), process) }
        }
        if !isTaken {
            process.operations[token] = nil
            scheduleClient(process)
        }
        carryOut(primary, process)
    }

    /// A client is answered.
    func complete(
        _ token: UInt64,
        _ result: ClientResult,
        _ process: SimulatedProcess,
        _ epoch: Epoch
    ) {
        guard let operation = process.operations.removeValue(forKey: token) else {
            fail("request \(token) was answered twice")
            return
        }
        note(7, token, UInt64(process.index), "\(process.index) is told \(token): \(result)")
        if result != .unknown { report.operationCount += 1 }
        let end = takeStep()
        switch result {
        case .written(let number) where operation.kind == .snapshot:
            endSnapshot(operation, number, end)
        case .written(let number):
            let isDurable = operation.isForced || scenario.policy.isWritethrough
            let stores = allDisks
            let fault = invariants.acknowledge(
                number,
                operation.range,
                isDurable: isDurable,
                by: process.index,
                stores: stores
            )
            if let fault { fail(fault) }
            for index in 0..<UInt64(operation.range.count) {
                guard operation.value != 0 else {
                    checker.trim(block: operation.range.first + index, start: operation.start)
                    continue
                }
                checker.endWrite(value: operation.value + index, isDurable: isDurable, step: end)
            }
        case .flushed:
            checker.endFlush(epoch: epoch.rawValue, start: operation.start, step: end)
        case .read(let payload):
            giveBack(payload, process)
            let values = readValues.removeValue(forKey: payload.rawValue) ?? []
            for (index, value) in values.enumerated() {
                checker.endRead(
                    block: operation.range.first + UInt64(index),
                    value: value,
                    epoch: epoch.rawValue,
                    start: operation.start,
                    step: end
                )
            }
        case .damaged:
            readByBlock(operation, process)
            return
        case .unknown:
            if operation.kind == .snapshot { unknownSnapshots.append(operation) }
        case .noRoom:
            // It never happened, and nobody may ever see it.
            if operation.kind == .snapshot { refusedSnapshots.insert(operation.value) }
            for index in 0..<UInt64(operation.range.count) where operation.kind == .write {
                checker.refuse(value: operation.value + index)
            }
        }
        endTrial(operation, result)
        scheduleClient(process)
    }

    /// Reads block by block what each replica has some damaged block of.
    private func readByBlock(_ operation: ClientOperation, _ process: SimulatedProcess) {
        guard let primary = process.primary else { return }
        if operation.range.count == 1 {
            // Another one may have been damaged after the first was repaired; not again and again.
            guard operation.failureCount < 3 else {
                return fail("a read of one block failed, though one replica only was damaged")
            }
        }
        for index in 0..<UInt64(operation.range.count) {
            var part = operation
            part.range = BlockRange(first: operation.range.first + index, count: 1)
            part.sentAt = now
            part.failureCount += operation.range.count == 1 ? 1 : 0
            submit(part, process, primary)
        }
    }

    // MARK: - The end

    /// Reads every block once, through the last primary.
    private func submitFinalRead(_ process: SimulatedProcess, _ primary: PrimaryMachine) {
        guard epochOwner[epoch] == process.index, primary.epoch.rawValue == epoch else { return }
        let blockCount = scenario.hotBlockCount + scenario.wideBlockCount
        guard finalReadCount < blockCount else { return }
        let operation = ClientOperation(
            kind: .read,
            range: BlockRange(first: UInt64(finalReadCount), count: 1),
            value: 0,
            isForced: false,
            start: takeStep(),
            sentAt: now
        )
        finalReadCount += 1
        submit(operation, process, primary)
    }

    /// Whether everything has come right; fails when it has not within the bound.
    func isOver() -> Bool {
        guard isHealing else {
            if now > 600_000_000_000 { fail("requests are not answered") }
            return report.failure != nil
        }
        if now > healedAt + boundNanoseconds {
            fail("not whole \(boundNanoseconds / 1_000_000_000) s after the last fault: \(state)")
        }
        guard let owner = epochOwner[epoch].map({ processes[$0] }), let primary = owner.primary,
            primary.isServing
        else { return false }
        if !isQuiet {
            let rest = scenario.operationCount + scenario.operationCount / 8
            guard submittedCount >= rest, owner.operations.isEmpty else { return false }
            guard move == nil, primary.movePhase == nil else { return false }
            guard trial.isOver || advanceTrial(owner, primary) else { return false }
            guard areEqual(primary) else { return false }
            isQuiet = true
            scheduleClient(owner)
            return false
        }
        let blockCount = scenario.hotBlockCount + scenario.wideBlockCount
        return finalReadCount >= blockCount && owner.operations.isEmpty
    }

    /// Simulated time within which everything has to come right: patience, many round trips, and one
    /// for each of the blocks that a replica may lack, of the volume and of each snapshot.
    private var boundNanoseconds: UInt64 {
        let policy = scenario.policy
        let amnesia = scenario.isForgettingOnce ? 0 : 4 * policy.amnesiaNanoseconds
        let blockCount = scenario.hotBlockCount + scenario.wideBlockCount
        let atATime = min(policy.fetchCountMax, scenario.busyResyncCountMax)
        let fetchCount = blockCount * (1 + snapshots.count) / atATime
        return 5_000_000_000 + amnesia + 10 * policy.grantNanoseconds
            + 4 * policy.stuckNanoseconds
            + 100 * (scenario.flushNanosecondsMax + scenario.delayNanosecondsMax)
            + UInt64(fetchCount) * 4 * scenario.delayNanosecondsMax
    }

    /// Whether all replicas are complete and hold the same.
    func areEqual(_ primary: PrimaryMachine) -> Bool {
        guard primary.committed + 1 == primary.nextNumber.counter else { return false }
        for slot in instances.indices {
            guard let disk = holder(slot).disk, disk.durableRecord.isComplete,
                holder(slot).replica?.record.isComplete == true,
                disk.durableRecord.accepted == primary.epoch,
                holder(slot).replica?.applied == primary.committed
            else { return false }
        }
        let first = holder(0).disk?.values(in: .volume)
        for slot in instances.indices where holder(slot).disk?.values(in: .volume) != first {
            fail("replicas 0 and \(slot) are complete and differ")
        }
        checkSnapshots(primary)
        return true
    }

    /// Where everybody is, for whoever reads of a failure.
    private var state: String {
        let slots = instances.indices.map { slot in
            let record = holder(slot).disk?.durableRecord
            let replica = holder(slot).replica
            return "\(slot): promised \(record?.promised.rawValue ?? 0) "
                + "accepted \(record?.accepted.rawValue ?? 0) "
                + "\(record?.isComplete == true ? "complete" : "incomplete") "
                + "applied \(replica?.applied ?? 0) durable \(replica?.durable ?? 0)"
        }
        let owner = epochOwner[epoch].map { processes[$0] }
        let primary = owner?.primary
        let primaryState = primary.map {
            "\($0.state) serving \($0.isServing) committed \($0.committed) "
                + "hardened \($0.hardened) next \($0.nextNumber.counter)"
        }
        return "epoch \(epoch) \(primaryState ?? "without primary"), "
            + "\(submittedCount) submitted, \(owner?.operations.count ?? 0) waiting; "
            + (move.map { "\($0) \(primary?.movePhase?.rawValue ?? "unheard"); " } ?? "")
            + slots.joined(separator: "; ")
    }

    /// Every disk that was ever in a slot.
    var allDisks: [ReplicaDisk] { processes.compactMap(\.disk) + retiredDisks }
}
