package import Synchronization

/// What a running job tells others, and what they tell it: numbers, never locks.
package final class JobProgress: Sendable {
    /// Transfers that ended.
    package let operationCount = Atomic<UInt64>(0)
    /// Bytes that they moved.
    package let byteCount = Atomic<UInt64>(0)
    /// The 99th percentile so far, in nanoseconds.
    package let p99Nanoseconds = Atomic<UInt64>(0)
    /// How much of it is done, in parts of ``whole``.
    package let donePart = Atomic<UInt64>(0)
    /// Whether it has ended.
    package let hasEnded = Atomic<Bool>(false)
    /// Whether it is to end now.
    package let shouldStop = Atomic<Bool>(false)
    /// When it began to count, in nanoseconds of the monotonic clock; 0 before.
    package let countingSince = Atomic<UInt64>(0)

    /// All of a job, in the parts that ``donePart`` counts.
    package static var whole: UInt64 { 1_000_000 }

    /// Creates the progress of a job that has not begun.
    package init() {}
}
