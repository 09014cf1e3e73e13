// Checkpoints: the map as it was after one batch, written beside the traffic that goes on.
//
// At the capture every dirty page is frozen: a later change writes it out first, so what the
// checkpoint writes is exactly the map after `sequence`, and replaying the batches behind it
// repeats what happened, record by record.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    /// Pages written in one turn, so that requests are served in between.
    private static var pageCountPerTurn: Int { 64 }
    /// Frames looked at in one turn.
    private static var frameCountPerTurn: Int { 8192 }

    /// Starts or continues a checkpoint.
    ///
    /// - Returns: Whether it can go on without waiting.
    func runCheckpoint() -> Bool {
        switch checkpoint.phase {
        case .idle:
            guard isCheckpointDue else { return false }
            beginCheckpoint()
            return true
        case .pages: return writePages()
        case .manifest: return writeManifest()
        case .hardening:
            guard let target = checkpoint.waitSequence, log.durableThrough >= target else {
                return false
            }
            checkpoint.waitSequence = nil
            writeSuperblock()
            return false
        case .superblock: return false
        }
    }

    private var isCheckpointDue: Bool {
        if checkpoint.isRequested { return true }
        if checkpoint.isSpaceWanted {
            checkpoint.isSpaceWanted = false
            if checkpointGivesSpace { return true }
        }
        if log.byteCountSinceCheckpoint >= configuration.checkpointByteCount { return true }
        return map.dirtyCount >= plan.dirtyPageCountMax * 3 / 4
    }

    /// Whether a checkpoint would make segments available, beyond those that every one of them
    /// uses up and gives back.
    var checkpointGivesSpace: Bool {
        segments.free.count > manifestChurnCount || segments.pendingFreeCount > 0
    }

    func beginCheckpoint() {
        if log.hasOpenRecords { sealBatch() }
        checkpoint.isRequested = false
        checkpoint.sequence = log.sealedThrough
        checkpoint.writtenPageCount = 0
        log.byteCountSinceCheckpoint = 0
        for frame in 0..<map.count where map.frames[frame].flags.contains(.dirty) {
            map.frames[frame].flags.insert(.frozen)
        }
        captureUsage()
        captureCatalogue()
        checkpoint.level = 0
        checkpoint.frameCursor = 0
        checkpoint.phase = .pages
    }

    private func captureUsage() {
        for index in 0..<segments.count {
            segments.segments[index].capturedLiveBlockCount =
                segments.segments[index].liveBlockCount
        }
        // The manifest in force is not part of the next one's count.
        for extent in superblock?.manifestExtents ?? [] {
            segments.adjustCaptured(extent.location, by: -Int(extent.blockCount))
        }
    }

    private func captureCatalogue() {
        var manifest = Manifest()
        manifest.volumes = catalogue.volumes.values.sorted { $0.id.rawValue < $1.id.rawValue }
        checkpoint.layerIndex = [:]
        for slot in catalogue.slotByLayer.values.sorted() {
            checkpoint.layerIndex[slot] = manifest.layers.count
            manifest.layers.append(catalogue.record(ofLayer: slot))
            if defect == .positionNotCheckpointed {
                manifest.layers[manifest.layers.count - 1].streamPosition = 0
            }
        }
        catalogue.pruneForwards(olderThan: oldestBatchSequence)
        manifest.forwards = catalogue.forwards.values.sorted {
            $0.from.rawValue < $1.from.rawValue
        }
        manifest.nextLayerID = catalogue.nextLayerID
        manifest.writeSequence = writeSequence
        manifest.dirtyPageCountMax = UInt32(plan.dirtyPageCountMax)
        manifest.replayStarts = announceSegments()
        checkpoint.manifest = manifest
    }

    /// The first batch that any segment in use may still hold; 0 when unknown.
    private var oldestBatchSequence: UInt64 {
        var oldest = UInt64.max
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            switch segment.state {
            case .open, .closed: oldest = min(oldest, segment.firstBatchSequence)
            case .free, .reserved: break
            }
        }
        return oldest
    }

    /// Where replay will look: heads of streams, segments announced before, and new ones.
    private func announceSegments() -> [ReplayStart] {
        var starts: [ReplayStart] = []
        for stream in 0..<log.heads.count where log.heads[stream].segment >= 0 {
            starts.append(
                ReplayStart(
                    segment: UInt32(log.heads[stream].segment),
                    blockOffset: UInt32(log.heads[stream].blockOffset)
                )
            )
        }
        for _ in 0..<segments.reserved.count {
            guard let segment = segments.reserved.popFirst() else { break }
            starts.append(ReplayStart(segment: segment, blockOffset: 0))
            segments.reserved.append(segment)
        }
        checkpoint.nextReserved = []
        while starts.count < announcedSegmentCount, let segment = segments.free.popFirst() {
            segments.change(Int(segment)) { $0.state = .reserved }
            checkpoint.nextReserved.append(segment)
            starts.append(ReplayStart(segment: segment, blockOffset: 0))
        }
        announceDying(&starts)
        return starts
    }

    /// Announces segments that this checkpoint itself will free.
    private func announceDying(_ starts: inout [ReplayStart]) {
        for index in 0..<segments.count {
            guard starts.count < announcedSegmentCount else { return }
            let segment = segments.segments[index]
            guard segment.state == .closed, segment.liveBlockCount == 0,
                segment.capturedLiveBlockCount == 0, segment.unwrittenBatchCount == 0,
                segment.lastBatchSequence <= checkpoint.sequence
            else { continue }
            segments.change(index) {
                $0.state = .reserved
                $0.forgetContent()
            }
            checkpoint.nextReserved.append(UInt32(index))
            starts.append(ReplayStart(segment: UInt32(index), blockOffset: 0))
        }
    }

    /// Segments announced at a time: the log of two intervals, and the reserve.
    var announcedSegmentCount: Int {
        let segmentByteCount = UInt64(segments.blockCount * 4096)
        let interval = Int(configuration.checkpointByteCount / segmentByteCount)
        return 2 * plan.reserveSegmentCount + 2 * interval + 8
    }

    // MARK: - Pages

    private func writePages() -> Bool {
        var written = 0
        var looked = 0
        while written < LogStore.pageCountPerTurn, looked < LogStore.frameCountPerTurn {
            if checkpoint.frameCursor == map.count {
                checkpoint.frameCursor = 0
                checkpoint.level += 1
                if checkpoint.level > MapGeometry.levelMax {
                    encodeManifest()
                    return true
                }
            }
            let frame = checkpoint.frameCursor
            let entry = map.frames[frame]
            if entry.isUsed, entry.flags.contains(.frozen),
                PageKey(rawValue: entry.key).level == checkpoint.level
            {
                guard writeFrozen(frame) else { return false }
                written += 1
            }
            checkpoint.frameCursor += 1
            looked += 1
        }
        return true
    }

    /// Writes a frozen page to the log and names it in its parent.
    ///
    /// - Returns: false when there is no room now.
    func writeFrozen(_ frame: Int) -> Bool {
        guard makeRoom(.map, .checkpoint, tailByteCount: 4, payloadBlockCount: 1) else {
            return false
        }
        let key = PageKey(rawValue: map.frames[frame].key)
        let layer = key.layer
        let span = beginRecord(
            RecordHeader(
                kind: .mapPage,
                level: key.level,
                blockCount: 1,
                layer: catalogue.layers[layer].id,
                firstBlock: key.index,
                tailByteCount: 4
            )
        )
        span.payload.copy(from: map.page(frame))
        if map.frames[frame].hasInherited {
            for index in 0..<MapEntry.countPerPage where map.frames[frame].isInherited(index) {
                span.payload.setMapEntry(.absent, index)
            }
        }
        let crc = span.payload.crc32c()
        span.header.store(crc, at: span.tailOffset)
        counters.mapPageWriteCount += 1
        checkpoint.writtenPageCount += 1
        let entry = MapEntry(location: span.location, crc: crc, sequence: 0)
        segments.addLive(entry.location)
        segments.adjustCaptured(entry.location, by: 1)
        let old = replaceLink(key, with: entry)
        if old.isData {
            segments.removeLive(old.location)
            segments.adjustCaptured(old.location, by: -1)
        }
        becomeClean(frame, key)
        return true
    }

    /// Names a page in its parent, or in its layer when it is the root.
    private func replaceLink(_ key: PageKey, with entry: MapEntry) -> MapEntry {
        if key.level == catalogue.layers[key.layer].rootLevel {
            let old = catalogue.layers[key.layer].root
            catalogue.layers[key.layer].root = entry
            if let index = checkpoint.layerIndex[key.layer] {
                checkpoint.manifest.layers[index].root = entry
            }
            return old
        }
        let parent = parentFrame(key)
        let page = map.page(parent)
        let index = Int(key.index & 255)
        let old = page.mapEntry(index)
        page.setMapEntry(entry, index)
        return old
    }

    /// The frame of a dirty page's parent, which is resident by invariant.
    func parentFrame(_ key: PageKey) -> Int {
        let parent = map.find(
            PageKey(
                layer: key.layer,
                level: key.level + 1,
                index: key.index >> MapEntry.pageShift
            )
        )
        precondition(parent >= 0, "a dirty page's parent is resident")
        return parent
    }

    private func becomeClean(_ frame: Int, _ key: PageKey) {
        if map.frames[frame].flags.contains(.unlinked) {
            map.frames[frame].flags.remove(.unlinked)
            catalogue.layers[key.layer].unlinkedPageCount -= 1
        }
        map.frames[frame].flags.remove(.frozen)
        // A page with dirty children is due again when they are written.
        if key.level > 0, map.frames[frame].pinCount > 0 { return }
        unpinParent(key)
        map.clearDirty(frame)
    }

    /// Tells a page's parent that it has one dirty child less.
    func unpinParent(_ key: PageKey) {
        guard key.level < catalogue.layers[key.layer].rootLevel else { return }
        map.frames[parentFrame(key)].pinCount -= 1
    }
}
