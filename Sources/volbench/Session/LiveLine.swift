internal import BlockCore
internal import Synchronization

/// One line on standard error that is written over while jobs run.
package final class LiveLine {
    private let output = OutputFile.standardError
    private var lastNanoseconds: UInt64
    private var lastOperations: UInt64 = 0
    private var lastBytes: UInt64 = 0
    private let start: UInt64
    private var isShown = false

    /// How often the line changes.
    private static var intervalNanoseconds: UInt64 { 500_000_000 }

    /// Creates a line where one is wished.
    package init?(_ display: LiveDisplay) {
        guard display == .always || display == .auto && OutputFile.standardError.isTerminal else {
            return nil
        }
        start = Clock.now().nanoseconds
        lastNanoseconds = start
    }

    /// Shows where the jobs are, if it is time.
    package func show(_ jobs: [JobProgress]) {
        let now = Clock.now().nanoseconds
        guard now - lastNanoseconds >= LiveLine.intervalNanoseconds else { return }
        let operations = jobs.reduce(0) { $0 + $1.operationCount.load(ordering: .relaxed) }
        let bytes = jobs.reduce(0) { $0 + $1.byteCount.load(ordering: .relaxed) }
        let p99 = jobs.map { $0.p99Nanoseconds.load(ordering: .relaxed) }.max() ?? 0
        let done = jobs.map { $0.donePart.load(ordering: .relaxed) }.min() ?? 0
        let seconds = Double(now - lastNanoseconds) / 1e9
        let line = LiveLine.text(
            fraction: Double(done) / Double(JobProgress.whole),
            rate: Double(operations - min(lastOperations, operations)) / seconds,
            bytesPerSecond: Double(bytes - min(lastBytes, bytes)) / seconds,
            p99Nanoseconds: p99,
            elapsedSeconds: Double(now - start) / 1e9
        )
        (lastNanoseconds, lastOperations, lastBytes) = (now, operations, bytes)
        try? output.write("\r\u{1B}[K" + line)
        isShown = true
    }

    /// The line: `[ 42%] 101,000 IOPS, 395 MiB/s, p99 412 µs, 6 s to go`.
    package static func text(
        fraction: Double,
        rate: Double,
        bytesPerSecond: Double,
        p99Nanoseconds: UInt64,
        elapsedSeconds: Double
    ) -> String {
        var line = "[\(fixed(fraction * 100, 0))%] \(grouped(rate)) IOPS, "
        line += "\(fixed(bytesPerSecond / 1_048_576, 1)) MiB/s, "
        line += "p99 \(fixed(Double(p99Nanoseconds) / 1e3, 0)) µs"
        guard fraction > 0 else { return line }
        let rest = elapsedSeconds / fraction - elapsedSeconds
        return line + ", \(fixed(rest.rounded(.up), 0)) s to go"
    }

    /// Takes the line away.
    package func clear() {
        if isShown { try? output.write("\r\u{1B}[K") }
        isShown = false
    }
}
