// A replica's snapshots: entries of its stream, or kept one by one while it comes back.

internal import BlockCore

extension ReplicaMachine {
    /// Takes the next snapshot of the stream.
    ///
    /// Only a complete replica: what another one lacks would have to go below the snapshot. It is
    /// given those that it missed by ``onKeep(_:_:_:_:_:)``, and meets none in its stream but such as
    /// were deleted since.
    func onSnapshot(_ message: PrimaryMessage, _ mark: SnapshotMark, _ link: LinkID) {
        guard mark.isValid, mark.number.epoch == message.epoch,
            mark.number.counter == received + 1, isNew(mark)
        else { return ignore(message.body) }
        streamLink = link
        received += 1
        guard record.isComplete || policy.defect == .snapshotsNotStaged else {
            actions.append(.skip)
            return
        }
        snapshots.append(mark)
        actions.append(.snapshot(mark, isStreamed: true))
        // The store keeps no place in the stream for it: the record does.
        _ = persist()
    }

    /// Keeps a snapshot that it missed: it has everything up to it, and nothing beyond.
    func onKeep(
        _ message: PrimaryMessage,
        _ life: Incarnation,
        _ mark: SnapshotMark,
        _ link: LinkID,
        _ now: Instant
    ) {
        guard life == incarnation, link == streamLink, mark.isValid,
            mark.number.epoch <= message.epoch,
            !record.isComplete, mark.number > record.common, isNew(mark)
        else { return ignore(message.body) }
        snapshots.append(mark)
        record.common = mark.number
        actions.append(.snapshot(mark, isStreamed: false))
        wait(.kept(mark.number), message, link, persist(), now)
    }

    private func isNew(_ mark: SnapshotMark) -> Bool {
        snapshots.count < SnapshotMark.heldCountMax && !snapshots.contains { $0.id == mark.id }
            && snapshots.last.map { $0.number < mark.number } ?? true
    }

    /// Deletes snapshots that were taken in vain: what the replica follows has nothing of what is
    /// above this number.
    func dropSnapshots(above number: WriteNumber) {
        while let mark = snapshots.last, mark.number > number {
            snapshots.removeLast()
            actions.append(.dropSnapshot(mark))
        }
    }

    /// A snapshot was deleted, by whoever manages the volume.
    public func onSnapshotDeleted(_ id: UInt64) { snapshots.removeAll { $0.id == id } }

    /// The last number up to which it has everything, once all that it received is in the log.
    var end: WriteNumber {
        record.isComplete
            ? WriteNumber(epoch: record.accepted, counter: received) : record.common
    }

    /// Whether it has what is to be looked at.
    func hasView(_ view: ReplicaView) -> Bool {
        switch view {
        case .volume: true
        case .snapshot(let id): snapshots.contains { $0.id == id }
        }
    }

    /// Whether a snapshot is here with everything that belongs to it: copies can be made of it.
    public func isWhole(_ mark: SnapshotMark) -> Bool {
        snapshots.contains(mark) && mark.number <= end
    }
}
