// Blocks that are damaged on the device, written anew: another replica has had the same bytes.
//
// What is written is the record with which the cleaner moves a block: the same number and the same
// checksum in another place, and replay applies it only where the old place still holds. So a repair
// can change nothing but the place, whatever was written meanwhile and wherever the log ends.

internal import BlockCore
internal import LogFormat

extension LogStore {
    func advanceRepair(_ slot: Int) -> Progress {
        guard requests[slot].status == .ok else {
            finish(slot, requests[slot].status)
            return .done
        }
        if case .failed = state {
            finish(slot, .mediaError)
            return .done
        }
        let request = requests[slot].request
        let block = request.offset >> BlockGeometry.blockShift
        let crc = request.region.slice(0, 4096).crc32c()
        var layer = Int(catalogue.open[Int(request.volume.rawValue)].layer)
        while layer >= 0 {
            switch loadPage(layer: layer, level: 0, index: block >> MapEntry.pageShift) {
            case .ready(let frame):
                let entry = ownEntry(frame: frame, index: Int(block & 255))
                if entry.isData, entry.sequence == request.number, entry.crc == crc {
                    return putElsewhere(
                        slot,
                        LiveBlock(layer: catalogue.layers[layer].id, block: block, entry: entry),
                        layer: layer
                    )
                }
            case .absent: break
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource: return .needsResource
            case .failed:
                finish(slot, .mediaError)
                return .done
            }
            layer = Int(catalogue.layers[layer].parent)
        }
        finish(slot, .ok)
        return .done
    }

    /// Writes the request's bytes to a new place, as the copy that is there now.
    private func putElsewhere(_ slot: Int, _ live: LiveBlock, layer: Int) -> Progress {
        // Before the page is changed, as for a write, and again when it is there.
        guard makeRoomForRepair() else { return .needsResource }
        let index = live.block >> MapEntry.pageShift
        switch writablePage(layer: layer, level: 0, index: index) {
        case .ready(let frame):
            guard makeRoomForRepair() else { return .needsResource }
            let old = segments.index(of: live.entry.location)
            relocate(live, requests[slot].request.region, frame: frame, slot: layer)
            // Others of its blocks may be damaged too; the cleaner finds out.
            segments.segments[old].isDamaged = false
            forgetInherited(of: live.block)
            counters.repairedBlockCount += 1
            requests[slot].extentCount = 1
            finishChange(slot)
            return .done
        case .loading(let frame):
            wait(slot, forFrame: frame)
            return .waitsForPage
        case .noResource, .absent: return .needsResource
        case .failed:
            finish(slot, .mediaError)
            return .done
        }
    }

    private func makeRoomForRepair() -> Bool {
        makeRoom(.survivor, .client, tailByteCount: 20, payloadBlockCount: 1)
    }

    /// Has every leaf that inherited a block look it up anew: the place that they know is damaged, and
    /// is not given out again before long.
    ///
    /// - Complexity: O(frames of map memory).
    private func forgetInherited(of block: UInt64) {
        let index = Int(block & 255)
        for frame in 0..<map.count where map.frames[frame].isUsed {
            let key = PageKey(rawValue: map.frames[frame].key)
            guard key.level == 0, key.index == block >> MapEntry.pageShift,
                map.frames[frame].flags.isDisjoint(with: [.loading, .failed]),
                map.frames[frame].isInherited(index)
            else { continue }
            forgetInherited(frame)
        }
    }
}
