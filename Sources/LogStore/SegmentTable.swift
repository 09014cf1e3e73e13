// The device as segments: which are free, what is live in each.
//
// Invariant: a segment is given out again only when nothing of it is live, the newest durable
// checkpoint does not name it, and no batch after that checkpoint lies in it.

internal import BlockCore
internal import LogFormat

/// What a segment is used for now.
enum SegmentState: UInt8, BitwiseCopyable {
    /// Nothing in it is needed.
    case free
    /// Free, and announced by the newest checkpoint as a place where replay looks.
    case reserved
    /// Being filled.
    case open
    /// Filled.
    case closed
}

/// One segment.
struct Segment: BitwiseCopyable {
    var state: SegmentState = .free
    /// What it holds, once something was written to it.
    var content: SegmentContent = .unknown
    /// The cleaner failed to read it; left alone.
    var isDamaged = false
    /// The cleaner is done with it: what is live in it are map pages, which the next checkpoint
    /// moves.
    var isDrained = false
    /// The cleaner found no room for what is live in it; tried again after a gain.
    var isDeferred = false
    /// Batches of it that are not on the device yet.
    var unwrittenBatchCount: UInt16 = 0
    /// Live blocks: data, map pages, manifest.
    var liveBlockCount: UInt32 = 0
    /// Live blocks as the newest durable checkpoint has it.
    var checkpointLiveBlockCount: UInt32 = 0
    /// The same, of the checkpoint under way.
    var capturedLiveBlockCount: UInt32 = 0
    /// How often it was given out; entries remembered from before are stale.
    var reuseCount: UInt32 = 0
    /// The first batch in it; 0 when unknown.
    var firstBatchSequence: UInt64 = 0
    /// The last batch in it.
    var lastBatchSequence: UInt64 = 0

    /// Whether it is free once a checkpoint has passed.
    var isPendingFree: Bool { state == .closed && (liveBlockCount == 0 || isDrained) }

    /// Forgets what was found out about what it held.
    mutating func forgetContent() {
        isDamaged = false
        isDrained = false
        isDeferred = false
        content = .unknown
    }
}

/// All segments of a store.
final class SegmentTable {
    let segments: FixedArray<Segment>
    /// Blocks per segment.
    let blockCount: Int
    private let firstBlock: UInt64
    private let shift: UInt64
    /// Free segments that the newest checkpoint does not announce.
    let free: FixedRing<UInt32>
    /// Announced segments, in the order in which they are given out.
    let reserved: FixedRing<UInt32>
    private(set) var liveBlockCount: UInt64 = 0
    /// Closed segments that are free once a checkpoint has passed: kept, as it is asked for in
    /// every turn of a store that runs short of them.
    private(set) var pendingFreeCount = 0
    /// A segment of which more turned out to be live than its manifest counted, if there is one:
    /// the manifest is wrong, and nothing may be given out again for what it says.
    private(set) var miscounted: Int?

    init(segmentCount: Int, segmentByteCount: Int) {
        segments = FixedArray(repeating: Segment(), count: segmentCount)
        blockCount = segmentByteCount / BlockGeometry.blockByteCount
        firstBlock = Superblock.segmentAreaOffset / UInt64(BlockGeometry.blockByteCount)
        shift =
            blockCount & (blockCount - 1) == 0
            ? UInt64(blockCount.trailingZeroBitCount) : UInt64.max
        free = FixedRing(capacityMin: segmentCount)
        reserved = FixedRing(capacityMin: segmentCount)
    }

    var count: Int { segments.count }

    /// Segments that can still be given out.
    var availableCount: Int { free.count + reserved.count }

    /// The segment of a block.
    @inline(always)
    func index(of location: UInt64) -> Int {
        let relative = location &- firstBlock
        return shift == UInt64.max ? Int(relative) / blockCount : Int(relative >> shift)
    }

    /// The first block of a segment.
    func location(of segment: Int) -> UInt64 {
        firstBlock + UInt64(segment) * UInt64(blockCount)
    }

    /// Whether a location lies in the segment area.
    func contains(_ location: UInt64) -> Bool {
        location >= firstBlock && location < firstBlock + UInt64(count) * UInt64(blockCount)
    }

    /// Counts blocks as live.
    @inline(always)
    func addLive(_ location: UInt64, count: Int = 1) {
        let segment = index(of: location)
        let wasPending = segments[segment].isPendingFree
        segments[segment].liveBlockCount += UInt32(count)
        if wasPending, !segments[segment].isPendingFree { pendingFreeCount -= 1 }
        liveBlockCount &+= UInt64(count)
    }

    /// Counts blocks as dead.
    @inline(always)
    func removeLive(_ location: UInt64, count: Int = 1) {
        let segment = index(of: location)
        guard segments[segment].liveBlockCount >= UInt32(count) else {
            miscounted = segment
            return
        }
        let wasPending = segments[segment].isPendingFree
        segments[segment].liveBlockCount -= UInt32(count)
        if !wasPending, segments[segment].isPendingFree { pendingFreeCount += 1 }
        liveBlockCount &-= UInt64(count)
    }

    /// Changes a segment in what ``pendingFreeCount`` depends on.
    func change(_ segment: Int, _ body: (inout Segment) -> Void) {
        if segments[segment].isPendingFree { pendingFreeCount -= 1 }
        body(&segments[segment])
        if segments[segment].isPendingFree { pendingFreeCount += 1 }
    }

    /// Adjusts the copy that the checkpoint under way will write.
    func adjustCaptured(_ location: UInt64, by delta: Int) {
        let segment = index(of: location)
        let value = Int(segments[segment].capturedLiveBlockCount) + delta
        if value < 0 { miscounted = segment }
        segments[segment].capturedLiveBlockCount = UInt32(max(0, value))
    }

    /// Frees every segment that nothing needs any more.
    ///
    /// - Parameter checkpointSequence: The last batch of the newest durable checkpoint.
    /// - Returns: How many were freed.
    func collectFree(checkpointSequence: UInt64) -> Int {
        var freed = 0
        for index in 0..<count {
            let segment = segments[index]
            guard segment.state == .closed, segment.liveBlockCount == 0,
                segment.checkpointLiveBlockCount == 0, segment.unwrittenBatchCount == 0,
                segment.lastBatchSequence <= checkpointSequence
            else { continue }
            change(index) {
                $0.state = .free
                $0.reuseCount &+= 1
                $0.firstBatchSequence = 0
                $0.forgetContent()
            }
            free.append(UInt32(index))
            freed += 1
        }
        return freed
    }
}
