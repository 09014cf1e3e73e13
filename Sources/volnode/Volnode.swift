// volnode: the data plane of a Cairn cluster. It formats, checks and serves stores.

import ArgumentParser
import ControlAPI
import Foundation
import Logging

/// The program.
@main
struct Volnode: AsyncParsableCommand {
    /// The version that it reports.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "volnode",
        abstract: "A storage node of a Cairn cluster: keeps volumes in a log and serves them.",
        version: version,
        subcommands: [Format.self, Run.self, Check.self]
    )

    /// Exit codes: 0 done, 1 refused or failed, 2 usage.
    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            fail(failure.what, help: failure.help)
        } catch let error as ControlError {
            fail(error.detail, help: error.help)
        } catch let code as ExitCode {
            Foundation.exit(code.rawValue)
        } catch {
            let code = exitCode(for: error)
            guard code == .validationFailure else { exit(withError: error) }
            writeError(fullMessage(for: error))
            Foundation.exit(2)
        }
    }

    /// Ends the program with one line that says what is wrong and what to do.
    private static func fail(_ what: String, help: String?) -> Never {
        writeError("volnode: " + [what, help].compactMap(\.self).joined(separator: " "))
        Foundation.exit(1)
    }

    private static func writeError(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }
}

/// Why the program cannot do what it was asked to, for people.
struct Failure: Error {
    /// What is wrong, a sentence.
    var what: String
    /// What to do about it, a sentence.
    var help: String?

    init(_ what: String, help: String? = nil) {
        self.what = what
        self.help = help
    }
}

/// From what weight on messages are logged.
enum LogLevel: String, ExpressibleByArgument, CaseIterable {
    case debug
    case info
    case notice
    case warning
    case error

    var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }

    /// A logger to standard error.
    func logger() -> Logger {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        var logger = Logger(label: "volnode")
        logger.logLevel = level
        return logger
    }
}
