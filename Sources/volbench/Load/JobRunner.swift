internal import BlockCore
internal import Glibc
internal import Synchronization

/// Drives one engine with one job and measures.
///
/// Generic over the engine, so that the loop and the engine's `submit` compile into one piece.
/// Invariants: each lane is idle or in flight; nothing is counted before the ramp is over.
package final class JobRunner<Target: Engine> {
    private let engine: Target
    private let plan: JobPlan
    private let options: JobOptions
    private let serverPIDs: [Int32]
    private let progress: JobProgress
    private let logs: JobLogs?
    private let payload: Payload
    private let source: OperationSource
    private let written: WrittenBlocks?
    private let lanes: FixedArray<LaneState>
    private let idleLanes: FixedRing<Int32>

    private let result: JobResult
    private var inFlightCount = 0
    private var isCounting = false
    private var isVerifying = false
    private var hasFailed = false
    private var heldOperation: Operation?
    private var isSpent = false
    private var pacing: Pacing?
    private var search: DepthSearch?
    private var nextDue: UInt64 = .max
    private var thinkEnd: UInt64 = 0
    private var completedSinceThink = 0
    private var countStart: UInt64 = 0
    private var countEnd: UInt64 = .max
    private var lastCompletion: UInt64 = 0
    private var interval = Interval()
    private var intervalBegin: UInt64 = 0
    private var intervalEnd: UInt64 = .max
    private let intervalNanoseconds: UInt64
    private var usageBefore = ThreadUsage()
    private var transferCount: UInt64 = 0
    private var byteCount: UInt64 = 0

    /// How long answers are waited for when a job's time is over.
    private static var drainNanoseconds: UInt64 { 30_000_000_000 }
    /// The stretch that a point of a curve covers where no log says another.
    private static var intervalMilliseconds: Int { 500 }

    private struct LaneState: BitwiseCopyable {
        var operation: Operation
        /// When it was sent.
        var begin: UInt64
        /// When it should have been.
        var due: UInt64
    }

    /// Creates a run of one job.
    package init(
        engine: Target,
        plan: JobPlan,
        serverPIDs: [Int32] = [],
        progress: JobProgress = JobProgress(),
        logs: JobLogs? = nil
    ) {
        self.engine = engine
        self.plan = plan
        options = plan.options
        self.serverPIDs = serverPIDs
        self.progress = progress
        self.logs = logs
        payload = Payload(options: plan.options, seed: plan.seed)
        source = OperationSource(plan: plan)
        written = plan.verifiesWrites ? WrittenBlocks(plan: plan) : nil
        result = JobResult(options: plan.options)
        let idle = LaneState(operation: Operation(kind: .read), begin: 0, due: 0)
        lanes = FixedArray(repeating: idle, count: engine.laneCount)
        idleLanes = FixedRing(capacityMin: engine.laneCount)
        for lane in 0..<engine.laneCount {
            idleLanes.append(Int32(lane))
            payload.fill(engine.payload(lane: lane), lane: lane)
        }
        let milliseconds = options.logMilliseconds ?? JobRunner.intervalMilliseconds
        intervalNanoseconds = UInt64(milliseconds) * 1_000_000
    }

    // MARK: - The run

    /// Drives the engine until the job is done, its time is over, or its target is gone.
    ///
    /// - Returns: What was measured until then; its `failure` says what went wrong.
    package func run() -> JobResult {
        do throws(BenchError) {
            try drive()
            if written != nil, !hasFailed {
                isVerifying = true
                isSpent = false
                try drive()
            }
        } catch {
            fail(error.message, error.code)
        }
        finish()
        return result
    }

    private func drive() throws(BenchError) {
        var now = Clock.now()
        let rampEnd = now.advanced(byNanoseconds: options.rampMicroseconds * 1000).nanoseconds
        if !isVerifying {
            pacing = Pacing(options: options, seed: plan.seed, start: now)
            if options.rampMicroseconds == 0 { try startCounting(now) }
        } else {
            pacing = nil
            countEnd = .max
        }
        while !isOver(now) {
            issue(now)
            if isSpent && inFlightCount == 0 { break }
            try engine.turn(deadline: deadline(rampEnd))
            now = Clock.now()
            collect(now)
            if !isCounting, now.nanoseconds >= rampEnd { try startCounting(now) }
            if now.nanoseconds >= intervalEnd { endInterval(now) }
            search?.tick(now: now)
        }
        noteLate(now)
        try drain()
        guard !isVerifying, !hasFailed, let flush = source.finalFlush(),
            let lane = idleLanes.popFirst()
        else { return }
        let begun = Clock.now()
        begin(flush, lane: Int(lane), at: begun, due: begun)
        try drain()
    }

    private func isOver(_ now: Instant) -> Bool {
        if isCounting, now.nanoseconds >= countEnd { return true }
        if hasFailed || progress.shouldStop.load(ordering: .relaxed) { return true }
        return !options.isLatencyRunEndless && search?.isDone == true
    }

    /// When the engine has to come back even if nothing ends.
    private func deadline(_ rampEnd: UInt64) -> Instant {
        var nearest = min(nextDue, intervalEnd)
        nearest = min(nearest, isCounting ? countEnd : rampEnd)
        if thinkEnd > 0 { nearest = min(nearest, thinkEnd) }
        return Instant(nanoseconds: nearest)
    }

    private func startCounting(_ now: Instant) throws(BenchError) {
        isCounting = true
        result.resetCounts()
        source.restartAmount()
        countStart = now.nanoseconds
        if let run = options.runMicroseconds, run > 0 { countEnd = countStart + run * 1000 }
        lastCompletion = countStart
        (interval, intervalBegin) = (Interval(), countStart)
        intervalEnd = countStart + intervalNanoseconds
        search = DepthSearch(options: options, start: now)
        usageBefore = Clock.ownThreadUsage()
        progress.countingSince.store(countStart, ordering: .relaxed)
        // By now every connection is served: who forks per connection has forked.
        result.servers = []
        for pid in serverPIDs.flatMap({ Clock.family(of: $0) }) {
            guard let cpu = Clock.cpuNanoseconds(of: pid) else {
                throw BenchError("server-pid \(pid): no such process", code: ESRCH)
            }
            let look = (instant: countStart, cpu: cpu)
            result.servers.append(ServerCost(pid: pid, first: look, last: look))
        }
    }

    /// Takes the last figures; the engine may be gone.
    private func finish() {
        let now = Clock.now().nanoseconds
        if isCounting {
            // A job that waited for its next turn until its time was over took all of it.
            let begun = countEnd != .max && now >= countEnd ? countEnd : countStart
            let isDone = inFlightCount == 0 && lastCompletion > countStart
            let end = isDone ? max(lastCompletion, begun) : now
            result.elapsedNanoseconds = max(end, countStart + 1) - countStart
            result.usage = Clock.ownThreadUsage().since(usageBefore)
            endInterval(Instant(nanoseconds: now))
        }
        if !isCounting, !hasFailed, options.rampMicroseconds > 0 {
            fail("it ended within its ramp_time: nothing was measured", ETIME)
        }
        for index in result.servers.indices {
            // A process that died keeps the last figure that was seen of it.
            guard let cpu = Clock.cpuNanoseconds(of: result.servers[index].pid) else { continue }
            result.servers[index].last = (now, cpu)
        }
        result.series.finish()
        result.latencyTarget = search?.result
        if let failure = logs?.close() { fail(failure, EIO) }
        progress.donePart.store(JobProgress.whole, ordering: .relaxed)
    }

    private func fail(_ message: String, _ code: Int32) {
        hasFailed = true
        if result.failure == nil { result.failure = message }
        if result.firstErrno == 0 { result.firstErrno = code }
    }

    // MARK: - Beginning operations

    private func issue(_ now: Instant) {
        nextDue = .max
        if thinkEnd > now.nanoseconds { return }
        thinkEnd = 0
        let depth = search?.depth ?? engine.laneCount
        while inFlightCount < depth {
            guard let operation = heldOperation ?? nextOperation() else {
                isSpent = true
                return
            }
            heldOperation = operation
            let due = pacing?.due(operation) ?? now
            guard due <= now else {
                nextDue = due.nanoseconds
                return
            }
            guard let lane = idleLanes.popFirst() else { return }
            heldOperation = nil
            pacing?.advance(operation)
            begin(operation, lane: Int(lane), at: now, due: pacing == nil ? now : due)
        }
    }

    private func nextOperation() -> Operation? {
        // As in fio, with a rate for each direction the rates are kept, and the mix is what they make.
        isVerifying ? written?.nextRead() : source.next(pacing?.nextKind)
    }

    @inline(__always)
    private func begin(_ operation: Operation, lane: Int, at now: Instant, due: Instant) {
        if operation.kind == .write { payload.prepare(engine.payload(lane: lane), operation) }
        // After a pause there is nothing that could have ended.
        if inFlightCount == 0 { lastCompletion = now.nanoseconds }
        lanes[lane] = LaneState(
            operation: operation,
            begin: now.nanoseconds,
            due: due.nanoseconds
        )
        inFlightCount += 1
        let bits = Int.bitWidth - inFlightCount.leadingZeroBitCount - 1
        result.depthCounts[min(bits, 6)] &+= 1
        engine.submit(operation, lane: lane)
    }

    // MARK: - Ending operations

    private func collect(_ now: Instant) {
        guard !engine.completions.isEmpty else { return }
        let gap = now.nanoseconds - min(lastCompletion, now.nanoseconds)
        if isCounting, gap > result.gapNanoseconds {
            result.gapNanoseconds = gap
            result.gapBegin = lastCompletion - countStart
        }
        lastCompletion = now.nanoseconds
        while let completion = engine.completions.popFirst() {
            let lane = Int(completion.lane)
            idleLanes.append(completion.lane)
            inFlightCount -= 1
            end(lanes[lane], lane, completion.errno, now)
        }
    }

    @inline(__always)
    private func end(_ state: LaneState, _ lane: Int, _ errno: Int32, _ now: Instant) {
        let operation = state.operation
        guard errno == 0 else {
            failed(operation, errno)
            return
        }
        if operation.kind == .read, payload.verification != .none {
            verify(operation, lane)
        } else if operation.kind == .write {
            written?.insert(operation)
        }
        if options.thinkMicroseconds > 0 { countThink(now) }
        guard isCounting else { return }
        let kind = Int(operation.kind.rawValue)
        let latency = now.nanoseconds &- state.begin
        result.directions[kind].clat.record(latency)
        if pacing != nil { result.directions[kind].lat.record(now.nanoseconds &- state.due) }
        result.directions[kind].byteCount &+= UInt64(operation.byteCount)
        search?.record(latency)
        logs?.add(latency, operation, milliseconds: (now.nanoseconds &- countStart) / 1_000_000)
        guard operation.kind != .flush else { return }
        transferCount &+= 1
        byteCount &+= UInt64(operation.byteCount)
        interval.counts[kind] &+= 1
        interval.byteCounts[kind] &+= UInt64(operation.byteCount)
        interval.latencySums[kind] &+= latency
        if latency > interval.latencyMax { interval.latencyMax = latency }
    }

    private func failed(_ operation: Operation, _ errno: Int32) {
        if result.firstErrno == 0 { result.firstErrno = errno }
        result.errorCount += 1
        guard options.errorPolicy == .stop else { return }
        fail("\(operation.kind) at \(operation.offset): \(describe(errno))", errno)
    }

    private func verify(_ operation: Operation, _ lane: Int) {
        // Reads of a mixed job may fall on blocks that nobody wrote yet.
        guard isVerifying || !options.mode.writes else { return }
        guard !payload.isIntact(engine.payload(lane: lane), operation) else { return }
        result.errorCount += 1
        if result.firstErrno == 0 { result.firstErrno = EILSEQ }
        let message =
            "verify: the \(operation.byteCount) bytes at \(operation.offset) are not what was written"
        if options.isVerifyFailureFatal || options.errorPolicy == .stop {
            fail(message, EILSEQ)
        } else if result.failure == nil {
            result.failure = message
        }
    }

    private func countThink(_ now: Instant) {
        completedSinceThink += 1
        guard completedSinceThink >= options.thinkOperationCount else { return }
        completedSinceThink = 0
        thinkEnd = now.nanoseconds + options.thinkMicroseconds * 1000
    }

    // MARK: - Time

    private func endInterval(_ now: Instant) {
        interval.nanoseconds = now.nanoseconds - intervalBegin
        interval.endMilliseconds = (now.nanoseconds - countStart) / 1_000_000
        if interval.nanoseconds > 0 {
            result.series.append(interval)
            logs?.end(interval)
        }
        (interval, intervalBegin) = (Interval(), now.nanoseconds)
        intervalEnd = now.nanoseconds + intervalNanoseconds
        publish(now)
    }

    private func publish(_ now: Instant) {
        progress.operationCount.store(transferCount, ordering: .relaxed)
        progress.byteCount.store(byteCount, ordering: .relaxed)
        let busiest = result.directions.max { $0.lat.count < $1.lat.count }
        progress.p99Nanoseconds.store(busiest?.lat.percentile(0.99) ?? 0, ordering: .relaxed)
        var done = 0.0
        if countEnd != .max {
            done = Double(now.nanoseconds - countStart) / Double(countEnd - countStart)
        }
        if let budget = plan.budget {
            done = max(done, Double(byteCount) / Double(max(budget, 1)))
        }
        let part = UInt64(min(max(done, 0), 1) * Double(JobProgress.whole))
        progress.donePart.store(part, ordering: .relaxed)
    }

    /// Counts what was due and never begun when the time was over.
    private func noteLate(_ now: Instant) {
        guard let pacing, let held = heldOperation, now.nanoseconds >= countEnd else { return }
        result.unstartedCount += pacing.lateCount(held, before: Instant(nanoseconds: countEnd))
    }

    /// Waits for what is in flight, which still counts: the target did it.
    private func drain() throws(BenchError) {
        let limit = Clock.now().advanced(byNanoseconds: JobRunner.drainNanoseconds)
        while inFlightCount > 0 {
            let now = Clock.now()
            guard now < limit else {
                let seconds = JobRunner.drainNanoseconds / 1_000_000_000
                throw BenchError(
                    "\(inFlightCount) requests were not answered within \(seconds) s",
                    code: ETIMEDOUT
                )
            }
            try engine.turn(deadline: limit)
            collect(Clock.now())
        }
    }
}
