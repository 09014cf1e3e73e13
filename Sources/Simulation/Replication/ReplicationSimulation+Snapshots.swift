// Snapshots that clients take and operators delete, and what must be in them.

internal import BlockCore
internal import Replication

/// A snapshot that somebody was told is there.
struct TakenSnapshot {
    var number: WriteNumber
    /// Between these steps it was taken.
    var start: UInt64
    var end: UInt64
}

extension ReplicationSimulation {
    /// A new snapshot, or one of which nobody knows whether it was taken.
    func drawSnapshot() -> ClientOperation {
        let start = takeStep()
        if !unknownSnapshots.isEmpty, random.chance(perMille: 500) {
            // It may be there since it was asked for first.
            var operation = unknownSnapshots.removeLast()
            operation.sentAt = now
            return operation
        }
        return ClientOperation(
            kind: .snapshot,
            range: BlockRange(first: 0, count: 0),
            value: newValue(),
            isForced: true,
            start: start,
            sentAt: now
        )
    }

    /// Somebody is told that a snapshot is there.
    func endSnapshot(_ operation: ClientOperation, _ number: WriteNumber, _ end: UInt64) {
        let taken = TakenSnapshot(number: number, start: operation.start, end: end)
        guard snapshots.updateValue(taken, forKey: operation.value) == nil else {
            return fail("snapshot \(operation.value) was taken twice")
        }
        let mark = SnapshotMark(id: operation.value, number: number)
        let count = allDisks.count { $0.snapshots.contains(mark) }
        if count < scenario.policy.writeQuorum {
            fail("snapshot \(operation.value) is acknowledged with \(count) replicas having it")
        }
    }

    /// An operator deletes a snapshot: whoever is there does so sooner or later.
    func deleteSnapshot() {
        guard !snapshots.isEmpty else { return }
        let id = random.pick(snapshots.keys.sorted())
        snapshots[id] = nil
        note(15, id, 0, "snapshot \(id) is deleted")
        for process in processes where process.isAlive && !process.isFrozen {
            if let primary = process.primary {
                primary.forgetSnapshot(id)
                carryOut(primary, process)
            }
            guard process.disk != nil, let replica = process.replica else { continue }
            replica.onSnapshotDeleted(id)
            let delay = random.below(scenario.delayNanosecondsMax)
            events.add(
                .stored(process: process.index, life: process.storeLife, .dropped(id)),
                at: now + delay
            )
        }
    }

    /// All replicas are complete: they have the same snapshots, with what belongs into them.
    func checkSnapshots(_ primary: PrimaryMachine) {
        for mark in primary.snapshots {
            var values: [UInt64: UInt64]?
            for slot in instances.indices {
                guard let disk = holder(slot).disk, disk.snapshots.contains(mark) else {
                    // Deleted here, and not yet where the primary took its list from.
                    if snapshots[mark.id] == nil { continue }
                    return fail("replica \(slot) lacks snapshot \(mark.id)")
                }
                let own = disk.values(in: .snapshot(mark.id))
                if let values, values != own {
                    return fail("replica \(slot) has another snapshot \(mark.id) than others")
                }
                values = own
            }
        }
        if let mark = primary.snapshots.first(where: { refusedSnapshots.contains($0.id) }) {
            return fail("snapshot \(mark.id) is there, and its taker was told that it is not")
        }
        for (id, taken) in snapshots {
            guard primary.snapshots.contains(SnapshotMark(id: id, number: taken.number)),
                let values = holder(0).disk?.values(in: .snapshot(id))
            else { return fail("snapshot \(id) was acknowledged and is gone") }
            for block in 0..<UInt64(scenario.hotBlockCount + scenario.wideBlockCount) {
                let fault = checker.verifySnapshot(
                    block: block,
                    value: values[block] ?? 0,
                    start: taken.start,
                    end: taken.end
                )
                if let fault { return fail("snapshot \(id), block \(block): \(fault)") }
            }
        }
    }
}
