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
        let readyCount = instances.indices.count { isReady($0, for: process, primary) }
        let isShort = readyCount < scenario.policy.writeQuorum || process.isFrozen
        guard !isShort, primary.isServing else {
            process.lastShortAt = now
            return
        }
        for (token, operation) in process.operations where operation.kind == .read {
            let since = max(operation.sentAt, process.lastShortAt)
            guard now > since + readNanosecondsMax else { continue }
            fail("read \(token) of process \(process.index) waits, and W replicas do not")
        }
    }

    /// Whether nothing is wrong with a replica that counts.
    private func isReady(
        _ slot: Int,
        for process: SimulatedProcess,
        _ primary: PrimaryMachine
    ) -> Bool {
        let target = processes[slot]
        guard let link = process.links[slot], !connections[link].isBroken, target.isAlive,
            !target.isFrozen, !target.isDiskStalled, !target.isDiskSlow,
            !cuts[process.index][slot], !cuts[slot][process.index]
        else { return false }
        return primary.isReadable(slot)
    }

    /// Longer than anything takes that a read of a primary with W replicas waits for: a grant to
    /// come back, a write to be committed, and two others to be late.
    var readNanosecondsMax: UInt64 {
        let policy = scenario.policy
        let flush = policy.isWritethrough ? 12 * scenario.flushNanosecondsMax : 0
        return policy.grantNanoseconds + 4 * policy.hedgeNanoseconds + flush
            + 10 * scenario.delayNanosecondsMax + 30_000_000
    }
}

extension ReplicaAction {
    /// The payload that comes back with it.
    var payload: PayloadID {
        switch self {
        case .send(_, let message): message.body.payload
        case .append(_, _, let payload), .fill(_, _, let payload, _), .release(let payload): payload
        case .persist, .flush, .read, .fetch, .scan: .zeroes
        }
    }
}
