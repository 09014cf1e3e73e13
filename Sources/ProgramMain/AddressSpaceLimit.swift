// The limit of address space, looked at before something that cannot do without is begun.

import CProcess
import Foundation
import Glibc

/// How much address space this process may take: `ulimit -v`.
///
/// Where it is used up a thread cannot be made and memory is not granted, and what runs then can
/// only trap.
package enum AddressSpaceLimit {
    /// Threads of a program whatever the machine: its own, timers, resolvers, file I/O.
    package static var threadCountMin: Int { 8 }
    /// Threads for each core: an event loop, and one that tasks run on.
    package static var threadCountPerCore: Int { 2 }
    /// Memory of a program beside its threads and what it reserves at start, in bytes: its heaps.
    package static var heapByteCount: UInt64 { 48 << 20 }
    /// Heaps that all threads share where address space is limited.
    private static var heapCount: Int32 { 2 }

    /// What a program with so many cores has yet to map when it starts, in bytes.
    package static func neededByteCount(coreCount: Int, stackByteCount: UInt64) -> UInt64 {
        let threadCount = threadCountMin + coreCount * threadCountPerCore
        let (stacks, isTooMuch) = stackByteCount.multipliedReportingOverflow(
            by: UInt64(threadCount)
        )
        return heapByteCount + (isTooMuch ? UInt64.max / 4 : min(stacks, UInt64.max / 4))
    }

    /// Refuses to begin where there is too little address space.
    ///
    /// - Parameters:
    ///   - reservedByteCount: What the program reserves at start, in bytes.
    ///   - advice: What makes that less, a clause.
    /// - Throws: ``Failure``.
    package static func require(
        reserving reservedByteCount: UInt64 = 0,
        advice: String? = nil
    ) throws(Failure) {
        guard let limit = Self.limit(of: __rlimit_resource_t(RLIMIT_AS.rawValue)),
            let mappedByteCount = mappedByteCount()
        else { return }
        _ = cbl_limit_heap_count(heapCount)
        // Without a limit of stacks, threads get 2 MiB.
        let stack = Self.limit(of: __rlimit_resource_t(RLIMIT_STACK.rawValue)) ?? 2 << 20
        let needed = neededByteCount(
            coreCount: ProcessInfo.processInfo.activeProcessorCount,
            stackByteCount: stack
        )
        try require(mappedByteCount + needed + reservedByteCount, of: limit, advice: advice)
    }

    /// The same, where it is known what is needed and how much there may be, in bytes.
    package static func require(
        _ neededByteCount: UInt64,
        of limitByteCount: UInt64,
        advice: String? = nil
    ) throws(Failure) {
        guard limitByteCount < neededByteCount else { return }
        let mebi: UInt64 = 1 << 20
        let needed = (neededByteCount + mebi - 1) / mebi
        let less = advice.map { "; or \($0)" } ?? ""
        throw Failure(
            "It may take only \(limitByteCount / mebi) MiB of address space here, and needs "
                + "\(needed) MiB.",
            help: "Raise the limit: 'ulimit -v unlimited', or LimitAS= in a unit of systemd\(less)."
        )
    }

    /// The soft limit; nil when there is none.
    private static func limit(of resource: __rlimit_resource_t) -> UInt64? {
        var limit = rlimit()
        // SAFETY: the kernel writes the value during the call.
        guard unsafe getrlimit(resource, &limit) == 0, limit.rlim_cur != rlim_t.max else {
            return nil
        }
        return UInt64(limit.rlim_cur)
    }

    /// What this process has mapped, in bytes.
    private static func mappedByteCount() -> UInt64? {
        // Spec: proc(5), /proc/pid/statm: the first number is the size in pages.
        let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        guard let pages = text?.split(separator: " ").first.flatMap({ UInt64($0) }) else {
            return nil
        }
        return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    }
}
