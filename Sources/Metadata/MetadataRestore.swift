// Metadata that was made anew, written into an empty store: as a copy, with a mark in the store
// until all is there.

import Foundation

/// A volume that is to be written.
public struct RestoredVolume: Sendable, Hashable {
    /// Its record.
    public var record: VolumeRecord
    /// Who has it; nil for nobody.
    public var attachments: AttachmentsRecord?
    /// Its snapshots, oldest first.
    public var snapshots: [SnapshotRecord] = []
    /// The images made of them.
    public var images: [ImageRecord] = []

    /// Creates a volume without snapshots that nobody has.
    public init(record: VolumeRecord) { self.record = record }
}

/// The metadata of a cluster that is to be written.
public struct RestoredCluster: Sendable, Hashable {
    /// Its nodes.
    public var nodes: [NodeRecord] = []
    /// Its volumes.
    public var volumes: [RestoredVolume] = []
    /// Below all epochs with which new volumes begin.
    public var epochFloor: UInt64

    /// Creates a cluster of nothing.
    public init(epochFloor: UInt64) { self.epochFloor = epochFloor }
}

extension MetadataCopy {
    /// Writes metadata into an empty store.
    ///
    /// - Parameters:
    ///   - cluster: What is to be in it.
    ///   - target: A store without records, or with those of a copy that was interrupted.
    ///   - event: What happened, for people.
    /// - Returns: How many records were written.
    /// - Throws: ``MetadataError/targetNotEmpty``, or what went wrong; the mark stays then.
    public static func restore(
        _ cluster: RestoredCluster,
        into target: some MetaStore,
        event: EventRecord
    ) async throws(MetadataError) -> Int {
        let keys = ClusterKeys(cluster: "default")
        var change = MetaChange()
        try change.put(cluster.epochFloor, keys.epochFloor)
        for node in cluster.nodes { try change.put(node, keys.node(node.name)) }
        for volume in cluster.volumes { try put(volume, keys, &change) }
        try change.put(event, keys.event(EventID.new(at: event.time)))
        try await begin(target)
        try await put(change.operations, into: target)
        return change.operations.count
    }

    private static func put(
        _ volume: RestoredVolume,
        _ keys: ClusterKeys,
        _ change: inout MetaChange
    ) throws(MetadataError) {
        let record = volume.record
        try change.put(record, keys.volume(record.id))
        try change.put(record.id, keys.name(record.name))
        if let attachments = volume.attachments {
            try change.put(attachments, keys.attachments(record.id))
        }
        for snapshot in volume.snapshots {
            try change.put(snapshot, keys.snapshot(record.id, snapshot.name))
        }
        for image in volume.images {
            try change.put(image, keys.image(image.name, image.version))
            try change.put(image, keys.imageUse(image))
        }
    }
}

extension ClusterMetadata {
    /// Refuses metadata of which only a part is there.
    ///
    /// - Throws: ``MetadataError/copyIncomplete``.
    public func requireComplete() async throws(MetadataError) {
        let read = try await store.transact(MetaTransaction(success: [.get(MetadataCopy.mark)]))
        guard read.records[0].isEmpty else { throw .copyIncomplete }
    }

    /// The epoch with which a volume begins that is made now: above all that an earlier one of its
    /// name had, since each attachment took two revisions.
    public func firstEpoch() async throws(MetadataError) -> UInt64 {
        let read = try await store.transact(MetaTransaction(success: [.get(keys.epochFloor)]))
        let floor = try read.records[0].first.map { (record) throws(MetadataError) in
            try decode(UInt64.self, record).value
        }
        // In a store that was copied or made anew revisions are lower than they were, and epochs
        // that were given above the floor go up by no more than those.
        return (floor ?? 0) + read.revision
    }
}
