// What a command asks of the volume, for the caller to carry out.

/// A span of the volume.
@frozen
public struct BlockRange: Sendable, Hashable, BitwiseCopyable {
    /// Bytes from the start of the volume; whole logical blocks.
    public var offset: UInt64
    /// Bytes; whole logical blocks.
    public var byteCount: UInt64

    /// Creates a range.
    @inlinable
    public init(offset: UInt64, byteCount: UInt64) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// How an operation is to be done.
@frozen
public struct BlockOperationFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt8
    /// Creates flags from bits.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The operation is done when what it touched is durable.
    ///
    /// Spec: FUA.
    @inlinable
    public static var forceUnitAccess: Self { Self(rawValue: 1 << 0) }
    /// Do not keep it in a cache.
    ///
    /// Spec: DPO.
    @inlinable
    public static var disablePageOut: Self { Self(rawValue: 1 << 1) }
    /// Zeroes may become holes.
    ///
    /// Spec: UNMAP bit of WRITE SAME.
    @inlinable
    public static var mayDeallocate: Self { Self(rawValue: 1 << 2) }
    /// All of it or nothing, also across a crash.
    ///
    /// Spec: WRITE ATOMIC.
    @inlinable
    public static var atomic: Self { Self(rawValue: 1 << 3) }
}

/// A block operation: validated, inside the volume, allowed to this nexus.
@frozen
public struct BlockOperation: Sendable, Hashable, BitwiseCopyable {
    /// What is to be done.
    @frozen
    public enum Kind: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
        /// Read the range into data-in.
        case read
        /// Write data-out to the range.
        case write
        /// Make the whole volume durable; the range is a hint.
        case flush
        /// Read the range into a cache, or do nothing; answer ``BlockResult/done``.
        case prefetch
        /// Read the range and throw it away: are the checksums right?
        case verify
        /// Compare the range with data-out; do not change it.
        case compare
        /// Compare every block of the range with the one block of data-out.
        case compareSame
        /// Write data-out to the range, make it durable, read it back and check it.
        case writeAndVerify
        /// As ``writeAndVerify``; in addition compare what was read with data-out.
        case writeAndCompare
        /// Data-out is two halves, each as long as the range: if the range equals the first,
        /// write the second to it; one atomic step.
        case compareAndWrite
        /// OR data-out into the range; one atomic step.
        case orWrite
        /// Deallocate ``rangeCount`` ranges, which ``LogicalUnit/unmapRange(at:in:)`` reads from
        /// the collected parameters; they read as zeroes afterwards. A range may be empty.
        case unmap
        /// Fill the range with zeroes.
        case writeZeroes
        /// Fill the range with copies of the one block in the parameters.
        case writeSame
        /// Tell which parts of the range are allocated; answer with
        /// ``LogicalUnit/completeStatus(_:extents:dataIn:)``.
        case blockStatus
        /// Copy ``rangeCount`` segments, which ``LogicalUnit/copySegment(at:in:)`` reads from the
        /// parameters, in their order.
        case copy
    }

    /// The range: bytes from the start of the volume; 0 where ranges are in the parameters.
    public var offset: UInt64
    /// The range's bytes; 0 where ranges are in the parameters.
    ///
    /// Never 0 otherwise, except for ``Kind/flush``.
    public var byteCount: UInt64
    /// Bytes of data-out to collect before, or while, it is carried out; at most what the
    /// initiator said that it sends.
    public var dataOutByteCount: UInt32
    /// Bytes of data-in that it yields; at most what the initiator has room for.
    public var dataInByteCount: UInt32
    /// Ranges or segments in the parameters.
    public var rangeCount: UInt16
    /// The unit's own mark, for ``LogicalUnit/complete(_:_:)``.
    public var tag: UInt16
    /// What is to be done.
    public var kind: Kind
    /// How.
    public var flags: BlockOperationFlags

    /// Creates an operation.
    @inlinable
    public init(
        _ kind: Kind,
        offset: UInt64 = 0,
        byteCount: UInt64 = 0,
        flags: BlockOperationFlags = [],
        dataOutByteCount: UInt32 = 0,
        dataInByteCount: UInt32 = 0,
        rangeCount: UInt16 = 0,
        tag: UInt16 = 0
    ) {
        self.kind = kind
        self.offset = offset
        self.byteCount = byteCount
        self.flags = flags
        self.dataOutByteCount = dataOutByteCount
        self.dataInByteCount = dataInByteCount
        self.rangeCount = rangeCount
        self.tag = tag
    }

    /// The range that it touches.
    @inlinable
    public var range: BlockRange { BlockRange(offset: offset, byteCount: byteCount) }
}

/// One segment of an EXTENDED COPY: bytes from one volume to another, or to itself.
@frozen
public struct CopySegment: Sendable, Hashable, BitwiseCopyable {
    /// ``LogicalUnitDescription/handle`` of the volume to read.
    public var sourceHandle: UInt64
    /// ``LogicalUnitDescription/handle`` of the volume to write.
    public var destinationHandle: UInt64
    /// Bytes from the start of the source.
    public var sourceOffset: UInt64
    /// Bytes from the start of the destination.
    public var destinationOffset: UInt64
    /// Bytes to copy; may be 0.
    public var byteCount: UInt64
}

/// A run of blocks that are all allocated or all not.
@frozen
public struct BlockExtent: Sendable, Hashable, BitwiseCopyable {
    /// Bytes; whole logical blocks, not 0.
    public var byteCount: UInt64
    /// Whether the volume holds data for it.
    public var isAllocated: Bool

    /// Creates an extent.
    @inlinable
    public init(byteCount: UInt64, isAllocated: Bool) {
        self.byteCount = byteCount
        self.isAllocated = isAllocated
    }
}

/// How a block operation ended.
@frozen
public enum BlockResult: Sendable, Hashable, BitwiseCopyable {
    /// All of it is done, and as durable as its flags ask.
    case done
    /// A comparison failed at byte `offset` of what was compared; nothing was changed.
    case miscompare(offset: UInt64)
    /// The volume's byte `offset` cannot be read: every copy of it is damaged.
    case unreadable(offset: UInt64)
    /// The device refused the write.
    case writeFailed
    /// The store is full: nothing, or a part, was written.
    case noSpace
    /// The volume is read-only.
    case readOnly
    /// The volume's size changed: the range is not in it any more.
    case outOfRange
    /// The volume has no quorum, or is just opening, and the caller does not want to wait.
    case notReady
    /// This node does not serve the volume any more: the initiator has to use another path.
    case moved
    /// No memory or no slot: the initiator tries again.
    case busy
    /// The other volume of a copy cannot be reached.
    case peerUnreachable
    /// A defect of ours.
    case failed
}
