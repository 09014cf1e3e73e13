// What a primary says about itself, and the limits that its owner may change while it runs.

internal import BlockCore

/// What a primary knows of one of its replicas.
public struct PeerSummary: Sendable, Hashable {
    /// Which replica.
    public var instance: ReplicaInstance
    /// Whether a connection is there.
    public var isLinked: Bool
    /// Whether it takes the stream.
    public var isStreaming: Bool
    /// Whether it counts.
    public var isComplete: Bool
    /// Writes that it has not applied.
    public var behindCount: UInt64
    /// What it is given to become complete; nil when nothing is.
    public var resync: ResyncPhase?
    /// Up to which block what it lacks was looked for, while blocks that it lacks are sent.
    public var resyncBlock: UInt64?
    /// Whether its store has no room for a write, or for what it lacks.
    public var lacksRoom: Bool
}

/// Where a replica is on its way back.
public enum ResyncPhase: String, Sendable, Hashable {
    /// Snapshots that it missed are sent, one after the other.
    case snapshots
    /// Blocks that the lineage does not have are found and overwritten.
    case strays
    /// Blocks that it lacks are sent.
    case missing
    /// Its stream catches up.
    case passing
}

extension PrimaryMachine {
    /// The replicas that count, by slot: in the order in which it was told of them, until one of them
    /// has moved.
    public var peerSummaries: [PeerSummary] {
        peers.indices.filter(voters.contains).map { summary(slot: $0) }
    }

    /// What is known of the replica in a slot.
    public func summary(slot: Int) -> PeerSummary {
        let peer = peers[slot]
        let resync: ResyncPhase? =
            switch peer.resync?.phase {
            case .stageStrays, .stageMissing, .keeping: .snapshots
            case .strays: .strays
            case .missing: .missing
            case .passing, .told: .passing
            case nil: nil
            }
        return PeerSummary(
            instance: peer.instance,
            isLinked: peer.isLinked,
            isStreaming: peer.isStreaming,
            isComplete: peer.isComplete && peer.isStreaming,
            behindCount: nextCounter - 1 - min(peer.applied, nextCounter - 1),
            resync: resync,
            resyncBlock: peer.resync.flatMap { $0.phase == .missing ? $0.walk.cursor : nil },
            lacksRoom: lacksRoom(slot)
        )
    }

    /// Whether W replicas that count are connected: otherwise requests wait.
    public var hasQuorum: Bool {
        isQuorum(readableSlots)
    }

    /// Whether the replica in a slot takes the stream: then it is asked for a grant again and again.
    public func isStreaming(slot: Int) -> Bool { peers[slot].isStreaming }

    /// Requests of clients that it takes before others have ended.
    public var roomCount: Int { freeRequests.count }

    /// Changes how many bytes of payload are kept for replicas that lag: all primaries of a
    /// reactor share its memory.
    public func limitWindow(byteCount: Int) {
        policy.windowByteCountMax = max(byteCount, 1)
    }
}
