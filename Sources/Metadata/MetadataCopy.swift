// All of a store's records, copied into another store: from one machine to many.
//
// A mark stands in the target while it is not complete, and nobody leads there meanwhile. What was
// interrupted is begun anew over it. Leases are not copied, nor what hangs on them: nodes register
// again. Revisions are others; the order of records by revision, which is that of events, is kept.

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
        var batch: [MetaOperation] = []
        var byteCount = 0
        var isEventSeen = false
        for record in records {
            let isEvent = record.key.contains("/ev/")
            let size = record.key.utf8.count + record.value.count
            // As everywhere: a transaction has one event at most, so that each has a revision.
            let isFull =
                batch.count == batchCountMax || (isEvent && isEventSeen)
                || byteCount + size > MetaLimits.transactionByteCountMax / 2
            if isFull {
                try await put(batch, target)
                (batch, byteCount, isEventSeen) = ([], 0, false)
            }
            batch.append(.put(record.key, record.value, lease: nil))
            byteCount += size
            isEventSeen = isEventSeen || isEvent
        }
        try await put(batch + [.delete(mark)], target)
        return records.count
    }

    private static func begin(_ target: some MetaStore) async throws(MetadataError) {
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
