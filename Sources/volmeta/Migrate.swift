// volmeta migrate: from one machine to many.

import ArgumentParser
import Logging
import Metadata
import ProgramMain

/// `volmeta migrate`.
struct Migrate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Copies the metadata of a volmeta that is stopped into an empty etcd.",
        discussion: """
            Nothing is changed in what is copied. A copy that was interrupted is begun anew when it \
            is run again, and no volmeta serves from it before.

            Example:
              volmeta migrate --from sqlite:/var/lib/cairn/meta --to etcd://10.0.0.1:2379
            """
    )

    @Option(
        help: ArgumentHelp("The directory of the database, sqlite:PATH.", valueName: "url")
    )
    var from: String

    @Option(
        help: ArgumentHelp("The cluster, etcd://HOST:PORT[,HOST:PORT...].", valueName: "url")
    )
    var to: String

    @Option(help: ArgumentHelp("Who signed etcd's certificates, in PEM.", valueName: "file"))
    var storeCa: String?

    @Option(help: ArgumentHelp("Our certificate for etcd, in PEM.", valueName: "file"))
    var storeCert: String?

    @Option(help: ArgumentHelp("The key of --store-cert, in PEM.", valueName: "file"))
    var storeKey: String?

    @Option(help: "What to log.")
    var logLevel: LogLevel = .warning

    func validate() throws {
        guard from.hasPrefix("sqlite:"), from.count > 7 else {
            throw ValidationError("The value '\(from)' is invalid for '--from <url>': sqlite:PATH")
        }
        _ = try EtcdOptions.configuration(to, option: "--to")
    }

    func run() async throws {
        let logger = logLevel.startLogging(as: "volmeta")
        let path = absolute(String(from.dropFirst(7)))
        guard SQLiteMetaStore.exists(in: path) else {
            throw Failure(
                "There is no database in \(path).",
                help: "Name the directory that 'volmeta run --data' had."
            )
        }
        var configuration = try EtcdOptions.configuration(to, option: "--to")
        configuration.transportSecurity.authorityPath = storeCa
        configuration.transportSecurity.certificatePath = storeCert
        configuration.transportSecurity.privateKeyPath = storeKey
        let source = try SQLiteMetaStore(directory: path, logger: logger)
        let target = try EtcdMetaStore(configuration, logger: logger)
        let count = try await MetadataCopy.run(from: source, to: target)
        await target.close()
        try source.close()
        print("Copied \(count) records. Start 'volmeta run --store \(to)' now.")
    }
}
