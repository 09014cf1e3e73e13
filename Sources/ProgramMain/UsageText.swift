// What is said about wrong usage, where the argument parser's own words lead nowhere.

package import ArgumentParser
import Foundation

extension ParsableCommand {
    /// What to say about wrong usage: what is wrong, then how the command is used.
    ///
    /// The parser calls a misspelt subcommand an unexpected argument; here it gets the names that
    /// it may have been meant as. A value that begins with a dash it calls missing, and of an
    /// argument that is missing it speaks before an option that does not exist.
    package static func usageText(of error: any Error, arguments: [String]) -> String {
        let text = fullMessage(for: error)
        let usage = text.split(separator: "\n", maxSplits: 1).dropFirst().joined()
        guard
            let problem = unknownSubcommand(in: arguments)
                ?? dashedValue(in: arguments, refusedWith: text)
        else { return text }
        return usage.isEmpty ? "Error: \(problem)" : "Error: \(problem)\n\(usage)"
    }

    /// What to say when help is asked for a subcommand that does not exist; nil when it exists, or
    /// no help is asked for.
    ///
    /// The parser shows the help of the last command that it knows, as if that had been meant.
    package static func usageText(ofHelpFor arguments: [String]) -> String? {
        let words = arguments.filter { !$0.hasPrefix("-") }
        if arguments.first == "help" {
            let names = Array(words.dropFirst())
            guard names.first != "help" else { return nil }
            return unknownSubcommand(in: names, needsAll: true).map { "Error: \($0)\n\(usageLine)" }
        }
        let isHelp = arguments.last.map { ["-h", "--help", "-help"].contains($0) } ?? false
        guard isHelp else { return nil }
        return unknownSubcommand(in: words).map { "Error: \($0)\n\(usageLine)" }
    }

    private static var usageLine: String {
        "Usage: \(usageString())\n  See '\(_commandName) --help' for more information."
    }

    /// A sentence about the first word that names no subcommand where one has to be; called when
    /// the parser has refused the line, or was asked for help.
    ///
    /// - Parameters:
    ///   - arguments: The words behind the program's name.
    ///   - needsAll: Whether all of them have to be names, as behind `help`.
    /// - Returns: The sentence; nil when each name is one of a subcommand.
    private static func unknownSubcommand(
        in arguments: [String],
        needsAll: Bool = false
    ) -> String? {
        var command: any ParsableCommand.Type = self
        var path = [_commandName]
        for word in arguments {
            let place = path.joined(separator: " ")
            let subcommands = command.configuration.subcommands
            guard !subcommands.isEmpty else {
                return needsAll ? "'\(place)' has no subcommands, so no '\(word)'." : nil
            }
            guard !word.hasPrefix("-") else {
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
            guard word != "help" || path.count > 1 else { return nil }
            let names = subcommands.map { $0._commandName }
            let problem = "'\(place)' has no subcommand '\(word)'"
            guard let suggestion = didYouMean(word, among: names) else {
                return "\(problem); it has \(names.joined(separator: ", "))."
            }
            return "\(problem); \(suggestion)"
        }
        return nil
    }

    /// A sentence about a value that begins with a dash, which the parser takes for an option, so
    /// that to it the value is missing.
    private static func dashedValue(in arguments: [String], refusedWith text: String) -> String? {
        let line = text.prefix { !$0.isNewline }
        if line.hasPrefix("Error: Missing expected argument '") {
            let words = arguments.prefix { $0 != "--" }
            guard let word = words.first(where: isNegative) else {
                return unknownOption(in: words, usage: text)
            }
            return "'\(word)' is negative; no argument takes a negative number."
        }
        let start = "Error: Missing value for '"
        guard line.hasPrefix(start) else { return nil }
        // "--size <size>"
        let option = String(line.dropFirst(start.count).prefix { $0 != " " && $0 != "'" })
        guard let index = arguments.firstIndex(of: option), index + 1 < arguments.endIndex else {
            return nil
        }
        let word = arguments[index + 1]
        if isNegative(word) { return "'\(word)' is negative; \(option) takes no negative number." }
        // Two dashes are another option, as far as anybody can tell: then the value is missing.
        guard word.hasPrefix("-"), !word.hasPrefix("--") else { return nil }
        return "The value of \(option) is missing; one that begins with '-' is written "
            + "\(option)=\(word)."
    }

    /// A sentence about the first option that the usage does not list.
    private static func unknownOption(
        in words: ArraySlice<String>,
        usage text: String
    ) -> String? {
        guard let usage = text.firstRange(of: "Usage: ") else { return nil }
        let known = text[usage.upperBound...].prefix { !$0.isNewline }
            .split { " []|".contains($0) }
        // The usage of a command with very many options names none.
        guard !known.contains("<options>") else { return nil }
        let option = words.first { word in
            let name = word.prefix { $0 != "=" }
            return name.count > 1 && name.hasPrefix("-") && !known.contains(name)
                && !["-h", "--help", "--version"].contains(name)
        }
        return option.map { "There is no option '\($0)' here." }
    }

    /// Whether a word is written as a number below zero, with a unit or without.
    private static func isNegative(_ word: String) -> Bool {
        let digits = word.dropFirst()
        return word.hasPrefix("-") && digits.first { $0 != "." }.map { "0"..."9" ~= $0 } == true
    }
}
