// What changes whom a replica follows: seals, opening, completion, grants.

internal import BlockCore

extension ReplicaMachine {
    /// Promises an epoch; from now on lower ones are refused, though the answer takes time.
    func onSeal(_ message: PrimaryMessage, _ link: LinkID, _ now: Instant) {
        var persist: UInt64 = persistCount
        if message.epoch > record.promised {
            record.promised = message.epoch
            persist = self.persist()
        }
        wait(.sealed, message, link, persist, now)
    }

    /// Follows an epoch, or goes on with it where the stream now begins.
    func onOpen(
        _ message: PrimaryMessage,
        _ lineage: Lineage,
        _ start: UInt64,
        _ link: LinkID,
        _ now: Instant
    ) {
        guard Lineage(checking: lineage.ends, of: message.epoch) != nil, !lineage.ends.isEmpty,
            start > 0, start <= WriteNumber.counterMax
        else {
            ignoredCount += 1
            return
        }
        // Progress of what came over the link before is told here: it may not be sent again.
        streamLink = link
        var persist = persistCount
        if message.epoch > record.accepted {
            follow(message.epoch, lineage, start)
            persist = self.persist()
            durable = 0
        } else if start > received + 1 {
            // Writes are missing: what comes now does not join what is here.
            if record.isComplete {
                record.common = end
                record.isComplete = false
            }
            restartStream(at: start)
            persist = self.persist()
        }
        wait(.opened, message, link, persist, now)
    }

    /// Begins an epoch: counting starts anew, and the past is what both lineages have.
    private func follow(_ epoch: Epoch, _ lineage: Lineage, _ start: UInt64) {
        let end = end
        let isExact = record.isComplete && end == lineage.base && start == 1
        record.common = record.lineage.commonPoint(end: end, with: lineage)
        record.isComplete = isExact
        if policy.defect != .vainSnapshotsKept { dropSnapshots(above: record.common) }
        record.promised = epoch
        record.accepted = epoch
        record.lineage = lineage
        restartStream(at: start)
        flushThrough = 0
        for index in persistThrough.indices { persistThrough[index] = 0 }
    }

    /// Counts from `start` on; what is still being appended comes before that.
    private func restartStream(at start: UInt64) {
        staleAppendCount += received - applied
        received = start - 1
        applied = received
    }

    /// Grants the primary reads for a while, and hears what is committed.
    func onRenew(
        _ message: PrimaryMessage,
        _ sentAt: Instant,
        _ committed: WriteNumber,
        _ link: LinkID,
        _ now: Instant
    ) {
        guard message.epoch == record.accepted, committed.isValid,
            committed.epoch <= message.epoch
        else {
            ignoredCount += 1
            return
        }
        self.committed = max(self.committed, committed)
        grantEnd = now.advanced(byNanoseconds: policy.grantNanoseconds)
        grantHolder = message.primary
        tellRoom(to: link)
        send(.granted(sentAt: sentAt), to: link, epoch: message.epoch)
    }

    /// Becomes complete: everything that was missing is here, and strays are overwritten.
    func onComplete(
        _ message: PrimaryMessage,
        _ life: Incarnation,
        _ link: LinkID,
        _ now: Instant
    ) {
        guard life == incarnation, link == streamLink else {
            ignoredCount += 1
            return
        }
        var persist = persistCount
        if !record.isComplete {
            record.isComplete = true
            record.remembers = true
            record.isBlank = false
            persist = self.persist()
        }
        wait(.completed, message, link, persist, now)
    }

    func wait(
        _ kind: PendingAnswer.Kind,
        _ message: PrimaryMessage,
        _ link: LinkID,
        _ persist: UInt64,
        _ now: Instant
    ) {
        pending.append(
            PendingAnswer(
                kind: kind,
                link: link,
                epoch: message.epoch,
                primary: message.primary,
                persist: persist
            )
        )
        settle(now)
    }
}
