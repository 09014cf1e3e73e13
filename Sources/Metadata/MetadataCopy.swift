// All of a store's records, copied into another store: from one machine to many.
//
// A mark stands in the target while it is not complete, and nobody leads there meanwhile. What was
// interrupted is begun anew over it. Leases are not copied, nor what hangs on them: nodes register
// again. Revisions are others; the order of records by revision, which is that of events and of a
// volume's snapshots, is kept.

import Foundation

/// Copies stores.
public enum MetadataCopy {
    /// Stands in a target that is not complete.
    static var mark: String { "/cairn-copy" }
    /// Records of one transaction.
    private static var batchCountMax: Int { 100 }

    /// Copies all records that hang on no lease.
    ///
    /// - Parameters:
    ///   - source: What is copied; nobody else uses it meanwhile.
    ///   - target: A store without records, or with those of a copy that was interrupted.
    /// - Returns: How many records were copied.
    /// - Throws: ``MetadataError/targetNotEmpty``, or what went wrong; the mark stays then.
    public static func run(
        from source: some MetaStore,
        to target: some MetaStore
    ) async throws(MetadataError) -> Int {
        try await begin(target)
        var records: [MetaRecord] = []
        var after: String?
        while true {
            let operation = MetaOperation.range(prefix: "/", after: after, countMax: 1_000)
            let page = try await source.transact(MetaTransaction(success: [operation])).records[0]
            guard let last = page.last else { break }
            records += page.filter { $0.lease == nil && $0.key != mark }
            after = last.key
        }
        records.sort { ($0.modifyRevision, $0.key) < ($1.modifyRevision, $1.key) }
        let floor = try await ClusterMetadata(store: source).firstEpoch()
        var change = MetaChange()
        try change.put(floor, ClusterKeys(cluster: "default").epochFloor)
        let floorKey = ClusterKeys(cluster: "default").epochFloor
        records.removeAll { $0.key == floorKey }
        let copies = records.map { MetaOperation.put($0.key, $0.value, lease: nil) }
        try await put(copies + change.operations, into: target)
        return records.count
    }

    /// Writes records in their order, some at a time, and takes the mark away.
    static func put(
        _ operations: [MetaOperation],
        into target: some MetaStore
    ) async throws(MetadataError) {
        var batch: [MetaOperation] = []
        var byteCount = 0
        var isOrderedSeen = false
        for operation in operations {
            guard case .put(let key, let value, _) = operation else { continue }
            // One at most in a transaction, so that each has a revision of its own.
            let isOrdered = key.contains("/ev/") || key.contains("/sn/")
            let size = key.utf8.count + value.count
            let isFull =
                batch.count == batchCountMax || (isOrdered && isOrderedSeen)
                || byteCount + size > MetaLimits.transactionByteCountMax / 2
            if isFull {
                try await put(batch, target)
                (batch, byteCount, isOrderedSeen) = ([], 0, false)
            }
            batch.append(operation)
            byteCount += size
            isOrderedSeen = isOrderedSeen || isOrdered
        }
        try await put(batch + [.delete(mark)], target)
    }

    /// Puts the mark into a store without records, or begins anew in one that has it.
    static func begin(_ target: some MetaStore) async throws(MetadataError) {
        let fresh = MetaTransaction(
            compares: [.empty(prefix: "/")],
            success: [.put(mark, Data(), lease: nil)],
            failure: [.get(mark)]
        )
        let result = try await target.transact(fresh)
        guard !result.succeeded else { return }
        guard result.records[0].first != nil else { throw .targetNotEmpty }
        let again = MetaTransaction(
            compares: [.exists(mark)],
            success: [.deleteAll(prefix: "/cairn/")]
        )
        guard try await target.transact(again).succeeded else { throw .targetNotEmpty }
    }

    private static func put(
        _ operations: [MetaOperation],
        _ target: some MetaStore
    ) async throws(MetadataError) {
        let transaction = MetaTransaction(compares: [.exists(mark)], success: operations)
        guard try await target.transact(transaction).succeeded else { throw .targetNotEmpty }
    }
}
