public import Glibc

/// How a program ended.
public enum ChildEnd: Hashable, Sendable {
    /// It called `exit` with this code.
    case exited(Int32)
    /// A signal ended it.
    case signalled(Int32)

    /// The code as shells give it: 128 + signal where a signal ended it.
    public var exitCode: Int32 {
        switch self {
        case .exited(let code): code
        case .signalled(let signal): 128 + signal
        }
    }

    /// Waits for the child `pid`.
    public static func wait(for pid: pid_t) -> ChildEnd {
        var status: Int32 = 0
        // SAFETY: writes one Int32 that outlives the call.
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return ChildEnd(status: status)
    }

    /// Waits for the end of the child `pid`, whose number stays taken until ``wait(for:)``.
    public static func waitUnreaped(for pid: pid_t) {
        // SAFETY: writes one structure that outlives the call; its union is not read.
        var information = unsafe siginfo_t()
        while unsafe waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) < 0, errno == EINTR {
        }
    }

    /// How the child `pid` ended, or nil while it runs or when it is no child of this program.
    public static func poll(_ pid: pid_t) -> ChildEnd? {
        var status: Int32 = 0
        // SAFETY: writes one Int32 that outlives the call.
        return unsafe waitpid(pid, &status, WNOHANG) == pid ? ChildEnd(status: status) : nil
    }

    private init(status: Int32) {
        // The W* macros of <sys/wait.h>, which are not importable.
        let signal = status & 0x7F
        self = signal == 0 ? .exited((status >> 8) & 0xFF) : .signalled(signal)
    }
}
