// Where the replicas of a volume are, and who serves it to its hosts.

public import Foundation

/// One replica of a volume.
public struct PlacementRecord: Sendable, Hashable, Codable {
    /// The node that has it.
    public var node: String
    /// Which replica it is.
    public var instance: UInt64
    /// That it takes a lost one's place and its node was not yet heard to have made it.
    public var isUnmade: Bool?

    /// Creates a placement.
    public init(node: String, instance: UInt64, isUnmade: Bool? = nil) {
        self.node = node
        self.instance = instance
        self.isUnmade = isUnmade
    }
}

/// A replica that is filled to take another's place: Docs/replication.md, "Moving a replica".
public struct ReplicaMoveRecord: Sendable, Hashable, Codable {
    /// The replica whose place it takes.
    public var from: UInt64
    /// The new one, which counts for nothing before it is among the volume's placements.
    public var to: PlacementRecord
    /// When it was begun.
    public var since: Date

    /// Creates a record.
    public init(from: UInt64, to: PlacementRecord, since: Date) {
        self.from = from
        self.to = to
        self.since = since
    }
}

/// That a volume which no host has is served to nobody, so that its replicas are filled.
public struct TendedRecord: Sendable, Hashable, Codable {
    /// The session of the primary's node that the lease epoch was given to.
    public var session: UInt64?
    /// When that was.
    public var since: Date

    /// Creates a record.
    public init(session: UInt64?, since: Date) {
        self.session = session
        self.since = since
    }
}

/// What all replicas of a volume call one of its snapshots.
public struct SnapshotMarkRecord: Sendable, Hashable, Codable {
    /// Which snapshot; it was given by the metadata before any node heard of it.
    public var id: UInt64
    /// Its number in the volume's stream of writes.
    public var number: UInt64

    /// Creates a mark.
    public init(id: UInt64, number: UInt64) {
        self.id = id
        self.number = number
    }
}

/// That hosts have a replicated volume, so that its primary is to serve it.
public struct ServedRecord: Sendable, Hashable, Codable {
    /// The epoch of its export.
    public var exportEpoch: UInt64
    /// Whether the hosts only read.
    public var readOnly: Bool
    /// The session of the primary's node that the lease epoch was given to.
    ///
    /// Another one may be another process, which must never get the same epoch.
    public var session: UInt64?
    /// When that was.
    public var since: Date
    /// How often in a row the primary's node died soon after it was given the volume.
    public var deathCount: Int?
    /// That it is not moved by itself any more: it may be what nodes die of.
    public var isQuarantined: Bool?

    /// Creates a record.
    public init(exportEpoch: UInt64, readOnly: Bool, session: UInt64?, since: Date) {
        self.exportEpoch = exportEpoch
        self.readOnly = readOnly
        self.session = session
        self.since = since
    }
}

/// A replica that its node is to delete when it is heard from.
public struct DiscardedReplicaRecord: Sendable, Hashable, Codable {
    /// The volume's identity.
    public var volumeID: UInt64
    /// The volume's name.
    public var volumeName: String
    /// Which replica it is.
    public var instance: UInt64

    /// Creates a record.
    public init(volumeID: UInt64, volumeName: String, instance: UInt64) {
        self.volumeID = volumeID
        self.volumeName = volumeName
        self.instance = instance
    }
}

/// What fails together with a node.
public struct FailureDomainRecord: Sendable, Hashable, Codable {
    /// The zone.
    public var zone: String?
    /// The rack.
    public var rack: String?
    /// The machine.
    public var host: String?

    /// Creates a record.
    public init(zone: String?, rack: String?, host: String?) {
        self.zone = zone
        self.rack = rack
        self.host = host
    }
}

extension VolumeRecord {
    /// Whether its copies are kept equal by a primary.
    public var isReplicated: Bool { placements != nil }

    /// The nodes that have a part of it.
    public var holders: [String] { placements?.map(\.node) ?? [primary] }

    /// Its replicas, and the one that moves.
    public var allReplicas: [PlacementRecord] { (placements ?? []) + (move.map { [$0.to] } ?? []) }

    /// Whether `node` has a part of it.
    public func lies(on node: String) -> Bool {
        holders.contains(node) || move?.to.node == node
    }

    /// The replica that `node` has.
    public func placement(on node: String) -> PlacementRecord? {
        allReplicas.first { $0.node == node }
    }

    /// Takes lease epochs: whoever had one before is to serve no more, not even nobody.
    public mutating func advanceLease(by count: UInt64 = 1) {
        leaseEpoch = (leaseEpoch ?? 0) + count
        tended = nil
    }

    /// Takes the next lease epoch, for a primary on `node`.
    ///
    /// - Parameters:
    ///   - node: The primary's node.
    ///   - session: That node's session.
    ///   - time: Now.
    public mutating func takeLease(on node: String, session: UInt64?, at time: Date) {
        advanceLease()
        primary = node
        served?.session = session
        served?.since = time
    }
}
