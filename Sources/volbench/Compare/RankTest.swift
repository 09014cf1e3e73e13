internal import Glibc

/// Whether two samples differ, and by how much, without a belief about their distributions.
package enum RankTest {
    /// From this many figures on a side, the normal approximation is used: exact counts grow as
    /// the product of both.
    package static var exactCountMax: Int { 20 }

    /// The two-sided probability that samples of one distribution differ as much as these.
    ///
    /// Source: Mann, Whitney, "On a test of whether one of two random variables is stochastically
    /// larger than the other" (1947). Ties share their rank; with ties the exact count is used as
    /// if they were broken half and half.
    package static func probability(_ left: [Double], _ right: [Double]) -> Double {
        guard !left.isEmpty, !right.isEmpty else { return 1 }
        var wins = 0.0
        for value in left {
            for other in right { wins += value > other ? 1 : value == other ? 0.5 : 0 }
        }
        let pairs = Double(left.count * right.count)
        // Both tails: the smaller of the two counts, and its mirror image.
        let extreme = min(wins, pairs - wins)
        let isExact = left.count < exactCountMax && right.count < exactCountMax
        guard isExact else { return normal(extreme, left, right) }
        let counts = arrangements(left.count, right.count)
        let limit = Int(extreme.rounded(.up))
        let tail = counts.prefix(limit + 1).reduce(0, +)
        return min(1, 2 * tail / counts.reduce(0, +))
    }

    /// How many arrangements of both samples have each number of wins.
    private static func arrangements(_ left: Int, _ right: Int) -> [Double] {
        // table[i][u]: arrangements of i of the left among the right so far with u wins.
        var table = [[Double]](
            repeating: [Double](repeating: 0, count: left * right + 1),
            count: left + 1
        )
        table[0][0] = 1
        // Each left figure stands above 0 ... right of the others, in descending order.
        for below in 0...right {
            var next = table
            for taken in 1...left {
                for used in 1...taken {
                    let gained = used * below
                    guard gained <= left * right else { break }
                    for wins in gained...(left * right) {
                        next[taken][wins] += table[taken - used][wins - gained]
                    }
                }
            }
            table = next
        }
        return table[left]
    }

    private static func normal(_ wins: Double, _ left: [Double], _ right: [Double]) -> Double {
        let (n, m) = (Double(left.count), Double(right.count))
        let total = n + m
        var ties = 0.0
        for count in Dictionary(grouping: left + right, by: \.self).values.map(\.count) {
            ties += Double(count * count * count - count)
        }
        let variance = n * m / 12 * ((total + 1) - ties / (total * (total - 1)))
        guard variance > 0 else { return 1 }
        let distance = max(0, abs(wins - n * m / 2) - 0.5) / variance.squareRoot()
        return erfc(distance / 2.0.squareRoot())
    }
}

/// Figures in order: their middle, their middle half, their ends.
package struct Spread: Sendable, Equatable {
    package var median = 0.0
    package var lowQuartile = 0.0
    package var highQuartile = 0.0
    package var least = 0.0
    package var greatest = 0.0

    /// Sorts figures; all zero when there are none.
    package init(_ figures: [Double]) {
        let sorted = figures.sorted()
        guard let first = sorted.first, let last = sorted.last else { return }
        func point(_ fraction: Double) -> Double {
            let position = fraction * Double(sorted.count - 1)
            let index = Int(position)
            guard index + 1 < sorted.count else { return last }
            let share = position - Double(index)
            return sorted[index] * (1 - share) + sorted[index + 1] * share
        }
        (median, lowQuartile, highQuartile) = (point(0.5), point(0.25), point(0.75))
        (least, greatest) = (first, last)
    }

    /// Half the middle half, in percent of the median.
    package var noisePercent: Double {
        median == 0 ? 0 : 100 * (highQuartile - lowQuartile) / 2 / median
    }
}
