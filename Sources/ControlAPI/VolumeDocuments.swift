// Volumes, snapshots, clones and images as the control API shows them.

public import Foundation

/// When a write is acknowledged.
public enum DurabilityMode: String, Sendable, Hashable, Codable, CaseIterable {
    /// When it is in memory; durable after a flush.
    case writeback
    /// When it is durable.
    case writethrough
}

/// Where a volume is in its life.
public enum VolumeState: String, Sendable, Hashable, Codable, CaseIterable {
    /// Being made; a repeated creation finishes it.
    case creating
    /// In use or ready to be.
    case ready
    /// Being deleted; a repeated deletion finishes it.
    case deleting
}

/// Where a volume's bytes are, as its node accounts them.
public struct SpaceUsage: Sendable, Hashable, Codable {
    /// The size that the VM sees.
    public var logicalByteCount: UInt64
    /// Bytes held by all layers of the stack, each counted once.
    public var writtenByteCount: UInt64
    /// Of these, bytes in layers that other volumes use too.
    public var sharedByteCount: UInt64
    /// Of these, bytes that deleting the volume and its snapshots would give back.
    public var exclusiveByteCount: UInt64
    /// Of the exclusive ones, bytes that background work gives back by itself.
    public var reclaimableByteCount: UInt64

    /// Creates an account.
    public init(
        logicalByteCount: UInt64,
        writtenByteCount: UInt64,
        sharedByteCount: UInt64,
        exclusiveByteCount: UInt64,
        reclaimableByteCount: UInt64
    ) {
        self.logicalByteCount = logicalByteCount
        self.writtenByteCount = writtenByteCount
        self.sharedByteCount = sharedByteCount
        self.exclusiveByteCount = exclusiveByteCount
        self.reclaimableByteCount = reclaimableByteCount
    }
}

/// The snapshot that a clone stands on.
public struct VolumeSource: Sendable, Hashable, Codable {
    /// The volume's name when the clone was made.
    public var volume: String
    /// The snapshot's name.
    public var snapshot: String

    /// Creates a source.
    public init(volume: String, snapshot: String) {
        self.volume = volume
        self.snapshot = snapshot
    }
}

/// How one replica of a volume is.
public struct VolumeReplicaState: Sendable, Hashable, Codable {
    /// What is known of it.
    public enum State: String, Sendable, Hashable, Codable, CaseIterable {
        /// It has everything and counts for commits.
        case complete
        /// What it missed is being brought to it.
        case resyncing
        /// It lacks something.
        case behind
        /// Its node is down, or not to be reached from the primary.
        case down
        /// No primary tells of it.
        case unknown
    }

    /// Its node.
    public var node: String
    /// How it is.
    public var state: State
    /// Writes that others have and it does not, when that is known.
    public var behind: UInt64?
    /// Whether its store has no room for what it lacks; absent when it has.
    public var lacksRoom: Bool?
    /// How much of the volume was looked at for what it lacks, in thousandths; absent when nothing is
    /// looked for.
    public var resyncPerMille: Int?

    /// Creates a document.
    public init(
        node: String,
        state: State,
        behind: UInt64? = nil,
        lacksRoom: Bool? = nil,
        resyncPerMille: Int? = nil
    ) {
        self.node = node
        self.state = state
        self.behind = behind
        self.lacksRoom = lacksRoom
        self.resyncPerMille = resyncPerMille
    }
}

/// A replica that moves to another node.
public struct VolumeMove: Sendable, Hashable, Codable {
    /// The node that it leaves.
    public var from: String
    /// The node that gets the new one, which counts for nothing before the move is over.
    public var to: String
    /// How far it is; absent when no primary tells of it.
    public var phase: NodeMovePhase?
    /// How much of the volume was looked at for what the new one lacks, in thousandths; absent when
    /// nothing is looked for.
    public var perMille: Int?

    /// Creates a document.
    public init(from: String, to: String, phase: NodeMovePhase? = nil, perMille: Int? = nil) {
        self.from = from
        self.to = to
        self.phase = phase
        self.perMille = perMille
    }
}

/// A volume.
public struct Volume: Sendable, Hashable, Codable {
    /// Its identity, never reused; below 2^53, so that every JSON reader keeps it exact.
    public var id: UInt64
    /// Its name, also its export name.
    public var name: String
    /// Its size in bytes.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: DurabilityMode
    /// Where it is in its life.
    public var state: VolumeState
    /// The node that serves it.
    public var primary: String
    /// The nodes that hold its copies, the primary included.
    public var replicas: [String]
    /// How its replicas are; absent when it is not replicated.
    public var replicaStates: [VolumeReplicaState]?
    /// A replica that moves to another node; absent when none does.
    public var move: VolumeMove?
    /// How far its primary is, as last heard; absent when nobody has it, or nothing was heard.
    public var serviceState: NodeServiceState?
    /// The number of its snapshots.
    public var snapshotCount: Int
    /// The number of layers in its stack, when its node answered.
    public var layerCount: Int?
    /// What it was cloned from.
    public var source: VolumeSource?
    /// Who has it attached now.
    public var attachments: [Attachment]
    /// Where its bytes are, when its node answered.
    public var space: SpaceUsage?
    /// When it was made.
    public var createdAt: Date
    /// The fencing number of whoever has it; grows whenever it changes hands.
    public var epoch: UInt64
    /// What is wrong with it now, for people.
    public var warning: String?

    /// Creates a volume's document.
    public init(
        id: UInt64,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: DurabilityMode,
        state: VolumeState,
        primary: String,
        replicas: [String],
        replicaStates: [VolumeReplicaState]? = nil,
        move: VolumeMove? = nil,
        serviceState: NodeServiceState? = nil,
        snapshotCount: Int,
        layerCount: Int? = nil,
        source: VolumeSource? = nil,
        attachments: [Attachment] = [],
        space: SpaceUsage? = nil,
        createdAt: Date,
        epoch: UInt64,
        warning: String? = nil
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.state = state
        self.primary = primary
        self.replicas = replicas
        self.replicaStates = replicaStates
        self.move = move
        self.serviceState = serviceState
        self.snapshotCount = snapshotCount
        self.layerCount = layerCount
        self.source = source
        self.attachments = attachments
        self.space = space
        self.createdAt = createdAt
        self.epoch = epoch
        self.warning = warning
    }
}

/// A page of volumes, by name.
public struct VolumeList: Sendable, Hashable, Codable {
    /// The volumes.
    public var volumes: [Volume]
    /// Pass as `after` for the next page; absent on the last one.
    public var nextAfter: String?

    /// Creates a page.
    public init(volumes: [Volume], nextAfter: String? = nil) {
        self.volumes = volumes
        self.nextAfter = nextAfter
    }
}

/// Body of `POST /v1/volumes`.
public struct VolumeCreation: Sendable, Hashable, Codable {
    /// The name: see ``ValidName``.
    public var name: String
    /// The size, a multiple of 4096, at most ``APILimits/volumeByteCountMax``.
    public var byteCount: UInt64
    /// 512 (default) or 4096.
    public var logicalBlockByteCount: UInt32?
    /// When a write is acknowledged; default `writeback`.
    public var durability: DurabilityMode?
    /// The number of copies, 1 to 5; default 3 where three nodes take replicas, else 1.
    public var replicas: Int?
    /// The node of its first copy; default the one with most room.
    public var node: String?

    /// Creates a body.
    public init(
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32? = nil,
        durability: DurabilityMode? = nil,
        replicas: Int? = nil,
        node: String? = nil
    ) {
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.replicas = replicas
        self.node = node
    }
}

/// Body of `PATCH /v1/volumes/{volume}`.
public struct VolumeUpdate: Sendable, Hashable, Codable {
    /// The new size.
    ///
    /// Shrinking gives the tail up and needs ``allowShrink``.
    public var byteCount: UInt64?
    /// Permits a smaller size.
    public var allowShrink: Bool?

    /// Creates a body.
    public init(byteCount: UInt64?, allowShrink: Bool? = nil) {
        self.byteCount = byteCount
        self.allowShrink = allowShrink
    }
}

/// A snapshot of a volume.
public struct Snapshot: Sendable, Hashable, Codable {
    /// The volume's name.
    public var volume: String
    /// The snapshot's name, without the volume's.
    public var name: String
    /// The volume's size when it was taken.
    public var byteCount: UInt64
    /// Bytes that its own layer holds, when its node answered.
    public var ownByteCount: UInt64?
    /// The number of clones that stand on it, when its node answered.
    public var cloneCount: Int?
    /// The images made of it, as `NAME:VERSION`.
    public var images: [String]
    /// Where it can be read over TCP, by whoever may connect to its node.
    public var nbdURI: String?
    /// Where it can be read on its node's own machine; only when that asked.
    public var nbdUnixURI: String?
    /// When it was taken.
    public var createdAt: Date

    /// The names on the wire, before the snake_case of ``ControlJSON``.
    enum CodingKeys: String, CodingKey {
        case volume
        case name
        case byteCount
        case ownByteCount
        case cloneCount
        case images
        case nbdURI = "nbdUri"
        case nbdUnixURI = "nbdUnixUri"
        case createdAt
    }

    /// Creates a snapshot's document.
    public init(
        volume: String,
        name: String,
        byteCount: UInt64,
        ownByteCount: UInt64? = nil,
        cloneCount: Int? = nil,
        images: [String] = [],
        nbdURI: String? = nil,
        nbdUnixURI: String? = nil,
        createdAt: Date
    ) {
        self.volume = volume
        self.name = name
        self.byteCount = byteCount
        self.ownByteCount = ownByteCount
        self.cloneCount = cloneCount
        self.images = images
        self.nbdURI = nbdURI
        self.nbdUnixURI = nbdUnixURI
        self.createdAt = createdAt
    }
}

/// All snapshots of a volume, oldest first.
public struct SnapshotList: Sendable, Hashable, Codable {
    /// The snapshots.
    public var snapshots: [Snapshot]

    /// Creates a list.
    public init(snapshots: [Snapshot]) { self.snapshots = snapshots }
}

/// Body of `POST /v1/volumes/{volume}/snapshots`.
public struct SnapshotCreation: Sendable, Hashable, Codable {
    /// The name: see ``ValidName``.
    public var name: String

    /// Creates a body.
    public init(name: String) { self.name = name }
}

/// Body of the routes that make a clone.
public struct CloneCreation: Sendable, Hashable, Codable {
    /// The new volume's name.
    public var name: String
    /// When a write to it is acknowledged; default as its source.
    public var durability: DurabilityMode?

    /// Creates a body.
    public init(name: String, durability: DurabilityMode? = nil) {
        self.name = name
        self.durability = durability
    }
}

/// An image: a named, versioned snapshot in the catalogue, made to be cloned.
public struct Image: Sendable, Hashable, Codable {
    /// The image's name.
    public var name: String
    /// The version of it.
    public var version: String
    /// The volume whose snapshot it is.
    public var volume: String
    /// The snapshot.
    public var snapshot: String
    /// The size of a clone of it.
    public var byteCount: UInt64
    /// What it is, for people.
    public var description: String
    /// The SHA-256 of its logical content in hex, when the importer computed it.
    public var sha256: String?
    /// When it was catalogued.
    public var createdAt: Date

    /// Creates an image's document.
    public init(
        name: String,
        version: String,
        volume: String,
        snapshot: String,
        byteCount: UInt64,
        description: String,
        sha256: String? = nil,
        createdAt: Date
    ) {
        self.name = name
        self.version = version
        self.volume = volume
        self.snapshot = snapshot
        self.byteCount = byteCount
        self.description = description
        self.sha256 = sha256
        self.createdAt = createdAt
    }
}

/// The catalogue, by name and version.
public struct ImageList: Sendable, Hashable, Codable {
    /// The images.
    public var images: [Image]

    /// Creates a list.
    public init(images: [Image]) { self.images = images }
}

/// Body of `POST /v1/images`.
public struct ImageCreation: Sendable, Hashable, Codable {
    /// The image's name.
    public var name: String
    /// The version of it.
    public var version: String
    /// The volume whose snapshot it is.
    public var volume: String
    /// The snapshot.
    public var snapshot: String
    /// What it is, for people; at most ``APILimits/descriptionByteCountMax``.
    public var description: String?
    /// The SHA-256 of its logical content, 64 hex digits.
    public var sha256: String?

    /// Creates a body.
    public init(
        name: String,
        version: String,
        volume: String,
        snapshot: String,
        description: String? = nil,
        sha256: String? = nil
    ) {
        self.name = name
        self.version = version
        self.volume = volume
        self.snapshot = snapshot
        self.description = description
        self.sha256 = sha256
    }
}
