// The node API: what volmeta asks of a volnode. Internal to the cluster.

/// Who may use a volume through a node; its snapshots are exported read-only in any case.
public enum NodeVolumeAccess: String, Sendable, Hashable, Codable, CaseIterable {
    /// Nobody: it is not exported, and open connections to it are closed.
    case none
    /// It is exported read-only.
    case readOnly = "read_only"
    /// It is exported for reading and writing.
    case readWrite = "read_write"
}

/// Answer of `GET /v1/node`.
public struct NodeReport: Sendable, Hashable, Codable {
    /// The node's name.
    public var name: String
    /// Its program's version.
    public var version: String
    /// The identity of its first store, 32 hex digits.
    public var storeIdentity: String
    /// The identities of all its stores; absent from nodes that do not tell.
    public var storeIdentities: [String]?
    /// Where its store's bytes are.
    public var space: StoreSpaceUsage
    /// Which I/O engine runs and why, one line per finding.
    public var engine: [String]
    /// Where its NBD server is: `HOST:PORT`.
    public var nbdEndpoint: String?
    /// Its NBD server's unix socket.
    public var nbdUnixPath: String?
    /// Seconds since it started.
    public var uptimeSeconds: UInt64

    /// Creates a report.
    public init(
        name: String,
        version: String,
        storeIdentity: String,
        storeIdentities: [String]? = nil,
        space: StoreSpaceUsage,
        engine: [String],
        nbdEndpoint: String?,
        nbdUnixPath: String?,
        uptimeSeconds: UInt64
    ) {
        self.name = name
        self.version = version
        self.storeIdentity = storeIdentity
        self.storeIdentities = storeIdentities
        self.space = space
        self.engine = engine
        self.nbdEndpoint = nbdEndpoint
        self.nbdUnixPath = nbdUnixPath
        self.uptimeSeconds = uptimeSeconds
    }
}

/// Answer of `GET /v1/stats`: plain counters by name, such as `nbd.requests`.
public struct NodeStatistics: Sendable, Hashable, Codable {
    /// The counters; they only grow while the node runs, gauges are named `….now`.
    public var counters: [String: UInt64]

    /// Creates a report.
    public init(counters: [String: UInt64]) { self.counters = counters }
}

/// A volume as its node knows it.
public struct NodeVolume: Sendable, Hashable, Codable {
    /// Its identity.
    public var id: UInt64
    /// Its export name.
    public var name: String
    /// Its size.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: DurabilityMode
    /// Who may use it.
    public var access: NodeVolumeAccess
    /// The fencing number of that; a node of a cluster exports the volume as `NAME:EPOCH`.
    public var epoch: UInt64
    /// Text that the metadata service keeps with it.
    public var descriptor: String
    /// The number of layers in its stack, the top one included.
    public var layerCount: Int
    /// The layer that takes its writes; absent from nodes that do not tell.
    ///
    /// It is another one after each snapshot and each rollback.
    public var topLayer: UInt64?
    /// Its snapshots, oldest first.
    public var snapshots: [NodeSnapshot]
    /// Where its bytes are.
    public var space: SpaceUsage
    /// Which replica it is, and how far; absent for a volume that is not replicated.
    public var replica: NodeReplica?

    /// Creates a volume's document.
    public init(
        id: UInt64,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: DurabilityMode,
        access: NodeVolumeAccess,
        epoch: UInt64,
        descriptor: String,
        layerCount: Int,
        topLayer: UInt64? = nil,
        snapshots: [NodeSnapshot],
        space: SpaceUsage,
        replica: NodeReplica? = nil
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.access = access
        self.epoch = epoch
        self.descriptor = descriptor
        self.layerCount = layerCount
        self.topLayer = topLayer
        self.snapshots = snapshots
        self.space = space
        self.replica = replica
    }
}

/// All volumes of a node, by name.
public struct NodeVolumeList: Sendable, Hashable, Codable {
    /// The volumes.
    public var volumes: [NodeVolume]

    /// Creates a list.
    public init(volumes: [NodeVolume]) { self.volumes = volumes }
}

/// A snapshot as its node knows it.
public struct NodeSnapshot: Sendable, Hashable, Codable {
    /// Its name, without the volume's.
    public var name: String
    /// The sealed layer.
    public var layer: UInt64
    /// The volume's size when it was taken.
    public var byteCount: UInt64
    /// Bytes that the layer itself holds.
    public var ownByteCount: UInt64
    /// The number of clones that stand on it.
    public var cloneCount: Int
    /// What it is called in all replicas; absent for one of a volume that is not replicated.
    public var replica: NodeReplicaSnapshot?

    /// Creates a snapshot's document.
    public init(
        name: String,
        layer: UInt64,
        byteCount: UInt64,
        ownByteCount: UInt64,
        cloneCount: Int,
        replica: NodeReplicaSnapshot? = nil
    ) {
        self.name = name
        self.layer = layer
        self.byteCount = byteCount
        self.ownByteCount = ownByteCount
        self.cloneCount = cloneCount
        self.replica = replica
    }
}

/// Body of `POST /v1/volumes` of the node API.
public struct NodeVolumeCreation: Sendable, Hashable, Codable {
    /// The identity that the metadata service gave.
    public var id: UInt64
    /// The export name.
    public var name: String
    /// The size.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: DurabilityMode
    /// The epoch that it begins with, 0 when absent.
    ///
    /// Not that of an earlier volume of the name: who was given that must not find this one.
    public var epoch: UInt64?
    /// Text to keep with it, at most 2048 bytes.
    public var descriptor: String
    /// What makes it a replica; absent for a volume that is not replicated.
    public var replica: NodeReplicaCreation?

    /// Creates a body.
    public init(
        id: UInt64,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: DurabilityMode,
        epoch: UInt64? = nil,
        descriptor: String,
        replica: NodeReplicaCreation? = nil
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.epoch = epoch
        self.descriptor = descriptor
        self.replica = replica
    }
}

/// Body of `POST /v1/volumes/{id}/snapshots/{snapshot}/clones` of the node API.
///
/// Size and block size are the snapshot's.
public struct NodeCloneCreation: Sendable, Hashable, Codable {
    /// The identity of the new volume.
    public var id: UInt64
    /// Its export name.
    public var name: String
    /// When a write to it is acknowledged.
    public var durability: DurabilityMode
    /// The epoch that it begins with, 0 when absent.
    ///
    /// Not that of an earlier volume of the name: who was given that must not find this one.
    public var epoch: UInt64?
    /// Text to keep with it, at most 2048 bytes.
    public var descriptor: String

    /// Creates a body.
    public init(
        id: UInt64,
        name: String,
        durability: DurabilityMode,
        epoch: UInt64? = nil,
        descriptor: String
    ) {
        self.id = id
        self.name = name
        self.durability = durability
        self.epoch = epoch
        self.descriptor = descriptor
    }
}

/// Body of `PATCH /v1/volumes/{id}` of the node API; absent fields stay as they are.
public struct NodeVolumeUpdate: Sendable, Hashable, Codable {
    /// The new size.
    public var byteCount: UInt64?
    /// Who may use it.
    public var access: NodeVolumeAccess?
    /// The fencing number of that.
    ///
    /// Those who were given the volume under a lower one lose it first; a lower one than the
    /// node has heard of is refused.
    public var epoch: UInt64?
    /// The new export name.
    public var name: String?
    /// The new text to keep with it.
    public var descriptor: String?

    /// Creates a body.
    public init(
        byteCount: UInt64? = nil,
        access: NodeVolumeAccess? = nil,
        epoch: UInt64? = nil,
        name: String? = nil,
        descriptor: String? = nil
    ) {
        self.byteCount = byteCount
        self.access = access
        self.epoch = epoch
        self.name = name
        self.descriptor = descriptor
    }
}
