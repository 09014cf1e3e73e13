internal import Synchronization

/// A bounded queue of messages from many threads to one reactor.
///
/// Nothing locks and nothing allocates after `init`. Messages of one sender arrive in the order
/// sent; a full mailbox is a value, not an error: the sender keeps the message and tries again.
///
/// Source: D. Vyukov, "Bounded MPMC queue": each cell carries the ticket it waits for. A sender
/// claims a cell by moving the tail, writes the message, then publishes it by advancing the
/// cell's ticket (release); the receiver sees the ticket (acquire) and with it the message.
@safe
public final class Mailbox<Message: BitwiseCopyable & Sendable>: @unchecked Sendable {
    // SAFETY (Sendable): a cell's message is written only by the sender that claimed its ticket
    // and read only by the receiver after it saw the ticket published; tested under
    // ThreadSanitizer (MailboxTests).
    private struct Cell: ~Copyable {
        let ticket: Atomic<UInt64>
        var message: Message?
    }

    private let cells: UnsafeMutablePointer<Cell>
    private let mask: UInt64
    private let tail = Atomic<UInt64>(0)
    private let waker: Waker
    // The receiver's own; a padding from `tail` is not worth it at the rates of messages here.
    private let head: UnsafeMutablePointer<UInt64>

    /// The number of messages it holds at most; a power of two.
    public let capacity: Int

    /// Creates an empty mailbox for at least `capacityMin` messages.
    ///
    /// - Parameters:
    ///   - capacityMin: At least 1.
    ///   - waker: The receiving reactor's ``Reactor/waker``.
    public init(capacityMin: Int, waker: Waker) {
        precondition(capacityMin > 0, "a mailbox needs room")
        var capacity = 2
        while capacity < capacityMin { capacity *= 2 }
        self.capacity = capacity
        self.waker = waker
        mask = UInt64(capacity - 1)
        unsafe cells = .allocate(capacity: capacity)
        for index in 0..<capacity {
            unsafe (cells + index).initialize(
                to: Cell(ticket: Atomic(UInt64(index)), message: nil)
            )
        }
        unsafe head = .allocate(capacity: 1)
        unsafe head.initialize(to: 0)
    }

    // SAFETY: the mailbox is the only owner of both.
    deinit {
        unsafe cells.deinitialize(count: capacity)
        unsafe cells.deallocate()
        unsafe head.deallocate()
    }

    /// Queues a message and wakes the receiver if it sleeps; from any thread.
    ///
    /// - Returns: false when the mailbox is full; the message was not taken.
    public func send(_ message: Message) -> Bool {
        guard enqueue(message) else { return false }
        waker.wake()
        return true
    }

    /// Queues a message without waking the receiver; from any thread.
    ///
    /// For a burst: the last act of the burst is ``Waker/wake()``, or the receiver may sleep on.
    ///
    /// - Returns: false when the mailbox is full; the message was not taken.
    public func enqueue(_ message: Message) -> Bool {
        // Relaxed: the claim orders nothing; the cell's ticket does.
        var position = tail.load(ordering: .relaxed)
        while true {
            // SAFETY: masked into the allocation; initialised in init.
            let cell = unsafe cells + Int(truncatingIfNeeded: position & mask)
            // Acquire: pairs with the receiver's release of the cell, so that its read of the
            // old message is over before this write.
            let ticket = unsafe cell.pointee.ticket.load(ordering: .acquiring)
            if ticket == position {
                let (claimed, found) = tail.compareExchange(
                    expected: position,
                    desired: position &+ 1,
                    ordering: .relaxed
                )
                if claimed {
                    unsafe cell.pointee.message = message
                    // Release: publishes the message.
                    unsafe cell.pointee.ticket.store(position &+ 1, ordering: .releasing)
                    return true
                }
                position = found
            } else if ticket < position {
                return false  // The cell still holds a message from one lap ago: full.
            } else {
                position = tail.load(ordering: .relaxed)
            }
        }
    }

    /// Takes the oldest message; from the receiving thread only.
    public func receive() -> Message? {
        let position = unsafe head.pointee
        // SAFETY: masked into the allocation; initialised in init.
        let cell = unsafe cells + Int(truncatingIfNeeded: position & mask)
        // Acquire: pairs with the sender's release of the message.
        guard unsafe cell.pointee.ticket.load(ordering: .acquiring) == position &+ 1 else {
            return nil
        }
        let message = unsafe cell.pointee.message
        // Release: the message is read; the cell is free for the sender one lap on.
        unsafe cell.pointee.ticket.store(position &+ mask &+ 1, ordering: .releasing)
        unsafe head.pointee = position &+ 1
        return message
    }
}
