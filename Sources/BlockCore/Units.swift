// Units and the sizes that everything leans on.

/// Sizes that the log format, the protocols and the maps agree on.
public enum BlockGeometry {
    /// Bytes in a block: the granule of maps, checksums and device I/O.
    @inlinable
    public static var blockByteCount: Int { 4096 }

    /// log2 of ``blockByteCount``.
    @inlinable
    public static var blockShift: UInt64 { 12 }

    /// Bytes in a shard: the unit of placement and replication (16 GiB).
    @inlinable
    public static var shardByteCount: UInt64 { 16 << 30 }

    /// The shard that a volume's block lies in.
    @inlinable
    public static func shard(ofBlock block: UInt64) -> UInt32 {
        UInt32(block / (shardByteCount >> blockShift))
    }

    /// The largest volume, in bytes (64 TiB): five levels of map pages address 4 PiB.
    @inlinable
    public static var volumeByteCountMax: UInt64 { 64 << 40 }
}

/// A point in time, in nanoseconds of a monotonic clock that the caller owns.
@frozen
public struct Instant: Hashable, Comparable, Sendable, BitwiseCopyable {
    /// Nanoseconds since the clock's own zero.
    public var nanoseconds: UInt64

    /// Creates an instant.
    @inlinable
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Orders instants by time.
    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// The instant `nanoseconds` later.
    @inlinable
    public func advanced(byNanoseconds nanoseconds: UInt64) -> Instant {
        Instant(nanoseconds: self.nanoseconds &+ nanoseconds)
    }
}
