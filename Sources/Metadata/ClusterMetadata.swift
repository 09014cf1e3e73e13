// The cluster's metadata above any store: reading records, and changing them by guarded
// transactions. The files beside this one say which changes there are.
//
// Invariants, kept by compares in every transaction:
//   a name belongs to one volume; a volume has at most one pending operation;
//   a volume's pending operation is the one that its operation record names;
//   an image's snapshot exists; one transaction holds at most one event.

import Foundation

/// Reads and changes the metadata of one cluster.
public struct ClusterMetadata: Sendable {
    /// The store.
    public let store: any MetaStore
    let keys: ClusterKeys

    /// Creates a view of a cluster in a store.
    ///
    /// - Parameters:
    ///   - store: Where the records are.
    ///   - cluster: The cluster's name, a part of every key.
    public init(store: any MetaStore, cluster: String = "default") {
        self.store = store
        keys = ClusterKeys(cluster: cluster)
    }

    /// The store's revision now.
    public func revision() async throws(MetadataError) -> MetaRevision {
        try await store.transact(MetaTransaction(success: [])).revision
    }

    // MARK: - Reading

    func get<Record: Codable>(
        _ type: Record.Type,
        _ key: String
    ) async throws(MetadataError) -> Versioned<Record>? {
        let result = try await store.transact(MetaTransaction(success: [.get(key)]))
        guard let record = result.records[0].first else { return nil }
        return try decode(type, record)
    }

    func all<Record: Codable>(
        _ type: Record.Type,
        prefix: String,
        after: String? = nil,
        countMax: Int = .max
    ) async throws(MetadataError) -> [Versioned<Record>] {
        var result: [Versioned<Record>] = []
        var last = after
        while result.count < countMax {
            let pageCountMax = min(countMax - result.count, MetaLimits.rangeCountMax)
            let operation = MetaOperation.range(
                prefix: prefix,
                after: last,
                countMax: pageCountMax
            )
            let page = try await store.transact(MetaTransaction(success: [operation])).records[0]
            for record in page { result.append(try decode(type, record)) }
            last = page.last?.key
            if page.count < pageCountMax { break }
        }
        return result
    }

    func decode<Record: Codable>(
        _ type: Record.Type,
        _ record: MetaRecord
    ) throws(MetadataError) -> Versioned<Record> {
        do {
            let value = try JSONDecoder().decode(type, from: record.value)
            return Versioned(value: value, revision: record.modifyRevision)
        } catch {
            throw .recordInvalid(key: record.key)
        }
    }

    // MARK: - Changing

    /// Runs a change.
    ///
    /// - Returns: The revision it made, or nil when a compare did not hold: somebody else was
    ///   faster, the caller reads again.
    func apply(_ change: MetaChange) async throws(MetadataError) -> MetaRevision? {
        let result = try await store.transact(
            MetaTransaction(compares: change.compares, success: change.operations)
        )
        return result.succeeded ? result.revision : nil
    }
}

/// A transaction in the making.
struct MetaChange {
    private(set) var compares: [MetaCompare] = []
    private(set) var operations: [MetaOperation] = []

    mutating func require(_ compare: MetaCompare) { compares.append(compare) }

    mutating func put(
        _ record: some Encodable,
        _ key: String,
        lease: MetaLease? = nil
    ) throws(MetadataError) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            operations.append(.put(key, try encoder.encode(record), lease: lease))
        } catch {
            throw .recordInvalid(key: key)
        }
    }

    mutating func delete(_ key: String) { operations.append(.delete(key)) }

    mutating func deleteAll(prefix: String) { operations.append(.deleteAll(prefix: prefix)) }
}
