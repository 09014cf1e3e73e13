import BlockCore
import Replication
import Testing

/// The token of the read that a replica is asked for.
private func readToken(_ actions: [PrimaryAction], to slot: Int) -> UInt64? {
    for body in bodies(actions, to: slot) {
        if case .read(let token, _, _) = body { return token }
    }
    return nil
}

private func released(_ actions: [PrimaryAction]) -> [PayloadID] {
    actions.compactMap { if case .release(let payload) = $0 { payload } else { nil } }
}

private func done(
    _ token: UInt64,
    payload: UInt64,
    number: WriteNumber = .zero
) -> ReplicaMessage.Body {
    .readDone(token: token, payload: PayloadID(payload), number: number)
}

@Suite("Reads of a primary") struct PrimaryReadTests {
    private let range = BlockRange(first: 0, count: 1)

    /// A primary that serves, with grants, on the node of replica 1.
    private func serving(
        replicas: Int = 3,
        quorum: Int = 2,
        change: (inout ReplicationPolicy) -> Void = { _ in }
    ) throws -> PrimaryBench {
        let bench = try PrimaryBench(
            replicas: replicas,
            quorum: quorum,
            localSlot: 1,
            change: change
        )
        try bench.serve()
        for slot in 0..<replicas { bench.say(slot, .granted(sentAt: bench.now)) }
        return bench
    }

    private func read(_ bench: PrimaryBench, _ token: UInt64) -> [PrimaryAction] {
        #expect(bench.primary.submitRead(token: token, range: range, now: bench.now))
        return bench.take()
    }

    @Test("A read that is late is sent to another one too, and the first answer counts")
    func read_late_isHedged() throws {
        var bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let due = bench.primary.onTick(now: bench.now)
        #expect(due == bench.now.advanced(byNanoseconds: 20_000_000))
        #expect(readToken(bench.wait(milliseconds: 19), to: 0) == nil)
        let actions = bench.wait(milliseconds: 1)
        #expect(readToken(actions, to: 1) == nil)
        let hedge = try #require(readToken(actions, to: 0))
        #expect(readToken(actions, to: 2) == nil)
        #expect(ended(bench.say(0, done(hedge, payload: 20))) == [1])
        #expect(bench.say(1, done(first, payload: 21)) == [.release(PayloadID(21))])
        _ = bench.wait(milliseconds: 20)
        #expect(bench.primary.onTick(now: bench.now) == nil)
    }

    @Test("The one that was asked first may answer first, late as it is")
    func read_hedged_takesTheFirstAnswer() throws {
        var bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let hedge = try #require(readToken(bench.wait(milliseconds: 20), to: 0))
        let actions = bench.say(1, done(first, payload: 21))
        #expect(actions == [.complete(token: 1, .read(PayloadID(21)))])
        #expect(released(bench.say(0, done(hedge, payload: 20))) == [PayloadID(20)])
    }

    @Test("Two that hang delay a read twice")
    func read_lateTwice_isSentToAThird() throws {
        var bench = try serving(replicas: 5, quorum: 3)
        _ = read(bench, 1)
        #expect(readToken(bench.wait(milliseconds: 20), to: 0) != nil)
        let third = try #require(readToken(bench.wait(milliseconds: 20), to: 2))
        #expect(ended(bench.say(2, done(third, payload: 20))) == [1])
    }

    @Test("Who is late is not asked first until it has answered")
    func read_afterALateOne_goesElsewhere() throws {
        var bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let hedge = try #require(readToken(bench.wait(milliseconds: 20), to: 0))
        bench.say(0, done(hedge, payload: 20))
        #expect(readToken(read(bench, 2), to: 0) != nil)
        bench.say(1, done(first, payload: 21))
        #expect(readToken(read(bench, 3), to: 1) != nil)
    }

    @Test("A read is not sent to others when that is not wanted")
    func read_lateWithoutHedges_waits() throws {
        var bench = try serving { $0.hedgeNanoseconds = 0 }
        _ = read(bench, 1)
        let actions = bench.wait(milliseconds: 100)
        #expect(readToken(actions, to: 0) == nil)
        #expect(readToken(actions, to: 2) == nil)
    }

    @Test("A read is asked for anew when nobody is left who could answer")
    func read_refusedByAll_isAskedAnew() throws {
        var bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let hedge = try #require(readToken(bench.wait(milliseconds: 20), to: 0))
        #expect(bench.say(0, .readRefused(token: hedge)).isEmpty)
        let again = try #require(readToken(bench.say(1, .readRefused(token: first)), to: 1))
        #expect(again != first)
        // What answers the try before is ignored, and nothing is lost.
        #expect(bench.say(1, done(first, payload: 30)) == [.release(PayloadID(30))])
        #expect(ended(bench.say(1, done(again, payload: 31))) == [1])
    }

    @Test("A link that breaks takes with it what was asked over it, and no more")
    func read_linkLost_isAskedAnew() throws {
        var bench = try serving()
        _ = read(bench, 1)
        _ = read(bench, 2)
        let hedges = bench.wait(milliseconds: 20)
        #expect(bodies(hedges, to: 0).count { if case .read = $0 { true } else { false } } == 2)
        bench.primary.onLinkClosed(slot: 1, now: bench.now)
        #expect(bench.take().isEmpty)
        bench.primary.onLinkClosed(slot: 0, now: bench.now)
        let anew = bodies(bench.take(), to: 2)
        #expect(anew.count { if case .read = $0 { true } else { false } } == 2)
    }

    @Test("An answer that cannot be is asked for again")
    func read_absurdAnswer_isAskedAnew() throws {
        let bench = try serving()
        let token = try #require(readToken(read(bench, 1), to: 1))
        let far = WriteNumber(rawValue: .max)
        let actions = bench.say(1, done(token, payload: 40, number: far))
        #expect(released(actions) == [PayloadID(40)])
        #expect(readToken(actions, to: 1) != nil)
    }

    @Test("At the end every payload is given back, once")
    func stop_withPayloads_givesAllBack() throws {
        let bench = try serving()
        // One in the window, and, as the window has 8 places, two that wait for a number.
        for token in 1...10 as ClosedRange<UInt64> { _ = bench.write(10 + token) }
        // One that was read and may not be shown, one that nobody answers.
        let number = WriteNumber(epoch: PrimaryBench.epoch, counter: 3)
        let held = try #require(readToken(read(bench, 31), to: 1))
        #expect(bench.say(1, done(held, payload: 50, number: number)).isEmpty)
        let open = try #require(readToken(read(bench, 32), to: 1))
        bench.primary.close(now: bench.now)
        let actions = bench.take()
        let expected = (11...20).map { PayloadID($0) } + [PayloadID(50)]
        #expect(released(actions).map(\.rawValue).sorted() == expected.map(\.rawValue))
        #expect(ended(actions).sorted() == (11...20) + [31, 32])
        // What still comes is given back too.
        #expect(bench.say(1, done(open, payload: 51)) == [.release(PayloadID(51))])
        let fetched = ReplicaMessage.Body.fetched(
            token: 1,
            payload: PayloadID(52),
            number: .zero
        )
        #expect(bench.say(0, fetched) == [.release(PayloadID(52))])
        #expect(bench.say(0, .completed).isEmpty)
    }

    @Test("Payloads of what is ignored are given back", arguments: [(5, 2), (4, 1)])
    func answer_ignored_givesItsPayloadBack(epoch: UInt64, life: UInt64) throws {
        let bench = try serving()
        let epoch = Epoch(epoch)
        let token = try #require(readToken(read(bench, 1), to: 1))
        let answer = done(token, payload: 60)
        #expect(bench.say(1, answer, epoch: epoch, life: life) == [.release(PayloadID(60))])
        let fetched = ReplicaMessage.Body.fetched(
            token: 1,
            payload: PayloadID(61),
            number: .zero
        )
        #expect(bench.say(0, fetched, epoch: epoch, life: life) == [.release(PayloadID(61))])
        #expect(bench.say(0, fetched) == [.release(PayloadID(61))])
        #expect(bench.say(0, done(7, payload: 0)).isEmpty)
        #expect(bench.say(0, done(7, payload: 1)).isEmpty)
    }

    // MARK: - Damage

    private func fetch(_ actions: [PrimaryAction], to slot: Int) -> UInt64? {
        for body in bodies(actions, to: slot) {
            if case .fetch(let token, _, _) = body { return token }
        }
        return nil
    }

    @Test("What is damaged in one replica is read from another, and repaired from it")
    func read_damaged_isReadElsewhereAndRepaired() throws {
        let bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let actions = bench.say(1, .readFailed(token: first, block: 0))
        let second = try #require(readToken(actions, to: 0))
        let fetched = try #require(fetch(actions, to: 0))
        #expect(ended(bench.say(0, done(second, payload: 70))) == [1])
        // While it is being repaired another read finds it damaged: that is enough.
        let again = try #require(readToken(read(bench, 2), to: 1))
        #expect(fetch(bench.say(1, .readFailed(token: again, block: 0)), to: 0) == nil)
        let number = WriteNumber(epoch: Epoch(3), counter: 9)
        let payload = PayloadID(71)
        let answer = ReplicaMessage.Body.fetched(token: fetched, payload: payload, number: number)
        let repair = bench.say(0, answer)
        #expect(bodies(repair, to: 1) == [.repair(block: 0, number: number, payload: payload)])
        #expect(repair.last == .release(payload))
    }

    @Test("Damage is repaired also when another replica has answered the read before it was told")
    func read_damagedLate_isRepaired() throws {
        var bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        let second = try #require(readToken(bench.wait(milliseconds: 20), to: 0))
        #expect(ended(bench.say(0, done(second, payload: 70))) == [1])
        #expect(fetch(bench.say(1, .readFailed(token: first, block: 0)), to: 0) != nil)
        let far = bench.say(1, .readFailed(token: first, block: .max))
        #expect(far.isEmpty && bench.primary.ignoredCount > 0)
    }

    @Test("Who has a damaged block is not asked for it again, and holds up no other read")
    func read_damaged_waitsForOthers() throws {
        let bench = try serving()
        let first = try #require(readToken(read(bench, 1), to: 1))
        for slot in [0, 2] { bench.primary.onLinkClosed(slot: slot, now: bench.now) }
        _ = bench.take()
        let actions = bench.say(1, .readFailed(token: first, block: 0))
        #expect(actions.isEmpty)
        let other = try #require(readToken(read(bench, 2), to: 1))
        #expect(bodies(bench.take(), to: 1).isEmpty)
        #expect(ended(bench.say(1, done(other, payload: 72))) == [2])
    }

    @Test("What is damaged in all replicas is a client's to know")
    func read_damagedEverywhere_ends() throws {
        var bench = try serving()
        var actions = read(bench, 1)
        // Twice: it may be repaired, or written, after it was asked for.
        for round in 0..<2 {
            for slot in [1, 0, 2] {
                #expect(ended(actions) == [])
                let token = try #require(readToken(actions, to: slot))
                actions = bench.say(slot, .readFailed(token: token, block: 0))
            }
            if round == 0 {
                #expect(readToken(bench.wait(milliseconds: 99), to: 1) == nil)
                actions = bench.wait(milliseconds: 1)
            }
        }
        #expect(actions.contains(.complete(token: 1, .damaged)))
    }
}
