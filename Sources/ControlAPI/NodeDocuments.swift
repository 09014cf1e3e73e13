// Nodes as the control API shows them, and what they tell about themselves.

public import Foundation

/// Whether a node is heard from.
public enum NodeState: String, Sendable, Hashable, Codable, CaseIterable {
    /// Its heartbeats arrive.
    case up
    /// They stopped.
    case down
}

/// Whether a node's NBD server wants TLS of its clients.
public enum NBDTransportSecurity: String, Sendable, Hashable, Codable, CaseIterable {
    /// It refuses TLS.
    case off
    /// Clients choose.
    case allow
    /// It serves nobody without.
    case require
}

/// A registered node.
public struct Node: Sendable, Hashable, Codable {
    /// Its name.
    public var name: String
    /// Whether it is heard from.
    public var state: NodeState
    /// Whether it takes new volumes.
    public var draining: Bool
    /// Where its API is: `http://HOST:PORT` or `unix:PATH`.
    public var adminEndpoint: String
    /// Where its NBD server is: `HOST:PORT`.
    public var nbdEndpoint: String?
    /// Its NBD server's unix socket.
    public var nbdUnixPath: String?
    /// Whether its NBD server wants TLS.
    public var nbdTLS: NBDTransportSecurity
    /// The identity of its store.
    public var storeIdentity: String
    /// Its program's version.
    public var version: String
    /// Where its store's bytes are, as last heard; absent until it was heard from.
    public var space: StoreSpaceUsage?
    /// Its stores, as last heard; absent as `space` is, and from nodes that do not tell.
    public var stores: [NodeStore]?
    /// The number of volumes placed on it.
    public var volumeCount: Int
    /// Of these, those of which others have replicas too.
    public var replicaCount: Int?
    /// The replicated volumes that it serves to hosts.
    public var primaryCount: Int?
    /// While it drains: of its replicas, those that are moving elsewhere now.
    public var movingCount: Int?
    /// While it drains: why a replica has found no other place; absent when all have.
    public var drainProblem: String?
    /// The sizes of those on it volumes together, in bytes; thin as they are, it may be more than there
    /// is room for.
    public var provisionedByteCount: UInt64?
    /// When it was last heard from; absent until the first time since the service started.
    public var lastSeenAt: Date?

    /// The names on the wire, before the snake_case of ``ControlJSON``.
    enum CodingKeys: String, CodingKey {
        case name
        case state
        case draining
        case adminEndpoint
        case nbdEndpoint
        case nbdUnixPath
        case nbdTLS = "nbdTls"
        case storeIdentity
        case version
        case space
        case stores
        case volumeCount
        case replicaCount
        case primaryCount
        case movingCount
        case drainProblem
        case provisionedByteCount
        case lastSeenAt
    }

    /// Creates a node's document.
    public init(
        name: String,
        state: NodeState,
        draining: Bool,
        adminEndpoint: String,
        nbdEndpoint: String?,
        nbdUnixPath: String?,
        nbdTLS: NBDTransportSecurity,
        storeIdentity: String,
        version: String,
        space: StoreSpaceUsage?,
        stores: [NodeStore]? = nil,
        volumeCount: Int,
        replicaCount: Int? = nil,
        primaryCount: Int? = nil,
        movingCount: Int? = nil,
        drainProblem: String? = nil,
        provisionedByteCount: UInt64? = nil,
        lastSeenAt: Date?
    ) {
        self.name = name
        self.state = state
        self.draining = draining
        self.adminEndpoint = adminEndpoint
        self.nbdEndpoint = nbdEndpoint
        self.nbdUnixPath = nbdUnixPath
        self.nbdTLS = nbdTLS
        self.storeIdentity = storeIdentity
        self.version = version
        self.space = space
        self.stores = stores
        self.volumeCount = volumeCount
        self.replicaCount = replicaCount
        self.primaryCount = primaryCount
        self.movingCount = movingCount
        self.drainProblem = drainProblem
        self.provisionedByteCount = provisionedByteCount
        self.lastSeenAt = lastSeenAt
    }
}

/// All nodes, by name.
public struct NodeList: Sendable, Hashable, Codable {
    /// The nodes.
    public var nodes: [Node]

    /// Creates a list.
    public init(nodes: [Node]) { self.nodes = nodes }
}

/// What fails together: nodes with the same zone, rack or host do.
public struct FailureDomain: Sendable, Hashable, Codable {
    /// The zone, such as a building or a power feed.
    public var zone: String?
    /// The rack.
    public var rack: String?
    /// The machine.
    public var host: String?

    /// Creates a description.
    public init(zone: String? = nil, rack: String? = nil, host: String? = nil) {
        self.zone = zone
        self.rack = rack
        self.host = host
    }
}

/// Body of `PUT /v1/nodes/{node}`: a node registers itself.
public struct NodeRegistration: Sendable, Hashable, Codable {
    /// Where its API is: `http://HOST:PORT` or `unix:PATH`.
    public var adminEndpoint: String
    /// Where its NBD server is: `HOST:PORT`, as clients reach it.
    public var nbdEndpoint: String?
    /// Its NBD server's unix socket.
    public var nbdUnixPath: String?
    /// Whether its NBD server wants TLS; absent for off.
    public var nbdTLS: NBDTransportSecurity?
    /// The identity of its first store, 32 hex digits; a name is bound to the stores it came with.
    public var storeIdentity: String
    /// Its program's version.
    public var version: String
    /// Its machine, see ``MachineIdentifier``.
    public var machineID: String?
    /// Where its store's bytes are.
    public var space: StoreSpaceUsage
    /// Its stores one by one; absent from nodes that do not tell.
    public var stores: [NodeStore]?
    /// The identities of stores that it had and comes back without, since their disks are lost.
    public var lostStores: [String]?
    /// Where primaries reach its replicas: `HOST:PORT`; absent from nodes that hold none.
    public var peerEndpoint: String?
    /// What fails together with it; absent from nodes that do not tell.
    public var failureDomain: FailureDomain?

    /// The names on the wire, before the snake_case of ``ControlJSON``.
    enum CodingKeys: String, CodingKey {
        case adminEndpoint
        case nbdEndpoint
        case nbdUnixPath
        case nbdTLS = "nbdTls"
        case storeIdentity
        case version
        case machineID = "machineId"
        case space
        case stores
        case lostStores
        case peerEndpoint
        case failureDomain
    }

    /// Creates a body.
    public init(
        adminEndpoint: String,
        nbdEndpoint: String?,
        nbdUnixPath: String?,
        nbdTLS: NBDTransportSecurity? = nil,
        storeIdentity: String,
        version: String,
        machineID: String? = MachineIdentifier.current,
        space: StoreSpaceUsage,
        stores: [NodeStore]? = nil,
        lostStores: [String]? = nil,
        peerEndpoint: String? = nil,
        failureDomain: FailureDomain? = nil
    ) {
        self.adminEndpoint = adminEndpoint
        self.nbdEndpoint = nbdEndpoint
        self.nbdUnixPath = nbdUnixPath
        self.nbdTLS = nbdTLS
        self.storeIdentity = storeIdentity
        self.version = version
        self.machineID = machineID
        self.space = space
        self.stores = stores
        self.lostStores = lostStores
        self.peerEndpoint = peerEndpoint
        self.failureDomain = failureDomain
    }
}

/// Answer to a registration.
public struct NodeRegistrationResult: Sendable, Hashable, Codable {
    /// The node's session; each heartbeat carries it.
    public var session: UInt64
    /// How often to send a heartbeat, in milliseconds.
    public var heartbeatIntervalMilliseconds: Int

    /// Creates an answer.
    public init(session: UInt64, heartbeatIntervalMilliseconds: Int) {
        self.session = session
        self.heartbeatIntervalMilliseconds = heartbeatIntervalMilliseconds
    }
}

/// Body of `POST /v1/nodes/{node}/heartbeat`.
///
/// An answer of 404 (``ControlError/Code/nodeNotFound``) means that the service does not know
/// the session any more; the node registers again.
public struct NodeHeartbeat: Sendable, Hashable, Codable {
    /// The session that the registration gave.
    public var session: UInt64
    /// Where its store's bytes are.
    public var space: StoreSpaceUsage
    /// Its stores one by one; absent from nodes that do not tell.
    public var stores: [NodeStore]?
    /// The replicated volumes that it is the primary of; absent from nodes that do not tell.
    ///
    /// With every heartbeat, and at once when one stops or the state of a replica changes.
    public var services: [NodeServiceStatus]?

    /// Creates a body.
    public init(
        session: UInt64,
        space: StoreSpaceUsage,
        stores: [NodeStore]? = nil,
        services: [NodeServiceStatus]? = nil
    ) {
        self.session = session
        self.space = space
        self.stores = stores
        self.services = services
    }
}

/// Body of `PATCH /v1/nodes/{node}`.
public struct NodeUpdate: Sendable, Hashable, Codable {
    /// Whether it takes no new volumes.
    public var draining: Bool

    /// Creates a body.
    public init(draining: Bool) { self.draining = draining }
}

/// Answer of `GET /v1/health`.
public struct HealthReport: Sendable, Hashable, Codable {
    /// `ok`: the service and its database answer.
    public var status: String
    /// Nodes that are heard from.
    public var nodesUp: Int
    /// Nodes that are not.
    public var nodesDown: Int
    /// The newest revision of the metadata.
    public var revision: UInt64

    /// Creates a report.
    public init(status: String, nodesUp: Int, nodesDown: Int, revision: UInt64) {
        self.status = status
        self.nodesUp = nodesUp
        self.nodesDown = nodesDown
        self.revision = revision
    }
}

/// Answer of `GET /v1/version`.
public struct VersionReport: Sendable, Hashable, Codable {
    /// The program: `volmeta` or `volnode`.
    public var program: String
    /// Its version.
    public var version: String
    /// The version of the API, in the paths as `/v1`.
    public var apiVersion: Int

    /// Creates a report.
    public init(program: String, version: String, apiVersion: Int = 1) {
        self.program = program
        self.version = version
        self.apiVersion = apiVersion
    }
}
