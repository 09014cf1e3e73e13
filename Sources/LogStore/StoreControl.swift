// Configuration changes of a store. They are rare, so they may allocate; each is one record of
// the log, applied at once and answered when it is durable.

public import BlockCore

/// When a write is acknowledged.
public enum Durability: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// When it is in memory; durable after a flush. What a disk with a volatile cache promises.
    case writeback
    /// When it is durable.
    case writethrough
}

/// Who may use a volume through a front of this node.
///
/// Its snapshots are exported read-only whatever it says: they never change.
public enum VolumeAccess: UInt8, Sendable, Hashable, BitwiseCopyable, Comparable {
    /// Nobody: it is not exported.
    case none
    /// It is exported read-only.
    case readOnly
    /// It is exported for reading and writing.
    case readWrite

    /// Whether `left` allows less than `right`.
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// What a volume is, apart from its data.
public struct VolumeSpecification: Sendable, Hashable {
    /// The volume's identity.
    public var id: VolumeID
    /// The export name: 1 to ``nameByteCountMax`` bytes of UTF-8.
    public var name: String
    /// Its size, a multiple of 4096, at most ``BlockGeometry/volumeByteCountMax``.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// When a write is acknowledged.
    public var durability: Durability
    /// Who may use it; kept in the store, so that a restarted node exports what it did before.
    public var access: VolumeAccess
    /// The fencing number of ``access``: who was given it under a lower number has lost it.
    ///
    /// Only grows, 0 for a volume that nobody was ever given.
    public var epoch: UInt64
    /// Bytes that the control plane keeps with the volume (its own descriptor, attachments),
    /// at most ``descriptorByteCountMax``.
    public var descriptor: [UInt8]

    /// What a replica keeps durably about itself; empty for a volume that is none.
    ///
    /// Set when the volume is made, and changed by ``StoreCommand/setReplica(volume:record:)`` only.
    public var replica: [UInt8]

    /// The longest name, in bytes.
    public static var nameByteCountMax: Int { 128 }
    /// The longest descriptor, in bytes.
    public static var descriptorByteCountMax: Int { 2048 }
    /// The longest replica record, in bytes.
    public static var replicaRecordByteCountMax: Int { 1024 }

    /// Creates a specification.
    public init(
        id: VolumeID,
        name: String,
        byteCount: UInt64,
        logicalBlockByteCount: UInt32 = 512,
        durability: Durability = .writeback,
        access: VolumeAccess = .none,
        epoch: UInt64 = 0,
        descriptor: [UInt8] = [],
        replica: [UInt8] = []
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.access = access
        self.epoch = epoch
        self.descriptor = descriptor
        self.replica = replica
    }
}

/// One configuration change.
public enum StoreCommand: Sendable, Hashable {
    /// Makes an empty volume.
    case createVolume(VolumeSpecification)
    /// Seals the volume's top layer under `name` and puts an empty one on top.
    case createSnapshot(volume: VolumeID, name: String)
    /// Makes a volume whose stack starts on the snapshot `layer`.
    case cloneSnapshot(layer: LayerID, VolumeSpecification)
    /// Makes the volume read as its snapshot `layer` does; what was written since is given up.
    case rollback(volume: VolumeID, layer: LayerID)
    /// Unnames the snapshot `layer`; merges it into its child, or keeps it while clones need it.
    case deleteSnapshot(layer: LayerID)
    /// Deletes the volume and its snapshots. Refused while clones stand on a snapshot.
    case deleteVolume(VolumeID)
    /// Changes the size. Shrinking gives the tail up, and is refused while the volume is open.
    case resizeVolume(VolumeID, byteCount: UInt64)
    /// Replaces name, durability, access, epoch or descriptor. Refused with a lower epoch.
    case updateVolume(VolumeSpecification)
    /// Replaces what a replica keeps durably about itself.
    ///
    /// It lies in the log behind every write that ended before it was submitted: once it is
    /// durable, so are they.
    case setReplica(volume: VolumeID, record: [UInt8])
}

/// Why a command was refused; nothing was changed, except after ``uncertain``.
public enum StoreCommandError: Error, Sendable, Hashable {
    /// No volume has this id.
    case volumeNotFound
    /// No snapshot is this layer.
    case snapshotNotFound
    /// A volume with this id or name, or a snapshot with this name, exists.
    case alreadyExists
    /// The snapshot has clones, or the volume is open.
    case inUse
    /// The volume has been given away under a higher epoch.
    case outdated
    /// A size, name, block size or descriptor outside its limits.
    case invalid
    /// A limit of the store is reached (volumes, layers).
    case tooMany
    /// No room for the record.
    case noSpace
    /// The store is not open or its device failed.
    case unavailable
    /// The device failed while the change was being written; whether it holds shows when the
    /// store is opened again.
    case uncertain
}

/// What a command made.
public struct StoreCommandResult: Sendable, Hashable {
    /// The volume concerned.
    public var volume: VolumeID
    /// The snapshot's layer, for `createSnapshot`; the new top layer otherwise.
    public var layer: LayerID
}

/// A volume as the store knows it.
public struct VolumeSummary: Sendable, Hashable {
    /// Its specification, as last changed.
    public var specification: VolumeSpecification
    /// The layer that takes its writes.
    public var topLayer: LayerID
    /// Its snapshots, oldest first.
    public var snapshots: [SnapshotSummary]
    /// Where its bytes are.
    public var space: VolumeSpace
    /// The depth of its stack, the top layer included.
    public var layerCount: Int
    /// The number of the last streamed change in the log; 0 when there was none.
    public var streamPosition: UInt64
}

/// A snapshot as the store knows it.
public struct SnapshotSummary: Sendable, Hashable {
    /// The sealed layer.
    public var layer: LayerID
    /// Its name, without the volume's.
    public var name: String
    /// The volume's size when it was taken.
    public var byteCount: UInt64
    /// Bytes this layer itself holds.
    public var ownByteCount: UInt64
    /// The number of clones that stand on it.
    public var cloneCount: Int
    /// Whether the volume stands on it; a rollback leaves later snapshots aside.
    ///
    /// Only a snapshot below the volume can say what changed since.
    public var isBelowVolume: Bool
}

/// Where a volume's bytes are.
public struct VolumeSpace: Sendable, Hashable {
    /// The size that the VM sees.
    public var logicalByteCount: UInt64
    /// Bytes held by its layers, and by those of other volumes that it stands on.
    public var writtenByteCount: UInt64 = 0
    /// Of these, bytes in layers that other volumes use too.
    public var sharedByteCount: UInt64 = 0
    /// Of these, bytes that deleting the volume and its snapshots would give back.
    public var exclusiveByteCount: UInt64 = 0
    /// Of the exclusive ones, bytes that come back in the background: of what rollbacks and
    /// deletions left, and at most of snapshots that are being merged.
    public var reclaimableByteCount: UInt64 = 0
}

/// What is left of a store for changes whose numbers come from outside.
public struct NumberedRoom: Sendable, Hashable {
    /// Blocks, with the map pages for them, that writes may take.
    public var writeBlockCount: UInt64
    /// Map pages that trims may take.
    public var trimBlockCount: UInt64
    /// Layers that snapshots may take.
    public var layerCount: Int
}

/// Where a store's bytes are.
public struct StoreSpace: Sendable, Hashable {
    /// Bytes of the device used for data and maps.
    public var capacityByteCount: UInt64
    /// Bytes of live blocks and map pages.
    public var liveByteCount: UInt64
    /// Bytes that new data can take before ENOSPC.
    public var availableByteCount: UInt64
    /// Bytes dead but not yet cleaned.
    public var garbageByteCount: UInt64
}
