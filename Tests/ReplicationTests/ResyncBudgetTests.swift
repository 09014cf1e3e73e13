// What resyncs may have on their way, and that none of it is lost.

import BlockCore
import Replication
import Testing

private typealias Bench = PrimaryBench

/// Docs/replication.md, "Resyncs and clients".
@Suite("Primary: resyncs beside clients") struct ResyncBudgetTests {
    /// Tokens of the blocks that the primary asks a replica for.
    private func fetches(_ actions: [PrimaryAction], from slot: Int) -> [UInt64] {
        bodies(actions, to: slot).compactMap {
            if case .fetch(let token, _, _) = $0 { token } else { nil }
        }
    }

    private func scan(_ actions: [PrimaryAction], of slot: Int) throws -> UInt64 {
        let tokens = bodies(actions, to: slot).compactMap {
            if case .scan(let token, _, _, _) = $0 { token } else { nil }
        }
        return try #require(tokens.first, "\(actions)")
    }

    /// Has the last replica follow, which lacks so many blocks.
    ///
    /// - Returns: What the primary asks the first replica for then.
    private func lack(_ count: UInt64, _ bench: Bench) throws -> [UInt64] {
        let slot = bench.policy.replicaCount - 1
        let status = try bench.sealed(slot, accepted: 4, applied: 5, committed: 0) {
            $0.isComplete = false
            $0.common = WriteNumber(epoch: Epoch(3), counter: 1)
        }
        bench.say(slot, status)
        let opened = bench.say(slot, .opened(isComplete: false, applied: 0, durable: 0))
        let strays = try scan(opened, of: slot)
        bench.say(slot, .scanned(token: strays, entries: [], next: nil))
        bench.primary.onTick(now: bench.now)
        let missing = try scan(bench.take(), of: 0)
        let entries = (1...count).map {
            ScanEntry(block: $0, number: WriteNumber(epoch: Epoch(3), counter: $0 + 1))
        }
        return fetches(bench.say(0, .scanned(token: missing, entries: entries, next: nil)), from: 0)
    }

    /// Takes over with all replicas but the last one.
    private func serveWithoutLast(_ bench: Bench) throws {
        let others = 0..<bench.policy.replicaCount - 1
        for slot in others { bench.say(slot, try bench.sealed(slot)) }
        for slot in others {
            let actions = bench.say(slot, .opened(isComplete: true, applied: 0, durable: 0))
            for case .scan(let token, _, _, _) in bodies(actions, to: 0) {
                bench.say(0, .scanned(token: token, entries: [], next: nil))
            }
        }
        #expect(bench.primary.isServing)
    }

    /// Brings a block that was asked for to the replica that lacks it.
    private func bring(_ token: UInt64, _ bench: Bench) -> [UInt64] {
        let number = WriteNumber(epoch: Epoch(3), counter: 2)
        let fetched = ReplicaMessage.Body.fetched(token: token, payload: .zeroes, number: number)
        bench.say(0, fetched)
        return fetches(
            bench.say(bench.policy.replicaCount - 1, .filled(token: token)),
            from: 0
        )
    }

    @Test("While clients want something few blocks are fetched at a time, otherwise many")
    func fetches_besideClients_areFew() throws {
        let budget = ResyncBudget(countMax: 7, busyCountMax: 2)
        var bench = try Bench(budget: budget)
        try serveWithoutLast(bench)
        _ = bench.write(1)
        var asked = try lack(20, bench)
        #expect(asked.count == 2 && budget.inflightCount == 2)
        for _ in 0..<5 {
            asked += bring(asked.removeFirst(), bench)
            #expect(asked.count == 2 && budget.inflightCount == 2)
        }
        #expect(fetches(bench.wait(milliseconds: 99), from: 0).isEmpty)
        // Nobody has asked for anything for long enough.
        asked += fetches(bench.wait(milliseconds: 1), from: 0)
        #expect(asked.count == 7)
        var broughtCount = 5
        while let next = asked.first {
            asked.removeFirst()
            asked += bring(next, bench)
            broughtCount += 1
        }
        #expect(broughtCount == 20 && budget.inflightCount == 0)
    }

    @Test("Volumes of a thread share what there is, and whoever waits for others hears of room")
    func budget_isShared() throws {
        let budget = ResyncBudget(countMax: 3, busyCountMax: 1)
        let benches = try [Bench(budget: budget), Bench(budget: budget)]
        for bench in benches { try serveWithoutLast(bench) }
        let asked = try lack(3, benches[0])
        #expect(asked.count == 3)
        #expect(try lack(3, benches[1]).isEmpty)
        #expect(!budget.takeWish(now: benches[1].now), "nothing is free")
        #expect(bring(asked[0], benches[0]).isEmpty)
        #expect(budget.takeWish(now: benches[1].now))
        #expect(!budget.takeWish(now: benches[1].now), "told once")
        var other = benches[1]
        withExtendedLifetime(benches) {
            #expect(fetches(other.wait(milliseconds: 1), from: 0).count == 1)
        }
    }

    @Test(
        "What was on its way to a replica that is lost, or for a primary that ends, is free again"
    )
    func budget_isGivenBack() throws {
        let budget = ResyncBudget(countMax: 4, busyCountMax: 4)
        do {
            let bench = try Bench(budget: budget)
            try serveWithoutLast(bench)
            #expect(try lack(9, bench).count == 4)
            bench.primary.onLinkClosed(slot: 2, now: bench.now)
            #expect(budget.inflightCount == 0)
            bench.primary.onLinkOpened(slot: 2, now: bench.now)
            _ = bench.take()
            #expect(try lack(9, bench).count == 4)
            // What was asked of another is asked of the next one: fewer than W are left, and all of it.
            bench.primary.onLinkClosed(slot: 0, now: bench.now)
            _ = bench.take()
            #expect(budget.inflightCount == 9)
            bench.primary.close(now: bench.now)
            #expect(budget.inflightCount == 0)
        }
        do {
            let bench = try Bench(budget: budget)
            try serveWithoutLast(bench)
            #expect(try lack(9, bench).count == 4 && budget.inflightCount == 4)
        }
        #expect(budget.inflightCount == 0, "a primary that was let go keeps nothing")
    }

    @Test("Where fewer than W are complete, clients wait for the blocks: they are not held back")
    func fetches_thatAreWaitedFor_areMany() throws {
        let budget = ResyncBudget(countMax: 2, busyCountMax: 1)
        let bench = try Bench(budget: budget)
        try serveWithoutLast(bench)
        _ = bench.write(1)
        bench.primary.onLinkClosed(slot: 1, now: bench.now)
        _ = bench.take()
        #expect(try lack(20, bench).count == 20)
        #expect(budget.inflightCount == 20)
    }
}
