// Nodes and events.

import Foundation

extension ClusterMetadata {
    // MARK: - Nodes

    /// All nodes, by name.
    public func nodes() async throws(MetadataError) -> [NodeRecord] {
        try await all(NodeRecord.self, prefix: keys.nodes).map(\.value)
    }

    /// One node.
    public func node(_ name: String) async throws(MetadataError) -> Versioned<NodeRecord>? {
        try await get(NodeRecord.self, keys.node(name))
    }

    /// Which nodes live, by name.
    public func liveNodes() async throws(MetadataError) -> [String: NodeLiveRecord] {
        var result: [String: NodeLiveRecord] = [:]
        let operation = MetaOperation.range(
            prefix: keys.live,
            after: nil,
            countMax: MetaLimits.rangeCountMax
        )
        let records = try await store.transact(MetaTransaction(success: [operation])).records[0]
        for record in records {
            let name = String(record.key.dropFirst(keys.live.count))
            result[name] = try decode(NodeLiveRecord.self, record).value
        }
        return result
    }

    /// Whether one node lives.
    public func liveNode(_ name: String) async throws(MetadataError) -> NodeLiveRecord? {
        try await get(NodeLiveRecord.self, keys.live(name))?.value
    }

    /// Takes a node in, or back.
    ///
    /// - Parameters:
    ///   - node: Its record; the incarnation is one more than what was read.
    ///   - previous: Its record as read; nil when it is new.
    ///   - lease: What its life hangs on.
    ///   - event: What happened, for people.
    /// - Returns: False when somebody else registered it meanwhile.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func registerNode(
        _ node: NodeRecord,
        replacing previous: Versioned<NodeRecord>?,
        lease: MetaLease,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        var change = MetaChange()
        let key = keys.node(node.name)
        if let previous {
            change.require(.unchanged(key, since: previous.revision))
        } else {
            change.require(.absent(key))
        }
        let live = NodeLiveRecord(
            incarnation: node.incarnation,
            session: UInt64(lease.rawValue)
        )
        try change.put(node, key)
        try change.put(live, keys.live(node.name), lease: lease)
        try change.put(event, keys.event(EventID.new(at: event.time)))
        return try await apply(change) != nil
    }

    /// Changes a node's record.
    ///
    /// - Returns: False when somebody else changed it meanwhile.
    public func updateNode(
        _ node: Versioned<NodeRecord>,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        var change = MetaChange()
        let key = keys.node(node.value.name)
        change.require(.unchanged(key, since: node.revision))
        try change.put(node.value, key)
        try change.put(event, keys.event(EventID.new(at: event.time)))
        return try await apply(change) != nil
    }

    /// Forgets a node that does not live.
    ///
    /// - Returns: False when it changed or came to life meanwhile.
    public func deleteNode(
        _ node: Versioned<NodeRecord>,
        event: EventRecord
    ) async throws(MetadataError) -> Bool {
        var change = MetaChange()
        let key = keys.node(node.value.name)
        change.require(.unchanged(key, since: node.revision))
        change.require(.absent(keys.live(node.value.name)))
        change.delete(key)
        try change.put(event, keys.event(EventID.new(at: event.time)))
        return try await apply(change) != nil
    }

    /// Nodes that come and go, after a revision: name, and whether it lives.
    public func watchNodes(
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<[(name: String, isLive: Bool)]> {
        let prefix = keys.live
        let batches = try await store.watch(prefix: prefix, after: revision)
        return batches.mapped { batch in
            batch.changes.map { change in
                switch change {
                case .put(let record): (String(record.key.dropFirst(prefix.count)), true)
                case .delete(let key): (String(key.dropFirst(prefix.count)), false)
                }
            }
        }
    }

    // MARK: - Events

    /// Notes that something happened.
    ///
    /// - Parameters:
    ///   - event: What happened.
    ///   - id: Makes it noted once, however often; nil for an event of its own.
    /// - Throws: ``MetadataError``; nothing was changed.
    public func note(
        _ event: EventRecord,
        id: String? = nil
    ) async throws(MetadataError) {
        var change = MetaChange()
        let key = keys.event(id ?? EventID.new(at: event.time))
        change.require(.absent(key))
        try change.put(event, key)
        _ = try await apply(change)
    }

    /// Events after a revision, oldest first, at most `countMax`.
    public func events(
        after revision: MetaRevision,
        countMax: Int
    ) async throws(MetadataError) -> [Versioned<EventRecord>] {
        try await eventPage(after: revision, countMax: countMax).events
    }

    /// Some events of the past.
    public struct EventPage: Sendable {
        /// The events, oldest first.
        public var events: [Versioned<EventRecord>]
        /// The revision after which the next page begins.
        public var nextAfter: MetaRevision
        /// Whether there are no more yet: those to come are watched from ``nextAfter`` on.
        public var isLast: Bool
    }

    /// Events after a revision, oldest first, at most `countMax`, to go on from.
    ///
    /// Unlike the watch of a store this goes back to the oldest event kept.
    public func eventPage(
        after revision: MetaRevision,
        countMax: Int
    ) async throws(MetadataError) -> EventPage {
        let operation = MetaOperation.changed(
            prefix: keys.events,
            after: revision,
            countMax: countMax
        )
        let result = try await store.transact(MetaTransaction(success: [operation]))
        var events: [Versioned<EventRecord>] = []
        for record in result.records[0] { events.append(try decode(EventRecord.self, record)) }
        let isLast = events.count < countMax
        // As of now there are no others up to the store's revision, which its history still has.
        let nextAfter = isLast ? max(revision, result.revision) : events.last?.revision
        return EventPage(events: events, nextAfter: nextAfter ?? revision, isLast: isLast)
    }

    /// The events to come after the revision of the last page.
    public func watchEvents(
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<[Versioned<EventRecord>]> {
        let batches = try await store.watch(prefix: keys.events, after: revision)
        return batches.mapped { batch in
            batch.changes.compactMap { change in
                guard case .put(let record) = change else { return nil }
                return try? decode(EventRecord.self, record)
            }
        }
    }

    /// Forgets the oldest events beyond `countMax`.
    ///
    /// - Returns: How many.
    public func trimEvents(countMax: Int) async throws(MetadataError) -> Int {
        let transaction = MetaTransaction(success: [.count(prefix: keys.events)])
        let count = try await store.transact(transaction).counts[0]
        var excessCount = max(0, count - countMax)
        var trimmedCount = 0
        while excessCount > 0 {
            let pageCount = min(excessCount, MetaLimits.operationCountMax)
            let operation = MetaOperation.changed(
                prefix: keys.events,
                after: 0,
                countMax: pageCount
            )
            let oldest = try await store.transact(MetaTransaction(success: [operation])).records[0]
            var change = MetaChange()
            for record in oldest { change.delete(record.key) }
            guard !oldest.isEmpty, try await apply(change) != nil else { break }
            trimmedCount += oldest.count
            excessCount -= oldest.count
        }
        return trimmedCount
    }
}

extension AsyncStream where Element: Sendable {
    /// A stream of what `transform` makes of each element; ends when this one does.
    fileprivate func mapped<Output: Sendable>(
        _ transform: @escaping @Sendable (Element) -> Output
    ) -> AsyncStream<Output> {
        let source = self
        let (stream, continuation) = AsyncStream<Output>.makeStream(
            bufferingPolicy: .bufferingOldest(MetaLimits.watchBacklogMax)
        )
        let task = Task {
            for await element in source {
                // A reader that lags too far gets an end, never a hole.
                guard case .enqueued = continuation.yield(transform(element)) else { break }
            }
            continuation.finish()
        }
        continuation.onTermination = { _ in task.cancel() }
        return stream
    }
}
