// Two small ways for tasks to talk: names to look at soon, and the end of the service.

import Synchronization

/// Names queued for one reader; a name twice in the queue is as good as once.
final class NameQueue: Sendable {
    let stream: AsyncStream<String>
    private let continuation: AsyncStream<String>.Continuation

    init() {
        // More names than nodes there can be; what is dropped is compared at the next interval.
        (stream, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1024))
    }

    func yield(_ name: String) { continuation.yield(name) }

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
