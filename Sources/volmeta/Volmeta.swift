// volmeta: the metadata service and control API of a Cairn cluster.

import ArgumentParser
import ControlAPI
import ControlPlane
import Foundation
import Logging
import Metadata
import ServiceLifecycle
import UnixSignals

/// The program.
@main
struct Volmeta: AsyncParsableCommand {
    /// The version that it reports.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "volmeta",
        abstract: "The metadata service and control API of a Cairn cluster.",
        version: version,
        subcommands: [Run.self]
    )

    /// Exit codes: 0 done, 1 refused or failed, 2 usage.
    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let error as ControlError {
            fail(error.detail, help: error.help)
        } catch let error as MetadataError {
            fail(error.description, help: error.help)
        } catch {
            let code = exitCode(for: error)
            guard code == .validationFailure else { exit(withError: error) }
            writeError(fullMessage(for: error))
            Foundation.exit(2)
        }
    }

    /// Ends the program with one line that says what is wrong and what to do.
    private static func fail(_ what: String, help: String?) -> Never {
        writeError("volmeta: " + [what, help].compactMap(\.self).joined(separator: " "))
        Foundation.exit(1)
    }

    private static func writeError(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }
}

/// `volmeta run`.
struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves the control API until it gets SIGTERM or SIGINT.",
        discussion: """
            Example:
              volmeta run --data /var/lib/cairn/meta --listen 127.0.0.1:7400
            """
    )

    /// How long requests under way may take to end after SIGTERM, in seconds.
    static let shutdownSecondsMax: Int64 = 10

    @Option(help: "The directory of the database; made when it is missing.")
    var data: String

    @Option(help: ArgumentHelp("Where to serve the API.", valueName: "host:port"))
    var listen = "127.0.0.1:7400"

    @Option(help: ArgumentHelp("A unix socket to serve it on too.", valueName: "path"))
    var unix: String?

    @Option(help: "What to log.")
    var logLevel: LogLevel = .info

    func run() async throws {
        let logger = makeLogger()
        var endpoints = [try APIEndpoint(listen)]
        if let unix { endpoints.append(try APIEndpoint("unix:" + absolute(unix))) }
        guard case .tcp = endpoints[0] else {
            throw ValidationError("--listen takes HOST:PORT; a unix socket goes to --unix.")
        }
        // The database first: it tells whether another volmeta runs here.
        let store = try SQLiteMetaStore(directory: absolute(data), logger: logger)
        for endpoint in endpoints { try await requireFree(endpoint) }
        let plane = ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: Volmeta.version,
            logger: logger
        )
        // Ended in reverse: the plane first, which ends the streams that the servers wait for.
        let servers: [any Service] = endpoints.map { endpoint in
            apiServer(router: controlRouter(service: plane), endpoint: endpoint, logger: logger) {
                logger.notice("listening", metadata: ["endpoint": "\($0)"])
            }
        }
        var configuration = ServiceGroupConfiguration(
            services: (servers + [plane]).map { .init(service: $0) },
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: logger
        )
        configuration.maximumGracefulShutdownDuration = .seconds(Self.shutdownSecondsMax)
        try await ServiceGroup(configuration: configuration).run()
        try store.close()
        logger.notice("stopped")
    }

    private func makeLogger() -> Logger {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        var logger = Logger(label: "volmeta")
        logger.logLevel = logLevel.level
        return logger
    }

    private func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
    }
}

/// From what weight on messages are logged.
enum LogLevel: String, ExpressibleByArgument, CaseIterable {
    case debug
    case info
    case notice
    case warning
    case error

    var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }
}
