// volnode run: a node that serves its stores until it gets SIGTERM, SIGINT or SIGHUP.

import ArgumentParser
import BlockCore
import ControlAPI
import Foundation
import Glibc
import LogStore
import Logging
import ProgramMain
import Reactor
import ServiceLifecycle
import StorageNode
import UnixSignals

/// `volnode run`.
struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves stores over NBD and iSCSI until it gets SIGTERM, SIGINT or SIGHUP.",
        discussion: """
            With a metadata service, it says which volumes there are. Without one, --volume makes
            and exports volumes, for tests and simple use.

            Examples:
              volnode run --name n1 --store /var/lib/cairn/store --listen-nbd 127.0.0.1:10809 \\
                --admin 127.0.0.1:7401 --meta http://127.0.0.1:7400
              volnode run --name n1 --store /dev/nvme1n1 \\
                --identity 8f3a6c0d5b1e4792a4d0c7e916b25f38 --listen-nbd 0.0.0.0:10809 \\
                --advertise-nbd n1.example.org:10809 --admin 192.0.2.7:7401 \\
                --meta http://192.0.2.1:7400
              volnode run --store ./store --listen-nbd-unix ./nbd.sock --volume disk=4GiB
            """
    )

    /// How long requests under way may take to end after SIGTERM, in seconds: the drain of
    /// connections and a store's last checkpoint.
    static let shutdownSecondsMax: Int64 = 60

    @Option(help: "The node's name in the cluster.")
    var name = "node"

    @Option(help: ArgumentHelp("A store's file or device; repeat for more.", valueName: "path"))
    var store: [String]

    @Option(
        help: ArgumentHelp(
            "The store that must be there, as 'volnode format' named it; once for each --store, in "
                + "their order. Another is refused before anything is written.",
            valueName: "identity"
        ),
        transform: StoreIdentity.argument
    )
    var identity: [StoreIdentity] = []

    @Option(
        help: ArgumentHelp(
            "A store that the node had and comes back without, because its disk is lost; repeat for "
                + "more. The metadata service refuses a node that lacks one.",
            valueName: "identity"
        ),
        transform: StoreIdentity.argument
    )
    var lostStore: [StoreIdentity] = []

    @Option(
        help: ArgumentHelp("Where to serve NBD over TCP.", valueName: "host:port"),
        transform: HostPort.argument
    )
    var listenNbd: HostPort?

    @Option(help: ArgumentHelp("Where to serve NBD on a unix socket.", valueName: "path"))
    var listenNbdUnix: String?

    @OptionGroup var initiators: ISCSIOptions

    @Option(
        help: ArgumentHelp("Where to serve the node's own API.", valueName: "host:port"),
        transform: APIEndpoint.argument
    )
    var admin: APIEndpoint?

    @Option(
        help: ArgumentHelp(
            "Where other nodes reach the replicas that this one holds.",
            valueName: "host:port"
        ),
        transform: HostPort.argument
    )
    var listenPeer: HostPort?

    @Option(
        help: ArgumentHelp(
            "Where other nodes reach the replicas, if not at --listen-peer.",
            valueName: "host:port"
        ),
        transform: HostPort.advertised
    )
    var advertisePeer: HostPort?

    @Option(
        help: ArgumentHelp(
            "The directory of this node's certificate for links to other nodes, which are under TLS "
                + "then.",
            valueName: "directory"
        )
    )
    var peerTlsCertificates: String?

    @Option(
        help: ArgumentHelp(
            "Whether links to other nodes use TLS: off or require; must be said where they leave "
                + "this machine and there are no certificates."
        )
    )
    var peerTls: PeerTLSPolicy?

    @Option(help: "The zone that the node is in: replicas of a volume lie in different ones.")
    var zone: String?

    @Option(help: "The rack that the node is in.")
    var rack: String?

    @Option(help: "The machine that the node is on; default its name.")
    var failureHost: String?

    @Option(
        help: ArgumentHelp(
            "Where hosts reach NBD over TCP, if not at --listen-nbd.",
            valueName: "host:port"
        ),
        transform: HostPort.advertised
    )
    var advertiseNbd: HostPort?

    @Option(
        help: ArgumentHelp(
            "Where the metadata service reaches the node's own API, if not at --admin.",
            valueName: "host:port"
        ),
        transform: HostPort.advertised
    )
    var advertiseAdmin: HostPort?

    @Option(
        help: ArgumentHelp(
            "The metadata service to register with, or with commas all its programs.",
            valueName: "url"
        ),
        transform: ControlEndpoints.argument
    )
    var meta: ControlEndpoints?

    @Option(
        help: ArgumentHelp(
            "A volume to make if it is missing, and to export; repeat for more.",
            valueName: "name=size"
        ),
        transform: StandaloneVolume.argument
    )
    var volume: [StandaloneVolume] = []

    @Option(help: "The I/O engine: auto, uring or aio.")
    var engine: EngineChoice = .auto

    @Option(
        help: "Reactor threads; default one per store, at most one per CPU.",
        transform: Usage.number(1...NodeConfiguration.reactorCountMax)
    )
    var reactors: Int?

    @Option(
        help: ArgumentHelp("Memory for maps, per store.", valueName: "size"),
        transform: ByteSize.argument
    )
    var mapMemory = ByteSize(byteCount: 256 << 20)

    @Option(
        help: ArgumentHelp("Memory for recently read blocks, per store.", valueName: "size"),
        transform: ByteSize.argument
    )
    var cacheMemory = ByteSize(byteCount: 64 << 20)

    @Option(
        help: ArgumentHelp("Memory for requests and replies.", valueName: "size"),
        transform: ByteSize.argument
    )
    var bufferMemory = ByteSize(byteCount: 128 << 20)

    @Option(help: "Whether clients use TLS: off, allow or require.")
    var tls: TLSPolicy = .off

    @Option(help: ArgumentHelp("The directory of TLS certificates.", valueName: "directory"))
    var tlsCertificates: String?

    @Option(help: ArgumentHelp("The file of TLS pre-shared keys.", valueName: "file"))
    var tlsPsk: String?

    @Flag(help: "Let clients without a certificate in (encrypted, but anybody).")
    var tlsAnyClient = false

    @Flag(help: "Spread connections over all reactors instead of placing them with their store.")
    var spreadConnections = false

    @Flag(help: "Go through the page cache where the file system refuses direct I/O.")
    var buffered = false

    @Option(
        help: ArgumentHelp(
            "Open this --store, whose log is damaged, without the flushed writes behind the damage.",
            valueName: "path"
        )
    )
    var acceptLoss: [String] = []

    @Option(help: "What to log.")
    var logLevel: LogLevel = .info

    func run() async throws {
        let logger = logLevel.startLogging(as: "volnode")
        raiseDescriptorLimit()
        if let admin { try await requireFree(admin) }
        let wake = WakeSignal()
        let node = try await start(logger, wake)
        await warnOfAnyStore(node, logger)
        do {
            try await makeVolumes(node, logger)
            try await serve(node, logger, wake)
        } catch {
            await node.stop()
            throw error
        }
        logger.notice("stopped")
    }

    // MARK: - Starting

    private func start(_ logger: Logger, _ wake: WakeSignal) async throws -> StorageNode {
        let log = NodeLog(logger: logger)
        var configuration = nodeConfiguration
        try initiators.apply(to: &configuration)
        try AddressSpaceLimit.require(
            reserving: UInt64(configuration.memoryByteCount),
            advice: Failure.memoryAdvice
        )
        do throws(NodeError) {
            return try await StorageNode.start(configuration) { event in
                log.record(event)
                if event.isAboutServices { wake.signal() }
            }
        } catch { throw Failure(error) }
    }

    /// Says that whatever lies at the paths is opened: names of disks change places.
    private func warnOfAnyStore(_ node: StorageNode, _ logger: Logger) async {
        guard meta != nil, identity.isEmpty else { return }
        var options: [String] = []
        for index in node.storePaths.indices {
            guard let found = await node.identity(store: index) else { continue }
            options.append("--identity \(found.hexText)")
        }
        logger.warning(
            "no --identity: whatever store is at a path is opened",
            metadata: ["help": "Add \(options.joined(separator: " "))."]
        )
    }

    private var nodeConfiguration: NodeConfiguration {
        var listeners: [ListenAddress] = []
        if let listenNbd { listeners.append(.tcp(host: listenNbd.host, port: listenNbd.port)) }
        if let listenNbdUnix { listeners.append(.unix(path: listenNbdUnix)) }
        var configuration = NodeConfiguration(
            stores: store.indices.map { index in
                var store = StoreConfiguration(
                    path: store[index],
                    identity: identity.isEmpty ? nil : identity[index]
                )
                store.log.mapMemoryByteCount = Int(mapMemory.byteCount)
                store.log.cacheMemoryByteCount = Int(cacheMemory.byteCount)
                store.log.acceptsLoss = acceptLoss.contains(store.path)
                store.device.allowsBuffered = buffered
                return store
            },
            listeners: listeners
        )
        configuration.peerListener = listenPeer.map { .tcp(host: $0.host, port: $0.port) }
        configuration.peerTLS = peerTlsCertificates.map {
            .nodes(credentialsDirectory: $0, name: name)
        }
        configuration.allowsPlainPeers = peerTls == .off
        let cpuCount = ProcessInfo.processInfo.activeProcessorCount
        configuration.reactorCount = reactors ?? max(1, min(store.count, cpuCount))
        configuration.reactor.engine = engine
        configuration.bufferMemoryByteCount = Int(bufferMemory.byteCount)
        configuration.exportNaming = meta == nil ? .plain : .fenced
        configuration.spreadsConnections = spreadConnections
        configuration.tlsPolicy = tls
        if tls != .off {
            configuration.tls = TLSConfiguration(
                credentialsDirectory: tlsCertificates,
                verifyPeer: !tlsAnyClient,
                presharedKeysPath: tlsPsk
            )
        }
        return configuration
    }

    /// Each connection is a descriptor; the usual soft limit of 1024 is below our own.
    private func raiseDescriptorLimit() {
        var limit = rlimit()
        // SAFETY: the struct is borrowed for the calls.
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return
        }
        limit.rlim_cur = min(limit.rlim_max, 65_536)
        _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    // MARK: - Serving

    private func serve(
        _ node: StorageNode,
        _ logger: Logger,
        _ wake: WakeSignal
    ) async throws {
        var services: [any Service] = [NodeRunner(node: node)]
        if let directory = peerTlsCertificates {
            services.append(
                PeerCertificateWatch(node: node, directory: directory, logger: logger)
            )
        }
        if let admin {
            let service = NodeAdmin(node: node, name: name, nbdUnixPath: absoluteSocketPath)
            let registration = meta.map { endpoints in
                Registration(
                    client: Registration.client(of: endpoints),
                    name: name,
                    admin: service,
                    advertised: Registration.Addresses(
                        nbd: advertiseNbd,
                        admin: advertiseAdmin,
                        peer: advertisePeer,
                        failureDomain: FailureDomain(zone: zone, rack: rack, host: failureHost),
                        tls: tls.document
                    ),
                    lostStores: lostStore.map(\.hexText),
                    wake: wake,
                    logger: logger
                )
            }
            services.append(
                apiServer(router: nodeRouter(service: service), endpoint: admin, logger: logger) {
                    endpoint in
                    logger.notice("admin API", metadata: ["endpoint": "\(endpoint)"])
                    await registration?.adminListens(at: endpoint)
                }
            )
            if let registration { services.append(registration) }
        }
        for address in node.listeners {
            logger.notice("serving NBD", metadata: ["address": "\(address)"])
        }
        for address in node.iscsiListeners {
            logger.notice("serving iSCSI", metadata: ["address": "\(address)"])
        }
        // Ended in reverse: nobody is told of a node that is going, then no API, then no NBD.
        var configuration = ServiceGroupConfiguration(
            services: services.map { .init(service: $0) },
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

    private var absoluteSocketPath: String? {
        listenNbdUnix.map { path in
            path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
        }
    }
}

/// Keeps the node running until the program is to end.
struct NodeRunner: Service {
    let node: StorageNode

    func run() async throws {
        try? await gracefulShutdown()
        await node.stop()
    }
}
