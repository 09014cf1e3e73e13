// Replicas in the node API: a volume of a store that is one copy of a replicated volume. The node
// that has it exports nothing of it; the primary's node does.

/// What makes a new volume of a node a replica.
public struct NodeReplicaCreation: Sendable, Hashable, Codable {
    /// Which replica it is: at most ``APILimits/instanceMax``, never 0, never given twice.
    public var instance: UInt64
    /// Whether it takes the place of one that was lost: then it is blank, and counts for nothing
    /// until it has got everything.
    public var isReplacement: Bool

    /// Creates a description.
    public init(instance: UInt64, isReplacement: Bool) {
        self.instance = instance
        self.isReplacement = isReplacement
    }
}

/// What a node has written down of a replica; see Docs/replication.md, "A replica".
public struct NodeReplica: Sendable, Hashable, Codable {
    /// Which replica it is.
    public var instance: UInt64
    /// The highest lease epoch that it has answered.
    public var promisedEpoch: UInt64
    /// The lease epoch that it follows, or followed last.
    public var acceptedEpoch: UInt64
    /// Whether it has all of its lineage.
    public var isComplete: Bool
    /// Whether it took a lost replica's place and was never complete.
    public var isBlank: Bool
    /// Whether it knows of all that it ever acknowledged.
    public var remembers: Bool

    /// Creates a document.
    public init(
        instance: UInt64,
        promisedEpoch: UInt64,
        acceptedEpoch: UInt64,
        isComplete: Bool,
        isBlank: Bool,
        remembers: Bool
    ) {
        self.instance = instance
        self.promisedEpoch = promisedEpoch
        self.acceptedEpoch = acceptedEpoch
        self.isComplete = isComplete
        self.isBlank = isBlank
        self.remembers = remembers
    }
}

// MARK: - Snapshots

/// A replica's snapshot as its name in the node's store tells it.
public struct NodeReplicaSnapshot: Sendable, Hashable, Codable {
    /// Which snapshot: what the metadata service called it, in all replicas of the volume.
    public var id: UInt64
    /// Its number in the volume's stream of writes.
    public var number: UInt64

    /// Creates a document.
    public init(id: UInt64, number: UInt64) {
        self.id = id
        self.number = number
    }
}

/// Body of `POST /v1/services/{volume}/snapshots`: a primary is to take a snapshot.
public struct NodeSnapshotTaking: Sendable, Hashable, Codable {
    /// The new snapshot: at most ``APILimits/snapshotIDMax``, never 0, never given twice.
    public var snapshot: UInt64
    /// The epoch under which the node serves the volume.
    public var leaseEpoch: UInt64

    /// Creates a body.
    public init(snapshot: UInt64, leaseEpoch: UInt64) {
        self.snapshot = snapshot
        self.leaseEpoch = leaseEpoch
    }
}

/// Answer of `POST /v1/services/{volume}/snapshots`.
public struct NodeSnapshotTaken: Sendable, Hashable, Codable {
    /// Its number in the volume's stream of writes: what has a greater one is not in it.
    public var number: UInt64

    /// Creates an answer.
    public init(number: UInt64) { self.number = number }

    /// The lease epoch that a write number is of: a clone's leases are above the next one, which its
    /// replicas have promised.
    ///
    /// Spec: Docs/replication.md, "Names": the counter has 36 bits, the epoch those above.
    public static func leaseEpoch(of number: UInt64) -> UInt64 { number >> 36 }
}

/// Body of `POST /v1/replicas/{volume}/snapshots/{snapshot}/clones`: a replica of another volume is
/// to be made of a snapshot of the replica here.
public struct NodeReplicaCloneCreation: Sendable, Hashable, Codable {
    /// Which replica the snapshot is to be of; another one here is refused.
    public var instance: UInt64
    /// The snapshot's number.
    public var number: UInt64
    /// The new volume, without `replica`: that follows from the one here.
    public var volume: NodeVolumeCreation
    /// Which replica the new one is.
    public var newInstance: UInt64

    /// Creates a body.
    public init(
        instance: UInt64,
        number: UInt64,
        volume: NodeVolumeCreation,
        newInstance: UInt64
    ) {
        self.instance = instance
        self.number = number
        self.volume = volume
        self.newInstance = newInstance
    }
}

/// Body of `POST /v1/replicas/{volume}/snapshots/{snapshot}/rollback`: the replica here is to be what
/// it was, as another instance.
public struct NodeReplicaRollback: Sendable, Hashable, Codable {
    /// Which replica it is.
    public var instance: UInt64
    /// The snapshot's number.
    public var number: UInt64
    /// The lease epoch that it begins in; all that are given afterwards are above the next one, which
    /// it has promised.
    public var epoch: UInt64
    /// Which replica it is then.
    public var newInstance: UInt64

    /// Creates a body.
    public init(instance: UInt64, number: UInt64, epoch: UInt64, newInstance: UInt64) {
        self.instance = instance
        self.number = number
        self.epoch = epoch
        self.newInstance = newInstance
    }
}
