// The metadata store of one machine: SQLite through GRDB.
//
// What makes an answered transaction durable: WAL with synchronous=FULL, so that COMMIT returns
// after fdatasync of the log. GRDB's pool sets NORMAL when it opens; FULL is set again after that,
// read back, and a test reads it back too.
//
// Not verified here: that the file system and disk under it keep what fdatasync promised.

import Foundation
import GRDB
public import Logging
import Synchronization

/// A metadata store in one SQLite database, used by one process.
public final class SQLiteMetaStore: MetaStore {
    /// The format that this build writes and the newest that it reads.
    public static var formatVersion: Int { 1 }
    /// Marks a database as ours: "Cair" in the SQLite header.
    static var applicationID: Int { 0x4361_6972 }
    /// The database's name within the data directory.
    public static var fileName: String { "metadata.sqlite" }

    let pool: DatabasePool
    let watchers = WatcherTable()
    let leases = Mutex(LeaseTable())
    let logger: Logger
    private let lock: DirectoryLock

    /// Opens the store in a directory, making both when they are missing.
    ///
    /// - Parameters:
    ///   - directory: Belongs to this process alone while it runs.
    ///   - logger: Where to log.
    /// - Throws: ``MetadataError``; nothing on disk was changed, except that the directory may
    ///   have been made.
    public init(directory: String, logger: Logger) throws(MetadataError) {
        self.logger = logger
        let path = directory + "/" + Self.fileName
        do {
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
        } catch {
            var isDirectory: ObjCBool = false
            // SAFETY: one Bool that outlives the call.
            let exists = unsafe FileManager.default.fileExists(
                atPath: directory,
                isDirectory: &isDirectory
            )
            throw .databaseUnusable(
                path: directory,
                detail: exists ? "it is not a directory" : "it cannot be made"
            )
        }
        lock = try DirectoryLock(directory: directory)
        pool = try Self.openPool(path)
        try blocking { pool in
            try pool.writeWithoutTransaction { db in
                try db.execute(sql: "PRAGMA synchronous = FULL")
                guard try Int.fetchOne(db, sql: "PRAGMA synchronous") == 2 else {
                    throw MetadataError.databaseUnusable(
                        path: path,
                        detail: "SQLite refuses synchronous=FULL"
                    )
                }
                try db.inTransaction(.immediate) {
                    try Self.migrate(db, path: path)
                    return .commit
                }
            }
        }
        try armLeases()
    }

    /// Whether a directory has a database.
    public static func exists(in directory: String) -> Bool {
        FileManager.default.fileExists(atPath: directory + "/" + fileName)
    }

    /// Ends all watches and closes the database.
    public func close() throws(MetadataError) {
        watchers.finish()
        try blocking { pool in try pool.close() }
    }

    /// The `synchronous` setting of the connection that writes: 2 means FULL.
    ///
    /// - Throws: ``MetadataError``.
    package func synchronousSetting() throws(MetadataError) -> Int {
        try blocking { pool in
            try pool.writeWithoutTransaction { try Int.fetchOne($0, sql: "PRAGMA synchronous") }
        } ?? 0
    }

    // MARK: - Opening

    private static func openPool(_ path: String) throws(MetadataError) -> DatabasePool {
        var configuration = Configuration()
        configuration.label = "metadata"
        configuration.maximumReaderCount = 4
        do {
            return try DatabasePool(path: path, configuration: configuration)
        } catch let error as DatabaseError {
            switch error.resultCode {
            case .SQLITE_NOTADB: throw MetadataError.notOurDatabase(path: path)
            case .SQLITE_CORRUPT:
                throw MetadataError.databaseCorrupt(path: path, detail: describe(error))
            case .SQLITE_BUSY, .SQLITE_LOCKED: throw MetadataError.databaseLocked(path: path)
            default: throw MetadataError.databaseUnusable(path: path, detail: describe(error))
            }
        } catch {
            throw .databaseUnusable(path: path, detail: "\(error)")
        }
    }

    /// Brings the database to ``formatVersion``, or refuses it.
    private static func migrate(_ db: Database, path: String) throws {
        let version = try Int.fetchOne(db, sql: "PRAGMA user_version") ?? 0
        let application = try Int.fetchOne(db, sql: "PRAGMA application_id") ?? 0
        let tableCount = try Int.fetchOne(db, sql: "SELECT count(*) FROM sqlite_master") ?? 0
        if tableCount == 0, version == 0, application == 0 {
            try db.execute(sql: schema)
            return
        }
        guard application == applicationID else {
            throw MetadataError.notOurDatabase(path: path)
        }
        guard version <= formatVersion else {
            throw MetadataError.databaseTooNew(
                path: path,
                found: version,
                supported: formatVersion
            )
        }
        let finding = try String.fetchOne(db, sql: "PRAGMA quick_check(1)") ?? "no answer"
        guard finding == "ok" else {
            throw MetadataError.databaseCorrupt(path: path, detail: finding)
        }
    }

    /// Format 1: the keys as they are, and the changes that made them so.
    private static var schema: String {
        """
        PRAGMA application_id = \(applicationID);
        PRAGMA user_version = \(formatVersion);
        CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO state VALUES ('revision', 1), ('compacted', 0);
        CREATE TABLE record (
            key TEXT PRIMARY KEY,
            value BLOB NOT NULL,
            createRevision INTEGER NOT NULL,
            modifyRevision INTEGER NOT NULL,
            lease INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX recordByRevision ON record (modifyRevision, key);
        CREATE INDEX recordByLease ON record (lease) WHERE lease IS NOT NULL;
        CREATE TABLE history (
            revision INTEGER NOT NULL,
            key TEXT NOT NULL,
            value BLOB,
            createRevision INTEGER NOT NULL,
            lease INTEGER,
            PRIMARY KEY (revision, key)
        ) WITHOUT ROWID;
        CREATE TABLE lease (id INTEGER PRIMARY KEY, milliseconds INTEGER NOT NULL);
        """
    }

    // MARK: - Calling GRDB

    /// Runs `body` and gives its errors our type.
    func blocking<Value>(
        _ body: (DatabasePool) throws -> Value
    ) throws(MetadataError) -> Value {
        do { return try body(pool) } catch { throw Self.translate(error) }
    }

    static func translate(_ error: any Error) -> MetadataError {
        switch error {
        case let error as MetadataError: error
        case let error as DatabaseError: .storeFailed(describe(error))
        default: .storeFailed("\(error)")
        }
    }

    private static func describe(_ error: DatabaseError) -> String {
        "\(error.message ?? "unknown failure") (SQLite \(error.extendedResultCode.rawValue))"
    }
}
