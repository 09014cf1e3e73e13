import Testing
import volbench

@Suite("Histogram")
struct HistogramTests {
    @Test("every value lies in its bucket, and the bucket is narrow")
    func bucketIndex_anyValue_isWithinOnePercent() {
        var random = SplitMix64(seed: 7)
        for bits in UInt64(0)..<40 {
            for _ in 0..<200 {
                let value = (1 << bits) + random.next(below: 1 << bits)
                let index = Histogram.bucketIndex(of: value)
                let upper = Histogram.upperEdge(of: index)
                #expect(upper >= value)
                #expect(upper - value <= value / UInt64(Histogram.subBucketCount))
                if index > 0 { #expect(Histogram.upperEdge(of: index - 1) < value) }
            }
        }
    }

    @Test("bucket edges grow without gaps")
    func upperEdge_nextIndex_isNextValue() {
        var index = 0
        while Histogram.upperEdge(of: index) < 1 << 30 {
            #expect(Histogram.bucketIndex(of: Histogram.upperEdge(of: index)) == index)
            #expect(Histogram.bucketIndex(of: Histogram.upperEdge(of: index) + 1) == index + 1)
            index += 1
        }
    }

    @Test("percentiles agree with a sorted list", arguments: 1...UInt64(20))
    func percentile_random_matchesSortedList(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let histogram = Histogram()
        var values: [UInt64] = []
        for _ in 0..<Int(random.next(below: 5000) + 1) {
            let value = random.next(below: 1 << (random.next(below: 30) + 1))
            values.append(value)
            histogram.record(value)
        }
        values.sort()
        for fraction in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = max(Int((Double(values.count) * fraction).rounded(.up)), 1)
            let exact = values[rank - 1]
            let answer = histogram.percentile(fraction)
            #expect(answer >= exact && answer <= exact + exact / 128 + 1)
        }
        #expect(histogram.percentile(1) == values.last)
        #expect(histogram.minimum == values.first)
        #expect(histogram.sum == values.reduce(0, +))
    }

    @Test("merging is recording both, resetting is beginning anew")
    func merge_twoHistograms_countsBoth() {
        let (left, right, both) = (Histogram(), Histogram(), Histogram())
        var random = SplitMix64(seed: 3)
        for index in 0..<1000 {
            let value = random.next(below: 1 << 20)
            (index % 3 == 0 ? left : right).record(value)
            both.record(value)
        }
        left.merge(right)
        #expect(left.count == both.count && left.maximum == both.maximum)
        #expect(left.percentile(0.9) == both.percentile(0.9))
        left.reset()
        #expect(left.count == 0 && left.percentile(0.5) == 0)
    }

    @Test("values beyond the range are counted in the last bucket, the maximum stays exact")
    func record_hugeValue_doesNotTrap() {
        let histogram = Histogram()
        histogram.record(.max)
        #expect(histogram.maximum == .max)
        #expect(histogram.count == 1)
    }
}
