// Finding numbers: those above a given one, block by block, and the greatest of what a read found.
//
// An entry that a leaf inherited says nothing of its number (it carries the life of its segment
// instead), so where a layer has ancestors the stack is walked over as a status does it.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Bytes of one entry that a scan reports: block and number.
    private static var scanEntryByteCount: Int { 16 }

    func scanIsValid(_ request: StoreRequest) -> Bool {
        (request.offset | request.byteCount) & 4095 == 0
            && (request.byteCount == 0
                || request.region.byteCount >= LogStore.scanEntryByteCount)
    }

    // MARK: - Scans

    func advanceScan(_ slot: Int) -> Progress {
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        var leafBudget = LogStore.leafCountPerTurn
        while requests[slot].cursor < requests[slot].end {
            leafBudget -= 1
            guard leafBudget >= 0 else {
                // A shorter report is legal; one of nothing would only be asked for again.
                if requests[slot].extentCount > 0 { break }
                hasDeferredWork = true
                return .needsResource
            }
            guard let walk = statusWalk(slot) else { return .waitsForPage }
            switch walkStack(slot, walk, .number, top: volume.layer, since: nil) {
            case .known: break
            case .waits(let progress): return progress
            case .failed: return endStatus(slot, .mediaError)
            }
            // A stack is paid for layer by layer.
            leafBudget -= Int(statusWalks.walks[walk].depth >> 5)
            guard reportNumbers(slot, walk) else { break }
            statusWalks.walks[walk].isFresh = true
        }
        let request = requests[slot].request
        let cursor = min(requests[slot].cursor, requests[slot].end)
        requests[slot].coveredByteCount = (cursor << BlockGeometry.blockShift) - request.offset
        return endStatus(slot, requests[slot].status)
    }

    /// Reports the blocks of the leaf at the cursor.
    ///
    /// - Returns: false when the region is full; the cursor is at the block that found no room.
    private func reportNumbers(_ slot: Int, _ walk: Int) -> Bool {
        let request = requests[slot].request
        let cursor = requests[slot].cursor
        guard statusWalks.walks[walk].hasLeaf else {
            let shift = MapEntry.pageShift * (UInt64(statusWalks.walks[walk].skipLevel) + 1)
            requests[slot].cursor = min(((cursor >> shift) + 1) << shift, requests[slot].end)
            return true
        }
        let leafEnd = ((cursor >> MapEntry.pageShift) + 1) << MapEntry.pageShift
        let end = min(leafEnd, requests[slot].end)
        for block in cursor..<end {
            let number = statusWalks[walk, Int(block & 255)]
            guard number != StatusWalks.unknown, number > request.number else { continue }
            let offset = Int(requests[slot].extentCount) * LogStore.scanEntryByteCount
            guard offset + LogStore.scanEntryByteCount <= request.region.byteCount else {
                requests[slot].cursor = block
                return false
            }
            request.region.store(block, at: offset)
            request.region.store(number, at: offset + 8)
            requests[slot].extentCount += 1
        }
        requests[slot].cursor = end
        return true
    }

    // MARK: - Reads

    /// Notes the greatest number of the blocks from a read's cursor to `end`, all in the resolved
    /// leaf `frame`.
    ///
    /// - Returns: nil when it is known, otherwise why not yet.
    func noteNumbers(_ slot: Int, frame: Int, until end: UInt64) -> Progress? {
        let page = map.page(frame)
        let cursor = requests[slot].cursor
        let hasInherited = map.frames[frame].hasInherited
        var inheritedCount = 0
        var numberMax = requests[slot].numberMax
        for block in cursor..<end {
            let index = Int(block & 255)
            if hasInherited, map.frames[frame].isInherited(index) {
                inheritedCount += 1
            } else {
                numberMax = max(numberMax, page.mapEntry(index).sequence)
            }
        }
        requests[slot].numberMax = numberMax
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        guard inheritedCount > 0, volume.isReplica else { return nil }
        // The walk may need frames: the leaf must not be taken for one.
        map.frames[frame].pinCount += 1
        defer { map.frames[frame].pinCount -= 1 }
        return noteInheritedNumbers(slot, top: volume.layer, cursor..<end)
    }

    private func noteInheritedNumbers(
        _ slot: Int,
        top: Int32,
        _ blocks: Range<UInt64>
    ) -> Progress? {
        guard let walk = statusWalk(slot) else { return .waitsForPage }
        // One that was begun for a leaf of which everything was overwritten meanwhile.
        if statusWalks.walks[walk].leafIndex != blocks.lowerBound >> MapEntry.pageShift {
            statusWalks.walks[walk].isFresh = true
        }
        switch walkStack(slot, walk, .number, top: top, since: nil) {
        case .known: break
        case .waits(let progress): return progress
        case .failed:
            requests[slot].status = .mediaError
            requests[slot].cursor = requests[slot].end
            return nil
        }
        for block in blocks {
            let number = statusWalks[walk, Int(block & 255)]
            guard number != StatusWalks.unknown else { continue }
            requests[slot].numberMax = max(requests[slot].numberMax, number)
        }
        statusWalks.walks[walk].isFresh = true
        return nil
    }
}
