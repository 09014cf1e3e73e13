// Followers of events: what they cost while they do not read.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Synchronization
import Testing

/// A metadata store that has nothing but events, as many as it is told, and counts who reads.
private final class ManyEvents: MetaStore {
    let count: UInt64
    private let readCounts = Mutex<[Int]>([])

    init(count: UInt64) { self.count = count }

    /// How many events each question asked for, at most.
    var askedCounts: [Int] { readCounts.withLock { $0 } }

    func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        var all: [[MetaRecord]] = []
        for operation in transaction.success {
            var records: [MetaRecord] = []
            if case .changed(let prefix, let after, let countMax) = operation {
                readCounts.withLock { $0.append(countMax) }
                let last = min(count, after + UInt64(countMax))
                for revision in (after + 1)..<(last + 1) {
                    records.append(try Self.event(revision, prefix))
                }
            }
            all.append(records)
        }
        return MetaTransactionResult(records: all, at: count)
    }

    private static func event(
        _ revision: MetaRevision,
        _ prefix: String
    ) throws(MetadataError) -> MetaRecord {
        let event = EventRecord(time: .now, kind: "k", subject: "\(revision)", message: "m")
        guard let value = try? JSONEncoder().encode(event) else {
            throw .storeFailed("no event")
        }
        return MetaRecord("\(prefix)\(revision)", value, at: revision)
    }

    func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease { MetaLease(1) }
    func keepAlive(_ lease: MetaLease) async throws(MetadataError) {}
    func revoke(_ lease: MetaLease) async throws(MetadataError) {}
    func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch> {
        guard revision == count else { throw .storeFailed("it watches from elsewhere") }
        return AsyncStream { $0.finish() }
    }
    func maintain() async throws(MetadataError) {}
}

@Suite("Followers of events", .timeLimit(.minutes(2)))
struct FollowTests {
    private func plane(_ store: any MetaStore) -> ControlPlane {
        ControlPlane(
            metadata: ClusterMetadata(store: store),
            version: "test",
            logger: Cluster.quiet
        ) { _ throws(ControlError) in throw ControlError(.unreachable, "nobody") }
    }

    @Test(
        "The past comes in pages, each read when the one before was taken",
        arguments: [0, 1, 999, 1000, 1001, 3500] as [UInt64]
    )
    func past_isPaged(count: UInt64) async throws {
        let store = ManyEvents(count: count)
        let stream = try await plane(store).followEvents(after: 0)
        var next: UInt64 = 1
        var pageCount = 0
        for await batch in stream {
            pageCount += 1
            #expect(batch.count <= APILimits.eventPageCountMax && !batch.isEmpty)
            #expect(batch.map(\.subject) == batch.indices.map { "\(next + UInt64($0))" })
            next += UInt64(batch.count)
            #expect(store.askedCounts == Array(repeating: 1000, count: pageCount))
        }
        #expect(next == count + 1)
    }

    @Test("One that nobody reads any more gives its place back")
    func follower_gone_givesPlaceBack() async throws {
        let (_, plane) = try await Cluster.serving()
        var streams: [AsyncStream<[ClusterEvent]>] = []
        for _ in 0..<APILimits.followerCountMax {
            streams.append(try await plane.followEvents(after: 0))
        }
        func refusal() async -> ControlError.Code? {
            await controlError { () throws(ControlError) in
                _ = try await plane.followEvents(after: 0)
            }?.code
        }
        #expect(await refusal() == .limitReached)
        // Also one that has been read from.
        func readOnce(_ stream: AsyncStream<[ClusterEvent]>) async {
            for await _ in stream { break }
        }
        await readOnce(streams.removeLast())
        #expect(await refusal() == nil)
        streams = []
        #expect(await refusal() == nil)
    }

    @Test("The end of the service ends those who wait and those who have not begun to read")
    func service_stops_followersEnd() async throws {
        let (_, plane) = try await Cluster.serving()
        let unread = try await plane.followEvents(after: 0)
        let waiting = try await plane.followEvents(after: 0)
        let (reading, began) = AsyncStream<Void>.makeStream()
        let reader = Task {
            for await _ in waiting { began.yield() }
            began.finish()
        }
        // It has taken the past, so that it waits for what happens.
        for await _ in reading { break }
        plane.stop()
        await reader.value
        for await _ in unread {}
        let late = await controlError { () throws(ControlError) in
            _ = try await plane.followEvents(after: 0)
        }
        #expect(late?.code == .unavailable)
    }
}
