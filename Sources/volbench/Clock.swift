package import BlockCore
internal import Glibc

/// The clocks that a measurement reads.
package enum Clock {
    /// The current time of the monotonic clock.
    package static func now() -> Instant { Instant(nanoseconds: read(CLOCK_MONOTONIC) ?? 0) }

    /// CPU time that this process used so far, in nanoseconds.
    package static func ownCPUNanoseconds() -> UInt64 { read(CLOCK_PROCESS_CPUTIME_ID) ?? 0 }

    /// CPU time that process `pid` used so far, in nanoseconds; nil when there is no such process.
    ///
    /// The process's own clock counts threads that have ended and io_uring's kernel workers, and
    /// it counts in nanoseconds where `/proc/PID/stat` counts ticks of 10 ms.
    package static func cpuNanoseconds(of pid: Int32) -> UInt64? {
        var clock = clockid_t()
        // SAFETY: `clock` outlives the call.
        guard unsafe clock_getcpuclockid(pid, &clock) == 0 else { return nil }
        return read(clock)
    }

    private static func read(_ clock: clockid_t) -> UInt64? {
        var time = timespec()
        // SAFETY: `time` outlives the call.
        guard unsafe clock_gettime(clock, &time) == 0 else { return nil }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
