// The only source of chance in a simulation.

/// A small, fast generator whose every draw follows from its seed (SplitMix64).
///
/// One seed replays a whole run, on any machine and in any process, so a run draws from nothing
/// else. Parts that must not disturb each other's draws take a generator of their own with
/// ``fork(_:)``.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
public struct SeededRandom: Sendable, BitwiseCopyable {
    private var state: UInt64

    /// Creates the generator of `seed`.
    public init(seed: UInt64) {
        state = SeededRandom.mix(seed &+ 0x5EED_0C41_94CA_1212)
    }

    /// The next 64 bits.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return SeededRandom.mix(state)
    }

    /// A number in `0 ..< bound`.
    ///
    /// - Precondition: `bound` is positive.
    public mutating func below(_ bound: Int) -> Int {
        precondition(bound > 0, "nothing to choose from")
        return Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// A number in `0 ..< bound`.
    ///
    /// - Precondition: `bound` is positive.
    public mutating func below(_ bound: UInt64) -> UInt64 {
        precondition(bound > 0, "nothing to choose from")
        return next().multipliedFullWidth(by: bound).high
    }

    /// A number in `range`.
    public mutating func within(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.upperBound - range.lowerBound + 1)
    }

    /// True `count` times in a thousand.
    public mutating func chance(perMille count: Int) -> Bool { below(1000) < count }

    /// True `count` times in a million.
    public mutating func chance(perMillion count: Int) -> Bool {
        count > 0 && below(1_000_000) < count
    }

    /// One of `elements`.
    ///
    /// - Precondition: there is at least one.
    public mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[below(elements.count)]
    }

    /// An index drawn with the given weights.
    ///
    /// - Precondition: at least one weight is positive.
    public mutating func pickIndex(weights: [Int]) -> Int {
        var remaining = below(weights.reduce(0, +))
        for (index, weight) in weights.enumerated() {
            if remaining < weight { return index }
            remaining -= weight
        }
        preconditionFailure("weights do not add up")
    }

    /// A generator for another part of the run, drawn from this one.
    public mutating func fork(_ label: UInt64) -> SeededRandom {
        SeededRandom(seed: next() ^ SeededRandom.mix(label))
    }

    /// Spreads the bits of `value` over all 64.
    static func mix(_ value: UInt64) -> UInt64 {
        var bits = value
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        return bits ^ (bits >> 31)
    }
}
