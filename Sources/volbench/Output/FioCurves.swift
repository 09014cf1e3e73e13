/// Least, greatest, mean and deviation of a curve's points.
package struct CurveSummary: Sendable {
    package var least = 0.0
    package var greatest = 0.0
    package var mean = 0.0
    package var deviation = 0.0
    package var count = 0

    /// Summarises points.
    package init(_ points: [Double]) {
        guard let first = points.first else { return }
        count = points.count
        least = points.reduce(first, min)
        greatest = points.reduce(first, max)
        mean = points.reduce(0, +) / Double(count)
        let squares = points.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        deviation = (squares / Double(count)).squareRoot()
    }
}

/// A direction's bandwidth (KiB/s) and operations per second over time.
struct FioCurve {
    let bandwidth: CurveSummary
    let operations: CurveSummary

    init(_ intervals: [Interval], kind: Int) {
        let used = intervals.filter { $0.nanoseconds > 0 && $0.counts[kind] > 0 }
        bandwidth = CurveSummary(
            used.map { Double($0.byteCounts[kind]) / 1024 * 1e9 / Double($0.nanoseconds) }
        )
        operations = CurveSummary(
            used.map { Double($0.counts[kind]) * 1e9 / Double($0.nanoseconds) }
        )
    }
}

/// Shares of all operations: by depth, by latency.
enum FioShares {
    typealias Share = (name: String, percent: Double)

    static func depths(_ result: JobResult) -> [Share] {
        let total = result.depthCounts.reduce(0, +)
        return zip(["1", "2", "4", "8", "16", "32", ">=64"], result.depthCounts).map {
            ($0, total == 0 ? 0 : 100 * Double($1) / Double(total))
        }
    }

    /// The limits of fio's buckets.
    private static let limits: [UInt64] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000]

    static func latencies(
        _ result: JobResult
    ) -> (nanoseconds: [Share], microseconds: [Share], milliseconds: [Share]) {
        let histogram = result.latencies
        let total = Double(max(histogram.count, 1))
        let bins = histogram.bins
        func share(_ low: UInt64, _ high: UInt64) -> Double {
            let count = bins.reduce(0) {
                $1.upperEdge > low && $1.upperEdge <= high ? $0 + $1.count : $0
            }
            return 100 * Double(count) / total
        }
        func shares(_ unit: UInt64) -> [Share] {
            var low = unit == 1 ? 0 : unit
            return limits.map { limit in
                defer { low = limit * unit }
                return ("\(limit)", share(low, limit * unit))
            }
        }
        var milliseconds = shares(1_000_000)
        milliseconds.append(("2000", share(1_000_000_000, 2_000_000_000)))
        milliseconds.append((">=2000", share(2_000_000_000, .max)))
        return (shares(1), shares(1000), milliseconds)
    }
}
