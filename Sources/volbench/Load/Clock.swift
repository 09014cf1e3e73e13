package import BlockCore
internal import Glibc

/// The clocks that a measurement reads.
package enum Clock {
    /// The current time of the monotonic clock.
    package static func now() -> Instant { Instant(nanoseconds: read(CLOCK_MONOTONIC) ?? 0) }

    /// Waits until `instant`, or a little longer.
    package static func sleep(until instant: Instant) {
        let now = now()
        guard now < instant else { return }
        let nanoseconds = instant.nanoseconds - now.nanoseconds
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000),
            tv_nsec: Int(nanoseconds % 1_000_000_000)
        )
        // SAFETY: `time` outlives the call. A signal ends the wait early: callers look again.
        _ = unsafe nanosleep(&time, nil)
    }

    /// CPU time that this process used so far, in nanoseconds.
    package static func ownProcessNanoseconds() -> UInt64 { read(CLOCK_PROCESS_CPUTIME_ID) ?? 0 }

    /// What the calling thread cost so far.
    package static func ownThreadUsage() -> ThreadUsage {
        var usage = rusage()
        // SAFETY: `usage` outlives the call. 1 is RUSAGE_THREAD, which Glibc hides here.
        guard unsafe getrusage(__rusage_who_t(1), &usage) == 0 else { return ThreadUsage() }
        return ThreadUsage(
            userMicroseconds: microseconds(usage.ru_utime),
            systemMicroseconds: microseconds(usage.ru_stime),
            switchCount: UInt64(usage.ru_nvcsw + usage.ru_nivcsw),
            majorFaultCount: UInt64(usage.ru_majflt),
            minorFaultCount: UInt64(usage.ru_minflt)
        )
    }

    private static func microseconds(_ time: timeval) -> UInt64 {
        UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_usec)
    }

    /// CPU time that process `pid` used so far, in nanoseconds; nil when there is no such process.
    ///
    /// The process's own clock counts threads that have ended and io_uring's kernel workers, and
    /// it counts in nanoseconds where `/proc/PID/stat` counts ticks of 10 ms.
    package static func cpuNanoseconds(of pid: Int32) -> UInt64? {
        // The kernel's own limit; larger numbers would encode another clock.
        guard pid > 0, pid <= 4_194_304 else { return nil }
        var clock = clockid_t()
        // SAFETY: `clock` outlives the call.
        guard unsafe clock_getcpuclockid(pid, &clock) == 0 else { return nil }
        return read(clock)
    }

    /// Process `pid` and the children it has now: some servers fork one per connection.
    package static func family(of pid: Int32) -> [Int32] {
        [pid] + words(ofFile: "/proc/\(pid)/task/\(pid)/children").compactMap { Int32($0) }
    }

    private static func words(ofFile path: String) -> [Substring] {
        (TextFile.read(path) ?? "").split(whereSeparator: \.isWhitespace)
    }

    private static func read(_ clock: clockid_t) -> UInt64? {
        var time = timespec()
        // SAFETY: `time` outlives the call.
        guard unsafe clock_gettime(clock, &time) == 0 else { return nil }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// What a thread cost.
package struct ThreadUsage: Sendable, Equatable {
    /// Time in user mode, in microseconds.
    package var userMicroseconds: UInt64 = 0
    /// Time in the kernel, in microseconds.
    package var systemMicroseconds: UInt64 = 0
    /// Times that it gave up the CPU or lost it.
    package var switchCount: UInt64 = 0
    /// Pages that came from a disk.
    package var majorFaultCount: UInt64 = 0
    /// Pages that did not.
    package var minorFaultCount: UInt64 = 0

    /// Creates zeroes.
    package init() {}

    /// Creates a cost of all its parts.
    package init(
        userMicroseconds: UInt64,
        systemMicroseconds: UInt64,
        switchCount: UInt64,
        majorFaultCount: UInt64,
        minorFaultCount: UInt64
    ) {
        self.userMicroseconds = userMicroseconds
        self.systemMicroseconds = systemMicroseconds
        self.switchCount = switchCount
        self.majorFaultCount = majorFaultCount
        self.minorFaultCount = minorFaultCount
    }

    /// The cost since `before`.
    package func since(_ before: ThreadUsage) -> ThreadUsage {
        ThreadUsage(
            userMicroseconds: userMicroseconds - before.userMicroseconds,
            systemMicroseconds: systemMicroseconds - before.systemMicroseconds,
            switchCount: switchCount - before.switchCount,
            majorFaultCount: majorFaultCount - before.majorFaultCount,
            minorFaultCount: minorFaultCount - before.minorFaultCount
        )
    }

    /// The cost of both.
    package static func + (left: ThreadUsage, right: ThreadUsage) -> ThreadUsage {
        ThreadUsage(
            userMicroseconds: left.userMicroseconds + right.userMicroseconds,
            systemMicroseconds: left.systemMicroseconds + right.systemMicroseconds,
            switchCount: left.switchCount + right.switchCount,
            majorFaultCount: left.majorFaultCount + right.majorFaultCount,
            minorFaultCount: left.minorFaultCount + right.minorFaultCount
        )
    }
}
