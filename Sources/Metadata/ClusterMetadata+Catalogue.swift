// Snapshots, images, attachments: reading them, and the changes that need no node.

public import Foundation

extension ClusterMetadata {
    // MARK: - Snapshots

    /// A volume's snapshots, oldest first.
    public func snapshots(of volume: UInt64) async throws(MetadataError) -> [SnapshotRecord] {
        let all = try await all(SnapshotRecord.self, prefix: keys.snapshots(volume))
        return all.sorted { $0.revision < $1.revision }.map(\.value)
    }

    /// One snapshot.
    public func snapshot(
        _ name: String,
        of volume: UInt64
    ) async throws(MetadataError) -> SnapshotRecord? {
        try await get(SnapshotRecord.self, keys.snapshot(volume, name))?.value
    }

    /// The images made of a volume's snapshots.
    public func images(of volume: UInt64) async throws(MetadataError) -> [ImageRecord] {
        try await all(ImageRecord.self, prefix: keys.imageUses(volume)).map(\.value)
    }

    // MARK: - Images

    /// The catalogue, by name and version.
    public func images() async throws(MetadataError) -> [ImageRecord] {
        try await all(ImageRecord.self, prefix: keys.images).map(\.value)
    }

    /// One image.
    public func image(
        _ name: String,
        version: String
    ) async throws(MetadataError) -> Versioned<ImageRecord>? {
        try await get(ImageRecord.self, keys.image(name, version))
    }

    /// Catalogues a snapshot.
    ///
    /// - Parameters:
    ///   - image: What to catalogue.
    ///   - volume: Its volume without a pending operation, as read: one that is being deleted
    ///     changes meanwhile.
    ///   - operation: The client's name for the operation.
    ///   - request: The client's request, to recognise its repetition.
    ///   - event: What happened, for people.
    /// - Returns: False when the name, the operation key or the volume changed meanwhile, or the
    ///   snapshot is gone.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func createImage(
        _ image: ImageRecord,
        of volume: Versioned<VolumeRecord>,
        operation: String,
        request: String,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        precondition(volume.value.pending == nil, "the caller ends what is pending first")
        var change = MetaChange()
        change.require(.unchanged(keys.volume(image.volumeID), since: volume.revision))
        change.require(.exists(keys.snapshot(image.volumeID, image.snapshot)))
        change.require(.absent(keys.image(image.name, image.version)))
        change.require(.absent(keys.operation(operation)))
        try change.put(image, keys.image(image.name, image.version))
        try change.put(image, keys.imageUse(image))
        try note(operation, request: request, event: event, &change)
        return try await apply(change) != nil
    }

    /// Takes an image out of the catalogue.
    ///
    /// - Returns: False when it or the operation key changed meanwhile.
    public func deleteImage(
        _ image: Versioned<ImageRecord>,
        operation: String,
        request: String,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        let key = keys.image(image.value.name, image.value.version)
        var change = MetaChange()
        change.require(.unchanged(key, since: image.revision))
        change.require(.absent(keys.operation(operation)))
        change.delete(key)
        change.delete(keys.imageUse(image.value))
        try note(operation, request: request, event: event, &change)
        return try await apply(change) != nil
    }

    private func note(
        _ operation: String,
        request: String,
        event: EventRecord,
        _ change: inout MetaChange
    ) throws(MetadataError) {
        let record = OperationRecord(
            request: request,
            volumeID: nil,
            isDone: true,
            startedAt: event.time
        )
        try change.put(record, keys.operation(operation))
        try change.put(event, keys.event(EventID.new(at: event.time)))
    }

    // MARK: - Attachments

    /// Who has a volume and who had it.
    public func attachments(of volume: UInt64) async throws(MetadataError) -> AttachmentsRecord {
        try await get(AttachmentsRecord.self, keys.attachments(volume))?.value
            ?? AttachmentsRecord()
    }

    /// Forgets operations that ended before a time, so that their keys do not pile up.
    ///
    /// - Returns: How many.
    public func trimOperations(before time: Date) async throws(MetadataError) -> Int {
        var trimmedCount = 0
        var after: String?
        while true {
            let page = try await store.transact(
                MetaTransaction(
                    success: [.range(prefix: keys.operations, after: after, countMax: 1000)]
                )
            ).records[0]
            guard let last = page.last else { return trimmedCount }
            var change = MetaChange()
            for record in page where change.operations.count < MetaLimits.operationCountMax {
                let operation = try decode(OperationRecord.self, record).value
                after = record.key
                // One whose volume was forgotten has no end.
                let end = operation.endedAt ?? operation.startedAt
                guard end < time, try await hasEnded(operation, record.key)
                else { continue }
                change.delete(record.key)
            }
            if change.operations.count < MetaLimits.operationCountMax { after = last.key }
            trimmedCount += change.operations.count
            if !change.operations.isEmpty { _ = try await apply(change) }
        }
    }

    /// Whether an operation is pending no more; its volume may be forgotten without its end.
    private func hasEnded(
        _ operation: OperationRecord,
        _ key: String
    ) async throws(MetadataError) -> Bool {
        guard !operation.isDone, let id = operation.volumeID else { return true }
        let pending = try await volume(id: id)?.value.pending
        return !(pending?.keys ?? []).map(keys.operation).contains(key)
    }
}
