// Recovery: superblock, manifest, log. What it has read so far.

internal import BlockCore
internal import LogFormat

/// A batch found behind the checkpoint.
struct ReplayBatch {
    var sequence: UInt64
    var location: UInt64
    /// The header block's used bytes.
    var records: ByteRegion
    var recordCount: UInt32
    var payloadBlockCount: UInt32
    /// Whether its payload is what was written, as far as replay depends on it.
    var isWhole = true

    var walk: RecordWalk { RecordWalk(records, count: recordCount) }

    var stream: LogStream { walk.stream ?? .client }

    /// Whether a block lies in it.
    func contains(_ location: UInt64) -> Bool {
        location > self.location && location <= self.location + UInt64(payloadBlockCount)
    }
}

/// A place where a header should have been.
struct LogGap {
    /// In blocks.
    var location: UInt64
    /// Blocks behind it, or behind the last batch found there, that are no header.
    var quietBlockCount = 0

    /// As far as the largest batch reaches: behind so many there is nothing.
    static var quietBlockCountMax: Int { LogWriter.payloadBlockCountMax + 1 }
}

/// The recovery machine's state; ``LogStore`` drives it.
final class Recovery {
    enum Phase {
        case superblocks
        case manifest
        case scanning
        case announcing
        case replaying
        case checkpointing
    }

    var phase = Phase.superblocks
    let expected: StoreIdentity?
    let arena: MemoryArena
    /// What is read lands here: 2 MiB.
    let buffer: ByteRegion
    var pendingReadCount = 0
    /// Blocks whose read failed, and the last failure's errno.
    var unreadableLocations: Set<UInt64> = []
    var readErrno: Int32 = 0

    var extentIndex = 0
    var manifestBytes: [UInt8] = []
    var manifest = Manifest()

    var startIndex = 0
    /// Blocks from the segment's start where the next header is.
    var headerOffset = 0
    var readBlockCount = 0
    var batches: [ReplayBatch] = []
    /// The last batch that some header says was durable.
    var promisedSequence: UInt64 = 0
    /// What is read lies behind this.
    var gap: LogGap?
    /// The place of the first gap behind which there are batches, in blocks.
    var gapLocation: UInt64?
    /// The last batch behind a gap that replay would repeat.
    var repeatedBehindGap: UInt64 = 0
    /// Whether the segment announced before was used: then the next one may be.
    var isBehindUsed = true
    /// Whether every batch is there that the checkpoint itself wrote.
    var isCheckpointWhole = false
    /// Keeps the headers that `batches` refer to.
    var headerArenas: [MemoryArena] = []
    var headerRoom = ByteRegion.empty

    var batchIndex = 0
    /// The record to repeat next, and those behind it in its batch.
    var record: PlacedRecord?
    var walk = RecordWalk(.empty, count: 0)
    var lastSequence: UInt64 = 0

    /// Blocks in the buffer.
    static var bufferBlockCount: Int { 512 }
    /// Blocks read at a segment's start, before anything is known to be there.
    static var probeBlockCount: Int { 16 }

    init(expected: StoreIdentity?) {
        self.expected = expected
        arena = MemoryArena(byteCount: Recovery.bufferBlockCount * 4096)
        buffer = arena.allocate(byteCount: Recovery.bufferBlockCount * 4096)
    }

    /// Memory for a header's records that stays until recovery is over.
    func keep(_ records: ByteRegion) -> ByteRegion {
        guard records.byteCount > 0 else { return .empty }
        if headerRoom.byteCount < records.byteCount {
            let arena = MemoryArena(byteCount: 1 << 20)
            headerArenas.append(arena)
            headerRoom = arena.region
        }
        let kept = headerRoom.slice(0, records.byteCount)
        kept.copy(from: records)
        headerRoom = headerRoom.suffix(from: records.byteCount)
        return kept
    }
}
