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

/// How much room a store has, as its node judges it.
public enum StoreRoom: String, Sendable, Hashable, Codable, CaseIterable, Comparable {
    /// Enough.
    case ample
    /// Little: operators are told.
    case scarce
    /// It has refused writes within the last minute.
    case refusing
    /// Writes wait: the file system that the store's file lies on has no space for it.
    case waiting

    /// Less room is greater.
    public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }

    private var rank: Int {
        switch self {
        case .ample: 0
        case .scarce: 1
        case .refusing: 2
        case .waiting: 3
        }
    }
}

/// Where a store's bytes are, or those of all stores of a node.
public struct StoreSpaceUsage: Sendable, Hashable, Codable {
    /// Bytes of the device used for data and maps.
    public var capacityByteCount: UInt64
    /// Bytes of live blocks and map pages.
    public var liveByteCount: UInt64
    /// Bytes that new data can take before writes fail.
    public var availableByteCount: UInt64
    /// Bytes dead but not yet cleaned.
    public var garbageByteCount: UInt64
    /// How much of the fullest store is used, in percent; absent from nodes that do not tell.
    public var fullestPercent: Int?
    /// The room in the store that has least, as the node judges it; absent likewise.
    public var room: StoreRoom?

    /// Creates an account.
    public init(
        capacityByteCount: UInt64,
        liveByteCount: UInt64,
        availableByteCount: UInt64,
        garbageByteCount: UInt64,
        fullestPercent: Int? = nil,
        room: StoreRoom? = nil
    ) {
        self.capacityByteCount = capacityByteCount
        self.liveByteCount = liveByteCount
        self.availableByteCount = availableByteCount
        self.garbageByteCount = garbageByteCount
        self.fullestPercent = fullestPercent
        self.room = room
    }

    /// The account of all stores of a node: bytes are added, of the rest the worst one counts, so
    /// that a full store is seen beside an empty one.
    public init(stores: [StoreSpaceUsage]) {
        self.init(
            capacityByteCount: stores.reduce(0) { $0 + $1.capacityByteCount },
            liveByteCount: stores.reduce(0) { $0 + $1.liveByteCount },
            availableByteCount: stores.reduce(0) { $0 + $1.availableByteCount },
            garbageByteCount: stores.reduce(0) { $0 + $1.garbageByteCount },
            fullestPercent: stores.map(\.usedPercent).max(),
            room: stores.compactMap(\.room).max()
        )
    }

    /// How much is used, in percent, cut; of the fullest store where the node tells of it.
    public var usedPercent: Int {
        if let fullestPercent { return min(max(fullestPercent, 0), 100) }
        guard capacityByteCount > 0 else { return 0 }
        guard liveByteCount < capacityByteCount else { return 100 }
        // Compared before it is converted, since others write these numbers; and cut to 99, since
        // the quotient of large ones may be rounded up to one.
        return min(Int(Double(liveByteCount) / Double(capacityByteCount) * 100), 99)
    }
}

/// One store of a node.
public struct NodeStore: Sendable, Hashable, Codable {
    /// Its file or device, as the node was started with; of a long one, its end.
    public var path: String
    /// Its identity, 32 hex digits; absent while it is not open.
    public var identity: String?
    /// Where its bytes are.
    public var space: StoreSpaceUsage

    /// Creates a store's document.
    public init(path: String, identity: String?, space: StoreSpaceUsage) {
        self.path = path
        self.identity = identity
        self.space = space
    }

    /// What a node tells of its stores: the first ones, and of long paths the end, so that it stays
    /// within the limits of a request.
    public static func told(_ stores: [NodeStore]) -> [NodeStore] {
        stores.prefix(APILimits.nodeStoreCountMax).map { store in
            var store = store
            var path = Substring(store.path)
            while path.utf8.count > APILimits.endpointByteCountMax { path.removeFirst() }
            store.path = String(path)
            return store
        }
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
        lostStores: [String]? = nil
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

    /// Creates a body.
    public init(session: UInt64, space: StoreSpaceUsage, stores: [NodeStore]? = nil) {
        self.session = session
        self.space = space
        self.stores = stores
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
