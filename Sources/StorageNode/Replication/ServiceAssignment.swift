// What the metadata service asks of a node that is to serve a volume, and what the node says of it.

public import BlockCore
public import LogStore
public import Replication

/// Where a replica is.
public struct ServicePlacement: Sendable, Hashable {
    /// Its node's name, for people.
    public var node: String
    /// Which replica.
    public var instance: ReplicaInstance
    /// Where its node takes connections of primaries; nil when nobody knows yet.
    public var address: PeerAddress?

    /// Creates a placement.
    public init(node: String, instance: ReplicaInstance, address: PeerAddress?) {
        self.node = node
        self.instance = instance
        self.address = address
    }
}

/// A replica that is filled to take another one's place.
public struct ServiceMove: Sendable, Hashable {
    /// The one whose place it takes.
    public var from: ReplicaInstance
    /// The new one.
    public var to: ServicePlacement
    /// Whether both sets of replicas are to count, once the new one has everything.
    public var joins: Bool

    /// Creates a move.
    public init(from: ReplicaInstance, to: ServicePlacement, joins: Bool) {
        self.from = from
        self.to = to
        self.joins = joins
    }
}

/// How far a move is, as the primary sees it.
public struct ServiceMoveStatus: Sendable, Hashable {
    /// How far it is.
    public var phase: MovePhase
    /// The new replica.
    public var peer: PeerSummary
}

/// A TCP address.
public struct PeerAddress: Sendable, Hashable {
    /// An address or a name.
    public var host: String
    /// The port.
    public var port: UInt16

    /// Creates an address.
    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }
}

/// A volume that a node is to serve, and under which epochs.
public struct ServiceAssignment: Sendable, Hashable {
    /// The volume.
    public var volume: VolumeID
    /// Its name, which with the export's epoch is the export's.
    public var name: String
    /// Its size.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: Durability
    /// The epoch to take over under; it was given to this node alone.
    public var leaseEpoch: Epoch
    /// The fencing number of the export.
    public var exportEpoch: UInt64
    /// Who may use it.
    public var access: VolumeAccess
    /// Replicas that make a write safe.
    public var writeQuorum: Int
    /// All replicas that count.
    public var placements: [ServicePlacement]
    /// A replica that is to take another one's place.
    public var move: ServiceMove?

    /// Creates an assignment.
    public init(
        volume: VolumeID,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: Durability,
        leaseEpoch: Epoch,
        exportEpoch: UInt64,
        access: VolumeAccess,
        writeQuorum: Int,
        placements: [ServicePlacement],
        move: ServiceMove? = nil
    ) {
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
        self.move = move
    }
}

/// Where a served volume is in its life.
public enum ServiceState: String, Sendable, Hashable {
    /// Waiting for enough replicas to promise the epoch.
    case sealing
    /// Writing the tail of the last epoch again.
    case renewing
    /// Waiting until enough replicas have it.
    case opening
    /// Requests are answered.
    case serving
    /// Too few replicas are there; requests wait.
    case suspended
    /// The epoch is over.
    case stopped
}

/// What a node says of a volume that it serves.
public struct ServiceStatus: Sendable, Hashable {
    /// What it was asked.
    public var assignment: ServiceAssignment
    /// Where it is.
    public var state: ServiceState
    /// Why it stopped.
    public var stopReason: String?
    /// Whether it would go on under another epoch.
    public var needsEpoch: Bool
    /// Open connections.
    public var connectionCount: Int
    /// Whether writes are refused, because the stores of too few replicas have room.
    public var refusesWrites: Bool
    /// The replicas that count; empty when it has stopped.
    public var peers: [PeerSummary]
    /// The move under way.
    public var move: ServiceMoveStatus?
}

/// Why a node refused to serve a volume.
public enum ServiceError: Error, Sendable, Hashable {
    /// The node has served it, or a replica has promised, under a higher epoch.
    case outdated
    /// A number is outside its limits.
    case invalid(String)
    /// The node is stopping.
    case stopping
    /// The node does not serve the volume under this epoch.
    case notServing
    /// Nobody knows whether it happened: to be asked again, here or of the next primary.
    case unknownOutcome
    /// The volume has as many snapshots as there may be.
    case tooManySnapshots
    /// Too few of the replicas' stores have room for another snapshot: it was not taken.
    case noRoom
}
