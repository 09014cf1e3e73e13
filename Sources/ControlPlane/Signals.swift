// Two small ways for tasks to talk: names to look at soon, and the end of the service.

import Metadata
import Synchronization

/// Names queued for one reader; a name twice in the queue is as good as once.
///
/// A name that the reader works on is queued again only when the reader has ended with it, so that
/// one whose work takes long takes no more than one place.
final class NameQueue: Sendable {
    private struct State {
        /// Names in the queue or in work; whether they were asked for again since they are in work.
        var isAgain: [String: Bool] = [:]
    }

    /// The names; say ``end(_:)`` for each.
    let stream: AsyncStream<String>
    private let continuation: AsyncStream<String>.Continuation
    private let state = Mutex(State())

    init() {
        // As many as there are nodes.
        (stream, continuation) = AsyncStream.makeStream(bufferingPolicy: .unbounded)
    }

    func yield(_ name: String) {
        let isNew = state.withLock { state in
            let isNew = state.isAgain[name] == nil
            state.isAgain[name] = !isNew
            return isNew
        }
        if isNew { continuation.yield(name) }
    }

    /// Ends the work on a name; it is queued again when it was asked for meanwhile.
    func end(_ name: String) {
        let isAgain = state.withLock { state in
            let isAgain = state.isAgain[name] == true
            state.isAgain[name] = isAgain ? false : nil
            return isAgain
        }
        if isAgain { continuation.yield(name) }
    }

    func finish() { continuation.finish() }
}

/// An event that happens once.
final class OneShot: Sendable {
    private struct State {
        var isFinished = false
        var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var nextID: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Whether it has happened.
    var isFinished: Bool { state.withLock { $0.isFinished } }

    /// Makes it happen.
    func finish() {
        let waiters = state.withLock { state in
            state.isFinished = true
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits until it has happened or the task is cancelled.
    func wait() async {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.isFinished || Task.isCancelled { return true }
                    state.waiters[id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            let waiter = state.withLock { $0.waiters.removeValue(forKey: id) }
            waiter?.resume()
        }
    }

    /// Waits until it has happened, but not longer than given.
    func wait(atMostMilliseconds milliseconds: Int) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.wait() }
            group.addTask { try? await Task.sleep(for: .milliseconds(milliseconds)) }
            await group.next()
            group.cancelAll()
        }
    }
}

/// Events to be noted one after the other.
final class EventQueue: Sendable {
    /// The most that wait; when a burst has more, the newest are lost.
    static var countMax: Int { 100_000 }

    let stream: AsyncStream<EventRecord>
    private let continuation: AsyncStream<EventRecord>.Continuation

    init() {
        (stream, continuation) = AsyncStream.makeStream(
            bufferingPolicy: .bufferingOldest(Self.countMax)
        )
    }

    func yield(_ event: EventRecord) { continuation.yield(event) }

    func finish() { continuation.finish() }
}
