import Foundation
import Testing

/// A process of one test: started by it, bounded in time, ended with it.
///
/// Output goes to files, so that a chatty child never blocks on a full pipe.
final class ChildProcess: @unchecked Sendable {
    // SAFETY (Sendable): `process` is set up before it runs and afterwards only asked for its pid
    // and status; `exited` is thread-safe.
    private let process = Process()
    private let exited = DispatchSemaphore(value: 0)
    private let outputPath: String
    private let errorPath: String

    /// The process's number.
    var pid: Int32 { process.processIdentifier }

    /// Starts `executable`.
    init(
        _ executable: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        directory: String? = nil,
        input: String? = nil
    ) throws {
        let name = "\(NSTemporaryDirectory())cairn-out-\(UUID().uuidString)"
        outputPath = name + ".out"
        errorPath = name + ".err"
        for path in [outputPath, errorPath] {
            try #require(FileManager.default.createFile(atPath: path, contents: nil))
        }
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment
            .merging(environment) { _, new in new }
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        // Closed here once the child has them: `Process` lives on for a while and would keep them,
        // thousands in the end, and crashes when it finds more than some 1,350 open descriptors.
        var handles = [outputPath, errorPath].compactMap(FileHandle.init(forWritingAtPath:))
        try #require(handles.count == 2)
        process.standardOutput = handles[0]
        process.standardError = handles[1]
        if let input {
            let path = name + ".in"
            try input.write(toFile: path, atomically: false, encoding: .utf8)
            let handle = try #require(FileHandle(forReadingAtPath: path))
            process.standardInput = handle
            handles.append(handle)
            try? FileManager.default.removeItem(atPath: path)
        } else {
            process.standardInput = FileHandle.nullDevice
        }
        defer { for handle in handles { try? handle.close() } }
        let exited = exited
        process.terminationHandler = { _ in exited.signal() }
        try process.run()
    }

    deinit {
        if process.isRunning { kill(pid, SIGKILL) }
        try? FileManager.default.removeItem(atPath: outputPath)
        try? FileManager.default.removeItem(atPath: errorPath)
    }

    /// What it wrote to standard output so far.
    var output: String { text(outputPath) }

    /// What it wrote to standard error so far.
    var errorOutput: String { text(errorPath) }

    private func text(_ path: String) -> String {
        // Hostile input is echoed by some programs: never fail on bytes that are not UTF-8.
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }

    /// Whether it still runs.
    var isRunning: Bool { process.isRunning }

    /// Whether any process of this number runs; one that ended and was not collected does not.
    static func isAlive(_ pid: Int32) -> Bool {
        let status = FileManager.default.contents(atPath: "/proc/\(pid)/stat") ?? Data()
        let text = String(decoding: status, as: UTF8.self)
        guard let name = text.lastIndex(of: ")") else { return false }
        return !text[name...].hasPrefix(") Z")
    }

    /// Waits for its end.
    ///
    /// - Returns: The exit code, 128 + signal when a signal ended it, or nil after `seconds`.
    func exit(within seconds: Double) async -> Int32? {
        let exited = exited
        let ended = await withCheckedContinuation { continuation in
            // A thread of its own: waiting must not take one from the other tests.
            Thread.detachNewThread {
                let result = exited.wait(timeout: .now() + seconds)
                if result == .success { exited.signal() }
                continuation.resume(returning: result == .success)
            }
        }
        guard ended else { return nil }
        let status = process.terminationStatus
        return process.terminationReason == .uncaughtSignal ? 128 + status : status
    }

    /// Sends a signal.
    func signal(_ number: Int32) {
        if process.isRunning { kill(pid, number) }
    }

    /// Asks it to end, and kills it when it does not within `seconds`.
    ///
    /// - Returns: The exit code of an orderly end, nil when it had to be killed.
    @discardableResult
    func stop(within seconds: Double = 20) async -> Int32? {
        signal(SIGTERM)
        if let code = await exit(within: seconds) { return code }
        signal(SIGKILL)
        _ = await exit(within: 10)
        return nil
    }
}

/// How a command ended.
struct CommandResult: Sendable {
    /// The command line, for failures.
    var command: String
    /// The exit code; nil when it was killed because its time was up.
    var exitCode: Int32?
    /// What it wrote to standard output.
    var output: String
    /// What it wrote to standard error.
    var errorOutput: String

    /// Everything worth showing when an expectation fails.
    var report: String {
        let code = exitCode.map { "exit code \($0)" } ?? "killed: its time was up"
        return "\(command)\n\(code)\n\(output.suffix(4000))\n\(errorOutput.suffix(4000))"
    }

    /// Standard output as a JSON object, or nil.
    var json: [String: Any]? {
        (try? JSONSerialization.jsonObject(with: Data(output.utf8))) as? [String: Any]
    }
}

/// Runs a command to its end, at most `seconds`.
func run(
    _ executable: String,
    _ arguments: [String],
    environment: [String: String] = [:],
    directory: String? = nil,
    input: String? = nil,
    within seconds: Double = 60
) async throws -> CommandResult {
    let child = try ChildProcess(
        executable,
        arguments,
        environment: environment,
        directory: directory,
        input: input
    )
    let code = await child.exit(within: seconds)
    if code == nil {
        child.signal(SIGKILL)
        _ = await child.exit(within: 10)
    }
    return CommandResult(
        command: ([executable] + arguments).joined(separator: " "),
        exitCode: code,
        output: child.output,
        errorOutput: child.errorOutput
    )
}

/// Runs a command that must succeed.
@discardableResult
func succeed(
    _ executable: String,
    _ arguments: [String],
    environment: [String: String] = [:],
    directory: String? = nil,
    within seconds: Double = 60,
    sourceLocation: SourceLocation = #_sourceLocation
) async throws -> CommandResult {
    let result = try await run(
        executable,
        arguments,
        environment: environment,
        directory: directory,
        within: seconds
    )
    try #require(result.exitCode == 0, "\(result.report)", sourceLocation: sourceLocation)
    return result
}
