// volmeta: the metadata service and control API of a Cairn cluster.

import ArgumentParser
import ControlAPI
import ControlPlane
import Foundation
import Glibc
import Logging
import Metadata
import ProgramMain
import ServiceLifecycle
import UnixSignals

/// The program.
@main
struct Volmeta: ServerProgram {
    /// The version that it reports.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "volmeta",
        abstract: "The metadata service and control API of a Cairn cluster.",
        version: version,
        subcommands: [Run.self]
    )

    static func main() async { await runProgram() }

    static func failure(_ error: any Error) -> Failure? {
        (error as? MetadataError).map { Failure($0.description, help: $0.help) }
    }
}

/// `volmeta run`.
struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves the control API until it gets SIGTERM, SIGINT or SIGHUP.",
        discussion: """
            Example:
              volmeta run --data /var/lib/cairn/meta --listen 127.0.0.1:7400
            """
    )

    /// How long requests under way may take to end after SIGTERM, in seconds.
    static let shutdownSecondsMax: Int64 = 10

    @Option(
        help: ArgumentHelp(
            "The directory of the database; made when it is missing.",
            valueName: "directory"
        )
    )
    var data: String

    @Option(
        help: ArgumentHelp("Where to serve the API.", valueName: "host:port"),
        transform: APIEndpoint.tcpArgument
    )
    var listen = APIEndpoint.tcp(host: "127.0.0.1", port: 7400)

    @Option(help: ArgumentHelp("A unix socket to serve it on too.", valueName: "path"))
    var unix: String?

    @Option(
        help: ArgumentHelp(
            "How long a node may be down before its replicas are replaced; 0 for ever.",
            valueName: "seconds"
        )
    )
    var replaceAfter = UInt32(APILimits.replaceSeconds)

    @Option(help: "What to log.")
    var logLevel: LogLevel = .info

    func run() async throws {
        let logger = logLevel.startLogging(as: "volmeta")
        var endpoints = [listen]
        if let unix { endpoints.append(try APIEndpoint("unix:" + absolute(unix))) }
        // The database first: it tells whether another volmeta runs here.
        let store = try SQLiteMetaStore(directory: absolute(data), logger: logger)
        for endpoint in endpoints { try await requireFree(endpoint) }
        let plane = ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: Volmeta.version,
            logger: logger,
            replaceSeconds: Double(replaceAfter)
        )
        // Ended in reverse: the plane first, which ends the streams that the servers wait for.
        let servers: [any Service] = endpoints.map { endpoint in
            apiServer(router: controlRouter(service: plane), endpoint: endpoint, logger: logger) {
                logger.notice("listening", metadata: ["endpoint": "\($0)"])
            }
        }
        var configuration = ServiceGroupConfiguration(
            services: (servers + [plane]).map { .init(service: $0) },
            gracefulShutdownSignals: stopSignals,
            logger: logger
        )
        configuration.maximumGracefulShutdownDuration = .seconds(Self.shutdownSecondsMax)
        try await ServiceGroup(configuration: configuration).run()
        try store.close()
        logger.notice("stopped")
    }

    /// The end of the terminal is as good a reason to stop in good order as any other, unless
    /// `nohup` has it that the program outlives it.
    private var stopSignals: [UnixSignal] {
        InheritedSignal.isIgnored(SIGHUP) ? [.sigterm, .sigint] : [.sigterm, .sigint, .sighup]
    }

    private func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
    }
}
