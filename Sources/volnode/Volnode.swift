// volnode: the data plane of a Cairn cluster. It formats, checks and serves stores.

import ArgumentParser
import ProgramMain

/// The program.
@main
struct Volnode: ServerProgram {
    /// The version that it reports.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "volnode",
        abstract: "A storage node of a Cairn cluster: keeps volumes in a log and serves them.",
        version: version,
        subcommands: [Format.self, Run.self, Check.self]
    )

    static func main() async { await runProgram() }

    static func failure(_ error: any Error) -> Failure? { nil }
}
