// Which process is ours: a process id alone may have been given to another program since.

import ChildProcesses
import ControlAPI
import Foundation
import Glibc

/// A process that volctl started, told apart from any later one with the same id.
package struct ProcessRecord: Codable, Hashable, Sendable {
    /// Its process id.
    package var pid: Int32
    /// When it started, in clock ticks since the machine did.
    package var startTicks: UInt64
    /// The kernel's boot id: after a restart of the machine nothing of it is left.
    package var bootId: String?

    /// Creates a record.
    package init(pid: Int32, startTicks: UInt64, bootId: String?) {
        self.pid = pid
        self.startTicks = startTicks
        self.bootId = bootId
    }

    /// Describes the process `pid` as it is now; nil when there is none.
    package init?(running pid: Int32) {
        guard let status = ProcessStatus(pid: pid), !status.isZombie else { return nil }
        self.init(pid: pid, startTicks: status.startTicks, bootId: MachineIdentifier.current)
    }

    /// Whether this very process runs.
    package var isRunning: Bool {
        guard pid > 1, bootId == nil || bootId == MachineIdentifier.current else { return false }
        guard let status = ProcessStatus(pid: pid), !status.isZombie else { return false }
        return status.startTicks == startTicks
    }

    /// Whether this very process is there and a signal (SIGSTOP) or a debugger has stopped it.
    package var isSuspended: Bool {
        isRunning && ProcessStatus(pid: pid)?.isSuspended == true
    }

    /// Sends `signal` to this very process and nobody else.
    ///
    /// - Returns: Whether it was there to get it.
    @discardableResult
    package func send(_ signal: Int32) -> Bool { isRunning && kill(pid, signal) == 0 }

    /// Waits until the process has ended.
    ///
    /// - Returns: Whether it did before `deadline`.
    package func waitForEnd(until deadline: ContinuousClock.Instant) async throws -> Bool {
        while isRunning {
            // It may be a child of this very call; an unreaped child would count as running.
            _ = ChildEnd.poll(pid)
            guard ContinuousClock.now < deadline else { return !isRunning }
            try await Task.sleep(for: .milliseconds(20))
        }
        return true
    }
}

/// What the kernel tells about a process.
package struct ProcessStatus: Hashable, Sendable {
    /// Whether it has ended and waits to be reaped.
    package var isZombie: Bool
    /// Whether it was stopped and can be continued.
    package var isSuspended: Bool
    /// When it started, in clock ticks since the machine did.
    package var startTicks: UInt64

    /// Reads `/proc/PID/stat`.
    package init?(pid: Int32) {
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else {
            return nil
        }
        self.init(parsing: String(decoding: data, as: UTF8.self))
    }

    /// Reads the text of a `stat` file.
    ///
    /// The second field is the program's name in parentheses, which may itself hold parentheses
    /// and spaces: fields are counted from the last one. Spec: proc(5), fields 3 and 22.
    package init?(parsing text: String) {
        guard let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count >= 20, let startTicks = UInt64(fields[19]) else { return nil }
        isZombie = fields[0] == "Z" || fields[0] == "X"
        isSuspended = fields[0] == "T" || fields[0] == "t"
        self.startTicks = startTicks
    }
}
