import BlockCore
import Replication
import Testing

private typealias Bench = PrimaryBench

/// Replicas with blocks and no network, for what takes many messages.
private final class Cluster {
    let bench: Bench
    /// The number of each block's copy, by slot.
    var blocks: [[UInt64: WriteNumber]]
    var applied: [UInt64]
    var isComplete: [Bool]
    /// Who answers; what is sent to others is lost.
    var present: Set<Int>
    private var messageCount = 0

    init(_ bench: Bench, blocks: [[UInt64: WriteNumber]], isComplete: [Bool], present: Set<Int>) {
        self.bench = bench
        self.blocks = blocks
        self.isComplete = isComplete
        self.present = present
        applied = blocks.map { _ in 0 }
    }

    /// Lets everybody answer until nobody has anything more to say, for some ticks.
    func settle(_ first: [PrimaryAction], messageCountMax: Int = 20_000) {
        var queue = first[...]
        for _ in 0..<8 {
            while let action = queue.popFirst(), messageCount < messageCountMax {
                guard case .send(let slot, let message) = action, present.contains(slot) else {
                    continue
                }
                messageCount += 1
                if let body = answer(slot, message.body) { queue += bench.say(slot, body) }
            }
            bench.primary.onTick(now: bench.now)
            queue += bench.take()
        }
    }

    private func answer(_ slot: Int, _ body: PrimaryMessage.Body) -> ReplicaMessage.Body? {
        switch body {
        case .open(let lineage, let start):
            let isExact = isComplete[slot] && lineage.base.counter == 10 && start == 1
            isComplete[slot] = isExact
            applied[slot] = start - 1
            return .opened(isComplete: isExact, applied: start - 1, durable: start - 1)
        case .write(let number, let range, _):
            take(slot, range.first, number)
            applied[slot] = number.counter
            return .progress(applied: number.counter, durable: number.counter)
        case .flush: return .progress(applied: applied[slot], durable: applied[slot])
        case .complete:
            isComplete[slot] = true
            return .completed
        case .scan(let token, _, let above, let from):
            let found = blocks[slot].filter { $0.key >= from && $0.value > above }
                .map { ScanEntry(block: $0.key, number: $0.value) }.sorted { $0.block < $1.block }
            return .scanned(token: token, entries: found, next: nil)
        case .fetch(let token, _, let block):
            let number = blocks[slot][block, default: .zero]
            return .fetched(token: token, payload: PayloadID(block + 1), number: number)
        case .fill(let token, let block, let number, _):
            take(slot, block, number)
            return .filled(token: token)
        default: return nil
        }
    }

    private func take(_ slot: Int, _ block: UInt64, _ number: WriteNumber) {
        blocks[slot][block] = max(blocks[slot][block, default: .zero], number)
    }
}

@Suite("Primary: takeover") struct PrimaryTakeoverTests {
    @Test("The source is who has the most of N − W + 1 that remember")
    func seal_enoughAnswers_choosesTheGreatest() throws {
        let bench = try Bench()
        #expect(bench.say(0, try bench.sealed(0, applied: 12)).isEmpty)
        let actions = bench.say(1, try bench.sealed(1, applied: 14))
        #expect(lineage(actions, to: 0)?.base == WriteNumber(epoch: Epoch(3), counter: 14))
        #expect(bench.primary.state == .renewing)
    }

    @Test("A later epoch is more than a greater counter")
    func seal_laterEpoch_isTheSource() throws {
        let bench = try Bench()
        bench.say(0, try bench.sealed(0, accepted: 3, applied: 900))
        let actions = bench.say(1, try bench.sealed(1, accepted: 4, applied: 0, committed: 0))
        #expect(lineage(actions, to: 0)?.base == WriteNumber(epoch: Epoch(4), counter: 0))
    }

    @Test("A replica that is not complete counts with what it has for certain")
    func seal_incomplete_countsWithItsCommonPoint() throws {
        let bench = try Bench()
        let behind = WriteNumber(epoch: Epoch(2), counter: 4)
        let status = try bench.sealed(0, accepted: 4, applied: 50) {
            $0.isComplete = false
            $0.common = behind
        }
        bench.say(0, status)
        let actions = bench.say(1, try bench.sealed(1, accepted: 3, applied: 7))
        #expect(lineage(actions, to: 1)?.base == WriteNumber(epoch: Epoch(3), counter: 7))
    }

    @Test("Who forgot counts only when there is nobody else to ask, or for long nobody came")
    func seal_forgetful_waits() throws {
        var bench = try Bench()
        bench.say(0, try bench.sealed(0) { $0.remembers = false })
        bench.say(1, try bench.sealed(1))
        #expect(bench.primary.state == .sealing)
        bench.now = bench.now.advanced(byNanoseconds: bench.policy.amnesiaNanoseconds)
        bench.primary.onTick(now: bench.now)
        #expect(bench.primary.state == .renewing)

        let other = try Bench()
        for slot in 0..<3 { other.say(slot, try other.sealed(slot) { $0.remembers = false }) }
        #expect(other.primary.state == .renewing)
    }

    @Test("Who replaced a lost replica never counts before it was filled")
    func seal_blank_doesNotCount() throws {
        var bench = try Bench()
        let blank = try bench.sealed(0) {
            $0.isBlank = true
            $0.isComplete = false
        }
        bench.say(0, blank)
        bench.say(1, try bench.sealed(1))
        bench.now = bench.now.advanced(byNanoseconds: bench.policy.amnesiaNanoseconds * 2)
        bench.primary.onTick(now: bench.now)
        #expect(bench.primary.state == .sealing)
        bench.say(2, try bench.sealed(2))
        #expect(bench.primary.state == .renewing)
    }

    @Test("The tail is written again before anybody is served")
    func tail_ofTheSource_isRenewed() throws {
        let bench = try Bench()
        bench.say(0, try bench.sealed(0, applied: 11, committed: 10))
        bench.say(1, try bench.sealed(1, applied: 10, committed: 10))
        var actions = bench.say(0, .opened(isComplete: true, applied: 0, durable: 0))
        guard case .scan(let token, _, let above, _) = bodies(actions, to: 0).first else {
            Issue.record("no scan: \(actions)")
            return
        }
        #expect(above == WriteNumber(epoch: Epoch(3), counter: 10))
        let entry = ScanEntry(block: 8, number: WriteNumber(epoch: Epoch(3), counter: 11))
        actions = bench.say(0, .scanned(token: token, entries: [entry], next: nil))
        guard case .fetch(let fetch, _, 8) = bodies(actions, to: 0).first else {
            Issue.record("no fetch: \(actions)")
            return
        }
        let payload = PayloadID(77)
        actions = bench.say(0, .fetched(token: fetch, payload: payload, number: entry.number))
        let number = WriteNumber(epoch: Bench.epoch, counter: 1)
        let range = BlockRange(first: 8, count: 1)
        let renewal = PrimaryMessage.Body.write(number: number, range: range, payload: payload)
        #expect(bodies(actions, to: 0).contains(renewal))
        bench.say(0, .progress(applied: 1, durable: 0))
        #expect(!bench.primary.isServing)
        bench.say(1, .opened(isComplete: false, applied: 0, durable: 0))
        actions = bench.say(1, .progress(applied: 1, durable: 0))
        #expect(bodies(actions, to: 1).contains(.complete(Incarnation(1))))
        #expect(!bench.primary.isServing)
        bench.say(1, .completed)
        #expect(bench.primary.isServing)
    }

    @Test("When nobody knows what is committed, the tail is what the others lack")
    func tail_committedUnknown_isWhatOthersLack() throws {
        let bench = try Bench()
        bench.say(0, try bench.sealed(0, applied: 11, committed: nil) { $0.remembers = false })
        bench.say(1, try bench.sealed(1, applied: 8, committed: nil) { $0.remembers = false })
        bench.say(2, try bench.sealed(2, accepted: 2, applied: 5, committed: nil))
        #expect(bench.primary.state == .renewing)
        let actions = bench.say(0, .opened(isComplete: true, applied: 0, durable: 0))
        guard case .scan(_, _, let above, _) = bodies(actions, to: 0).first else {
            Issue.record("no scan: \(actions)")
            return
        }
        #expect(above == WriteNumber(epoch: Epoch(3), counter: 8))
    }

    @Test("What any replica knows to be committed is not written again")
    func tail_committedKnownElsewhere_beginsThere() throws {
        let bench = try Bench()
        bench.say(0, try bench.sealed(0, applied: 11, committed: nil) { $0.remembers = false })
        bench.say(1, try bench.sealed(1, applied: 10, committed: 6))
        bench.say(2, try bench.sealed(2, applied: 7, committed: nil))
        let actions = bench.say(0, .opened(isComplete: true, applied: 0, durable: 0))
        guard case .scan(_, _, let above, _) = bodies(actions, to: 0).first else {
            Issue.record("no scan: \(actions)")
            return
        }
        #expect(above == WriteNumber(epoch: Epoch(3), counter: 6))
    }

    @Test("A tail that is larger than the window is written again all the same")
    func tail_largerThanTheWindow_isRenewed() throws {
        let bench = try Bench(windowByteCount: 64 << 10)
        // Nobody is complete, so the source is not, and what it has above its end is the tail.
        let end = WriteNumber(epoch: Epoch(3), counter: 10)
        let tail = WriteNumber(epoch: Epoch(4), counter: 1)
        let blocks = Dictionary(uniqueKeysWithValues: (0..<200).map { (UInt64($0), tail) })
        let cluster = Cluster(
            bench,
            blocks: [blocks, [:], [:]],
            isComplete: [false, false, false],
            present: [0, 1]
        )
        var actions: [PrimaryAction] = []
        for slot in 0..<2 {
            let status = try bench.sealed(slot, accepted: 4, applied: 200, committed: 0) {
                $0.isComplete = false
                $0.common = end
            }
            actions += bench.say(slot, status)
        }
        cluster.settle(actions)
        #expect(bench.primary.isServing)
        #expect(bench.primary.committed == 200)
        #expect(cluster.blocks[0] == cluster.blocks[1])
    }

    @Test("Strays that are more than the window has room for are overwritten all the same")
    func strays_moreThanTheWindow_areRewritten() throws {
        let bench = try Bench(replicas: 2, quorum: 2, windowByteCount: 64 << 10)
        // Replica 1 has writes of epoch 4 that replica 0, complete in epoch 3, never saw.
        let stray = WriteNumber(epoch: Epoch(4), counter: 1)
        let strays = Dictionary(uniqueKeysWithValues: (0..<200).map { (UInt64($0), stray) })
        let cluster = Cluster(
            bench,
            blocks: [[:], strays],
            isComplete: [true, false],
            present: [0]
        )
        cluster.settle(bench.say(0, try bench.sealed(0)))
        cluster.present = [0, 1]
        let status = try bench.sealed(1, accepted: 4, applied: 200, committed: 0) {
            $0.isComplete = false
            $0.common = WriteNumber(epoch: Epoch(3), counter: 10)
        }
        cluster.settle(bench.say(1, status))
        #expect(bench.primary.isServing)
        #expect(cluster.blocks[0] == cluster.blocks[1])
        #expect(cluster.blocks[0].values.allSatisfy { $0.epoch == Bench.epoch })
    }

    @Test("A source that is lost before its tail is safe ends the epoch")
    func source_lostEarly_endsTheEpoch() throws {
        let bench = try Bench()
        bench.say(0, try bench.sealed(0, applied: 11))
        bench.say(1, try bench.sealed(1, applied: 10))
        bench.primary.onLinkClosed(slot: 0, now: bench.now)
        #expect(bench.take().contains(.stopped(.sourceLost)))
    }
}

@Suite("Primary: serving") struct PrimaryServingTests {
    @Test("A write is acknowledged when W replicas have it, a forced one when it is durable there")
    func write_onWReplicas_isAcknowledged() throws {
        let bench = try Bench()
        try bench.serve()
        let first = bench.write(1)
        for slot in 0..<3 { #expect(bodies(first, to: slot).count == 1) }
        for token in 2...4 as ClosedRange<UInt64> { _ = bench.write(token, isForced: token == 4) }
        #expect(ended(bench.say(0, .progress(applied: 4, durable: 0))) == [])
        #expect(ended(bench.say(1, .progress(applied: 2, durable: 0))) == [1, 2])
        #expect(ended(bench.say(2, .progress(applied: 4, durable: 4))) == [3])
        #expect(ended(bench.say(0, .progress(applied: 4, durable: 4))) == [4])
    }

    @Test(
        "What a replica did not answer for holds back less than a group, until the answer",
        arguments: [false, true]
    )
    func write_unanswered_waitsForCompany(isWritethrough: Bool) throws {
        let bench = try Bench {
            $0.isWritethrough = isWritethrough
            $0.windowCountMax = 64
            $0.gatheredBlockCount = 4
        }
        try bench.serve()
        func counters(_ actions: [PrimaryAction], to slot: Int) -> [UInt64] {
            bodies(actions, to: slot).compactMap {
                if case .write(let number, _, _) = $0 { number.counter } else { nil }
            }
        }
        func answer(_ slot: Int, _ counter: UInt64) -> [PrimaryAction] {
            bench.say(slot, .progress(applied: counter, durable: isWritethrough ? counter : 0))
        }
        #expect(counters(bench.write(1), to: 0) == [1])
        #expect(counters(bench.write(2), to: 0) == [])
        // The answer of one is for that one alone.
        let answered = answer(0, 1)
        #expect(counters(answered, to: 0) == [2])
        #expect(counters(answered, to: 1) == [])
        for token in 3...4 as ClosedRange<UInt64> {
            #expect(counters(bench.write(token), to: 1) == [])
        }
        // A group does not wait.
        let full = bench.write(5)
        #expect(counters(full, to: 0) == [])
        #expect(counters(full, to: 1) == [2, 3, 4, 5])
        #expect(counters(answer(0, 2), to: 0) == [3, 4, 5])
    }

    @Test("A flush is acknowledged when everything before it is durable on W")
    func flush_afterWrites_waitsForDurability() throws {
        let bench = try Bench()
        try bench.serve()
        _ = bench.write(1)
        #expect(bench.primary.submitFlush(token: 2, now: bench.now))
        #expect(bodies(bench.take(), to: 0) == [.flush(through: 1)])
        #expect(ended(bench.say(0, .progress(applied: 1, durable: 1))) == [])
        #expect(ended(bench.say(1, .progress(applied: 1, durable: 0))) == [1])
        #expect(ended(bench.say(1, .progress(applied: 1, durable: 1))) == [2])
    }

    @Test("A read waits for grants of W, and for what it saw to be committed")
    func read_withoutGrants_waits() throws {
        let bench = try Bench()
        try bench.serve()
        _ = bench.write(1)
        let range = BlockRange(first: 0, count: 1)
        #expect(bench.primary.submitRead(token: 2, range: range, now: bench.now))
        guard case .read(let token, _, 0) = bodies(bench.take(), to: 0).first else {
            Issue.record("no read")
            return
        }
        let seen = WriteNumber(epoch: Bench.epoch, counter: 1)
        #expect(
            ended(bench.say(0, .readDone(token: token, payload: PayloadID(9), number: seen))) == []
        )
        for slot in 0..<2 { bench.say(slot, .granted(sentAt: bench.now)) }
        bench.say(0, .progress(applied: 1, durable: 0))
        #expect(ended(bench.say(1, .progress(applied: 1, durable: 0))) == [1, 2])
    }

    @Test("A grant is believed for less than it is given, from when it was asked for")
    func read_afterTheGrant_waits() throws {
        var bench = try Bench()
        try bench.serve()
        let asked = bench.now
        bench.now = asked.advanced(byNanoseconds: bench.policy.grantNanoseconds / 10 * 9)
        for slot in 0..<3 { bench.say(slot, .granted(sentAt: asked)) }
        let range = BlockRange(first: 0, count: 1)
        #expect(bench.primary.submitRead(token: 2, range: range, now: bench.now))
        guard case .read(let token, _, _) = bodies(bench.take(), to: 0).first else {
            Issue.record("no read")
            return
        }
        let answer = ReplicaMessage.Body.readDone(
            token: token,
            payload: PayloadID(9),
            number: .zero
        )
        #expect(ended(bench.say(0, answer)) == [])
        bench.say(0, .granted(sentAt: bench.now))
        #expect(ended(bench.say(1, .granted(sentAt: bench.now))) == [2])
    }

    @Test("Who is refused by a higher epoch stops, and says of nothing that it failed")
    func refusal_byAHigherEpoch_stops() throws {
        let bench = try Bench()
        try bench.serve()
        _ = bench.write(1)
        let actions = bench.say(2, .refused(promised: Epoch(6)))
        #expect(actions.contains(.complete(token: 1, .unknown)))
        #expect(actions.last == .stopped(.deposed(by: Epoch(6))))
        #expect(bench.say(0, .progress(applied: 1, durable: 1)).isEmpty)
        #expect(!bench.primary.submitFlush(token: 2, now: bench.now))
    }

    @Test("Answers of another epoch, another life, or about what never was are ignored")
    func answer_absurd_isIgnored() throws {
        let bench = try Bench()
        try bench.serve()
        _ = bench.write(1)
        let far = WriteNumber(rawValue: .max)
        let entry = ScanEntry(block: .max, number: far)
        let bodies: [ReplicaMessage.Body] = [
            .progress(applied: 2, durable: 0), .progress(applied: 0, durable: 1),
            .opened(isComplete: true, applied: 9, durable: 0), .completed,
            .readDone(token: .max, payload: .zeroes, number: .zero), .readRefused(token: 3),
            .scanned(token: 1, entries: [entry], next: 0), .scanned(token: 1, entries: [], next: 0),
            .fetched(token: 1, payload: .zeroes, number: far), .filled(token: 1),
            .granted(sentAt: Instant(nanoseconds: .max)), .refused(promised: Epoch(2)),
        ]
        for body in bodies {
            #expect(bench.say(0, body).isEmpty, "\(body)")
            #expect(bench.say(0, body, epoch: Epoch(4)).isEmpty)
            #expect(bench.say(0, body, life: 2).isEmpty)
        }
        #expect(bench.say(0, .progress(applied: 1, durable: 1), life: 2).isEmpty)
        #expect(bench.primary.committed == 0)
        #expect(bench.primary.state == .open)
    }

    @Test("A replica that holds the window up is dropped, and greeted again when it is heard of")
    func window_full_dropsWhoHoldsItUp() throws {
        let bench = try Bench()
        try bench.serve()
        bench.primary.onLinkClosed(slot: 2, now: bench.now)
        for token in 1...UInt64(24) {
            _ = bench.write(token)
            for slot in 0..<2 { bench.say(slot, .progress(applied: token, durable: token)) }
            #expect(bench.primary.committed == token)
        }
        bench.primary.onLinkOpened(slot: 2, now: bench.now)
        _ = bench.take()
        let status = try bench.sealed(2, accepted: 5, applied: 0, committed: 0) { _ in }
        let actions = bench.say(2, status)
        guard case .open(_, let start) = bodies(actions, to: 2).first else {
            Issue.record("not opened: \(actions)")
            return
        }
        #expect(start > 1)
    }

    @Test("A stray is not rewritten from a replica that lacks what the window let go")
    func stray_helperBehindTheWindow_isNotAsked() throws {
        let bench = try Bench(replicas: 5, quorum: 3)
        for slot in 0..<4 { bench.say(slot, try bench.sealed(slot)) }
        for slot in 0..<4 {
            let actions = bench.say(slot, .opened(isComplete: true, applied: 0, durable: 0))
            for case .scan(let token, _, _, _) in bodies(actions, to: 0) {
                bench.say(0, .scanned(token: token, entries: [], next: nil))
            }
        }
        #expect(bench.primary.isServing)
        let status = try bench.sealed(4, accepted: 4, applied: 5, committed: 0) {
            $0.isComplete = false
            $0.common = WriteNumber(epoch: Epoch(3), counter: 10)
        }
        bench.say(4, status)
        let opened = bench.say(4, .opened(isComplete: false, applied: 0, durable: 0))
        guard case .scan(let token, _, _, _) = bodies(opened, to: 4).first else {
            Issue.record("no scan: \(opened)")
            return
        }
        // Replica 0 is sent all this and says nothing; W others have it durable.
        for counter in 1...UInt64(24) {
            _ = bench.write(counter, block: counter)
            for slot in 1..<5 { bench.say(slot, .progress(applied: counter, durable: counter)) }
        }
        #expect(bench.primary.hardened == 24)
        let stray = ScanEntry(block: 1, number: WriteNumber(epoch: Epoch(4), counter: 5))
        let actions = bench.say(4, .scanned(token: token, entries: [stray], next: nil))
        #expect(bodies(actions, to: 0).isEmpty)
        guard case .fetch(_, _, 1) = bodies(actions, to: 1).first else {
            Issue.record("not asked: \(actions)")
            return
        }
    }
}
