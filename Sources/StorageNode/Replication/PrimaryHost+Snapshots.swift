// Snapshots of volumes that this node serves.

internal import BlockCore
internal import Replication

extension Worker {
    /// Takes a snapshot of a volume served here.
    ///
    /// - Parameters:
    ///   - volume: The volume.
    ///   - id: The snapshot's id; asked again for the same, its number is told.
    ///   - leaseEpoch: The epoch under which it is served.
    ///   - done: Called once, with the number when W replicas have the snapshot durably.
    func takeSnapshot(
        of volume: VolumeID,
        id: UInt64,
        leaseEpoch: Epoch,
        _ done: @escaping (Result<WriteNumber, ServiceError>) -> Void
    ) {
        let found = replication.primaries.lazy.compactMap { $0 }.first {
            $0.assignment.volume == volume && !$0.isEnded && !$0.isDeposed
        }
        guard let primary = found, primary.assignment.leaseEpoch == leaseEpoch else {
            return done(.failure(.notServing))
        }
        guard let machine = primary.machine else { return done(.failure(.unknownOutcome)) }
        guard machine.isKnown(id) || machine.snapshots.count < SnapshotMark.countMax else {
            return done(.failure(.tooManySnapshots))
        }
        let deadline = now.advanced(byNanoseconds: SnapshotWait.nanosecondsMax)
        let waiter = SnapshotWait.Waiter(deadline: deadline, done: done)
        replication.scheduleTick(now)
        // Whoever asks again and again while nothing is committed takes one place among the requests.
        if let token = primary.snapshotWaits.first(where: { $0.value.id == id })?.key {
            primary.snapshotWaits[token]?.waiters.append(waiter)
            return
        }
        let token = primary.nextSnapshotToken()
        primary.snapshotWaits[token] = SnapshotWait(id: id, waiters: [waiter])
        if !machine.submitSnapshot(token: token, id: id, now: now) {
            primary.snapshotWaits[token] = nil
            done(.failure(.unknownOutcome))
        }
        mark(primary)
    }

    /// A snapshot was taken, or the primary stopped before anybody knew.
    func onSnapshotEnd(_ token: UInt64, _ result: ClientResult, _ primary: PrimaryHost) {
        guard let wait = primary.snapshotWaits.removeValue(forKey: token) else { return }
        let outcome: Result<WriteNumber, ServiceError> =
            switch result {
            case .written(let number): .success(number)
            case .noRoom: .failure(.noRoom)
            case .read, .damaged, .flushed, .unknown: .failure(.unknownOutcome)
            }
        for waiter in wait.waiters { waiter.done(outcome) }
    }

    /// Lets those go who have waited for too long.
    func expireSnapshotWaits(_ primary: PrimaryHost) {
        for (token, wait) in primary.snapshotWaits {
            let late = wait.waiters.filter { $0.deadline <= now }
            guard !late.isEmpty else { continue }
            primary.snapshotWaits[token]?.waiters.removeAll { $0.deadline <= now }
            for waiter in late { waiter.done(.failure(.unknownOutcome)) }
        }
    }

    /// Lets all go: the volume is not served here any more.
    func endSnapshotWaits(_ primary: PrimaryHost) {
        let waits = primary.snapshotWaits.values
        primary.snapshotWaits = [:]
        for waiter in waits.flatMap(\.waiters) { waiter.done(.failure(.unknownOutcome)) }
    }

    /// A snapshot of a volume is being deleted: nobody who comes back needs it.
    func forgetSnapshot(of volume: VolumeID, id: UInt64) {
        for case let primary? in replication.primaries where primary.assignment.volume == volume {
            primary.machine?.forgetSnapshot(id)
            mark(primary)
        }
    }
}
