// Who may take which of the last segments, so that a full store can go on and be opened again.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Gives a stream its next segment.
    ///
    /// Clients do not ask for a checkpoint when there is none: the cleaner sees that they wait,
    /// and says when a checkpoint gives enough.
    func takeSegment(_ stream: LogStream, _ privilege: LogPrivilege) -> Int? {
        let floor =
            switch privilege {
            case .client: plan.reserveSegmentCount
            case .metadata: plan.reserveSegmentCount * 3 / 4
            case .cleaner, .release, .checkpoint: appendFloor(privilege)
            }
        guard segments.reserved.count > floor, let segment = segments.reserved.popFirst() else {
            wantSpace(privilege)
            return nil
        }
        let index = Int(segment)
        segments.change(index) {
            $0.state = .open
            $0.content = stream.content
            $0.firstBatchSequence = log.nextSequence
        }
        return index
    }

    /// Segments that must be left for somebody to append where segments are open already.
    ///
    /// A few blocks scattered over a large volume make as many map pages, and checkpoint after
    /// checkpoint takes segments for them while the clients' own is far from full. A trim makes as
    /// many: what it gives up is room only when the cleaner has room to work with.
    func appendFloor(_ privilege: LogPrivilege) -> Int {
        let opening = openingFloor
        let cleaning = opening + plan.releaseSegmentCount
        return switch privilege {
        case .client: max(plan.reserveSegmentCount / 2, cleaning + plan.stepSegmentCount)
        case .metadata: max(plan.reserveSegmentCount / 2, cleaning + 1)
        case .cleaner: cleaning
        // One more, in which the pages of a victim find room.
        case .release: opening + 1
        case .checkpoint: 0
        }
    }

    /// Asks for a checkpoint where that gives segments out again.
    func wantSpace(_ privilege: LogPrivilege) {
        switch privilege {
        case .client, .metadata: if segments.free.count > 0 { checkpoint.isSpaceWanted = true }
        case .cleaner, .release, .checkpoint: checkpoint.isSpaceWanted = true
        }
    }

    /// Map pages that a moved block makes dirty at most, of those that differ from its
    /// neighbour's: its leaf, and two above in a volume that is written very thinly.
    static var dirtyPagesPerMovedBlock: Int { 3 }

    /// Segments that must be left when something is appended that replay must find.
    ///
    /// The checkpoint that closes recovery writes what is dirty, and again what the one under way
    /// has written in vain; what the map's head still takes may be used up in vain as well. What is
    /// taken after the last such batch holds nothing else, and opening takes it back. Manifests
    /// take a place for the next and leave one for another, in segments that hold nothing else, so
    /// that a store that is opened again and again without doing anything never runs out.
    private var openingFloor: Int {
        // What was moved already has made its pages dirty, and they are counted.
        let movingCount = cleaner.live.count - cleaner.liveIndex
        let pages =
            map.dirtyCount + checkpoint.writtenPageCount
            + LogStore.dirtyPagesPerMovedBlock * movingCount
        // A few pages find room in the head also when they were written in vain before, as long
        // as opening goes on in it.
        let isInHead = 2 * pages + resumeBlockCountMin <= mapHeadRoom
        let pageSegmentCount = isInHead ? 0 : segmentCount(ofBlocks: pages)
        return pageSegmentCount + 2 * segmentCount(ofBlocks: manifestBlockCount)
    }

    /// Segments that are sure to take so many blocks.
    private func segmentCount(ofBlocks count: Int) -> Int {
        (count + plan.segmentPayloadCount - 1) / plan.segmentPayloadCount
    }

    /// Bytes of the manifest that a checkpoint would write, at most.
    var manifestByteCount: Int {
        let startCount = announcedSegmentCount + LogStream.allCases.count
        return Manifest.fixedByteCount + catalogue.recordByteCount
            + segments.count * SegmentUsage.byteCount
            + min(startCount, segments.count) * ReplayStart.byteCount
    }

    /// Blocks of it, with one to spare.
    private var manifestBlockCount: Int { manifestByteCount / 4096 + 2 }

    /// Segments that each manifest fills and the next one frees: none where two and more find room
    /// in one segment, which is free only when all of them are dead.
    var manifestChurnCount: Int {
        let blockCount = manifestBlockCount
        return 2 * blockCount > plan.segmentPayloadCount ? segmentCount(ofBlocks: blockCount) : 0
    }

    /// Live blocks that the cleaner may move before a checkpoint must come: each takes a block, and
    /// the pages that it makes dirty.
    var movableBlockCount: Int {
        // One that is begun for the blocks besides.
        let kept = appendFloor(.cleaner) + 1
        let room = max(0, segments.reserved.count - kept) * plan.segmentPayloadCount
        return max(1, room / (1 + LogStore.dirtyPagesPerMovedBlock))
    }

    /// Whether the store can still be opened after the blocks at hand were moved, in a segment of
    /// their own; else a checkpoint comes first.
    func leavesRoom(for privilege: LogPrivilege) -> Bool {
        leaves(appendFloor(privilege) + 1)
    }

    /// Whether the store can still be opened after a record was written that changes pages; else a
    /// checkpoint comes first.
    func leavesRoomForRecord(_ privilege: LogPrivilege) -> Bool {
        let isInHead = headRoom(.client) > 0
        return leaves(appendFloor(privilege) + (isInHead ? 0 : 1))
    }

    /// Whether a checkpoint finds room for so many more dirty pages and its manifest.
    ///
    /// Pages that only move are not in the log: when the store stops before the checkpoint is
    /// finished, opening it does not write them.
    func leavesRoom(forPages count: Int) -> Bool {
        let beyondHead = map.dirtyCount + checkpoint.writtenPageCount + count - mapHeadRoom
        return leaves(
            segmentCount(ofBlocks: max(0, beyondHead)) + segmentCount(ofBlocks: manifestBlockCount)
        )
    }

    /// Payload blocks that the map's head still takes.
    private var mapHeadRoom: Int { headRoom(.map) }

    /// Payload blocks that a stream's head still takes.
    private func headRoom(_ stream: LogStream) -> Int {
        let head = log.heads[stream.rawValue]
        return head.segment < 0
            ? 0 : SpacePlan.payloadCount(ofBlocks: segments.blockCount - Int(head.blockOffset))
    }

    /// Whether so many segments are left; else a checkpoint comes first, while it needs less.
    private func leaves(_ segmentCount: Int) -> Bool {
        if segments.reserved.count >= segmentCount { return true }
        guard checkpoint.isIdle, map.dirtyCount > 0 else { return false }
        // Not for less, whoever asks: checkpoints of a few pages each use up what they are to give,
        // and on a store that has come to rest they never end.
        if map.dirtyCount > LogStore.cleanDirtyPageCount || segments.pendingFreeCount > 0 {
            checkpoint.isRequested = true
        }
        return false
    }

    /// Dirty pages that a checkpoint may leave: the paths to what changed meanwhile.
    private static var cleanDirtyPageCount: Int { 8 }
}

extension ControlRecord {
    /// How deep into the reserve it may go.
    var privilege: LogPrivilege {
        switch self {
        // What must be said of a volume before it can be deleted, its attachment above all.
        // A replica that promises nothing holds up its primary.
        case .deleteSnapshot, .deleteVolume, .removeLayer, .updateVolume, .setReplica: .release
        default: .metadata
        }
    }
}
