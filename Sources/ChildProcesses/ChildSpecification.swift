// Starting programs. Not Foundation's `Process`: Docs/WORKAROUNDS.md says why.

import CProcess
public import Glibc

/// How a program is started.
public struct ChildSpecification: Sendable {
    /// The program's file.
    public var executable: String
    /// Its arguments, without its own name.
    public var arguments: [String]
    /// Its environment; nil means this program's.
    public var environment: [String: String]?
    /// Where it works; nil means where this program does.
    public var directory: String?
    /// Its standard input; nil means `/dev/null`.
    public var input: Int32?
    /// Its standard output; nil means `/dev/null`.
    public var output: Int32?
    /// Its standard error; nil means `/dev/null`.
    public var error: Int32?
    /// Whether it gets a session of its own, so that no terminal's Ctrl-C or hang-up reaches it.
    public var isDetached = false

    /// Creates a specification.
    public init(
        _ executable: String,
        _ arguments: [String],
        input: Int32? = nil,
        output: Int32? = nil,
        error: Int32? = nil
    ) {
        self.executable = executable
        self.arguments = arguments
        self.input = input
        self.output = output
        self.error = error
    }

    /// Starts the program, with its three standard descriptors and no other: a server must not
    /// keep this program's locks and sockets, some of which libraries opened, for years.
    ///
    /// - Returns: Its process id; the caller waits for it, or lets it outlive this program.
    /// - Throws: ``SpawnFailure`` with the system's reason.
    public func start() throws(SpawnFailure) -> pid_t {
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
        unsafe setDescriptors(&actions)
        setSignals(&attributes)

        // SAFETY: strdup'ed strings and their tables live until the call has returned; the kernel
        // copies them.
        let variables = environment.map { $0.map { name, value in "\(name)=\(value)" } }
        var table = unsafe ([executable] + arguments).map { unsafe strdup($0) } + [nil]
        var settings = unsafe (variables ?? []).map { unsafe strdup($0) } + [nil]
        defer {
            for index in unsafe table.indices { unsafe free(table[index]) }
            for index in unsafe settings.indices { unsafe free(settings[index]) }
        }
        var pid: pid_t = 0
        let status =
            unsafe variables == nil
            ? posix_spawn(&pid, executable, &actions, &attributes, &table, environ)
            : posix_spawn(&pid, executable, &actions, &attributes, &table, &settings)
        guard status == 0 else {
            throw SpawnFailure(executable: executable, errorNumber: status)
        }
        return pid
    }

    private func setDescriptors(_ actions: inout posix_spawn_file_actions_t) {
        let ends = [
            (input, STDIN_FILENO, O_RDONLY), (output, STDOUT_FILENO, O_WRONLY),
            (error, STDERR_FILENO, O_WRONLY),
        ]
        // SAFETY: the caller initialised the actions; strings are copied.
        for (given, number, mode) in ends {
            if let given {
                unsafe posix_spawn_file_actions_adddup2(&actions, given, number)
            } else {
                unsafe posix_spawn_file_actions_addopen(&actions, number, "/dev/null", mode, 0)
            }
        }
        if let directory {
            // SAFETY: as above.
            unsafe cbl_spawn_change_directory(&actions, directory)
        }
        // SAFETY: as above.
        unsafe cbl_spawn_close_from(&actions, STDERR_FILENO + 1)
    }

    /// Signals as a shell's child has them, whatever this program ignores or blocks.
    private func setSignals(_ attributes: inout posix_spawnattr_t) {
        var all = sigset_t()
        var none = sigset_t()
        // SAFETY: the caller initialised the attributes, and the sets are copied into them.
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        var flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        if isDetached { flags |= Self.spawnSetSessionFlag }
        unsafe posix_spawnattr_setflags(&attributes, Int16(flags))
    }

    /// POSIX_SPAWN_SETSID, which the headers hide unless `_GNU_SOURCE` is set.
    private static let spawnSetSessionFlag: Int32 = 0x80
}

/// Why a program could not be started.
public struct SpawnFailure: Error, Hashable {
    /// The program's file.
    public var executable: String
    /// The system's reason, an errno.
    public var errorNumber: Int32
}
