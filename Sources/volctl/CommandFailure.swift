// What a command says when it cannot do what it was asked.

import Foundation
import ProgramMain

/// A refusal or failure: one line on standard error, exit code 1.
///
/// `problem` says what happened, `remedy` what to do about it; both are for people and never
/// parsed. Programs read `code`, which `--json` prints.
package struct CommandFailure: Error, Hashable, Sendable {
    /// A stable word for programs, in snake case.
    package var code: String
    /// What happened: a sentence.
    package var problem: String
    /// What to do: a sentence, with a command where one helps.
    package var remedy: String?

    /// Creates a failure.
    package init(_ code: String, _ problem: String, remedy: String? = nil) {
        self.code = code
        self.problem = problem
        self.remedy = remedy
    }

    /// Says `new` wherever the texts say `old`.
    package mutating func rename(_ old: String, to new: String) {
        problem = problem.replacingOccurrences(of: old, with: new)
        remedy = remedy?.replacingOccurrences(of: old, with: new)
    }

    /// The one line for standard error, without its newline.
    ///
    /// Line breaks and control characters, which a server or a file name may carry, are made
    /// harmless: one failure is one line.
    package var line: String {
        let text = remedy.map { "volctl: \(problem) \($0)" } ?? "volctl: \(problem)"
        return text.printable
    }
}

extension CommandFailure: CustomStringConvertible {
    package var description: String { line }
}

/// The document that `--json` prints on a failure.
package struct FailureDocument: Codable, Hashable, Sendable {
    /// What went wrong.
    package struct Body: Codable, Hashable, Sendable {
        /// A stable word for programs.
        package var code: String
        /// What happened, for people.
        package var message: String
        /// What to do, for people.
        package var hint: String?
    }

    /// What went wrong.
    package var error: Body

    /// Creates the document of `failure`.
    package init(_ failure: CommandFailure) {
        error = Body(
            code: failure.code,
            message: failure.problem.printable,
            hint: failure.remedy?.printable
        )
    }
}

extension String {
    /// The text as one word of a shell command.
    package var shellQuoted: String {
        let plain = unicodeScalars.allSatisfy { scalar in
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9": true
            case "-", "_", ".", "/", ":", "@", "=", "+", ",", "%": true
            default: false
            }
        }
        guard !plain || isEmpty else { return self }
        return "'" + replacingOccurrences(of: "'", with: #"'\''"#) + "'"
    }
}
