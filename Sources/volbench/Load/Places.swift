// Where random operations fall: permutations, maps of what was visited, skewed draws.
internal import BlockCore
internal import Glibc

/// A permutation of `0 ..< count` that takes no memory.
///
/// A Feistel network over the next even power of two; numbers beyond the count are mapped again
/// until they are not. Four rounds: enough that neighbours have nothing in common.
package struct Permutation: Sendable {
    /// How many numbers it permutes.
    package let count: UInt64
    private let halfBits: UInt64
    private let halfMask: UInt64
    private let key: UInt64

    private static var roundCount: UInt64 { 4 }

    /// Creates the permutation that `seed` decides.
    ///
    /// - Precondition: `count` is at least 1.
    package init(count: UInt64, seed: UInt64) {
        precondition(count > 0, "a permutation of nothing")
        self.count = count
        let bits = UInt64(UInt64.bitWidth - (count - 1).leadingZeroBitCount)
        halfBits = max(1, (bits + 1) / 2)
        halfMask = (1 << halfBits) - 1
        key = SplitMix64.mix(seed &+ 0x5851_F42D_4C95_7F2D)
    }

    /// Where `index` goes.
    package func callAsFunction(_ index: UInt64) -> UInt64 {
        var value = index
        repeat {
            var left = value >> halfBits
            var right = value & halfMask
            for round in 0..<Permutation.roundCount {
                let scrambled = SplitMix64.mix(right &+ key &+ round << 56) & halfMask
                (left, right) = (right, left ^ scrambled)
            }
            value = left << halfBits | right
        } while value >= count
        return value
    }
}

/// Which places were visited, and the next one that was not.
package final class PlaceMap {
    private let count: UInt64
    private let words: FixedArray<UInt64>
    /// A bit per word that is full, so that a full map is not searched bit by bit.
    private let fullWords: FixedArray<UInt64>
    /// Places not visited yet.
    package private(set) var freeCount: UInt64

    /// Creates a map of `count` places, none visited.
    package init(count: UInt64) {
        self.count = count
        let wordCount = Int((count + 63) / 64)
        words = FixedArray(repeating: 0, count: wordCount)
        fullWords = FixedArray(repeating: 0, count: (wordCount + 63) / 64)
        freeCount = count
        markTail()
    }

    /// Forgets all visits.
    package func reset() {
        for index in 0..<words.count { words[index] = 0 }
        for index in 0..<fullWords.count { fullWords[index] = 0 }
        freeCount = count
        markTail()
    }

    /// Bits beyond the count are taken, so that no search finds them.
    private func markTail() {
        let used = count % 64
        if used > 0 { words[words.count - 1] = ~0 << used }
    }

    /// The first free place from `start` on, around the end.
    ///
    /// - Precondition: there is one.
    package func firstFree(from start: UInt64) -> UInt64 {
        precondition(freeCount > 0, "no free place")
        let word = Int(start / 64)
        let here = ~words[word] & (~0 << (start % 64))
        if here != 0 { return UInt64(word * 64 + here.trailingZeroBitCount) }
        var index = word + 1
        while true {
            if index >= words.count { index = 0 }
            let isGroupFull = index % 64 == 0 && fullWords[index / 64] == ~0
            if isGroupFull {
                index += 64
                continue
            }
            let free = ~words[index]
            if free != 0 { return UInt64(index * 64 + free.trailingZeroBitCount) }
            index += 1
        }
    }

    /// Visits up to `wanted` free places from `place` on.
    ///
    /// - Returns: How many were free one after the other.
    package func visit(_ place: UInt64, atMost wanted: UInt64) -> UInt64 {
        var visited: UInt64 = 0
        while visited < wanted, place + visited < count {
            let position = place + visited
            let (word, bit) = (Int(position / 64), UInt64(1) << (position % 64))
            guard words[word] & bit == 0 else { break }
            words[word] |= bit
            if words[word] == ~0 { fullWords[word / 64] |= 1 << UInt64(word % 64) }
            visited += 1
        }
        freeCount -= visited
        return visited
    }
}

/// Draws places of which some are visited more often than others.
///
/// The favourites are scattered over the target by a permutation.
/// Source: Gray, Sundaresan, Englert, Baclawski, Weinberger, "Quickly generating billion-record
/// synthetic databases" (SIGMOD 1994): the Zipfian and the self-similar distribution.
package struct SkewedPlaces: Sendable {
    private enum Shape {
        case zipf(theta: Double, alpha: Double, eta: Double, zeta: Double)
        case selfSimilar(exponent: Double)
    }

    private let count: UInt64
    private let shape: Shape
    private let scatter: Permutation
    /// Terms of the zeta function that are summed; the rest is its integral.
    private static var zetaTermCountMax: UInt64 { 1_000_000 }

    /// Creates a distribution over `count` places; nil for the uniform one.
    package init?(_ distribution: PlaceDistribution, count: UInt64, seed: UInt64) {
        self.count = count
        scatter = Permutation(count: count, seed: seed)
        switch distribution {
        case .uniform: return nil
        case .zipf(let theta):
            let zeta = SkewedPlaces.zeta(count, theta)
            let two = SkewedPlaces.zeta(2, theta)
            shape = .zipf(
                theta: theta,
                alpha: 1 / (1 - theta),
                eta: (1 - pow(2 / Double(count), 1 - theta)) / (1 - two / zeta),
                zeta: zeta
            )
        case .pareto(let h): shape = .selfSimilar(exponent: log(h) / log(1 - h))
        }
    }

    private static func zeta(_ count: UInt64, _ theta: Double) -> Double {
        let summed = min(count, zetaTermCountMax)
        var result = 0.0
        for index in 1...summed { result += pow(Double(index), -theta) }
        if count > summed {
            let exponent = 1 - theta
            result += (pow(Double(count), exponent) - pow(Double(summed), exponent)) / exponent
        }
        return result
    }

    /// The next place.
    package func next(_ random: inout SplitMix64) -> UInt64 {
        let fraction = random.nextFraction()
        let rank: Double
        switch shape {
        case .zipf(let theta, let alpha, let eta, let zeta):
            let scaled = fraction * zeta
            if scaled < 1 {
                rank = 0
            } else if scaled < 1 + pow(0.5, theta) {
                rank = 1
            } else {
                rank = Double(count) * pow(eta * fraction - eta + 1, alpha)
            }
        case .selfSimilar(let exponent): rank = Double(count) * pow(fraction, exponent)
        }
        return scatter(min(UInt64(max(rank, 0)), count - 1))
    }
}
