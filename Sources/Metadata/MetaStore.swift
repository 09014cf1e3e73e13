// The store of cluster metadata: etcd's data model, so that one machine (SQLite) and many (etcd)
// differ in this file's implementations only. All schema logic stands above it, written once.
//
// Invariants that every implementation keeps:
//   every committed change has a revision of its own, greater than all before it;
//   a transaction's compares and operations see one state, and all its changes have one revision;
//   a watch from revision R sees every later change of its prefix once, in order of revision;
//   what a transaction answered as committed is durable.
//
// Limits are those of etcd's defaults, so that nothing works on one machine only.

public import Foundation

/// The limits of a store, those of etcd with its default settings.
public enum MetaLimits {
    /// Compares, and operations of either branch, in one transaction: etcd's 128, less what
    /// recognises a transaction again and what fences an earlier leader.
    public static var operationCountMax: Int { 120 }
    /// Bytes of all keys and values of one transaction; etcd takes 1.5 MiB with its overhead.
    public static var transactionByteCountMax: Int { 1 << 20 }
    /// Bytes of a key.
    public static var keyByteCountMax: Int { 1024 }
    /// Records in one answer of a range.
    public static var rangeCountMax: Int { 10_000 }
    /// Changes that a watcher may lag behind before its stream is ended.
    public static var watchBacklogMax: Int { 1024 }
    /// Revisions whose changes are kept for watchers that come back.
    public static var historyRevisionCountMax: UInt64 { 100_000 }
}

/// A number of one committed change of the store; it only grows.
public typealias MetaRevision = UInt64

/// A lease: keys put with it go when it is not kept alive.
public struct MetaLease: Sendable, Hashable, Codable {
    /// The lease's number, never 0.
    public var rawValue: Int64

    /// Creates a lease from its number.
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}

/// A key and what the store knows about it.
public struct MetaRecord: Sendable, Hashable {
    /// The key.
    public var key: String
    /// The value.
    public var value: Data
    /// The revision that made the key.
    public var createRevision: MetaRevision
    /// The revision that last changed it.
    public var modifyRevision: MetaRevision
    /// The lease that it hangs on.
    public var lease: MetaLease?
}

extension MetaRecord {
    /// A record that hangs on no lease and was never changed, for stores in tests.
    package init(_ key: String, _ value: Data, at revision: MetaRevision) {
        self.init(
            key: key,
            value: value,
            createRevision: revision,
            modifyRevision: revision,
            lease: nil
        )
    }
}

/// A condition of a transaction.
public enum MetaCompare: Sendable, Hashable {
    /// The key exists.
    case exists(String)
    /// The key does not exist.
    case absent(String)
    /// The key was last changed by this very revision.
    case unchanged(String, since: MetaRevision)
    /// No key starts with the prefix.
    case empty(prefix: String)
}

/// An operation of a transaction.
public enum MetaOperation: Sendable, Hashable {
    /// Reads one key.
    case get(String)
    /// Reads keys with a prefix in order of the key, those after the key `after`, at most
    /// `countMax`.
    case range(prefix: String, after: String?, countMax: Int)
    /// Reads keys with a prefix changed after a revision in order of their revision.
    case changed(prefix: String, after: MetaRevision, countMax: Int)
    /// Counts keys with a prefix, however many.
    case count(prefix: String)
    /// Writes a key.
    case put(String, Data, lease: MetaLease?)
    /// Deletes a key; one that does not exist is fine.
    case delete(String)
    /// Deletes all keys with a prefix.
    case deleteAll(prefix: String)

    /// Whether it changes the store.
    public var isChange: Bool {
        switch self {
        case .get, .range, .changed, .count: false
        case .put, .delete, .deleteAll: true
        }
    }
}

/// Conditions, and what to do when they all hold or when one does not.
public struct MetaTransaction: Sendable, Hashable {
    /// All must hold for ``success``.
    public var compares: [MetaCompare]
    /// What to do then.
    public var success: [MetaOperation]
    /// What to do otherwise.
    public var failure: [MetaOperation]

    /// Creates a transaction.
    public init(
        compares: [MetaCompare] = [],
        success: [MetaOperation],
        failure: [MetaOperation] = []
    ) {
        self.compares = compares
        self.success = success
        self.failure = failure
    }

    /// Refuses what etcd would refuse.
    ///
    /// - Throws: ``MetadataError/transactionInvalid(_:)``.
    public func validate() throws(MetadataError) {
        let countMax = MetaLimits.operationCountMax
        guard compares.count <= countMax, success.count <= countMax, failure.count <= countMax
        else { throw .transactionInvalid("more than \(countMax) operations") }
        try Self.validate(success)
        try Self.validate(failure)
    }

    private static func validate(_ operations: [MetaOperation]) throws(MetadataError) {
        var keys: Set<String> = []
        var written: [String] = []
        var prefixes: [String] = []
        var byteCount = 0
        for operation in operations {
            let key: String
            switch operation {
            case .put(let name, let value, _):
                key = name
                written.append(name)
                byteCount += name.utf8.count + value.count
            case .delete(let name): key = name
            case .deleteAll(let prefix):
                prefixes.append(prefix)
                continue
            case .get, .range, .changed, .count: continue
            }
            guard keys.insert(key).inserted else { throw .transactionInvalid("a key twice") }
            guard (1...MetaLimits.keyByteCountMax).contains(key.utf8.count) else {
                throw .transactionInvalid("a key that is empty or too long")
            }
        }
        for prefix in prefixes where written.contains(where: { $0.hasPrefix(prefix) }) {
            throw .transactionInvalid("a key twice")
        }
        guard byteCount <= MetaLimits.transactionByteCountMax else {
            throw .transactionInvalid("more than \(MetaLimits.transactionByteCountMax) bytes")
        }
    }
}

/// The end of a transaction.
public struct MetaTransactionResult: Sendable, Hashable {
    /// Whether all compares held.
    public var succeeded: Bool
    /// The store's revision after it; the transaction's own when it changed something.
    public var revision: MetaRevision
    /// What each operation of the branch read; empty for those that count or change.
    public var records: [[MetaRecord]]
    /// The number of keys that each operation of the branch counted; 0 for those that do not.
    public var counts: [Int]
}

extension MetaTransactionResult {
    /// What a transaction read, for stores in tests.
    package init(records: [[MetaRecord]], at revision: MetaRevision) {
        self.init(
            succeeded: true,
            revision: revision,
            records: records,
            counts: records.map { _ in 0 }
        )
    }
}

/// All changes of one revision that a watcher sees.
public struct MetaWatchBatch: Sendable, Hashable {
    /// A change of one key.
    public enum Change: Sendable, Hashable {
        /// The key has this value now.
        case put(MetaRecord)
        /// The key is gone.
        case delete(String)
    }

    /// The revision.
    public var revision: MetaRevision
    /// Its changes, by key.
    public var changes: [Change]
}

/// A store of cluster metadata.
public protocol MetaStore: Sendable {
    /// Runs a transaction.
    func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult
    /// Makes a lease that ends when it is not kept alive for `milliseconds`.
    func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease
    /// Keeps a lease alive for its full time again.
    ///
    /// - Throws: ``MetadataError/leaseNotFound`` when it has ended.
    func keepAlive(_ lease: MetaLease) async throws(MetadataError)
    /// Ends a lease and deletes its keys.
    func revoke(_ lease: MetaLease) async throws(MetadataError)
    /// Changes of keys with a prefix after a revision, then those to come.
    ///
    /// The stream ends when the store closes or the watcher lags more than
    /// ``MetaLimits/watchBacklogMax`` batches; the watcher resumes from the last revision it saw.
    ///
    /// - Throws: ``MetadataError/compacted(oldest:)`` when changes after it are no longer kept;
    ///   the watcher lists again.
    func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch>
    /// Does the store's own periodic work, such as ending leases; call it about once a second.
    func maintain() async throws(MetadataError)
}
