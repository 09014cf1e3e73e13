// The number that names one write of a placement group for ever.

public import BlockCore

/// The number of a write: its epoch and its place in it.
///
/// One epoch has one primary, and that primary counts: so no two writes have the same number, and
/// a block's copy is as new as its number.
///
/// Layout: 56 bits, which is what a map entry of the log store has room for: bits 0–35 the
/// counter, bits 36–55 the epoch.
@frozen
public struct WriteNumber: Hashable, Comparable, Sendable, BitwiseCopyable {
    /// Epoch and counter in one.
    public var rawValue: UInt64

    /// The last counter of an epoch: a primary that comes near takes a new epoch.
    @inlinable
    public static var counterMax: UInt64 { (1 << 36) - 1 }
    /// The last counter of a write: those above, of the epoch before a primary's own, are for blocks
    /// that it overwrites while a replica is given a snapshot.
    @inlinable
    public static var writeCounterMax: UInt64 { counterMax - (1 << 20) }
    /// The last epoch there can be; at one takeover a minute it lasts two years, at one a day for
    /// ever.
    @inlinable
    public static var epochMax: Epoch { Epoch((1 << 20) - 1) }
    /// Older than every write: the number of a block that was never written.
    @inlinable
    public static var zero: WriteNumber { WriteNumber(rawValue: 0) }

    /// Creates a number from its bits, as a map entry or a message has them.
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Creates a number from its parts.
    ///
    /// - Precondition: both are within their limits.
    @inlinable
    public init(epoch: Epoch, counter: UInt64) {
        precondition(epoch <= WriteNumber.epochMax, "epoch beyond 20 bits")
        precondition(counter <= WriteNumber.counterMax, "counter beyond 36 bits")
        rawValue = epoch.rawValue << 36 | counter
    }

    /// The epoch it was given in.
    @inlinable
    public var epoch: Epoch { Epoch(rawValue >> 36) }

    /// Its place in the epoch; the first write has 1.
    @inlinable
    public var counter: UInt64 { rawValue & WriteNumber.counterMax }

    /// Whether the number can exist: what comes from a wire is asked this before it is used.
    @inlinable
    public var isValid: Bool { rawValue >> 56 == 0 }

    /// Orders numbers by age.
    @inlinable
    public static func < (left: WriteNumber, right: WriteNumber) -> Bool {
        left.rawValue < right.rawValue
    }
}

extension WriteNumber: CustomStringConvertible {
    /// Epoch and counter, for people.
    public var description: String { "\(epoch.rawValue).\(counter)" }
}

/// A run of blocks of one volume.
@frozen
public struct BlockRange: Hashable, Sendable, BitwiseCopyable {
    /// The first block, counted from the volume's start.
    public var first: UInt64
    /// The number of blocks.
    public var count: UInt32

    /// The blocks of the largest volume, which no range exceeds.
    ///
    /// A range may still lie beyond the volume at hand: whoever knows how large that is asks.
    @inlinable
    public static var blockCountMax: UInt64 {
        BlockGeometry.volumeByteCountMax >> BlockGeometry.blockShift
    }

    /// Creates a range.
    @inlinable
    public init(first: UInt64, count: UInt32) {
        self.first = first
        self.count = count
    }

    /// The bytes of its blocks.
    @inlinable
    public var byteCount: Int { Int(count) * BlockGeometry.blockByteCount }

    /// Whether it is not empty and lies within the largest volume.
    @inlinable
    public var isValid: Bool {
        count > 0 && first < BlockRange.blockCountMax
            && UInt64(count) <= BlockRange.blockCountMax - first
    }

    /// Whether the two have a block in common.
    @inlinable
    public func overlaps(_ other: BlockRange) -> Bool {
        first < other.first + UInt64(other.count) && other.first < first + UInt64(count)
    }
}

/// Bytes that a machine passes on and never looks at.
///
/// The owner of the machines gives it out: an index of a buffer, or one of the two names of zeroes
/// that no buffer has. A primary holds on to the payload of a write until it emits
/// ``PrimaryAction/release(_:)``.
@frozen
public struct PayloadID: Hashable, Sendable, BitwiseCopyable {
    /// The owner's mark.
    public var rawValue: UInt64

    /// Creates a payload's name.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// No bytes: the blocks read as zeroes, and take no room (a trim).
    @inlinable
    public static var zeroes: PayloadID { PayloadID(0) }

    /// No bytes: the blocks read as zeroes, and keep their room.
    @inlinable
    public static var allocatedZeroes: PayloadID { PayloadID(1) }

    /// Whether there are bytes that somebody has to free.
    @inlinable
    public var hasBytes: Bool { rawValue > 1 }
}

/// One placement of one replica: 64 random bits; a replaced or wiped replica has others.
@frozen
public struct ReplicaInstance: Hashable, Sendable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt64

    /// Creates an instance's name.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// One life of a replica's process; compared for equality only.
@frozen
public struct Incarnation: Hashable, Sendable, BitwiseCopyable {
    /// A number that no other life of this replica has.
    public var rawValue: UInt64

    /// Creates an incarnation's name.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The process that a primary lives in; grants are given to it.
@frozen
public struct PrimaryID: Hashable, Sendable, BitwiseCopyable {
    /// A number that no other process, nor another life of it, has.
    public var rawValue: UInt64

    /// Creates a process's name.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// A connection, as its owner counts them; never used twice.
@frozen
public struct LinkID: Hashable, Sendable, BitwiseCopyable {
    /// The owner's number.
    public var rawValue: UInt64

    /// Creates a link's name.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}
