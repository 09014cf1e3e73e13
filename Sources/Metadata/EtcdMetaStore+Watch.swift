// Watches: one stream of JSON lines after another, each from the revision after the last that was
// given on. A member that is frozen keeps its connections, so silence ends a stream.

import AsyncHTTPClient
import Foundation
import Logging
import NIOCore
import Synchronization

/// The watches that run.
struct EtcdWatchTable {
    var tasks: [UInt64: Task<Void, Never>] = [:]
    var nextID: UInt64 = 0
    var isClosed = false
}

extension EtcdMetaStore {
    /// Changes of keys with a prefix after a revision, then those to come.
    public func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch> {
        let newest = try await requireHistory(prefix, after: revision)
        // A watcher that resumes far back must at least be able to take what it asked for.
        let behind = min(newest - min(revision, newest), MetaLimits.historyRevisionCountMax)
        let (stream, continuation) = AsyncStream.makeStream(
            of: MetaWatchBatch.self,
            bufferingPolicy: .bufferingOldest(MetaLimits.watchBacklogMax + Int(behind))
        )
        let watch = EtcdWatch(
            store: self,
            prefix: prefix,
            after: revision,
            continuation: continuation
        )
        watches.withLock { table in
            guard !table.isClosed else {
                continuation.finish()
                return
            }
            table.nextID += 1
            let id = table.nextID
            let task = Task { [weak self] in
                await watch.run()
                continuation.finish()
                self?.watches.withLock { $0.tasks[id] = nil }
            }
            table.tasks[id] = task
            continuation.onTermination = { _ in task.cancel() }
        }
        return stream
    }

    /// Whether the state of a revision, and so what changed it, is kept.
    ///
    /// - Returns: The newest revision.
    private func requireHistory(
        _ prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> MetaRevision {
        // 0 would mean the newest revision; before 1 there is nothing.
        let range = EtcdRange(
            key: stored(prefix),
            rangeEnd: end(ofPrefix: prefix),
            revision: "\(max(1, revision))",
            countOnly: true
        )
        do throws(MetadataError) {
            let answer: EtcdRangeAnswer = try await client.ask(
                "/v3/kv/range",
                EtcdCoding.encode(range)
            )
            return self.revision(answer.header)
        } catch .compacted {
            // A revision yet to come, after a restore from a backup, is told the same way.
            throw .compacted(oldest: await compactedRevision() ?? revision)
        }
    }

    /// The revision up to which etcd has forgotten, which it tells to those who ask for earlier.
    private func compactedRevision() async -> MetaRevision? {
        let limit = Duration.milliseconds(configuration.tryMillisecondsMax)
        let request = EtcdCoding.encode(
            EtcdWatchRequest(
                createRequest: .init(
                    key: stored("/"),
                    rangeEnd: end(ofPrefix: "/"),
                    startRevision: "1"
                )
            )
        )
        return try? await withLimit(limit) { [client] in
            let body = try await client.stream("/v3/watch", request, at: 0)
            var lines = EtcdLines()
            for try await buffer in body {
                for line in try lines.take(buffer) {
                    let answer = try EtcdCoding.decoder().decode(EtcdWatchAnswer.self, from: line)
                    if let revision = answer.result?.compactRevision?.value {
                        return MetaRevision(revision)
                    }
                }
            }
            throw EtcdTimeout()
        }
    }

    /// Gives up the history of changes up to a revision, for tests.
    ///
    /// - Throws: ``MetadataError``.
    package func compact(upTo revision: MetaRevision) async throws(MetadataError) {
        let _: EtcdLeaseAnswer = try await client.ask(
            "/v3/kv/compaction",
            Data(#"{"revision":"\#(revision)","physical":true}"#.utf8)
        )
    }
}

/// One watch.
private final class EtcdWatch: Sendable {
    /// Why a watch is over, and not only one of its streams.
    private enum End: Error {
        /// What it would have to tell next is forgotten.
        case compacted
        /// Its reader lags too far.
        case lagging
    }

    private struct Position {
        /// The last revision that was given on.
        var revision: MetaRevision
        /// When the member was heard from.
        var heardAt = ContinuousClock.now
    }

    private let store: EtcdMetaStore
    private let prefix: String
    private let continuation: AsyncStream<MetaWatchBatch>.Continuation
    private let position: Mutex<Position>

    init(
        store: EtcdMetaStore,
        prefix: String,
        after revision: MetaRevision,
        continuation: AsyncStream<MetaWatchBatch>.Continuation
    ) {
        self.store = store
        self.prefix = prefix
        self.continuation = continuation
        position = Mutex(Position(revision: revision))
    }

    /// Follows one member after another until it is cancelled or cannot go on.
    func run() async {
        var index = 0
        while !Task.isCancelled {
            do {
                try await follow(at: index)
            } catch is End {
                // A stream with a hole would lie; the reader begins anew.
                return
            } catch {
                guard !Task.isCancelled else { return }
                store.logger.info("a watch begins anew", metadata: ["reason": "\(error)"])
            }
            index += 1
            try? await Task.sleep(for: .milliseconds(EtcdClient.pauseMilliseconds))
        }
    }

    /// Follows one member until it fails or is silent.
    private func follow(at index: Int) async throws {
        let first = position.withLock { position in
            position.heardAt = .now
            return position.revision + 1
        }
        let request = EtcdWatchRequest(
            createRequest: .init(
                key: store.stored(prefix),
                rangeEnd: store.end(ofPrefix: prefix),
                startRevision: "\(first)"
            )
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.read(EtcdCoding.encode(request), at: index) }
            group.addTask { try await self.watchSilence() }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private func watchSilence() async throws {
        let limit = Duration.milliseconds(store.configuration.watchSilenceMillisecondsMax)
        while true {
            let end = position.withLock(\.heardAt) + limit
            guard .now < end else { throw EtcdTimeout() }
            try await Task.sleep(until: end)
        }
    }

    private func read(_ request: Data, at index: Int) async throws {
        let body = try await store.client.stream("/v3/watch", request, at: index)
        var lines = EtcdLines()
        for try await buffer in body {
            position.withLock { $0.heardAt = .now }
            for line in try lines.take(buffer) { try take(line) }
        }
    }

    /// Gives on what a line tells.
    private func take(_ line: Data) throws {
        let answer = try EtcdCoding.decoder().decode(EtcdWatchAnswer.self, from: line)
        guard let result = answer.result else {
            throw EtcdFailure.notDone(answer.error?.message ?? "a line that is none of etcd's")
        }
        var batches: [MetaWatchBatch] = []
        for event in result.events ?? [] {
            let change: MetaWatchBatch.Change =
                event.type == "DELETE"
                ? .delete(store.key(event.kv.key)) : .put(store.record(event.kv))
            if batches.last?.revision == event.kv.modified {
                batches[batches.count - 1].changes.append(change)
            } else {
                batches.append(
                    MetaWatchBatch(revision: event.kv.modified, changes: [change])
                )
            }
        }
        for var batch in batches {
            // A member that was restored from another's state may tell again what it has told.
            // Notices of progress are not trusted with the opposite (etcd issue 15220).
            let isNew = position.withLock { position in
                guard batch.revision > position.revision else { return false }
                position.revision = batch.revision
                return true
            }
            guard isNew else { continue }
            batch.changes.sort { $0.key < $1.key }
            guard case .enqueued = continuation.yield(batch) else { throw End.lagging }
        }
        if result.canceled == true {
            if (result.compactRevision?.value ?? 0) > 0 { throw End.compacted }
            throw EtcdFailure.notDone("the watch was cancelled")
        }
    }
}

extension MetaWatchBatch.Change {
    /// The key that has changed.
    fileprivate var key: String {
        switch self {
        case .put(let record): record.key
        case .delete(let key): key
        }
    }
}

/// Makes lines of what arrives in pieces.
struct EtcdLines {
    /// Bytes of a line; etcd tells a thousand revisions at once to who has fallen behind.
    static var byteCountMax: Int { 256 << 20 }

    private var rest = Data()

    /// The lines that end in a piece.
    mutating func take(_ buffer: ByteBuffer) throws -> [Data] {
        rest.append(contentsOf: buffer.readableBytesView)
        guard rest.count <= Self.byteCountMax else {
            throw EtcdFailure.notDone("a line that is too long")
        }
        var lines: [Data] = []
        while let end = rest.firstIndex(of: 0x0A) {
            let line = rest[rest.startIndex..<end]
            if !line.isEmpty { lines.append(Data(line)) }
            rest = rest[(end + 1)...]
        }
        rest = Data(rest)
        return lines
    }
}
