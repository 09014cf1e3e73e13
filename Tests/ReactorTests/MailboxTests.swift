import BlockCore
import Reactor
import StorageIO
import Testing

/// What the senders below send: who, and which of theirs.
private struct Message: BitwiseCopyable, Sendable {
    var sender: UInt32
    var number: UInt32
}

@Suite struct MailboxTests {
    @Test("A full mailbox refuses, an empty one yields nothing, order is kept", arguments: engines)
    func mailbox_limits(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let mailbox = Mailbox<UInt64>(capacityMin: 3, waker: harness.reactor.waker)
        #expect(mailbox.capacity == 4)
        for lap in UInt64(0)..<10 {
            #expect(mailbox.receive() == nil)
            for number in UInt64(0)..<4 { #expect(mailbox.send(lap * 4 + number)) }
            #expect(!mailbox.send(99))
            for number in UInt64(0)..<4 { #expect(mailbox.receive() == lap * 4 + number) }
        }
    }

    @Test("A wake before the turn makes the turn return at once", arguments: engines)
    func wake_beforeTurn_isNotLost(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        for _ in 0..<1000 {
            harness.reactor.waker.wake()
            // Would wait for ever if the wake were lost.
            harness.turn(nil)
        }
        #expect(harness.reactor.counters.turnCount == 1000)
    }

    @Test(
        "A million messages from three threads arrive once, in order, waking a sleeper",
        arguments: engines
    )
    func send_million_allArriveInOrder(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        // Small, so that both "full" and "empty and asleep" happen all the time.
        let mailbox = Mailbox<Message>(capacityMin: 64, waker: harness.reactor.waker)
        let senderCount = 3
        let perSender: UInt32 = 333_334
        var threads: [JoinOnce] = []
        for sender in 0..<UInt32(senderCount) {
            threads.append(
                JoinOnce(
                    try ReactorThread.start(name: "sender \(sender)") {
                        for number in 0..<perSender {
                            let message = Message(sender: sender, number: number)
                            while !mailbox.send(message) { yieldThread() }
                        }
                    }
                )
            )
        }
        var next = [UInt32](repeating: 0, count: senderCount)
        var isInOrder = true
        let end = MonotonicClock.now().advanced(byNanoseconds: 4 * Harness.limitNanoseconds)
        while next.contains(where: { $0 < perSender }) && MonotonicClock.now() < end {
            // No deadline of its own would hide a lost wake-up; this one is an hour away.
            _ = harness.reactor.turn(deadline: end)
            while let message = mailbox.receive() {
                isInOrder = isInOrder && message.number == next[Int(message.sender)]
                next[Int(message.sender)] += 1
            }
        }
        #expect(isInOrder)
        #expect(next == [perSender, perSender, perSender])
        #expect(harness.reactor.counters.sleepCount > 0)
        for thread in threads { thread.join() }
    }

    @Test("Two reactors play ping-pong, each sleeping while the other works", arguments: engines)
    func pingPong_neverHangs(_ engine: EngineChoice) throws {
        let ours = try Harness(engine)
        var options = ReactorOptions()
        options.engine = engine
        options.operationCountMax = 16
        let handover = Handover(try Reactor(options: options))
        let toUs = Mailbox<UInt64>(capacityMin: 2, waker: ours.reactor.waker)
        let toThem = Mailbox<UInt64>(capacityMin: 2, waker: handover.reactor.waker)
        let rounds: UInt64 = 20_000
        let thread = try ReactorThread.start(name: "pong") {
            var expected: UInt64 = 0
            while expected < rounds {
                _ = handover.reactor.turn(deadline: nil)
                while let ball = toThem.receive() {
                    expected = ball + 1
                    _ = toUs.send(ball)
                }
            }
        }
        var back: UInt64 = 0
        let end = MonotonicClock.now().advanced(byNanoseconds: Harness.limitNanoseconds)
        _ = toThem.send(0)
        while back < rounds && MonotonicClock.now() < end {
            _ = ours.reactor.turn(deadline: end)
            while let ball = toUs.receive() {
                #expect(ball == back)
                back += 1
                if back < rounds { _ = toThem.send(back) }
            }
        }
        #expect(back == rounds)
        if back == rounds { thread.join() }
    }
}

/// A reactor on its way to its thread; nobody else turns it.
private final class Handover: @unchecked Sendable {
    // SAFETY: created here, used by the one thread that is started with it; the waker is
    // Sendable.
    let reactor: Reactor

    init(_ reactor: Reactor) { self.reactor = reactor }
}
