// How the control plane reaches a reactor: work handed over, done between two turns.

internal import Reactor
internal import Synchronization

/// Work for one reactor from outside its thread.
///
/// Rare, so it may lock and allocate. The data path pays one relaxed load per turn.
final class ControlQueue: Sendable {
    typealias Work = @Sendable (Worker) -> Void

    private let hasWork = Atomic<Bool>(false)
    private let queue = Mutex<[Work]>([])
    private let waker: Waker

    init(waker: Waker) { self.waker = waker }

    /// Has `work` done on the reactor's thread, soon and in order.
    func run(_ work: @escaping Work) {
        queue.withLock { $0.append(work) }
        hasWork.store(true, ordering: .releasing)
        waker.wake()
    }

    /// Takes everything queued; from the reactor's thread.
    func takeAll() -> [Work] {
        guard hasWork.load(ordering: .relaxed) else { return [] }
        _ = hasWork.exchange(false, ordering: .acquiringAndReleasing)
        return queue.withLock { queued in
            let taken = queued
            queued = []
            return taken
        }
    }
}
