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

private func put(_ key: String, _ value: String, lease: MetaLease? = nil) -> MetaOperation {
    .put(key, Data(value.utf8), lease: lease)
}

private func texts(_ records: [MetaRecord]) -> [String] {
    records.map { "\($0.key)=\(String(decoding: $0.value, as: UTF8.self))" }
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

    // MARK: - Transactions

    @Test("A transaction's changes share one revision, and each transaction has a greater one")
    func transact_twoPuts_oneRevision() async throws {
        let first = try await commit(put("/a", "1"), put("/b", "1"))
        let second = try await commit(put("/a", "2"))
        #expect(second.revision == first.revision + 1)
        let records = try await all("/")
        #expect(records.map(\.modifyRevision) == [second.revision, first.revision])
        #expect(records.map(\.createRevision) == [first.revision, first.revision])
    }

    @Test("Reading and failing change no revision")
    func transact_noChange_keepsRevision() async throws {
        let first = try await commit(put("/a", "1"))
        let read = try await commit(.get("/a"))
        let failed = try await commit(put("/b", "1"), if: [.exists("/nope")])
        #expect(read.revision == first.revision)
        #expect(failed.revision == first.revision)
        #expect(!failed.succeeded)
        #expect(try await all("/b").isEmpty)
    }

    @Test("Each compare holds exactly when it should")
    func transact_compares() async throws {
        let revision = try await commit(put("/d/x", "1")).revision
        let cases: [(MetaCompare, Bool)] = [
            (.exists("/d/x"), true), (.exists("/d/y"), false),
            (.absent("/d/y"), true), (.absent("/d/x"), false),
            (.unchanged("/d/x", since: revision), true),
            (.unchanged("/d/x", since: revision - 1), false),
            (.unchanged("/d/y", since: revision), false),
            (.empty(prefix: "/e/"), true), (.empty(prefix: "/d/"), false),
        ]
        for (compare, expected) in cases {
            let result = try await commit(if: [compare])
            #expect(result.succeeded == expected, "\(compare)")
        }
    }

    @Test("When a compare fails the other branch runs, in the same state")
    func transact_failureBranch_reads() async throws {
        try await commit(put("/a", "1"))
        let result = try await store.transact(
            MetaTransaction(
                compares: [.absent("/a")],
                success: [put("/a", "2")],
                failure: [.get("/a")]
            )
        )
        #expect(!result.succeeded)
        #expect(texts(result.records[0]) == ["/a=1"])
    }

    @Test("Forty racing increments by compare-and-set lose none")
    func transact_racingIncrements_losesNone() async throws {
        try await commit(put("/n", "0"))
        let store = store
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<40 {
                group.addTask {
                    while true {
                        guard
                            let read = try? await store.transact(
                                MetaTransaction(success: [.get("/n")])
                            ).records[0].first,
                            let number = Int(String(decoding: read.value, as: UTF8.self))
                        else { continue }
                        let result = try? await store.transact(
                            MetaTransaction(
                                compares: [.unchanged("/n", since: read.modifyRevision)],
                                success: [put("/n", "\(number + 1)")]
                            )
                        )
                        if result?.succeeded == true { return }
                    }
                }
            }
        }
        #expect(texts(try await all("/n")) == ["/n=40"])
    }

    @Test("Ranges page by key, and changes list by revision")
    func transact_ranges() async throws {
        for name in ["b", "a", "c"] { try await commit(put("/r/" + name, name)) }
        try await commit(put("/s", "other"))
        let page = try await commit(.range(prefix: "/r/", after: "/r/a", countMax: 1))
        #expect(texts(page.records[0]) == ["/r/b=b"])
        let changed = try await commit(.changed(prefix: "/r/", after: 0, countMax: 10))
        #expect(texts(changed.records[0]) == ["/r/b=b", "/r/a=a", "/r/c=c"])
    }

    @Test("A count is exact, also beyond what a range reads, and counts nothing beside the prefix")
    func transact_count_isExact() async throws {
        let keyCount = MetaLimits.rangeCountMax + 1
        for first in stride(from: 0, to: keyCount, by: MetaLimits.operationCountMax) {
            let last = min(first + MetaLimits.operationCountMax, keyCount)
            let operations = (first..<last).map { put("/c/\($0)", "") }
            _ = try await store.transact(MetaTransaction(success: operations))
        }
        try await commit(put("/c", ""), put("/c0", ""))
        let result = try await commit(.count(prefix: "/c/"), .get("/c"), .count(prefix: "/d/"))
        #expect(result.counts == [keyCount, 0, 0])
        #expect(result.records.map(\.count) == [0, 1, 0])
    }

    @Test("Deleting a prefix deletes what is below it and nothing beside it")
    func transact_deleteAll() async throws {
        try await commit(put("/p/1", ""), put("/p/2", ""), put("/p0", ""), put("/o", ""))
        try await commit(.deleteAll(prefix: "/p/"))
        #expect(try await all("/").map(\.key) == ["/o", "/p0"])
    }

    @Test("What etcd refuses is refused here too")
    func transact_limits() async throws {
        let many = (0..<129).map { put("/k\($0)", "") }
        let tooMany = MetaTransaction(success: many)
        let twice = MetaTransaction(success: [put("/a", "1"), .delete("/a")])
        let large = MetaTransaction(success: [.put("/a", Data(count: 1 << 20), lease: nil)])
        let longKey = MetaTransaction(success: [put(String(repeating: "k", count: 1025), "")])
        for transaction in [tooMany, twice, large, longKey] {
            await #expect(throws: MetadataError.self) { try await store.transact(transaction) }
        }
        #expect(try await all("/").isEmpty)
    }

    // MARK: - Watches

    @Test("A watch has no gap and no repetition between history and what comes")
    func watch_fromHistory_isGapless() async throws {
        let first = try await commit(put("/w/1", "a")).revision
        try await commit(put("/x", "not watched"))
        try await commit(put("/w/2", "b"), put("/w/1", "c"))
        let stream = try await store.watch(prefix: "/w/", after: first - 1)
        try await commit(.delete("/w/1"))
        var seen: [String] = []
        for await batch in stream.prefix(3) {
            for change in batch.changes {
                switch change {
                case .put(let record):
                    seen.append("\(record.key)=\(String(decoding: record.value, as: UTF8.self))")
                case .delete(let key): seen.append("-\(key)")
                }
            }
        }
        #expect(seen == ["/w/1=a", "/w/1=c", "/w/2=b", "-/w/1"])
    }

    @Test("A watch from before what is kept is refused")
    func watch_compacted_throws() async throws {
        for number in 0..<5 { try await commit(put("/w", "\(number)")) }
        try await store.compact(upTo: 4)
        await #expect(throws: MetadataError.compacted(oldest: 4)) {
            _ = try await store.watch(prefix: "/w", after: 2)
        }
        _ = try await store.watch(prefix: "/w", after: 4)
    }

    @Test("Closing ends all watches")
    func watch_close_ends() async throws {
        let stream = try await store.watch(prefix: "/", after: 1)
        try store.close()
        var count = 0
        for await _ in stream { count += 1 }
        #expect(count == 0)
    }

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
        let lease = try await store.grantLease(milliseconds: 10_000)
        let kept = try await store.grantLease(milliseconds: 20_000)
        try await commit(put("/l/1", "", lease: lease), put("/l/2", "", lease: kept))
        let revision = try await commit().revision
        let stream = try await store.watch(prefix: "/l/", after: revision)
        try await store.expireLeases(now: .now + .milliseconds(15_000))
        #expect(try await all("/l/").map(\.key) == ["/l/2"])
        for await batch in stream.prefix(1) { #expect(batch.changes == [.delete("/l/1")]) }
        await #expect(throws: MetadataError.leaseNotFound) { try await store.keepAlive(lease) }
        try await store.keepAlive(kept)
    }

    @Test("A key put without its lease later does not go with it")
    func lease_keyTakenOff_stays() async throws {
        let lease = try await store.grantLease(milliseconds: 10)
        try await commit(put("/k", "1", lease: lease))
        try await commit(put("/k", "2"))
        try await store.revoke(lease)
        #expect(texts(try await all("/k")) == ["/k=2"])
    }

    @Test("A store that opens gives each lease its full time again")
    func lease_reopen_rearms() async throws {
        let lease = try await store.grantLease(milliseconds: 60_000)
        try await commit(put("/l", "", lease: lease))
        try store.close()
        let again = try TemporaryDirectoryReopened(directory).store
        try await again.expireLeases(now: .now + .milliseconds(30_000))
        try await again.keepAlive(lease)
    }

    @Test("A key cannot hang on a lease that is not")
    func lease_unknown_isRefused() async throws {
        await #expect(throws: MetadataError.leaseNotFound) {
            try await commit(put("/l", "", lease: MetaLease(4711)))
        }
        #expect(try await all("/l").isEmpty)
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
