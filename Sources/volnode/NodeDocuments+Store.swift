// From the words of store and node to those of the API.

import BlockCore
import ControlAPI
import LogStore
import StorageNode

extension StoreCommandError {
    /// The reason, for a sentence.
    var text: String {
        switch self {
        case .volumeNotFound: "no volume has this id"
        case .snapshotNotFound: "no snapshot has this name"
        case .alreadyExists: "the name or id is taken"
        case .inUse: "it is in use, by clones or by open connections"
        case .outdated: "the volume has been given away under a higher epoch"
        case .invalid: "a size, name or block size is outside its limits"
        case .tooMany: "the store holds as many volumes or layers as it can"
        case .noSpace: "the store is full"
        case .unavailable: "the store is not open, or its device failed"
        case .uncertain: "its device failed while the change was written; it may hold or not"
        }
    }

    var code: ControlError.Code {
        switch self {
        case .volumeNotFound: .volumeNotFound
        case .snapshotNotFound: .snapshotNotFound
        case .alreadyExists: .alreadyExists
        case .inUse: .inUse
        case .outdated: .outdated
        case .invalid: .invalidArgument
        case .tooMany: .limitReached
        case .noSpace: .noSpace
        case .unavailable: .unavailable
        case .uncertain: .outcomeUnknown
        }
    }
}

extension DurabilityMode {
    var store: Durability {
        switch self {
        case .writeback: .writeback
        case .writethrough: .writethrough
        }
    }

    init(_ durability: Durability) {
        switch durability {
        case .writeback: self = .writeback
        case .writethrough: self = .writethrough
        }
    }
}

extension StoreRoom {
    init(_ state: RoomState) {
        switch state {
        case .ample: self = .ample
        case .scarce: self = .scarce
        case .refusing: self = .refusing
        case .waiting: self = .waiting
        }
    }
}

extension TLSPolicy {
    var document: NBDTransportSecurity {
        switch self {
        case .off: .off
        case .allow: .allow
        case .require: .require
        }
    }
}

extension NodeVolumeAccess {
    var store: VolumeAccess {
        switch self {
        case .none: .none
        case .readOnly: .readOnly
        case .readWrite: .readWrite
        }
    }

    init(_ access: VolumeAccess) {
        switch access {
        case .none: self = .none
        case .readOnly: self = .readOnly
        case .readWrite: self = .readWrite
        }
    }
}

extension VolumeSummary {
    var document: NodeVolume {
        NodeVolume(
            id: specification.id.rawValue,
            name: specification.name,
            byteCount: specification.byteCount,
            logicalBlockByteCount: specification.logicalBlockByteCount,
            durability: DurabilityMode(specification.durability),
            access: NodeVolumeAccess(specification.access),
            epoch: specification.epoch,
            descriptor: String(decoding: specification.descriptor, as: UTF8.self),
            layerCount: layerCount,
            topLayer: topLayer.rawValue,
            snapshots: snapshots.map(\.document),
            space: SpaceUsage(
                logicalByteCount: space.logicalByteCount,
                writtenByteCount: space.writtenByteCount,
                sharedByteCount: space.sharedByteCount,
                exclusiveByteCount: space.exclusiveByteCount,
                reclaimableByteCount: space.reclaimableByteCount
            ),
            replica: NodeReplica(record: specification.replica)
        )
    }
}

extension SnapshotSummary {
    var document: NodeSnapshot {
        NodeSnapshot(
            name: name,
            layer: layer.rawValue,
            byteCount: byteCount,
            ownByteCount: ownByteCount,
            cloneCount: cloneCount,
            replica: NodeReplicaSnapshot(name: name)
        )
    }
}
