// Waiting for a while or for news, whichever comes first.

import Synchronization

/// Something that one task waits for and anybody may signal, from any thread.
final class WakeSignal: Sendable {
    private struct State {
        var isPending = false
        var waiter: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    /// Ends the wait under way, or else the next one.
    func signal() {
        let waiter = state.withLock { state in
            let waiter = state.waiter
            state.waiter = nil
            if waiter == nil { state.isPending = true }
            return waiter
        }
        waiter?.resume()
    }

    /// Waits until it is signalled, the time is over, or the task is cancelled.
    func wait(milliseconds: Int) async {
        let timer = Task {
            try? await Task.sleep(for: .milliseconds(milliseconds))
            if !Task.isCancelled { self.signal() }
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isPending = state.withLock { state in
                    guard !state.isPending else {
                        state.isPending = false
                        return true
                    }
                    state.waiter = continuation
                    return false
                }
                if isPending { continuation.resume() }
            }
        } onCancel: {
            signal()
        }
        timer.cancel()
    }
}
