// The limit of open files, looked at before something that cannot do without them is begun.

import Foundation
import Glibc

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
        let needed = rlim_t(neededCount(loopCount: ProcessInfo.processInfo.activeProcessorCount))
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        // SAFETY: the kernel writes the value during the call, and below reads it.
        guard unsafe getrlimit(resource, &limit) == 0, limit.rlim_cur < needed else { return }
        limit.rlim_cur = min(needed, limit.rlim_max)
        _ = unsafe setrlimit(resource, &limit)
        guard limit.rlim_cur < needed else { return }
        throw Failure(
            "Only \(limit.rlim_cur) files may be open here, and \(needed) are needed.",
            help: "Raise the limit: 'ulimit -n 1024', or LimitNOFILE= in a unit of systemd."
        )
    }
}
