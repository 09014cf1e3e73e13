/// fio's line of semicolons per job, version 3.
///
/// Source: fio's manual, "Terse output": the order of the fields.
package enum TerseOutput {
    /// A line per result.
    package static func text(_ results: [JobResult]) -> String {
        results.map { line($0) + "\n" }.joined()
    }

    /// Percentiles of a direction in a line of version 3.
    private static var percentileCount: Int { 20 }

    private static func line(_ result: JobResult) -> String {
        let options = result.options
        var fields = [
            "3", "fio-3.33", options.name, "\(result.groupIndex)", "\(result.firstErrno)",
        ]
        fields += direction(result, .read) + direction(result, .write)
        let usage = result.usage
        let microseconds =
            max(Double(result.elapsedNanoseconds) / 1e3, 1) * Double(result.jobCount)
        for part in [usage.userMicroseconds, usage.systemMicroseconds] {
            fields.append(fixed(100 * Double(part) / microseconds, 6) + "%")
        }
        fields += ["\(usage.switchCount)", "\(usage.majorFaultCount)", "\(usage.minorFaultCount)"]
        fields += FioShares.depths(result).map { fixed($0.percent, 1) + "%" }
        let shares = FioShares.latencies(result)
        fields += (shares.microseconds + shares.milliseconds).map { fixed($0.percent, 2) + "%" }
        if !options.description.isEmpty { fields.append(options.description) }
        return fields.joined(separator: ";")
    }

    private static func direction(_ result: JobResult, _ kind: Operation.Kind) -> [String] {
        let part = result[kind]
        let seconds = result.seconds
        let curve = FioCurve(result.series.intervals, kind: Int(kind.rawValue)).bandwidth
        let hasIO = part.clat.count > 0
        var fields = [
            "\(part.byteCount >> 10)", "\(UInt64(Double(part.byteCount) / 1024 / seconds))",
            "\(UInt64(Double(part.clat.count) / seconds))",
            "\(hasIO ? result.elapsedNanoseconds / 1_000_000 : 0)",
        ]
        fields += summary(Histogram()) + summary(part.clat)
        let percentiles = result.options.percentiles ?? JobOptions.percentilesDefault
        for index in 0..<percentileCount {
            guard index < percentiles.count else {
                fields.append("0%=0")
                continue
            }
            let value = part.clat.percentile(percentiles[index] / 100) / 1000
            fields.append("\(fixed(percentiles[index], 6))%=\(value)")
        }
        fields += summary(part.lat)
        fields += ["\(UInt64(curve.least))", "\(UInt64(curve.greatest))"]
        fields += [fixed(hasIO ? 100 : 0, 6) + "%", fixed(curve.mean, 6)]
        fields.append(fixed(curve.deviation, 6))
        return fields
    }

    /// Microseconds: least, greatest, mean, deviation.
    private static func summary(_ histogram: Histogram) -> [String] {
        [
            "\(histogram.count == 0 ? 0 : histogram.minimum / 1000)",
            "\(histogram.maximum / 1000)", fixed(histogram.mean / 1e3, 6),
            fixed(histogram.deviation / 1e3, 6),
        ]
    }
}
