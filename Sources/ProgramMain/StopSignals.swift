// The signals that ask a program to stop.

import Glibc

/// What is done with signals by whoever started this program.
package enum InheritedSignal {
    /// Whether a signal was ignored from the start, as `nohup` has it of SIGHUP; asked before the
    /// program handles it itself.
    package static func isIgnored(_ number: Int32) -> Bool {
        var action = sigaction()
        // SAFETY: writes one `sigaction` that outlives the call. The handlers are compared as
        // numbers, as SIG_IGN is one.
        unsafe sigaction(number, nil, &action)
        return unsafe unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
            == unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
