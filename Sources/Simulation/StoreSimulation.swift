// One run: a store on a bad disk, a workload, an oracle, crashes, and the reckoning at the end.
//
// The run ends at the first thing that is wrong. All chance comes from the seed; dictionaries are
// never walked in their own order where it would show. The same seed gives the same trace hash
// in any process: that is itself a test, and finds hidden clocks, addresses and hash orders in
// the store as well.

import BlockCore
import LogFormat
public import LogStore
import StorageIO

/// How a run ended.
public struct SimulationReport: Sendable, Hashable {
    /// The seed.
    public var seed: UInt64
    /// What was wrong, or nil.
    public var failure: String?
    /// The digest of everything that happened.
    public var traceHash: UInt64
    /// Device requests, over all lives of the store.
    public var deviceRequestCount: UInt64
    /// Crashes.
    public var crashCount: Int
    /// Requests and commands of the workload.
    public var operationCount: Int
    /// Pieces of damage that the device did.
    public var damageCount: Int
    /// Whether damage ended the run early: the store refused to open, as it may.
    public var endedByDamage: Bool
    /// What the store did in the life that ended last.
    public var counters: StoreCounters
}

/// The simulation of one store under one seed.
public final class StoreSimulation {
    let scenario: StoreScenario
    let options: SimulationOptions
    let device: SimulatedDevice
    let driver: StoreDriver
    let oracle: StoreOracle
    let trace: SimulationTrace
    let buffers: ByteRegion
    var random: SeededRandom

    /// The first thing that was wrong.
    var failure: String?
    var requests: [ActiveRequest?]
    var handles: [HandleKey: VolumeHandle] = [:]
    var expectations: [UInt64: StoreCommandError?] = [:]
    var windows: [UInt64: [Window]] = [:]
    var nextToken: UInt64 = 1
    var nextVolume: UInt64 = 1
    var nextName = 1
    var operationCount = 0
    private var turnCount = 0
    var crashCount = 0
    var endedByDamage = false
    var isReckoning = false
    /// The space of the store before anything was written.
    var emptySpace: StoreSpace?
    var damageAtOpen = 0
    /// Reads that ended with a media error when everything was read back last.
    var unreadCount = 0
    var staleBytes: [UInt8] = []
    var replicas: Replicas

    /// What a handle is of.
    struct HandleKey: Hashable {
        var volume: UInt64
        var layer: UInt64
    }

    /// A part of a volume's address space that the workload uses.
    struct Window {
        var offset: UInt64
        var byteCount: UInt64
    }

    static var bufferByteCount: Int { (1 << 20) + 8192 }

    /// Prepares the run of `seed`.
    ///
    /// - Parameters:
    ///   - seed: Decides everything.
    ///   - options: What to do otherwise than the seed says.
    ///   - memory: The memory to use; one run at a time.
    ///   - emit: Takes the lines of the trace, if they are wanted.
    public init(
        seed: UInt64,
        options: SimulationOptions = SimulationOptions(),
        memory: SimulationMemory,
        emit: ((String) -> Void)? = nil
    ) {
        scenario = StoreScenario(seed: seed, options: options)
        self.options = options
        trace = SimulationTrace(emit: emit)
        random = SeededRandom(seed: seed ^ 0x0C41_94CA)
        replicas = Replicas(random: SeededRandom(seed: seed ^ 0x4E_11CA))
        device = SimulatedDevice(
            byteCount: scenario.deviceByteCount,
            superblockOffsets: Superblock.slotOffsets,
            faults: DeviceFaults(),
            seed: random.next(),
            memory: memory,
            trace: trace
        )
        driver = StoreDriver(scenario: scenario, device: device, random: random.fork(1))
        oracle = StoreOracle(run: seed)
        buffers = memory.buffers
        requests = Array(repeating: nil, count: scenario.queueDepthMax)
        driver.crashAt = options.crashAt
        device.canary = options.canary
        driver.defect = options.canary?.storeDefect
    }

    /// Runs to the end or to the first thing that is wrong.
    public func run() -> SimulationReport {
        trace.say { "seed \(scenario.seed): \(scenario.summary)" }
        format()
        device.faults = scenario.faults
        // Formatting is not under test: a request of it that is named fails nothing.
        device.failingRequest = options.errorAt
        recover()
        if failure == nil, !endedByDamage { work() }
        if failure == nil, !endedByDamage { reckon() }
        device.clear()
        return SimulationReport(
            seed: scenario.seed,
            failure: failure,
            traceHash: trace.hash,
            deviceRequestCount: device.requestCount,
            crashCount: crashCount,
            operationCount: operationCount,
            damageCount: device.damageCount,
            endedByDamage: endedByDamage,
            counters: driver.store.counters
        )
    }

    // MARK: - Phases

    /// The workload.
    private func work() {
        scheduleCrash()
        var stepLimit = scenario.operationCount * 4
        while operationCount < scenario.operationCount, failure == nil, !endedByDamage {
            stepLimit -= 1
            guard stepLimit > 0 else { return }
            for _ in 0..<random.within(1...4) where hasFreeRequest {
                step()
                replicaStep()
            }
            let think = scenario.thinkNanosecondsMax
            let limit = driver.nowNanoseconds + (think > 0 ? random.below(think) : 0)
            pump(untilNanoseconds: limit) { true }
        }
    }

    /// The end: everything is read, the store is closed and opened, and everything read again.
    private func reckon() {
        isReckoning = true
        if options.crashAt == nil { driver.crashAt = nil }
        device.faults = scenario.faults.withoutErrors
        settle()
        verifyAll("at the end")
        restart()
        verifyAll("after the last restart")
        if scenario.endsEmpty { emptyOut() }
        guard failure == nil, !endedByDamage else { return }
        checkOffline()
    }

    /// Waits for everything under way.
    func settle() {
        pump { self.isIdle }
    }

    var isIdle: Bool {
        requests.allSatisfy { $0 == nil } && expectations.isEmpty && replicas.isIdle
    }

    func fail(_ text: @autoclosure () -> String) {
        guard failure == nil else { return }
        let message = text()
        failure = message
        trace.say { "FAILURE: \(message)" }
    }

    // MARK: - Time

    /// The most turns that anything may take; a store that needs more has hung.
    private static var turnCountMax: Int { 400_000 }

    /// Runs turns until `isDone`, recovering from crashes on the way.
    ///
    /// With a time limit it ends there; without, a store that falls silent first has hung.
    func pump(untilNanoseconds limit: UInt64? = nil, _ isDone: () -> Bool) {
        for _ in 0..<StoreSimulation.turnCountMax {
            guard failure == nil, !endedByDamage else { return }
            let event = driver.turn(untilNanoseconds: limit) { self.end($0) }
            endCommands()
            if let misuse = device.misuse { fail(misuse) }
            if case .crashDue = event {
                crash()
                return
            }
            if case .failed(let error) = driver.store.state {
                storeFailed(error)
                return
            }
            if let limit, driver.nowNanoseconds < limit { continue }
            if let broken = invariantBroken() { fail(broken) }
            if isDone() { return }
            if case .quiet = event {
                fail(
                    "the store fell silent with \(describeActive()) under way; "
                        + driver.store.progressDescription
                )
            }
        }
        fail(
            "no end after \(StoreSimulation.turnCountMax) turns with \(describeActive()); "
                + "\(driver.store.space); \(driver.store.progressDescription)"
        )
    }

    /// Looks at the store's inside now and then: often while a run is young.
    private func invariantBroken() -> String? {
        turnCount += 1
        guard turnCount < 512 || turnCount % 128 == 0 else { return nil }
        return driver.store.brokenInvariant().map { "an invariant is broken: \($0)" }
    }

    private func describeActive() -> String {
        let active = requests.compactMap { $0 }
        let names = active.map { "\($0.kind) \($0.place)" }.joined(separator: ", ")
        return "\(active.count) requests [\(names)] and \(expectations.count) commands, "
            + "of replicas \(replicas.requests.count) and \(replicas.commands.count)"
    }
}

extension DeviceFaults {
    /// The same device with damage only: for the reckoning, which must come to an end.
    var withoutErrors: DeviceFaults {
        var faults = self
        faults.readErrorPerMillion = 0
        faults.writeErrorPerMillion = 0
        faults.flushErrorPerMillion = 0
        faults.damageCountMax = 0
        return faults
    }
}

extension StoreSimulation {
    /// What the seed means, in one line.
    public var summary: String { scenario.summary }
}
