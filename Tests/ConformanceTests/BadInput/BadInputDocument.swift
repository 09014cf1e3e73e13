import Foundation
import Testing

/// Docs/bad-input.md: the table of wrong uses with the message each gives.
enum BadInputDocument {
    /// One row.
    struct Row: Sendable, Equatable {
        var command: String
        var exitCode: Int32
        var message: String
    }

    static let url = TestEnvironment.root.appendingPathComponent("Docs/bad-input.md")

    /// The rows of the file, by the name of the wrong use.
    static let current: [String: Row] = {
        guard let text = try? String(contentsOf: url, encoding: .utf8) else { return [:] }
        return parse(text)
    }()

    static func parse(_ text: String) -> [String: Row] {
        var rows: [String: Row] = [:]
        for line in text.split(separator: "\n") where line.hasPrefix("| ") {
            let cells = line.replacingOccurrences(of: " | ", with: "\u{1}")
                .dropFirst(2).dropLast(2)
                .split(separator: "\u{1}", omittingEmptySubsequences: false).map(String.init)
            guard cells.count == 4, let code = Int32(cells[2]) else { continue }
            rows[cells[0]] = Row(
                command: cells[1].trimmingCharacters(in: CharacterSet(charactersIn: "`")),
                exitCode: code,
                message: cells[3].trimmingCharacters(in: CharacterSet(charactersIn: "`"))
            )
        }
        return rows
    }

    // The suite is serialised: one case records at a time.
    nonisolated(unsafe) private static var recorded: [String: Row] = [:]

    /// Writes the file anew with what was recorded so far.
    static func record(_ input: BadInput, message: String) throws {
        // SAFETY: only the serialised suite calls this.
        unsafe recorded[input.name] = Row(
            command: input.command.joined(separator: " "),
            exitCode: input.exitCode,
            message: message
        )
        var text = """
            # Wrong uses and what they get

            Each row is a test (`swift test --filter BadInput`): the command must end with this exit
            code and this message, every file beside it must be unchanged, and volumes that are in
            use meanwhile must read back bit for bit. `CAIRN_RECORD=1` writes the messages anew.

            `DIR` is the case's directory, `PORT` a free port, `TAKEN` a port in use, `URI`,
            `SNAPSHOT` and `BLOCKY` exports of a running node (a volume, its snapshot, a volume with
            4096-byte blocks), `LIVE` its store, `STOREID` and `OTHERID` the identities of two stores,
            `DATA` a cluster's data directory.

            """
        for area in BadInput.Area.allCases {
            text +=
                "\n## \(area.rawValue)\n\n| wrong use | command | exit | message |\n|---|---|---|---|\n"
            for input in BadInput.all where input.area == area {
                let row = unsafe recorded[input.name] ?? current[input.name]
                guard let row else { continue }
                text +=
                    "| \(input.name) | `\(row.command)` | \(row.exitCode) | `\(row.message)` |\n"
            }
        }
        try text.write(to: url, atomically: true, encoding: .utf8)
    }
}
