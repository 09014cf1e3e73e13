// Leases: which exist is in the database, when they end is in memory only. A store that opens
// gives every lease its full time again, as a new etcd leader does.

import Foundation
import GRDB
import Synchronization

/// When each lease ends.
struct LeaseTable {
    /// One lease.
    struct Entry {
        /// The time that it has without being kept alive.
        var milliseconds: Int
        /// When it ends.
        var deadline: ContinuousClock.Instant
    }

    /// All leases, by number.
    var entries: [Int64: Entry] = [:]
    /// When it was last looked which are over.
    var lookedAt: ContinuousClock.Instant?
}

extension SQLiteMetaStore {
    /// Makes a lease.
    public func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease {
        let id: Int64
        do {
            id = try await pool.write { db in
                let id = Int64.random(in: 1...Int64(1) << 53 - 1)
                try db.execute(
                    sql: "INSERT INTO lease VALUES (?, ?)",
                    arguments: [id, milliseconds]
                )
                return id
            }
        } catch {
            throw Self.translate(error)
        }
        arm(id, milliseconds)
        return MetaLease(id)
    }

    /// Keeps a lease alive; costs no disk write.
    public func keepAlive(_ lease: MetaLease) async throws(MetadataError) {
        let isKnown = leases.withLock { table in
            guard let entry = table.entries[lease.rawValue] else { return false }
            table.entries[lease.rawValue]?.deadline = .now + .milliseconds(entry.milliseconds)
            return true
        }
        guard isKnown else { throw .leaseNotFound }
    }

    /// Ends a lease and deletes its keys.
    public func revoke(_ lease: MetaLease) async throws(MetadataError) {
        let entry = leases.withLock { $0.entries.removeValue(forKey: lease.rawValue) }
        guard let entry else { throw .leaseNotFound }
        try await end([lease.rawValue: entry])
    }

    /// Ends the leases whose time is over.
    public func maintain() async throws(MetadataError) {
        let now = ContinuousClock.now
        leases.withLock { table in
            // Who stood still heard nobody: what was to come in that time may be waiting now.
            if let lookedAt = table.lookedAt, now - lookedAt > Self.standstillMax {
                for (id, entry) in table.entries {
                    table.entries[id]?.deadline = now + .milliseconds(entry.milliseconds)
                }
            }
            table.lookedAt = now
        }
        try await expireLeases(now: now)
    }

    /// How long nobody may look before this counts as a process that stood still (frozen, or
    /// suspended with its machine), and not as nodes that fell silent.
    static let standstillMax: Duration = .seconds(4)

    /// Ends the leases whose time is over at `now`.
    ///
    /// - Throws: ``MetadataError``; leases that it did not come to end in the next call.
    public func expireLeases(now: ContinuousClock.Instant = .now) async throws(MetadataError) {
        // Taken out at once: a lease is either kept alive in time or not found afterwards.
        let expired = leases.withLock { table in
            let expired = table.entries.filter { $0.value.deadline <= now }
            for id in expired.keys { table.entries[id] = nil }
            return expired
        }
        try await end(expired)
    }

    private func end(_ ended: [Int64: LeaseTable.Entry]) async throws(MetadataError) {
        guard !ended.isEmpty else { return }
        do {
            try await pool.writeWithoutTransaction { [self] db in
                for id in ended.keys.sorted() { try end(id, in: db) }
            }
        } catch {
            leases.withLock { table in
                table.entries.merge(ended) { current, _ in current }
            }
            throw Self.translate(error)
        }
    }

    private func end(_ id: Int64, in db: Database) throws {
        var changes: [HistoryRow] = []
        var revision: MetaRevision = 0
        try db.inTransaction(.immediate) {
            revision = try Self.state("revision", in: db) + 1
            let records = try Self.records("WHERE lease = ?", [id], in: db)
            try Self.delete(records, revision, in: db, &changes)
            try db.execute(sql: "DELETE FROM lease WHERE id = ?", arguments: [id])
            if !changes.isEmpty { try Self.setState("revision", revision, in: db) }
            return .commit
        }
        if !changes.isEmpty { watchers.publish(changes, revision: revision) }
    }

    /// Gives every lease in the database its full time.
    func armLeases() throws(MetadataError) {
        let rows = try blocking { pool in
            try pool.read { try Row.fetchAll($0, sql: "SELECT id, milliseconds FROM lease") }
        }
        for row in rows { arm(row[0], row[1]) }
    }

    private func arm(_ id: Int64, _ milliseconds: Int) {
        leases.withLock { table in
            table.entries[id] = LeaseTable.Entry(
                milliseconds: milliseconds,
                deadline: .now + .milliseconds(milliseconds)
            )
        }
    }

    static func requireLease(_ lease: MetaLease, in db: Database) throws {
        let sql = "SELECT 1 FROM lease WHERE id = ?"
        guard try Int.fetchOne(db, sql: sql, arguments: [lease.rawValue]) != nil else {
            throw MetadataError.leaseNotFound
        }
    }
}
