// The cleaner's work on one victim: what is live in it, and where it goes.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    /// Candidates judged in one turn.
    private static var judgementCountPerTurn: Int { 512 }

    func judge() -> Bool {
        let isMap = segments.segments[cleaner.victim].content == .map
        // The pages would be the next checkpoint's, which finds only what this one leaves.
        guard checkpoint.isIdle || !isMap else { return false }
        guard cleaner.isWeighed || weigh() else { return waitForRoom() }
        var budget = LogStore.judgementCountPerTurn
        let liveCountMax = min(Cleaner.liveBlockCountMax, movableBlockCount)
        if cleaner.live.count >= liveCountMax { return readLive() }
        while cleaner.candidateIndex < cleaner.candidates.count {
            guard budget > 0 else { return true }
            budget -= 1
            cleaner.judgedCount &+= 1
            let candidate = cleaner.candidates[cleaner.candidateIndex]
            guard cleaner.blockIndex < Int(candidate.blockCount) else {
                cleaner.candidateIndex += 1
                cleaner.blockIndex = 0
                continue
            }
            let isJudged =
                candidate.kind == .mapPage ? judgePage(candidate) : judgeBlock(candidate)
            guard isJudged else { return cleaner.lacksRoom ? waitForRoom() : false }
            cleaner.blockIndex += 1
            if cleaner.live.count >= liveCountMax { return readLive() }
        }
        if !cleaner.live.isEmpty { return readLive() }
        finishVictim()
        return true
    }

    /// Waits for a checkpoint that gives room; without one the victim is put off at once.
    ///
    /// - Returns: Whether the cleaner can go on without waiting.
    private func waitForRoom() -> Bool {
        cleaner.lacksRoom = false
        guard checkpoint.isIdle, !checkpoint.isRequested else { return false }
        deferVictim()
        return true
    }

    /// Looks for room for all of a victim's map pages: half of them moved would free nothing.
    private func weigh() -> Bool {
        let victim = segments.segments[cleaner.victim]
        if victim.content == .map {
            // With those above them that lie elsewhere.
            let pageCount = Int(victim.liveBlockCount) * 5 / 4 + LogStore.dirtyPagesPerMovedBlock
            guard leavesRoom(forPages: pageCount) else { return false }
        }
        cleaner.isWeighed = true
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
        // With its path.
        guard leavesRoom(forPages: 1 + Int(rootLevel - candidate.level)) else {
            cleaner.lacksRoom = true
            return false
        }
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
        guard leavesRoom(for: .cleaner) else { return waitForRoom() }
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
            readVictim(
                location: cleaner.live[index].entry.location,
                into: cleaner.buffer.slice(index * 4096, count * 4096)
            )
            index += count
        }
        return false
    }

    /// Whether the cleaner may make one more page dirty: a victim half moved frees nothing.
    private var mayExceed: Bool {
        map.dirtyCount < plan.dirtyPageCountMax + plan.cleanerExcessPageCount
    }

    func liveBlocksVerify() -> Bool {
        for index in 0..<cleaner.live.count {
            let block = cleaner.buffer.slice(index * 4096, 4096)
            if block.crc32c() != cleaner.live[index].entry.crc { return false }
        }
        return true
    }

    func moveLive() -> Bool {
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
                let bytes = cleaner.buffer.slice(cleaner.liveIndex * 4096, 4096)
                relocate(live, bytes, frame: frame, slot: slot)
                counters.cleanedByteCount += 4096
            }
            cleaner.liveIndex += 1
        }
        cleaner.forgetLive()
        cleaner.phase = .judging
        return true
    }

    /// Puts a block's bytes in another place.
    ///
    /// - Precondition: there is room for the record, and the leaf `frame` of the layer `slot` is
    ///   writable and has the block's entry.
    func relocate(_ live: LiveBlock, _ bytes: ByteRegion, frame: Int, slot: Int) {
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
        span.payload.copy(from: bytes.slice(0, 4096))
        span.header.store(live.entry.crc, at: span.tailOffset)
        span.header.store(live.entry.location, at: span.tailOffset + 4)
        span.header.store(live.entry.sequence, at: span.tailOffset + 12)
        let moved = MapEntry(
            location: span.location,
            crc: live.entry.crc,
            sequence: live.entry.sequence
        )
        setOwnEntry(moved, frame: frame, index: Int(live.block & 255), layer: slot)
    }

    private func finishVictim() {
        if cleaner.hasFailed { segments.segments[cleaner.victim].isDamaged = true }
        // Map pages of the victim move with a checkpoint, and only then is it free.
        segments.change(cleaner.victim) { $0.isDrained = !cleaner.hasFailed }
        counters.cleanedSegmentCount += 1
        cleaner.phase = .idle
    }
}
