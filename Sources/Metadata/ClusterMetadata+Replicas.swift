// Changes of who serves replicated volumes and where their replicas are, beside what operations do.

import Foundation

extension ClusterMetadata {
    /// Changes many volumes, as many at a time as a transaction takes.
    ///
    /// - Parameter volumes: Changed records, with the revisions at which they were read, without
    ///   a pending operation or with one that leaves the primary free.
    /// - Returns: Those that were changed, with their new revisions; the others were changed by
    ///   somebody else meanwhile.
    /// - Throws: ``MetadataError``; some may have been changed.
    public func update(
        _ volumes: [Versioned<VolumeRecord>]
    ) async throws(MetadataError) -> [Versioned<VolumeRecord>] {
        var result: [Versioned<VolumeRecord>] = []
        var rest = volumes[...]
        while !rest.isEmpty {
            let page = rest.prefix(MetaLimits.operationCountMax)
            rest = rest.dropFirst(page.count)
            if let revision = try await updateTogether(page) {
                result += page.map { Versioned(value: $0.value, revision: revision) }
                continue
            }
            for volume in page {
                guard let revision = try await updateTogether([volume]) else { continue }
                result.append(Versioned(value: volume.value, revision: revision))
            }
        }
        return result
    }

    private func updateTogether(
        _ volumes: ArraySlice<Versioned<VolumeRecord>>
    ) async throws(MetadataError) -> MetaRevision? {
        var change = MetaChange()
        for volume in volumes {
            precondition(
                volume.value.pending?.leavesPrimaryFree != false,
                "a pending operation ends by itself"
            )
            let key = keys.volume(volume.value.id)
            change.require(.unchanged(key, since: volume.revision))
            try change.put(volume.value, key)
        }
        return try await apply(change)
    }

    /// Puts a replica in the place of a lost one.
    ///
    /// - Parameters:
    ///   - lost: The one that is lost; its node deletes it when it is back.
    ///   - volume: The volume with the new placement, and the revision at which it was read.
    ///   - event: What happened, for people.
    /// - Returns: The volume's new revision, or nil when it was changed meanwhile.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func replace(
        _ lost: PlacementRecord,
        _ volume: Versioned<VolumeRecord>,
        event: EventRecord
    ) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        var change = MetaChange()
        let key = keys.volume(volume.value.id)
        change.require(.unchanged(key, since: volume.revision))
        try change.put(volume.value, key)
        try discard([lost], of: volume.value, &change)
        try change.put(event, keys.event(EventID.new(at: event.time)))
        guard let revision = try await apply(change) else { return nil }
        return Versioned(value: volume.value, revision: revision)
    }

    /// Has the nodes of replicas delete them when they are heard from.
    func discard(
        _ replicas: [PlacementRecord],
        of volume: VolumeRecord,
        _ change: inout MetaChange
    ) throws(MetadataError) {
        for replica in replicas {
            let record = DiscardedReplicaRecord(
                volumeID: volume.id,
                volumeName: volume.name,
                instance: replica.instance
            )
            try change.put(record, keys.discarded(replica.node, replica.instance))
        }
    }

    /// The replicas that a node is to delete.
    public func discardedReplicas(
        of node: String
    ) async throws(MetadataError) -> [Versioned<DiscardedReplicaRecord>] {
        try await all(DiscardedReplicaRecord.self, prefix: keys.discarded(node))
    }

    /// Forgets replicas that a node was to delete: they are gone, or it is.
    public func forgetDiscarded(
        _ replicas: [DiscardedReplicaRecord],
        of node: String
    ) async throws(MetadataError) {
        var rest = replicas[...]
        while !rest.isEmpty {
            let page = rest.prefix(MetaLimits.operationCountMax)
            rest = rest.dropFirst(page.count)
            var change = MetaChange()
            for replica in page { change.delete(keys.discarded(node, replica.instance)) }
            _ = try await apply(change)
        }
    }
}
