// Volumes: those that are, and those that were forgotten with their nodes.

import Foundation

extension ClusterMetadata {
    // MARK: - Reading

    /// The volume of this name.
    public func volume(
        named name: String
    ) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        guard let id = try await get(UInt64.self, keys.name(name)) else { return nil }
        return try await volume(id: id.value)
    }

    /// The volume of this id.
    public func volume(id: UInt64) async throws(MetadataError) -> Versioned<VolumeRecord>? {
        try await get(VolumeRecord.self, keys.volume(id))
    }

    /// Volumes in order of their names, from the one after `after`.
    ///
    /// Fewer than `countMax` only when there are no more.
    public func volumes(
        after: String? = nil,
        countMax: Int = .max
    ) async throws(MetadataError) -> [Versioned<VolumeRecord>] {
        let pageCountMax = min(MetaLimits.rangeCountMax, MetaLimits.operationCountMax)
        var result: [Versioned<VolumeRecord>] = []
        var last = after.map { keys.name($0) }
        while result.count < countMax {
            let countWanted = min(countMax - result.count, pageCountMax)
            let range = MetaOperation.range(
                prefix: keys.names,
                after: last,
                countMax: countWanted
            )
            let names = try await store.transact(MetaTransaction(success: [range])).records[0]
            var reads: [MetaOperation] = []
            for name in names {
                reads.append(.get(keys.volume(try decode(UInt64.self, name).value)))
            }
            // One deleted since its name was read is left out; the next takes its place.
            let records = try await store.transact(MetaTransaction(success: reads)).records
            for record in records.compactMap(\.first) {
                result.append(try decode(VolumeRecord.self, record))
            }
            guard names.count == countWanted else { break }
            last = names.last?.key
        }
        return result
    }

    /// All volumes in order of their ids; cheaper than by name.
    public func allVolumes() async throws(MetadataError) -> [Versioned<VolumeRecord>] {
        try await all(VolumeRecord.self, prefix: keys.volumes)
    }

    /// What lies around a volume's record.
    public struct Surroundings: Sendable, Hashable {
        /// Who has it and who had it.
        public var attachments: AttachmentsRecord
        /// The number of its snapshots.
        public var snapshotCount: Int
    }

    /// What lies around each of some volumes, in the order of `ids`.
    public func surroundings(of ids: [UInt64]) async throws(MetadataError) -> [Surroundings] {
        var result: [Surroundings] = []
        var rest = ids[...]
        while !rest.isEmpty {
            let page = rest.prefix(MetaLimits.operationCountMax / 2)
            rest = rest.dropFirst(page.count)
            let operations = page.flatMap { id in
                [MetaOperation.get(keys.attachments(id)), .count(prefix: keys.snapshots(id))]
            }
            let read = try await store.transact(MetaTransaction(success: operations))
            for index in stride(from: 0, to: operations.count, by: 2) {
                let record = read.records[index].first
                let attachments = try record.map { record throws(MetadataError) in
                    try decode(AttachmentsRecord.self, record).value
                }
                result.append(
                    Surroundings(
                        attachments: attachments ?? AttachmentsRecord(),
                        snapshotCount: read.counts[index + 1]
                    )
                )
            }
        }
        return result
    }

    // MARK: - Corrections and losses

    /// Corrects what is known of a volume that has no pending operation.
    ///
    /// - Returns: False when it changed meanwhile.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func updateVolume(
        _ volume: Versioned<VolumeRecord>,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        precondition(volume.value.pending == nil, "a pending operation ends by finish or abandon")
        var change = MetaChange()
        let key = keys.volume(volume.value.id)
        change.require(.unchanged(key, since: volume.revision))
        try change.put(volume.value, key)
        try change.put(event, keys.event(EventID.new(at: event.time)))
        return try await apply(change) != nil
    }

    /// Forgets a volume whose node is lost, with its snapshots, images and attachments, and the
    /// operation that was pending.
    ///
    /// - Parameters:
    ///   - volume: Its record as read.
    ///   - storeIdentities: The node's stores, one of which has it.
    ///   - event: What happened, for people.
    /// - Returns: False when it changed meanwhile.
    /// - Throws: ``MetadataError``; some of its images may be forgotten already.
    public func forgetVolume(
        _ volume: Versioned<VolumeRecord>,
        ofStores storeIdentities: [String],
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        let record = volume.value
        // First, and each by itself, since there may be more than a transaction takes: whoever
        // stops in between leaves a volume without images, never an image without its volume.
        for image in try await images(of: record.id) {
            var deletion = MetaChange()
            deletion.delete(keys.image(image.name, image.version))
            deletion.delete(keys.imageUse(image))
            _ = try await apply(deletion)
        }
        var change = MetaChange()
        change.require(.unchanged(keys.volume(record.id), since: volume.revision))
        change.require(.empty(prefix: keys.imageUses(record.id)))
        change.delete(keys.volume(record.id))
        change.delete(keys.name(record.name))
        change.delete(keys.attachments(record.id))
        change.deleteAll(prefix: keys.snapshots(record.id))
        for key in record.pending?.keys ?? [] { change.delete(keys.operation(key)) }
        let lost = LostVolumeRecord(
            name: record.name,
            node: record.primary,
            storeIdentities: storeIdentities,
            epoch: record.epoch,
            lostAt: event.time
        )
        try change.put(lost, keys.lost(record.id))
        try change.put(event, keys.event(EventID.new(at: event.time)))
        return try await apply(change) != nil
    }

    /// What is known of a volume that was forgotten with its node.
    public func lostVolume(_ id: UInt64) async throws(MetadataError) -> LostVolumeRecord? {
        try await get(LostVolumeRecord.self, keys.lost(id))?.value
    }

    /// The volumes that were forgotten with their nodes.
    public func lostVolumeIDs() async throws(MetadataError) -> [UInt64] {
        var ids: [UInt64] = []
        var last: String?
        while true {
            let operation = MetaOperation.range(
                prefix: keys.lost,
                after: last,
                countMax: MetaLimits.rangeCountMax
            )
            let page = try await store.transact(MetaTransaction(success: [operation])).records[0]
            ids += page.compactMap { UInt64($0.key.dropFirst(keys.lost.count), radix: 16) }
            last = page.last?.key
            guard page.count == MetaLimits.rangeCountMax else { return ids }
        }
    }

    /// Forgets that a volume was forgotten: it is gone from its node, too.
    public func notePurged(_ id: UInt64, event: EventRecord) async throws(MetadataError) {
        var change = MetaChange()
        change.delete(keys.lost(id))
        try change.put(event, keys.event(EventID.new(at: event.time)))
        _ = try await apply(change)
    }
}

/// Ids of events: unique, and in order of time as far as clocks go.
enum EventID {
    static func new(at time: Date) -> String {
        let milliseconds = UInt64(max(0, time.timeIntervalSince1970 * 1000))
        let random = UInt64.random(in: .min ... .max)
        return "\(padded(milliseconds))-\(padded(random))"
    }

    private static func padded(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
