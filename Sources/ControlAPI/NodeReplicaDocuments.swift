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
