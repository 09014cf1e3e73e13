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

    /// The words of a small file; none when it cannot be read.
    private static func words(ofFile path: String) -> [Substring] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { _ = close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        // SAFETY: the array is borrowed for the call with its own count.
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        }
        let text = String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
        return text.split(whereSeparator: \.isWhitespace)
    }

    private static func read(_ clock: clockid_t) -> UInt64? {
        var time = timespec()
        // SAFETY: `time` outlives the call.
        guard unsafe clock_gettime(clock, &time) == 0 else { return nil }
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
