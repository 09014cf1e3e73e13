// A shard's whole cluster under one seed: replicas over simulated disks, would-be primaries, their
// clients, the links between them, a register of epochs, and everything that can go wrong.

internal import BlockCore
internal import Replication

/// How a run of the replication's simulation ended.
public struct ReplicationReport: Sendable, Equatable {
    /// The seed.
    public var seed: UInt64
    /// What is wrong, or nil.
    public var failure: String?
    /// A digest of everything that happened.
    public var traceHash: UInt64
    /// Requests of clients that were answered.
    public var operationCount = 0
    /// Messages that arrived.
    public var messageCount: UInt64 = 0
    /// Faults that were injected.
    public var faultCount = 0
    /// Epochs in which clients were served.
    public var takeoverCount = 0
    /// Simulated milliseconds.
    public var milliseconds: UInt64 = 0
}

/// One run.
public final class ReplicationSimulation {
    let seed: UInt64
    let scenario: ReplicationScenario
    let trace: SimulationTrace
    var random: SeededRandom
    var events = EventQueue<ClusterEvent>()
    /// Simulated time, in nanoseconds, by a clock that nobody in the cluster has.
    var now: UInt64 = 0
    /// Counts things that happen, so that no two happen at once.
    var step: UInt64 = 0

    var processes: [SimulatedProcess] = []
    var connections: [SimulatedConnection] = []
    /// `cuts[from][to]`: nothing gets through in that direction.
    var cuts: [[Bool]] = []
    var isMetadataUp = true
    var epoch: UInt64 = 0
    /// The process that was given each epoch.
    var epochOwner: [UInt64: Int] = [:]
    /// The replicas that the metadata names, and the processes that have them.
    var instances: [ReplicaInstance] = []
    var holders: [Int] = []
    /// A replica that is to take another's place.
    var move: SimulatedMove?
    /// Chooses what is moved, and when.
    var moveRandom: SeededRandom
    var nextInstance: UInt64 = 1

    var checker: ReplicationChecker
    var invariants: ReplicationInvariants
    var report: ReplicationReport
    var submittedCount = 0
    var nextToken: UInt64 = 1
    var nextValue: UInt64 = 1
    var readValues: [UInt64: [UInt64]] = [:]
    /// Faults end: from then on everything has to come right within a bound.
    var isHealing = false
    var healedAt: UInt64 = 0
    var isQuiet = false
    var finalReadCount = 0
    /// Snapshots whose takers were told that they are there, by id; and those of whom nobody knows.
    var snapshots: [UInt64: TakenSnapshot] = [:]
    var unknownSnapshots: [ClientOperation] = []
    /// Snapshots whose takers were told that there is no room for them.
    var refusedSnapshots: Set<UInt64> = []
    /// What comes when everything is whole: stores that are full.
    var trial: RoomTrial
    /// Chooses which stores have little room, and when.
    var roomRandom: SeededRandom
    /// Disks of replicas that were replaced.
    var retiredDisks: [ReplicaDisk] = []

    /// Prepares a run.
    ///
    /// - Parameters:
    ///   - seed: Where everything random comes from.
    ///   - options: What to do otherwise than the seed says.
    ///   - emit: Called with each line of what happens, if given.
    public init(
        seed: UInt64,
        options: ReplicationOptions,
        emit: ((String) -> Void)? = nil
    ) {
        self.seed = seed
        scenario = ReplicationScenario(seed: seed, options: options)
        trace = SimulationTrace(emit: emit)
        random = SeededRandom(seed: seed ^ 0x0C41_2311_94CA_7777)
        checker = ReplicationChecker(forgivesCrashes: !scenario.isForgettingOnce)
        invariants = ReplicationInvariants(quorum: scenario.policy.writeQuorum)
        report = ReplicationReport(seed: seed, traceHash: 0)
        trial = RoomTrial(isWanted: scenario.hasRoomTrial)
        roomRandom = SeededRandom(seed: seed ^ 0x5F11_ED57_0AE5_0001)
        moveRandom = SeededRandom(seed: seed ^ 0x30FE_0A11_7E11_CA5E)
        let nodeCount = scenario.policy.replicaCount
        let spareCount = scenario.moveIntervalNanoseconds > 0 ? 1 : 0
        let processCount = nodeCount + scenario.frontCount + spareCount
        cuts = Array(repeating: Array(repeating: false, count: processCount), count: processCount)
        for index in 0..<processCount {
            processes.append(
                SimulatedProcess(
                    index: index,
                    clockRate: UInt64(random.within(1_000_000...1_095_000)),
                    clockOffset: random.below(UInt64(1) << 40),
                    resyncs: scenario.newResyncBudget()
                )
            )
        }
        for slot in 0..<nodeCount { createReplica(slot, record: .created(newInstance())) }
    }

    /// What the run is, in one line.
    public var summary: String { scenario.summary }

    /// Runs to the end.
    public func run() -> ReplicationReport {
        for process in processes { scheduleTick(process) }
        events.add(.watch, at: 1_000_000)
        if scenario.faultIntervalNanoseconds > 0 { scheduleFault() }
        if scenario.fillIntervalNanoseconds > 0 { scheduleFilling() }
        if scenario.moveIntervalNanoseconds > 0 { scheduleMove() }
        requestEpoch(processes[random.below(processes.count)])
        while report.failure == nil, let (time, event) = events.popFirst() {
            now = max(now, time)
            handle(event)
            if isOver() { break }
        }
        if report.failure == nil { closeAll() }
        if report.failure == nil { report.failure = checker.verify() }
        report.traceHash = trace.hash
        report.milliseconds = now / 1_000_000
        return report
    }

    /// Ends the run: something is wrong.
    func fail(_ reason: String) {
        if report.failure == nil { report.failure = "\(reason) (at \(now / 1000) us)" }
    }

    func takeStep() -> UInt64 {
        step += 1
        return step
    }

    func note(_ kind: UInt64, _ first: UInt64, _ second: UInt64, _ line: @autoclosure () -> String)
    {
        trace.note(kind, now ^ first << 48, second) { "\(self.now / 1000) us: \(line())" }
    }

    // MARK: - Events

    func handle(_ event: ClusterEvent) {
        if let process = addressee(event), process.isFrozen {
            process.inbox.append(event)
            return
        }
        if case .stored(let index, _, _) = event, processes[index].isDiskStalled {
            processes[index].stalledEnds.append(event)
            return
        }
        switch event {
        case .tick(let index, let life): tick(processes[index], life)
        case .arrive(let connection, let toReplica): arrive(connection, toReplica)
        case .connect(let index, let primary, let slot): connect(processes[index], primary, slot)
        case .stored(let index, let life, let end): stored(processes[index], life, end)
        case .client(let index, let primary): submit(processes[index], primary)
        case .epochGranted(let index, let life): epochGranted(processes[index], life)
        case .disturb: disturb()
        case .heal(let healing): heal(healing)
        case .fill: fillStore()
        case .watch: watch()
        case .beginMove: beginMove()
        case .advanceMove: advanceMove()
        case .decideMove(let epoch, let instance): decideMove(epoch, instance)
        case .endMove(let index, let primary, let instance):
            endMove(processes[index], primary, instance)
        }
    }

    /// The process that has to be running for an event to happen.
    private func addressee(_ event: ClusterEvent) -> SimulatedProcess? {
        switch event {
        case .tick(let index, _), .connect(let index, _, _), .stored(let index, _, _),
            .client(let index, _), .epochGranted(let index, _), .endMove(let index, _, _):
            processes[index]
        case .arrive(let connection, let toReplica):
            processes[
                toReplica
                    ? connections[connection].replicaProcess
                    : connections[connection].primaryProcess
            ]
        case .disturb, .heal, .watch, .fill, .beginMove, .advanceMove, .decideMove: nil
        }
    }

    func scheduleTick(_ process: SimulatedProcess) {
        let interval = max(scenario.policy.grantNanoseconds / 8, 2_000_000)
        events.add(.tick(process: process.index, life: process.life), at: now + interval)
    }

    private func tick(_ process: SimulatedProcess, _ life: Int) {
        guard process.isAlive, process.life == life else { return }
        let local = process.localTime(now)
        if let replica = process.replica {
            replica.onTick(now: local)
            carryOut(replica, process)
        }
        if let primary = process.primary {
            primary.onTick(now: local)
            carryOut(primary, process)
        }
        watchReads(process)
        scheduleTick(process)
    }

    // MARK: - Metadata

    /// Asks for the next epoch; the answer takes a while, and so may the service.
    func requestEpoch(_ process: SimulatedProcess) {
        guard process.isAlive, !process.isAskingForEpoch else { return }
        process.isAskingForEpoch = true
        let delay = random.below(scenario.delayNanosecondsMax) + 100_000
        events.add(.epochGranted(process: process.index, life: process.life), at: now + delay)
    }

    private func epochGranted(_ process: SimulatedProcess, _ life: Int) {
        guard process.isAlive, process.life == life else { return }
        guard isMetadataUp else {
            events.add(.epochGranted(process: process.index, life: life), at: now + 20_000_000)
            return
        }
        process.isAskingForEpoch = false
        endPrimary(process)
        epoch += 1
        epochOwner[epoch] = process.index
        process.primaryCount += 1
        process.hasServed = false
        process.targets = holders
        process.links = Array(repeating: nil, count: instances.count)
        note(1, epoch, UInt64(process.index), "process \(process.index) begins epoch \(epoch)")
        let primary = PrimaryMachine(
            epoch: Epoch(epoch),
            primary: PrimaryID(UInt64(process.index) << 32 | UInt64(process.life)),
            instances: instances,
            localSlot: holders.firstIndex(of: process.index),
            policy: scenario.policy,
            budget: process.resyncs,
            now: process.localTime(now)
        )
        process.primary = primary
        tellOfMove(process, primary)
        for slot in process.targets.indices { connectSoon(process, slot) }
        for _ in 0..<scenario.inflightMax { scheduleClient(process) }
    }

    func connectSoon(_ process: SimulatedProcess, _ slot: Int) {
        let event = ClusterEvent.connect(
            process: process.index,
            primary: process.primaryCount,
            slot: slot
        )
        events.add(event, at: now + random.below(1_000_000))
    }

    /// The process that has the replica which the metadata names in a place.
    func holder(_ slot: Int) -> SimulatedProcess { processes[holders[slot]] }

    /// Ends the primary a process is, with what its clients wait for.
    func endPrimary(_ process: SimulatedProcess) {
        guard process.primary != nil else { return }
        process.primary = nil
        process.operations.removeAll()
        process.payloads.removeAll()
        for connection in process.links { if let connection { breakLink(connection) } }
        process.links = Array(repeating: nil, count: process.targets.count)
    }

    /// Someone outside who takes a volume over when nobody serves it.
    private func watch() {
        events.add(.watch, at: now + 50_000_000 + random.below(50_000_000))
        forgiveDamage()
        let owner = epochOwner[epoch].map { processes[$0] }
        let isHeld = owner.map {
            $0.isAlive && !$0.isFrozen && ($0.primary != nil || $0.isAskingForEpoch)
                && $0.primary?.state != .stopped
        }
        let isAsked = processes.contains { $0.isAlive && !$0.isFrozen && $0.isAskingForEpoch }
        if isHeld != true, !isAsked {
            let able = processes.filter { $0.isAlive && !$0.isFrozen }
            if !able.isEmpty { requestEpoch(random.pick(able)) }
        }
        considerHealing()
    }

    func newInstance() -> ReplicaInstance {
        nextInstance += 1
        return ReplicaInstance(nextInstance)
    }
}
