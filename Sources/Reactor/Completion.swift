/// The end of an operation, or one of the ends of a repeated one.
@frozen
public struct Completion: BitwiseCopyable, Sendable {
    /// The mark given with the operation.
    public var token: UInt64
    /// The `DeviceRequest`'s own mark; 0 for other operations.
    public var requestToken: UInt64
    /// What came of it: at least 0 for a count of bytes, a descriptor or a mask; or -errno.
    ///
    /// A device transfer is all or an error; a receive that found the end of the stream is 0.
    public var result: Int32
    /// Whether no further completion comes for this operation; false only while an `accept` lasts.
    public var isFinal: Bool

    /// Creates a completion.
    @inlinable
    public init(token: UInt64, requestToken: UInt64 = 0, result: Int32, isFinal: Bool = true) {
        self.token = token
        self.requestToken = requestToken
        self.result = result
        self.isFinal = isFinal
    }

    /// The positive errno of a failure, or 0.
    @inlinable
    public var errno: Int32 { result < 0 ? 0 &- result : 0 }
}

/// A mark that an owner makes of a kind, a table index and the generation of that table's entry.
///
/// The generation tells a completion that comes late from one for the entry's present user.
@frozen
public struct Token: Hashable, Sendable, BitwiseCopyable {
    /// The packed mark: index (bits 0 to 31), generation (32 to 55), kind (56 to 63).
    public var rawValue: UInt64

    /// Takes a packed mark apart.
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Packs a mark.
    ///
    /// - Parameters:
    ///   - kind: What the owner did; its own numbering.
    ///   - index: Where in the owner's table.
    ///   - generation: How often that entry was reused; only the low 24 bits are kept.
    @inlinable
    public init(kind: UInt8, index: UInt32, generation: UInt32 = 0) {
        rawValue =
            UInt64(kind) << 56 | UInt64(generation & Self.generationMask) << 32 | UInt64(index)
    }

    /// What the owner did.
    @inlinable
    public var kind: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 56) }

    /// Where in the owner's table.
    @inlinable
    public var index: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

    /// How often that entry was reused, modulo 2^24.
    @inlinable
    public var generation: UInt32 {
        UInt32(truncatingIfNeeded: rawValue >> 32) & Self.generationMask
    }

    /// The bits of a generation that fit.
    @inlinable
    public static var generationMask: UInt32 { 0xff_ffff }
}
