public import BlockCore
internal import CLinux

/// The machine's monotonic clock (`CLOCK_MONOTONIC`).
public enum MonotonicClock {
    /// The time now; about 20 ns.
    public static func now() -> Instant { Instant(nanoseconds: cbl_now_nanoseconds()) }
}
