// What must hold between calls, checked by the simulation: too slow for a store at work.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Looks for a broken invariant in memory.
    ///
    /// - Complexity: O(frames + segments + layers).
    /// - Returns: What is broken, or nil.
    package func brokenInvariant() -> String? {
        switch state {
        case .opening, .closed, .failed: return nil
        case .ready, .closing: break
        }
        return brokenMap() ?? brokenLog() ?? brokenSegments() ?? catalogue.brokenIndex()
            ?? map.brokenResolving()
    }

    /// A dirty page's parent is resident, dirty and pinned once per dirty child; no page is
    /// pinned for anything else between calls.
    private func brokenMap() -> String? {
        var pins: [UInt64: UInt32] = [:]
        var dirtyCount = 0
        for index in 0..<map.count {
            let frame = map.frames[index]
            guard frame.isUsed, frame.flags.contains(.dirty) else { continue }
            dirtyCount += 1
            let key = PageKey(rawValue: frame.key)
            guard key.level < catalogue.layers[key.layer].rootLevel else { continue }
            let parent = PageKey(
                layer: key.layer,
                level: key.level + 1,
                index: key.index >> MapEntry.pageShift
            )
            pins[parent.rawValue, default: 0] += 1
        }
        guard dirtyCount == map.dirtyCount else {
            return "\(dirtyCount) dirty pages, counted as \(map.dirtyCount)"
        }
        for index in 0..<map.count where map.frames[index].isUsed {
            let frame = map.frames[index]
            let expected = pins.removeValue(forKey: frame.key) ?? 0
            let key = PageKey(rawValue: frame.key)
            let name = "page \(key.index) of level \(key.level) of layer slot \(key.layer)"
            guard frame.pinCount == expected else {
                return "\(name) is pinned \(frame.pinCount) times, has \(expected) dirty children"
            }
            guard expected == 0 || frame.flags.contains(.dirty) else {
                return "\(name) is clean and has dirty children"
            }
        }
        return pins.isEmpty ? nil : "a dirty page's parent is not resident"
    }

    private func brokenLog() -> String? {
        if log.durableThrough > log.writtenThrough {
            return "durable through \(log.durableThrough), written through \(log.writtenThrough)"
        }
        if log.writtenThrough > log.sealedThrough {
            return "written through \(log.writtenThrough), sealed through \(log.sealedThrough)"
        }
        return nil
    }

    private func brokenSegments() -> String? {
        var live: UInt64 = 0
        var pendingCount = 0
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            live += UInt64(segment.liveBlockCount)
            if segment.isPendingFree { pendingCount += 1 }
            switch segment.state {
            case .free, .reserved:
                if segment.liveBlockCount > 0 {
                    return "segment \(index) is free and has \(segment.liveBlockCount) live blocks"
                }
            case .open, .closed:
                let isHead = (0..<log.heads.count).contains {
                    log.heads[$0].segment == Int32(index)
                }
                if isHead != (segment.state == .open) {
                    return "segment \(index) is \(segment.state), a stream's head: \(isHead)"
                }
                if segment.liveBlockCount > UInt32(segments.blockCount) {
                    return "segment \(index) has \(segment.liveBlockCount) live blocks"
                }
            }
        }
        guard pendingCount == segments.pendingFreeCount else {
            return "\(pendingCount) segments free soon, counted as \(segments.pendingFreeCount)"
        }
        return live == segments.liveBlockCount
            ? nil : "\(live) live blocks, counted as \(segments.liveBlockCount)"
    }
}
