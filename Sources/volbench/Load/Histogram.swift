internal import BlockCore

/// A latency histogram of fixed memory and bounded relative error.
///
/// Log-linear, as HdrHistogram: each power of two is cut into ``subBucketCount`` equal parts, so
/// a value is off by at most 1/``subBucketCount`` of itself (0.8 %), whatever its magnitude.
/// Recording is two shifts and an add. One thread owns it; threads merge theirs at the end.
package final class Histogram {
    /// Parts per power of two, in bits: 7 keeps the error below one percent in 36 KiB.
    package static var subBucketBits: Int { 7 }
    /// Parts per power of two.
    package static var subBucketCount: Int { 1 << subBucketBits }
    /// Values from 2^40 ns (18 minutes) on share the last bucket; no run lasts longer.
    package static var valueBitsMax: Int { 40 }

    /// The number of values recorded.
    package private(set) var count: UInt64 = 0
    /// The largest value recorded, exact.
    package private(set) var maximum: UInt64 = 0
    /// The smallest value recorded, exact; `UInt64.max` while empty.
    package private(set) var minimum: UInt64 = .max
    /// The sum of all values, for the mean.
    package private(set) var sum: UInt64 = 0

    /// The sum of all values' squares, for the standard deviation.
    package private(set) var squareSum: Double = 0

    private let buckets: FixedArray<UInt64>

    /// Creates an empty histogram.
    package init() {
        let ranges = Histogram.valueBitsMax - Histogram.subBucketBits + 1
        buckets = FixedArray(repeating: 0, count: ranges * Histogram.subBucketCount)
    }

    /// Counts `value`.
    package func record(_ value: UInt64) {
        buckets[Histogram.bucketIndex(of: value)] &+= 1
        count &+= 1
        sum &+= value
        squareSum += Double(value) * Double(value)
        if value > maximum { maximum = value }
        if value < minimum { minimum = value }
    }

    /// Forgets everything, for the end of a ramp.
    package func reset() {
        for index in 0..<buckets.count { buckets[index] = 0 }
        (count, maximum, minimum, sum, squareSum) = (0, 0, .max, 0, 0)
    }

    /// Adds all of `other`'s values.
    package func merge(_ other: Histogram) {
        for index in 0..<buckets.count { buckets[index] &+= other.buckets[index] }
        count &+= other.count
        sum &+= other.sum
        squareSum += other.squareSum
        maximum = max(maximum, other.maximum)
        minimum = min(minimum, other.minimum)
    }

    /// The value that `fraction` of all values do not exceed, or 0 while empty.
    ///
    /// Reported as the upper edge of its bucket, never above the exact maximum: a latency is
    /// overstated by under one percent and never understated.
    ///
    /// - Precondition: `fraction` lies in `0 ... 1`.
    package func percentile(_ fraction: Double) -> UInt64 {
        precondition(fraction >= 0 && fraction <= 1, "a percentile is a fraction")
        guard count > 0 else { return 0 }
        let rank = UInt64((Double(count) * fraction).rounded(.up)).clamped(to: 1...count)
        var seen: UInt64 = 0
        for index in 0..<buckets.count {
            seen += buckets[index]
            if seen >= rank { return min(Histogram.upperEdge(of: index), maximum) }
        }
        return maximum
    }

    /// The mean, or 0 while empty.
    package var mean: Double { count == 0 ? 0 : Double(sum) / Double(count) }

    /// The standard deviation, or 0 while empty.
    package var deviation: Double {
        guard count > 0 else { return 0 }
        return max(0, squareSum / Double(count) - mean * mean).squareRoot()
    }

    /// Buckets that counted something: the largest value of each, and its count.
    package var bins: [(upperEdge: UInt64, count: UInt64)] {
        (0..<buckets.count).compactMap { index in
            buckets[index] > 0 ? (Histogram.upperEdge(of: index), buckets[index]) : nil
        }
    }

    // MARK: - Buckets

    /// The bucket that counts `value`.
    ///
    /// Values below 2^``subBucketBits`` have a bucket each; above, the leading one selects the
    /// range and the next ``subBucketBits`` bits the part of it.
    package static func bucketIndex(of value: UInt64) -> Int {
        let capped = min(value, (1 << UInt64(valueBitsMax)) - 1)
        let bits = UInt64.bitWidth - capped.leadingZeroBitCount
        guard bits > subBucketBits else { return Int(capped) }
        let shift = bits - subBucketBits - 1
        let part = Int(capped >> UInt64(shift)) - subBucketCount
        return (shift + 1) * subBucketCount + part
    }

    /// The largest value that bucket `index` counts.
    package static func upperEdge(of index: Int) -> UInt64 {
        guard index >= subBucketCount else { return UInt64(index) }
        let shift = index / subBucketCount - 1
        let part = index % subBucketCount
        return (UInt64(subBucketCount + part + 1) << UInt64(shift)) - 1
    }
}

extension Comparable {
    /// The value, or the nearer end of `range`.
    func clamped(to range: ClosedRange<Self>) -> Self {
        min(max(self, range.lowerBound), range.upperBound)
    }
}
