// Cleaning: live blocks of sparse segments move to the survivors' stream, so that the segment
// can be given out again. Victims are chosen by cost and benefit.
//
// Source: Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File
// System", section 3.5; the age of a segment is that of its newest batch.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    /// Candidates judged in one turn.
    private static var judgementCountPerTurn: Int { 512 }
    /// A fuller segment gives too little back for its work.
    private static var utilisationMax: Double { 0.97 }

    /// Goes on with the victim at hand, or chooses one when free segments run short.
    ///
    /// - Returns: Whether it can go on without waiting.
    func runCleaner() -> Bool {
        if case .closing = state {
            if cleaner.pendingReadCount == 0 { cleaner.phase = .idle }
            return false
        }
        switch cleaner.phase {
        case .idle: return beginCleaning()
        case .scanning, .reading: return false
        case .judging: return judge()
        case .moving: return moveLive()
        }
    }

    /// A checkpoint is worth while when it leaves so many segments to give out: all that cleaning
    /// aims at, or a few while somebody waits.
    private var checkpointAboveCount: Int {
        hasPressure ? plan.pressedCheckpointCount : plan.cleanBelowCount
    }

    /// Whether somebody waits for room.
    private var hasPressure: Bool { !writeWaiters.isEmpty || !commands.isEmpty }

    private func beginCleaning() -> Bool {
        guard segments.availableCount < plan.cleanBelowCount, checkpoint.isIdle else {
            return false
        }
        // A checkpoint writes every page that cleaning has made dirty: it must be worth it.
        let pending = segments.pendingFreeCount
        if pending > 0, segments.availableCount + pending >= checkpointAboveCount {
            checkpoint.isSpaceWanted = true
            return true
        }
        guard !isResting else { return false }
        let gained = segments.availableCount + pending
        // What clients used up meanwhile was gained too.
        if gained > cleaner.availableBest || cleaner.progressMark != changeMark {
            cleaner.progressMark = changeMark
            cleaner.availableBest = gained
            cleaner.fruitlessCount = 0
        }
        guard cleaner.fruitlessCount < Cleaner.fruitlessCountMax, let victim = chooseVictim() else {
            if pending > 0 { checkpoint.isSpaceWanted = true }
            rest()
            return pending > 0
        }
        cleaner.fruitlessCount += 1
        cleaner.live.removeAll(keepingCapacity: true)
        cleaner.victim = victim
        cleaner.headerOffset = 0
        cleaner.candidates.removeAll(keepingCapacity: true)
        cleaner.candidateIndex = 0
        cleaner.blockIndex = 0
        cleaner.hasFailed = false
        scanNext()
        return false
    }

    /// Whether to wait for clients, because cleaning last gained nothing.
    private var isResting: Bool {
        guard let mark = cleaner.restingMark else { return false }
        // Somebody who waits for room is worth a try of its own, and one after any change;
        // otherwise a full store would be copied over for every few writes.
        guard !hasPressure || cleaner.restedUnderPressure else {
            cleaner.restingMark = nil
            cleaner.fruitlessCount = 0
            return false
        }
        let changeCountMin: UInt64 = hasPressure ? 1 : UInt64(segments.blockCount)
        if changeMark &- mark < changeCountMin { return true }
        cleaner.restingMark = nil
        return false
    }

    /// Leaves the victim at hand: there is no room to move its blocks to.
    func restCleaner() {
        cleaner.phase = .idle
        rest()
    }

    private func rest() {
        cleaner.restingMark = changeMark
        cleaner.restedUnderPressure = hasPressure
    }

    /// Moves on when clients or layer work changed what is live.
    private var changeMark: UInt64 { writeSequence &+ layerJob.pageCount }

    private func chooseVictim() -> Int? {
        var best: Int?
        var bestScore = 0.0
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            guard segment.state == .closed, !segment.isDamaged, !segment.isDrained,
                segment.liveBlockCount > 0, segment.unwrittenBatchCount == 0
            else { continue }
            let utilisation = Double(segment.liveBlockCount) / Double(segments.blockCount)
            guard utilisation <= LogStore.utilisationMax else { continue }
            let age = Double(log.nextSequence &- segment.lastBatchSequence) + 1
            // Who waits for room wants the most room; otherwise cold segments are worth more.
            let score =
                hasPressure ? 1 - utilisation : (1 - utilisation) * age / (1 + utilisation)
            if best == nil || score > bestScore {
                best = index
                bestScore = score
            }
        }
        return best
    }

    // MARK: - Scanning

    private func scanNext() {
        let rest = segments.blockCount - cleaner.headerOffset
        guard rest > 0 else {
            cleaner.phase = .judging
            return
        }
        let count = min(rest, Cleaner.scanBlockCount)
        cleaner.phase = .scanning
        read(
            location: segments.location(of: cleaner.victim) + UInt64(cleaner.headerOffset),
            into: cleaner.buffer.slice(0, count * 4096)
        )
    }

    private func read(location: UInt64, into region: ByteRegion) {
        let operation = ops.take(.cleanerRead, owner: -1)
        cleaner.pendingReadCount += 1
        deviceRequests.append(
            DeviceRequest(
                kind: .read,
                offset: location * 4096,
                region: region,
                token: ops.token(operation)
            )
        )
    }

    func finishCleanerRead(errno: Int32) {
        cleaner.pendingReadCount -= 1
        if errno != 0 { cleaner.hasFailed = true }
        guard cleaner.pendingReadCount == 0 else { return }
        switch cleaner.phase {
        case .scanning:
            if cleaner.hasFailed { giveUpVictim() } else { parseHeaders() }
        case .reading:
            if cleaner.hasFailed || !liveBlocksVerify() {
                giveUpVictim()
            } else {
                cleaner.liveIndex = 0
                cleaner.phase = .moving
            }
        case .idle, .judging, .moving: break
        }
    }

    /// A block of the victim cannot be read: it stays where it is.
    private func giveUpVictim() {
        segments.segments[cleaner.victim].isDamaged = true
        counters.checksumErrorCount += 1
        cleaner.phase = .idle
    }

    private func parseHeaders() {
        let start = cleaner.headerOffset
        let count = min(segments.blockCount - start, Cleaner.scanBlockCount)
        while cleaner.headerOffset < start + count {
            let block = cleaner.buffer.slice((cleaner.headerOffset - start) * 4096, 4096)
            let location = segments.location(of: cleaner.victim) + UInt64(cleaner.headerOffset)
            guard let header = BatchHeader.decode(block), header.location == location,
                header.identity == log.identity
            else {
                cleaner.phase = .judging
                return
            }
            collect(header, block)
            cleaner.headerOffset += 1 + Int(header.payloadBlockCount)
        }
        scanNext()
    }

    private func collect(_ header: BatchHeader, _ block: ByteRegion) {
        for placed in header.records(in: block) {
            let record = placed.header
            switch record.kind {
            case .data, .relocate, .mapPage:
                cleaner.candidates.append(
                    CleanCandidate(
                        kind: record.kind,
                        level: record.level,
                        layer: record.layer,
                        firstBlock: record.firstBlock,
                        blockCount: record.blockCount,
                        location: header.location + 1 + UInt64(placed.payloadIndex)
                    )
                )
            case .zero, .manifest, .control: break
            }
        }
    }

    // MARK: - Judging

    private func judge() -> Bool {
        var budget = LogStore.judgementCountPerTurn
        if cleaner.live.count == Cleaner.liveBlockCountMax { return readLive() }
        while cleaner.candidateIndex < cleaner.candidates.count {
            guard budget > 0 else { return true }
            budget -= 1
            let candidate = cleaner.candidates[cleaner.candidateIndex]
            guard cleaner.blockIndex < Int(candidate.blockCount) else {
                cleaner.candidateIndex += 1
                cleaner.blockIndex = 0
                continue
            }
            let isJudged =
                candidate.kind == .mapPage ? judgePage(candidate) : judgeBlock(candidate)
            guard isJudged else { return false }
            cleaner.blockIndex += 1
            if cleaner.live.count == Cleaner.liveBlockCountMax { return readLive() }
        }
        if !cleaner.live.isEmpty { return readLive() }
        finishVictim()
        return true
    }

    /// - Returns: false when a page must be read first.
    private func judgeBlock(_ candidate: CleanCandidate) -> Bool {
        let block = candidate.firstBlock + UInt64(cleaner.blockIndex)
        let location = candidate.location + UInt64(cleaner.blockIndex)
        var owner = owner(of: candidate.layer)
        while let slot = owner {
            switch loadPage(layer: slot, level: 0, index: block >> MapEntry.pageShift) {
            case .ready(let frame):
                let entry = ownEntry(frame: frame, index: Int(block & 255))
                if entry.location == location {
                    cleaner.live.append(
                        LiveBlock(layer: catalogue.layers[slot].id, block: block, entry: entry)
                    )
                    return true
                }
            case .absent: break
            case .loading, .noResource: return false
            case .failed:
                cleaner.hasFailed = true
                return true
            }
            // While a layer is merged, its blocks are in it or in its child.
            guard catalogue.layers[slot].role == .unnamed else { return true }
            owner = catalogue.onlyChild(of: slot)
        }
        return true
    }

    /// The layer that has a record's blocks now, through the layers it was merged into.
    private func owner(of id: LayerID) -> Int? {
        var current = id
        while true {
            if let slot = catalogue.slot(of: current) { return slot }
            guard let forward = catalogue.forwards[current] else { return nil }
            current = forward.into
        }
    }

    /// A live page moves with the next checkpoint.
    private func judgePage(_ candidate: CleanCandidate) -> Bool {
        guard let slot = catalogue.slot(of: candidate.layer) else { return true }
        let rootLevel = catalogue.layers[slot].rootLevel
        guard candidate.level <= rootLevel else { return true }
        var link = catalogue.layers[slot].root
        if candidate.level < rootLevel {
            let parent = loadPage(
                layer: slot,
                level: candidate.level + 1,
                index: candidate.firstBlock >> MapEntry.pageShift
            )
            switch parent {
            case .ready(let frame):
                link = map.page(frame).mapEntry(Int(candidate.firstBlock & 255))
            case .absent: return true
            case .loading, .noResource: return false
            case .failed:
                cleaner.hasFailed = true
                return true
            }
        }
        guard link.location == candidate.location else { return true }
        guard leavesCheckpointRoom else { return false }
        let page = writablePage(
            layer: slot,
            level: candidate.level,
            index: candidate.firstBlock,
            isUrgent: mayExceed
        )
        switch page {
        case .ready, .absent: return true
        case .loading, .noResource: return false
        case .failed:
            cleaner.hasFailed = true
            return true
        }
    }

    // MARK: - Moving

    /// Reads the live blocks, when there are operations enough for the worst case.
    private func readLive() -> Bool {
        let needed = cleaner.live.count + OperationTable.reservedCount
        guard ops.inFlightCount + needed <= ops.operations.count else { return false }
        guard leavesCheckpointRoom else { return false }
        cleaner.phase = .reading
        cleaner.liveIndex = 0
        var index = 0
        while index < cleaner.live.count {
            var count = 1
            while index + count < cleaner.live.count,
                cleaner.live[index + count].entry.location
                    == cleaner.live[index].entry.location + UInt64(count)
            {
                count += 1
            }
            read(
                location: cleaner.live[index].entry.location,
                into: cleaner.buffer.slice(index * 4096, count * 4096)
            )
            index += count
        }
        return false
    }

    /// Whether a checkpoint still finds its segments after the blocks at hand were moved, or a few
    /// more pages changed; else one comes first, while it needs less.
    var leavesCheckpointRoom: Bool {
        let needed = min(plan.reserveSegmentCount / 2, checkpointSegmentCount + 1)
        if segments.reserved.count >= needed { return true }
        if checkpoint.isIdle, map.dirtyCount > LogStore.cleanDirtyPageCount {
            checkpoint.isRequested = true
        }
        return false
    }

    /// Whether the cleaner may make one more page dirty: a victim half moved frees nothing.
    private var mayExceed: Bool {
        map.dirtyCount < plan.dirtyPageCountMax + plan.cleanerExcessPageCount
    }

    /// Dirty pages that a checkpoint may leave: the paths to what changed meanwhile.
    private static var cleanDirtyPageCount: Int { 8 }

    private func liveBlocksVerify() -> Bool {
        for index in 0..<cleaner.live.count {
            let block = cleaner.buffer.slice(index * 4096, 4096)
            if block.crc32c() != cleaner.live[index].entry.crc { return false }
        }
        return true
    }

    private func moveLive() -> Bool {
        while cleaner.liveIndex < cleaner.live.count {
            let live = cleaner.live[cleaner.liveIndex]
            guard let slot = catalogue.slot(of: live.layer) else {
                cleaner.liveIndex += 1
                continue
            }
            let page = writablePage(
                layer: slot,
                level: 0,
                index: live.block >> MapEntry.pageShift,
                isUrgent: mayExceed
            )
            guard case .ready(let frame) = page else {
                if case .failed = page {
                    cleaner.hasFailed = true
                    cleaner.liveIndex += 1
                    continue
                }
                return false
            }
            guard makeRoom(.survivor, .cleaner, tailByteCount: 20, payloadBlockCount: 1) else {
                return false
            }
            let index = Int(live.block & 255)
            if ownEntry(frame: frame, index: index) == live.entry {
                relocate(live, frame: frame, slot: slot)
            }
            cleaner.liveIndex += 1
        }
        cleaner.live.removeAll(keepingCapacity: true)
        cleaner.phase = .judging
        return true
    }

    private func relocate(_ live: LiveBlock, frame: Int, slot: Int) {
        let span = beginRecord(
            RecordHeader(
                kind: .relocate,
                blockCount: 1,
                layer: live.layer,
                firstBlock: live.block,
                sequence: live.entry.sequence,
                tailByteCount: 20
            )
        )
        span.payload.copy(from: cleaner.buffer.slice(cleaner.liveIndex * 4096, 4096))
        span.header.store(live.entry.crc, at: span.tailOffset)
        span.header.store(live.entry.location, at: span.tailOffset + 4)
        span.header.store(live.entry.sequence, at: span.tailOffset + 12)
        let moved = MapEntry(
            location: span.location,
            crc: live.entry.crc,
            sequence: live.entry.sequence
        )
        setOwnEntry(moved, frame: frame, index: Int(live.block & 255), layer: slot)
        counters.cleanedByteCount += 4096
    }

    private func finishVictim() {
        if cleaner.hasFailed { segments.segments[cleaner.victim].isDamaged = true }
        // Map pages of the victim move with a checkpoint, and only then is it free.
        segments.segments[cleaner.victim].isDrained = !cleaner.hasFailed
        counters.cleanedSegmentCount += 1
        cleaner.phase = .idle
    }
}
