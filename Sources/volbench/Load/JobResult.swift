/// What a job did in one direction.
package struct DirectionResult {
    /// Latencies from when operations were sent.
    package var clat = Histogram()
    /// Latencies from when they should have been sent; the same as ``clat`` without a rate.
    package var lat: Histogram
    /// Bytes moved.
    package var byteCount: UInt64 = 0

    /// Creates an empty result.
    ///
    /// - Parameter isCorrected: Whether a rate is set, so that ``lat`` is counted for itself.
    package init(isCorrected: Bool) { lat = isCorrected ? Histogram() : clat }

    /// Adds another job's.
    package mutating func merge(_ other: DirectionResult) {
        let isOne = lat === clat
        clat.merge(other.clat)
        if !isOne { lat.merge(other.lat) }
        byteCount += other.byteCount
    }

    func reset() {
        clat.reset()
        lat.reset()
    }
}

/// A server process's CPU at the beginning and end of what was counted.
package struct ServerCost: Sendable, Equatable {
    /// The process.
    package var pid: Int32
    /// When it was first looked at, and its CPU then, in nanoseconds.
    package var first: (instant: UInt64, cpu: UInt64)
    /// When it was last looked at, and its CPU then, in nanoseconds.
    package var last: (instant: UInt64, cpu: UInt64)

    /// CPU used in between, in nanoseconds.
    package var nanoseconds: UInt64 { last.cpu - first.cpu }

    package static func == (left: ServerCost, right: ServerCost) -> Bool {
        left.pid == right.pid && left.first == right.first && left.last == right.last
    }
}

/// What a depth that keeps a latency turned out to be.
package struct LatencyTargetResult: Sendable, Equatable {
    /// The depth.
    package var depth: Int
    /// Whether any depth keeps it.
    package var isKept: Bool
}

/// What a job did.
///
/// A class of its own thread until the job ends; afterwards nobody changes it but ``merge(_:)``.
package final class JobResult: @unchecked Sendable {
    // SAFETY (Sendable): written by the job's thread; read by others after they joined it.

    /// The job.
    package let options: JobOptions
    /// Which group it reports to, counted from 0.
    package var groupIndex = 0
    /// How many jobs are in it.
    package var jobCount = 1
    /// By `Operation.Kind.rawValue`.
    package var directions: [DirectionResult]
    /// Operations that failed.
    package var errorCount: UInt64 = 0
    /// The errno of the first failure; 0 without.
    package var firstErrno: Int32 = 0
    /// Why the job ended before its time, in a line.
    package var failure: String?
    /// How long was counted, in nanoseconds.
    package var elapsedNanoseconds: UInt64 = 0
    /// What the job's thread cost.
    package var usage = ThreadUsage()
    /// Operations by how many were in flight when they began: the powers of two from 1 to 64.
    package var depthCounts = [UInt64](repeating: 0, count: 7)
    /// The longest time without a completion while some were awaited, in nanoseconds.
    package var gapNanoseconds: UInt64 = 0
    /// When it began, in nanoseconds since counting began.
    package var gapBegin: UInt64 = 0
    /// Due operations that were not begun when the job ended.
    package var unstartedCount: UInt64 = 0
    /// Curves over time.
    package var series = IntervalSeries()
    /// What the servers cost meanwhile.
    package var servers: [ServerCost] = []
    /// What `latency_target` came to.
    package var latencyTarget: LatencyTargetResult?
    /// Where the engine connected to, for people.
    package var targetText = ""

    /// Creates an empty result.
    package init(options: JobOptions) {
        self.options = options
        let isCorrected = options.byteRate != nil || options.operationRate != nil
        directions = Operation.Kind.allCases.map { _ in DirectionResult(isCorrected: isCorrected) }
    }

    /// The result of `kind`.
    package subscript(kind: Operation.Kind) -> DirectionResult { directions[Int(kind.rawValue)] }

    /// Whether latencies are corrected for coordinated omission.
    package var isCorrected: Bool { self[.read].lat !== self[.read].clat }

    /// Reads, writes and trims; flushes are accounted to the writes they follow.
    package var transferCount: UInt64 {
        self[.read].clat.count + self[.write].clat.count + self[.trim].clat.count
    }

    /// Bytes read, written and trimmed.
    package var byteCount: UInt64 { directions.reduce(0) { $0 + $1.byteCount } }

    /// Seconds counted; never 0, so that rates are finite.
    package var seconds: Double { Double(max(elapsedNanoseconds, 1)) / 1e9 }

    /// Reads, writes and trims per second.
    package var rate: Double { Double(transferCount) / seconds }

    /// Latencies of all kinds of transfers together, corrected where there is a rate.
    package var latencies: Histogram {
        let all = Histogram()
        for kind in [Operation.Kind.read, .write, .trim] { all.merge(self[kind].lat) }
        return all
    }

    /// Forgets what was counted in a ramp.
    func resetCounts() {
        for index in directions.indices {
            directions[index].reset()
            directions[index].byteCount = 0
        }
        (errorCount, firstErrno, gapNanoseconds, gapBegin, unstartedCount) = (0, 0, 0, 0, 0)
        for index in depthCounts.indices { depthCounts[index] = 0 }
        series.reset()
    }

    /// Adds a job that ran at the same time.
    package func merge(_ other: JobResult) {
        jobCount += other.jobCount
        for index in directions.indices { directions[index].merge(other.directions[index]) }
        errorCount += other.errorCount
        if firstErrno == 0 { firstErrno = other.firstErrno }
        failure = failure ?? other.failure
        elapsedNanoseconds = max(elapsedNanoseconds, other.elapsedNanoseconds)
        usage = usage + other.usage
        for index in depthCounts.indices { depthCounts[index] += other.depthCounts[index] }
        if other.gapNanoseconds > gapNanoseconds {
            (gapNanoseconds, gapBegin) = (other.gapNanoseconds, other.gapBegin)
        }
        unstartedCount += other.unstartedCount
        series.merge(other.series)
        for cost in other.servers { include(cost) }
        if targetText != other.targetText { targetText += " " + other.targetText }
    }

    /// Widens a server's span by another job's look at it.
    private func include(_ cost: ServerCost) {
        guard let index = servers.firstIndex(where: { $0.pid == cost.pid }) else {
            servers.append(cost)
            return
        }
        if cost.first.instant < servers[index].first.instant { servers[index].first = cost.first }
        if cost.last.instant > servers[index].last.instant { servers[index].last = cost.last }
    }
}

extension IntervalSeries {
    /// Adds a series of the same time, interval by interval.
    package mutating func merge(_ other: IntervalSeries) {
        var merged = intervals
        for (index, interval) in other.intervals.enumerated() {
            guard index < merged.count else {
                merged.append(interval)
                continue
            }
            merged[index].counts &+= interval.counts
            merged[index].byteCounts &+= interval.byteCounts
            merged[index].latencySums &+= interval.latencySums
            merged[index].latencyMax = max(merged[index].latencyMax, interval.latencyMax)
            // The last intervals are as long as what was left of each job.
            merged[index].nanoseconds = max(merged[index].nanoseconds, interval.nanoseconds)
            merged[index].endMilliseconds = max(
                merged[index].endMilliseconds,
                interval.endMilliseconds
            )
        }
        intervals = merged
    }
}
