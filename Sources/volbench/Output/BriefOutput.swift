/// One short JSON document for all jobs of a run together.
///
/// Names carry their unit; times are nanoseconds, CPU is microseconds per read, write or trim.
package enum BriefOutput {
    private static let points: [(name: String, fraction: Double)] = [
        ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999),
        ("p99.999", 0.99999),
    ]

    /// The document.
    package static func text(_ results: [JobResult]) -> String {
        let whole = JobResult(options: results[0].options)
        whole.jobCount = 0
        for result in results { whole.merge(result) }
        let options = whole.options
        let transfers = Double(max(whole.transferCount, 1))
        let own = whole.usage.userMicroseconds + whole.usage.systemMicroseconds
        let servers = whole.servers.reduce(0) { $0 + $1.nanoseconds }
        var fields: [(String, JSONValue)] = [
            ("iops", .number(whole.rate, 3)),
            ("bytesPerSecond", .number(Double(whole.byteCount) / whole.seconds, 3)),
            ("operationCount", .integer(whole.transferCount)),
            ("flushCount", .integer(whole[.flush].clat.count)),
            ("errorCount", .integer(whole.errorCount)),
            ("firstErrno", .integer(UInt64(max(whole.firstErrno, 0)))),
            ("unstartedCount", .integer(whole.unstartedCount)),
            ("elapsedSeconds", .number(whole.seconds, 3)),
            ("longestGapNanoseconds", .integer(whole.gapNanoseconds)),
            ("clientCPUMicrosecondsPerOperation", .number(Double(own) / transfers, 3)),
            ("serverCPUMicrosecondsPerOperation", .number(Double(servers) / 1e3 / transfers, 3)),
            (
                "latencyNanoseconds",
                .object(Operation.Kind.allCases.compactMap { latency($0, whole[$0].lat) })
            ),
            ("blockByteCount", .integer(UInt64(options.blockByteCountMax))),
            ("depth", .integer(UInt64(options.depth))),
            ("jobCount", .integer(UInt64(whole.jobCount))),
            ("connectionCount", .integer(UInt64(options.connectionCount))),
            ("rw", .string(options.mode.text)),
            ("seed", .integer(options.seed)),
        ]
        if let failure = whole.failure { fields.append(("failure", .string(failure))) }
        return JSONValue.object(fields).text + "\n"
    }

    private static func latency(
        _ kind: Operation.Kind,
        _ histogram: Histogram
    ) -> (String, JSONValue)? {
        guard histogram.count > 0 else { return nil }
        var fields = points.map { point in
            (point.name, JSONValue.integer(histogram.percentile(point.fraction)))
        }
        fields.append(("min", .integer(histogram.minimum)))
        fields.append(("mean", .number(histogram.mean, 3)))
        fields.append(("max", .integer(histogram.maximum)))
        fields.append(("count", .integer(histogram.count)))
        return ("\(kind)", .object(fields))
    }
}
