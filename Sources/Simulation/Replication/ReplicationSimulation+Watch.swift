// What owners of machines count on: every payload comes back once, and reads go on while W replicas
// do, whatever the others do.

internal import BlockCore
internal import Replication

extension ReplicationSimulation {
    // MARK: - Payloads

    /// A primary is given a payload.
    func take(_ payload: PayloadID, _ process: SimulatedProcess) {
        if payload.hasBytes { process.payloads[payload.rawValue, default: 0] += 1 }
    }

    /// It gives one back.
    func giveBack(_ payload: PayloadID, _ process: SimulatedProcess) {
        guard payload.hasBytes else { return }
        guard let count = process.payloads[payload.rawValue] else {
            return fail("process \(process.index) gave back \(payload), which it had not")
        }
        process.payloads[payload.rawValue] = count > 1 ? count - 1 : nil
    }

    /// Closes what primaries there are: then nobody has a payload any more.
    func closeAll() {
        for process in processes where process.isAlive {
            guard let primary = process.primary else { continue }
            primary.close(now: process.localTime(now))
            carryOut(primary, process)
        }
    }

    // MARK: - Reads

    /// Fails when a read of a primary waits although it has had W replicas for long.
    ///
    /// Who they are changes with faults only: it is called when one begins, before it ends, and
    /// from time to time.
    func watchReads(_ process: SimulatedProcess) {
        guard process.isAlive, let primary = process.primary else { return }
        let ready = process.targets.indices.filter { isReady($0, for: process, primary) }
        let isShort = !primary.isQuorum(slots: ready) || process.isFrozen
        guard !isShort, primary.isServing else {
            process.lastShortAt = now
            return
        }
        for (token, operation) in process.operations where operation.kind == .read {
            let since = max(operation.sentAt, process.lastShortAt)
            guard now > since + readNanosecondsMax else { continue }
            fail("read \(token) of process \(process.index) waits, and W replicas do not")
        }
        for (token, operation) in process.operations where operation.kind == .write {
            let since = max(operation.sentAt, process.lastShortAt)
            guard now > since + writeNanosecondsMax else { continue }
            fail("write \(token) of process \(process.index) waits, and W replicas do not")
        }
    }

    /// Longer than anything takes that a write of a primary with W replicas waits for: those before
    /// it in a full window to be flushed, who lags to be dropped, or passed by for want of room.
    private var writeNanosecondsMax: UInt64 {
        readNanosecondsMax + 30 * scenario.flushNanosecondsMax
            + 2 * scenario.policy.roomPatienceNanoseconds + 20 * scenario.delayNanosecondsMax
    }

    /// Whether nothing is wrong with a replica that counts.
    private func isReady(
        _ slot: Int,
        for process: SimulatedProcess,
        _ primary: PrimaryMachine
    ) -> Bool {
        guard process.targets[slot] >= 0 else { return false }
        let target = processes[process.targets[slot]]
        guard let link = process.links[slot], !connections[link].isBroken, target.isAlive,
            !target.isFrozen, !target.isDiskStalled, !target.isDiskSlow,
            target.disk?.damagedBlocks.isEmpty == true, target.disk?.capacity == nil,
            !cuts[process.index][target.index], !cuts[target.index][process.index]
        else { return false }
        return primary.isReadable(slot)
    }

    /// Longer than anything takes that a read of a primary with W replicas waits for: a grant to
    /// come back, a write to be committed, two others to be late, a block to be repaired.
    var readNanosecondsMax: UInt64 {
        let policy = scenario.policy
        let flush = policy.isWritethrough ? 12 * scenario.flushNanosecondsMax : 0
        let hasDamage = scenario.weights[ReplicationScenario.Fault.damage.rawValue] > 0
        let repair: UInt64 = hasDamage ? 200_000_000 : 0
        return repair + policy.grantNanoseconds + 4 * policy.hedgeNanoseconds + flush
            + 10 * scenario.delayNanosecondsMax + 30_000_000
    }
}

// MARK: - Damage

extension ReplicationSimulation {
    /// A copy of some block cannot be read any more, while another replica has the same; one that
    /// is written often, if there is any: then it is repaired while it is written.
    func damage(_ slot: Int) {
        guard instances.count > 1, let disk = holder(slot).disk else { return }
        let able = disk.durableBlocks.filter { block in
            let copy = disk.durableCopy(block)
            return copy.value != 0 && disk.copy(block) == copy && isHeldElsewhere(copy, block, disk)
                && !allDisksInUse.contains { $0.isDamaged(block) }
        }
        let hot = able.filter { $0 < scenario.hotBlockCount }
        guard !able.isEmpty else { return }
        let block = random.pick(hot.isEmpty ? able : hot)
        disk.damage(block, true)
        note(14, UInt64(slot), block, "block \(block) of replica \(slot) is damaged")
    }

    /// Takes back damage to copies whose like nobody has any more: what can happen then is that a
    /// block is lost for good, and who lost it is not replication.
    func forgiveDamage() {
        for disk in allDisksInUse {
            disk.forgiveOldDamage()
            for block in disk.damagedBlocks {
                let copy = disk.copy(block)
                if !isHeldElsewhere(copy, block, disk) { disk.damage(block, false) }
            }
        }
    }

    private func isHeldElsewhere(_ copy: BlockCopy, _ block: UInt64, _ disk: ReplicaDisk) -> Bool {
        allDisksInUse.contains {
            $0 !== disk && $0.copy(block) == copy && $0.durableCopy(block) == copy
        }
    }

    var allDisksInUse: [ReplicaDisk] { instances.indices.compactMap { holder($0).disk } }
}

extension ReplicaAction {
    /// The payload that comes back with it.
    var payload: PayloadID {
        switch self {
        case .send(_, let message): message.body.payload
        case .append(_, _, let payload), .fill(_, _, let payload, _),
            .repair(_, _, let payload), .release(let payload):
            payload
        case .persist, .flush, .read, .fetch, .scan, .weigh, .snapshot, .skip, .dropSnapshot:
            .zeroes
        }
    }
}
