// Events: what happened, from any revision on.

public import ControlAPI
import Foundation
import Logging
import Metadata
import Synchronization

extension ControlPlane {
    /// Events after the revision `after`, oldest first.
    public func events(
        after: UInt64,
        countMax: Int
    ) async throws(ControlError) -> EventList {
        let events = try await meta(await metadata.events(after: after, countMax: countMax))
        return EventList(
            events: events.map(ClusterEvent.init),
            nextAfter: events.last?.revision ?? after
        )
    }

    /// Events after the revision `after`, then those to come.
    public func followEvents(
        after: UInt64
    ) async throws(ControlError) -> AsyncStream<[ClusterEvent]> {
        // Its room is taken before anything is read, so that a crowd costs nothing.
        let follower = try followers.add(metadata)
        try await meta(await follower.begin(after: after))
        return AsyncStream { await follower.next() }
    }

    /// Notes something that happened; a failure is logged only, since the event reports what is
    /// so without it too.
    func report(_ event: EventRecord, id: String? = nil) async {
        logger.notice(
            "\(event.kind)",
            metadata: ["subject": "\(event.subject)", "message": "\(event.message)"]
        )
        do throws(MetadataError) {
            try await metadata.note(event, id: id)
        } catch {
            logger.error("an event was lost", metadata: ["reason": "\(error)"])
        }
    }
}

extension ClusterEvent {
    init(_ event: Versioned<EventRecord>) {
        self.init(
            revision: event.revision,
            time: event.value.time,
            kind: event.value.kind,
            subject: event.value.subject,
            message: event.value.message
        )
    }
}

/// Who follows events now.
final class FollowerTable: Sendable {
    private struct State {
        /// What ends each one's wait for events to come.
        var ends: [UInt64: @Sendable () -> Void] = [:]
        var nextID: UInt64 = 0
        var isFinished = false
    }

    private let state = Mutex(State())

    /// Whether all streams are to end.
    var isFinished: Bool { state.withLock { $0.isFinished } }

    /// Makes room for a follower, for as long as it lives.
    func add(_ metadata: ClusterMetadata) throws(ControlError) -> Follower {
        guard !isFinished else {
            throw ControlError(.unavailable, "The metadata service is stopping.")
        }
        let follower: Follower? = state.withLock { state in
            guard state.ends.count < APILimits.followerCountMax else { return nil }
            state.nextID += 1
            let follower = Follower(state.nextID, of: metadata, in: self)
            state.ends[state.nextID] = follower.end
            // Others were told to end before this one was among them.
            if state.isFinished { follower.end() }
            return follower
        }
        guard let follower else {
            throw ControlError(
                .limitReached,
                "\(APILimits.followerCountMax) clients follow events, which is the most."
            )
        }
        return follower
    }

    /// Takes back the room of a follower.
    func remove(_ id: UInt64) { state.withLock { $0.ends[id] = nil } }

    /// Ends all streams, so that a server that stops need not wait for them.
    func finish() {
        let ends = state.withLock { state in
            state.isFinished = true
            return Array(state.ends.values)
        }
        for end in ends { end() }
    }
}

/// One follower: the past in pages, each read when the one before was taken; then what happens,
/// and an empty batch now and then as a sign of life.
final class Follower: Sendable {
    private enum Place {
        /// Read, and not taken yet.
        case page(ClusterMetadata.EventPage)
        /// The next page begins after this revision.
        case past(MetaRevision)
        /// The past has been taken.
        case present
    }

    /// What ends the wait for events to come.
    let end: @Sendable () -> Void
    private let id: UInt64
    private let metadata: ClusterMetadata
    private let table: FollowerTable
    private let place = Mutex(Place.past(0))
    private let present: AsyncStream<[ClusterEvent]>
    private let continuation: AsyncStream<[ClusterEvent]>.Continuation

    fileprivate init(_ id: UInt64, of metadata: ClusterMetadata, in table: FollowerTable) {
        self.id = id
        self.metadata = metadata
        self.table = table
        let (present, continuation) = AsyncStream<[ClusterEvent]>.makeStream(
            bufferingPolicy: .bufferingOldest(MetaLimits.watchBacklogMax)
        )
        self.present = present
        self.continuation = continuation
        end = { continuation.finish() }
    }

    deinit {
        continuation.finish()
        table.remove(id)
    }

    /// Reads the first page, so that whoever asks hears at once when that fails.
    func begin(after revision: MetaRevision) async throws(MetadataError) {
        let page = try await page(after: revision)
        place.withLock { $0 = .page(page) }
    }

    /// The next events, for one reader and one question at a time.
    ///
    /// - Returns: nil when the service stops, the reader lagged too far, or they could not be
    ///   read.
    func next() async -> [ClusterEvent]? {
        while !table.isFinished {
            do throws(MetadataError) {
                switch place.withLock({ $0 }) {
                case .page(let page):
                    if page.isLast { watch(try await metadata.watchEvents(after: page.nextAfter)) }
                    place.withLock { $0 = page.isLast ? .present : .past(page.nextAfter) }
                    guard !page.events.isEmpty else { continue }
                    return page.events.map(ClusterEvent.init)
                case .past(let revision):
                    let page = try await page(after: revision)
                    place.withLock { $0 = .page(page) }
                case .present:
                    var events = present.makeAsyncIterator()
                    return await events.next()
                }
            } catch {
                return nil
            }
        }
        return nil
    }

    private func page(
        after revision: MetaRevision
    ) async throws(MetadataError) -> ClusterMetadata.EventPage {
        try await metadata.eventPage(after: revision, countMax: APILimits.eventPageCountMax)
    }

    private func watch(_ events: AsyncStream<[Versioned<EventRecord>]>) {
        let continuation = continuation
        let task = Task {
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    for await batch in events where !batch.isEmpty {
                        let yielded = continuation.yield(batch.map(ClusterEvent.init))
                        // A reader that lags too far gets an end, never a hole.
                        guard case .enqueued = yielded else { return }
                    }
                }
                group.addTask {
                    let pause = Duration.seconds(APILimits.followKeepaliveSeconds)
                    while (try? await Task.sleep(for: pause)) != nil { continuation.yield([]) }
                }
                await group.next()
                group.cancelAll()
            }
            continuation.finish()
        }
        continuation.onTermination = { _ in task.cancel() }
    }
}
