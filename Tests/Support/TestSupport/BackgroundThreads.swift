// Where tests run that calculate for seconds, so that those that wait for something are not late.

import Dispatch
import Foundation
import Glibc
import Synchronization
public import Testing

/// Runs tests that calculate for long on threads of their own, behind everything else.
///
/// Tests share one thread per core, and one that never waits keeps its thread: a test that talks to
/// a server, and whose every answer queues behind a few of those, is minutes late, and what limits
/// its time takes that for the server's doing.
public struct BackgroundTrait: SuiteTrait, TestTrait, TestScoping {
    /// Each test of a suite, and of the suites in it.
    public var isRecursive: Bool { true }

    /// Moves a test case to those threads.
    public func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @Sendable () async throws -> Void
    ) async throws {
        guard testCase != nil else { return try await function() }
        try await withTaskExecutorPreference(BackgroundThreads.shared) { try await function() }
    }
}

extension Trait where Self == BackgroundTrait {
    /// Calculates for long: see ``BackgroundTrait``.
    public static var background: Self { Self() }
}

/// As many threads as there are cores, which get what others leave of them.
private final class BackgroundThreads: TaskExecutor {
    static let shared = BackgroundThreads()

    /// Behind everything else.
    private static let niceness: Int32 = 19

    /// Tests to begin or to go on with, in order.
    private let jobs = Mutex<[UnownedJob]>([])
    private let jobCount = DispatchSemaphore(value: 0)

    private init() {
        for index in 0..<ProcessInfo.processInfo.activeProcessorCount {
            let thread = Thread { [self] in
                // Of this thread, on Linux; where it is refused, the tests are less polite.
                _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, Self.niceness)
                while true {
                    jobCount.wait()
                    let job = jobs.withLock { $0.removeFirst() }
                    unsafe job.runSynchronously(on: asUnownedTaskExecutor())
                }
            }
            thread.name = "background-\(index)"
            // As the first thread has: tests may nest as deep as programs.
            thread.stackSize = 8 << 20
            thread.start()
        }
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        jobCount.signal()
    }
}
