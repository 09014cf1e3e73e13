// What all programs of the project do alike at their start and their end: parse, run, and turn
// whatever went wrong into one line and an exit code.

package import ArgumentParser
package import ControlAPI
import Foundation

/// The exit codes besides 0.
package enum ProgramExit {
    /// Refused or failed; one line on standard error says what and what to do.
    package static var failure: Int32 { 1 }
    /// Wrong usage: the command line alone shows that it cannot be done.
    package static var usage: Int32 { 2 }
}

/// Why a program cannot do what it was asked to, for people.
package struct Failure: Error {
    /// What is wrong, a sentence.
    package var what: String
    /// What to do about it, a sentence.
    package var help: String?

    /// Creates a failure.
    package init(_ what: String, help: String? = nil) {
        self.what = what
        self.help = help
    }

    /// An error of either API.
    package init(_ error: ControlError) {
        self.init(error.detail, help: error.help)
    }

    /// An error that no part of the program expects.
    ///
    /// - Parameter message: What the error says of itself.
    package init(unforeseen message: String) {
        self.init(
            "It ended with an error that it does not know: "
                + message.split(whereSeparator: \.isNewline).joined(separator: " "),
            help: "That is a fault of the program; please report it with its last lines of output."
        )
    }
}

/// A server program: its failures are lines on standard error.
package protocol ServerProgram: AsyncParsableCommand {
    /// The failure that an error of the program's own modules stands for; nil for others.
    static func failure(_ error: any Error) -> Failure?
}

extension ServerProgram {
    /// Parses and runs; every failure becomes one line and an exit code.
    package static func runProgram(
        arguments: [String] = Array(CommandLine.arguments.dropFirst())
    ) async {
        var command: any ParsableCommand
        do {
            command = try parseAsRoot(arguments)
        } catch {
            endAfterParsing(error, arguments: arguments)
        }
        do {
            try OpenFileLimit.require()
            try AddressSpaceLimit.require()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            end(failure)
        } catch let error as ControlError {
            end(Failure(error))
        } catch let code as ExitCode {
            Foundation.exit(code.rawValue)
        } catch {
            if let failure = failure(error) { end(failure) }
            endIfUsage(error, arguments: arguments)
            end(Failure(unforeseen: message(for: error)))
        }
    }

    private static func end(_ failure: Failure) -> Never {
        let line = [failure.what, failure.help].compactMap(\.self).joined(separator: " ")
        writeError("\(_commandName): \(line)")
        Foundation.exit(ProgramExit.failure)
    }
}

extension ParsableCommand {
    /// Ends the program after help, a completion script, or wrong usage.
    package static func endAfterParsing(
        _ error: any Error,
        arguments: [String] = Array(CommandLine.arguments.dropFirst())
    ) -> Never {
        if exitCode(for: error) == .success {
            guard let text = usageText(ofHelpFor: arguments) else { exit(withError: error) }
            writeError(text)
            Foundation.exit(ProgramExit.usage)
        }
        writeError(usageText(of: error, arguments: arguments))
        Foundation.exit(ProgramExit.usage)
    }

    /// Ends the program when what a command threw as it ran is the parser's own: the help of a
    /// command that only has subcommands, or a value that it refuses late.
    package static func endIfUsage(
        _ error: any Error,
        arguments: [String] = Array(CommandLine.arguments.dropFirst())
    ) {
        guard [.success, .validationFailure].contains(exitCode(for: error)) else { return }
        endAfterParsing(error, arguments: arguments)
    }

    fileprivate static func writeError(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }
}
