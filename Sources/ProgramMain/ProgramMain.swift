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
        if exitCode(for: error) == .success { exit(withError: error) }
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

extension ParsableCommand {
    /// What to say about wrong usage: what is wrong, then how the command is used.
    ///
    /// The parser calls a misspelt subcommand an unexpected argument; here it gets the names that
    /// it may have been meant as.
    package static func usageText(of error: any Error, arguments: [String]) -> String {
        let text = fullMessage(for: error)
        guard let unknown = unknownSubcommand(in: arguments) else { return text }
        let usage = text.split(separator: "\n", maxSplits: 1).dropFirst().joined()
        return usage.isEmpty ? "Error: \(unknown)" : "Error: \(unknown)\n\(usage)"
    }

    /// A sentence about the first word that names no subcommand where one has to be; called when
    /// the parser has refused the line.
    private static func unknownSubcommand(in arguments: [String]) -> String? {
        var command: any ParsableCommand.Type = self
        var path = [_commandName]
        for word in arguments {
            let subcommands = command.configuration.subcommands
            guard !subcommands.isEmpty else { return nil }
            guard !word.hasPrefix("-") else {
                let place = path.joined(separator: " ")
                return "'\(word)' stands before a subcommand of '\(place)'; options go behind it."
            }
            let next = subcommands.first { subcommand in
                subcommand._commandName == word
                    || subcommand.configuration.aliases.contains(word)
            }
            if let next {
                command = next
                path.append(next._commandName)
                continue
            }
            // `volctl help volume` is the parser's own.
            guard word != "help" else { return nil }
            let names = subcommands.map { $0._commandName }
            let place = path.joined(separator: " ")
            let problem = "'\(place)' has no subcommand '\(word)'"
            guard let suggestion = didYouMean(word, among: names) else {
                return "\(problem); it has \(names.joined(separator: ", "))."
            }
            return "\(problem); \(suggestion)"
        }
        return nil
    }
}
