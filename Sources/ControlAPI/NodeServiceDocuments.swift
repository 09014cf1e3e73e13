// Replicated volumes in the node API: what the metadata service asks a node to serve, and what the
// node says of it. Docs/replication.md, "In a cluster".

/// One replica of a volume: where it is and which it is.
public struct NodePlacement: Sendable, Hashable, Codable {
    /// The node that has it.
    public var node: String
    /// Which replica it is; one that takes its place has another number.
    public var instance: UInt64
    /// Where primaries reach it: `HOST:PORT`; nil when that is not known.
    public var peerEndpoint: String?

    /// Creates a placement.
    public init(node: String, instance: UInt64, peerEndpoint: String? = nil) {
        self.node = node
        self.instance = instance
        self.peerEndpoint = peerEndpoint
    }
}

/// A replica that is filled to take another's place: Docs/replication.md, "Moving a replica".
public struct NodeMove: Sendable, Hashable, Codable {
    /// The one whose place it takes.
    public var from: UInt64
    /// The new one.
    public var to: NodePlacement
    /// Whether both sets of replicas are to count once the new one has everything; absent while they
    /// are not.
    public var joins: Bool?

    /// Creates a move.
    public init(from: UInt64, to: NodePlacement, joins: Bool? = nil) {
        self.from = from
        self.to = to
        self.joins = joins
    }
}

/// How far a move is, as the primary sees it.
public struct NodeMoveStatus: Sendable, Hashable, Codable {
    /// How far it is.
    public var phase: NodeMovePhase
    /// The new replica.
    public var replica: NodePeerStatus

    /// Creates a status.
    public init(phase: NodeMovePhase, replica: NodePeerStatus) {
        self.phase = phase
        self.replica = replica
    }
}

/// How far a move is.
public enum NodeMovePhase: String, Sendable, Hashable, Codable, CaseIterable {
    /// The new replica is being filled.
    case filling
    /// It has everything, and still counts for nothing.
    case filled
    /// Both sets of replicas count.
    case joining
    /// The new set has everything: the metadata may name it.
    case ready
}

/// Body of `PUT /v1/services/{id}`: a node is to be the primary of a volume.
///
/// It need not have a replica of it. Under the same lease epoch it may come again with other
/// placements, size or access; a higher epoch replaces it.
public struct NodeServiceAssignment: Sendable, Hashable, Codable {
    /// The volume's identity.
    public var volume: UInt64
    /// Its name, also of the export.
    public var name: String
    /// Its size.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: DurabilityMode
    /// The epoch of the replication protocol; it is in the metadata and was given to nobody else.
    public var leaseEpoch: UInt64
    /// The epoch of the export: clients find it as `NAME:EPOCH`.
    public var exportEpoch: UInt64
    /// Who may use it.
    public var access: NodeVolumeAccess
    /// How many complete replicas commit a write.
    public var writeQuorum: Int
    /// All its replicas that count.
    public var placements: [NodePlacement]
    /// A replica that is to take another's place; absent when none moves.
    public var move: NodeMove?
    /// The session of the node that the lease epoch was given to, as its registration said.
    ///
    /// A process that has another session, or none yet, must refuse (`unavailable`): its
    /// predecessor may have used the epoch already, and an epoch belongs to one process.
    public var session: UInt64?

    /// Creates an assignment.
    public init(
        volume: UInt64,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: DurabilityMode,
        leaseEpoch: UInt64,
        exportEpoch: UInt64,
        access: NodeVolumeAccess,
        writeQuorum: Int,
        placements: [NodePlacement],
        move: NodeMove? = nil,
        session: UInt64? = nil
    ) {
        self.move = move
        self.volume = volume
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.leaseEpoch = leaseEpoch
        self.exportEpoch = exportEpoch
        self.access = access
        self.writeQuorum = writeQuorum
        self.placements = placements
        self.session = session
    }
}

/// How far a primary is.
public enum NodeServiceState: String, Sendable, Hashable, Codable, CaseIterable {
    /// It asks replicas to refuse all primaries before it.
    case sealing
    /// It writes the tail of the one before again.
    case renewing
    /// Replicas follow it, and are not yet complete in sufficient number.
    case opening
    /// Requests are answered.
    case serving
    /// Too few replicas are to be reached: requests wait.
    case suspended
    /// It serves no more; `stopReason` says why.
    case stopped
}

/// How a primary sees one replica of its volume.
public struct NodePeerStatus: Sendable, Hashable, Codable {
    /// The node that has it.
    public var node: String
    /// Which replica it is.
    public var instance: UInt64
    /// Whether it is to be reached.
    public var isLinked: Bool
    /// Whether it counts for a commit.
    public var isComplete: Bool
    /// Writes that others have and it does not.
    public var behindCount: UInt64
    /// Whether its store has no room for what the primary has for it; absent when it has.
    public var lacksRoom: Bool?
    /// What is being done to make it complete; absent when nothing is.
    public var resync: String?
    /// Blocks of the volume that were looked at for that, in their order.
    public var resyncDoneCount: UInt64?
    /// Blocks of the volume.
    public var resyncTotalCount: UInt64?

    /// Creates a status.
    public init(
        node: String,
        instance: UInt64,
        isLinked: Bool,
        isComplete: Bool,
        behindCount: UInt64,
        lacksRoom: Bool? = nil,
        resync: String? = nil,
        resyncDoneCount: UInt64? = nil,
        resyncTotalCount: UInt64? = nil
    ) {
        self.node = node
        self.instance = instance
        self.isLinked = isLinked
        self.isComplete = isComplete
        self.behindCount = behindCount
        self.lacksRoom = lacksRoom
        self.resync = resync
        self.resyncDoneCount = resyncDoneCount
        self.resyncTotalCount = resyncTotalCount
    }
}

/// What a primary says of a volume that it was asked to serve.
public struct NodeServiceStatus: Sendable, Hashable, Codable {
    /// The volume's identity.
    public var volume: UInt64
    /// Its name.
    public var name: String
    /// The epoch that it serves under, or did.
    public var leaseEpoch: UInt64
    /// The epoch of its export.
    public var exportEpoch: UInt64
    /// Who may use it.
    public var access: NodeVolumeAccess
    /// How far it is.
    public var state: NodeServiceState
    /// Why it has stopped.
    public var stopReason: String?
    /// Whether it can go on only under a higher lease epoch.
    ///
    /// Not when it stopped because replicas follow a higher one: that is somebody else's.
    public var needsEpoch: Bool
    /// Whether writes are refused, because the stores of too few replicas have room; absent when they
    /// are not.
    public var refusesWrites: Bool?
    /// Connections of clients.
    public var connectionCount: Int
    /// Its replicas that count.
    public var replicas: [NodePeerStatus]
    /// The move under way; absent when there is none.
    public var move: NodeMoveStatus?

    /// Creates a status.
    public init(
        volume: UInt64,
        name: String,
        leaseEpoch: UInt64,
        exportEpoch: UInt64,
        access: NodeVolumeAccess,
        state: NodeServiceState,
        stopReason: String? = nil,
        needsEpoch: Bool = false,
        refusesWrites: Bool? = nil,
        connectionCount: Int = 0,
        replicas: [NodePeerStatus] = [],
        move: NodeMoveStatus? = nil
    ) {
        self.move = move
        self.volume = volume
        self.name = name
        self.leaseEpoch = leaseEpoch
        self.exportEpoch = exportEpoch
        self.access = access
        self.state = state
        self.stopReason = stopReason
        self.needsEpoch = needsEpoch
        self.refusesWrites = refusesWrites
        self.connectionCount = connectionCount
        self.replicas = replicas
    }
}

/// Answer of `GET /v1/services`: what a node serves of replicated volumes.
public struct NodeServiceList: Sendable, Hashable, Codable {
    /// The services, by name.
    public var services: [NodeServiceStatus]

    /// Creates a list.
    public init(services: [NodeServiceStatus]) { self.services = services }
}
