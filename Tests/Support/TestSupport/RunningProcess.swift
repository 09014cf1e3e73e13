// Programs that tests run. Not Foundation's `Process`: Docs/WORKAROUNDS.md says why.

public import ChildProcesses
import Dispatch
import Foundation
public import Glibc
import Synchronization

/// A process of one test: started by it, and ended by it.
public final class RunningProcess: Sendable {
    /// The process's number.
    public let pid: pid_t
    private let end: Ending

    /// Starts a program.
    ///
    /// - Throws: `SpawnFailure`.
    public init(_ specification: ChildSpecification) throws(SpawnFailure) {
        let pid = try specification.start()
        self.pid = pid
        let end = Ending()
        self.end = end
        // A thread of its own: waiting must not take one from the other tests.
        Thread.detachNewThread {
            ChildEnd.waitUnreaped(for: pid)
            end.isKnown.withLock { $0 = ChildEnd.wait(for: pid) }
            end.signal.signal()
        }
    }

    /// Whether it still runs.
    public var isRunning: Bool { end.isKnown.withLock { $0 == nil } }

    /// Sends a signal, unless it has ended: its number may be another's by now.
    public func signal(_ number: Int32) {
        end.isKnown.withLock { if $0 == nil { kill(pid, number) } }
    }

    /// Waits for its end on the caller's thread.
    ///
    /// - Returns: The exit code, 128 + signal when a signal ended it, or nil after `seconds`.
    public func waitForExit(within seconds: Double = .infinity) -> Int32? {
        let deadline: DispatchTime = seconds.isFinite ? .now() + seconds : .distantFuture
        guard end.signal.wait(timeout: deadline) == .success else { return nil }
        // For the next who waits.
        end.signal.signal()
        return end.isKnown.withLock { $0 }?.exitCode
    }

    /// Waits for its end, while other tests use the thread.
    ///
    /// - Returns: The exit code, 128 + signal when a signal ended it, or nil after `seconds`.
    public func exit(within seconds: Double) async -> Int32? {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { [self] in
                continuation.resume(returning: waitForExit(within: seconds))
            }
        }
    }

    /// How it ended, shared with the thread that waits for that.
    private final class Ending: Sendable {
        let isKnown = Mutex<ChildEnd?>(nil)
        let signal = DispatchSemaphore(value: 0)
    }
}

/// What a program left behind.
public struct ProgramResult: Sendable {
    /// The exit code, 128 + signal when a signal ended it; nil when it was killed because its time
    /// was up.
    public var exitCode: Int32?
    /// What it wrote to standard output.
    public var output: String
    /// What it wrote to standard error.
    public var errorOutput: String
}

/// Runs a program to its end, on the caller's thread.
///
/// - Parameters:
///   - executable: The program's file.
///   - arguments: Its arguments, without its own name.
///   - seconds: After how long it is killed.
/// - Returns: What it left behind.
/// - Throws: `SpawnFailure`, or the system's error when its output has nowhere to go.
public func runProgram(
    _ executable: String,
    _ arguments: [String],
    within seconds: Double = 60
) throws -> ProgramResult {
    // Files and not pipes: whoever is chatty never waits for a reader.
    let directory = try TestDirectory()
    defer { withExtendedLifetime(directory) {} }
    let paths = (output: directory.path + "/out", error: directory.path + "/err")
    let output = try descriptor(writing: paths.output)
    defer { close(output) }
    let error = try descriptor(writing: paths.error)
    defer { close(error) }
    let process = try RunningProcess(
        ChildSpecification(executable, arguments, output: output, error: error)
    )
    let code = process.waitForExit(within: seconds)
    process.signal(SIGKILL)
    return ProgramResult(
        exitCode: code,
        output: contents(paths.output),
        errorOutput: contents(paths.error)
    )
}

/// The text of a file; bytes that are no UTF-8 are replaced, for some programs echo hostile input.
public func contents(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
}

/// Makes a file anew.
///
/// - Returns: A descriptor that children do not inherit.
public func descriptor(writing path: String) throws -> Int32 {
    // SAFETY: the C string lives for the call.
    let number = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard number >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
    return number
}
