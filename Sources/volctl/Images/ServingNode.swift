// Whether a node gets on with what a tool asks of it.
//
// The kernel takes connections for a program that hangs, and tools wait for it for ever: nothing
// in NBD has a time limit. So a node is asked for an answer before the work and, when nothing has
// moved for a while, again.

import ControlAPI
import Foundation
package import Glibc

/// The node that serves a volume or snapshot to a tool.
package struct ServingNode: Hashable, Sendable {
    /// The node's name.
    package var name: String
    /// The volume or snapshot on it.
    package var uri: String
    /// How long it may be silent.
    package var limits: SilenceLimits

    /// Names the node that serves `uri`.
    package init(name: String, uri: String, limits: SilenceLimits = SilenceLimits()) {
        self.name = name
        self.uri = uri
        self.limits = limits
    }

    /// Refuses to begin with a node that takes a connection and says nothing.
    ///
    /// - Throws: ``CommandFailure`` that names the node and what helps.
    package func requireAnswer() throws {
        guard try answer() == nil else { return }
        throw silent("\(limits.answerSecondsText) after a connection was made, nothing has come")
    }

    /// Refuses to wait on for a node that nothing has come from or gone to for `seconds`.
    ///
    /// - Throws: ``CommandFailure``, unless the node answers and there is hope.
    package func requireHope(afterStandstillOf seconds: Double) throws {
        guard let answer = try answer() else {
            throw silent(
                "nothing has moved for \(Int(seconds)) s, and a new connection got no answer in "
                    + limits.answerSecondsText
            )
        }
        guard seconds >= limits.standstillSecondsMax else { return }
        guard answer.isSuccess else {
            throw CommandFailure(
                "unavailable",
                "Nothing has moved for \(Int(seconds)) s, and the node '\(name)' refuses a new "
                    + "connection: \(answer.reason)",
                remedy: "See 'volctl node show \(name)' and the log of the node."
            )
        }
        throw CommandFailure(
            "unavailable",
            "Nothing has moved for \(Int(seconds)) s, although the node '\(name)' takes "
                + "connections.",
            remedy: "Its disk may hang, or this one: see 'dmesg' and the log of the node. "
                + "'volctl node show \(name)' shows its state."
        )
    }

    /// What becomes of a new connection: it lets somebody open the export or refuses to; nil when
    /// it is silent.
    private func answer() throws -> ToolResult? {
        try Tool.qemuImage.run(["info", "-f", "raw", uri], within: limits.answerSecondsMax)
    }

    private func silent(_ how: String) -> CommandFailure {
        CommandFailure(
            "unavailable",
            "The node '\(name)' does not answer: \(how).",
            remedy: ControlError.helpWithSilence(of: name)
        )
    }
}

/// How long a node may be silent.
package struct SilenceLimits: Hashable, Sendable {
    /// For a new connection, in seconds: many times what a busy node takes.
    package var answerSecondsMax = 10.0
    /// After how long without any movement the node is asked, in seconds.
    package var patienceSeconds = 30.0
    /// After how long without any movement the work is given up although the node answers, in
    /// seconds: a disk under it may hang, and a flush of a slow one takes minutes.
    package var standstillSecondsMax = 600.0

    /// Creates the limits.
    package init() {}

    /// ``answerSecondsMax`` for messages.
    var answerSecondsText: String { "\(Int(answerSecondsMax.rounded(.up))) s" }
}

/// Tells how long a program has done nothing at all.
///
/// Measured by the time that its threads ran, in nanoseconds: every byte that it sends or gets
/// makes one run, while a wait for what does not come takes none.
package struct StandstillClock {
    private let pid: pid_t
    private var runNanoseconds: UInt64?
    private var since: SuspendingClock.Instant
    private var lookedAt: SuspendingClock.Instant
    /// How long it had done nothing when the node was asked last.
    private var askedSeconds = 0.0

    /// Starts for the program `pid`.
    package init(of pid: pid_t) {
        self.pid = pid
        // Not what a suspended machine sleeps: nobody can get on then.
        since = SuspendingClock.now
        lookedAt = since
    }

    /// Looks, at most once a second.
    ///
    /// - Parameter patienceSeconds: After how long without movement to ask, and after how much
    ///   longer to ask again.
    /// - Returns: How long nothing has moved, in seconds, when it is time to ask; else nil.
    package mutating func secondsToAsk(patienceSeconds: Double) -> Double? {
        let now = SuspendingClock.now
        guard now - lookedAt >= .seconds(min(1, patienceSeconds / 2)) else { return nil }
        lookedAt = now
        let newest = Self.runNanoseconds(of: pid)
        guard let newest, newest == runNanoseconds else {
            runNanoseconds = newest
            since = now
            askedSeconds = 0
            return nil
        }
        let seconds = (now - since) / .seconds(1)
        guard seconds >= askedSeconds + patienceSeconds else { return nil }
        askedSeconds = seconds
        return seconds
    }

    /// The time that all threads of a program ran; nil where the kernel does not count it.
    ///
    /// Spec: Documentation/scheduler/sched-stats.rst, `/proc/PID/schedstat`, first field.
    package static func runNanoseconds(of pid: pid_t) -> UInt64? {
        let threads = "/proc/\(pid)/task"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: threads)) ?? []
        var sum: UInt64 = 0
        for name in names {
            let data = FileManager.default.contents(atPath: "\(threads)/\(name)/schedstat")
            let text = String(decoding: data ?? Data(), as: UTF8.self)
            sum &+= text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
        }
        return sum > 0 ? sum : nil
    }
}
