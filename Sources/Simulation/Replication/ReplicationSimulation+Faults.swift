// What goes wrong, and how it ends.

internal import BlockCore
internal import Replication

extension ReplicationSimulation {
    func scheduleFault() {
        let interval = scenario.faultIntervalNanoseconds
        events.add(.disturb, at: now + interval / 4 + random.below(interval * 3 / 2))
    }

    /// Does something bad, unless it is over, or the one before has not healed where that matters.
    func disturb() {
        guard !isHealing else { return }
        scheduleFault()
        guard
            let fault = ReplicationScenario.Fault(
                rawValue: random.pickIndex(weights: scenario.weights)
            )
        else { return }
        if scenario.isForgettingOnce, fault.forgets, !isRemembering { return }
        report.faultCount += 1
        note(8, UInt64(fault.rawValue), 0, "fault: \(fault)")
        inflict(fault)
        for process in processes { watchReads(process) }
    }

    private func inflict(_ fault: ReplicationScenario.Fault) {
        let index = random.below(processes.count)
        let other = random.below(processes.count)
        let end = now + 1_000_000 + random.below(scenario.faultNanosecondsMax)
        switch fault {
        case .crash: crash(processes[index], until: end)
        case .crashPrimary: if let owner = epochOwner[epoch] { crash(processes[owner], until: end) }
        case .freeze: freeze(processes[index], until: end)
        case .powerLoss: for process in processes { crash(process, until: end) }
        case .cutOneWay: cut(index, other, until: end)
        case .cutBothWays:
            cut(index, other, until: end)
            cut(other, index, until: end)
        case .isolate:
            for peer in processes.indices where peer != index {
                cut(index, peer, until: end)
                cut(peer, index, until: end)
            }
        case .isolatePrimary:
            // The hardest moment for its reads: somebody else takes over at once.
            guard let owner = epochOwner[epoch] else { return }
            for peer in processes.indices where peer != owner {
                cut(owner, peer, until: end)
                cut(peer, owner, until: end)
            }
            let able = processes.filter { $0.index != owner && $0.isAlive && !$0.isFrozen }
            if !able.isEmpty { requestEpoch(random.pick(able)) }
        case .breakLink:
            let open = connections.indices.filter { !connections[$0].isBroken }
            if !open.isEmpty { breakLink(random.pick(open)) }
        case .takeover: if !processes[index].isFrozen { requestEpoch(processes[index]) }
        case .metadataDown:
            isMetadataUp = false
            events.add(.heal(.metadata), at: end)
        case .slowDisk:
            processes[index].isDiskSlow = true
            events.add(.heal(.disk(process: index)), at: end)
        case .stallDisk:
            // Long enough for a read that waits for it to be noticed.
            processes[index].isDiskStalled = true
            events.add(.heal(.disk(process: index)), at: end + readNanosecondsMax)
        case .damage: for _ in 0..<8 { damage(random.below(instances.count)) }
        case .deleteSnapshot: deleteSnapshot()
        case .replace: if isRemembering { replaceReplica(random.below(instances.count)) }
        }
    }

    private func crash(_ process: SimulatedProcess, until end: UInt64) {
        guard process.isAlive else { return }
        process.isAlive = false
        process.isFrozen = false
        process.inbox.removeAll()
        process.stalledEnds.removeAll()
        process.payloads.removeAll()
        process.primary = nil
        process.operations.removeAll()
        process.isAskingForEpoch = false
        process.replica = nil
        note(9, UInt64(process.index), 0, "process \(process.index) dies")
        for index in connections.indices where !connections[index].isBroken {
            let connection = connections[index]
            let isEnd =
                connection.primaryProcess == process.index
                || connection.replicaProcess == process.index
            if isEnd { breakLink(index) }
        }
        if let disk = process.disk {
            for lost in disk.crash(&random) { checker.lost(block: lost.block, value: lost.value) }
        }
        events.add(.heal(.restart(process: process.index)), at: end)
    }

    private func freeze(_ process: SimulatedProcess, until end: UInt64) {
        guard process.isAlive, !process.isFrozen else { return }
        process.isFrozen = true
        let healing = Healing.thaw(process: process.index, life: process.life)
        events.add(.heal(healing), at: end)
    }

    private func cut(_ from: Int, _ to: Int, until end: UInt64) {
        guard from != to else { return }
        cuts[from][to] = true
        events.add(.heal(.reach(from: from, to: to)), at: end)
    }

    /// A replica's disk is lost for good; an empty one takes its place, under the current epoch.
    ///
    /// Only when all is whole: a second loss before the first is made good would be more than W
    /// replicas can bear.
    private func replaceReplica(_ slot: Int) {
        let process = holder(slot)
        guard scenario.policy.writeQuorum > 1, isMetadataUp, move == nil,
            let owner = epochOwner[epoch], let primary = processes[owner].primary,
            let disk = process.disk, allDisksInUse.allSatisfy(\.damagedBlocks.isEmpty)
        else { return }
        crash(process, until: now + 1_000_000)
        guard owner != process.index,
            let place = processes[owner].targets.firstIndex(of: process.index)
        else { return }
        retiredDisks.append(disk)
        process.disk = ReplicaDisk(
            record: .replacing(newInstance()),
            comparesFills: scenario.policy.defect != .fillNotCompared
        )
        guard let record = process.disk?.record else { return }
        instances[slot] = record.instance
        note(10, UInt64(slot), 0, "replica \(slot) is replaced")
        primary.replace(slot: place, by: record.instance, now: processes[owner].localTime(now))
        carryOut(primary, processes[owner])
    }

    /// Whether no replica lacks anything that was acknowledged, as far as outsiders can tell.
    private var isRemembering: Bool {
        guard let owner = epochOwner[epoch], let primary = processes[owner].primary,
            primary.isServing
        else { return false }
        return instances.indices.allSatisfy { slot in
            guard let replica = holder(slot).replica, let disk = holder(slot).disk else {
                return false
            }
            return disk.durableRecord.isComplete && disk.durableRecord.accepted == primary.epoch
                && replica.record.remembers && replica.applied >= primary.committed
        }
    }

    // MARK: - Healing

    func heal(_ healing: Healing) {
        for process in processes { watchReads(process) }
        switch healing {
        case .restart(let index): restart(processes[index])
        case .thaw(let index, let life): thaw(processes[index], life)
        case .reach(let from, let to): cuts[from][to] = false
        case .metadata: isMetadataUp = true
        case .disk(let index): quicken(processes[index])
        case .room(let index): if !trial.isUnderWay { processes[index].disk?.capacity = nil }
        }
    }

    private func restart(_ process: SimulatedProcess) {
        guard !process.isAlive else { return }
        process.isAlive = true
        process.life += 1
        process.storeLife += 1
        process.resyncs = scenario.newResyncBudget()
        process.lastAppendAt = now
        process.lastFlushAt = now
        note(11, UInt64(process.index), 0, "process \(process.index) starts")
        startReplica(process, isNew: false)
        scheduleTick(process)
    }

    /// A disk is as it should be, and ends what it was asked for.
    private func quicken(_ process: SimulatedProcess) {
        process.isDiskSlow = false
        process.isDiskStalled = false
        var ends: [ClusterEvent] = []
        swap(&ends, &process.stalledEnds)
        // What came since it was frozen comes after.
        guard !process.isFrozen else { return process.inbox.insert(contentsOf: ends, at: 0) }
        for end in ends { handle(end) }
    }

    private func thaw(_ process: SimulatedProcess, _ life: Int) {
        guard process.isAlive, process.isFrozen, process.life == life else { return }
        process.isFrozen = false
        note(12, UInt64(process.index), 0, "process \(process.index) thaws")
        var inbox: [ClusterEvent] = []
        swap(&inbox, &process.inbox)
        for event in inbox { handle(event) }
    }

    /// Faults stop when the workload is done, or at the latest after a while.
    func considerHealing() {
        guard !isHealing, now > 30_000_000_000 else { return }
        startHealing()
    }

    func startHealing() {
        for process in processes { watchReads(process) }
        isHealing = true
        healedAt = now
        isMetadataUp = true
        submittedCount = max(submittedCount, scenario.operationCount)
        for from in cuts.indices { for to in cuts.indices { cuts[from][to] = false } }
        for process in processes {
            quicken(process)
            process.disk?.capacity = nil
            restart(process)
            thaw(process, process.life)
        }
        // The clients that stopped to start this go on.
        for process in processes where process.primary != nil { scheduleClient(process) }
        note(13, 0, 0, "faults end")
    }
}

extension ReplicationScenario.Fault {
    /// Whether a replica's memory is lost.
    var forgets: Bool {
        switch self {
        case .crash, .crashPrimary, .powerLoss, .replace: true
        default: false
        }
    }
}
