// Transactions: compares, then one branch, then one revision for all its changes.

import Foundation
import GRDB

extension SQLiteMetaStore {
    /// Runs a transaction; durable when it returns.
    public func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        try transaction.validate()
        let isReadOnly =
            !transaction.success.contains(where: \.isChange)
            && !transaction.failure.contains(where: \.isChange)
        do {
            if isReadOnly {
                return try await pool.read { db in
                    var changes: [HistoryRow] = []
                    return try Self.run(transaction, revision: nil, in: db, &changes)
                }
            }
            return try await pool.writeWithoutTransaction { [self] db in
                try runAndPublish(transaction, in: db)
            }
        } catch {
            throw Self.translate(error)
        }
    }

    /// Commits, then publishes while still on the writer's queue: watchers see changes in the
    /// order of their commits.
    private func runAndPublish(
        _ transaction: MetaTransaction,
        in db: Database
    ) throws -> MetaTransactionResult {
        var changes: [HistoryRow] = []
        var result = MetaTransactionResult(succeeded: false, revision: 0, records: [], counts: [])
        try db.inTransaction(.immediate) {
            let current = try Self.state("revision", in: db)
            result = try Self.run(transaction, revision: current + 1, in: db, &changes)
            if changes.isEmpty {
                result.revision = current
            } else {
                try Self.setState("revision", current + 1, in: db)
                try Self.compactHistory(in: db, newest: current + 1)
            }
            return .commit
        }
        if !changes.isEmpty { watchers.publish(changes, revision: result.revision) }
        return result
    }

    /// Runs a transaction within one of SQLite's.
    ///
    /// Its changes get `revision`, nil when it only reads, and each key that changed adds a row
    /// to `changes`.
    private static func run(
        _ transaction: MetaTransaction,
        revision: MetaRevision?,
        in db: Database,
        _ changes: inout [HistoryRow]
    ) throws -> MetaTransactionResult {
        let succeeded = try transaction.compares.allSatisfy { try holds($0, in: db) }
        var records: [[MetaRecord]] = []
        var counts: [Int] = []
        for operation in succeeded ? transaction.success : transaction.failure {
            var read: [MetaRecord] = []
            var count = 0
            if operation.isChange {
                guard let revision else { preconditionFailure("a change in a read transaction") }
                try apply(operation, revision: revision, in: db, &changes)
            } else if case .count(let prefix) = operation {
                count = try Self.count(prefix: prefix, in: db)
            } else {
                read = try Self.read(operation, in: db)
            }
            records.append(read)
            counts.append(count)
        }
        return MetaTransactionResult(
            succeeded: succeeded,
            revision: try revision ?? state("revision", in: db),
            records: records,
            counts: counts
        )
    }

    private static func holds(_ compare: MetaCompare, in db: Database) throws -> Bool {
        switch compare {
        case .exists(let key): try modifyRevision(of: key, in: db) != nil
        case .absent(let key): try modifyRevision(of: key, in: db) == nil
        case .unchanged(let key, let revision): try modifyRevision(of: key, in: db) == revision
        case .empty(let prefix): try read(prefix: prefix, after: nil, countMax: 1, in: db).isEmpty
        }
    }

    private static func modifyRevision(of key: String, in db: Database) throws -> MetaRevision? {
        let sql = "SELECT modifyRevision FROM record WHERE key = ?"
        return try UInt64.fetchOne(db, sql: sql, arguments: [key])
    }

    // MARK: - Reading

    private static func read(_ operation: MetaOperation, in db: Database) throws -> [MetaRecord] {
        switch operation {
        case .get(let key):
            return try records("WHERE key = ?", [key], in: db)
        case .range(let prefix, let after, let countMax):
            return try read(prefix: prefix, after: after, countMax: countMax, in: db)
        case .changed(let prefix, let after, let countMax):
            return try records(
                """
                WHERE modifyRevision > ? AND key >= ? AND key < ?
                ORDER BY modifyRevision, key LIMIT ?
                """,
                [after, prefix, end(ofPrefix: prefix), clamped(countMax)],
                in: db
            )
        case .count, .put, .delete, .deleteAll:
            preconditionFailure("reads no records")
        }
    }

    private static func count(prefix: String, in db: Database) throws -> Int {
        let sql = "SELECT COUNT(*) FROM record WHERE key >= ? AND key < ?"
        return try Int.fetchOne(db, sql: sql, arguments: [prefix, end(ofPrefix: prefix)]) ?? 0
    }

    static func read(
        prefix: String,
        after: String?,
        countMax: Int,
        in db: Database
    ) throws -> [MetaRecord] {
        try records(
            "WHERE key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?",
            [prefix, end(ofPrefix: prefix), after ?? "", clamped(countMax)],
            in: db
        )
    }

    private static func clamped(_ countMax: Int) -> Int {
        min(max(countMax, 0), MetaLimits.rangeCountMax)
    }

    /// The first key after all keys with the prefix.
    ///
    /// Keys are ASCII, so a character above them ends the range.
    static func end(ofPrefix prefix: String) -> String { prefix + "\u{FFFF}" }

    static func records(
        _ condition: String,
        _ arguments: StatementArguments,
        in db: Database
    ) throws -> [MetaRecord] {
        let sql = "SELECT key, value, createRevision, modifyRevision, lease FROM record "
        return try Row.fetchAll(db, sql: sql + condition, arguments: arguments).map { row in
            MetaRecord(
                key: row[0],
                value: row[1],
                createRevision: row[2],
                modifyRevision: row[3],
                lease: (row[4] as Int64?).map(MetaLease.init)
            )
        }
    }

    // MARK: - Changing

    private static func apply(
        _ operation: MetaOperation,
        revision: MetaRevision,
        in db: Database,
        _ changes: inout [HistoryRow]
    ) throws {
        switch operation {
        case .put(let key, let value, let lease):
            if let lease { try requireLease(lease, in: db) }
            try put(key, value, lease, revision: revision, in: db, &changes)
        case .delete(let key):
            try delete(try records("WHERE key = ?", [key], in: db), revision, in: db, &changes)
        case .deleteAll(let prefix):
            let all = try records(
                "WHERE key >= ? AND key < ?",
                [prefix, end(ofPrefix: prefix)],
                in: db
            )
            try delete(all, revision, in: db, &changes)
        case .get, .range, .changed, .count:
            preconditionFailure("not a change")
        }
    }

    private static func put(
        _ key: String,
        _ value: Data,
        _ lease: MetaLease?,
        revision: MetaRevision,
        in db: Database,
        _ changes: inout [HistoryRow]
    ) throws {
        let sql = "SELECT createRevision FROM record WHERE key = ?"
        let created = try UInt64.fetchOne(db, sql: sql, arguments: [key]) ?? revision
        try db.execute(
            sql: "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)",
            arguments: [key, value, created, revision, lease?.rawValue]
        )
        let row = HistoryRow(key: key, value: value, createRevision: created, lease: lease)
        try append(row, revision, in: db, &changes)
    }

    static func delete(
        _ records: [MetaRecord],
        _ revision: MetaRevision,
        in db: Database,
        _ changes: inout [HistoryRow]
    ) throws {
        for record in records {
            try db.execute(sql: "DELETE FROM record WHERE key = ?", arguments: [record.key])
            let row = HistoryRow(
                key: record.key,
                value: nil,
                createRevision: record.createRevision,
                lease: nil
            )
            try append(row, revision, in: db, &changes)
        }
    }

    private static func append(
        _ row: HistoryRow,
        _ revision: MetaRevision,
        in db: Database,
        _ changes: inout [HistoryRow]
    ) throws {
        try db.execute(
            sql: "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?)",
            arguments: [revision, row.key, row.value, row.createRevision, row.lease?.rawValue]
        )
        changes.append(row)
    }

    // MARK: - State

    static func state(_ name: String, in db: Database) throws -> UInt64 {
        let sql = "SELECT value FROM state WHERE name = ?"
        guard let value = try UInt64.fetchOne(db, sql: sql, arguments: [name]) else {
            throw MetadataError.storeFailed("the row '\(name)' is missing")
        }
        return value
    }

    static func setState(_ name: String, _ value: UInt64, in db: Database) throws {
        try db.execute(
            sql: "UPDATE state SET value = ? WHERE name = ?",
            arguments: [value, name]
        )
    }

    /// Drops old history, a thousand revisions at a time.
    private static func compactHistory(in db: Database, newest: MetaRevision) throws {
        let keep = MetaLimits.historyRevisionCountMax
        guard newest > keep, newest.isMultiple(of: 1000) else { return }
        try compact(upTo: newest - keep, in: db)
    }

    static func compact(upTo revision: MetaRevision, in db: Database) throws {
        try db.execute(sql: "DELETE FROM history WHERE revision <= ?", arguments: [revision])
        try setState("compacted", revision, in: db)
    }
}

/// A change of one key, as kept for watchers.
struct HistoryRow: Sendable {
    /// The key.
    var key: String
    /// Its new value; nil when it was deleted.
    var value: Data?
    /// The revision that made it.
    var createRevision: MetaRevision
    /// The lease that it hangs on.
    var lease: MetaLease?

    /// The change as watchers see it.
    func change(at revision: MetaRevision) -> MetaWatchBatch.Change {
        guard let value else { return .delete(key) }
        return .put(
            MetaRecord(
                key: key,
                value: value,
                createRevision: createRevision,
                modifyRevision: revision,
                lease: lease
            )
        )
    }
}
