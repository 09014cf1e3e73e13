/// The results for people, in fio's words and order.
package enum NormalOutput {
    /// All results.
    package static func text(_ results: [JobResult]) -> String {
        results.map(job).joined(separator: "\n\n") + "\n"
    }

    private static func job(_ result: JobResult) -> String {
        let options = result.options
        var lines = [
            "\(options.name): (groupid=\(result.groupIndex), jobs=\(result.jobCount)): "
                + "err= \(result.firstErrno): rw=\(options.mode.text), iodepth=\(options.depth), "
                + result.targetText
        ]
        if !options.description.isEmpty { lines.append("  \(options.description)") }
        for kind in [Operation.Kind.read, .write, .trim] {
            lines += direction(result, kind)
        }
        let flushes = result[.flush].clat
        if flushes.count > 0 {
            lines.append("  fsync: \(grouped(Double(flushes.count))) flushes")
            lines += latency(flushes, options, name: "sync")
        }
        lines += machine(result)
        if let target = result.latencyTarget {
            let text = target.isKept ? "depth \(target.depth) keeps it" : "no depth keeps it"
            lines.append("  latency target: \(options.latencyTargetMicroseconds) µs: \(text)")
        }
        if result.unstartedCount > 0 {
            lines.append("  overload: \(result.unstartedCount) operations were due and not begun")
        }
        if result.errorCount > 0 { lines.append("  errors: \(result.errorCount)") }
        if let failure = result.failure { lines.append("  ended early: \(failure)") }
        return lines.joined(separator: "\n")
    }

    private static func direction(_ result: JobResult, _ kind: Operation.Kind) -> [String] {
        let part = result[kind]
        guard part.clat.count > 0 else { return [] }
        let rate = Double(part.clat.count) / result.seconds
        let bytes = Double(part.byteCount) / result.seconds
        let head =
            "  \(kind): IOPS=\(grouped(rate)), BW=\(fixed(bytes / 1_048_576, 1))MiB/s "
            + "(\(fixed(bytes / 1e6, 1))MB/s), "
            + "\(grouped(Double(part.clat.count))) operations in \(fixed(result.seconds, 2))s"
        var lines = [head]
        if result.isCorrected {
            lines += latency(part.lat, result.options, name: "lat (since due)")
            lines += latency(part.clat, result.options, name: "clat (since sent)")
        } else {
            lines += latency(part.clat, result.options, name: "clat")
        }
        let curve = FioCurve(result.series.intervals, kind: Int(kind.rawValue))
        if curve.operations.count > 1 {
            let points = curve.operations
            lines.append(
                "   iops        : min=\(fixed(points.least, 0)), max=\(fixed(points.greatest, 0)), "
                    + "avg=\(fixed(points.mean, 1)), stdev=\(fixed(points.deviation, 1)), "
                    + "samples=\(points.count)"
            )
        }
        return lines
    }

    private static func latency(
        _ histogram: Histogram,
        _ options: JobOptions,
        name: String
    ) -> [String] {
        let isLong = histogram.mean >= 10e6
        let (unit, divisor) = isLong ? ("msec", 1e6) : ("usec", 1e3)
        func value(_ nanoseconds: Double) -> String { fixed(nanoseconds / divisor, 1) }
        var lines = [
            "    \(name) (\(unit)): min=\(value(Double(histogram.minimum))), "
                + "max=\(value(Double(histogram.maximum))), avg=\(value(histogram.mean)), "
                + "stdev=\(value(histogram.deviation))"
        ]
        let percentiles = options.percentiles ?? JobOptions.percentilesDefault
        var line = "     |"
        for (index, percent) in percentiles.enumerated() {
            let point = value(Double(histogram.percentile(percent / 100)))
            line += " \(fixed(percent, percent < 99.99 ? 2 : 3))th=[\(point)]"
            let isLast = index == percentiles.count - 1
            if index % 4 == 3 || isLast {
                lines.append(line)
                line = "     |"
            } else {
                line += ","
            }
        }
        return lines
    }

    private static func machine(_ result: JobResult) -> [String] {
        let transfers = Double(max(result.transferCount, 1))
        let usage = result.usage
        let own = Double(usage.userMicroseconds + usage.systemMicroseconds)
        var text = "  cpu per I/O (usec): client=\(fixed(own / transfers, 2))"
        for server in result.servers {
            let cost = Double(server.nanoseconds) / 1e3 / transfers
            text += ", server \(server.pid)=\(fixed(cost, 2))"
        }
        let gap = fixed(Double(result.gapNanoseconds) / 1e6, 1)
        let at = fixed(Double(result.gapBegin) / 1e9, 2)
        let depths = FioShares.depths(result).map { "\($0.name)=\(fixed($0.percent, 1))%" }
        return [
            text, "  longest gap: \(gap) msec, at \(at) s",
            "  IO depths: " + depths.joined(separator: ", "),
        ]
    }
}
