// Block status: what a range is made of, layer by layer.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Bytes of one extent in a status reply: byte count and value.
    private static var extentByteCount: Int { 16 }

    func advanceStatus(_ slot: Int) -> Progress {
        let request = requests[slot].request
        let volume = catalogue.open[Int(request.volume.rawValue)]
        var since: Int?
        if request.statusKind == .changedSince {
            since = catalogue.slot(of: request.sinceLayer)
            guard let since, catalogue.isAncestor(since, of: Int(volume.layer)) else {
                finish(slot, .invalid)
                return .done
            }
        }
        var leafBudget = LogStore.leafCountPerTurn
        while requests[slot].cursor < requests[slot].end {
            leafBudget -= 1
            // A shorter report is legal, and nobody waits behind a long one.
            if leafBudget < 0, requests[slot].extentCount > 0 { break }
            let block = requests[slot].cursor
            switch skipAbsent(layer: Int(volume.layer), block: block) {
            case .skip(let next):
                let value: UInt64 = request.statusKind == .allocation ? 3 : 0
                guard report(slot, value, until: min(next, requests[slot].end)) else {
                    return endStatus(slot)
                }
            case .present:
                let progress = reportLeaf(slot, layer: Int(volume.layer), since: since)
                if let progress { return progress }
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource: return .needsResource
            case .failed:
                finish(slot, .mediaError)
                return .done
            }
        }
        return endStatus(slot)
    }

    private func reportLeaf(_ slot: Int, layer: Int, since: Int?) -> Progress? {
        let request = requests[slot].request
        let leafIndex = requests[slot].cursor >> MapEntry.pageShift
        let leafEnd = min((leafIndex + 1) << MapEntry.pageShift, requests[slot].end)
        // The values of the leaf's blocks, from the top layer down.
        for index in 0..<MapEntry.countPerPage { statusValues[index] = UInt64.max }
        var current = Int32(layer)
        var depth: UInt64 = 1
        while current >= 0 {
            if let since, Int(current) == since { break }
            switch loadPage(layer: Int(current), level: 0, index: leafIndex) {
            case .ready(let frame):
                note(frame: frame, kind: request.statusKind, depth: depth)
            case .absent: break
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource: return .needsResource
            case .failed:
                finish(slot, .mediaError)
                return .done
            }
            current = catalogue.layers[Int(current)].parent
            depth += 1
        }
        let unknown: UInt64 = request.statusKind == .allocation ? 3 : 0
        while requests[slot].cursor < leafEnd {
            let index = Int(requests[slot].cursor & 255)
            let value = statusValues[index] == UInt64.max ? unknown : statusValues[index]
            guard report(slot, value, until: requests[slot].cursor + 1) else {
                return endStatus(slot)
            }
        }
        return nil
    }

    private func note(frame: Int, kind: BlockStatusKind, depth: UInt64) {
        for index in 0..<MapEntry.countPerPage where statusValues[index] == UInt64.max {
            let entry = ownEntry(frame: frame, index: index)
            guard !entry.isAbsent else { continue }
            switch kind {
            case .allocation:
                statusValues[index] =
                    entry.isData ? 0 : entry.location == MapEntry.zeroLocation ? 2 : 3
            case .allocationDepth: statusValues[index] = depth
            case .changedSince: statusValues[index] = 1
            }
        }
    }

    /// Adds the blocks from the cursor to `end` to the report.
    ///
    /// - Returns: false when the region is full or one extent was asked for and another begins.
    private func report(_ slot: Int, _ value: UInt64, until end: UInt64) -> Bool {
        let request = requests[slot].request
        let from = max(requests[slot].cursor << BlockGeometry.blockShift, request.offset)
        let to = min(end << BlockGeometry.blockShift, request.offset + request.byteCount)
        let count = requests[slot].extentCount
        if count > 0, requests[slot].statusValue == value {
            requests[slot].statusByteCount += to - from
        } else {
            if count > 0, request.flags.contains(.oneExtent) { return false }
            let offset = Int(count) * LogStore.extentByteCount
            guard offset + LogStore.extentByteCount <= request.region.byteCount else {
                return false
            }
            requests[slot].extentCount = count + 1
            requests[slot].statusValue = value
            requests[slot].statusByteCount = to - from
        }
        let last = Int(requests[slot].extentCount - 1) * LogStore.extentByteCount
        request.region.store(requests[slot].statusByteCount, at: last)
        request.region.store(value, at: last + 8)
        requests[slot].coveredByteCount += to - from
        requests[slot].cursor = end
        return true
    }

    private func endStatus(_ slot: Int) -> Progress {
        finish(slot, requests[slot].status)
        return .done
    }
}
