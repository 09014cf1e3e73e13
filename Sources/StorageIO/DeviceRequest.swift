// The seam between the pure machines and whatever executes their I/O: the reactor's engines in
// production, the simulated disk under a seed.

public import BlockCore

/// One transfer that a store asks of its device.
///
/// The executor owns `region` from the moment it takes the request until it completes it. It
/// finishes short transfers itself: a completion is all or an error. Requests in flight at the
/// same time may take effect in any order.
@frozen
public struct DeviceRequest: BitwiseCopyable, Sendable {
    /// What a device can do.
    @frozen
    public enum Kind: UInt8, Sendable, BitwiseCopyable {
        /// Fills `region` from `offset`.
        case read
        /// Writes `region` at `offset`; volatile until a later `flush` completes.
        case write
        /// Writes `region` at `offset`; this write is durable when it completes (RWF_DSYNC).
        /// It says nothing about other writes.
        case writeDurable
        /// Makes every write that completed before this was submitted durable (fdatasync).
        case flush
        /// Tells the device that `byteCount` bytes at `offset` are not needed; best effort,
        /// contents undefined afterwards.
        case discard
    }

    /// What is asked.
    public var kind: Kind
    /// Bytes from the start of the device; a multiple of 4096.
    public var offset: UInt64
    /// The memory to fill or to write; a multiple of 4096 bytes, 4096-aligned.
    public var region: ByteRegion
    /// The length of a discard in bytes; otherwise equal to `region.byteCount`.
    public var byteCount: UInt64
    /// The store's own mark, returned with the completion.
    public var token: UInt64

    /// Creates a transfer of `region`.
    @inlinable
    public init(kind: Kind, offset: UInt64, region: ByteRegion, token: UInt64) {
        self.kind = kind
        self.offset = offset
        self.region = region
        self.byteCount = UInt64(region.byteCount)
        self.token = token
    }

    /// A flush.
    @inlinable
    public static func flush(token: UInt64) -> DeviceRequest {
        DeviceRequest(kind: .flush, offset: 0, region: .empty, token: token)
    }

    /// A discard of `byteCount` bytes at `offset`.
    @inlinable
    public static func discard(offset: UInt64, byteCount: UInt64, token: UInt64) -> DeviceRequest {
        var request = DeviceRequest(kind: .discard, offset: offset, region: .empty, token: token)
        request.byteCount = byteCount
        return request
    }
}

/// The outcome of a ``DeviceRequest``.
@frozen
public struct DeviceCompletion: BitwiseCopyable, Sendable {
    /// The request's mark.
    public var token: UInt64
    /// 0, or the positive errno of the failure.
    ///
    /// A read that failed left `region` undefined; a
    /// write that failed may have happened in part or whole.
    public var errno: Int32

    /// Creates an outcome.
    @inlinable
    public init(token: UInt64, errno: Int32) {
        self.token = token
        self.errno = errno
    }
}

/// What a device is, as far as a store needs to know.
@frozen
public struct DeviceGeometry: BitwiseCopyable, Sendable, Equatable {
    /// Usable bytes, a multiple of 4096.
    public var byteCount: UInt64

    /// Creates a geometry.
    @inlinable
    public init(byteCount: UInt64) { self.byteCount = byteCount }
}
