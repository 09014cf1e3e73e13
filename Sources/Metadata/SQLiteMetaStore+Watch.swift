// Watches: the kept history first, then each commit, without a gap or a repetition between.

import Foundation
import GRDB
import Synchronization

extension SQLiteMetaStore {
    /// Changes of keys with a prefix after a revision, then those to come.
    public func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch> {
        do {
            // On the writer's queue no commit can slip in between history and subscription.
            return try await pool.writeWithoutTransaction { [watchers] db in
                let compacted = try Self.state("compacted", in: db)
                guard revision >= compacted else {
                    throw MetadataError.compacted(oldest: compacted)
                }
                let past = try Self.history(prefix: prefix, after: revision, in: db)
                return watchers.add(prefix: prefix, past: past)
            }
        } catch {
            throw Self.translate(error)
        }
    }

    /// Gives up the history of changes up to a revision.
    ///
    /// - Throws: ``MetadataError``.
    package func compact(upTo revision: MetaRevision) async throws(MetadataError) {
        do {
            try await pool.write { db in try Self.compact(upTo: revision, in: db) }
        } catch {
            throw Self.translate(error)
        }
    }

    private static func history(
        prefix: String,
        after revision: MetaRevision,
        in db: Database
    ) throws -> [MetaWatchBatch] {
        let rows = try Row.fetchAll(
            db,
            sql: """
                SELECT revision, key, value, createRevision, lease FROM history
                WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision, key
                """,
            arguments: [revision, prefix, end(ofPrefix: prefix)]
        )
        var batches: [MetaWatchBatch] = []
        for row in rows {
            let revision: MetaRevision = row[0]
            let change = HistoryRow(
                key: row[1],
                value: row[2],
                createRevision: row[3],
                lease: (row[4] as Int64?).map(MetaLease.init)
            ).change(at: revision)
            if batches.last?.revision == revision {
                batches[batches.count - 1].changes.append(change)
            } else {
                batches.append(MetaWatchBatch(revision: revision, changes: [change]))
            }
        }
        return batches
    }
}

/// Who watches what.
final class WatcherTable: Sendable {
    private struct Watcher {
        let prefix: String
        let continuation: AsyncStream<MetaWatchBatch>.Continuation
    }

    private struct State {
        var watchers: [UInt64: Watcher] = [:]
        var nextID: UInt64 = 0
        var isFinished = false
    }

    private let state = Mutex(State())

    /// Adds a watcher and gives it what happened before.
    func add(prefix: String, past: [MetaWatchBatch]) -> AsyncStream<MetaWatchBatch> {
        // A watcher that resumes far back must at least be able to take what it asked for.
        let backlogMax = MetaLimits.watchBacklogMax + past.count
        let (stream, continuation) = AsyncStream.makeStream(
            of: MetaWatchBatch.self,
            bufferingPolicy: .bufferingOldest(backlogMax)
        )
        for batch in past { continuation.yield(batch) }
        let id: UInt64? = state.withLock { state in
            guard !state.isFinished else { return nil }
            state.nextID += 1
            state.watchers[state.nextID] = Watcher(prefix: prefix, continuation: continuation)
            return state.nextID
        }
        guard let id else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [weak self] _ in
            self?.state.withLock { state in state.watchers[id] = nil }
        }
        return stream
    }

    /// Gives a commit's changes to those who watch them.
    func publish(_ changes: [HistoryRow], revision: MetaRevision) {
        let watchers = state.withLock { state in Array(state.watchers.values) }
        for watcher in watchers {
            let seen = changes.filter { $0.key.hasPrefix(watcher.prefix) }
            guard !seen.isEmpty else { continue }
            let batch = MetaWatchBatch(
                revision: revision,
                changes: seen.sorted { $0.key < $1.key }.map { $0.change(at: revision) }
            )
            if case .enqueued = watcher.continuation.yield(batch) { continue }
            // It lags too far: a stream with a hole would lie, so it ends here.
            watcher.continuation.finish()
        }
    }

    /// Ends all streams.
    func finish() {
        let watchers = state.withLock { state in
            state.isFinished = true
            defer { state.watchers = [:] }
            return Array(state.watchers.values)
        }
        for watcher in watchers { watcher.continuation.finish() }
    }
}
