// The promises of `MetaStore`, on SQLite and on etcd.

import Foundation
import Logging
import Metadata
import Testing

/// What stands behind a store.
enum StoreBackend: String, CaseIterable, CustomTestStringConvertible {
    case sqlite
    case etcd

    var testDescription: String { rawValue }

    /// Those that this machine has.
    static var available: [Self] { EtcdCluster.isInstalled ? allCases : [.sqlite] }
}

/// An empty store for one test.
final class ScenarioStore: Sendable {
    let store: any MetaStore
    private let directory: TemporaryDirectory?

    init(_ backend: StoreBackend) async throws {
        switch backend {
        case .sqlite:
            let directory = try TemporaryDirectory()
            store = try directory.openStore()
            self.directory = directory
        case .etcd:
            let cluster = try #require(EtcdClusterTrait.cluster)
            let configuration = try cluster.configuration("/" + UUID().uuidString)
            store = try EtcdMetaStore(configuration, logger: Logger(label: "test"))
            directory = nil
        }
    }

    @discardableResult
    func commit(
        _ operations: MetaOperation...,
        if compares: [MetaCompare] = []
    ) async throws -> MetaTransactionResult {
        try await store.transact(MetaTransaction(compares: compares, success: operations))
    }

    func all(_ prefix: String) async throws -> [MetaRecord] {
        let range = MetaOperation.range(prefix: prefix, after: nil, countMax: 1000)
        return try await commit(range).records[0]
    }

    func compact(upTo revision: MetaRevision) async throws {
        try await (store as? SQLiteMetaStore)?.compact(upTo: revision)
        try await (store as? EtcdMetaStore)?.compact(upTo: revision)
    }

    func close() async throws {
        try (store as? SQLiteMetaStore)?.close()
        await (store as? EtcdMetaStore)?.close()
    }

    deinit {
        guard let store = store as? EtcdMetaStore else { return }
        Task { await store.close() }
    }
}

func put(_ key: String, _ value: String, lease: MetaLease? = nil) -> MetaOperation {
    .put(key, Data(value.utf8), lease: lease)
}

func texts(_ records: [MetaRecord]) -> [String] {
    records.map { "\($0.key)=\(String(decoding: $0.value, as: UTF8.self))" }
}

@Suite("Metadata store", .serialized, .etcdCluster, .timeLimit(.minutes(3)))
struct MetaStoreTests {
    // MARK: - Transactions

    @Test(
        "A transaction's changes share one revision, and each transaction has a greater one",
        arguments: StoreBackend.available
    )
    func transact_twoPuts_oneRevision(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let first = try await subject.commit(put("/a", "1"), put("/b", "1"))
        let second = try await subject.commit(put("/a", "2"))
        #expect(second.revision == first.revision + 1)
        let records = try await subject.all("/")
        #expect(records.map(\.modifyRevision) == [second.revision, first.revision])
        #expect(records.map(\.createRevision) == [first.revision, first.revision])
    }

    @Test("Reading and failing change no revision", arguments: StoreBackend.available)
    func transact_noChange_keepsRevision(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let first = try await subject.commit(put("/a", "1"))
        let read = try await subject.commit(.get("/a"))
        let failed = try await subject.commit(put("/b", "1"), if: [.exists("/nope")])
        #expect(read.revision == first.revision)
        #expect(failed.revision == first.revision)
        #expect(!failed.succeeded)
        #expect(try await subject.all("/b").isEmpty)
    }

    @Test("Each compare holds exactly when it should", arguments: StoreBackend.available)
    func transact_compares(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let revision = try await subject.commit(put("/d/x", "1")).revision
        let cases: [(MetaCompare, Bool)] = [
            (.exists("/d/x"), true), (.exists("/d/y"), false),
            (.absent("/d/y"), true), (.absent("/d/x"), false),
            (.unchanged("/d/x", since: revision), true),
            (.unchanged("/d/x", since: revision - 1), false),
            (.unchanged("/d/y", since: revision), false),
            (.empty(prefix: "/e/"), true), (.empty(prefix: "/d/"), false),
        ]
        for (compare, expected) in cases {
            let result = try await subject.commit(if: [compare])
            #expect(result.succeeded == expected, "\(compare)")
        }
    }

    @Test(
        "When a compare fails the other branch runs, in the same state",
        arguments: StoreBackend.available
    )
    func transact_failureBranch_reads(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        try await subject.commit(put("/a", "1"))
        let result = try await subject.store.transact(
            MetaTransaction(
                compares: [.absent("/a")],
                success: [put("/a", "2")],
                failure: [.get("/a")]
            )
        )
        #expect(!result.succeeded)
        #expect(texts(result.records[0]) == ["/a=1"])
    }

    @Test("Forty racing increments by compare-and-set lose none", arguments: StoreBackend.available)
    func transact_racingIncrements_losesNone(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        try await subject.commit(put("/n", "0"))
        let store = subject.store
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
        #expect(texts(try await subject.all("/n")) == ["/n=40"])
    }

    @Test("Ranges page by key, and changes list by revision", arguments: StoreBackend.available)
    func transact_ranges(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        for name in ["b", "a", "c"] { try await subject.commit(put("/r/" + name, name)) }
        try await subject.commit(put("/s", "other"))
        let page = try await subject.commit(.range(prefix: "/r/", after: "/r/a", countMax: 1))
        #expect(texts(page.records[0]) == ["/r/b=b"])
        let changed = try await subject.commit(.changed(prefix: "/r/", after: 0, countMax: 10))
        #expect(texts(changed.records[0]) == ["/r/b=b", "/r/a=a", "/r/c=c"])
    }

    @Test(
        "A count is exact, also beyond what a range reads, and counts nothing beside the prefix",
        arguments: StoreBackend.available
    )
    func transact_count_isExact(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let keyCount = MetaLimits.rangeCountMax + 1
        for first in stride(from: 0, to: keyCount, by: MetaLimits.operationCountMax) {
            let last = min(first + MetaLimits.operationCountMax, keyCount)
            let operations = (first..<last).map { put("/c/\($0)", "") }
            _ = try await subject.store.transact(MetaTransaction(success: operations))
        }
        try await subject.commit(put("/c", ""), put("/c0", ""))
        let result = try await subject.commit(
            .count(prefix: "/c/"),
            .get("/c"),
            .count(prefix: "/d/")
        )
        #expect(result.counts == [keyCount, 0, 0])
        #expect(result.records.map(\.count) == [0, 1, 0])
    }

    @Test(
        "Deleting a prefix deletes what is below it and nothing beside it",
        arguments: StoreBackend.available
    )
    func transact_deleteAll(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        try await subject.commit(put("/p/1", ""), put("/p/2", ""), put("/p0", ""), put("/o", ""))
        try await subject.commit(.deleteAll(prefix: "/p/"))
        #expect(try await subject.all("/").map(\.key) == ["/o", "/p0"])
    }

    @Test("What etcd refuses is refused here too", arguments: StoreBackend.available)
    func transact_limits(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let many = (0..<129).map { put("/k\($0)", "") }
        let tooMany = MetaTransaction(success: many)
        let twice = MetaTransaction(success: [put("/a", "1"), .delete("/a")])
        let large = MetaTransaction(success: [.put("/a", Data(count: 1 << 20), lease: nil)])
        let longKey = MetaTransaction(success: [put(String(repeating: "k", count: 1025), "")])
        for transaction in [tooMany, twice, large, longKey] {
            await #expect(throws: MetadataError.self) {
                try await subject.store.transact(transaction)
            }
        }
        #expect(try await subject.all("/").isEmpty)
    }

    // MARK: - Watches

    @Test(
        "A watch has no gap and no repetition between history and what comes",
        arguments: StoreBackend.available
    )
    func watch_fromHistory_isGapless(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let first = try await subject.commit(put("/w/1", "a")).revision
        try await subject.commit(put("/x", "not watched"))
        try await subject.commit(put("/w/2", "b"), put("/w/1", "c"))
        let stream = try await subject.store.watch(prefix: "/w/", after: first - 1)
        try await subject.commit(.delete("/w/1"))
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

    // MARK: - Leases

    @Test(
        "A key put without its lease later does not go with it",
        arguments: StoreBackend.available
    )
    func lease_keyTakenOff_stays(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let lease = try await subject.store.grantLease(milliseconds: 10)
        try await subject.commit(put("/k", "1", lease: lease))
        try await subject.commit(put("/k", "2"))
        try await subject.store.revoke(lease)
        #expect(texts(try await subject.all("/k")) == ["/k=2"])
    }

    @Test("A key cannot hang on a lease that is not", arguments: StoreBackend.available)
    func lease_unknown_isRefused(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        await #expect(throws: MetadataError.leaseNotFound) {
            try await subject.commit(put("/l", "", lease: MetaLease(4711)))
        }
        #expect(try await subject.all("/l").isEmpty)
    }

    @Test("A range of more records than a page is of one state", arguments: StoreBackend.available)
    func transact_largeRange_isComplete(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        for first in stride(from: 0, to: 2300, by: 100) {
            let operations = (first..<(first + 100)).map { put("/r/\(10_000 + $0)", "") }
            _ = try await subject.store.transact(MetaTransaction(success: operations))
        }
        let result = try await subject.commit(
            .range(prefix: "/r/", after: "/r/10000", countMax: 2200),
            .range(prefix: "/r/", after: nil, countMax: .max),
            .get("/r/10001")
        )
        #expect(result.records[0].map(\.key) == (10_001...12_200).map { "/r/\($0)" })
        #expect(result.records[1].map(\.key) == (10_000..<12_300).map { "/r/\($0)" })
        #expect(result.records[2].count == 1)
    }

    @Test("A prefix cannot be deleted and written to at once", arguments: StoreBackend.available)
    func transact_deleteAllAndPut_isRefused(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        await #expect(throws: MetadataError.self) {
            try await subject.commit(.deleteAll(prefix: "/p/"), put("/p/1", ""))
        }
    }

    @Test("A transaction of the largest kind is taken", arguments: StoreBackend.available)
    func transact_largest_succeeds(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let countMax = MetaLimits.operationCountMax
        let keys = (0..<countMax).map { "/k\($0)" }
        let value = Data(count: MetaLimits.transactionByteCountMax / countMax - 8)
        let result = try await subject.store.transact(
            MetaTransaction(
                compares: keys.map { .absent($0) },
                success: keys.map { .put($0, value, lease: nil) },
                failure: keys.map { .get($0) }
            )
        )
        #expect(result.succeeded)
    }

    @Test("A watch from before what is kept is refused", arguments: StoreBackend.available)
    func watch_compacted_throws(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        var revisions: [MetaRevision] = []
        for number in 0..<5 {
            revisions.append(try await subject.commit(put("/w", "\(number)")).revision)
        }
        try await subject.compact(upTo: revisions[2])
        await #expect(throws: MetadataError.compacted(oldest: revisions[2])) {
            _ = try await subject.store.watch(prefix: "/w", after: revisions[0])
        }
        _ = try await subject.store.watch(prefix: "/w", after: revisions[2])
    }

    @Test("Closing ends all watches", arguments: StoreBackend.available)
    func watch_close_ends(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let revision = try await subject.commit().revision
        let stream = try await subject.store.watch(prefix: "/", after: revision)
        try await subject.close()
        var count = 0
        for await _ in stream { count += 1 }
        #expect(count == 0)
    }

    @Test(
        "A lease that was ended takes its keys with it and is not found",
        arguments: StoreBackend.available
    )
    func lease_revoked_isNotFound(_ backend: StoreBackend) async throws {
        let subject = try await ScenarioStore(backend)
        let lease = try await subject.store.grantLease(milliseconds: 60_000)
        try await subject.store.keepAlive(lease)
        try await subject.commit(put("/l", "", lease: lease))
        #expect(try await subject.all("/l").map(\.lease) == [lease])
        try await subject.store.revoke(lease)
        #expect(try await subject.all("/l").isEmpty)
        await #expect(throws: MetadataError.leaseNotFound) {
            try await subject.store.keepAlive(lease)
        }
        await #expect(throws: MetadataError.leaseNotFound) {
            try await subject.store.revoke(lease)
        }
    }
}
