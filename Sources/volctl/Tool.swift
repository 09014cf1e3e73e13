// Tools of QEMU and libnbd that volctl has work done by: found, run, watched, and their
// complaints turned into one line.

package import ChildProcesses
import Foundation
import Glibc
import ProgramMain
import Synchronization

/// A program that comes from a Debian package.
package struct Tool: Sendable {
    /// The program's name.
    package var name: String
    /// The Debian package that has it.
    package var package: String

    /// Creates a description.
    package init(name: String, package: String) {
        self.name = name
        self.package = package
    }

    /// `qemu-img`: converts and inspects images.
    package static let qemuImage = Tool(name: "qemu-img", package: "qemu-utils")
    /// `qemu-nbd`: serves an image over NBD.
    package static let qemuServer = Tool(name: "qemu-nbd", package: "qemu-utils")
    /// `qemu-io`: single requests.
    package static let qemuIO = Tool(name: "qemu-io", package: "qemu-utils")
    /// `nbdcopy`: streams an NBD export.
    package static let nbdCopy = Tool(name: "nbdcopy", package: "libnbd-bin")

    /// Finds the program.
    ///
    /// - Parameter searchPath: Directories separated by colons; `PATH` by default.
    /// - Returns: Its path.
    /// - Throws: ``CommandFailure`` that names the package to install.
    package func located(
        searchPath: String? = ProcessInfo.processInfo.environment["PATH"]
    ) throws(CommandFailure) -> String {
        for directory in (searchPath ?? "/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(name)"
            if Path.isAccessible(path, X_OK) { return path }
        }
        throw CommandFailure(
            "tool_missing",
            "This needs \(name), which is not installed.",
            remedy: "Install it: apt-get install \(package)"
        )
    }
}

/// Whether the user asked to stop (Ctrl-C, SIGTERM, a terminal closed) while long work ran.
package enum Interruption {
    private static let wasRequested = Atomic<Bool>(false)

    /// Whether it was asked for.
    package static var isRequested: Bool { wasRequested.load(ordering: .relaxed) }

    /// From now on Ctrl-C, SIGTERM and the end of the terminal set ``isRequested``, so that
    /// half-done work is undone; the second one ends the program at once.
    ///
    /// SIGHUP stays ignored where it is: `nohup` lets work outlive its terminal.
    package static func watch() {
        for number in [SIGINT, SIGTERM, SIGHUP]
        where !(number == SIGHUP && InheritedSignal.isIgnored(number)) {
            var action = sigaction()
            // SAFETY: the handler changes an atomic and may _exit, both async-signal-safe. Without
            // SA_RESTART blocking calls return EINTR, so that loops look at the flag.
            unsafe action.__sigaction_handler.sa_handler = { _ in
                // Whoever asks twice does not want to wait for the tidying.
                if Interruption.wasRequested.exchange(true, ordering: .relaxed) {
                    _exit(ProgramExit.interrupted)
                }
            }
            unsafe sigaction(number, &action, nil)
        }
    }

    /// Throws when the user asked to stop.
    package static func check() throws(CommandFailure) {
        guard isRequested else { return }
        throw CommandFailure("interrupted", "Interrupted.")
    }

    /// Returns soon after the user has asked to stop, or when its task is cancelled.
    ///
    /// It looks at the flag now and then: a signal handler can do little more than set it.
    package static func wait() async {
        while !isRequested, (try? await Task.sleep(for: .milliseconds(100))) != nil {}
    }
}

/// What a finished tool left behind.
package struct ToolResult: Sendable {
    /// How it ended.
    package var end: ChildEnd
    /// What it wrote to standard error, at most the last ``complaintByteCountMax`` bytes.
    package var complaint: String

    /// Complaints kept, in bytes: enough for any tool's last words.
    package static var complaintByteCountMax: Int { 64 << 10 }

    /// Whether it ended with code 0.
    package var isSuccess: Bool { end == .exited(0) }

    /// The last line of the complaint, without the tool's name before it.
    package var reason: String {
        guard var line = complaint.split(whereSeparator: \.isNewline).last.map(String.init) else {
            switch end {
            case .exited(let code): return "it ended with code \(code) and said nothing"
            case .signalled(let number): return "signal \(number) ended it"
            }
        }
        for tool in [Tool.qemuImage, .qemuServer, .qemuIO, .nbdCopy]
        where line.hasPrefix(tool.name + ": ") {
            line = String(line.dropFirst(tool.name.count + 2))
        }
        return line
    }
}

extension Tool {
    /// Runs the tool until it ends, handing its standard output on in pieces as they come.
    ///
    /// It gets a session of its own: Ctrl-C reaches volctl only, which ends the tool and then
    /// undoes what is half done. A throw of `onOutput` ends it too.
    ///
    /// - Parameters:
    ///   - arguments: Its arguments.
    ///   - node: The node that it works on; when that falls silent, the tool is given up.
    ///   - onOutput: Called with each piece of its standard output.
    /// - Returns: How it ended and what it complained of.
    /// - Throws: ``CommandFailure``, or what `onOutput` throws.
    package func run(
        _ arguments: [String],
        servedBy node: ServingNode? = nil,
        onOutput: (ArraySlice<UInt8>) throws -> Void
    ) throws -> ToolResult {
        try run(arguments, watch: Self.standstillWatch(of: node), onOutput: onOutput)
    }

    /// Runs the tool and leaves its output alone.
    ///
    /// - Returns: How it ended; nil when it had not after `seconds` and was ended.
    package func run(_ arguments: [String], within seconds: Double) throws -> ToolResult? {
        enum Late: Error { case late }
        let deadline = SuspendingClock.now + .seconds(seconds)
        do {
            return try run(
                arguments,
                watch: { _ in if SuspendingClock.now >= deadline { throw Late.late } },
                onOutput: { _ in }
            )
        } catch Late.late {
            return nil
        }
    }

    private static func standstillWatch(of node: ServingNode?) -> (pid_t) throws -> Void {
        guard let node else { return { _ in } }
        var clock: StandstillClock?
        return { pid in
            if clock == nil { clock = StandstillClock(of: pid) }
            let seconds = clock?.secondsToAsk(patienceSeconds: node.limits.patienceSeconds)
            if let seconds { try node.requireHope(afterStandstillOf: seconds) }
        }
    }

    /// Runs the tool; `watch` is called with its process id whenever it is silent, and ends it by
    /// a throw.
    private func run(
        _ arguments: [String],
        watch: (pid_t) throws -> Void,
        onOutput: (ArraySlice<UInt8>) throws -> Void
    ) throws -> ToolResult {
        let output = try Descriptor.pipe()
        let complaint = try Descriptor.pipe()
        defer {
            for end in [output.read, output.write, complaint.read, complaint.write] { end.close() }
        }
        var specification = ChildSpecification(
            try located(),
            arguments,
            output: output.write.number,
            error: complaint.write.number
        )
        specification.isDetached = true
        output.read.enlargePipe()
        let pid = try specification.launch()
        var isReaped = false
        defer {
            if !isReaped {
                kill(pid, SIGKILL)
                _ = ChildEnd.wait(for: pid)
            }
        }
        // The child's ends must be closed here, or the end of its output is never seen.
        output.write.close()
        complaint.write.close()
        let text = try Self.drain(
            output.read,
            complaint.read,
            onSilence: { try watch(pid) },
            onOutput: onOutput
        )
        let end = ChildEnd.wait(for: pid)
        isReaped = true
        return ToolResult(end: end, complaint: text)
    }

    /// Runs the tool and collects its standard output, at most 16 MiB of it.
    package func run(_ arguments: [String]) throws -> (result: ToolResult, output: [UInt8]) {
        var collected: [UInt8] = []
        let result = try run(arguments) { piece in
            if collected.count < 16 << 20 { collected += piece }
        }
        return (result, collected)
    }

    private static func drain(
        _ output: Descriptor,
        _ complaint: Descriptor,
        onSilence: () throws -> Void,
        onOutput: (ArraySlice<UInt8>) throws -> Void
    ) throws -> String {
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 256 << 10)
        while output.number >= 0 || complaint.number >= 0 {
            try Interruption.check()
            // poll skips negative descriptors. It wakes up now and then because a signal may
            // have been delivered to another thread.
            var polled = [output, complaint].map {
                pollfd(fd: $0.number, events: Int16(POLLIN), revents: 0)
            }
            // SAFETY: the count is that of the array.
            guard unsafe poll(&polled, 2, 200) > 0 else {
                try onSilence()
                continue
            }
            if polled[0].revents != 0, let count = try output.read(into: &buffer) {
                if count == 0 { output.close() } else { try onOutput(buffer[..<count]) }
            }
            if polled[1].revents != 0, let count = try complaint.read(into: &buffer) {
                if count == 0 { complaint.close() } else { text += buffer[..<count] }
                text = text.suffix(ToolResult.complaintByteCountMax)
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
