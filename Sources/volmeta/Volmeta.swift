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
        subcommands: [Run.self, Migrate.self, Rebuild.self]
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
              volmeta run --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 \
                --listen 10.0.0.1:7400
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
    var data: String?

    @OptionGroup var etcd: EtcdOptions

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

    func validate() throws {
        guard data == nil || etcd.store == nil else {
            throw ValidationError("--data and --store exclude each other.")
        }
        guard data != nil || etcd.store != nil else {
            throw ValidationError("Missing expected argument '--data <directory>'")
        }
    }

    func run() async throws {
        let logger = logLevel.startLogging(as: "volmeta")
        var endpoints = [listen]
        if let unix { endpoints.append(try APIEndpoint("unix:" + absolute(unix))) }
        if let configuration = try etcd.configuration() {
            try await run(on: configuration, endpoints, logger)
        } else if let data {
            // The database first: it tells whether another volmeta runs here.
            let store = try SQLiteMetaStore(directory: absolute(data), logger: logger)
            try await ClusterMetadata(store: store).requireComplete()
            try await serve(plane(store, nil, logger), endpoints, logger)
            try store.close()
        }
        logger.notice("stopped")
    }

    /// Serves whenever it leads, and stands by when another volmeta does.
    private func run(
        on configuration: EtcdConfiguration,
        _ endpoints: [APIEndpoint],
        _ logger: Logger
    ) async throws {
        let store = try EtcdMetaStore(configuration, logger: logger)
        try await store.requireMembers()
        let name = "\(ProcessInfo.processInfo.hostName) (pid \(getpid()), \(endpoints[0]))"
        while true {
            let candidate = Candidate(store: store, name: name, logger: logger)
            if try await !candidate.attempt() {
                logger.notice("standing by", metadata: ["leader": "\(candidate.holder)"])
                let refused = plane(store, nil, logger)
                try await serve(refused, endpoints, logger, with: candidate) {
                    candidate.refusal
                }
            }
            // None when it was told to stop.
            guard let leadership = candidate.leadership else { break }
            logger.notice("leading", metadata: ["term": "\(leadership.term)"])
            let keeper = LeaderKeeper(leadership: leadership, logger: logger)
            let leading = plane(leadership.store, leadership.term, logger)
            try await serve(leading, endpoints, logger, with: keeper)
            await leadership.resign()
            guard keeper.isLost else { break }
            logger.warning("another volmeta has taken over, or etcd has ended the lease")
        }
        await store.close()
    }

    private func plane(
        _ store: some MetaStore,
        _ term: UInt64?,
        _ logger: Logger
    ) -> ControlPlane {
        ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: Volmeta.version,
            logger: logger,
            replaceSeconds: Double(replaceAfter),
            term: term,
            settleMilliseconds: APILimits.heartbeatTimeoutMilliseconds
        )
    }

    /// Serves until it is told to stop, or what goes `with` it ends.
    ///
    /// With a refusal nothing is served but that, and the plane does no work.
    private func serve(
        _ plane: ControlPlane,
        _ endpoints: [APIEndpoint],
        _ logger: Logger,
        with companion: (any Service)? = nil,
        refusal: (@Sendable () -> ControlError)? = nil
    ) async throws {
        for endpoint in endpoints { try await requireFree(endpoint) }
        let router = controlRouter(service: plane) { refusal?() }
        // Ended in reverse: the plane first, which ends the streams that the servers wait for.
        var services: [ServiceGroupConfiguration.ServiceConfiguration] = endpoints.map { endpoint in
            let server = apiServer(router: router, endpoint: endpoint, logger: logger) {
                logger.notice("listening", metadata: ["endpoint": "\($0)"])
            }
            return .init(service: server)
        }
        if refusal == nil { services.append(.init(service: plane)) }
        if let companion {
            services.append(
                .init(
                    service: companion,
                    successTerminationBehavior: .gracefullyShutdownGroup
                )
            )
        }
        var configuration = ServiceGroupConfiguration(
            services: services,
            gracefulShutdownSignals: stopSignals,
            logger: logger
        )
        configuration.maximumGracefulShutdownDuration = .seconds(Self.shutdownSecondsMax)
        try await ServiceGroup(configuration: configuration).run()
    }

    /// The end of the terminal is as good a reason to stop in good order as any other, unless
    /// `nohup` has it that the program outlives it.
    private var stopSignals: [UnixSignal] {
        InheritedSignal.isIgnored(SIGHUP) ? [.sigterm, .sigint] : [.sigterm, .sigint, .sighup]
    }

}

func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
}
