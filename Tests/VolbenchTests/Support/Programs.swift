import ChildProcesses
import Foundation
import Glibc
import TestSupport
import volbench

/// Programs that tests start.
enum Programs {
    /// The path of an installed program, or nil.
    static func installed(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return (path.split(separator: ":").map(String.init) + ["/usr/bin", "/usr/sbin"])
            .map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// `volbench`, built beside the tests.
    static var volbench: String {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        return folder.appendingPathComponent("volbench").path
    }

    /// What a program said and how it ended.
    struct Outcome {
        var status: Int32
        var output: String
        var errors: String

        /// The lines on standard error.
        var errorLines: [Substring] { errors.split(separator: "\n") }
    }

    /// Runs a program to its end.
    static func run(
        _ path: String,
        _ arguments: [String],
        environment: [String: String] = [:]
    ) throws -> Outcome {
        let folder = try TestDirectory()
        defer { withExtendedLifetime(folder) {} }
        // Files and not pipes: whoever holds the other end of a pipe cannot hold the test.
        let (out, err) = ("\(folder.path)/out", "\(folder.path)/err")
        let output = try descriptor(writing: out)
        defer { close(output) }
        let error = try descriptor(writing: err)
        defer { close(error) }
        var program = ChildSpecification(path, arguments, output: output, error: error)
        program.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        program.directory = folder.path
        let end = ChildEnd.wait(for: try program.start())
        return Outcome(status: end.exitCode, output: contents(out), errors: contents(err))
    }
}

/// An nbdkit on a unix socket, which ends with the object.
final class NBDKit {
    static var isInstalled: Bool { Programs.installed("nbdkit") != nil }

    /// Its folder: the log, and what tests put there.
    let folder: TestDirectory
    private let process: RunningProcess

    /// The target of its export.
    var uri: String { "nbd+unix:///?socket=\(folder.path)/s" }
    /// Its process.
    var pid: Int32 { process.pid }

    /// Starts it: `arguments` are filters, plugin and their parameters; `LOG` is the log's path.
    init(_ arguments: String...) throws {
        folder = try TestDirectory()
        let path = folder.path
        let options = ["--foreground", "--exit-with-parent", "--unix", "\(path)/s"]
        process = try RunningProcess(
            ChildSpecification(
                Programs.installed("nbdkit") ?? "/usr/sbin/nbdkit",
                options + ["--pidfile", "\(path)/p"]
                    + arguments.map { $0.replacingOccurrences(of: "LOG", with: "\(path)/log") }
            )
        )
        // The pid file appears when it serves.
        while !FileManager.default.fileExists(atPath: "\(path)/p"), process.isRunning {
            usleep(2000)
        }
    }

    deinit { kill() }

    /// Ends it now, as a crash would: a thread of a test may block the signal to end in order.
    func kill() {
        process.signal(SIGKILL)
        _ = process.waitForExit()
    }

    /// The log's text, and an empty log.
    func takeLog() throws -> String {
        let path = "\(folder.path)/log"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        // The log is open for appending: made empty, it goes on at its beginning.
        // SAFETY: the path is lent for the call.
        _ = unsafe truncate(path, 0)
        return text
    }
}
