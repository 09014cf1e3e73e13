// volctl: the command line of Cairn. Its contract (names, JSON keys, exit codes) is in
// Docs/volctl.md; scripts outside the project rely on it.

package import ArgumentParser
package import ControlAPI
import Foundation
import Glibc
package import ProgramMain

/// The program.
@main
package struct Volctl: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "volctl",
        abstract: "Create, copy and attach the disks of virtual machines.",
        discussion: """
            A first tour:
              volctl dev up                           start a cluster on this machine
              volctl image import debian.qcow2 base   make a volume of a disk image
              volctl snapshot create base@clean       keep its state
              volctl clone base@clean vm1             make another volume of it
              volctl attach vm1 --host $(hostname)    get an NBD URI for the VM

            Sizes are written 10GiB, 512MiB or 1T; a bare number counts bytes. Every command takes \
            --json, which prints one JSON document. Exit codes: 0 done, 1 refused or failed, 2 \
            wrong usage.

            Shell completion: volctl --generate-completion-script bash|zsh|fish
            """,
        version: VolctlVersion.current,
        subcommands: [
            DevCommand.self, VolumeCommand.self, SnapshotCommand.self, CloneCommand.self,
            ImageCommand.self, AttachCommand.self, DetachCommand.self, NodeCommand.self,
            EventsCommand.self, CertsCommand.self,
        ]
    )

    package init() {}

    /// Parses, runs and turns every failure into one line and an exit code.
    package static func main() async {
        // A reader that has gone is noticed where its pipe is written.
        signal(SIGPIPE, SIG_IGN)
        // Before there is a second thread, which parsing makes.
        do throws(Failure) {
            try AddressSpaceLimit.require()
        } catch {
            report(CommandFailure(error), isJSON: CommandLine.arguments.contains("--json"))
        }
        var command: any ParsableCommand
        do {
            command = try await asyncParseAsRoot()
        } catch {
            endAfterParsing(error)
        }
        do {
            try OpenFileLimit.require()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let failure as CommandFailure {
            report(failure, isJSON: printsJSON(command))
        } catch let error as ControlError {
            report(CommandFailure(error), isJSON: printsJSON(command))
        } catch let failure as Failure {
            report(CommandFailure(failure), isJSON: printsJSON(command))
        } catch {
            endIfUsage(error)
            report(CommandFailure(unforeseen: message(for: error)), isJSON: printsJSON(command))
        }
    }

    private static func printsJSON(_ command: any ParsableCommand) -> Bool {
        switch command {
        case let command as any ClusterCommand: command.cluster.json
        case let command as any DevClusterCommand: command.options.json
        case let command as CertsCreate: command.json
        default: false
        }
    }

    private static func report(_ failure: CommandFailure, isJSON: Bool) -> Never {
        // First for people: where the document cannot be written, this end is here.
        writeText(failure.line + "\n", to: STDERR_FILENO)
        if isJSON { printDocument(FailureDocument(failure)) }
        Glibc.exit(Interruption.isRequested ? ProgramExit.interrupted : ProgramExit.failure)
    }
}

/// The version of this program.
package enum VolctlVersion {
    /// Goes up with each release.
    package static var current: String { "0.1.0" }
}

extension ProgramExit {
    /// Ctrl-C or SIGTERM, after tidying up: 128 and the number of SIGINT, as shells count.
    package static var interrupted: Int32 { 130 }
}

extension CommandFailure {
    /// An error that no part of the program expects.
    fileprivate init(unforeseen message: String) {
        let failure = Failure(unforeseen: message)
        self.init("internal_error", failure.what, remedy: failure.help)
    }

    /// A limit that this process has.
    fileprivate init(_ failure: Failure) {
        self.init("limit_reached", failure.what, remedy: failure.help)
    }

    /// What the service answered, as this program says it.
    package init(_ error: ControlError) {
        self.init(error.code.rawValue, error.detail, remedy: error.help)
    }
}
