internal import BlockCore
internal import Glibc
package import Reactor
internal import Synchronization

/// Whether the user asked for the end (SIGINT or SIGTERM).
private let isInterrupted = Atomic<Bool>(false)

/// Runs a list of jobs on a target: groups one after the other, the jobs of a group at once.
package final class Session {
    private let jobs: [JobOptions]
    private let target: NamedTarget?
    private let serverPIDs: [Int32]
    private let live: LiveLine?
    private var pendingHooks: [Hook]
    private var countingSince: UInt64 = 0
    /// What hooks could not do, and other things to tell that are no failures of jobs.
    package private(set) var complaints: [String] = []

    /// How often the jobs are looked at.
    private static var pollNanoseconds: UInt64 { 5_000_000 }

    /// Creates a run.
    ///
    /// - Parameters:
    ///   - jobs: In order, checked.
    ///   - target: For jobs that name none.
    ///   - serverPIDs: Processes whose CPU is measured.
    ///   - hooks: What is done meanwhile.
    ///   - live: Where progress is shown; nil nowhere.
    package init(
        jobs: [JobOptions],
        target: NamedTarget?,
        serverPIDs: [Int32] = [],
        hooks: [Hook] = [],
        live: LiveLine? = nil
    ) {
        self.jobs = jobs
        self.target = target
        self.serverPIDs = serverPIDs
        self.live = live
        pendingHooks = hooks.sorted { $0.seconds < $1.seconds }
    }

    /// Ends all runs of the process when the user asks for it, with what was measured until then.
    package static func stopOnSignals() {
        for number in [SIGINT, SIGTERM] {
            // The handler does nothing but store into an atomic.
            _ = signal(number) { _ in isInterrupted.store(true, ordering: .relaxed) }
        }
        // A server that goes away is an error of `send`, not the end of the process.
        _ = signal(SIGPIPE, SIG_IGN)
    }

    /// Whether the user asked for the end.
    package static var wasInterrupted: Bool { isInterrupted.load(ordering: .relaxed) }

    // MARK: - Running

    /// Runs all jobs.
    ///
    /// - Returns: A result per job or reported group, in order.
    package func run() -> [JobResult] {
        var results: [JobResult] = []
        var batch: [JobThread.Order] = []
        var groupIndex = -1
        var number = 1
        for job in jobs {
            if job.waitsForJobsBefore, !batch.isEmpty {
                results += runBatch(batch)
                batch = []
                if Session.wasInterrupted {
                    complaints.append("interrupted: later jobs were not run")
                    break
                }
            }
            if groupIndex < 0 || job.waitsForJobsBefore || job.beginsGroup { groupIndex += 1 }
            for clone in 0..<job.cloneCount {
                batch.append(
                    JobThread.Order(
                        options: job,
                        cloneIndex: clone,
                        groupIndex: groupIndex,
                        number: number
                    )
                )
                number += 1
            }
        }
        results += runBatch(batch)
        live?.clear()
        return Session.merged(results)
    }

    /// One result for all jobs of a group that want that.
    private static func merged(_ results: [JobResult]) -> [JobResult] {
        var kept: [JobResult] = []
        for result in results {
            let twin = kept.first {
                $0.groupIndex == result.groupIndex && $0.options.isGroupReported
            }
            if let twin, result.options.isGroupReported {
                twin.merge(result)
            } else {
                kept.append(result)
            }
        }
        return kept
    }

    private func runBatch(_ orders: [JobThread.Order]) -> [JobResult] {
        guard !orders.isEmpty else { return [] }
        let devices = DeviceTable()
        let gate = StartGate(count: orders.count)
        var threads: [JobThread] = []
        for order in orders {
            let thread = JobThread(
                order: order,
                target: target,
                serverPIDs: serverPIDs,
                devices: devices,
                gate: gate
            )
            threads.append(thread)
            thread.start()
        }
        let progresses = threads.map(\.progress)
        while !threads.allSatisfy({ $0.progress.hasEnded.load(ordering: .acquiring) }) {
            let next = Clock.now().advanced(byNanoseconds: Session.pollNanoseconds)
            Clock.sleep(until: next)
            if Session.wasInterrupted {
                for progress in progresses { progress.shouldStop.store(true, ordering: .relaxed) }
            }
            runHooks(progresses)
            live?.show(progresses)
        }
        return threads.map { $0.join() }
    }

    private func runHooks(_ progresses: [JobProgress]) {
        guard !pendingHooks.isEmpty else { return }
        if countingSince == 0 {
            countingSince =
                progresses.map { $0.countingSince.load(ordering: .relaxed) }
                .filter { $0 > 0 }.min() ?? 0
        }
        guard countingSince > 0 else { return }
        let seconds = Double(Clock.now().nanoseconds - countingSince) / 1e9
        while let hook = pendingHooks.first, hook.seconds <= seconds {
            pendingHooks.removeFirst()
            if let complaint = hook.act() { complaints.append(complaint) }
        }
    }
}

/// Where the jobs of a group wait for each other, so that they begin together.
package final class StartGate: Sendable {
    private let missingCount: Atomic<Int>
    private static var pollNanoseconds: UInt64 { 50_000 }

    /// Creates a gate for `count` jobs.
    package init(count: Int) { missingCount = Atomic(count) }

    /// One more is ready, or will never be.
    package func arrive() { missingCount.subtract(1, ordering: .acquiringAndReleasing) }

    /// Waits until all have arrived.
    package func wait() {
        while missingCount.load(ordering: .acquiring) > 0 {
            Clock.sleep(until: Clock.now().advanced(byNanoseconds: StartGate.pollNanoseconds))
        }
    }
}

/// The devices that are open: jobs on one file share it, because opening locks it.
package final class DeviceTable: Sendable {
    private let devices = Mutex<[String: Device]>([:])

    /// Creates an empty table.
    package init() {}

    /// The device at `path`, opened if it is not yet.
    ///
    /// - Throws: ``BenchError`` when it cannot be opened.
    package func device(_ path: String, isReadOnly: Bool) throws(BenchError) -> Device {
        let result = devices.withLock { devices -> Result<Device, BenchError> in
            if let device = devices[path], isReadOnly || !device.isReadOnly {
                return .success(device)
            }
            // A reader came first: its lock would keep the writer out.
            devices[path] = nil
            do throws(BenchError) {
                let device = try DeviceEngine.open(path: path, isReadOnly: isReadOnly)
                devices[path] = device
                return .success(device)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
