// Links: in order or broken; cut in one direction or both; slow.

internal import BlockCore
internal import Replication

extension ReplicationSimulation {
    /// A primary connects to the replica in a slot, or tries again later.
    func connect(_ process: SimulatedProcess, _ primary: Int, _ slot: Int) {
        guard process.isAlive, process.primaryCount == primary, let machine = process.primary,
            machine.state != .stopped, process.links[slot] == nil, process.targets[slot] >= 0
        else { return }
        let target = processes[process.targets[slot]]
        let isReachable =
            !cuts[process.index][target.index] && !cuts[target.index][process.index]
        guard target.isAlive, isReachable else {
            scheduleConnect(process, slot)
            return
        }
        connections.append(
            SimulatedConnection(
                primaryProcess: process.index,
                primary: primary,
                replicaProcess: target.index,
                replicaLife: target.storeLife,
                slot: slot
            )
        )
        process.links[slot] = connections.count - 1
        machine.onLinkOpened(slot: slot, now: process.localTime(now))
        carryOut(machine, process)
    }

    func scheduleConnect(_ process: SimulatedProcess, _ slot: Int) {
        let event = ClusterEvent.connect(
            process: process.index,
            primary: process.primaryCount,
            slot: slot
        )
        events.add(event, at: now + 1_000_000 + random.below(20_000_000))
    }

    /// Puts an item into a queue; it arrives after those before it.
    private func enqueue(_ item: SimulatedConnection.Item, _ index: Int, toReplica: Bool) {
        let connection = connections[index]
        let isLocal = connection.primaryProcess == connection.replicaProcess
        let delay = 20_000 + random.below(isLocal ? 50_000 : scenario.delayNanosecondsMax)
        let last = toReplica ? connection.lastToReplica : connection.lastToPrimary
        let time = max(last, now + delay)
        if toReplica {
            connections[index].toReplica.append(item)
            connections[index].lastToReplica = time
        } else {
            connections[index].toPrimary.append(item)
            connections[index].lastToPrimary = time
        }
        events.add(.arrive(connection: index, toReplica: toReplica), at: time)
    }

    func send(_ message: PrimaryMessage, _ process: SimulatedProcess, slot: Int) {
        guard let index = process.links[slot], !connections[index].isBroken else { return }
        enqueue(.toReplica(message), index, toReplica: true)
    }

    func send(_ message: ReplicaMessage, _ process: SimulatedProcess, link: LinkID) {
        let index = Int(link.rawValue)
        guard index < connections.count, !connections[index].isBroken,
            connections[index].replicaLife == process.storeLife
        else { return }
        if let record = process.disk?.durableRecord, let fault = invariants.told(message, record) {
            fail(fault)
        }
        enqueue(.toPrimary(message), index, toReplica: false)
    }

    /// Breaks a connection: of what is under way some arrives, then both ends notice.
    func breakLink(_ index: Int) {
        guard !connections[index].isBroken else { return }
        connections[index].isBroken = true
        let ends = (connections[index].primaryProcess, connections[index].replicaProcess)
        let toReplicaCount = connections[index].toReplica.count
        let toPrimaryCount = connections[index].toPrimary.count
        let keptToReplica = cuts[ends.0][ends.1] ? 0 : random.within(0...toReplicaCount)
        let keptToPrimary = cuts[ends.1][ends.0] ? 0 : random.within(0...toPrimaryCount)
        connections[index].toReplica.removeLast(toReplicaCount - keptToReplica)
        connections[index].toPrimary.removeLast(toPrimaryCount - keptToPrimary)
        enqueue(.closed, index, toReplica: true)
        enqueue(.closed, index, toReplica: false)
    }

    /// The first item of a queue arrives, unless the direction is cut.
    func arrive(_ index: Int, _ toReplica: Bool) {
        let connection = connections[index]
        let from = toReplica ? connection.primaryProcess : connection.replicaProcess
        let to = toReplica ? connection.replicaProcess : connection.primaryProcess
        let item = toReplica ? connection.toReplica.first : connection.toPrimary.first
        guard let item else { return }
        if cuts[from][to], !connection.isBroken {
            // What is sent again and again in vain breaks the connection in the end.
            if random.chance(perMille: 20) { breakLink(index) }
            events.add(.arrive(connection: index, toReplica: toReplica), at: now + 10_000_000)
            return
        }
        if toReplica {
            connections[index].toReplica.removeFirst()
        } else {
            connections[index].toPrimary.removeFirst()
        }
        report.messageCount += 1
        switch item {
        case .toReplica(let message): deliver(message, index)
        case .toPrimary(let message): deliver(message, index)
        case .closed: closed(index, atReplica: toReplica)
        }
    }

    private func deliver(_ message: PrimaryMessage, _ index: Int) {
        let connection = connections[index]
        let process = processes[connection.replicaProcess]
        guard process.isAlive, process.storeLife == connection.replicaLife,
            let replica = process.replica
        else { return }
        note(2, UInt64(process.index), message.epoch.rawValue, "-> \(process.index) \(message)")
        let link = LinkID(UInt64(index))
        replica.room = process.disk?.room ?? .plentiful
        replica.onMessage(message, from: link, now: process.localTime(now))
        carryOut(replica, process, given: message.body.payload)
    }

    private func deliver(_ message: ReplicaMessage, _ index: Int) {
        let connection = connections[index]
        let process = processes[connection.primaryProcess]
        guard process.isAlive, process.primaryCount == connection.primary,
            let primary = process.primary, process.links[connection.slot] == index
        else { return }
        note(
            3,
            UInt64(process.index),
            message.epoch.rawValue,
            "\(connection.slot) -> \(process.index) \(message)"
        )
        take(message.body.payload, process)
        primary.onMessage(message, slot: connection.slot, now: process.localTime(now))
        carryOut(primary, process)
    }

    private func closed(_ index: Int, atReplica: Bool) {
        let connection = connections[index]
        if atReplica {
            let process = processes[connection.replicaProcess]
            guard process.isAlive, process.storeLife == connection.replicaLife else { return }
            process.replica?.onLinkClosed(LinkID(UInt64(index)))
            return
        }
        let process = processes[connection.primaryProcess]
        guard process.isAlive, process.primaryCount == connection.primary,
            let primary = process.primary, process.links[connection.slot] == index
        else { return }
        process.links[connection.slot] = nil
        primary.onLinkClosed(slot: connection.slot, now: process.localTime(now))
        carryOut(primary, process)
        scheduleConnect(process, connection.slot)
    }
}
