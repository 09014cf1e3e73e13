// Layers that nothing names any more: merged into their only child, or given back.
//
// The work goes page by page, each page one record of the log, so that replay repeats it
// exactly. It rests while a checkpoint is under way, because it changes interior pages.

internal import BlockCore
internal import LogFormat

/// The layer being merged or given back.
struct LayerJob {
    /// Something changed that may make work.
    var mayHaveWork = true
    /// The layer's slot, or -1.
    var slot = -1
    /// The slot of the child that takes its blocks, or -1.
    var child = -1
    /// Pages handled since the store was opened.
    var pageCount: UInt64 = 0
}

extension LogStore {
    /// About as many as a batch's header has records for, so that a full store spends few blocks on
    /// them.
    private static var pageCountPerTurn: Int { 54 }

    /// Goes on with the layer at hand, or looks for the next.
    ///
    /// - Returns: Whether it can go on without waiting.
    func runLayerJob() -> Bool {
        guard checkpoint.isIdle, !checkpoint.isRequested else { return false }
        // Whoever closes the store waits for the last checkpoint; the next life goes on here.
        if case .closing = state { return false }
        if layerJob.slot >= 0, layerJob.child >= 0, catalogue.nextRelease != nil {
            // Giving back comes first: it needs less room than merging, and makes some.
            layerJob.slot = -1
            layerJob.child = -1
            layerJob.mayHaveWork = true
        }
        if layerJob.slot < 0 {
            guard layerJob.mayHaveWork else { return false }
            findLayerWork()
            guard layerJob.slot >= 0 else {
                layerJob.mayHaveWork = false
                return false
            }
        }
        guard catalogue.layers[layerJob.slot].unlinkedPageCount == 0 else {
            // A page that its parent does not name cannot be found from the root.
            checkpoint.isRequested = true
            return true
        }
        for _ in 0..<LogStore.pageCountPerTurn {
            guard layerJob.slot >= 0 else { return true }
            sawFailedPage = false
            guard stepLayerJob() else {
                guard sawFailedPage else { return false }
                // A page of it cannot be read: it rests until the store is opened again.
                catalogue.setStuck(layerJob.slot)
                layerJob.slot = -1
                layerJob.mayHaveWork = true
                return true
            }
        }
        return true
    }

    private func findLayerWork() {
        guard let slot = catalogue.nextRelease ?? catalogue.nextMerge else { return }
        if catalogue.layers[slot].role == .unnamed, catalogue.layers[slot].childCount == 0 {
            catalogue.setRole(slot, .dropped)
        }
        layerJob.slot = slot
        layerJob.child = catalogue.onlyChild(of: slot) ?? -1
    }

    /// Handles one page.
    ///
    /// - Returns: false when it must wait.
    private func stepLayerJob() -> Bool {
        let slot = layerJob.slot
        if layerJob.child >= 0, !isStillOnlyChild(slot, layerJob.child) {
            layerJob.slot = -1
            return true
        }
        let layer = catalogue.layers[slot]
        guard layer.root.isData else { return endLayerJob() }
        var level = layer.rootLevel
        var index: UInt64 = 0
        while true {
            guard case .ready(let frame) = loadPage(layer: slot, level: level, index: index) else {
                return false
            }
            guard level > 0, let child = firstEntry(frame) else {
                return handlePage(level: level, index: index)
            }
            level -= 1
            index = index << MapEntry.pageShift | UInt64(child)
        }
    }

    private func isStillOnlyChild(_ slot: Int, _ child: Int) -> Bool {
        catalogue.layers[child].isUsed && catalogue.layers[child].parent == Int32(slot)
            && catalogue.layers[slot].childCount == 1
            && catalogue.layers[child].role != .dropped
    }

    private func firstEntry(_ frame: Int) -> Int? {
        let page = map.page(frame)
        for index in 0..<MapEntry.countPerPage where !page.mapEntry(index).isAbsent { return index }
        return nil
    }

    private func handlePage(level: UInt8, index: UInt64) -> Bool {
        let record: ControlRecord =
            if layerJob.child >= 0 {
                .mergePage(
                    layer: catalogue.layers[layerJob.slot].id,
                    child: catalogue.layers[layerJob.child].id,
                    level: level,
                    index: index
                )
            } else {
                .reclaimPage(
                    layer: catalogue.layers[layerJob.slot].id,
                    level: level,
                    index: index
                )
            }
        // Merging moves entries into pages of the child; giving back makes none.
        let privilege = layerJob.child >= 0 ? LogPrivilege.cleaner : .release
        guard leavesRoomForRecord(privilege), pagesAreReady(record, isUrgent: false) else {
            return false
        }
        let bytes = record.encode()
        guard makeRoom(.client, privilege, tailByteCount: bytes.count, payloadBlockCount: 0) else {
            return false
        }
        // Making room may have changed what is in memory.
        guard pagesAreReady(record, isUrgent: false) else { return false }
        let span = beginRecord(
            RecordHeader(
                kind: .control,
                blockCount: 0,
                layer: .none,
                firstBlock: 0,
                sequence: writeSequence,
                tailByteCount: UInt32(bytes.count)
            )
        )
        span.header.copy(from: bytes, at: span.tailOffset)
        applyPage(record)
        layerJob.pageCount += 1
        return true
    }

    private func endLayerJob() -> Bool {
        let child = layerJob.child >= 0 ? catalogue.layers[layerJob.child].id : .none
        guard logControl(.removeLayer(catalogue.layers[layerJob.slot].id, child: child)) else {
            return false
        }
        layerJob.slot = -1
        layerJob.child = -1
        layerJob.pageCount += 1
        layerJob.mayHaveWork = true
        return true
    }

    // MARK: - Applying

    /// Whether every page that a page record changes is in memory and may be changed.
    func pagesAreReady(_ record: ControlRecord, isUrgent: Bool) -> Bool {
        switch record {
        case .reclaimPage(let layer, let level, let index):
            guard let slot = catalogue.slot(of: layer) else { return true }
            return pathIsReady(slot, level, index)
        case .mergePage(let layer, let child, let level, let index):
            guard let slot = catalogue.slot(of: layer), let into = catalogue.slot(of: child) else {
                return true
            }
            if level == 0 {
                let target = writablePage(layer: into, level: 0, index: index, isUrgent: isUrgent)
                guard case .ready(let frame) = target else { return false }
                map.frames[frame].pinCount += 1
                defer { map.frames[frame].pinCount -= 1 }
                return pathIsReady(slot, level, index)
            }
            return pathIsReady(slot, level, index)
        default: return true
        }
    }

    private func pathIsReady(_ slot: Int, _ level: UInt8, _ index: UInt64) -> Bool {
        switch loadPage(layer: slot, level: level, index: index) {
        case .absent: return true
        case .ready(let frame):
            guard level < catalogue.layers[slot].rootLevel else { return true }
            map.frames[frame].pinCount += 1
            defer { map.frames[frame].pinCount -= 1 }
            let parent = writablePage(
                layer: slot,
                level: level + 1,
                index: index >> MapEntry.pageShift,
                isUrgent: true
            )
            guard case .ready = parent else { return false }
            return true
        case .loading, .noResource, .failed: return false
        }
    }

    /// Applies a page record whose pages are ready; the same at run time and in replay.
    func applyPage(_ record: ControlRecord) {
        switch record {
        case .reclaimPage(let layer, let level, let index):
            guard let slot = catalogue.slot(of: layer),
                case .ready(let frame) = loadPage(layer: slot, level: level, index: index)
            else { return }
            if level == 0 { dropEntries(frame, slot) }
            freePage(frame, slot, level, index)
        case .mergePage(let layer, let child, let level, let index):
            guard let slot = catalogue.slot(of: layer), let into = catalogue.slot(of: child),
                case .ready(let frame) = loadPage(layer: slot, level: level, index: index)
            else { return }
            if level == 0 {
                moveEntries(frame, slot, into: into, index)
                map.restartResolving(index)
                statusWalks.onMerge(leafIndex: index)
            }
            freePage(frame, slot, level, index)
        default: preconditionFailure("not a page record")
        }
    }

    private func dropEntries(_ frame: Int, _ slot: Int) {
        for index in 0..<MapEntry.countPerPage {
            let entry = ownEntry(frame: frame, index: index)
            guard entry.isData else { continue }
            segments.removeLive(entry.location)
            catalogue.layers[slot].dropOwnBlock()
        }
    }

    private func moveEntries(_ frame: Int, _ slot: Int, into child: Int, _ leafIndex: UInt64) {
        let target = map.find(PageKey(layer: child, level: 0, index: leafIndex))
        precondition(target >= 0, "the child's page was made ready")
        for index in 0..<MapEntry.countPerPage {
            let entry = ownEntry(frame: frame, index: index)
            guard !entry.isAbsent else { continue }
            if entry.isData { catalogue.layers[slot].dropOwnBlock() }
            if ownEntry(frame: target, index: index).isAbsent {
                map.page(target).setMapEntry(entry, index)
                map.frames[target].setInherited(index, false)
                if entry.isData { catalogue.layers[child].ownBlockCount += 1 }
            } else if entry.isData {
                segments.removeLive(entry.location)
            }
        }
    }

    /// Gives a page back: its block, its link, its frame.
    private func freePage(_ frame: Int, _ slot: Int, _ level: UInt8, _ index: UInt64) {
        let key = PageKey(layer: slot, level: level, index: index)
        var link = MapEntry.absent
        if level == catalogue.layers[slot].rootLevel {
            link = catalogue.layers[slot].root
            catalogue.layers[slot].root = .absent
        } else {
            let page = map.page(parentFrame(key))
            link = page.mapEntry(Int(index & 255))
            page.setMapEntry(.absent, Int(index & 255))
        }
        if link.isData { segments.removeLive(link.location) }
        if map.frames[frame].flags.contains(.unlinked) {
            catalogue.layers[slot].unlinkedPageCount -= 1
        }
        if map.frames[frame].flags.contains(.dirty) {
            unpinParent(key)
            map.clearDirty(frame)
        }
        map.release(frame)
    }

    /// Takes a layer without pages out of the stack.
    func applyRemoval(_ layer: LayerID, child: LayerID, batchSequence: UInt64) {
        guard let slot = catalogue.slot(of: layer) else { return }
        let parent = catalogue.layers[slot].parent
        if let into = catalogue.slot(of: child) {
            catalogue.setParent(into, parent)
            catalogue.addForward(
                LayerForward(from: layer, into: child, batchSequence: batchSequence)
            )
        }
        for frame in 0..<map.count where map.frames[frame].isUsed {
            if map.frames[frame].resolveNext == Int32(slot) {
                map.setResolveNext(frame, parent)
            }
            if PageKey(rawValue: map.frames[frame].key).layer == slot,
                !map.frames[frame].flags.contains(.loading)
            {
                if map.frames[frame].flags.contains(.dirty) { discardDirty(frame) }
                map.release(frame)
            }
        }
        statusWalks.onRemoval(of: slot, parent: parent)
        catalogue.removeLayer(slot)
        layerJob.mayHaveWork = true
    }

    private func discardDirty(_ frame: Int) {
        let key = PageKey(rawValue: map.frames[frame].key)
        unpinParent(key)
        map.clearDirty(frame)
    }
}
