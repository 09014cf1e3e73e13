// The store on SQLite against the promises of `MetaStore`.

import Foundation
import GRDB
import Logging
import Metadata
import Testing

/// A directory that goes with its owner.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "cairn-metadata-" + UUID().uuidString
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: true
        )
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func openStore() throws -> SQLiteMetaStore {
        try SQLiteMetaStore(directory: path, logger: Logger(label: "test"))
    }
}

@Suite("SQLite metadata store", .timeLimit(.minutes(3)))
struct SQLiteMetaStoreTests {
    let directory: TemporaryDirectory
    let store: SQLiteMetaStore

    init() throws {
        directory = try TemporaryDirectory()
        store = try directory.openStore()
    }

    @discardableResult
    private func commit(
        _ operations: MetaOperation...,
        if compares: [MetaCompare] = []
    ) async throws -> MetaTransactionResult {
        try await store.transact(MetaTransaction(compares: compares, success: operations))
    }

    private func all(_ prefix: String) async throws -> [MetaRecord] {
        let range = MetaOperation.range(prefix: prefix, after: nil, countMax: 1000)
        return try await commit(range).records[0]
    }

    // MARK: - Durability

    @Test("Commits wait for fdatasync: the writer has synchronous=FULL, which GRDB had undone")
    func open_setsSynchronousFull() throws {
        #expect(try store.synchronousSetting() == 2)
    }

    @Test("What was committed is there after the store is opened again")
    func reopen_keepsRecordsAndRevision() async throws {
        let before = try await commit(put("/a", "1"), put("/b", "2"))
        try store.close()
        let again = try TemporaryDirectoryReopened(directory).store
        let result = try await again.transact(
            MetaTransaction(success: [.range(prefix: "/", after: nil, countMax: 10)])
        )
        #expect(texts(result.records[0]) == ["/a=1", "/b=2"])
        #expect(result.revision == before.revision)
    }

    // MARK: - Watches

    @Test("A watcher that lags too far gets an end, not a hole")
    func watch_lagging_ends() async throws {
        let stream = try await store.watch(prefix: "/", after: 1)
        for number in 0..<(MetaLimits.watchBacklogMax + 10) {
            try await commit(put("/a", "\(number)"))
        }
        var revisions: [MetaRevision] = []
        for await batch in stream { revisions.append(batch.revision) }
        #expect(revisions.count == MetaLimits.watchBacklogMax)
        #expect(revisions == Array(2..<(MetaRevision(MetaLimits.watchBacklogMax) + 2)))
    }

    // MARK: - Leases

    @Test("A lease that is not kept alive takes its keys with it, and watchers see that")
    func lease_expires_deletesKeys() async throws {
        // Hours: the minutes that a busy machine takes for the lines between are none of them.
        let lease = try await store.grantLease(milliseconds: 10_000_000)
        let kept = try await store.grantLease(milliseconds: 20_000_000)
        try await commit(put("/l/1", "", lease: lease), put("/l/2", "", lease: kept))
        let revision = try await commit().revision
        let stream = try await store.watch(prefix: "/l/", after: revision)
        try await store.expireLeases(now: .now + .milliseconds(15_000_000))
        #expect(try await all("/l/").map(\.key) == ["/l/2"])
        for await batch in stream.prefix(1) { #expect(batch.changes == [.delete("/l/1")]) }
        await #expect(throws: MetadataError.leaseNotFound) { try await store.keepAlive(lease) }
        try await store.keepAlive(kept)
    }

    @Test("A store that opens gives each lease its full time again")
    func lease_reopen_rearms() async throws {
        let lease = try await store.grantLease(milliseconds: 60_000_000)
        try await commit(put("/l", "", lease: lease))
        try store.close()
        let again = try TemporaryDirectoryReopened(directory).store
        try await again.expireLeases(now: .now + .milliseconds(30_000_000))
        try await again.keepAlive(lease)
    }
}

/// Opens a directory a second time, as a new process would: the lock of the first must be gone.
private struct TemporaryDirectoryReopened {
    let store: SQLiteMetaStore

    init(_ directory: TemporaryDirectory) throws {
        // The first store still holds the lock until it is released, so its files are copied.
        let copy = directory.path + "/copy"
        try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        for name in names where name.hasPrefix(SQLiteMetaStore.fileName) {
            try FileManager.default.copyItem(
                atPath: directory.path + "/" + name,
                toPath: copy + "/" + name
            )
        }
        store = try SQLiteMetaStore(directory: copy, logger: Logger(label: "test"))
    }
}

@Suite("Opening a metadata database", .timeLimit(.minutes(3)))
struct DatabaseOpeningTests {
    private func path(_ directory: TemporaryDirectory) -> String {
        directory.path + "/" + SQLiteMetaStore.fileName
    }

    private func openingError(_ directory: String) -> MetadataError? {
        do {
            _ = try SQLiteMetaStore(directory: directory, logger: Logger(label: "test"))
            return nil
        } catch {
            return error
        }
    }

    @Test("A database from the future is refused and left alone")
    func open_tooNew_isRefused() throws {
        let directory = try TemporaryDirectory()
        try directory.openStore().close()
        let queue = try DatabaseQueue(path: path(directory))
        try queue.write { try $0.execute(sql: "PRAGMA user_version = 99") }
        try queue.close()
        let error = openingError(directory.path)
        #expect(
            error == .databaseTooNew(path: path(directory), found: 99, supported: 1)
        )
        #expect(error?.help?.contains("newer volmeta") == true)
    }

    @Test("Another program's database is refused and left alone")
    func open_foreign_isRefused() throws {
        let directory = try TemporaryDirectory()
        let queue = try DatabaseQueue(path: path(directory))
        try queue.write { try $0.execute(sql: "CREATE TABLE cats (name TEXT)") }
        try queue.close()
        #expect(openingError(directory.path) == .notOurDatabase(path: path(directory)))
    }

    @Test("A file that is no database is refused and left alone")
    func open_garbage_isRefused() throws {
        let directory = try TemporaryDirectory()
        let garbage = Data(repeating: 0xA5, count: 8192)
        try garbage.write(to: URL(filePath: path(directory)))
        #expect(openingError(directory.path) == .notOurDatabase(path: path(directory)))
        #expect(try Data(contentsOf: URL(filePath: path(directory))) == garbage)
    }

    @Test("A damaged database is refused")
    func open_damaged_isRefused() async throws {
        let directory = try TemporaryDirectory()
        let store = try directory.openStore()
        for number in 0..<200 {
            let operation = put("/k\(number)", String(repeating: "v", count: 500))
            _ = try await store.transact(MetaTransaction(success: [operation]))
        }
        try store.close()
        let url = URL(filePath: path(directory))
        var bytes = try Data(contentsOf: url)
        for offset in stride(from: 8192, to: bytes.count, by: 4096) {
            bytes.replaceSubrange(offset..<(offset + 100), with: Data(repeating: 0xFF, count: 100))
        }
        try FileManager.default.removeItem(atPath: directory.path + "/lock")
        try bytes.write(to: url)
        guard case .databaseCorrupt = openingError(directory.path) else {
            Issue.record("a damaged database was opened")
            return
        }
    }

    @Test("A second process is refused")
    func open_locked_isRefused() throws {
        let directory = try TemporaryDirectory()
        let first = try directory.openStore()
        #expect(openingError(directory.path) == .databaseLocked(path: directory.path))
        try first.close()
    }

    @Test("A directory that cannot be made is refused")
    func open_unusable_isRefused() {
        guard case .databaseUnusable = openingError("/proc/cairn-no-such") else {
            Issue.record("a directory in /proc was used")
            return
        }
    }
}
