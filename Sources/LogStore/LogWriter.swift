// The head of the log: batches being filled and written, and how far the log is durable.

internal import BlockCore
internal import LogFormat

/// Streams keep blocks of different lifetimes in different segments.
enum LogStream: Int, CaseIterable, BitwiseCopyable {
    /// Client data and configuration.
    case client = 0
    /// Blocks that survived a cleaning.
    case survivor = 1
    /// Map pages.
    case map = 2
    /// Manifests: each replaces the one before, so that their segments need no cleaning. Among map
    /// pages they would leave garbage that a store killed over and over never gets to clean.
    case manifest = 3

    /// The stream that records of a kind are written to.
    init(ofRecords kind: RecordKind) {
        self =
            switch kind {
            case .data, .zero, .control: .client
            case .relocate: .survivor
            case .mapPage: .map
            case .manifest: .manifest
            }
    }

    /// Whether replay repeats its batches; the others matter only once a checkpoint names them.
    var isRepeated: Bool {
        switch self {
        case .client, .survivor: true
        case .map, .manifest: false
        }
    }

    /// What its segments hold.
    var content: SegmentContent {
        switch self {
        case .client, .survivor: .data
        case .map: .map
        case .manifest: .manifest
        }
    }
}

extension RecordWalk {
    /// The stream that the batch was written for, as its first record tells; nil when there is
    /// none.
    var stream: LogStream? {
        var walk = self
        return walk.next().map { LogStream(ofRecords: $0.header.kind) }
    }
}

/// Who may take which of the last segments.
enum LogPrivilege: Int, BitwiseCopyable {
    /// Client data: leaves the whole reserve alone.
    case client
    /// Trims and configuration: may take a part of it.
    case metadata
    /// The cleaner: leaves what deletions take.
    case cleaner
    /// Deletions, which give up more than they take: leave what opening the store takes.
    case release
    /// A checkpoint, without which nothing is ever freed: may take all.
    case checkpoint
}

/// One batch.
struct Batch: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        case open
        case writing
        case written
    }

    var state = State.free
    var isDurableWrite = false
    var stream = LogStream.client
    var sequence: UInt64 = 0
    /// The header's place, in blocks.
    var location: UInt64 = 0
    var segment: Int32 = 0
    var payloadBlockCount: Int32 = 0
    var payloadBlockCountMax: Int32 = 0
    var recordCount: UInt32 = 0
    var recordByteCount: Int32 = 0
}

/// Where a stream writes next.
struct StreamHead: BitwiseCopyable {
    /// The segment being filled, or -1.
    var segment: Int32 = -1
    /// Blocks used in it.
    var blockOffset: Int32 = 0
}

/// The state of the log's head; ``LogStore`` drives it.
final class LogWriter {
    /// Batches in memory at once.
    static let batchCount = 16
    /// Payload blocks in a batch at most: 1 MiB.
    static let payloadBlockCountMax = 256
    static var memoryByteCount: Int { batchCount * (payloadBlockCountMax + 1) * 4096 }

    let batches = FixedArray<Batch>(repeating: Batch(), count: batchCount)
    let heads = FixedArray<StreamHead>(
        repeating: StreamHead(),
        count: LogStream.allCases.count
    )
    /// Sealed batches in sequence order.
    let inFlight = FixedRing<Int32>(capacityMin: batchCount)
    private let memory: ByteRegion

    /// The batch being filled, or -1.
    var open = -1
    var openSince = Instant(nanoseconds: 0)
    /// The sequence the next batch takes.
    var nextSequence: UInt64 = 1
    /// Every batch up to here was handed to the device.
    var sealedThrough: UInt64 = 0
    /// Every batch up to here was written.
    var writtenThrough: UInt64 = 0
    /// Every batch up to here is durable.
    var durableThrough: UInt64 = 0
    /// The last of the written batches that replay repeats.
    var writtenPromise: UInt64 = 0
    /// The same when the flush under way was sent.
    var flushingPromise: UInt64 = 0
    /// The last of the durable batches that replay repeats.
    var durablePromise: UInt64 = 0
    /// The last batch that was written without asking for durability.
    var lastVolatile: UInt64 = 0
    /// Somebody waits for durability up to here.
    var durableTarget: UInt64 = 0
    var isFlushing = false
    var incarnation: UInt64 = 0
    var identity: UInt64 = 0
    /// Bytes sealed since the last checkpoint began, of batches that replay repeats.
    var byteCountSinceCheckpoint: UInt64 = 0

    init(arena: MemoryArena) {
        memory = arena.allocate(byteCount: LogWriter.memoryByteCount)
    }

    /// A batch's memory: its header block, then its payload.
    @inline(always)
    func region(_ slot: Int) -> ByteRegion {
        let byteCount = (LogWriter.payloadBlockCountMax + 1) * 4096
        return memory.slice(slot &* byteCount, byteCount)
    }

    /// A batch slot that holds nothing, or -1.
    func freeSlot() -> Int {
        for slot in 0..<LogWriter.batchCount where batches[slot].state == .free { return slot }
        return -1
    }

    /// The memory of a block that is not on the device yet, or nil.
    func unwritten(_ location: UInt64) -> ByteRegion? {
        for slot in 0..<LogWriter.batchCount {
            let batch = batches[slot]
            guard batch.state != .free, location > batch.location,
                location <= batch.location &+ UInt64(batch.payloadBlockCount)
            else { continue }
            return region(slot).slice(Int(location &- batch.location) &* 4096, 4096)
        }
        return nil
    }

    /// Whether something waits that is not in a sealed batch.
    var hasOpenRecords: Bool { open >= 0 && batches[open].recordCount > 0 }
}

/// A record begun: where its tail and its payload go.
struct RecordSpan {
    /// The batch's header block.
    var header: ByteRegion
    /// Where the tail begins in it.
    var tailOffset: Int
    /// The payload's memory.
    var payload: ByteRegion
    /// The place of the first payload block.
    var location: UInt64
    /// The batch.
    var batchSequence: UInt64
}
