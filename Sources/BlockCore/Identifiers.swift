// Id newtypes. No arithmetic except where it has meaning.

/// A volume's identity, unique for ever within a cluster; assigned by the metadata service.
@frozen
public struct VolumeID: Hashable, Sendable, BitwiseCopyable {
    /// The id as a number; 0 names no volume.
    public var rawValue: UInt64

    /// Creates an id from its number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The id that names no volume.
    @inlinable
    public static var none: VolumeID { VolumeID(0) }
}

/// A layer's identity, unique for ever within a store.
@frozen
public struct LayerID: Hashable, Sendable, BitwiseCopyable {
    /// The id as a number; 0 names no layer.
    public var rawValue: UInt64

    /// Creates an id from its number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The id that names no layer: the parent of a bottom layer.
    @inlinable
    public static var none: LayerID { LayerID(0) }
}

/// The index of a shard within its volume: `byte offset / shardByteCount`.
@frozen
public struct ShardIndex: Hashable, Sendable, BitwiseCopyable {
    /// 0-based index.
    public var rawValue: UInt32

    /// Creates an index from its number.
    @inlinable
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// The fencing number of a volume's lease, which only grows.
@frozen
public struct Epoch: Hashable, Comparable, Sendable, BitwiseCopyable {
    /// The number; the first lease has 1.
    public var rawValue: UInt64

    /// Creates an epoch from its number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// Orders epochs by age.
    @inlinable
    public static func < (left: Epoch, right: Epoch) -> Bool { left.rawValue < right.rawValue }
}

/// The number of a write within its shard; grows by one per write.
@frozen
public struct WriteSequence: Hashable, Comparable, Sendable, BitwiseCopyable {
    /// The number; the first write has 1.
    public var rawValue: UInt64

    /// Creates a sequence from its number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// Orders sequences by age.
    @inlinable
    public static func < (left: WriteSequence, right: WriteSequence) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// The 128-bit identity of a formatted store, so that the wrong disk is refused.
@frozen
public struct StoreIdentity: Hashable, Sendable, BitwiseCopyable {
    /// The upper half.
    public var high: UInt64
    /// The lower half.
    public var low: UInt64

    /// Creates an identity from its halves.
    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}
