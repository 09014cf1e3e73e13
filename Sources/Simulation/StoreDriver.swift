// What a reactor is to a store: it carries out device requests, hands their ends back, keeps the
// clock, and calls at the end of each turn. Here all of that follows from a seed.

import BlockCore
import LogStore
import StorageIO

/// A store on a simulated device, with simulated time.
final class StoreDriver {
    /// Why a turn's owner must stop and look.
    enum Event {
        /// Nothing special.
        case ran
        /// The device request at which to crash was just submitted.
        case crashDue
        /// Nothing is under way and nothing will happen by itself.
        case quiet
    }

    let device: SimulatedDevice
    private(set) var store: LogStore
    /// Simulated time, in nanoseconds.
    private(set) var nowNanoseconds: UInt64 = 1_000_000
    /// The device request at which ``turn(untilNanoseconds:_:)`` stops.
    var crashAt: UInt64?
    /// A bug that every life of the store has.
    var defect: StoreDefect?

    private let scenario: StoreScenario
    private var random: SeededRandom
    private var deadlineNanoseconds: UInt64?
    private var quietTurnCount = 0

    init(scenario: StoreScenario, device: SimulatedDevice, random: SeededRandom) {
        self.scenario = scenario
        self.device = device
        self.random = random
        store = LogStore(configuration: scenario.configuration, geometry: device.geometry)
    }

    var now: Instant { Instant(nanoseconds: nowNanoseconds) }

    /// Replaces the store by a new one that reads what the device holds.
    ///
    /// - Precondition: nothing of the old store is in flight: it closed, or ``crash(_:)`` ended it.
    func open() {
        store = LogStore(configuration: scenario.configuration, geometry: device.geometry)
        store.defect = defect
        deadlineNanoseconds = nil
        quietTurnCount = 0
        store.open(identity: nil, now: now)
    }

    /// Kills the store; the device decides what is left.
    func crash(_ kind: CrashKind) {
        device.crash(kind)
        nowNanoseconds += 1_000_000
    }

    /// One turn of the owner's loop: some device ends, the end of the turn, and time.
    ///
    /// - Parameters:
    ///   - limit: Time goes no further than this, when the caller has something to do then.
    ///   - onCompletion: Takes the ends of requests; the data of a read is valid only there.
    /// - Returns: Why the caller should look, if there is a reason.
    func turn(
        untilNanoseconds limit: UInt64?,
        _ onCompletion: (StoreCompletion) -> Void
    ) -> Event {
        if drain(onCompletion) { return .crashDue }
        for _ in 0..<random.within(1...8) {
            guard let end = device.takeEnd(nowNanoseconds: nowNanoseconds) else { break }
            store.onDeviceCompletion(end, now: now)
            if drain(onCompletion) { return .crashDue }
        }
        let deadline = store.onTurn(now: now)
        if drain(onCompletion) { return .crashDue }
        return advance(to: deadline, limit: limit)
    }

    /// Moves time to whatever comes next.
    private func advance(to deadline: Instant?, limit: UInt64?) -> Event {
        var next = device.nextEndNanoseconds
        if let deadline { next = min(next ?? .max, deadline.nanoseconds) }
        if let limit { next = min(next ?? .max, limit) }
        guard let next else {
            // One more turn may still find something that the last one made possible.
            quietTurnCount += 1
            nowNanoseconds += 1000
            return quietTurnCount > 3 ? .quiet : .ran
        }
        quietTurnCount = 0
        // A turn takes time, however little there was to do.
        nowNanoseconds = max(nowNanoseconds + 1000, next)
        return .ran
    }

    /// Takes everything that the store has to say.
    ///
    /// - Returns: Whether the device request at which to crash was reached; what the store said
    ///   after it is lost.
    private func drain(_ onCompletion: (StoreCompletion) -> Void) -> Bool {
        while let completion = store.completions.popFirst() { onCompletion(completion) }
        while let request = store.deviceRequests.popFirst() {
            device.submit(request, nowNanoseconds: nowNanoseconds)
            if let crashAt, device.requestCount >= crashAt { return true }
        }
        return false
    }
}
