/// What a run showed, for people and for programs.
package struct Report {
    private let options: Options
    private let measurement: Measurement

    /// Creates the report of a run.
    package init(options: Options, measurement: Measurement) {
        self.options = options
        self.measurement = measurement
    }

    private var seconds: Double { Double(measurement.elapsedNanoseconds) / 1e9 }
    private var operationsPerSecond: Double { Double(measurement.transferCount) / seconds }
    private var bytesPerSecond: Double { Double(measurement.byteCount) / seconds }

    /// `nanoseconds` of CPU, as microseconds per read or write.
    private func perOperation(_ nanoseconds: UInt64) -> Double {
        measurement.transferCount == 0
            ? 0 : Double(nanoseconds) / 1e3 / Double(measurement.transferCount)
    }

    private static let percentiles: [(name: String, fraction: Double)] = [
        ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999),
    ]

    // MARK: - Text

    /// The report as a few lines of text.
    package func text() -> String {
        var lines: [String] = []
        let rate = "\(fixed(operationsPerSecond, 0)) IOPS, \(fixed(bytesPerSecond / 1e6, 1)) MB/s"
        lines.append("\(rate), \(measurement.transferCount) operations in \(fixed(seconds, 2)) s")
        for kind in Operation.Kind.allCases {
            let histogram = measurement.latency(kind)
            guard histogram.count > 0 else { continue }
            let points = Report.percentiles.map { point in
                "\(point.name) \(microseconds(histogram.percentile(point.fraction)))"
            }
            let all = points + ["max \(microseconds(histogram.maximum))"]
            lines.append("\(kind) latency µs: \(all.joined(separator: "  "))")
        }
        lines.append(
            "CPU µs per operation: client \(fixed(perOperation(measurement.ownCPUNanoseconds), 2))"
                + measurement.serverCPUNanoseconds.map { server in
                    ", server \(server.pid): \(fixed(perOperation(server.nanoseconds), 2))"
                }.joined()
        )
        if measurement.errorCount > 0 {
            lines.append(
                "ERRORS: \(measurement.errorCount), the first with errno \(measurement.firstErrno)"
            )
        }
        if measurement.unstartedCount > 0 {
            lines.append("OVERLOAD: \(measurement.unstartedCount) operations never began in time")
        }
        return lines.joined(separator: "\n")
    }

    private func microseconds(_ nanoseconds: UInt64) -> String {
        fixed(Double(nanoseconds) / 1e3, nanoseconds < 100_000 ? 1 : 0)
    }

    // MARK: - JSON

    /// The report as one JSON document.
    ///
    /// Names carry their unit; times are nanoseconds, CPU is microseconds per read or write.
    package func json() -> String {
        let servers = measurement.serverCPUNanoseconds
        let total = servers.reduce(0) { $0 + $1.nanoseconds }
        let fields: [(String, JSONValue)] = [
            ("iops", .number(operationsPerSecond)),
            ("bytesPerSecond", .number(bytesPerSecond)),
            ("operationCount", .integer(measurement.transferCount)),
            ("flushCount", .integer(measurement.latency(.flush).count)),
            ("errorCount", .integer(measurement.errorCount)),
            ("firstErrno", .integer(UInt64(max(measurement.firstErrno, 0)))),
            ("unstartedCount", .integer(measurement.unstartedCount)),
            ("elapsedSeconds", .number(seconds)),
            (
                "clientCPUMicrosecondsPerOperation",
                .number(perOperation(measurement.ownCPUNanoseconds))
            ),
            ("serverCPUMicrosecondsPerOperation", .number(perOperation(total))),
            ("latencyNanoseconds", .object(Operation.Kind.allCases.compactMap(latencyField))),
            ("blockByteCount", .integer(UInt64(options.workload.blockByteCount))),
            ("depth", .integer(UInt64(options.depth))),
            ("connectionCount", .integer(UInt64(options.connectionCount))),
            ("readPercent", .integer(UInt64(options.workload.readPercent))),
            ("isRandom", .boolean(options.workload.order == .random)),
            ("forceUnitAccess", .boolean(options.workload.forceUnitAccess)),
            ("flushInterval", .integer(UInt64(options.workload.flushInterval))),
            ("seed", .integer(options.workload.seed)),
        ]
        return JSONValue.object(fields).text
    }

    private func latencyField(_ kind: Operation.Kind) -> (String, JSONValue)? {
        let histogram = measurement.latency(kind)
        guard histogram.count > 0 else { return nil }
        var fields = Report.percentiles.map { point in
            (point.name, JSONValue.integer(histogram.percentile(point.fraction)))
        }
        fields.append(("min", .integer(histogram.minimum)))
        fields.append(("mean", .number(histogram.mean)))
        fields.append(("max", .integer(histogram.maximum)))
        fields.append(("count", .integer(histogram.count)))
        return ("\(kind)", .object(fields))
    }
}

/// The JSON values that a report is made of; no strings, so nothing needs escaping but names.
enum JSONValue {
    case integer(UInt64)
    case number(Double)
    case boolean(Bool)
    case object([(String, JSONValue)])

    /// The value as JSON text.
    var text: String {
        switch self {
        case .integer(let value): "\(value)"
        case .number(let value): fixed(value, 3)
        case .boolean(let value): "\(value)"
        case .object(let fields):
            "{" + fields.map { "\"\($0.0)\": \($0.1.text)" }.joined(separator: ", ") + "}"
        }
    }
}

/// `value` with `digitCount` decimals, without a formatting library.
func fixed(_ value: Double, _ digitCount: Int) -> String {
    guard value.isFinite, value.magnitude < 1e15 else { return "0" }
    var scale = 1.0
    for _ in 0..<digitCount { scale *= 10 }
    let scaled = UInt64((value.magnitude * scale).rounded())
    let whole = scaled / UInt64(scale)
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard digitCount > 0 else { return "\(sign)\(whole)" }
    let digits = String(scaled % UInt64(scale))
    return "\(sign)\(whole)." + String(repeating: "0", count: digitCount - digits.count) + digits
}
