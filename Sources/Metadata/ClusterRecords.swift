// What the metadata holds, as JSON values of the store. Fields may be added; a reader of an older
// version ignores them and, since it rewrites whole records, such a mix is not supported: the
// database's format number guards it.

public import Foundation

/// A record and the revision it was read at.
public struct Versioned<Record: Sendable & Hashable>: Sendable, Hashable {
    /// The record.
    public var value: Record
    /// The revision that last changed it.
    public var revision: MetaRevision

    /// Creates a record that was read, or changed since.
    public init(value: Record, revision: MetaRevision) {
        self.value = value
        self.revision = revision
    }
}

/// A volume.
public struct VolumeRecord: Sendable, Hashable, Codable {
    /// Where it is in its life.
    public enum State: String, Sendable, Hashable, Codable {
        /// Its node is being asked to make it.
        case creating
        /// It exists.
        case ready
        /// Its node is being asked to delete it.
        case deleting
    }

    /// The snapshot that it was cloned from.
    public struct Source: Sendable, Hashable, Codable {
        /// The volume's identity.
        public var volumeID: UInt64
        /// The volume's name then.
        public var volumeName: String
        /// The snapshot.
        public var snapshot: String
        /// What the replicas of a replicated volume call it; nil otherwise.
        public var mark: SnapshotMarkRecord?

        /// Creates a source.
        public init(
            volumeID: UInt64,
            volumeName: String,
            snapshot: String,
            mark: SnapshotMarkRecord? = nil
        ) {
            self.volumeID = volumeID
            self.volumeName = volumeName
            self.snapshot = snapshot
            self.mark = mark
        }
    }

    /// Its identity.
    public var id: UInt64
    /// Its name.
    public var name: String
    /// Its size.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// `writeback` or `writethrough`.
    public var durability: String
    /// Where it is in its life.
    public var state: State
    /// The node that serves it.
    public var primary: String
    /// The nodes that hold it.
    public var replicas: [String]
    /// What it was cloned from.
    public var source: Source?
    /// When it was made.
    public var createdAt: Date
    /// The fencing number of its writer.
    public var epoch: UInt64
    /// The change that is under way: its node may or may not have made it yet.
    ///
    /// There is at most one; that a record has none means that node and metadata agree.
    public var pending: PendingOperation?
    /// Its replicas; nil when it is not replicated: then `primary` has all of it.
    public var placements: [PlacementRecord]?
    /// How often a replica was replaced: nodes keep the list with it, and the highest counts.
    public var placementGeneration: UInt64?
    /// The newest epoch that a primary of it was given; it only grows.
    public var leaseEpoch: UInt64?
    /// How many complete replicas commit a write.
    public var writeQuorum: Int?
    /// That hosts have it; nil while nobody has, and when it is not replicated.
    public var served: ServedRecord?
    /// A replica that moves to another node.
    public var move: ReplicaMoveRecord?
    /// That its primary serves it to nobody, for its replicas' sake.
    public var tended: TendedRecord?

    /// Creates a record.
    public init(
        id: UInt64,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: String,
        state: State,
        primary: String,
        replicas: [String],
        source: Source?,
        createdAt: Date
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.state = state
        self.primary = primary
        self.replicas = replicas
        self.source = source
        self.createdAt = createdAt
        epoch = 0
    }
}

/// A change of a volume between its intent and its end.
public struct PendingOperation: Sendable, Hashable, Codable {
    /// What is changed.
    ///
    /// Each can be repeated on the node without harm while it is pending.
    public enum Kind: Sendable, Hashable, Codable {
        /// Makes the volume, as its record says.
        case create
        /// Makes the volume from the snapshot that its record names as source.
        case clone
        /// Deletes the volume.
        case delete
        /// Gives it another size.
        case resize(byteCount: UInt64)
        /// Takes a snapshot.
        ///
        /// The others only when it is replicated: what the replicas are to call it, and, while no
        /// host has the volume, who serves it for that time, under the lease epoch that is next.
        case createSnapshot(
            name: String,
            id: UInt64? = nil,
            primary: String? = nil,
            session: UInt64? = nil
        )
        /// Deletes a snapshot.
        case deleteSnapshot(name: String)
        /// Goes back to a snapshot; nobody may write while it is pending.
        ///
        /// `topLayer` took the volume's writes before, where the node tells: once another one
        /// does, it has gone back. `placements` are the replicas that a replicated volume has
        /// then, which begin in the epoch before the volume's lease epoch, as that is from now on.
        case rollback(
            snapshot: String,
            topLayer: UInt64?,
            placements: [PlacementRecord]? = nil
        )
        /// Gives the volume to a host; with `takeover` everyone else loses it.
        ///
        /// `primary` serves it from then on, `from` did before; both only when it is replicated
        /// and another lease epoch is needed.
        case attach(
            AttachmentRecord,
            takeover: Bool,
            primary: String? = nil,
            from: String? = nil,
            session: UInt64? = nil
        )
        /// Gives a replicated volume to another primary, for the same hosts.
        case move(primary: String, from: String?, session: UInt64?)
        /// Takes it from a host.
        case detach(host: String)
    }

    /// The client's name for the operation.
    public var key: String
    /// What is changed.
    public var kind: Kind
    /// When it began.
    public var startedAt: Date
    /// Further names for it: those of the same request, made again while it was pending.
    public var otherKeys: [String]?

    /// The most further names.
    ///
    /// Chosen so that all fit a transaction.
    public static var otherKeyCountMax: Int { 16 }

    /// Whether there is room for a further name.
    public var takesKeys: Bool { (otherKeys ?? []).count < Self.otherKeyCountMax }

    /// Whether the volume's primary may change while this is under way: what is asked of one can
    /// be asked of the next.
    public var leavesPrimaryFree: Bool {
        switch kind {
        case .createSnapshot, .deleteSnapshot: true
        default: false
        }
    }

    /// All names for it.
    var keys: [String] { [key] + (otherKeys ?? []) }

    /// Whether a client means this operation by `key`.
    public func isKnown(as key: String) -> Bool { keys.contains(key) }

    /// Creates a pending operation.
    public init(key: String, kind: Kind, startedAt: Date) {
        self.key = key
        self.kind = kind
        self.startedAt = startedAt
    }
}

/// What is known of a client's operation, so that repeating it does nothing twice.
public struct OperationRecord: Sendable, Hashable, Codable {
    /// The request, so that a key used for another one is noticed.
    public var request: String
    /// The volume it is about, if any.
    public var volumeID: UInt64?
    /// Whether it has ended.
    public var isDone: Bool
    /// When it began.
    public var startedAt: Date
    /// When it ended; absent before that, and in records of older programs.
    public var endedAt: Date?

    /// Creates a record.
    public init(request: String, volumeID: UInt64?, isDone: Bool, startedAt: Date) {
        self.request = request
        self.volumeID = volumeID
        self.isDone = isDone
        self.startedAt = startedAt
    }
}

/// A snapshot.
public struct SnapshotRecord: Sendable, Hashable, Codable {
    /// Its name, without the volume's.
    public var name: String
    /// The sealed layer on the node; 0 when the volume is replicated.
    public var layer: UInt64
    /// The volume's size when it was taken.
    public var byteCount: UInt64
    /// When it was taken.
    public var createdAt: Date
    /// What the replicas of a replicated volume call it; nil otherwise.
    public var mark: SnapshotMarkRecord?

    /// Creates a record.
    public init(
        name: String,
        layer: UInt64,
        byteCount: UInt64,
        createdAt: Date,
        mark: SnapshotMarkRecord? = nil
    ) {
        self.name = name
        self.layer = layer
        self.byteCount = byteCount
        self.createdAt = createdAt
        self.mark = mark
    }
}

/// An image.
public struct ImageRecord: Sendable, Hashable, Codable {
    /// The image's name.
    public var name: String
    /// The version of it.
    public var version: String
    /// The volume whose snapshot it is.
    public var volumeID: UInt64
    /// That volume's name.
    public var volumeName: String
    /// The snapshot.
    public var snapshot: String
    /// The size of a clone.
    public var byteCount: UInt64
    /// What it is, for people.
    public var description: String
    /// The SHA-256 of its content in hex.
    public var sha256: String?
    /// When it was catalogued.
    public var createdAt: Date

    /// Creates a record.
    public init(
        name: String,
        version: String,
        volumeID: UInt64,
        volumeName: String,
        snapshot: String,
        byteCount: UInt64,
        description: String,
        sha256: String?,
        createdAt: Date
    ) {
        self.name = name
        self.version = version
        self.volumeID = volumeID
        self.volumeName = volumeName
        self.snapshot = snapshot
        self.byteCount = byteCount
        self.description = description
        self.sha256 = sha256
        self.createdAt = createdAt
    }
}

/// A volume that was forgotten with its node, and may come back with it.
public struct LostVolumeRecord: Sendable, Hashable, Codable {
    /// Its name then.
    public var name: String
    /// The node.
    public var node: String
    /// The identities of the node's stores, one of which has it; nil in records of older versions.
    public var storeIdentities: [String]?
    /// Its epoch then.
    public var epoch: UInt64
    /// When it was forgotten.
    public var lostAt: Date

    /// Creates a record.
    public init(
        name: String,
        node: String,
        storeIdentities: [String]?,
        epoch: UInt64,
        lostAt: Date
    ) {
        self.name = name
        self.node = node
        self.storeIdentities = storeIdentities
        self.epoch = epoch
        self.lostAt = lostAt
    }
}

/// A node.
public struct NodeRecord: Sendable, Hashable, Codable {
    /// Its name.
    public var name: String
    /// Where its API is.
    public var adminEndpoint: String
    /// Where its NBD server is: `HOST:PORT`.
    public var nbdEndpoint: String?
    /// Its NBD server's unix socket.
    public var nbdUnixPath: String?
    /// Whether its NBD server wants TLS: `off`, `allow` or `require`; nil for off.
    public var nbdTLS: String?
    /// The identity of its first store.
    public var storeIdentity: String
    /// The identities of its other stores; nil when it has none, or does not tell.
    public var otherStoreIdentities: [String]?
    /// Its program's version.
    public var version: String
    /// Its machine.
    public var machineID: String?
    /// Whether it takes no new volumes.
    public var draining: Bool
    /// How often it has registered.
    public var incarnation: UInt64
    /// Where primaries reach its replicas: `HOST:PORT`.
    public var peerEndpoint: String?
    /// What fails together with it.
    public var failureDomain: FailureDomainRecord?

    /// Creates a record.
    public init(
        name: String,
        adminEndpoint: String,
        nbdEndpoint: String?,
        nbdUnixPath: String?,
        nbdTLS: String?,
        storeIdentity: String,
        otherStoreIdentities: [String]? = nil,
        version: String,
        machineID: String?,
        draining: Bool,
        incarnation: UInt64,
        peerEndpoint: String? = nil,
        failureDomain: FailureDomainRecord? = nil
    ) {
        self.name = name
        self.adminEndpoint = adminEndpoint
        self.nbdEndpoint = nbdEndpoint
        self.nbdUnixPath = nbdUnixPath
        self.nbdTLS = nbdTLS
        self.storeIdentity = storeIdentity
        self.otherStoreIdentities = otherStoreIdentities
        self.version = version
        self.machineID = machineID
        self.draining = draining
        self.incarnation = incarnation
        self.peerEndpoint = peerEndpoint
        self.failureDomain = failureDomain
    }
}

extension NodeRecord {
    /// The identities of all its stores that are known.
    public var storeIdentities: [String] { [storeIdentity] + (otherStoreIdentities ?? []) }

    /// Whether it has every store that a lost volume may be in.
    public func hasStores(of lost: LostVolumeRecord) -> Bool {
        guard let wanted = lost.storeIdentities else { return false }
        return Set(wanted).isSubset(of: storeIdentities)
    }
}

/// That a node lives: the one record that hangs on a lease.
public struct NodeLiveRecord: Sendable, Hashable, Codable {
    /// The incarnation that registered.
    public var incarnation: UInt64
    /// The lease's number, which is also the node's session.
    public var session: UInt64

    /// Creates a record.
    public init(incarnation: UInt64, session: UInt64) {
        self.incarnation = incarnation
        self.session = session
    }
}

/// Something that happened.
public struct EventRecord: Sendable, Hashable, Codable {
    /// When.
    public var time: Date
    /// What kind it is.
    public var kind: String
    /// The volume, node or image it is about.
    public var subject: String
    /// What happened, for people.
    public var message: String

    /// Creates a record.
    public init(time: Date, kind: String, subject: String, message: String) {
        self.time = time
        self.kind = kind
        self.subject = subject
        self.message = message
    }
}
