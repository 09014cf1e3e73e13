internal import BlockCore
internal import Reactor
internal import Synchronization

/// The thread of one job: makes its engine, waits for the others, runs, keeps the result.
package final class JobThread: @unchecked Sendable {
    // SAFETY (Sendable): `result` is written by the job's thread before `hasEnded` is stored, and
    // read after the thread was joined; `thread` belongs to who starts and joins.

    /// A job of a batch.
    package struct Order: Sendable {
        /// What to do.
        var options: JobOptions
        /// Which clone of it.
        var cloneIndex: Int
        /// Which group it reports to.
        var groupIndex: Int
        /// Its number in the run, from 1.
        var number: Int
    }

    /// What it tells while it runs.
    package let progress = JobProgress()
    private let order: Order
    private let target: NamedTarget?
    private let serverPIDs: [Int32]
    private let devices: DeviceTable
    private let gate: StartGate
    private var result: JobResult
    private var thread: ReactorThread?

    init(
        order: Order,
        target: NamedTarget?,
        serverPIDs: [Int32],
        devices: DeviceTable,
        gate: StartGate
    ) {
        self.order = order
        self.target = target
        self.serverPIDs = serverPIDs
        self.devices = devices
        self.gate = gate
        result = JobResult(options: order.options)
        result.groupIndex = order.groupIndex
    }

    /// Begins; where there is no thread to be had, the job has failed.
    func start() {
        do throws(ThreadError) {
            thread = try ReactorThread.start(name: "job-\(order.number)") { self.main() }
        } catch {
            result.failure = "no thread: \(describe(error.errno))"
            gate.arrive()
            progress.hasEnded.store(true, ordering: .releasing)
        }
    }

    /// Waits for its end; the result.
    func join() -> JobResult {
        if let thread = thread.take() { thread.join() }
        return result
    }

    private func main() {
        var hasArrived = false
        do throws(BenchError) {
            try run { hasArrived = true }
        } catch {
            result.failure = error.message
            result.firstErrno = error.code
        }
        if !hasArrived { gate.arrive() }
        progress.hasEnded.store(true, ordering: .releasing)
    }

    // MARK: - Engines

    private func run(_ arrived: () -> Void) throws(BenchError) {
        let (target, text) = try chooseTarget()
        let options = order.options
        let kind = options.engine ?? target.engineDefault
        let isFit: Bool
        switch target {
        case .tcp, .unix: isFit = kind == .nbd
        case .file: isFit = kind == .uring || kind == .aio
        case .null: isFit = kind == .null
        }
        guard isFit else {
            throw BenchError("\(options.name): ioengine=\(kind.rawValue) does not suit \(text)")
        }
        result.targetText = text
        switch target {
        case .null:
            guard options.verification == .none else {
                throw BenchError("ioengine=null keeps nothing that verify could read back")
            }
            let engine = NullEngine(
                laneCount: options.depth,
                targetByteCount: try JobThread.nullByteCount(options)
            )
            try drive(engine, arrived)
        case .tcp, .unix: try drive(NBDEngine(target: target, options: options), arrived)
        case .file(let path):
            let isReadOnly = !options.mode.writes && !options.mode.trims
            try DeviceEngine.check(options)
            let engine = try DeviceEngine(
                device: try devices.device(path, isReadOnly: isReadOnly),
                engine: kind,
                depth: options.depth,
                blockByteCount: options.blockByteCountMax
            )
            try drive(engine, arrived)
        }
    }

    /// As large as the job's clones need it.
    private static func nullByteCount(_ options: JobOptions) throws(BenchError) -> UInt64 {
        guard case .bytes(let size)? = options.size else { return NullEngine.byteCountDefault }
        let (steps, isTooFar) = options.offsetIncrement.byteCount(of: 0)
            .multipliedReportingOverflow(by: UInt64(options.cloneCount))
        let (begin, isTooLarge) = options.offset.byteCount(of: 0).addingReportingOverflow(steps)
        let (end, isTooLong) = begin.addingReportingOverflow(size)
        guard !isTooFar, !isTooLarge, !isTooLong else {
            throw BenchError("offset_increment of \(options.cloneCount) clones: beyond 16 EiB")
        }
        return end
    }

    private func chooseTarget() throws(BenchError) -> (Target, String) {
        let options = order.options
        if let target { return (target.target, target.text) }
        if let text = options.uri ?? options.filename {
            let target = try Target(parsing: text)
            if case .file = target, options.uri != nil {
                throw BenchError("uri=\(text): not nbd:// or nbd+unix://")
            }
            return (target, text)
        }
        return (.null, "null:")
    }

    private func drive<Driven: Engine>(
        _ engine: Driven,
        _ arrived: () -> Void
    ) throws(BenchError) {
        defer { engine.close() }
        let plan = try JobPlan(
            order.options,
            cloneIndex: order.cloneIndex,
            targetByteCount: engine.targetByteCount
        )
        let runner = JobRunner(
            engine: engine,
            plan: plan,
            serverPIDs: serverPIDs,
            progress: progress,
            logs: try JobLogs(options: order.options, number: order.number)
        )
        arrived()
        gate.arrive()
        gate.wait()
        let delay = order.options.startDelayMicroseconds
        if delay > 0 { Clock.sleep(until: Clock.now().advanced(byNanoseconds: delay * 1000)) }
        let text = result.targetText
        result = runner.run()
        result.groupIndex = order.groupIndex
        result.targetText = text
    }
}
