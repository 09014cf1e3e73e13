// Who leads, and copies from store to store, on SQLite and on etcd.

import Foundation
import Logging
import Metadata
import Testing

@Suite("Leadership and copies", .serialized, .etcdCluster, .timeLimit(.minutes(3)))
struct LeadershipTests {
    /// Longer than a busy machine has a test wait for its turn.
    private static let leaseMilliseconds = 120_000

    private func lead(_ store: any MetaStore, as name: String) async throws -> Leadership? {
        let attempt = try await Leadership.attempt(
            in: store,
            as: name,
            leaseMilliseconds: Self.leaseMilliseconds
        )
        return switch attempt {
        case .leads(let leadership): leadership
        case .follows: nil
        }
    }

    @Test("One leads at a time, and what an earlier leader would change is refused")
    func attempt_second_follows() async throws {
        for backend in StoreBackend.available {
            let subject = try await ScenarioStore(backend)
            let first = try #require(try await lead(subject.store, as: "a"))
            guard
                case .follows(let holder) = try await Leadership.attempt(
                    in: subject.store,
                    as: "b"
                )
            else {
                Issue.record("two lead")
                return
            }
            #expect(holder.name == "a")
            let change = MetaTransaction(
                compares: [.absent("/no")],
                success: [put("/x", "1"), .get("/x")],
                failure: [.get("/x")]
            )
            let result = try await first.store.transact(change)
            #expect(result.succeeded && result.records.count == 2)
            let refused = try await first.store.transact(
                MetaTransaction(
                    compares: [.absent("/x")],
                    success: [put("/x", "2")],
                    failure: [.get("/x")]
                )
            )
            #expect(!refused.succeeded && refused.records.map(\.count) == [1])
            await first.resign()
            let second = try #require(try await lead(subject.store, as: "b"))
            #expect(second.term > first.term)
            await #expect(throws: MetadataError.notLeader) {
                try await first.store.transact(change)
            }
            #expect(try await !first.isLeading())
            #expect(try await second.isLeading())
            await first.keep(logger: Logger(label: "test"))
        }
    }

    @Test("A copy has all records in their order, and is made into an empty store only")
    func copy_keepsRecordsAndOrder() async throws {
        let source = try await ScenarioStore(.sqlite)
        for number in 0..<250 { try await source.commit(put("/cairn/default/v/\(number)", "v")) }
        for number in (0..<20).reversed() {
            try await source.commit(put("/cairn/default/ev/\(number)", "e"))
        }
        for number in (0..<5).reversed() {
            try await source.commit(put("/cairn/default/sn/7/\(number)", "s"))
        }
        let lease = try await source.store.grantLease(milliseconds: 60_000)
        try await source.commit(put("/cairn/default/live/n", "", lease: lease))
        for backend in StoreBackend.available {
            let target = try await ScenarioStore(backend)
            // As if one had been interrupted.
            try await target.commit(put("/cairn-copy", ""), put("/cairn/default/v/old", ""))
            await #expect(throws: MetadataError.copyIncomplete) {
                _ = try await Leadership.attempt(in: target.store, as: "a")
            }
            let count = try await copy(source.store, target.store)
            #expect(count == 275)
            // One more, for the epochs of volumes that are made there.
            let all = try await target.all("/")
            #expect(all.count == 276)
            let floor = try await ClusterMetadata(store: target.store).firstEpoch()
            #expect(floor > (try await ClusterMetadata(store: source.store).firstEpoch()))
            let snapshots = try await target.commit(
                .changed(prefix: "/cairn/default/sn/", after: 0, countMax: 100)
            ).records[0]
            #expect(snapshots.map(\.key) == (0..<5).reversed().map { "/cairn/default/sn/7/\($0)" })
            #expect(Set(snapshots.map(\.modifyRevision)).count == 5)
            let events = try await target.commit(
                .changed(prefix: "/cairn/default/ev/", after: 0, countMax: 100)
            ).records[0]
            #expect(events.map(\.key) == (0..<20).reversed().map { "/cairn/default/ev/\($0)" })
            #expect(Set(events.map(\.modifyRevision)).count == 20)
            await #expect(throws: MetadataError.targetNotEmpty) {
                _ = try await copy(source.store, target.store)
            }
            #expect(try await target.all("/").count == 276)
        }
    }

    private func copy(_ source: any MetaStore, _ target: any MetaStore) async throws -> Int {
        try await MetadataCopy.run(from: source, to: target)
    }

    @Test(
        "The address of a cluster is read whole or refused",
        arguments: [
            ("etcd://127.0.0.1:2379", ["http://127.0.0.1:2379"], ""),
            ("etcds://a.example:1,b:2/prod", ["https://a.example:1", "https://b:2"], "/prod"),
            ("etcd://[::1]:2379/", ["http://[::1]:2379"], ""),
            ("etcd://127.0.0.1", nil, ""), ("http://127.0.0.1:2379", nil, ""),
            ("etcd://a:1,", nil, ""), ("etcd://a:0", nil, ""), ("etcd://:1", nil, ""),
            ("etcd://a:1/x/", nil, ""), ("etcd://a b:1", nil, ""),
        ] as [(String, [String]?, String)]
    )
    func configuration_text(_ text: String, _ endpoints: [String]?, _ namespace: String) {
        let configuration = EtcdConfiguration(text)
        #expect(configuration?.endpoints == endpoints)
        #expect((configuration?.namespace ?? "") == namespace)
    }
}
