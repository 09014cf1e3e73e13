import ChildProcesses
import Foundation
import TestSupport
import Testing

/// A process of one test: started by it, bounded in time, ended with it.
///
/// Output goes to files, so that a chatty child never blocks on a full pipe.
final class ChildProcess: Sendable {
    private let process: RunningProcess
    private let outputPath: String
    private let errorPath: String

    /// The process's number.
    var pid: Int32 { process.pid }

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
        var specification = ChildSpecification(executable, arguments)
        specification.environment = ProcessInfo.processInfo.environment
            .merging(environment) { _, new in new }
        specification.directory = directory
        var files: [FileHandle] = []
        defer { for file in files { try? file.close() } }
        for path in [outputPath, errorPath] {
            files.append(FileHandle(fileDescriptor: try descriptor(writing: path)))
        }
        specification.output = files[0].fileDescriptor
        specification.error = files[1].fileDescriptor
        if let input {
            let path = name + ".in"
            try input.write(toFile: path, atomically: false, encoding: .utf8)
            let file = try #require(FileHandle(forReadingAtPath: path))
            specification.input = file.fileDescriptor
            files.append(file)
            try? FileManager.default.removeItem(atPath: path)
        }
        process = try RunningProcess(specification)
    }

    deinit {
        signal(SIGKILL)
        try? FileManager.default.removeItem(atPath: outputPath)
        try? FileManager.default.removeItem(atPath: errorPath)
    }

    /// What it wrote to standard output so far.
    var output: String { contents(outputPath) }

    /// What it wrote to standard error so far.
    var errorOutput: String { contents(errorPath) }

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
    func exit(within seconds: Double) async -> Int32? { await process.exit(within: seconds) }

    /// Sends a signal, unless it has ended.
    func signal(_ number: Int32) { process.signal(number) }

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
