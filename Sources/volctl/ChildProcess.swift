// Programs that volctl starts: servers that outlive it, and tools that work for it.

package import Foundation
import Glibc
import ProgramMain

/// How a program is started.
package struct ChildSpecification: Sendable {
    /// The program's file.
    package var executable: String
    /// Its arguments, without its own name.
    package var arguments: [String]
    /// Its standard input; nil means `/dev/null`.
    package var input: Int32?
    /// Its standard output.
    package var output: Int32
    /// Its standard error.
    package var error: Int32
    /// Whether it gets a session of its own, so that no terminal's Ctrl-C or hang-up reaches it.
    package var isDetached = false

    /// Creates a specification.
    package init(
        _ executable: String,
        _ arguments: [String],
        input: Int32? = nil,
        output: Int32,
        error: Int32
    ) {
        self.executable = executable
        self.arguments = arguments
        self.input = input
        self.output = output
        self.error = error
    }

    /// Starts the program.
    ///
    /// - Returns: Its process id; the caller waits for it, or lets it outlive this program.
    /// - Throws: ``CommandFailure`` with the system's reason.
    package func start() throws(CommandFailure) -> pid_t {
        // SAFETY: both are initialised here, used by this call only and destroyed below; the
        // strings and descriptors given to them are copied.
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        if let input {
            unsafe posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        } else {
            unsafe posix_spawn_file_actions_addopen(
                &actions,
                STDIN_FILENO,
                "/dev/null",
                O_RDONLY,
                0
            )
        }
        // SAFETY: as above; the signal sets are initialised here and copied into the attributes.
        unsafe posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
        unsafe posix_spawn_file_actions_adddup2(&actions, error, STDERR_FILENO)

        var all = sigset_t()
        var none = sigset_t()
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        var flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        if isDetached { flags |= Self.spawnSetSessionFlag }
        unsafe posix_spawnattr_setflags(&attributes, Int16(flags))

        // SAFETY: strdup'ed strings and their table live until the call has returned; the
        // kernel copies them.
        Self.keepDescriptorsPrivate()
        var table = unsafe ([executable] + arguments).map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe table.indices { unsafe free(table[index]) } }
        var pid: pid_t = 0
        let status = unsafe posix_spawn(&pid, executable, &actions, &attributes, &table, environ)
        guard status == 0 else {
            throw CommandFailure(
                "cannot_start",
                "Cannot start \(executable): \(systemErrorText(status))."
            )
        }
        return pid
    }

    /// Marks every descriptor but the first three to be closed in programs started: a server must
    /// not keep this program's locks and sockets, some of which libraries opened, for years.
    private static func keepDescriptorsPrivate() {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        for number in names.compactMap(Int32.init) where number > STDERR_FILENO {
            _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        }
    }

    /// POSIX_SPAWN_SETSID, which the headers hide unless `_GNU_SOURCE` is set.
    private static let spawnSetSessionFlag: Int32 = 0x80
}

/// How a program ended.
package enum ChildEnd: Hashable, Sendable {
    /// It called `exit` with this code.
    case exited(Int32)
    /// A signal ended it.
    case signalled(Int32)

    /// Waits for the child `pid`.
    package static func wait(for pid: pid_t) -> ChildEnd {
        var status: Int32 = 0
        // SAFETY: writes one Int32 that outlives the call.
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return ChildEnd(status: status)
    }

    /// How the child `pid` ended, or nil while it runs or when it is no child of this program.
    package static func poll(_ pid: pid_t) -> ChildEnd? {
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

/// A file descriptor with one owner, who closes it.
package final class Descriptor {
    /// The number; -1 once closed.
    package private(set) var number: Int32

    /// Takes over `number`.
    package init(owning number: Int32) { self.number = number }

    deinit { close() }

    /// Closes it; doing so again does nothing.
    ///
    /// A `defer` with it keeps the descriptor open for its scope, which a mere variable does not.
    package func close() {
        if number >= 0 { Glibc.close(number) }
        number = -1
    }

    /// Opens `path`; the descriptor is not inherited by programs started later.
    package static func open(
        _ path: String,
        _ flags: Int32,
        mode: mode_t = 0o644
    ) throws(CommandFailure) -> Descriptor {
        // SAFETY: the C string lives for the call.
        let number = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
        guard number >= 0 else {
            throw CommandFailure(
                "cannot_open",
                "Cannot open \(path): \(systemErrorText()).",
                remedy: errno == EACCES ? "Check its permissions." : nil
            )
        }
        return Descriptor(owning: number)
    }

    /// Makes a pipe: the end to read and the end to write.
    package static func pipe() throws(CommandFailure) -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [-1, -1]
        // SAFETY: pipe writes two Int32 into the array's storage.
        guard unsafe Glibc.pipe(&ends) == 0 else {
            throw CommandFailure("cannot_open", "Cannot make a pipe: \(systemErrorText()).")
        }
        return (Descriptor(owning: ends[0]), Descriptor(owning: ends[1]))
    }

    /// Lets the pipe hold 1 MiB, so that writer and reader run long stretches at a time; a kernel
    /// that refuses leaves it as it is.
    package func enlargePipe() { _ = fcntl(number, Self.setPipeSizeCommand, 1 << 20) }

    /// F_SETPIPE_SZ, which the headers hide unless `_GNU_SOURCE` is set.
    private static let setPipeSizeCommand: Int32 = 1031

    /// Reads what is there into `buffer`, waiting for the first byte.
    ///
    /// - Returns: The number of bytes; 0 at the end; nil when a signal interrupted the wait.
    package func read(into buffer: inout [UInt8]) throws(CommandFailure) -> Int? {
        // SAFETY: the pointer and count are those of one live buffer.
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe Glibc.read(number, bytes.baseAddress, bytes.count)
        }
        if count >= 0 { return count }
        if errno == EINTR || errno == EAGAIN { return nil }
        throw CommandFailure("io_error", "Cannot read: \(systemErrorText()).")
    }
}
