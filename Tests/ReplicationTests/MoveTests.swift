import BlockCore
import Replication
import Testing

private typealias Bench = PrimaryBench

/// Docs/replication.md, "Moving a replica".
@Suite("Primary: moving a replica") struct PrimaryMoveTests {
    /// Slot 3 is the new replica's, which is to take slot 2's place.
    private static let target = 3

    private func begin(_ bench: Bench) {
        let slot = bench.primary.beginMove(
            of: 2,
            to: ReplicaInstance(UInt64(Self.target) + 100),
            isLocal: false,
            now: bench.now
        )
        #expect(slot == Self.target)
        bench.primary.onLinkOpened(slot: Self.target, now: bench.now)
        _ = bench.take()
    }

    /// The new replica gets all there is, which is nothing, and says so.
    private func fill(_ bench: Bench) throws {
        var record = ReplicaRecord.replacing(ReplicaInstance(UInt64(Self.target) + 100))
        record.promised = PrimaryBench.epoch
        let status = ReplicaMessage.Body.sealed(
            ReplicaStatus(record: record, applied: 0, durable: 0, committed: .zero)
        )
        bench.say(Self.target, status)
        var actions = bench.say(
            Self.target,
            .opened(isComplete: false, applied: 0, durable: 0)
        )
        // A phase begins with the next look at the clock.
        for _ in 0..<8 {
            bench.primary.onTick(now: bench.now)
            actions += bench.take()
            var next: [PrimaryAction] = []
            for case .send(let slot, let message) in actions {
                switch message.body {
                case .scan(let token, _, _, _):
                    next += bench.say(slot, .scanned(token: token, entries: [], next: nil))
                case .complete: next += bench.say(slot, .completed)
                default: break
                }
            }
            actions = next
        }
    }

    private func say(_ bench: Bench, _ slots: [Int], through counter: UInt64) -> [UInt64] {
        slots.flatMap {
            ended(bench.say($0, .progress(applied: counter, durable: counter)))
        }
    }

    @Test("While it is filled, and when it is, the new replica counts for nothing")
    func learner_countsForNothing() throws {
        let bench = try Bench()
        try bench.serve()
        begin(bench)
        #expect(bench.primary.movePhase == .filling)
        #expect(bench.primary.beginMove(of: 1, to: .init(9), isLocal: false, now: bench.now) == nil)
        try fill(bench)
        #expect(bench.primary.movePhase == .filled)
        #expect(bodies(bench.write(7), to: Self.target).count == 1)
        #expect(say(bench, [0, Self.target], through: 1).isEmpty)
        #expect(say(bench, [1], through: 1) == [7])
        #expect(bench.primary.peerSummaries.map(\.instance.rawValue) == [100, 101, 102])
        #expect(bench.primary.finishMove(now: bench.now) == nil, "nobody else knows of it")
    }

    @Test("Once it has joined, W of both sets have to have a write")
    func joined_bothSetsCount() throws {
        let bench = try Bench()
        try bench.serve()
        begin(bench)
        #expect(!bench.primary.joinMove(now: bench.now), "it has nothing yet")
        try fill(bench)
        #expect(bench.primary.joinMove(now: bench.now))
        _ = bench.take()
        #expect(bench.primary.movePhase == .ready, "there was nothing to wait for")
        #expect(bench.primary.abandonMove(now: bench.now) == nil)
        _ = bench.write(7)
        // Two of the old set, of which one is not in the new one; then two of the new one besides.
        #expect(say(bench, [1, 2], through: 1).isEmpty)
        #expect(say(bench, [Self.target], through: 1) == [7])
        _ = bench.write(8)
        #expect(say(bench, [1, Self.target], through: 2).isEmpty)
        #expect(say(bench, [0], through: 2) == [8])
    }

    @Test("A move is ready when W of the new set have, durably, what came before it joined")
    func join_waitsForTheNewSet() throws {
        let bench = try Bench()
        try bench.serve()
        begin(bench)
        try fill(bench)
        _ = bench.write(7)
        #expect(say(bench, [1, 2], through: 1) == [7])
        #expect(bench.primary.joinMove(now: bench.now))
        #expect(bench.primary.movePhase == .joining)
        #expect(bodies(bench.take(), to: Self.target).contains(.flush(through: 1)))
        bench.say(Self.target, .progress(applied: 1, durable: 0))
        #expect(bench.primary.movePhase == .joining)
        bench.say(Self.target, .progress(applied: 1, durable: 1))
        #expect(bench.primary.movePhase == .ready)
    }

    @Test("When it is over the one that is left counts no more, and its slot is the next one's")
    func finish_leavesTheOldSet() throws {
        let bench = try Bench(localSlot: 2)
        try bench.serve()
        begin(bench)
        try fill(bench)
        bench.primary.joinMove(now: bench.now)
        #expect(bench.primary.finishMove(now: bench.now) == 2)
        #expect(bench.primary.movePhase == nil)
        #expect(bench.primary.peerSummaries.map(\.instance.rawValue) == [100, 101, 103])
        _ = bench.take()
        let sent = bench.write(7)
        #expect(bodies(sent, to: 2).isEmpty)
        #expect(say(bench, [1, Self.target], through: 1) == [7])
        bench.say(2, .progress(applied: 1, durable: 1))
        #expect(bench.primary.ignoredCount > 0, "nobody is there")
        let next = bench.primary.beginMove(
            of: Self.target,
            to: ReplicaInstance(500),
            isLocal: false,
            now: bench.now
        )
        #expect(next == 2)
    }

    @Test("A move that is given up leaves everything as it was")
    func abandon_keepsTheOldSet() throws {
        let bench = try Bench()
        try bench.serve()
        begin(bench)
        try fill(bench)
        #expect(bench.primary.abandonMove(now: bench.now) == Self.target)
        #expect(bench.primary.movePhase == nil)
        _ = bench.take()
        #expect(bodies(bench.write(7), to: Self.target).isEmpty)
        #expect(say(bench, [1, 2], through: 1) == [7])
    }

    @Test("A takeover hears the replicas that count, not the one that is being filled")
    func takeover_ignoresLearner() throws {
        let bench = try Bench()
        begin(bench)
        let ahead = try bench.sealed(Self.target, applied: 99, committed: 10)
        bench.say(Self.target, ahead)
        bench.say(0, try bench.sealed(0))
        #expect(bench.primary.state == .sealing, "one of three that count")
        let actions = bench.say(1, try bench.sealed(1))
        #expect(lineage(actions, to: 0)?.base.counter == 10)
    }

    @Test("Reads are shown while W of both sets grant them")
    func joined_grantsOfBothSets() throws {
        var bench = try Bench()
        try bench.serve()
        begin(bench)
        try fill(bench)
        bench.primary.joinMove(now: bench.now)
        _ = bench.wait(milliseconds: 1000)
        for slot in [1, 2] { bench.say(slot, .granted(sentAt: bench.now)) }
        let isTaken = bench.primary.submitRead(
            token: 7,
            range: BlockRange(first: 0, count: 1),
            now: bench.now
        )
        #expect(isTaken)
        var shown: [UInt64] = []
        for case .send(let slot, let message) in bench.take() {
            guard case .read(let token, _, _) = message.body else { continue }
            shown += ended(
                bench.say(slot, .readDone(token: token, payload: .zeroes, number: .zero))
            )
        }
        #expect(shown.isEmpty, "of the new set only one grants")
        #expect(ended(bench.say(Self.target, .granted(sentAt: bench.now))) == [7])
    }
}
