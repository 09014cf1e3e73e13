// What changes about the replicas of a volume that is served: other addresses, another replica in a
// lost one's place, one that moves.

internal import BlockCore
internal import Replication

extension Worker {
    /// Lays the slots out as an assignment under a new epoch lists its replicas; the links of those
    /// that stay where they are go on.
    func layOutSlots(of primary: PrimaryHost) {
        let placements = primary.assignment.placements
        let isMoved = primary.slots.contains(where: \.isVacant)
        guard placements.count == primary.slots.count, !isMoved else {
            for slot in primary.slots.indices { cutLink(primary, slot) }
            primary.slots = placements.map { PrimaryHost.Slot(placement: $0) }
            return
        }
        for slot in placements.indices {
            let isSame = primary.slots[slot].placement.instance == placements[slot].instance
            if !isSame { cutLink(primary, slot) }
            place(placements[slot], in: slot, primary)
        }
    }

    private func place(_ placement: ServicePlacement, in slot: Int, _ primary: PrimaryHost) {
        let old = primary.slots[slot].placement
        primary.slots[slot].placement = placement
        if old.instance != placement.instance || old.address != placement.address {
            primary.slots[slot].connectAt = now
        }
    }

    /// Whether the replicas may become those of an assignment under the same epoch.
    ///
    /// From when both sets of a move count there is no way back, and nobody but those who asked for
    /// that may name the new set.
    func mayBecome(_ assignment: ServiceAssignment, _ primary: PrimaryHost) -> Bool {
        guard let machine = primary.machine, let phase = machine.movePhase,
            let moved = machine.moveSummary?.instance
        else { return true }
        if assignment.placements.contains(where: { $0.instance == moved }) {
            return phase == .ready
        }
        let goesOn = assignment.move?.to.instance == moved
        return goesOn || phase == .filling || phase == .filled
    }

    /// Takes over what has changed about the replicas under an epoch.
    func changeSlots(of primary: PrimaryHost) {
        let placements = primary.assignment.placements
        let wanted = primary.assignment.move
        if let machine = primary.machine, let moved = machine.moveSummary?.instance {
            if placements.contains(where: { $0.instance == moved }) {
                if let slot = machine.finishMove(now: now) { vacate(slot, primary) }
            } else if wanted?.to.instance != moved {
                if let slot = machine.abandonMove(now: now) { vacate(slot, primary) }
            }
        }
        replaceLost(primary, by: placements)
        if let wanted {
            begin(wanted, of: primary)
            if wanted.joins { primary.machine?.joinMove(now: now) }
        }
        mark(primary)
        replication.scheduleTick(now)
    }

    /// Takes over addresses, and puts replicas that are new into the slots of those that are not
    /// named any more.
    private func replaceLost(_ primary: PrimaryHost, by placements: [ServicePlacement]) {
        let moved = primary.assignment.move?.to.instance
        var left = primary.slots.indices.filter { !primary.slots[$0].isVacant }
        var unplaced: [ServicePlacement] = []
        for placement in placements {
            let slot = left.firstIndex {
                primary.slots[$0].placement.instance == placement.instance
            }
            guard let slot else {
                unplaced.append(placement)
                continue
            }
            place(placement, in: left.remove(at: slot), primary)
        }
        left.removeAll { primary.slots[$0].placement.instance == moved }
        for (slot, placement) in zip(left, unplaced) {
            cutLink(primary, slot)
            place(placement, in: slot, primary)
            primary.machine?.replace(slot: slot, by: placement.instance, now: now)
        }
    }

    // MARK: - Moves

    /// Has the replica that is to take another's place filled; one that is being filled goes on.
    func begin(_ move: ServiceMove, of primary: PrimaryHost) {
        guard let machine = primary.machine else { return }
        if machine.moveSummary?.instance == move.to.instance {
            let slot = primary.slots.firstIndex {
                !$0.isVacant && $0.placement.instance == move.to.instance
            }
            if let slot { place(move.to, in: slot, primary) }
            return
        }
        let from = primary.slots.firstIndex {
            !$0.isVacant && $0.placement.instance == move.from
        }
        guard let from,
            let slot = machine.beginMove(
                of: from,
                to: move.to.instance,
                isLocal: isLocal(move.to, primary),
                now: now
            )
        else { return }
        let place = PrimaryHost.Slot(placement: move.to, connectAt: now)
        if slot == primary.slots.count {
            primary.slots.append(place)
        } else {
            primary.slots[slot] = place
        }
    }

    private func vacate(_ slot: Int, _ primary: PrimaryHost) {
        cutLink(primary, slot)
        primary.slots[slot].isVacant = true
    }

    func moveStatus(of primary: PrimaryHost) -> ServiceMoveStatus? {
        guard let machine = primary.machine, let phase = machine.movePhase,
            let peer = machine.moveSummary
        else { return nil }
        return ServiceMoveStatus(phase: phase, peer: peer)
    }
}
