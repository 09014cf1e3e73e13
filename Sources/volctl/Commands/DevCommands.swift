// volctl dev …: a whole cluster on this machine.

package import ArgumentParser
import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// `volctl dev`.
package struct DevCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "Run a whole cluster on this machine, for development and tests.",
        subcommands: [
            DevUp.self, DevDown.self, DevStatusCommand.self, DevKill.self, DevStart.self,
        ]
    )

    package init() {}
}

/// Options of the commands that work on a development cluster's processes.
package struct DevOptions: ParsableArguments {
    /// The cluster's directory.
    @Option(
        help: ArgumentHelp(
            "The cluster's directory; default the one started last, or "
                + "$XDG_STATE_HOME/cairn/dev.",
            valueName: "dir"
        ),
        completion: .directory
    )
    package var data: String?

    /// Whether to print JSON.
    @Flag(help: "Print one JSON document on standard output.")
    package var json = false

    package init() {}

    package func validate() throws {
        try Usage.require(directory: data)
    }

    /// The directory to work on: `--data`, the last one started, the default one.
    package func directory(
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> String {
        if let data { return absolutePath(data) }
        let user = UserDirectories(environment: environment)
        if case .document(let context) = DocumentFile.read(Context.self, from: user.contextFile),
            let data = context.data
        {
            return data
        }
        return user.defaultCluster
    }

    /// The directory to start a cluster in: as ``directory(environment:)``, but not where the one
    /// started last was and is no more, its directory removed.
    package func directoryToStart(environment: [String: String]) -> String {
        let directory = directory(environment: environment)
        guard data == nil, !Path.exists(ClusterLayout(directory: directory).clusterFile) else {
            return directory
        }
        return UserDirectories(environment: environment).defaultCluster
    }
}

/// Options of the commands that wait for programs.
struct PatienceOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Seconds that one program may take to start or stop.", valueName: "s"),
        transform: Usage.number(1...3600)
    )
    var timeout: Int = 60

    func validate() throws {
        guard (1...3600).contains(timeout) else {
            throw ValidationError("--timeout takes 1 to 3600 seconds.")
        }
    }
}

/// A command on a development cluster's processes.
package protocol DevClusterCommand: AsyncParsableCommand {
    /// Which cluster, and which kind of output.
    var options: DevOptions { get }
}

/// `volctl dev up`.
struct DevUp: DevClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Start a metadata service and some nodes in the background.",
        discussion: """
            Ports are chosen once and kept, so that a cluster that was stopped comes back where \
            it was. What runs already is left alone. Later commands find the cluster by themselves.

            Examples:
              volctl dev up
              volctl dev up --nodes 3 --data /srv/cairn --store-size 20GiB
            """
    )

    @Option(
        help: ArgumentHelp("The number of nodes; default those there are, or 1.", valueName: "n"),
        transform: Usage.number(1...ClusterFile.nodeCountMax)
    )
    var nodes: Int?
    @Option(
        help: ArgumentHelp(
            "The size of each new node's store; default a share of the free space, at most 64GiB, or "
                + "16GiB where there are several.",
            valueName: "size"
        ),
        transform: ByteSize.argument
    )
    var storeSize: ByteSize?
    @Option(help: "How a new store takes its space on disk: none (as it grows), allocate or write.")
    var preallocate: Preallocation = .none
    @OptionGroup var patience: PatienceOptions
    @OptionGroup var options: DevOptions

    /// Says that commands go to another cluster from now on, when that one runs on: whoever
    /// started it may not be looking here.
    private func tellOfReplaced(_ previous: Context, by cluster: DevCluster) {
        let directory = cluster.layout.directory
        guard let other = previous.data, other != directory,
            ProgramRecord(ClusterLayout(directory: other), ClusterLayout.metaName).state == .running
        else { return }
        let back = "volctl dev up --data \(other.shellQuoted)"
        writeText(
            "volctl: note: commands without --data or --endpoint go to the cluster in "
                + "\(directory.printable) now, and no more to the one in \(other.printable), "
                + "which runs on. Back to that: \(back)\n",
            to: STDERR_FILENO
        )
    }

    /// Writes the context; without one the cluster is as good, but has to be named each time.
    private func remember(_ cluster: DevCluster, _ path: String) {
        let directory = cluster.layout.directory
        let previous = DocumentFile.read(Context.self, from: path)
        do throws(CommandFailure) {
            try DocumentFile.write(
                Context(endpoint: cluster.file.endpoint, data: directory),
                to: path
            )
            if case .document(let previous) = previous { tellOfReplaced(previous, by: cluster) }
        } catch {
            let advice = "Name the cluster with --data \(directory.shellQuoted)."
            writeText("volctl: warning: \(error.problem.printable) \(advice)\n", to: STDERR_FILENO)
        }
    }

    /// Says which stores `--store-size` does not change: those that are there already.
    private func warnOfStores(in cluster: DevCluster) {
        guard let storeSize else { return }
        for (node, size) in cluster.stores(otherThan: storeSize) {
            writeText(
                "volctl: warning: --store-size is for new stores; that of \(node) stays as it "
                    + "is, \(size).\n",
                to: STDERR_FILENO
            )
        }
    }

    enum Preallocation: String, CaseIterable, ExpressibleByArgument {
        case none
        case allocate
        case write
    }

    func validate() throws {
        if let nodes, !(1...ClusterFile.nodeCountMax).contains(nodes) {
            throw ValidationError("--nodes takes 1 to \(ClusterFile.nodeCountMax).")
        }
    }

    func run() async throws {
        let environment = ProcessInfo.processInfo.environment
        var cluster = try await DevCluster(
            in: options.directoryToStart(environment: environment),
            nodeCount: nodes,
            secondsMax: patience.timeout,
            progress: .notes(isJSON: options.json)
        )
        defer { cluster.release() }
        warnOfStores(in: cluster)
        let store = DevCluster.StoreOptions(size: storeSize, preallocation: preallocate.rawValue)
        let started = try await cluster.startAll(store: store)
        // Written last: the context names a cluster that serves.
        remember(cluster, UserDirectories(environment: environment).contextFile)
        var status = cluster.status
        status.changed = started
        if options.json {
            printDocument(status)
        } else {
            let count = counted(status.nodes.count, "node")
            let verb = started.isEmpty ? "runs already" : "runs"
            printText("The cluster with \(count) \(verb), at \(status.endpoint).")
            printText(status.rendered(on: .output))
        }
    }
}

/// `volctl dev down`.
struct DevDown: DevClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "down",
        abstract: "Stop the cluster; volumes stay, and 'dev up' brings them back.",
        discussion: """
            Each program is asked to stop, and killed when it has not after --timeout seconds.
            """
    )

    @OptionGroup var patience: PatienceOptions
    @OptionGroup var options: DevOptions

    func run() async throws {
        let layout = ClusterLayout(directory: options.directory())
        let progress = ProgressDisplay.notes(isJSON: options.json)
        // From the records of processes alone, so that a damaged cluster.json is no obstacle.
        let stopped = try await DevCluster.stopRecorded(
            of: layout,
            secondsMax: patience.timeout,
            progress: progress
        )
        if options.json {
            printDocument(StopDocument(data: layout.directory, stopped: stopped))
        } else if stopped.isEmpty {
            printText("Nothing runs in \(layout.directory).")
        } else {
            printText("Stopped \(stopped.joined(separator: ", ")).")
        }
    }
}

/// The document of `volctl dev down`.
package struct StopDocument: Codable, Hashable, Sendable {
    /// The cluster's directory.
    package var data: String
    /// The programs that were stopped.
    package var stopped: [String]
}

/// `volctl dev status`.
struct DevStatusCommand: DevClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show which programs of the cluster run."
    )

    @OptionGroup var options: DevOptions

    func run() async throws {
        let layout = ClusterLayout(directory: options.directory())
        guard let file = try ClusterFile.read(layout.directory) else {
            throw CommandFailure.noCluster(in: layout.directory)
        }
        let status = DevStatus(layout, file)
        if options.json {
            printDocument(status)
        } else {
            printText(status.rendered(on: .output))
        }
    }
}

/// `volctl dev kill`.
struct DevKill: DevClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "kill",
        abstract: "End a node without warning (kill -9), as a crash would."
    )

    @Argument(help: "The node, or volmeta.", completion: NameCompletion.devPrograms)
    var node: String
    @OptionGroup var options: DevOptions

    func run() async throws {
        let cluster = try await DevCluster(
            existing: options.directory(),
            secondsMax: 60,
            progress: .notes(isJSON: options.json)
        )
        defer { cluster.release() }
        if node != ClusterLayout.metaName { _ = try cluster.node(node) }
        let wasRunning = try await cluster.kill(node)
        var status = cluster.status
        status.changed = wasRunning ? [node] : []
        if options.json {
            printDocument(status)
        } else {
            printText(wasRunning ? "Killed \(node)." : "\(node) does not run.")
        }
    }
}

/// `volctl dev start`.
struct DevStart: DevClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "start",
        abstract: "Start a node that was killed or stopped."
    )

    @Argument(help: "The node, or volmeta.", completion: NameCompletion.devPrograms)
    var node: String
    @OptionGroup var patience: PatienceOptions
    @OptionGroup var options: DevOptions

    func run() async throws {
        var cluster = try await DevCluster(
            existing: options.directory(),
            secondsMax: patience.timeout,
            progress: .notes(isJSON: options.json)
        )
        defer { cluster.release() }
        let started =
            if node == ClusterLayout.metaName {
                try await cluster.startMeta()
            } else {
                try await cluster.startNode(try cluster.node(node), store: .init())
            }
        var status = cluster.status
        status.changed = started ? [node] : []
        if options.json {
            printDocument(status)
        } else {
            printText(started ? "Started \(node)." : "\(node) runs already.")
        }
    }
}

extension CommandFailure {
    /// There is no development cluster in `directory`.
    package static func noCluster(in directory: String) -> CommandFailure {
        CommandFailure(
            "no_cluster",
            "There is no development cluster in \(directory).",
            remedy: "Start one: volctl dev up --data \(directory.shellQuoted)"
        )
    }
}
