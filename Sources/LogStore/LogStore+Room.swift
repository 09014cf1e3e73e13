// Who may take which of the last segments, so that a full store can go on and be opened again.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Gives a stream its next segment.
    ///
    /// Clients do not ask for a checkpoint when there is none: the cleaner sees that they wait,
    /// and says when a checkpoint gives enough.
    func takeSegment(_ privilege: LogPrivilege) -> Int? {
        let floor =
            switch privilege {
            case .client: plan.reserveSegmentCount
            case .metadata: plan.reserveSegmentCount * 3 / 4
            case .cleaner: openingFloor
            case .checkpoint: 0
            }
        guard segments.reserved.count > floor, let segment = segments.reserved.popFirst() else {
            wantSpace(privilege)
            return nil
        }
        let index = Int(segment)
        segments.segments[index].state = .open
        segments.segments[index].firstBatchSequence = log.nextSequence
        return index
    }

    /// Segments that must be left for somebody to append where segments are open already.
    ///
    /// A few blocks scattered over a large volume make as many map pages, and checkpoint after
    /// checkpoint takes segments for them while the clients' own is far from full. A trim makes as
    /// many: what it gives up is room only when the cleaner has had its half to work with.
    func appendFloor(_ privilege: LogPrivilege) -> Int {
        switch privilege {
        case .client, .metadata:
            max(plan.reserveSegmentCount / 2, openingFloor + plan.stepSegmentCount)
        case .cleaner: openingFloor
        case .checkpoint: 0
        }
    }

    /// Segments that must be left when something is appended that replay must find: what closes
    /// recovery, and two more, so that a store that is opened again and again without doing anything
    /// finds a place for each time's manifest until the one before is free.
    var openingFloor: Int { closingSegmentCount + 2 }

    /// Asks for a checkpoint where that gives segments out again.
    func wantSpace(_ privilege: LogPrivilege) {
        switch privilege {
        case .client, .metadata: if segments.free.count > 0 { checkpoint.isSpaceWanted = true }
        case .cleaner, .checkpoint: checkpoint.isSpaceWanted = true
        }
    }

    /// Map pages that a moved block makes dirty at most, of those that differ from its
    /// neighbour's: its leaf, and two above in a volume that is written very thinly.
    private static var dirtyPagesPerMovedBlock: Int { 3 }

    /// Segments that the checkpoint which closes recovery would take if the store stopped after the
    /// cleaner's next step.
    ///
    /// It writes what is dirty, and again what the checkpoint under way has written in vain. Whoever
    /// appends anything that replay must find leaves so many segments: what is taken after the last
    /// such batch holds nothing but pages written in vain, and opening takes it back.
    var closingSegmentCount: Int {
        let blockCount =
            closingBlockCount + LogStore.dirtyPagesPerMovedBlock * cleaner.live.count
        let missing = max(0, blockCount - mapHeadRoom)
        return 1 + (missing + plan.segmentPayloadCount - 1) / plan.segmentPayloadCount
    }

    /// Pages and manifest of the checkpoint that would close recovery, in blocks.
    private var closingBlockCount: Int {
        map.dirtyCount + checkpoint.writtenPageCount + manifestBlockCount
    }

    /// Blocks of the manifest that a checkpoint would write, at most, with one to spare.
    private var manifestBlockCount: Int {
        let startCount = announcedSegmentCount + LogStream.allCases.count
        let byteCount =
            Manifest.fixedByteCount + catalogue.recordByteCount
            + segments.count * SegmentUsage.byteCount
            + min(startCount, segments.count) * ReplayStart.byteCount
        return byteCount / 4096 + 2
    }

    /// Payload blocks that the map's head still takes.
    private var mapHeadRoom: Int {
        let head = log.heads[LogStream.map.rawValue]
        return head.segment < 0
            ? 0 : SpacePlan.payloadCount(ofBlocks: segments.blockCount - Int(head.blockOffset))
    }

    /// Live blocks that the cleaner may move before a checkpoint must come: each takes a block, and
    /// the pages that it makes dirty.
    var movableBlockCount: Int {
        let segmentCount = max(0, segments.reserved.count - 4)
        let room = segmentCount * plan.segmentPayloadCount + mapHeadRoom - closingBlockCount
        return max(1, room / (1 + LogStore.dirtyPagesPerMovedBlock))
    }

    /// Whether a checkpoint still finds its segments after a few more pages were changed.
    var leavesCheckpointRoom: Bool { leaves(closingSegmentCount + 1) }

    /// Whether the store can still be opened after the blocks at hand were moved, or a record was
    /// written of pages that it changes, in a segment of their own.
    var leavesOpeningRoom: Bool { leaves(openingFloor + 1) }

    /// Whether so many segments are left; else a checkpoint comes first, while it needs less.
    private func leaves(_ segmentCount: Int) -> Bool {
        if segments.reserved.count >= segmentCount { return true }
        if checkpoint.isIdle, map.dirtyCount > LogStore.cleanDirtyPageCount {
            checkpoint.isRequested = true
        }
        return false
    }

    /// Dirty pages that a checkpoint may leave: the paths to what changed meanwhile.
    private static var cleanDirtyPageCount: Int { 8 }
}
