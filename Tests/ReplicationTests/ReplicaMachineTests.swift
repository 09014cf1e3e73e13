import BlockCore
import Replication
import Testing

/// A replica with what it needs, driven step by step.
private struct Bench {
    static let instance = ReplicaInstance(11)
    static let link = LinkID(1)
    let policy: ReplicationPolicy
    let replica: ReplicaMachine
    var now = Instant(nanoseconds: 1_000_000_000)

    init(
        record: ReplicaRecord = .created(Bench.instance),
        streamed: UInt64 = 0,
        isNew: Bool = true,
        isWritethrough: Bool = false
    ) throws {
        var policy = try #require(ReplicationPolicy(replicaCount: 3, writeQuorum: 2))
        policy.isWritethrough = isWritethrough
        self.policy = policy
        replica = ReplicaMachine(
            record: record,
            streamed: streamed,
            incarnation: Incarnation(5),
            policy: policy,
            isNew: isNew,
            now: now
        )
    }

    /// Says something under an epoch, and returns what the replica wants then.
    func say(
        _ body: PrimaryMessage.Body,
        epoch: UInt64 = 1,
        primary: UInt64 = 1,
        instance: ReplicaInstance = Bench.instance
    ) -> [ReplicaAction] {
        let message = PrimaryMessage(
            instance: instance,
            epoch: Epoch(epoch),
            primary: PrimaryID(primary),
            body: body
        )
        replica.onMessage(message, from: Bench.link, now: now)
        return take()
    }

    func take() -> [ReplicaAction] {
        defer { replica.actions.removeAll() }
        return replica.actions
    }

    func persisted() -> [ReplicaAction] {
        replica.onPersisted(now: now)
        return take()
    }

    /// Follows an epoch that begins where the replica is.
    func follow(epoch: UInt64 = 1) throws {
        _ = say(.seal, epoch: epoch)
        _ = persisted()
        let end = WriteNumber(epoch: replica.record.accepted, counter: replica.applied)
        let lineage = replica.record.lineage.continued(from: end)
        _ = say(.open(lineage: lineage, start: 1), epoch: epoch)
        _ = persisted()
        #expect(replica.record.isComplete)
    }

    /// What is wanted of a write that is ignored.
    static let nothing = [ReplicaAction.release(PayloadID(7))]

    func write(_ counter: UInt64, epoch: UInt64 = 1) -> [ReplicaAction] {
        let number = WriteNumber(epoch: Epoch(epoch), counter: counter)
        let range = BlockRange(first: 0, count: 1)
        return say(.write(number: number, range: range, payload: PayloadID(7)), epoch: epoch)
    }
}

private func messages(_ actions: [ReplicaAction]) -> [ReplicaMessage.Body] {
    actions.compactMap { if case .send(_, let message) = $0 { message.body } else { nil } }
}

private func isSealed(_ body: ReplicaMessage.Body?) -> Bool {
    if case .sealed = body { true } else { false }
}

@Suite("Replica: promises") struct ReplicaPromiseTests {
    @Test("A seal is answered when the promise is durable")
    func seal_higherEpoch_isDurableFirst() throws {
        let bench = try Bench()
        let actions = bench.say(.seal, epoch: 4)
        #expect(messages(actions).isEmpty)
        guard case .persist(let record) = actions.first else {
            Issue.record("no record: \(actions)")
            return
        }
        #expect(record.promised == Epoch(4))
        #expect(isSealed(messages(bench.persisted()).first))
    }

    @Test("Lower epochs are refused from the seal on, before it is answered")
    func message_ofALowerEpoch_isRefused() throws {
        let bench = try Bench()
        try bench.follow(epoch: 3)
        _ = bench.say(.seal, epoch: 5, primary: 2)
        let bodies: [PrimaryMessage.Body] = [
            .seal, .renew(sentAt: bench.now, committed: .zero), .flush(through: 1),
            .write(
                number: WriteNumber(epoch: Epoch(3), counter: 1),
                range: BlockRange(first: 0, count: 1),
                payload: .zeroes
            ),
        ]
        for body in bodies {
            #expect(messages(bench.say(body, epoch: 3)) == [.refused(promised: Epoch(5))])
        }
    }

    @Test("A seal of another process waits for the grant's end, one of the same does not")
    func seal_whileGranted_waits() throws {
        var bench = try Bench()
        try bench.follow()
        _ = bench.say(.renew(sentAt: bench.now, committed: .zero))
        _ = bench.say(.seal, epoch: 2, primary: 2)
        #expect(messages(bench.persisted()).isEmpty)
        bench.now = bench.now.advanced(byNanoseconds: bench.policy.grantNanoseconds - 1)
        bench.replica.onTick(now: bench.now)
        #expect(messages(bench.take()).isEmpty)
        bench.now = bench.now.advanced(byNanoseconds: 1)
        bench.replica.onTick(now: bench.now)
        #expect(isSealed(messages(bench.take()).first))

        let other = try Bench()
        try other.follow()
        _ = other.say(.renew(sentAt: other.now, committed: .zero))
        _ = other.say(.seal, epoch: 2, primary: 1)
        #expect(isSealed(messages(other.persisted()).first))
    }

    @Test("After a restart nobody knows who holds a grant: one grant's time passes")
    func seal_afterRestart_waits() throws {
        var bench = try Bench(isNew: false)
        _ = bench.say(.seal, epoch: 2)
        #expect(messages(bench.persisted()).isEmpty)
        bench.now = bench.now.advanced(byNanoseconds: bench.policy.grantNanoseconds)
        bench.replica.onTick(now: bench.now)
        #expect(isSealed(messages(bench.take()).first))
    }

    @Test("A grant given back is over")
    func release_ofAGrant_letsTheSealBeAnswered() throws {
        let bench = try Bench()
        try bench.follow()
        _ = bench.say(.renew(sentAt: bench.now, committed: .zero))
        _ = bench.say(.release)
        _ = bench.say(.seal, epoch: 2, primary: 2)
        #expect(isSealed(messages(bench.persisted()).first))
    }

    @Test("Who was killed forgot, unless it had promised another epoch since")
    func restart_whileFollowing_forgets() throws {
        let bench = try Bench()
        try bench.follow()
        var record = bench.replica.record
        let killed = try Bench(record: record, streamed: 3, isNew: false)
        #expect(!killed.replica.record.remembers)
        #expect(killed.replica.applied == 3)
        #expect(killed.replica.durable == 3)
        record.promised = Epoch(2)
        #expect(try Bench(record: record, isNew: false).replica.record.remembers)
    }
}

@Suite("Replica: following") struct ReplicaStreamTests {
    @Test("Writes are taken in turn; doubles, gaps and strangers are ignored")
    func write_outOfTurn_isIgnored() throws {
        let bench = try Bench()
        try bench.follow()
        #expect(bench.write(1).count == 1)
        #expect(bench.write(2).count == 1)
        #expect(bench.write(2) == Bench.nothing)
        #expect(bench.write(1) == Bench.nothing)
        #expect(bench.write(4) == Bench.nothing)
        #expect(bench.write(3, epoch: 2) == Bench.nothing)
        bench.replica.onAppended(now: bench.now)
        #expect(messages(bench.take()) == [.progress(applied: 1, durable: 0)])
    }

    @Test("What was said and not taken is said anew, not twice")
    func progress_notTaken_isReplaced() throws {
        let bench = try Bench()
        try bench.follow()
        for counter in 1...3 as ClosedRange<UInt64> { _ = bench.write(counter) }
        for _ in 1...3 { bench.replica.onAppended(now: bench.now) }
        #expect(messages(bench.take()) == [.progress(applied: 3, durable: 0)])
    }

    @Test("Where only what is durable counts, the end of a flush says what was appended meanwhile")
    func progress_writethrough_isToldByTheFlush() throws {
        let bench = try Bench(isWritethrough: true)
        try bench.follow()
        _ = bench.write(1)
        #expect(bench.say(.flush(through: 1)) == [.flush])
        bench.replica.onAppended(now: bench.now)
        _ = bench.write(2)
        bench.replica.onAppended(now: bench.now)
        #expect(bench.take() == [])
        bench.replica.onFlushed(now: bench.now)
        #expect(messages(bench.take()) == [.progress(applied: 2, durable: 1)])
        // Nobody asks for a flush: then it is said at once.
        _ = bench.write(3)
        bench.replica.onAppended(now: bench.now)
        #expect(messages(bench.take()) == [.progress(applied: 3, durable: 1)])
    }

    @Test("A flush covers what was received, and is told when it ends")
    func flush_afterWrites_makesThemDurable() throws {
        let bench = try Bench()
        try bench.follow()
        _ = bench.write(1)
        bench.replica.onAppended(now: bench.now)
        _ = bench.take()
        #expect(bench.say(.flush(through: 1)) == [.flush])
        bench.replica.onFlushed(now: bench.now)
        #expect(messages(bench.take()) == [.progress(applied: 1, durable: 1)])
    }

    @Test("A replica that is behind is not complete, and knows up to where it is")
    func open_fromBehind_isIncomplete() throws {
        let bench = try Bench()
        try bench.follow()
        _ = bench.write(1)
        bench.replica.onAppended(now: bench.now)
        _ = bench.say(.seal, epoch: 2)
        _ = bench.persisted()
        let end = WriteNumber(epoch: Epoch(1), counter: 3)
        let lineage = bench.replica.record.lineage.continued(from: end)
        _ = bench.say(.open(lineage: lineage, start: 1), epoch: 2)
        #expect(
            messages(bench.persisted()) == [.opened(isComplete: false, applied: 0, durable: 0)]
        )
        #expect(bench.replica.record.common == WriteNumber(epoch: Epoch(1), counter: 1))
        let read = PrimaryMessage.Body.read(
            token: 9,
            range: BlockRange(first: 0, count: 1),
            floor: 0
        )
        #expect(messages(bench.say(read, epoch: 2)) == [.readRefused(token: 9)])
    }

    @Test("A gap in the stream makes a replica incomplete from before the gap")
    func open_withAGap_isIncomplete() throws {
        let bench = try Bench()
        try bench.follow()
        _ = bench.write(1)
        bench.replica.onAppended(now: bench.now)
        let lineage = bench.replica.record.lineage
        _ = bench.say(.open(lineage: lineage, start: 5))
        #expect(!bench.replica.record.isComplete)
        #expect(bench.replica.record.common == WriteNumber(epoch: Epoch(1), counter: 1))
        #expect(bench.write(2) == Bench.nothing)
        #expect(bench.write(5).count == 1)
    }

    @Test("Completion counts for the life it was meant for, and is durable first")
    func complete_ofAnotherLife_isIgnored() throws {
        let bench = try Bench(record: .replacing(Bench.instance))
        _ = bench.say(.seal)
        _ = bench.persisted()
        let lineage = Lineage.origin.continued(from: .zero)
        _ = bench.say(.open(lineage: lineage, start: 1))
        _ = bench.persisted()
        #expect(!bench.replica.record.isComplete)
        #expect(bench.say(.complete(Incarnation(4))).isEmpty)
        #expect(messages(bench.say(.complete(Incarnation(5)))).isEmpty)
        #expect(messages(bench.persisted()) == [.completed])
        #expect(bench.replica.record.isComplete)
        #expect(!bench.replica.record.isBlank)
    }

    @Test("A read is refused by who has not what was committed")
    func read_belowTheFloor_isRefused() throws {
        let bench = try Bench()
        try bench.follow()
        let range = BlockRange(first: 0, count: 1)
        let refusal = messages(bench.say(.read(token: 1, range: range, floor: 1)))
        #expect(refusal == [.readRefused(token: 1)])
        #expect(bench.say(.read(token: 1, range: range, floor: 0)).count == 1)
    }

    @Test("What came over a link that is gone is told over the one that took its place")
    func progress_afterANewLink_isToldThere() throws {
        let bench = try Bench()
        try bench.follow()
        #expect(bench.write(1).count == 1)
        let other = LinkID(2)
        bench.replica.onLinkClosed(Bench.link)
        func say(_ body: PrimaryMessage.Body) {
            let message = PrimaryMessage(
                instance: Bench.instance,
                epoch: Epoch(1),
                primary: PrimaryID(1),
                body: body
            )
            bench.replica.onMessage(message, from: other, now: bench.now)
        }
        say(.seal)
        say(.open(lineage: bench.replica.record.lineage, start: 1))
        _ = bench.take()
        // The write is on its way into the log: what is sent again of it is ignored.
        bench.replica.onAppended(now: bench.now)
        let actions = bench.take()
        #expect(messages(actions) == [.progress(applied: 1, durable: 0)])
        for case .send(let link, _) in actions { #expect(link == other) }
    }

    @Test("What is damaged is said, and repaired by the write that it is of")
    func read_damaged_isSaidAndRepaired() throws {
        let bench = try Bench()
        try bench.follow()
        let range = BlockRange(first: 4, count: 2)
        let asked = bench.say(.read(token: 8, range: range, floor: 0))
        guard case .read(_, let address) = asked.first else {
            Issue.record("no read")
            return
        }
        bench.replica.onReadFailed(address, block: 5)
        #expect(messages(bench.take()) == [.readFailed(token: 8, block: 5)])
        bench.replica.onFetchFailed(address, number: .zero)
        #expect(messages(bench.take()) == [.fetchFailed(token: 8, number: .zero)])
        let number = WriteNumber(epoch: Epoch(1), counter: 3)
        let payload = PayloadID(7)
        func repair(_ block: UInt64, _ number: WriteNumber) -> [ReplicaAction] {
            bench.say(.repair(block: block, number: number, payload: payload))
        }
        #expect(repair(5, number) == [.repair(block: 5, number: number, payload: payload)])
        #expect(repair(.max, number) == Bench.nothing)
        #expect(repair(5, .zero) == Bench.nothing)
        #expect(repair(5, WriteNumber(epoch: Epoch(2), counter: 1)) == Bench.nothing)
    }

    @Test("A payload that is not stored is given back")
    func payload_notStored_isGivenBack() throws {
        let bench = try Bench()
        try bench.follow(epoch: 2)
        let back = ReplicaAction.release(PayloadID(7))
        // Out of turn, of an epoch that is over, and of one that is not followed.
        #expect(bench.write(2, epoch: 2) == [back])
        let late = bench.write(1)
        #expect(messages(late) == [.refused(promised: Epoch(2))])
        #expect(late.last == back)
        #expect(bench.write(1, epoch: 3) == [back])
        let fill = PrimaryMessage.Body.fill(
            token: 1,
            block: 0,
            number: .zero,
            payload: PayloadID(7)
        )
        #expect(bench.say(fill, epoch: 2) == [back])
        #expect(bench.say(fill, epoch: 2, instance: ReplicaInstance(12)) == [back])
        // Read for an epoch that is over by now.
        let range = BlockRange(first: 0, count: 1)
        let asked = bench.say(.read(token: 1, range: range, floor: 0), epoch: 2)
        guard case .read(_, let address) = asked.first else {
            Issue.record("no read")
            return
        }
        _ = bench.say(.seal, epoch: 3)
        bench.replica.onRead(address, payload: PayloadID(7), number: .zero)
        let answer = bench.take()
        #expect(messages(answer) == [.refused(promised: Epoch(3))])
        #expect(answer.last == back)
    }

    @Test("What makes no sense is ignored and does no harm")
    func message_absurd_isIgnored() throws {
        let bench = try Bench()
        try bench.follow()
        let before = bench.replica.record
        let far = WriteNumber(rawValue: .max)
        let range = BlockRange(first: .max, count: .max)
        let bodies: [PrimaryMessage.Body] = [
            .open(lineage: .origin, start: 1), .open(lineage: .origin, start: 0),
            .open(lineage: before.lineage, start: .max),
            .write(number: far, range: range, payload: .zeroes),
            .write(
                number: WriteNumber(epoch: Epoch(1), counter: 1),
                range: range,
                payload: .zeroes
            ),
            .renew(sentAt: bench.now, committed: far),
            .scan(token: 1, view: .volume, above: far, from: 0),
            .scan(token: 1, view: .volume, above: .zero, from: .max),
            .fetch(token: 1, view: .volume, block: .max),
            .fill(token: 1, block: 0, number: .zero, payload: .zeroes),
            .fill(token: 1, block: .max, number: far, payload: .zeroes),
        ]
        for body in bodies { #expect(bench.say(body).isEmpty, "\(body)") }
        #expect(bench.say(.seal, epoch: 0).isEmpty)
        #expect(bench.say(.seal, epoch: 1 << 20).isEmpty)
        #expect(bench.say(.seal, epoch: 9, instance: ReplicaInstance(12)).isEmpty)
        #expect(bench.replica.record == before)
        #expect(bench.replica.ignoredCount == UInt64(bodies.count) + 3)
        // Ends of operations that nobody asked for.
        bench.replica.onAppended(now: bench.now)
        bench.replica.onPersisted(now: bench.now)
        bench.replica.onFlushed(now: bench.now)
        #expect(bench.replica.applied == 0)
    }
}
