/// The logs that a job writes while it runs, in fio's format: `ms, value, direction, size, 0`.
///
/// Lines are gathered and written in bulk, so that what was measured before a crash is there.
/// One thread owns it; a log that cannot be written is reported at the end and ends no job.
package final class JobLogs {
    private let bandwidth: OutputFile?
    private let operations: OutputFile?
    private let latency: OutputFile?
    /// Whether latencies are logged one by one.
    private let logsEachLatency: Bool
    private var text = ""
    private var lineCount = 0
    private var failure: String?

    /// Opens a job's logs; nil when it has none.
    ///
    /// - Throws: ``BenchError`` when a file cannot be made.
    package init?(options: JobOptions, number: Int) throws(BenchError) {
        func file(_ prefix: String?, _ kind: String) throws(BenchError) -> OutputFile? {
            guard let prefix else { return nil }
            let stem = prefix == "1" ? options.name : prefix
            return try OutputFile(path: "\(stem)_\(kind).\(number).log")
        }
        bandwidth = try file(options.bandwidthLog, "bw")
        operations = try file(options.operationsLog, "iops")
        latency = try file(options.latencyLog, "clat")
        logsEachLatency = options.latencyLog != nil && options.logMilliseconds == nil
        if bandwidth == nil, operations == nil, latency == nil { return nil }
        if logsEachLatency { text.reserveCapacity(JobLimits.logLineCountMax * 32) }
    }

    /// Logs one operation's latency, where that is wished.
    @inline(__always)
    package func add(_ nanoseconds: UInt64, _ operation: Operation, milliseconds: UInt64) {
        guard logsEachLatency, operation.kind != .flush else { return }
        line(milliseconds, nanoseconds, Int(operation.kind.rawValue), operation.byteCount)
    }

    private func line(_ milliseconds: UInt64, _ value: UInt64, _ kind: Int, _ byteCount: Int) {
        text += "\(milliseconds), \(value), \(kind), \(byteCount), 0\n"
        lineCount += 1
        if lineCount >= JobLimits.logLineCountMax { flush(to: latency) }
    }

    private func flush(to file: OutputFile?) {
        if let file, !text.isEmpty {
            do throws(BenchError) {
                try file.write(text)
            } catch {
                failure = failure ?? error.message
            }
        }
        text.removeAll(keepingCapacity: true)
        lineCount = 0
    }

    /// Logs the averages of an interval.
    package func end(_ interval: Interval) {
        if logsEachLatency { flush(to: latency) }
        let seconds = Double(interval.nanoseconds) / 1e9
        // Bandwidths are in KiB per second.
        let curves = [
            (bandwidth, interval.byteCounts, 1024.0), (operations, interval.counts, 1.0),
        ]
        for (file, values, divisor) in curves {
            guard let file else { continue }
            for kind in 0..<3 where interval.counts[kind] > 0 {
                let value = UInt64(Double(values[kind]) / divisor / seconds)
                line(interval.endMilliseconds, value, kind, 0)
            }
            flush(to: file)
        }
        guard let latency, !logsEachLatency else { return }
        for kind in 0..<3 where interval.counts[kind] > 0 {
            let mean = interval.latencySums[kind] / interval.counts[kind]
            line(interval.endMilliseconds, mean, kind, 0)
        }
        flush(to: latency)
    }

    /// Ends all logs.
    ///
    /// - Returns: What went wrong with them, if anything.
    package func close() -> String? {
        if logsEachLatency { flush(to: latency) }
        for file in [bandwidth, operations, latency] { file?.close() }
        return failure
    }
}
