// A primary's machine on its reactor: what it wants sent, its connections, its epochs.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

extension Worker {
    // MARK: - Epochs

    /// Begins to take a volume over under the epoch of its assignment.
    func takeOver(_ primary: PrimaryHost) {
        let assignment = primary.assignment
        guard
            var policy = ReplicationPolicy(
                replicaCount: assignment.placements.count,
                writeQuorum: assignment.writeQuorum
            )
        else { preconditionFailure("an assignment that was not checked") }
        policy.isWritethrough = assignment.durability == .writethrough
        policy.windowCountMax = ReplicationState.windowCountMax
        policy.windowByteCountMax = replication.windowByteCountMax
        policy.requestBlockCountMax = UInt32(Piece.zeroBlockCount)
        primary.stopReason = nil
        primary.isDeposed = false
        // The next machine counts its own refusals.
        primary.room.refusedCount = 0
        primary.abandonAt = nil
        primary.machine = PrimaryMachine(
            epoch: assignment.leaseEpoch,
            primary: replication.process,
            instances: assignment.placements.map(\.instance),
            localSlot: primary.slots.firstIndex { isLocal($0.placement, primary) },
            policy: policy,
            budget: replication.resyncs,
            now: now
        )
        if let move = assignment.move { begin(move, of: primary) }
        for slot in primary.slots.indices {
            if primary.slots[slot].link == nil {
                primary.slots[slot].connectAt = now
                connect(primary, slot)
            } else {
                primary.machine?.onLinkOpened(slot: slot, now: now)
            }
        }
        primary.isWaitingWorthwhile = true
        mark(primary)
        replication.scheduleTick(now)
    }

    /// Whether a replica is on this reactor.
    func isLocal(_ placement: ServicePlacement, _ primary: PrimaryHost) -> Bool {
        localReplica(of: primary, placement) != nil
    }

    private func localReplica(
        of primary: PrimaryHost,
        _ placement: ServicePlacement
    ) -> ReplicaHost? {
        replica(of: primary.assignment.volume, instance: placement.instance)
    }

    /// Has a primary's actions carried out before the turn ends.
    func mark(_ primary: PrimaryHost) {
        guard !primary.isMarked else { return }
        primary.isMarked = true
        replication.markedPrimaries.append(primary.index)
    }

    /// Carries out what the machine wants.
    func carryOut(_ primary: PrimaryHost) {
        if let machine = primary.machine {
            var index = 0
            // What ends may let others begin, which adds to the list.
            while index < machine.actions.count {
                switch machine.actions[index] {
                case .send(let slot, let message): send(message, primary, slot)
                case .complete(let token, let result):
                    onMachineCompletion(token, result, primary)
                case .release(let payload): replication.payloads.release(payload)
                case .stopped(let reason): onStopped(primary, reason)
                }
                index += 1
                if index == machine.actions.count { resumeWaiting(primary) }
            }
            machine.actions.removeAll(keepingCapacity: true)
            resumeWaiting(primary)
            if !machine.actions.isEmpty { mark(primary) }
        }
        watchState(primary)
    }

    private func send(_ message: PrimaryMessage, _ primary: PrimaryHost, _ slot: Int) {
        guard let link = primary.slots[slot].link else { return }
        if let replica = primary.slots[slot].local {
            // The machine lets go of it by itself.
            replication.payloads.retain(message.body.payload)
            deliver(message, to: replica, from: link)
        } else if let peer = primary.slots[slot].peer {
            send(message, over: peer)
        }
    }

    /// Gives a primary a message of a replica.
    ///
    /// A payload in it is held once for the primary.
    func deliver(_ message: ReplicaMessage, to primary: PrimaryHost, slot: Int) {
        guard let machine = primary.machine else {
            return replication.payloads.release(message.body.payload)
        }
        machine.onMessage(message, slot: slot, now: now)
        mark(primary)
    }

    private func onStopped(_ primary: PrimaryHost, _ reason: PrimaryStop) {
        switch reason {
        case .deposed: depose(primary)
        case .closed: break
        case .sourceLost, .stuck, .numbersExhausted:
            primary.stopReason = reason
            shared.sink(.serviceStopped(volume: primary.assignment.name, reason: reason.text))
        }
    }

    /// Another process has the volume: connections go first, then their requests.
    private func depose(_ primary: PrimaryHost) {
        primary.isDeposed = true
        shared.sink(.serviceDeposed(volume: primary.assignment.name))
        publishServices()
        primary.abandonAt = now.advanced(byNanoseconds: PrimaryHost.dropNanoseconds)
        replication.scheduleTick(now)
    }

    // MARK: - Connections

    /// Connects to the replica in a slot, when it is time.
    func connect(_ primary: PrimaryHost, _ slot: Int) {
        guard primary.slots[slot].link == nil, primary.slots[slot].peer == nil,
            primary.slots[slot].connectAt <= now, !primary.isEnded,
            !primary.slots[slot].isVacant
        else { return }
        let placement = primary.slots[slot].placement
        if let replica = localReplica(of: primary, placement) {
            let link = replication.nextLink()
            replica.sinks[link] = .primary(primary, slot: slot)
            primary.slots[slot].local = replica
            primary.slots[slot].link = link
            primary.machine?.onLinkOpened(slot: slot, now: now)
            return mark(primary)
        }
        primary.slots[slot].pauseNanoseconds = min(
            max(primary.slots[slot].pauseNanoseconds * 2, PeerLink.pauseNanosecondsMin),
            PeerLink.pauseNanosecondsMax
        )
        primary.slots[slot].connectAt = now.advanced(
            byNanoseconds: primary.slots[slot].pauseNanoseconds
        )
        guard let address = placement.address else { return }
        primary.slots[slot].peer = openPeer(address, primary, slot)
    }

    /// A connection was accepted by the replica's node.
    func onPeerOpen(_ primary: PrimaryHost, _ slot: Int) {
        primary.slots[slot].pauseNanoseconds = 0
        primary.slots[slot].link = replication.nextLink()
        primary.machine?.onLinkOpened(slot: slot, now: now)
        mark(primary)
    }

    /// A link to a replica is gone; another one is tried.
    func loseLink(_ primary: PrimaryHost, _ slot: Int) {
        primary.slots[slot].peer = nil
        primary.slots[slot].local = nil
        guard primary.slots[slot].link != nil else { return }
        primary.slots[slot].link = nil
        primary.machine?.onLinkClosed(slot: slot, now: now)
        mark(primary)
    }

    /// Cuts the link to the replica in a slot.
    func cutLink(_ primary: PrimaryHost, _ slot: Int) {
        if let link = primary.slots[slot].link, let replica = primary.slots[slot].local {
            replica.sinks[link] = nil
            replica.machine.onLinkClosed(link)
            mark(replica)
            return loseLink(primary, slot)
        }
        if let peer = primary.slots[slot].peer {
            close(peer)
        }
    }

    // MARK: - State

    /// Where a primary is, as its node tells it.
    func state(of primary: PrimaryHost) -> ServiceState {
        guard let machine = primary.machine else { return .stopped }
        switch machine.state {
        case .sealing: return .sealing
        case .renewing: return .renewing
        case .stopped: return .stopped
        case .open:
            guard machine.isServing else { return .opening }
            return machine.hasQuorum ? .serving : .suspended
        }
    }

    private func watchState(_ primary: PrimaryHost) {
        let state = state(of: primary)
        guard state != primary.lastState else { return }
        primary.lastState = state
        shared.sink(.serviceChanged(volume: primary.assignment.name, state: state))
    }
}

extension PrimaryStop {
    /// Why, for people.
    var text: String {
        switch self {
        case .deposed(let epoch): "another process has it, under epoch \(epoch.rawValue)"
        case .sourceLost: "the replica whose writes were to be repeated is lost"
        case .stuck: "no replica has everything of this epoch"
        case .numbersExhausted: "the numbers of this epoch are used up"
        case .closed: "it was given back"
        }
    }
}
