// The life of an operation on a volume: begin (the intent is durable), then the node is asked, then
// finish or abandon. Whoever finds a pending operation can carry it on.

public import Foundation

extension ClusterMetadata {
    /// What is known of an operation.
    public func operation(
        _ key: String
    ) async throws(MetadataError) -> Versioned<OperationRecord>? {
        try await get(OperationRecord.self, keys.operation(key))
    }

    // MARK: - Begin

    /// Writes down the intent to make a volume and takes its name.
    ///
    /// - Parameters:
    ///   - volume: Its record, with a pending `create` or `clone`.
    ///   - request: The client's request, to recognise its repetition.
    /// - Returns: The record, or nil when name, id or operation key are taken, or what it is to
    ///   be made of is being deleted.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func beginCreation(
        _ volume: VolumeRecord,
        request: String
    ) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        guard let pending = volume.pending else {
            preconditionFailure("a volume in the making has a pending operation")
        }
        var change = MetaChange()
        change.require(.absent(keys.name(volume.name)))
        change.require(.absent(keys.volume(volume.id)))
        change.require(.absent(keys.operation(pending.key)))
        if let source = volume.source {
            change.require(.exists(keys.snapshot(source.volumeID, source.snapshot)))
            if source.mark != nil, try await !requireKept(source, &change) { return nil }
        }
        try change.put(volume.id, keys.name(volume.name))
        try change.put(volume, keys.volume(volume.id))
        try begin(pending, on: volume.id, request: request, &change)
        guard let revision = try await apply(change) else { return nil }
        return Versioned(value: volume, revision: revision)
    }

    /// Sees to it that a replicated volume is not deleted while a clone is made of it: no single
    /// node could refuse that for all of them.
    ///
    /// - Returns: False when it is being deleted, or gone.
    private func requireKept(
        _ source: VolumeRecord.Source,
        _ change: inout MetaChange
    ) async throws(MetadataError) -> Bool {
        guard let parent = try await volume(id: source.volumeID), parent.value.state == .ready
        else { return false }
        change.require(.unchanged(keys.volume(source.volumeID), since: parent.revision))
        return true
    }

    /// Writes down the intent to change a volume.
    ///
    /// - Parameters:
    ///   - operation: What is to be changed.
    ///   - volume: The volume, without a pending operation, as read.
    ///   - request: The client's request, to recognise its repetition.
    /// - Returns: The record with the intent, or nil when the volume was changed since it was
    ///   read, the operation key is taken, or what the operation needs does not hold (the
    ///   snapshot is missing, exists already, or an image is made of it).
    /// - Throws: ``MetadataError``; nothing was changed.
    public func begin(
        _ operation: PendingOperation,
        on volume: Versioned<VolumeRecord>,
        request: String
    ) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        precondition(volume.value.pending == nil, "the caller ends what is pending first")
        var record = volume.value
        record.pending = operation
        var change = MetaChange()
        change.require(.unchanged(keys.volume(record.id), since: volume.revision))
        change.require(.absent(keys.operation(operation.key)))
        switch operation.kind {
        case .delete:
            record.state = .deleting
            change.require(.empty(prefix: keys.imageUses(record.id)))
        case .createSnapshot(let name, _, let primary, _):
            change.require(.absent(keys.snapshot(record.id, name)))
            if let primary {
                record.advanceLease()
                record.primary = primary
            }
        case .deleteSnapshot(let name):
            change.require(.exists(keys.snapshot(record.id, name)))
            change.require(.empty(prefix: keys.imageUses(record.id, name)))
        case .rollback(let name, _, let placements):
            change.require(.exists(keys.snapshot(record.id, name)))
            // The first is what the replicas begin in: above all before, below all that come. The
            // second is what they have promised then.
            if placements != nil { record.advanceLease(by: 2) }
            // What it was being filled with is not what the others will have.
            if let move = record.move { try discard([move.to], of: record, &change) }
            record.move = nil
        case .attach(_, _, let primary?, _, _), .move(let primary, _, _):
            // In the metadata before a node hears of it: nobody else gets this epoch.
            record.advanceLease()
            record.primary = primary
        case .create, .clone, .resize, .attach, .detach:
            break
        }
        try change.put(record, keys.volume(record.id))
        try begin(operation, on: record.id, request: request, &change)
        guard let revision = try await apply(change) else { return nil }
        return Versioned(value: record, revision: revision)
    }

    private func begin(
        _ operation: PendingOperation,
        on volume: UInt64,
        request: String,
        _ change: inout MetaChange
    ) throws(MetadataError) {
        let record = OperationRecord(
            request: request,
            volumeID: volume,
            isDone: false,
            startedAt: operation.startedAt
        )
        try change.put(record, keys.operation(operation.key))
    }

    /// Gives a pending operation a further name: its request was made again under a new one.
    ///
    /// - Parameters:
    ///   - key: The new name.
    ///   - volume: The volume with its pending operation, as read, which has room for a name.
    ///   - request: The request, equal to that of the operation.
    /// - Returns: The record with the name, or nil when the volume was changed since it was read
    ///   or the key is taken.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func join(
        _ key: String,
        _ volume: Versioned<VolumeRecord>,
        request: String
    ) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        guard var pending = volume.value.pending else {
            preconditionFailure("the caller has seen what is pending")
        }
        precondition(pending.takesKeys, "the caller has seen that there is room")
        pending.otherKeys = (pending.otherKeys ?? []) + [key]
        var record = volume.value
        record.pending = pending
        var change = MetaChange()
        change.require(.unchanged(keys.volume(record.id), since: volume.revision))
        change.require(.absent(keys.operation(key)))
        try change.put(record, keys.volume(record.id))
        let operation = OperationRecord(
            request: request,
            volumeID: record.id,
            isDone: false,
            startedAt: pending.startedAt
        )
        try change.put(operation, keys.operation(key))
        guard let revision = try await apply(change) else { return nil }
        return Versioned(value: record, revision: revision)
    }

    // MARK: - End

    /// What the node answered to a pending operation, as far as the metadata keeps it.
    public enum Outcome: Sendable, Hashable {
        /// The volume has this size now.
        case volume(byteCount: UInt64)
        /// The volume has this size, and replicas; those that it had beside are to be deleted.
        case replicas(
            byteCount: UInt64,
            placements: [PlacementRecord],
            leaving: [PlacementRecord]
        )
        /// The snapshot that was taken.
        case snapshot(SnapshotRecord)
        /// Nothing more to know.
        case done
        /// It is gone, but for replicas whose nodes did not answer.
        case deleted(leaving: [PlacementRecord])
    }

    /// Ends a pending operation that the node has carried out.
    ///
    /// - Parameters:
    ///   - volume: The volume with its pending operation, as read.
    ///   - outcome: What the node said.
    ///   - time: Now.
    ///   - event: What happened, for people.
    /// - Returns: False when somebody else ended it meanwhile.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func finish(
        _ volume: Versioned<VolumeRecord>,
        outcome: Outcome,
        at time: Date,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        guard let pending = volume.value.pending else { return false }
        var record = volume.value
        record.pending = nil
        record.state = .ready
        if case .volume(let byteCount) = outcome { record.byteCount = byteCount }
        var change = MetaChange()
        change.require(.unchanged(keys.volume(record.id), since: volume.revision))
        try await finish(pending.kind, outcome, at: time, of: &record, &change)
        if case .delete = pending.kind {
            change.delete(keys.volume(record.id))
            change.delete(keys.name(record.name))
        } else {
            try change.put(record, keys.volume(record.id))
        }
        try await end(pending, on: record.id, at: time, &change)
        try change.put(event, keys.event(EventID.new(at: time)))
        return try await apply(change) != nil
    }

    /// What else each kind of operation changes.
    private func finish(
        _ kind: PendingOperation.Kind,
        _ outcome: Outcome,
        at time: Date,
        of record: inout VolumeRecord,
        _ change: inout MetaChange
    ) async throws(MetadataError) {
        switch kind {
        case .create, .clone, .resize, .rollback:
            guard case .replicas(let byteCount, let placements, let leaving) = outcome else {
                break
            }
            record.byteCount = byteCount
            record.placements = placements
            record.replicas = record.holders
            try discard(leaving, of: record, &change)
        case .delete:
            change.delete(keys.attachments(record.id))
            change.deleteAll(prefix: keys.snapshots(record.id))
            if case .deleted(let replicas) = outcome {
                try discard(replicas, of: record, &change)
            }
        case .createSnapshot(let name, _, _, _):
            guard case .snapshot(let snapshot) = outcome else {
                preconditionFailure("a snapshot was taken, so the node described it")
            }
            try change.put(snapshot, keys.snapshot(record.id, name))
        case .deleteSnapshot(let name):
            change.delete(keys.snapshot(record.id, name))
        case .move(_, _, let session):
            record.served?.session = session
            record.served?.since = time
            record.served?.deathCount = nil
            record.served?.isQuarantined = nil
        case .attach(let attachment, let takeover, let primary, _, let session):
            var all = try await attachments(of: record.id)
            all.attach(attachment, takeover: takeover, at: time)
            record.epoch = attachment.epoch
            if record.isReplicated {
                let served = record.served
                record.served = ServedRecord(
                    exportEpoch: attachment.epoch,
                    readOnly: all.current.allSatisfy(\.readOnly),
                    session: primary == nil ? served?.session : session,
                    since: primary == nil ? served?.since ?? time : time
                )
            }
            try change.put(all, keys.attachments(record.id))
        case .detach(let host):
            var all = try await attachments(of: record.id)
            record.epoch = all.detach(host, at: time, epoch: record.epoch)
            if all.current.isEmpty { record.served = nil }
            try change.put(all, keys.attachments(record.id))
        }
    }

    private func end(
        _ pending: PendingOperation,
        on volume: UInt64,
        at time: Date,
        _ change: inout MetaChange
    ) async throws(MetadataError) {
        for key in pending.keys.map(keys.operation) {
            // Missing when it was trimmed: its client is long gone.
            guard var operation = try await get(OperationRecord.self, key)?.value else { continue }
            operation.isDone = true
            operation.endedAt = time
            try change.put(operation, key)
        }
    }

    /// Ends a pending operation that the node has refused.
    ///
    /// Everything is as it was before, and the operation's keys are free again. A lease epoch that
    /// it took stays taken.
    ///
    /// - Parameters:
    ///   - volume: The volume with its pending operation, as read.
    ///   - replicas: Those of a volume in the making that its nodes are to delete one day.
    /// - Returns: False when somebody else ended it meanwhile.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func abandon(
        _ volume: Versioned<VolumeRecord>,
        leaving replicas: [PlacementRecord] = []
    ) async throws(MetadataError) -> Bool {
        guard let pending = volume.value.pending else { return false }
        var record = volume.value
        var change = MetaChange()
        change.require(.unchanged(keys.volume(record.id), since: volume.revision))
        for key in pending.keys { change.delete(keys.operation(key)) }
        switch pending.kind {
        case .create, .clone:
            change.delete(keys.volume(record.id))
            change.delete(keys.name(record.name))
            try discard(replicas, of: record, &change)
        default:
            switch pending.kind {
            case .attach(_, _, _, let old?, _), .move(_, let old?, _): record.primary = old
            default: break
            }
            record.pending = nil
            record.state = .ready
            try change.put(record, keys.volume(record.id))
        }
        return try await apply(change) != nil
    }
}
