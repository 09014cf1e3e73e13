// Block requests in flight.

internal import BlockCore

/// One accepted request and how far it has come.
struct RequestSlot: BitwiseCopyable {
    enum Phase: UInt8, BitwiseCopyable {
        case free
        /// Reading, writing, zeroing or reporting; `cursor` says where.
        case working
        /// Planned; waits for its device reads.
        case reading
        /// Applied; waits to be durable.
        case hardening
    }

    var request = StoreRequest(
        kind: .flush,
        volume: VolumeHandle(0),
        offset: 0,
        byteCount: 0,
        token: 0
    )
    var phase = Phase.free
    var status = StoreStatus.ok
    /// A read found other bytes than the map says and starts again.
    var retryCount: UInt8 = 0
    var mustRetry = false
    /// The first block that a read found damaged, or could not read; the greatest number for none.
    var failedBlock = UInt64.max
    /// Next in a wait list or the free list, or -1.
    var next: Int32 = -1
    /// The next block to handle.
    var cursor: UInt64 = 0
    /// The block behind the last.
    var end: UInt64 = 0
    var pendingReadCount: UInt32 = 0
    /// The batch whose durability completes it.
    var waitSequence: UInt64 = 0
    /// Map pages waited for since the cursor moved.
    var walkReadCount = 0
    /// Leaves that a CACHE request has brought into memory.
    var cachedLeafCount = 0
    /// Bit per part of the range that holds data.
    var dataMask: UInt64 = 0
    /// The cache frame that holds the whole answer, or -1.
    var cacheFrame: Int32 = -1
    /// Old copies of the first and the last block of a partial write.
    var head = PartialBlock()
    var tail = PartialBlock()
    /// Bytes of extents written into the region of a status, and the extents.
    var extentCount: UInt32 = 0
    var statusValue: UInt64 = 0
    var statusByteCount: UInt64 = 0
    var coveredByteCount: UInt64 = 0
    /// The greatest number among the blocks read so far.
    var numberMax: UInt64 = 0
    /// What a status, a scan or a read has gathered of the leaf at `cursor`, or -1.
    var statusWalk: Int32 = -1
}

/// The old copy of a block that a write covers in part.
struct PartialBlock: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        /// The write covers the block whole.
        case none
        /// To be read.
        case wanted
        /// Being read.
        case reading
        /// In scratch.
        case ready
    }

    var state = State.none
    var scratch: Int32 = -1
    /// The entry whose bytes are in scratch; the write goes on only if it still holds.
    var entry0: UInt64 = 0
    var entry1: UInt64 = 0
}

/// What became of an attempt to go on with a request.
enum Progress {
    /// It ended or waits for the device; nothing to do.
    case done
    /// It is in a page's wait list.
    case waitsForPage
    /// It needs a buffer, a segment, an operation, a frame or a clean page.
    case needsResource
}
