// How a node makes itself known to the metadata service, and stays known.

import ControlAPI
import Logging
import ServiceLifecycle

/// Registers the node and sends heartbeats, for as long as the program runs.
///
/// The metadata service may be away at any time; the node serves on, and registers again when it
/// is back.
actor Registration: Service {
    /// Between two attempts while the service does not answer, in milliseconds.
    private static let retryMilliseconds = 1000

    /// How others reach the node: where, if that is not where it listens, and under TLS or not.
    struct Addresses: Sendable {
        var nbd: HostPort?
        var admin: HostPort?
        var peer: HostPort?
        /// What fails together with the node.
        var failureDomain: FailureDomain?
        var tls = NBDTransportSecurity.off
    }

    /// What asks the metadata service.
    ///
    /// Of one that has several programs, the one that leads may freeze: to wait for its answer for
    /// long would cost the node its lease with the next one.
    static func client(of endpoints: ControlEndpoints) -> ControlClient {
        ControlClient(
            endpoints: endpoints,
            answerMillisecondsMax: endpoints.all.count > 1
                ? APILimits.heartbeatAnswerMillisecondsMax : APILimits.answerMillisecondsMax
        )
    }

    private let client: ControlClient
    private let name: String
    private let admin: NodeAdmin
    private let advertised: Addresses
    private let lostStores: [String]
    private let wake: WakeSignal
    private let logger: Logger
    private var adminEndpoint: APIEndpoint?
    private var session: UInt64? {
        didSet { admin.session.value = session }
    }
    private var intervalMilliseconds = retryMilliseconds
    /// What was logged last of an attempt that failed; nil after one that did not.
    private var failure: ControlError?

    init(
        client: ControlClient,
        name: String,
        admin: NodeAdmin,
        advertised: Addresses,
        lostStores: [String],
        wake: WakeSignal,
        logger: Logger
    ) {
        self.client = client
        self.name = name
        self.admin = admin
        self.advertised = advertised
        self.lostStores = lostStores
        self.wake = wake
        self.logger = logger
    }

    /// Says where the admin API is; before, there is nothing to register.
    func adminListens(at endpoint: APIEndpoint) { adminEndpoint = endpoint }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                await self.step()
                await self.wake.wait(milliseconds: self.pauseMilliseconds)
            }
        }
    }

    private var pauseMilliseconds: Int {
        adminEndpoint == nil ? 50 : intervalMilliseconds
    }

    private func step() async {
        guard let adminEndpoint else { return }
        do throws(ControlError) {
            if let session {
                let stores = await admin.stores()
                try await client.heartbeat(
                    name,
                    NodeHeartbeat(
                        session: session,
                        space: StoreSpaceUsage(stores: stores.map(\.space)),
                        stores: NodeStore.told(stores),
                        services: try await admin.services()
                    )
                )
            } else {
                try await register(adminEndpoint)
            }
            if failure != nil { logger.notice("the metadata service answers again") }
            failure = nil
        } catch {
            if error.code == .nodeNotFound { session = nil }
            intervalMilliseconds = Self.retryMilliseconds
            // Once for each reason, not once a second.
            if error != failure { log(error) }
            failure = error
        }
    }

    private func log(_ error: ControlError) {
        var metadata: Logger.Metadata = ["reason": "\(error.detail)"]
        // What volctl's users are told when nothing answers is of no use to a node.
        if error.code == .unreachable {
            metadata["help"] = "Start volmeta there, or check --meta."
        } else if let help = error.help {
            metadata["help"] = "\(help)"
        }
        logger.warning("not registered with the metadata service; trying on", metadata: metadata)
    }

    private func register(_ adminEndpoint: APIEndpoint) async throws(ControlError) {
        let stores = await admin.stores()
        let result = try await client.registerNode(
            name,
            NodeRegistration(
                adminEndpoint: advertised.admin.map { "http://\($0)" } ?? "\(adminEndpoint)",
                nbdEndpoint: advertised.nbd.map { "\($0)" } ?? admin.nbdEndpoint,
                nbdUnixPath: admin.nbdUnixPath,
                nbdTLS: advertised.tls,
                storeIdentity: await admin.identityText(),
                version: Volnode.version,
                space: StoreSpaceUsage(stores: stores.map(\.space)),
                stores: NodeStore.told(stores),
                lostStores: lostStores.isEmpty ? nil : lostStores,
                peerEndpoint: advertised.peer.map { "\($0)" } ?? admin.peerEndpoint,
                failureDomain: advertised.failureDomain
            )
        )
        session = result.session
        intervalMilliseconds = max(100, result.heartbeatIntervalMilliseconds)
        logger.notice("registered with the metadata service", metadata: ["node": "\(name)"])
    }
}
