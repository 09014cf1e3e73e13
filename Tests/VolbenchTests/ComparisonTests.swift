import Testing
import volbench

@Suite("Comparison")
struct ComparisonTests {
    /// Counts by trying all ways to choose which of the figures are the left ones.
    private func slowProbability(_ left: [Double], _ right: [Double]) -> Double {
        func wins(_ left: [Double], _ right: [Double]) -> Double {
            left.reduce(0) { sum, value in
                sum + right.reduce(0) { $0 + (value > $1 ? 1 : value == $1 ? 0.5 : 0) }
            }
        }
        let all = left + right
        let pairs = Double(left.count * right.count)
        let observed = min(wins(left, right), pairs - wins(left, right)).rounded(.up)
        var (extreme, total) = (0.0, 0.0)
        for mask in 0..<(1 << all.count) where mask.nonzeroBitCount == left.count {
            // Ranks, so that ties of the figures do not matter: the exact test knows none.
            let chosen = all.indices.filter { mask >> $0 & 1 == 1 }.map(Double.init)
            let others = all.indices.filter { mask >> $0 & 1 == 0 }.map(Double.init)
            total += 1
            if wins(chosen, others) <= observed { extreme += 1 }
        }
        return min(1, 2 * extreme / total)
    }

    @Test("the exact rank test is the count of all arrangements", arguments: 1...UInt64(30))
    func probability_isExact(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        func draw() -> [Double] {
            (0..<Int(random.next(below: 5) + 2)).map { _ in Double(random.next(below: 30)) }
        }
        let (left, right) = (draw(), draw())
        let fast = RankTest.probability(left, right)
        #expect(abs(fast - slowProbability(left, right)) < 1e-9)
        #expect(abs(fast - RankTest.probability(right, left)) < 1e-9)
    }

    @Test("values of printed tables")
    func probability_knownValues() {
        let low = [1.0, 2, 3, 4, 5]
        let high = [6.0, 7, 8, 9, 10]
        #expect(abs(RankTest.probability(low, high) - 2.0 / 252) < 1e-12)
        #expect(abs(RankTest.probability([1, 2, 3], [4, 5, 6]) - 0.1) < 1e-12)
        #expect(RankTest.probability([1, 2], [1, 2]) == 1)
        // The normal approximation beyond: the same figures, and figures far apart.
        let many = (0..<25).map(Double.init)
        #expect(RankTest.probability(many, many) > 0.99)
        #expect(RankTest.probability(many, many.map { $0 + 100 }) < 1e-6)
        #expect(RankTest.probability(many, many.map { _ in 7 }) <= 1)
    }

    @Test("samples of one distribution are called different as rarely as promised")
    func verdict_noise_isSeldomAWinner() {
        var random = SplitMix64(seed: 5)
        var winners = 0
        for _ in 0..<500 {
            let workload = workload(
                (0..<5).map { _ in Double(900 + random.next(below: 200)) },
                (0..<5).map { _ in Double(900 + random.next(below: 200)) }
            )
            if workload.verdict(of: 1) != .noDifference { winners += 1 }
        }
        #expect(winners <= 25)
    }

    private func workload(_ base: [Double], _ other: [Double]) -> WorkloadComparison {
        func samples(_ rates: [Double]) -> [Sample] {
            rates.enumerated().map { round, rate in
                let result = JobResult(options: JobOptions())
                for _ in 0..<Int(rate) { result.directions[0].clat.record(1000) }
                result.elapsedNanoseconds = 1_000_000_000
                return Sample(round: round, result: result)
            }
        }
        return WorkloadComparison(
            name: "w",
            options: JobOptions(),
            samples: [samples(base), samples(other)]
        )
    }

    @Test("a winner needs rounds, rank and ratios")
    func verdict_rules() {
        let base = [1000.0, 1010, 990, 1005, 995]
        #expect(workload(base, base.map { $0 * 2 }).verdict(of: 1) == .faster)
        #expect(workload(base, base.map { $0 / 2 }).verdict(of: 1) == .slower)
        #expect(workload(base, base).verdict(of: 1) == .noDifference)
        #expect(workload(base, [1, 3000, 2, 3001, 1000]).verdict(of: 1) == .noDifference)
        let three = Array(base.prefix(3))
        #expect(workload(three, three.map { $0 * 9 }).verdict(of: 1) == .tooFewRounds)
        #expect(workload(base, base.map { $0 * 2 }).ratios(of: 1) == [2, 2, 2, 2, 2])
    }

    @Test("every target comes first equally often, and every round has all of them")
    func order_turns() {
        let orders = (0..<4).map { Comparison.order(round: $0, targetCount: 4) }
        #expect(Set(orders.map { $0[0] }).count == 4)
        #expect(orders.allSatisfy { $0.sorted() == [0, 1, 2, 3] })
    }

    @Test("targets are measured in turns, each in each round, and figures are all there")
    func comparison_runs() throws {
        let line = try Invocation(parsing: [
            "--compare", "a=null:", "b=null:", "c=null:", "--rounds=4", "--number_ios=100",
            "--size=1m", "--rw=randrw",
        ])
        let comparison = Comparison(
            targets: line.compared,
            jobs: line.jobs,
            roundCount: 4,
            live: nil
        )
        comparison.run()
        #expect(comparison.complaints.isEmpty && comparison.workloads.count == 1)
        let samples = try #require(comparison.workloads.first?.samples)
        #expect(samples.map(\.count) == [4, 4, 4])
        for samples in samples { #expect(Set(samples.map(\.round)) == [0, 1, 2, 3]) }
        #expect(samples.joined().allSatisfy { $0.result.transferCount == 100 })
        // The same round has the same seed on every target, another round another.
        #expect(Set(samples.map { $0.map(\.result.options.seed) }).count == 1)
        #expect(Set(samples[0].map(\.result.options.seed)).count == 4)
    }

    @Test(
        "axes reach the greatest value in few round steps",
        arguments: [
            0.3, 1, 7, 99, 100, 101, 12_345, 4.2e6,
        ]
    )
    func ticks_areFew(greatest: Double) {
        let ticks = Plots.ticks(greatest)
        #expect(ticks.count >= 3 && ticks.count <= 7)
        #expect(ticks[0] == 0 && ticks[ticks.count - 1] >= greatest)
        #expect(ticks[ticks.count - 2] < greatest)
    }

    @Test("spreads: medians and quartiles")
    func spread_quartiles() {
        let spread = Spread([5, 1, 3, 2, 4])
        #expect(spread.median == 3 && spread.lowQuartile == 2 && spread.highQuartile == 4)
        #expect(Spread([]).median == 0 && Spread([7]).highQuartile == 7)
    }
}
