/// One operation of a job.
@frozen
package struct Operation: BitwiseCopyable, Sendable {
    /// What is done; numbered as fio numbers data directions.
    @frozen
    package enum Kind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// Reads the range.
        case read
        /// Writes the range.
        case write
        /// Tells the target that the range is not needed any more.
        case trim
        /// Makes all writes completed so far durable.
        case flush
    }

    /// What is done.
    package var kind: Kind
    /// Whether a write is durable when it completes.
    package var forceUnitAccess = false
    /// Bytes from the start of the target.
    package var offset: UInt64 = 0
    /// Bytes addressed; 0 for a flush.
    package var byteCount = 0
    /// Which write of the job it is, so that no two blocks written are equal.
    package var serial: UInt64 = 0
}

/// A small, fast, seeded generator: SplitMix64.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Creates a generator whose sequence `seed` decides.
    package init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return SplitMix64.mix(state)
    }

    /// A number in `0 ..< bound`, by multiplication: one part in 2^32 of bias is far below noise.
    package mutating func next(below bound: UInt64) -> UInt64 {
        next().multipliedFullWidth(by: bound).high
    }

    /// A number in `0 ..< 1`.
    package mutating func nextFraction() -> Double {
        Double(next() >> 11) * 0x1p-53
    }

    /// Spreads every bit of `value` over all bits; no two values give the same.
    package static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
