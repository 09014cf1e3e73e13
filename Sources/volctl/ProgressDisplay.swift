// Long work, shown: a bar that redraws itself on a terminal, lines of JSON for programs, or nothing.

import ArgumentParser
import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// How progress is shown; always on standard error, so that standard output stays one document.
package enum ProgressStyle: String, CaseIterable, Sendable {
    /// A bar on a terminal; lines of JSON with `--json`; else nothing.
    case auto
    /// A bar, redrawn in place.
    case bar
    /// One JSON document per line.
    case json
    /// Nothing.
    case none
}

extension ProgressStyle: ExpressibleByArgument {}

/// Shows long work to whoever waits for it.
package final class ProgressDisplay {
    /// One line of `--progress json`.
    package struct Event: Codable, Hashable, Sendable {
        /// `phase` (it began), `progress`, or `note`.
        package var event: String
        /// What is under way: `download`, `check`, `convert`, `zero`, `checksum`, `verify`.
        package var phase: String?
        /// How much of the phase is done, 0 to 100.
        package var percent: Double?
        /// Bytes done, where bytes are counted.
        package var byteCount: UInt64?
        /// Bytes in all, where they are known.
        package var totalByteCount: UInt64?
        /// For a note: what happened.
        package var message: String?
    }

    private let style: ProgressStyle
    private let terminal: Terminal
    private let write: (String) -> Void
    private var phase = ""
    private var lastShown: ContinuousClock.Instant?
    private var hasOpenLine = false
    private var hasShownLast = false

    /// The time between two redraws.
    private static let interval = Duration.milliseconds(100)
    /// The time between two lines of JSON.
    private static let eventInterval = Duration.milliseconds(500)

    /// Creates a display.
    ///
    /// - Parameters:
    ///   - style: How to show; `auto` looks at the terminal.
    ///   - isJSON: Whether the command prints JSON.
    ///   - terminal: Standard error, or a test's.
    ///   - write: Takes the text; standard error by default.
    package init(
        _ style: ProgressStyle,
        isJSON: Bool,
        terminal: Terminal = .error,
        write: @escaping (String) -> Void = { writeText($0, to: STDERR_FILENO) }
    ) {
        self.terminal = terminal
        self.write = write
        if style == .auto {
            self.style = isJSON ? .json : terminal.columnCount == nil ? .none : .bar
        } else {
            self.style = style
        }
    }

    /// A display for commands whose steps are few and short: notes on a terminal only.
    package static func notes(isJSON: Bool) -> ProgressDisplay {
        ProgressDisplay(isJSON ? .none : .auto, isJSON: isJSON)
    }

    /// Tells what is being done, on a line of its own.
    package func note(_ message: String) {
        switch style {
        case .bar:
            finishLine()
            write(Style.faint.apply("  \(message.printable)", on: terminal) + "\n")
        case .json:
            emit(Event(event: "note", message: message))
        case .auto, .none:
            break
        }
    }

    /// Begins a part of the work.
    package func begin(_ phase: String) {
        finishLine()
        self.phase = phase
        lastShown = nil
        hasShownLast = false
        if style == .json { emit(Event(event: "phase", phase: phase)) }
    }

    /// Shows how far the part has come.
    ///
    /// - Parameters:
    ///   - done: Bytes done.
    ///   - total: Bytes in all; nil when unknown.
    package func update(done: UInt64, of total: UInt64?) {
        let fraction = total.map { $0 == 0 ? 1 : min(1, Double(done) / Double($0)) }
        show(fraction: fraction, isLast: total == done) {
            let amount = ByteSize(byteCount: done).description
            return total.map { "\(amount) of \(ByteSize(byteCount: $0))" } ?? amount
        } event: {
            Event(
                event: "progress",
                phase: phase,
                percent: fraction.map { ($0 * 1000).rounded() / 10 },
                byteCount: done,
                totalByteCount: total
            )
        }
    }

    /// Shows how far the part has come, in percent.
    package func update(percent: Double) {
        show(fraction: min(1, max(0, percent / 100)), isLast: percent >= 100) {
            ""
        } event: {
            Event(event: "progress", phase: phase, percent: (percent * 10).rounded() / 10)
        }
    }

    /// Ends the display, so that other text starts on a line of its own.
    package func finishLine() {
        if hasOpenLine { write("\n") }
        hasOpenLine = false
    }

    private func show(
        fraction: Double?,
        isLast: Bool,
        detail: () -> String,
        event: () -> Event
    ) {
        let now = ContinuousClock.now
        // The last value is shown at once, and once.
        guard !isLast || !hasShownLast else { return }
        hasShownLast = isLast
        let interval = style == .json ? Self.eventInterval : Self.interval
        if let lastShown, now - lastShown < interval, !isLast { return }
        lastShown = now
        switch style {
        case .bar:
            let columnCount = terminal.columnCount ?? 80
            let line = barLine(phase, fraction: fraction, detail: detail(), columnCount)
            write("\r\(line)\u{1B}[K")
            hasOpenLine = true
        case .json:
            emit(event())
        case .auto, .none:
            break
        }
    }

    private func emit(_ event: Event) {
        guard let data = try? ControlJSON.encoder().encode(event) else { return }
        write(String(decoding: data, as: UTF8.self) + "\n")
    }
}

/// One line with a bar: `convert   [#####.....]  50%  1GiB of 2GiB`.
///
/// - Parameters:
///   - phase: What is under way.
///   - fraction: How much of it is done, 0 to 1; nil when unknown.
///   - detail: What follows the percentage.
///   - columnCount: The width that the line must fit.
/// - Returns: The line, without its end.
package func barLine(
    _ phase: String,
    fraction: Double?,
    detail: String,
    _ columnCount: Int
) -> String {
    let name = phase.padding(toLength: max(9, phase.count), withPad: " ", startingAt: 0)
    guard let fraction else { return "\(name) \(detail)".shortened(to: columnCount - 1) }
    let percent = Int(fraction * 100)
    let tail =
        String(repeating: " ", count: percent < 10 ? 2 : percent < 100 ? 1 : 0) + "\(percent)%"
    let rest = detail.isEmpty ? tail : "\(tail)  \(detail)"
    // The last column stays free: some terminals wrap when it is written.
    let width = min(40, columnCount - name.count - rest.count - 5)
    guard width >= 10 else { return "\(name) \(rest)".shortened(to: columnCount - 1) }
    let filled = Int(Double(width) * fraction)
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
    return "\(name) [\(bar)] \(rest)"
}
