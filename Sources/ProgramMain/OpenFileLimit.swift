// The limit of open files, looked at before something that cannot do without them is begun.

import Foundation
package import Glibc

/// How many files this process may have open.
package enum OpenFileLimit {
    /// Open files beside those of event loops.
    ///
    /// Standard streams, connections, databases, and the pipes of programs started.
    package static var countMin: Int { 32 }
    /// What an event loop of SwiftNIO opens: an epoll, an event and a timer descriptor.
    package static var countPerLoop: Int { 3 }

    /// How many are needed where there are so many event loops, one for each core.
    package static func neededCount(loopCount: Int) -> Int {
        countMin + loopCount * countPerLoop
    }

    /// Refuses to begin where too few files may be open: the event loops would trap.
    ///
    /// A soft limit below what is needed is raised, as far as the hard one allows.
    ///
    /// - Throws: ``Failure``.
    package static func require() throws(Failure) {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        // SAFETY: the kernel writes the value during the call, and below reads it.
        guard unsafe getrlimit(resource, &limit) == 0 else { return }
        let loopCount = ProcessInfo.processInfo.activeProcessorCount
        try require(neededCount(loopCount: loopCount), of: limit) { raised in
            var raised = raised
            // SAFETY: the kernel reads the value during the call.
            return unsafe setrlimit(resource, &raised) == 0
        }
    }

    /// The same, where the limit is known.
    ///
    /// - Parameters:
    ///   - neededCount: How many files are needed.
    ///   - limit: How many may be open.
    ///   - raise: Sets another limit; false when that is not allowed, which can be so below the
    ///     hard limit too, where system calls are filtered.
    /// - Throws: ``Failure``.
    package static func require(
        _ neededCount: Int,
        of limit: rlimit,
        raise: (rlimit) -> Bool
    ) throws(Failure) {
        let needed = rlim_t(neededCount)
        guard limit.rlim_cur < needed else { return }
        var raised = limit
        raised.rlim_cur = min(needed, limit.rlim_max)
        let count = raise(raised) ? raised.rlim_cur : limit.rlim_cur
        guard count < needed else { return }
        throw Failure(
            "Only \(count) files may be open here, and \(needed) are needed.",
            help: "Raise the limit: 'ulimit -n 1024', or LimitNOFILE= in a unit of systemd."
        )
    }
}
