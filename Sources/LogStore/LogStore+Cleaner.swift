// Cleaning: live blocks of sparse segments move to the survivors' stream, so that the segment
// can be given out again. Victims are chosen by cost and benefit.
//
// Source: Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File
// System", section 3.5; the age of a segment is that of its newest batch.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
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
            forgetDeferred()
        }
        guard cleaner.fruitlessCount < Cleaner.fruitlessCountMax(segmentCount: segments.count),
            let victim = chooseVictim()
        else {
            if pending > 0 { checkpoint.isSpaceWanted = true }
            rest()
            return pending > 0
        }
        cleaner.fruitlessCount += 1
        cleaner.forgetLive()
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
    ///
    /// Another may need less: map pages take no more than a checkpoint does.
    func deferVictim() {
        cleaner.phase = .idle
        cleaner.forgetLive()
        segments.segments[cleaner.victim].isDeferred = true
        cleaner.deferredCount += 1
        cleaner.fruitlessCount -= 1
        if cleaner.deferredCount >= Cleaner.deferredCountMax { rest() }
    }

    /// After a gain or a change, what found no room may find some.
    private func forgetDeferred() {
        guard cleaner.deferredCount > 0 else { return }
        cleaner.deferredCount = 0
        for index in 0..<segments.count { segments.segments[index].isDeferred = false }
    }

    private func rest() {
        cleaner.restingMark = changeMark
        cleaner.restedUnderPressure = hasPressure
    }

    /// Moves on when clients or layer work changed what is live.
    private var changeMark: UInt64 { changeCount &+ layerJob.pageCount }

    private func chooseVictim() -> Int? {
        let isShort = hasPressure || segments.availableCount < plan.reserveSegmentCount
        let pagesPerBlock = self.pagesPerBlock
        var best: Int?
        var bestScore = 0.0
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            guard segment.state == .closed, !segment.isDamaged, !segment.isDrained,
                !segment.isDeferred, segment.liveBlockCount > 0, segment.unwrittenBatchCount == 0,
                segment.content != .manifest || holdsMore(index)
            else { continue }
            let utilisation = Double(segment.liveBlockCount) / Double(segments.blockCount)
            guard utilisation <= LogStore.utilisationMax else { continue }
            let age = Double(log.nextSequence &- segment.lastBatchSequence) + 1
            let cost = utilisation * (segment.content == .map ? 1 : 1 + pagesPerBlock)
            // Who waits for room wants the most room; otherwise cold segments are worth more.
            let score = isShort ? 1 - cost : (1 - utilisation) * age / (1 + cost)
            if best == nil || score > bestScore {
                best = index
                bestScore = score
            }
        }
        return best
    }

    /// Whether more is live in a segment of manifests than the one in force: map pages, where an
    /// older store put both.
    private func holdsMore(_ segment: Int) -> Bool {
        var manifestBlockCount: UInt32 = 0
        for extent in superblock?.manifestExtents ?? []
        where segments.index(of: extent.location) == segment {
            manifestBlockCount += extent.blockCount
        }
        return segments.segments[segment].liveBlockCount > manifestBlockCount
    }

    /// Map pages that a moved block makes dirty, on average: near none in volumes that are written
    /// densely, one where each block has a page to itself.
    private var pagesPerBlock: Double {
        var dataCount: UInt64 = 0
        var pageCount: UInt64 = 0
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            switch segment.content {
            case .data, .unknown: dataCount += UInt64(segment.liveBlockCount)
            case .map: pageCount += UInt64(segment.liveBlockCount)
            case .manifest: break
            }
        }
        return min(1, Double(pageCount) / Double(max(dataCount, 1)))
    }

    // MARK: - Scanning

    private func scanNext() {
        let rest = segments.blockCount - cleaner.headerOffset
        guard rest > 0 else {
            beginJudging()
            return
        }
        let count = min(rest, Cleaner.scanBlockCount)
        cleaner.phase = .scanning
        readVictim(
            location: segments.location(of: cleaner.victim) + UInt64(cleaner.headerOffset),
            into: cleaner.buffer.slice(0, count * 4096)
        )
    }

    /// Goes on to judging, and notes what the headers say that the victim holds.
    private func beginJudging() {
        cleaner.phase = .judging
        cleaner.isWeighed = false
        cleaner.lacksRoom = false
        let isData = cleaner.candidates.contains { $0.kind != .mapPage }
        segments.segments[cleaner.victim].content = isData ? .data : .map
    }

    /// Reads a piece of the victim.
    func readVictim(location: UInt64, into region: ByteRegion) {
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
        cleaner.forgetLive()
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
                beginJudging()
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
}
