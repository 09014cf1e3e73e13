// What standard output and standard error are: a terminal of some width, or a file or pipe.

import Foundation
import Glibc

/// One output stream and what may be written to it.
package struct Terminal: Sendable {
    /// The columns of the terminal; nil when the stream is none, then nothing is cut to fit.
    package var columnCount: Int?
    /// Whether escape sequences may be written.
    package var hasColor: Bool

    /// Creates a description; tests use it.
    package init(columnCount: Int?, hasColor: Bool) {
        self.columnCount = columnCount
        self.hasColor = hasColor
    }

    /// Finds out what file descriptor `descriptor` is.
    package init(
        descriptor: Int32,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) {
        guard isatty(descriptor) == 1 else {
            self.init(columnCount: nil, hasColor: false)
            return
        }
        var window = winsize()
        // SAFETY: TIOCGWINSZ writes one `winsize`, which outlives the call.
        let known = unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &window) == 0
        let columnCount = known && window.ws_col > 0 ? Int(window.ws_col) : 80
        // https://no-color.org: any value but the empty one switches colour off.
        let refused = !(environment["NO_COLOR"] ?? "").isEmpty
        let capable = (environment["TERM"] ?? "dumb") != "dumb"
        self.init(columnCount: columnCount, hasColor: capable && !refused)
    }

    /// Standard output.
    package static var output: Terminal { Terminal(descriptor: STDOUT_FILENO) }
    /// Standard error.
    package static var error: Terminal { Terminal(descriptor: STDERR_FILENO) }
}

/// A colour or weight of text.
package enum Style: String, Sendable {
    case bold = "1"
    case faint = "2"
    case red = "31"
    case green = "32"
    case yellow = "33"

    /// `text` in this style, or as it is when the terminal has no colours.
    package func apply(_ text: String, on terminal: Terminal) -> String {
        terminal.hasColor ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }
}

/// Who reads what is written.
package enum Reader: Sendable {
    /// A person, who may have seen enough.
    case person
    /// A program, for which half a document is none.
    case program
}

/// Writes all of `text` to `descriptor`.
///
/// What cannot be written to standard output ends the program with a failure, so that nobody takes
/// a part for the whole. A closed pipe ends text for people quietly, as `head` expects.
package func writeText(_ text: String, to descriptor: Int32, for reader: Reader = .person) {
    var remaining = Array(text.utf8)[...]
    while !remaining.isEmpty {
        // SAFETY: the pointer and count are those of one live buffer.
        let count = unsafe remaining.withUnsafeBytes { bytes in
            unsafe write(descriptor, bytes.baseAddress, bytes.count)
        }
        if count < 0 {
            let code = errno
            if code == EINTR { continue }
            guard descriptor == STDOUT_FILENO else { return }
            if code == EPIPE, reader == .person { exit(0) }
            let reason = systemErrorText(code)
            let line =
                "\(programName): Standard output cannot be written: \(reason). "
                + "What is there is cut off.\n"
            writeText(line, to: STDERR_FILENO)
            exit(ProgramExit.failure)
        }
        remaining = remaining.dropFirst(count)
    }
}

/// The name that the program was called by.
private var programName: String {
    CommandLine.arguments.first.map(FilePath.name) ?? "cairn"
}
