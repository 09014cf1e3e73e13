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
        let follower = try followers.add()
        do throws(ControlError) {
            let events = try await meta(await metadata.watchEvents(after: after))
            follower.start(events)
        } catch {
            follower.end()
            throw error
        }
        return follower.stream
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
        var followers: [UInt64: Follower] = [:]
        var nextID: UInt64 = 0
        var isFinished = false
    }

    private let state = Mutex(State())

    /// Makes room for a follower.
    func add() throws(ControlError) -> Follower {
        let follower: Follower? = state.withLock { state in
            guard state.followers.count < APILimits.followerCountMax, !state.isFinished else {
                return nil
            }
            state.nextID += 1
            let id = state.nextID
            let follower = Follower { [weak self] in
                _ = self?.state.withLock { state in state.followers.removeValue(forKey: id) }
            }
            state.followers[id] = follower
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

    /// Ends all streams, so that a server that stops need not wait for them.
    func finish() {
        let followers = state.withLock { state in
            state.isFinished = true
            return Array(state.followers.values)
        }
        for follower in followers { follower.end() }
    }
}

/// One follower: its events, and an empty batch now and then as a sign of life.
final class Follower: Sendable {
    let stream: AsyncStream<[ClusterEvent]>
    private let continuation: AsyncStream<[ClusterEvent]>.Continuation

    init(onEnd: @escaping @Sendable () -> Void) {
        (stream, continuation) = AsyncStream.makeStream(
            bufferingPolicy: .bufferingOldest(MetaLimits.watchBacklogMax)
        )
        continuation.onTermination = { _ in onEnd() }
    }

    func start(_ events: AsyncStream<[Versioned<EventRecord>]>) {
        let continuation = continuation
        let onEnd = continuation.onTermination
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
        continuation.onTermination = { reason in
            task.cancel()
            onEnd?(reason)
        }
    }

    func end() { continuation.finish() }
}
