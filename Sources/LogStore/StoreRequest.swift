// What the front of a node asks of a store, and what it gets back.

public import BlockCore

/// An open volume within one store: an index into its table of open volumes.
@frozen
public struct VolumeHandle: Hashable, Sendable, BitwiseCopyable {
    /// The slot; valid until the volume is closed.
    public var rawValue: UInt32

    /// Creates a handle from a slot.
    @inlinable
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// Options of a request.
@frozen
public struct StoreRequestFlags: OptionSet, Sendable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt8

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Complete only when the change is durable.
    @inlinable public static var forceUnitAccess: Self { Self(rawValue: 1) }
    /// A `writeZeroes` that must leave the range allocated (reads as zero, not as a hole).
    @inlinable public static var noHole: Self { Self(rawValue: 2) }
    /// A `blockStatus` that wants one extent only.
    @inlinable public static var oneExtent: Self { Self(rawValue: 4) }
    /// A numbered change that is the next of its volume's stream: it is logged even where nothing of
    /// it applies, and its number becomes the volume's stream position.
    @inlinable public static var streamed: Self { Self(rawValue: 8) }
    /// A numbered write of one block that puts the same bytes in another place.
    ///
    /// It does so where the volume, or a layer below it, has a copy with just this number and these
    /// bytes' checksum. It changes nothing that is read, so snapshots' copies are mended like the
    /// volume's own, through read-only handles too.
    ///
    /// ``StoreCompletion/extentCount`` says how many copies were put elsewhere: 1, or 0 where there is
    /// no such copy.
    @inlinable public static var repair: Self { Self(rawValue: 16) }
    /// A numbered `writeZeroes` with `noHole` that changes nothing: ``StoreCompletion/extentCount``
    /// says how many of its blocks the volume's top layer has no data of.
    @inlinable public static var weigh: Self { Self(rawValue: 32) }
}

/// Which property of a range a `blockStatus` reports.
@frozen
public enum BlockStatusKind: UInt8, Sendable, BitwiseCopyable {
    /// Flags: bit 0 hole, bit 1 reads as zero. Spec: NBD `base:allocation`.
    case allocation
    /// The number of the layer that holds the range: 0 none, 1 top, 2 its parent, and so on.
    /// Spec: QEMU `qemu:allocation-depth`.
    case allocationDepth
    /// Bit 0: written (or trimmed) since the layer `StoreRequest.sinceLayer` was sealed.
    case changedSince
}

/// One request for a range of an open volume.
@frozen
public struct StoreRequest: BitwiseCopyable, Sendable {
    /// What is asked.
    @frozen
    public enum Kind: UInt8, Sendable, BitwiseCopyable {
        /// Reads `byteCount` bytes; the data is where ``StoreCompletion/region`` says.
        case read
        /// Writes `region`.
        case write
        /// Makes the range read as zero; a hole unless `noHole`.
        case writeZeroes
        /// Gives the range up; reads as zero afterwards.
        case trim
        /// Makes everything completed before it durable.
        case flush
        /// Brings the range into the store's memory; advisory.
        case cache
        /// Reports extents into `region`: per extent a UInt64 byte count and a UInt64 value,
        /// little-endian, as many as fit. ``StoreCompletion/byteCount`` counts the bytes
        /// covered and ``StoreCompletion/extentCount`` the extents.
        case blockStatus
        /// Lists blocks whose entries have numbers above ``StoreRequest/number``, those of trimmed
        /// blocks among them, in order: per block a UInt64 block and a UInt64 number,
        /// little-endian, as many as fit into `region`. Offset and byte count are multiples of 4096.
        ///
        /// ``StoreCompletion/extentCount`` counts the entries and ``StoreCompletion/byteCount`` the
        /// bytes of the range covered: where that is less than the range, the next scan goes on
        /// behind it, also when there was no entry.
        case scan
    }

    /// What is asked.
    public var kind: Kind
    /// How it is asked.
    public var flags: StoreRequestFlags
    /// For `blockStatus`: what to report.
    public var statusKind: BlockStatusKind
    /// The volume.
    public var volume: VolumeHandle
    /// Bytes from the start of the volume; a multiple of its logical block.
    public var offset: UInt64
    /// Bytes addressed; a multiple of the volume's logical block.
    public var byteCount: UInt64
    /// Payload of a write; destination of a read or a status.
    ///
    /// 4096-aligned, of `byteCount` bytes rounded up to whole blocks plus one block. The store
    /// owns it until it completes the request.
    public var region: ByteRegion
    /// For `changedSince`: the sealed layer to compare with.
    public var sinceLayer: LayerID
    /// The change's number from outside; 0 where the store numbers by itself.
    ///
    /// Of a `scan` it is the number to look above. Of a `write`, `trim` or `writeZeroes` it is below
    /// 2^56. A numbered change is made of whole blocks that lie in one leaf (1 MiB of the volume), of at
    /// most ``numberedBlockCountMax`` when it has a payload, and is there after a crash or not,
    /// never in part. It changes the blocks whose copy in the volume's top layer has a lower
    /// number. Unless `forceUnitAccess` is asked for it ends when it is in the log's memory, in
    /// writethrough volumes too. Specification: Docs/replication.md, "Over the log store".
    public var number: UInt64
    /// Of a numbered write the CRC-32C of each block, little-endian, when the caller has them.
    ///
    /// The store keeps them beside the blocks as they are; empty where it is to compute them. As many
    /// as blocks, valid as long as the region.
    public var checksums = ByteRegion.empty
    /// The caller's own mark, returned with the completion.
    public var token: UInt64

    /// Blocks of a numbered write at most; less where segments are too small for it
    /// (``LogStore/numberedBlockCountMax``).
    @inlinable public static var numberedBlockCountMax: Int { 64 }

    /// Creates a request.
    @inlinable
    public init(
        kind: Kind,
        volume: VolumeHandle,
        offset: UInt64,
        byteCount: UInt64,
        region: ByteRegion = .empty,
        flags: StoreRequestFlags = [],
        statusKind: BlockStatusKind = .allocation,
        sinceLayer: LayerID = .none,
        number: UInt64 = 0,
        token: UInt64
    ) {
        self.kind = kind
        self.flags = flags
        self.statusKind = statusKind
        self.volume = volume
        self.offset = offset
        self.byteCount = byteCount
        self.region = region
        self.sinceLayer = sinceLayer
        self.number = number
        self.token = token
    }
}

/// How a request ended; the fronts map it to NBD errors and SCSI sense in one table each.
@frozen
public enum StoreStatus: UInt8, Sendable, BitwiseCopyable {
    /// Done.
    case ok
    /// The range is not inside the volume, not aligned, or the volume is not open.
    case invalid
    /// The store has no room for new data; reads, trims and deletions still work.
    case noSpace
    /// The volume or snapshot is read-only.
    case readOnly
    /// A device error, or data whose checksum does not match and that has no other replica.
    case mediaError
    /// The store has stopped taking requests: it is shutting down or its device failed.
    case unavailable
}

/// The end of a ``StoreRequest``.
@frozen
public struct StoreCompletion: BitwiseCopyable, Sendable {
    /// The request's mark.
    public var token: UInt64
    /// How it ended.
    public var status: StoreStatus
    /// For a read: the data; empty when the whole range reads as zero.
    ///
    /// It lies in the request's region or in the store's own memory; valid until the next call
    /// into the store.
    public var region: ByteRegion
    /// For a read: bit `i` is set when the `i`-th part of the range is a hole.
    ///
    /// Parts are ``holePartByteCount`` bytes each. Advisory; a clear bit promises nothing.
    public var holeMask: UInt64
    /// Bytes per bit of `holeMask`.
    public var holePartByteCount: UInt32
    /// For a status: the number of extents reported; for a scan, of entries.
    public var extentCount: UInt32
    /// Bytes read or covered; for a read that failed, those in front of the first damaged block.
    public var byteCount: UInt64
    /// For a read: the greatest number among its blocks, trimmed ones included; 0 where nothing is.
    ///
    /// Of a volume without a replica record only what lies in its top layer counts.
    public var number: UInt64

    /// Creates the end of a request.
    @inlinable
    public init(token: UInt64, status: StoreStatus) {
        self.token = token
        self.status = status
        region = .empty
        holeMask = 0
        holePartByteCount = 0
        extentCount = 0
        byteCount = 0
        number = 0
    }
}
