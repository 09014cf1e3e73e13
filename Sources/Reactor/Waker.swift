internal import CLinux
internal import Synchronization

/// Wakes a reactor from other threads, at the price of a system call only when it sleeps.
///
/// The race to lose: a sender queues a message and finds the reactor awake, while the reactor
/// has just found the mailbox empty and goes to sleep. It cannot happen, because both sides
/// *exchange* one word and exchanges of one word have a single order:
///
/// - The receiver turns `awake` before it looks into its mailboxes, and turns `awake` into
///   `sleeping` (compare-exchange) before it sleeps.
/// - The sender queues, then exchanges in `notified`.
///
/// If the sender's exchange comes before the receiver's turn to `awake`, the receiver acquires
/// it and its look finds the message. If it comes after, the word is `notified` when the
/// receiver tries to sleep, so the attempt fails; or it finds `sleeping` and writes the event.
public final class Waker: Sendable {
    private enum State {
        static let awake: UInt8 = 0
        static let sleeping: UInt8 = 1
        static let notified: UInt8 = 2
    }

    private let state = Atomic<UInt8>(State.awake)
    let eventDescriptor: Int32

    init(eventDescriptor: Int32) { self.eventDescriptor = eventDescriptor }

    deinit { _ = cbl_close(eventDescriptor) }

    /// Makes the reactor's current or next turn end soon; from any thread.
    public func wake() {
        // Release: what was queued before is visible to the receiver that sees `notified`.
        // Acquire: nothing, but a read-modify-write has one ordering for both halves.
        let old = state.exchange(State.notified, ordering: .acquiringAndReleasing)
        guard old == State.sleeping else { return }
        // The counter cannot overflow: one write per sleep.
        _ = cbl_event_signal(eventDescriptor)
    }

    /// Whether somebody has called ``wake()`` since the receiver last said it is awake.
    var isNotified: Bool { state.load(ordering: .relaxed) == State.notified }

    /// Announces sleep; false when somebody wants the receiver awake.
    func trySleep() -> Bool {
        state.compareExchange(
            expected: State.awake,
            desired: State.sleeping,
            ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Announces that the receiver will look into its mailboxes now.
    func stayAwake() {
        // Already awake: a sender that comes now makes the next attempt to sleep fail.
        guard state.load(ordering: .relaxed) != State.awake else { return }
        _ = state.exchange(State.awake, ordering: .acquiringAndReleasing)
    }
}
