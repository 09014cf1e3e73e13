internal import BlockCore

/// How long and how hard a run drives its engine.
package struct Pace: Sendable, Equatable {
    /// Seconds driven before anything is counted.
    package var rampSeconds: Double = 0
    /// Seconds counted.
    package var runSeconds: Double = 5
    /// Operations begun per second, whatever the target does; nil begins one as one ends.
    package var operationsPerSecond: Double?
    /// Operations after which the run ends early; nil leaves it to the time.
    package var operationCountMax: UInt64?

    /// Creates the default: five seconds, closed loop.
    package init() {}
}

/// What a run counted.
package struct Measurement {
    /// Latencies by kind of operation, indexed by `Operation.Kind.rawValue`.
    package var latencies = Operation.Kind.allCases.map { _ in Histogram() }
    /// Bytes read and written.
    package var byteCount: UInt64 = 0
    /// Operations that the target answered with an error.
    package var errorCount: UInt64 = 0
    /// The errno of the first error.
    package var firstErrno: Int32 = 0
    /// Open loop only: operations whose time came while the run ended, never begun.
    package var unstartedCount: UInt64 = 0
    /// How long was counted, in nanoseconds.
    package var elapsedNanoseconds: UInt64 = 0
    /// CPU that this process used meanwhile, in nanoseconds.
    package var ownCPUNanoseconds: UInt64 = 0
    /// CPU that each watched process used meanwhile, in nanoseconds, by pid.
    package var serverCPUNanoseconds: [(pid: Int32, nanoseconds: UInt64)] = []

    /// The latencies of `kind`.
    package func latency(_ kind: Operation.Kind) -> Histogram { latencies[Int(kind.rawValue)] }

    /// Reads and writes counted; flushes are accounted to the writes they follow.
    package var transferCount: UInt64 { latency(.read).count + latency(.write).count }
}

/// Drives one engine with one workload and measures.
///
/// Generic over the engine, so that the loop and the engine's `submit` compile into one piece.
package final class Runner<Target: Engine> {
    private let engine: Target
    private let pace: Pace
    private let serverPIDs: [Int32]
    private let source: OperationSource
    private let lanes: FixedArray<LaneState>
    private let idleLanes: FixedRing<Int32>
    private var measurement = Measurement()
    private var inFlightCount = 0
    private var isCounting = false

    /// When each lane's operation began, or should have, and what it is.
    private struct LaneState: BitwiseCopyable {
        var begin: UInt64
        var kind: Operation.Kind
        var byteCount: Int32
    }

    /// Creates a run.
    package init(engine: Target, workload: Workload, pace: Pace, serverPIDs: [Int32]) {
        self.engine = engine
        self.pace = pace
        self.serverPIDs = serverPIDs
        source = OperationSource(
            workload: workload,
            laneCount: engine.laneCount,
            streamCount: engine.streamCount,
            targetByteCount: engine.targetByteCount
        )
        lanes = FixedArray(
            repeating: LaneState(begin: 0, kind: .read, byteCount: 0),
            count: engine.laneCount
        )
        idleLanes = FixedRing(capacityMin: engine.laneCount)
        for lane in 0..<engine.laneCount { idleLanes.append(Int32(lane)) }
    }

    /// Drives the engine for the ramp and the run, then waits for what is in flight.
    ///
    /// - Throws: ``BenchError`` when the target is gone or a watched process does not exist.
    package func run() throws(BenchError) -> Measurement {
        let start = Clock.now()
        let rampEnd = start.advanced(byNanoseconds: UInt64(pace.rampSeconds * 1e9))
        try drive(from: start, until: rampEnd)
        let countStart = Clock.now()
        let ownBefore = Clock.ownCPUNanoseconds()
        // By now every connection is served: who forks per connection has forked.
        let servers = serverPIDs.flatMap { Clock.family(of: $0) }
        let serversBefore = try serverCPU(of: servers)
        isCounting = true
        try drive(
            from: countStart,
            until: countStart.advanced(byNanoseconds: UInt64(pace.runSeconds * 1e9))
        )
        isCounting = false
        measurement.elapsedNanoseconds = Clock.now().nanoseconds - countStart.nanoseconds
        measurement.ownCPUNanoseconds = Clock.ownCPUNanoseconds() - ownBefore
        let serversAfter = try serverCPU(of: servers)
        for (before, after) in zip(serversBefore, serversAfter) {
            measurement.serverCPUNanoseconds.append(
                (before.pid, after.nanoseconds - before.nanoseconds)
            )
        }
        try drain()
        return measurement
    }

    private func drive(from start: Instant, until end: Instant) throws(BenchError) {
        if let rate = pace.operationsPerSecond {
            try driveOpen(from: start, until: end, intervalNanoseconds: 1e9 / rate)
        } else {
            try driveClosed(from: start, until: end)
        }
    }

    /// Closed loop: every lane always has an operation in flight.
    private func driveClosed(
        from start: Instant,
        until end: Instant
    ) throws(BenchError) {
        var now = start
        while now < end && !isSpent {
            while let lane = idleLanes.popFirst() { begin(Int(lane), at: now) }
            try engine.turn(deadline: end)
            now = Clock.now()
            collect(now: now)
        }
    }

    /// Open loop: operations begin on schedule; one that finds no idle lane waits, and its
    /// latency counts from when it should have begun.
    private func driveOpen(
        from start: Instant,
        until end: Instant,
        intervalNanoseconds: Double
    ) throws(BenchError) {
        var issuedCount = 0.0
        var due = start
        var now = start
        while now < end && !isSpent {
            while !(now < due), let lane = idleLanes.popFirst() {
                begin(Int(lane), at: due)
                issuedCount += 1
                due = start.advanced(byNanoseconds: UInt64(issuedCount * intervalNanoseconds))
            }
            // With every lane busy only an ending lets us go on.
            try engine.turn(deadline: idleLanes.isEmpty ? end : min(due, end))
            now = Clock.now()
            collect(now: now)
        }
        guard isCounting, due < end else { return }
        let late = Double(end.nanoseconds - due.nanoseconds) / intervalNanoseconds
        measurement.unstartedCount += UInt64(late)
    }

    private var isSpent: Bool {
        guard isCounting, let limit = pace.operationCountMax else { return false }
        return measurement.transferCount >= limit
    }

    private func begin(_ lane: Int, at begin: Instant) {
        let operation = source.next(lane: lane)
        lanes[lane] = LaneState(
            begin: begin.nanoseconds,
            kind: operation.kind,
            byteCount: Int32(operation.byteCount)
        )
        inFlightCount += 1
        engine.submit(operation, lane: lane)
    }

    private func collect(now: Instant) {
        while let completion = engine.completions.popFirst() {
            let state = lanes[Int(completion.lane)]
            idleLanes.append(completion.lane)
            inFlightCount -= 1
            guard isCounting else { continue }
            guard completion.errno == 0 else {
                if measurement.errorCount == 0 { measurement.firstErrno = completion.errno }
                measurement.errorCount += 1
                continue
            }
            let latency = now.nanoseconds > state.begin ? now.nanoseconds - state.begin : 0
            measurement.latencies[Int(state.kind.rawValue)].record(latency)
            measurement.byteCount += UInt64(state.byteCount)
        }
    }

    /// Waits for what is in flight, uncounted, at most ten seconds.
    private func drain() throws(BenchError) {
        let limit = Clock.now().advanced(byNanoseconds: 10_000_000_000)
        while inFlightCount > 0 {
            guard Clock.now() < limit else {
                throw BenchError("\(inFlightCount) requests were not answered within 10 s")
            }
            try engine.turn(deadline: limit)
            collect(now: limit)
        }
    }

    private func serverCPU(
        of pids: [Int32]
    ) throws(BenchError) -> [(pid: Int32, nanoseconds: UInt64)] {
        var result: [(pid: Int32, nanoseconds: UInt64)] = []
        for pid in pids {
            guard let nanoseconds = Clock.cpuNanoseconds(of: pid) else {
                throw BenchError("--server-pid \(pid): no such process")
            }
            result.append((pid, nanoseconds))
        }
        return result
    }
}
