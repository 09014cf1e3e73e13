/// A small deterministic generator (SplitMix64): one seed, one sequence, on every machine.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
public struct FuzzRandom: Sendable {
    private var state: UInt64

    /// Creates a generator; different streams of one seed are independent.
    public init(seed: UInt64, stream: UInt64 = 0) {
        state = seed
        state = next() ^ stream
        state = next()
    }

    /// The next 64 bits.
    @inline(__always)
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    @inline(__always)
    public mutating func below(_ bound: Int) -> Int {
        precondition(bound > 0, "nothing is below this")
        return Int(truncatingIfNeeded: next() % UInt64(bound))
    }

    /// True once in `count` times.
    @inline(__always)
    public mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
}

/// A run that broke a rule.
public struct FuzzFailure: Error, Sendable {
    /// The run's index: with the seed it is all that is needed to repeat it.
    public let index: UInt64
    /// The rule.
    public let rule: String
    /// The peer's bytes.
    public let bytes: [UInt8]
}

/// Bytes cut and changed the way broken and hostile peers do.
public struct FuzzMutator: Sendable {
    /// Values at which lengths and counts go wrong.
    static let interesting: [UInt64] = [
        0, 1, 2, 3, 7, 8, 9, 27, 28, 31, 32, 127, 128, 255, 256, 511, 512, 513, 4095, 4096, 4097,
        0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x1F_FFFF, 0x1FF_FFFF, 0x200_0000, 0x200_0001,
        0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFA, 0xFFFF_FFFF, 0x1_0000_0000, 1 << 40, 1 << 62,
        1 << 63, UInt64.max - 511, UInt64.max,
    ]
    /// The longest result, in bytes.
    public static var byteCountMax: Int { 16 << 10 }

    /// Creates a mutator.
    public init() {}

    /// Changes `bytes` once to four times.
    ///
    /// - Parameters:
    ///   - bytes: What to change, in place; stays within ``byteCountMax``.
    ///   - other: Something else to splice in.
    ///   - random: The choices.
    public func mutate(_ bytes: inout [UInt8], other: [UInt8], random: inout FuzzRandom) {
        for _ in 0..<[1, 1, 1, 2, 2, 4][random.below(6)] {
            guard !bytes.isEmpty else { return }
            mutateOnce(&bytes, other, &random)
        }
        if bytes.count > Self.byteCountMax { bytes.removeLast(bytes.count - Self.byteCountMax) }
    }

    private func mutateOnce(_ bytes: inout [UInt8], _ other: [UInt8], _ random: inout FuzzRandom) {
        let position = random.below(bytes.count)
        switch random.below(11) {
        case 0, 1, 2:
            bytes[position] ^= 1 << UInt8(random.below(8))
        case 3:
            bytes[position] = UInt8(truncatingIfNeeded: random.next())
        case 4, 5, 6:
            putInteger(&bytes, position, &random)
        case 7:
            let count = min(1 + random.below(16), bytes.count - position)
            bytes.removeSubrange(position..<position + count)
        case 8:
            let count = min(1 + random.below(32), bytes.count - position)
            bytes.insert(contentsOf: Array(bytes[position..<position + count]), at: position)
        case 9:
            bytes.removeLast(bytes.count - position)
        default:
            guard !other.isEmpty else { return }
            let start = random.below(other.count)
            let count = min(1 + random.below(64), other.count - start)
            bytes.replaceSubrange(
                position..<min(position + random.below(64), bytes.count),
                with: other[start..<start + count]
            )
        }
    }

    /// Overwrites 2, 4 or 8 bytes with an interesting value, or one next to what was there.
    private func putInteger(_ bytes: inout [UInt8], _ position: Int, _ random: inout FuzzRandom) {
        let width = [2, 4, 4, 8][random.below(4)]
        guard position + width <= bytes.count else { return }
        var value: UInt64 = 0
        for byte in bytes[position..<position + width] { value = value << 8 | UInt64(byte) }
        value =
            random.oneIn(3)
            ? value &+ UInt64(bitPattern: Int64(random.below(17) - 8))
            : Self.interesting[random.below(Self.interesting.count)]
        for index in 0..<width {
            let shift = UInt64(8 * (width - 1 - index))
            bytes[position + index] = UInt8(truncatingIfNeeded: value >> shift)
        }
    }
}
