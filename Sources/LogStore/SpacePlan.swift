// How a store divides its device and its map memory: decided once, when the superblock is known.

/// Bounds that follow from the device's segments and the frames of map memory.
struct SpacePlan {
    /// Map pages changed since they were last written, at most, before writers wait for a
    /// checkpoint.
    ///
    /// Replay finds every page again that was changed since the last finished checkpoint: those
    /// that the unfinished one had already written, and as many after it. Twice this number, with
    /// the cleaner's excess, must find frames.
    let dirtyPageCountMax: Int
    /// Of these, what only the cleaner may use beyond the bound, so that it can finish a victim.
    let cleanerExcessPageCount: Int
    /// Segments that clients do not get: room for a checkpoint and for the cleaner's survivors.
    let reserveSegmentCount: Int
    /// What clients leave to the cleaner beyond what opening the store needs: a segment for the
    /// blocks of one step, and those for the pages that they make dirty.
    let stepSegmentCount: Int
    /// What the cleaner leaves to deletions: their records, one for each map page, and the pages
    /// above those.
    let releaseSegmentCount: Int
    /// Payload blocks that a segment is sure to take, of a checkpoint that fills it in batches.
    let segmentPayloadCount: Int
    /// Blocks that clients may have live, for ENOSPC.
    let usableBlockCount: UInt64
    /// Blocks that may be live before a trim is refused that needs a map page of its own, because
    /// it hides what an ancestor holds.
    let trimBlockCount: UInt64
    /// Cleaning begins when fewer segments than this can be given out.
    let cleanBelowCount: Int
    /// While somebody waits for room, a checkpoint is worth while when it leaves this many.
    let pressedCheckpointCount: Int

    /// Map pages made dirty by the blocks of the sparsest victim, in the worst case.
    private static var stepPageCount: Int { 32 }

    /// Before a superblock is known.
    static var none: SpacePlan { SpacePlan(segmentCount: 1, segmentBlockCount: 256, frameCount: 0) }

    /// Fewer dirty pages than this would have a checkpoint follow every few writes.
    private static var dirtyPageCountMin: Int { 32 }
    /// Bounds what a checkpoint writes and replay reads: 128 MiB of pages.
    private static var dirtyPageCountLimit: Int { 32_768 }
    /// A checkpoint's pages take at most this part of the device.
    private static var dirtyPageDivisor: Int { 32 }
    /// The open heads of the streams, and as many for the segments that follow them.
    private static var headSegmentCount: Int { 8 }
    /// A batch's header has records of some 50 pages, and at most half of what is live are pages.
    private static var releaseDivisor: Int { 100 }
    /// Of so many blocks of a segment one is taken to be a batch header.
    private static var headerDivisor: Int { 60 }
    /// A manifest's share for each segment, in bytes: live blocks, content and last batch.
    private static var manifestByteCountPerSegment: Int { 12 }
    /// A manifest's volumes and layers: about a thousand.
    private static var catalogueByteCount: Int { 65_536 }
    /// Parts of a hundred of the packed space that may be live: cleaning a store that is fuller
    /// copies ten blocks and more to gain one.
    private static var usablePercent: UInt64 { 92 }

    /// The same for trims, which make room in the end: between that and full, less what one
    /// interval's pages may add (``dirtyPageDivisor``).
    private static var trimPercent: UInt64 { 96 }

    /// - Parameters:
    ///   - segmentCount: Segments of the device.
    ///   - segmentBlockCount: Blocks in each.
    ///   - frameCount: Pages that fit into map memory.
    init(segmentCount: Int, segmentBlockCount: Int, frameCount: Int) {
        let blockCount = segmentCount * segmentBlockCount
        dirtyPageCountMax = max(
            SpacePlan.dirtyPageCountMin,
            min(
                frameCount * 3 / 8,
                blockCount / SpacePlan.dirtyPageDivisor,
                SpacePlan.dirtyPageCountLimit
            )
        )
        cleanerExcessPageCount = min(64, frameCount / 16)
        segmentPayloadCount = SpacePlan.payloadCount(ofBlocks: segmentBlockCount)
        stepSegmentCount =
            1 + (SpacePlan.stepPageCount + segmentPayloadCount - 1) / segmentPayloadCount
        releaseSegmentCount = 2 + segmentCount / SpacePlan.releaseDivisor
        // A quarter more than the pages: paths to them, and batches that are not full.
        let room = segmentBlockCount - 2
        let pageSegmentCount = (dirtyPageCountMax * 5 / 4 + segmentBlockCount - 1) / room
        let manifestByteCount =
            segmentCount * SpacePlan.manifestByteCountPerSegment + SpacePlan.catalogueByteCount
        let manifestBlockCount = manifestByteCount / 4096 + 1
        let manifestSegmentCount = (manifestBlockCount + segmentBlockCount - 1) / room
        // Twice: a checkpoint finds what it needs when the other half is gone.
        reserveSegmentCount = min(
            SpacePlan.headSegmentCount + 2 * (pageSegmentCount + manifestSegmentCount),
            max(SpacePlan.headSegmentCount, segmentCount / 4)
        )
        let packed =
            (segmentCount - reserveSegmentCount - 3)
            * (segmentBlockCount - 1 - segmentBlockCount / SpacePlan.headerDivisor)
        usableBlockCount = UInt64(max(packed, 0)) * SpacePlan.usablePercent / 100
        trimBlockCount = UInt64(max(packed, 0)) * SpacePlan.trimPercent / 100
        cleanBelowCount = reserveSegmentCount + max(segmentCount / 16, 6)
        pressedCheckpointCount = reserveSegmentCount + max(segmentCount / 64, 2)
    }

    /// Of eight blocks one is left for batch headers; full batches need far fewer.
    static func payloadCount(ofBlocks count: Int) -> Int { count * 7 / 8 }

    /// Map memory with which so many dirty pages are sure to be replayed: bytes, whole MiB.
    static func mapMemoryByteCount(forDirtyPages count: Int) -> Int {
        let byteCount = (count * 8 + 2) / 3 * 4096
        return (byteCount + (1 << 20) - 1) & ~((1 << 20) - 1)
    }
}
