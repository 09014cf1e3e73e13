/// What happened in a stretch of a job: a point of its curves over time.
package struct Interval: Sendable, Equatable {
    /// Its end, in milliseconds since the job began to count.
    package var endMilliseconds: UInt64 = 0
    /// Its length, in nanoseconds.
    package var nanoseconds: UInt64 = 0
    /// Operations that ended in it: reads, writes, trims.
    package var counts = SIMD4<UInt64>()
    /// Bytes that they moved.
    package var byteCounts = SIMD4<UInt64>()
    /// The sum of their latencies, in nanoseconds.
    package var latencySums = SIMD4<UInt64>()
    /// The longest latency, in nanoseconds.
    package var latencyMax: UInt64 = 0

    /// Creates an empty interval.
    package init() {}

    /// Operations of all kinds per second.
    package var rate: Double {
        nanoseconds == 0 ? 0 : Double(counts.wrappedSum()) * 1e9 / Double(nanoseconds)
    }

    /// Puts the interval that follows behind this one.
    mutating func append(_ next: Interval) {
        endMilliseconds = next.endMilliseconds
        nanoseconds += next.nanoseconds
        counts &+= next.counts
        byteCounts &+= next.byteCounts
        latencySums &+= next.latencySums
        latencyMax = max(latencyMax, next.latencyMax)
    }
}

/// The intervals of a job: when there are too many, each two become one.
package struct IntervalSeries: Sendable {
    /// Intervals kept at most: twenty minutes of halves of a second, then of seconds, and so on.
    package static var countMax: Int { 2400 }

    /// The intervals so far.
    package internal(set) var intervals: [Interval] = []
    /// How many that were appended make one that is kept.
    private var mergeCount = 1
    private var pendingCount = 0
    private var pending = Interval()

    /// Creates an empty series; its memory is taken now.
    package init() { intervals.reserveCapacity(IntervalSeries.countMax + 1) }

    /// Adds the next interval.
    package mutating func append(_ interval: Interval) {
        pending.append(interval)
        pendingCount += 1
        guard pendingCount >= mergeCount else { return }
        intervals.append(pending)
        (pending, pendingCount) = (Interval(), 0)
        guard intervals.count >= IntervalSeries.countMax else { return }
        for index in 0..<intervals.count / 2 {
            var both = intervals[2 * index]
            both.append(intervals[2 * index + 1])
            intervals[index] = both
        }
        intervals.removeLast(intervals.count - intervals.count / 2)
        mergeCount *= 2
    }

    /// Puts what was not a whole interval at the end, and begins nothing more.
    package mutating func finish() {
        if pendingCount > 0 { intervals.append(pending) }
        (pending, pendingCount) = (Interval(), 0)
    }

    /// Forgets everything.
    package mutating func reset() {
        intervals.removeAll(keepingCapacity: true)
        (pending, pendingCount, mergeCount) = (Interval(), 0, 1)
    }
}
