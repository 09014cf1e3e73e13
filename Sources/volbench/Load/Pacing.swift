package import BlockCore
internal import Glibc

/// When operations are due, where a job has a rate.
///
/// Each direction has its own schedule, which does not wait for the target: an operation that finds
/// no room is late, and its latency counts from when it was due.
package struct Pacing: Sendable {
    private enum Unit {
        case operations(PerDirection<Int>)
        case bytes(PerDirection<Int>)
    }

    private let unit: Unit
    private let isPoisson: Bool
    private var random: SplitMix64
    /// Nanoseconds since the start at which the next operation of each direction is due.
    private var due = SIMD4<Double>()
    private let start: Instant

    /// Creates the schedule of a job; nil when it has no rate.
    package init?(options: JobOptions, seed: UInt64, start: Instant) {
        if let rate = options.operationRate {
            unit = .operations(rate)
        } else if let rate = options.byteRate {
            unit = .bytes(rate)
        } else {
            return nil
        }
        isPoisson = options.hasPoissonArrivals
        random = SplitMix64(seed: SplitMix64.mix(seed ^ 0x44))
        self.start = start
    }

    /// The direction whose turn it is, in a job that reads and writes.
    package var nextKind: Operation.Kind {
        let (read, write) = (Operation.Kind.read, Operation.Kind.write)
        return due[Int(read.rawValue)] <= due[Int(write.rawValue)] ? read : write
    }

    /// When `operation` is due.
    package func due(_ operation: Operation) -> Instant {
        guard operation.kind != .flush else { return start }
        return start.advanced(byNanoseconds: UInt64(due[Int(operation.kind.rawValue)]))
    }

    /// Moves the schedule on behind `operation`.
    package mutating func advance(_ operation: Operation) {
        guard operation.kind != .flush else { return }
        let interval: Double
        switch unit {
        case .operations(let rate): interval = 1e9 / Double(rate[operation.kind])
        case .bytes(let rate):
            interval = 1e9 * Double(operation.byteCount) / Double(rate[operation.kind])
        }
        let factor = isPoisson ? -log(1 - random.nextFraction()) : 1
        due[Int(operation.kind.rawValue)] += interval * factor
    }

    /// How many more operations of this one's kind were due before `end`.
    package func lateCount(_ operation: Operation, before end: Instant) -> UInt64 {
        let elapsed = Double(end.nanoseconds &- start.nanoseconds)
        let late = elapsed - due[Int(operation.kind.rawValue)]
        guard late > 0, operation.kind != .flush else { return 0 }
        switch unit {
        case .operations(let rate): return UInt64(late * Double(rate[operation.kind]) / 1e9)
        case .bytes(let rate):
            let operations = Double(rate[operation.kind]) / Double(max(operation.byteCount, 1))
            return UInt64(late * operations / 1e9)
        }
    }
}

/// Looks for the largest depth at which latencies stay within a target.
///
/// Doubles the depth while windows keep the target, then halves the distance between the largest
/// that kept it and the smallest that did not.
package struct DepthSearch: Sendable {
    private let targetNanoseconds: UInt64
    private let windowNanoseconds: UInt64
    private let fraction: Double
    private let depthMax: Int
    private var kept = 0
    private var broken: Int
    private var windowEnd: UInt64
    private var count: UInt64 = 0
    private var lateCount: UInt64 = 0

    /// The depth to drive now.
    package private(set) var depth = 1
    /// Whether nothing is left to try.
    package private(set) var isDone = false

    /// Creates a search; nil when a job has no target.
    package init?(options: JobOptions, start: Instant) {
        guard options.latencyTargetMicroseconds > 0 else { return nil }
        targetNanoseconds = options.latencyTargetMicroseconds * 1000
        windowNanoseconds = options.latencyWindowMicroseconds * 1000
        fraction = options.latencyPercentile / 100
        depthMax = options.depth
        broken = options.depth + 1
        windowEnd = start.nanoseconds + windowNanoseconds
    }

    /// Counts an operation.
    @inline(__always)
    package mutating func record(_ latency: UInt64) {
        count += 1
        if latency > targetNanoseconds { lateCount += 1 }
    }

    /// Judges the window when it is over.
    package mutating func tick(now: Instant) {
        guard !isDone, now.nanoseconds >= windowEnd, count > 0 else { return }
        let isKept = Double(count - lateCount) >= fraction * Double(count)
        if isKept { kept = depth } else { broken = depth }
        (count, lateCount) = (0, 0)
        windowEnd = now.nanoseconds + windowNanoseconds
        guard broken - kept > 1 else {
            depth = max(kept, 1)
            isDone = true
            return
        }
        let isBounded = broken <= depthMax
        depth = isBounded ? (kept + broken) / 2 : min(depth * 2, depthMax)
    }

    /// What it came to.
    package var result: LatencyTargetResult {
        LatencyTargetResult(depth: max(kept, 1), isKept: kept > 0)
    }
}
