// Block status: what a range is made of, layer by layer.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Bytes of one extent in a status reply: byte count and value.
    private static var extentByteCount: Int { 16 }

    /// Layers that one request looks at before others get their turn.
    private static var layerCountPerTurn: UInt64 { 16_384 }

    func advanceStatus(_ slot: Int) -> Progress {
        let request = requests[slot].request
        let volume = catalogue.open[Int(request.volume.rawValue)]
        var since: Int?
        if request.statusKind == .changedSince {
            since = catalogue.slot(of: request.sinceLayer)
            guard let since, catalogue.isAncestor(since, of: Int(volume.layer)) else {
                return endStatus(slot, .invalid)
            }
        }
        var leafCount = 0
        var layerCount: UInt64 = 0
        while requests[slot].cursor < requests[slot].end {
            // A shorter report is legal, and nobody waits behind a long one.
            if leafCount >= LogStore.leafCountPerTurn || layerCount >= LogStore.layerCountPerTurn,
                requests[slot].extentCount > 0
            {
                break
            }
            guard let walk = statusWalk(slot) else { return .waitsForPage }
            let subject = WalkSubject.status(request.statusKind)
            switch walkStack(slot, walk, subject, top: volume.layer, since: since) {
            case .known: break
            case .waits(let progress): return progress
            case .failed: return endStatus(slot, .mediaError)
            }
            leafCount += 1
            layerCount += statusWalks.walks[walk].depth
            guard reportLeaf(slot, walk) else { break }
            statusWalks.walks[walk].isFresh = true
        }
        return endStatus(slot, requests[slot].status)
    }

    /// The walk of a request; nil when it waits for one.
    func statusWalk(_ slot: Int) -> Int? {
        if requests[slot].statusWalk >= 0 { return Int(requests[slot].statusWalk) }
        if let walk = statusWalks.take() {
            requests[slot].statusWalk = Int32(walk)
            return walk
        }
        requests[slot].next = -1
        if statusWalks.lastWaiter >= 0 {
            requests[Int(statusWalks.lastWaiter)].next = Int32(slot)
        } else {
            statusWalks.firstWaiter = Int32(slot)
        }
        statusWalks.lastWaiter = Int32(slot)
        return nil
    }

    /// What is gathered of each block.
    enum WalkSubject {
        case status(BlockStatusKind)
        /// The number of its entry.
        case number
    }

    /// How far a walk came.
    enum WalkOutcome {
        /// All is known of the leaf.
        case known
        /// A page or something else must come first.
        case waits(Progress)
        /// A page cannot be read.
        case failed
    }

    /// Gathers what the layers say of the leaf at the cursor, from where the walk stopped before.
    func walkStack(
        _ slot: Int,
        _ walk: Int,
        _ subject: WalkSubject,
        top: Int32,
        since: Int?
    ) -> WalkOutcome {
        let walks = statusWalks
        if walks.walks[walk].isFresh {
            let leafIndex = requests[slot].cursor >> MapEntry.pageShift
            walks.begin(walk, leafIndex: leafIndex, layer: top)
        }
        while walks.walks[walk].layer >= 0 {
            let layer = Int(walks.walks[walk].layer)
            if layer == since { break }
            switch leaf(walks.walks[walk].leafIndex, of: layer) {
            case .present(let frame):
                walks.walks[walk].hasLeaf = true
                if note(frame, walk, subject) { return .known }
            case .absent(let level):
                walks.walks[walk].skipLevel = min(walks.walks[walk].skipLevel, level)
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waits(.waitsForPage)
            case .noResource: return .waits(.needsResource)
            case .failed: return .failed
            }
            walks.walks[walk].layer = catalogue.layers[layer].parent
            walks.walks[walk].depth += 1
        }
        return .known
    }

    /// What a layer has of a leaf.
    private enum LayerLeaf {
        case present(Int)
        /// Nothing, nor of any other leaf below the same page of this level.
        case absent(UInt8)
        case loading(Int)
        case noResource
        case failed
    }

    private func leaf(_ leafIndex: UInt64, of layer: Int) -> LayerLeaf {
        // From the root down: a dirty page has its whole path resident, so that the first absent
        // one has nothing below.
        var level = catalogue.layers[layer].rootLevel
        while true {
            let index = leafIndex >> (MapEntry.pageShift * UInt64(level))
            switch loadPage(layer: layer, level: level, index: index) {
            case .ready(let frame):
                if level == 0 { return .present(frame) }
                level -= 1
            case .absent: return .absent(level)
            case .loading(let frame): return .loading(frame)
            case .noResource: return .noResource
            case .failed: return .failed
            }
        }
    }

    /// Takes from a layer's leaf what the layers above it do not say.
    ///
    /// - Returns: Whether every block of the leaf is known now.
    private func note(_ frame: Int, _ walk: Int, _ subject: WalkSubject) -> Bool {
        var isComplete = true
        for index in 0..<MapEntry.countPerPage
        where statusWalks[walk, index] == StatusWalks.unknown {
            let entry = ownEntry(frame: frame, index: index)
            guard !entry.isAbsent else {
                isComplete = false
                continue
            }
            statusWalks[walk, index] =
                switch subject {
                case .status(.allocation):
                    entry.isData ? 0 : entry.location == MapEntry.zeroLocation ? 2 : 3
                case .status(.allocationDepth): statusWalks.walks[walk].depth
                case .status(.changedSince): 1
                case .number: entry.sequence
                }
        }
        return isComplete
    }

    /// Reports what a walk found, from the cursor on.
    ///
    /// - Returns: false when the report ends here.
    private func reportLeaf(_ slot: Int, _ walk: Int) -> Bool {
        let unknown: UInt64 = requests[slot].request.statusKind == .allocation ? 3 : 0
        let cursor = requests[slot].cursor
        guard statusWalks.walks[walk].hasLeaf else {
            let shift = MapEntry.pageShift * (UInt64(statusWalks.walks[walk].skipLevel) + 1)
            let next = ((cursor >> shift) + 1) << shift
            return report(slot, unknown, until: min(next, requests[slot].end))
        }
        let leafEnd = ((cursor >> MapEntry.pageShift) + 1) << MapEntry.pageShift
        let end = min(leafEnd, requests[slot].end)
        while requests[slot].cursor < end {
            let value = statusWalks[walk, Int(requests[slot].cursor & 255)]
            guard
                report(
                    slot,
                    value == StatusWalks.unknown ? unknown : value,
                    until: requests[slot].cursor + 1
                )
            else { return false }
        }
        return true
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

    /// Ends a status; who waits longest for a walk gets its own.
    func endStatus(_ slot: Int, _ status: StoreStatus) -> Progress {
        giveStatusWalk(slot)
        finish(slot, status)
        return .done
    }

    /// Gives a request's walk back, if it has one.
    func giveStatusWalk(_ slot: Int) {
        guard requests[slot].statusWalk >= 0 else { return }
        statusWalks.give(Int(requests[slot].statusWalk))
        requests[slot].statusWalk = -1
        let waiter = statusWalks.firstWaiter
        guard waiter >= 0 else { return }
        statusWalks.firstWaiter = requests[Int(waiter)].next
        if statusWalks.firstWaiter < 0 { statusWalks.lastWaiter = -1 }
        resourcesChanged = true
        runnable.append(waiter)
    }
}
