// Replicas that move from one process to another, as whoever manages the volume has it.

internal import BlockCore
internal import Replication

/// A move that the metadata knows of.
struct SimulatedMove {
    /// The place, among those that the metadata names, that another replica is to take.
    var slot: Int
    /// Where that one is.
    var process: Int
    var instance: ReplicaInstance
}

extension ReplicationSimulation {
    func scheduleMove() {
        let interval = scenario.moveIntervalNanoseconds
        events.add(.beginMove, at: now + interval / 4 + moveRandom.below(interval * 3 / 2))
    }

    /// Has a replica moved to the process that has none.
    func beginMove() {
        guard !isHealing else { return }
        scheduleMove()
        let spare = processes.first { $0.disk == nil && $0.index >= instances.count }
        let target = spare ?? processes.first { $0.disk == nil }
        guard move == nil, isMetadataUp, let target, target.isAlive, !target.isFrozen else {
            return
        }
        let begun = SimulatedMove(
            slot: moveRandom.below(instances.count),
            process: target.index,
            instance: newInstance()
        )
        move = begun
        report.faultCount += 1
        note(18, UInt64(begun.slot), UInt64(target.index), "replica \(begun.slot) is to move")
        createDisk(target, record: .replacing(begun.instance))
        scheduleAdvance()
    }

    private func scheduleAdvance() {
        events.add(.advanceMove, at: now + 1_000_000 + moveRandom.below(20_000_000))
    }

    /// Tells a primary of the move under way; a new one when it begins.
    func tellOfMove(_ process: SimulatedProcess, _ primary: PrimaryMachine) {
        guard let move, let place = process.targets.firstIndex(of: holders[move.slot]),
            let slot = primary.beginMove(
                of: place,
                to: move.instance,
                isLocal: move.process == process.index,
                now: process.localTime(now)
            )
        else { return }
        if slot == process.targets.count {
            process.targets.append(move.process)
            process.links.append(nil)
        } else {
            process.targets[slot] = move.process
        }
    }

    /// Looks how far a move is, and does what comes next.
    func advanceMove() {
        guard let move else { return }
        scheduleAdvance()
        guard isMetadataUp, let owner = epochOwner[epoch].map({ processes[$0] }), owner.isAlive,
            !owner.isFrozen, let primary = owner.primary, primary.state != .stopped,
            primary.epoch.rawValue == epoch
        else { return }
        // It has not heard of the end of the one before.
        if let told = primary.moveSummary?.instance, told != move.instance { return }
        let local = owner.localTime(now)
        switch primary.movePhase {
        case nil:
            // It is told when its epoch begins; another one hears now.
            tellOfMove(owner, primary)
            if let slot = owner.targets.lastIndex(of: move.process), owner.links[slot] == nil {
                connectSoon(owner, slot)
            }
        case .filling:
            guard !isHealing, moveRandom.chance(perMille: 10),
                let slot = primary.abandonMove(now: local)
            else { break }
            note(19, UInt64(move.slot), 0, "the move of replica \(move.slot) is given up")
            self.move = nil
            disconnect(owner, slot)
            discard(processes[move.process])
        case .filled:
            // The hardest moment: the new one lacks what is on its way.
            if primary.joinMove(now: local), moveRandom.chance(perMille: 300),
                let slot = owner.targets.lastIndex(of: move.process), let link = owner.links[slot]
            {
                breakLink(link)
            }
        case .joining: break
        case .ready:
            let isSlow = moveRandom.chance(perMille: 200)
            let delay: UInt64 = moveRandom.below(isSlow ? 1_000_000_000 : 2_000_000)
            events.add(.decideMove(epoch: epoch, instance: move.instance), at: now + delay)
        }
        carryOut(primary, owner)
    }

    /// The metadata names the new replica, unless another epoch has begun.
    func decideMove(_ epoch: UInt64, _ instance: ReplicaInstance) {
        guard let move, move.instance == instance, isMetadataUp, epoch == self.epoch,
            let owner = epochOwner[epoch]
        else { return }
        self.move = nil
        let left = holder(move.slot)
        instances[move.slot] = move.instance
        holders[move.slot] = move.process
        note(20, UInt64(move.slot), UInt64(move.process), "replica \(move.slot) has moved")
        forgiveDamage()
        // Somebody who knows the new set takes over before the one who has to leave the old one.
        let able = processes.filter { $0.index != owner && $0.isAlive && !$0.isFrozen }
        if !able.isEmpty, moveRandom.chance(perMille: 300) { requestEpoch(moveRandom.pick(able)) }
        let process = processes[owner]
        let told = ClusterEvent.endMove(
            process: owner,
            primary: process.primaryCount,
            instance: move.instance
        )
        events.add(told, at: now + moveRandom.below(200_000_000))
        // Whoever deletes what is not needed any more need not have heard of the primary.
        if moveRandom.chance(perMille: 300) { discard(left) } else { left.isLeft = true }
    }

    /// A primary hears that the new set counts alone.
    func endMove(_ process: SimulatedProcess, _ count: Int, _ instance: ReplicaInstance) {
        guard process.isAlive else { return }
        if process.primaryCount == count, let primary = process.primary,
            primary.moveSummary?.instance == instance
        {
            if let slot = primary.finishMove(now: process.localTime(now)) {
                disconnect(process, slot)
            } else if primary.state != .stopped {
                fail("a move was decided that was not ready")
            }
            carryOut(primary, process)
        }
        for left in processes where left.isLeft { discard(left) }
    }

    private func disconnect(_ process: SimulatedProcess, _ slot: Int) {
        process.targets[slot] = -1
        if let link = process.links[slot] { breakLink(link) }
        process.links[slot] = nil
    }

    /// Deletes a replica that nobody needs.
    func discard(_ process: SimulatedProcess) {
        process.isLeft = false
        guard let disk = process.disk else { return }
        retiredDisks.append(disk)
        process.disk = nil
        process.replica = nil
        process.storeLife += 1
        for index in connections.indices
        where !connections[index].isBroken && connections[index].replicaProcess == process.index {
            breakLink(index)
        }
    }
}
