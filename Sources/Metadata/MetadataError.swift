// What can go wrong in the metadata store, and what to do about it.

/// An error of the metadata store.
public enum MetadataError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The database was written by a newer version.
    case databaseTooNew(path: String, found: Int, supported: Int)
    /// The file is no database of this program.
    case notOurDatabase(path: String)
    /// The database is damaged.
    case databaseCorrupt(path: String, detail: String)
    /// Another process has the database.
    case databaseLocked(path: String)
    /// The directory or file cannot be used.
    case databaseUnusable(path: String, detail: String)
    /// A read or write of the database failed; nothing was changed.
    case storeFailed(String)
    /// The transaction breaks a limit of the store; a bug of the caller.
    case transactionInvalid(String)
    /// A record cannot be read: it is damaged or from a newer version.
    case recordInvalid(key: String)
    /// Changes after the revision asked for are no longer kept.
    case compacted(oldest: MetaRevision)
    /// The lease has ended.
    case leaseNotFound
    /// etcd does not answer; nothing was changed.
    case unavailable(String)
    /// etcd has not answered, and may have made the change, or make it yet.
    case outcomeUnknown(String)
    /// etcd takes no changes, for want of space.
    case storeFull(String)
    /// Another volmeta has taken over; nothing was changed.
    case notLeader
    /// The store to write to has records already.
    case targetNotEmpty
    /// A copy into the store was interrupted.
    case copyIncomplete

    /// What happened, in one line.
    public var description: String {
        switch self {
        case .databaseTooNew(let path, let found, let supported):
            "The database \(path) has format \(found); this build reads up to \(supported)."
        case .notOurDatabase(let path): "\(path) is not a metadata database."
        case .databaseCorrupt(let path, let detail): "The database \(path) is damaged: \(detail)."
        case .databaseLocked(let path): "Another volmeta uses \(path)."
        case .databaseUnusable(let path, let detail): "\(path) cannot be used: \(detail)."
        case .storeFailed(let detail): "The metadata database failed: \(detail)."
        case .transactionInvalid(let detail): "A metadata transaction has \(detail)."
        case .recordInvalid(let key): "The metadata record '\(key)' cannot be read."
        case .compacted(let oldest): "Changes before revision \(oldest) are no longer kept."
        case .leaseNotFound: "The lease has ended."
        case .unavailable(let detail): "etcd does not answer: \(detail)."
        case .outcomeUnknown(let detail):
            "etcd has not answered and may have made the change: \(detail)."
        case .storeFull(let detail): "etcd takes no changes: \(detail)."
        case .notLeader: "Another volmeta has taken over."
        case .targetNotEmpty: "The store to write to has records already."
        case .copyIncomplete: "The copy into this store has not come to its end."
        }
    }

    /// The step that helps, when there is one.
    public var help: String? {
        switch self {
        case .databaseTooNew: "Run the newer volmeta that wrote it, or restore a backup."
        case .notOurDatabase: "Give --data a directory of its own."
        case .databaseCorrupt:
            "Stop here, copy the directory away, and restore the last backup of it."
        case .databaseLocked: "Stop the other volmeta, or give --data another directory."
        case .databaseUnusable:
            "Give --data a directory that this user may write to, on a disk with free space."
        case .storeFailed: "Check the free space and the health of the disk under --data."
        case .transactionInvalid, .recordInvalid, .compacted, .leaseNotFound, .notLeader: nil
        case .unavailable, .outcomeUnknown:
            "Check the members that --store names with 'etcdctl endpoint health'."
        case .targetNotEmpty:
            "Name another directory, or an etcd namespace of its own: etcd://HOST:PORT/NAME."
        case .copyIncomplete: "Run the same 'volmeta migrate' or 'volmeta rebuild' again."
        case .storeFull:
            "Let etcd compact and defragment, or give it more; then 'etcdctl alarm disarm'."
        }
    }
}
