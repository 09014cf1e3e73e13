// Map pages: finding, loading, resolving through ancestors, making ready to change.

internal import BlockCore
internal import LogFormat
internal import StorageIO

/// The outcome of asking for a page.
enum PageResult {
    /// It is in this frame.
    case ready(Int)
    /// The layer has no such page.
    case absent
    /// It is being read into this frame.
    case loading(Int)
    /// No frame, no operation or no clean page is to be had now.
    case noResource
    /// It cannot be read.
    case failed
}

extension LogStore {
    // MARK: - Finding and loading

    /// A page of a layer's own map, read from the device if need be.
    func loadPage(layer: Int, level: UInt8, index: UInt64) -> PageResult {
        let key = PageKey(layer: layer, level: level, index: index)
        let found = map.find(key)
        if found >= 0 {
            let flags = map.frames[found].flags
            if flags.contains(.loading) { return .loading(found) }
            if flags.contains(.failed) {
                sawFailedPage = true
                // Said once; who asks next tries the device again.
                if map.frames[found].waitHead < 0, map.frames[found].pinCount == 0 {
                    map.release(found)
                }
                return .failed
            }
            if flags.contains(.phantom) { return .absent }
            map.frames[found].flags.insert(.referenced)
            return .ready(found)
        }
        let rootLevel = catalogue.layers[layer].rootLevel
        guard level <= rootLevel else { return .absent }
        if level == rootLevel {
            guard index == 0 else { return .absent }
            return startLoad(key, catalogue.layers[layer].root)
        }
        let shift = MapEntry.pageShift
        let parent = loadPage(layer: layer, level: level + 1, index: index >> shift)
        guard case .ready(let frame) = parent else { return parent }
        return startLoad(key, map.page(frame).mapEntry(Int(index & 255)))
    }

    private func startLoad(_ key: PageKey, _ entry: MapEntry) -> PageResult {
        guard !entry.isAbsent else { return .absent }
        guard segments.contains(entry.location) else {
            counters.checksumErrorCount += 1
            return .failed
        }
        guard ops.inFlightCount + OperationTable.pageReserveCount < ops.operations.count else {
            return .noResource
        }
        let frame = map.allocate(key)
        guard frame >= 0 else { return .noResource }
        map.frames[frame].expectedCRC = entry.crc
        counters.mapPageReadCount += 1
        if let unwritten = log.unwritten(entry.location) {
            map.page(frame).copy(from: unwritten)
            return .ready(frame)
        }
        map.frames[frame].flags.insert(.loading)
        readPage(frame, location: entry.location, attempt: 1)
        return .loading(frame)
    }

    /// Times a page is read before it counts as unreadable.
    private static var pageReadCountMax: UInt8 { 3 }

    private func readPage(_ frame: Int, location: UInt64, attempt: UInt8) {
        let operation = ops.take(.pageRead, owner: Int32(frame))
        ops.operations[operation].location = location
        ops.operations[operation].part = attempt
        deviceRequests.append(
            DeviceRequest(
                kind: .read,
                offset: location * 4096,
                region: map.page(frame),
                token: ops.token(operation)
            )
        )
    }

    func finishPageRead(_ operation: Operation, _ errno: Int32) {
        let frame = Int(operation.owner)
        let page = map.page(frame)
        let isGood =
            errno == 0 && page.crc32c() == map.frames[frame].expectedCRC
            && (0..<MapEntry.countPerPage).allSatisfy { isOnDevice(page.mapEntry($0)) }
        if !isGood {
            guard operation.part >= LogStore.pageReadCountMax else {
                readPage(frame, location: operation.location, attempt: operation.part + 1)
                return
            }
            pageErrno = errno
            counters.checksumErrorCount += 1
            map.frames[frame].flags.insert(.failed)
        }
        map.frames[frame].flags.remove(.loading)
        let hasFailed = map.frames[frame].flags.contains(.failed)
        guard hasFailed else {
            wake(frame)
            return
        }
        // Requests that wait end with the failure, each of its own; background work finds it.
        var slot = map.frames[frame].waitHead
        map.frames[frame].waitHead = -1
        while slot >= 0 {
            let next = requests[Int(slot)].next
            requests[Int(slot)].status = .mediaError
            requests[Int(slot)].cursor = requests[Int(slot)].end
            runnable.append(slot)
            slot = next
        }
    }

    /// Whether an entry names no block, or one of this device: a page with a right checksum was
    /// written by a store, but perhaps not for this device.
    private func isOnDevice(_ entry: MapEntry) -> Bool {
        !entry.isData || segments.contains(entry.location)
    }

    // MARK: - Reading through the stack

    /// The top layer's leaf with every entry looked up through the ancestors.
    ///
    /// - Returns: `absent` when neither the layer nor any ancestor has anything there.
    func resolvedLeaf(layer: Int, index: UInt64) -> PageResult {
        let key = PageKey(layer: layer, level: 0, index: index)
        var frame = map.find(key)
        if frame >= 0 {
            let flags = map.frames[frame].flags
            if flags.contains(.resolved) {
                map.frames[frame].flags.insert(.referenced)
                return .ready(frame)
            }
            if flags.contains(.loading) { return .loading(frame) }
            if flags.contains(.failed) {
                return loadPage(layer: layer, level: 0, index: index)
            }
        } else {
            let own = loadPage(layer: layer, level: 0, index: index)
            switch own {
            case .ready(let loaded): frame = loaded
            case .loading, .noResource, .failed: return own
            case .absent:
                guard catalogue.layers[layer].parent >= 0 else { return .absent }
                frame = map.allocate(key)
                guard frame >= 0 else { return .noResource }
                map.page(frame).zero()
                map.frames[frame].flags.insert(.phantom)
            }
        }
        return resolve(frame, layer: layer, index: index)
    }

    private func resolve(_ frame: Int, layer: Int, index: UInt64) -> PageResult {
        if map.frames[frame].resolveNext < 0 {
            map.setResolveNext(frame, catalogue.layers[layer].parent)
        }
        // An ancestor's page may need a frame: ours must not be taken for it.
        map.frames[frame].pinCount += 1
        defer { map.frames[frame].pinCount -= 1 }
        while map.frames[frame].resolveNext >= 0 {
            let ancestor = Int(map.frames[frame].resolveNext)
            let key = PageKey(layer: ancestor, level: 0, index: index)
            let cached = map.find(key)
            var source = -1
            if cached >= 0, map.frames[cached].flags.isDisjoint(with: [.loading, .failed]) {
                source = cached
            } else {
                let page = loadPage(layer: ancestor, level: 0, index: index)
                switch page {
                case .ready(let loaded): source = loaded
                case .absent: break
                case .loading, .noResource, .failed: return page
                }
            }
            if source >= 0 {
                let isComplete = inherit(into: frame, from: source)
                if isComplete, map.frames[source].flags.contains(.resolved) { break }
            }
            map.setResolveNext(frame, catalogue.layers[ancestor].parent)
        }
        map.frames[frame].flags.insert([.resolved, .referenced])
        map.setResolveNext(frame, -1)
        return .ready(frame)
    }

    /// Copies what `source` knows to the entries that `frame` knows nothing of.
    ///
    /// - Returns: false when `source` itself inherited something that no longer holds.
    private func inherit(into frame: Int, from source: Int) -> Bool {
        var isComplete = true
        let from = map.page(source)
        let to = map.page(frame)
        for index in 0..<MapEntry.countPerPage {
            var entry = from.mapEntry(index)
            guard !entry.isAbsent, to.mapEntry(index).isAbsent else { continue }
            if entry.isData {
                let segment = segments.index(of: entry.location)
                let reuse = UInt64(segments.segments[segment].reuseCount)
                if map.frames[source].isInherited(index), entry.sequence != reuse {
                    isComplete = false
                    continue
                }
                // An inherited entry remembers the life of its segment instead of a sequence.
                entry = MapEntry(location: entry.location, crc: entry.crc, sequence: reuse)
            }
            to.setMapEntry(entry, index)
            map.frames[frame].setInherited(index, true)
        }
        return isComplete
    }

    /// Whether what an entry says still holds; an inherited one may name a segment that was
    /// given out again since.
    @inline(always)
    func isCurrent(_ entry: MapEntry, frame: Int, index: Int) -> Bool {
        guard entry.isData, map.frames[frame].isInherited(index) else { return true }
        let segment = segments.segments[segments.index(of: entry.location)]
        return UInt64(segment.reuseCount) == entry.sequence
    }

    /// Forgets what a leaf inherited, so that it is looked up anew.
    func forgetInherited(_ frame: Int) {
        let page = map.page(frame)
        for index in 0..<MapEntry.countPerPage where map.frames[frame].isInherited(index) {
            page.setMapEntry(.absent, index)
        }
        map.frames[frame].clearInherited()
        map.frames[frame].flags.remove(.resolved)
        map.setResolveNext(frame, -1)
    }

    // MARK: - Changing

    /// A page that may be changed now: resident, dirty, not frozen, its path dirty and pinned.
    ///
    /// - Parameters:
    ///   - layer: The layer's slot.
    ///   - level: The page's level.
    ///   - index: The page's index in the level.
    ///   - isUrgent: Ignores the limit on dirty pages: for recovery and background work.
    /// - Returns: `ready`, `loading`, `noResource` or `failed`.
    func writablePage(
        layer: Int,
        level: UInt8,
        index: UInt64,
        isUrgent: Bool = false
    ) -> PageResult {
        let key = PageKey(layer: layer, level: level, index: index)
        var frame = map.find(key)
        if frame >= 0 {
            let flags = map.frames[frame].flags
            if flags.contains(.dirty) {
                map.frames[frame].flags.insert(.referenced)
                if level == 0, flags.contains(.frozen), !writeFrozen(frame) { return .noResource }
                if map.frames[frame].flags.contains(.dirty) { return .ready(frame) }
            }
            if flags.contains(.loading) { return .loading(frame) }
            if flags.contains(.failed) {
                return loadPage(layer: layer, level: level, index: index)
            }
        }
        if !isUrgent, map.dirtyCount >= plan.dirtyPageCountMax {
            checkpoint.isRequested = true
            return .noResource
        }
        // The path first: a dirty page's parent is dirty and pinned. Pages of the path may need
        // frames: ours must not be taken for them.
        if frame >= 0 { map.frames[frame].pinCount += 1 }
        let held = frame
        defer { if held >= 0 { map.frames[held].pinCount -= 1 } }
        var parent = -1
        if level < catalogue.layers[layer].rootLevel {
            let above = writablePage(
                layer: layer,
                level: level + 1,
                index: index >> MapEntry.pageShift,
                isUrgent: true
            )
            guard case .ready(let ready) = above else { return above }
            parent = ready
        }
        if parent >= 0 { map.frames[parent].pinCount += 1 }
        defer { if parent >= 0 { map.frames[parent].pinCount -= 1 } }
        if frame < 0 {
            let loaded = loadPage(layer: layer, level: level, index: index)
            switch loaded {
            case .ready(let ready): frame = ready
            case .loading, .noResource, .failed: return loaded
            case .absent:
                frame = map.allocate(key)
                guard frame >= 0 else { return .noResource }
                map.page(frame).zero()
                map.frames[frame].flags.insert(.phantom)
            }
        }
        markDirty(frame, parent: parent, layer: layer)
        return .ready(frame)
    }

    private func markDirty(_ frame: Int, parent: Int, layer: Int) {
        if map.frames[frame].flags.contains(.phantom) {
            map.frames[frame].flags.remove(.phantom)
            map.frames[frame].flags.insert(.unlinked)
            catalogue.layers[layer].unlinkedPageCount += 1
        }
        map.setDirty(frame)
        if parent >= 0 { map.frames[parent].pinCount += 1 }
    }

    /// Puts `entry` into a leaf as the layer's own, with the accounting that goes with it.
    ///
    /// - Precondition: `frame` is writable.
    @inline(always)
    func setOwnEntry(_ entry: MapEntry, frame: Int, index: Int, layer: Int) {
        let page = map.page(frame)
        let old = page.mapEntry(index)
        if map.frames[frame].isInherited(index) {
            map.frames[frame].setInherited(index, false)
        } else if old.isData {
            segments.removeLive(old.location)
            catalogue.layers[layer].dropOwnBlock()
        }
        if entry.isData {
            segments.addLive(entry.location)
            catalogue.layers[layer].ownBlockCount += 1
        }
        page.setMapEntry(entry, index)
        // What the ancestors hold here is unknown again when nothing is put in its place.
        if entry.isAbsent, catalogue.layers[layer].parent >= 0 {
            map.frames[frame].flags.remove(.resolved)
            map.setResolveNext(frame, -1)
        }
    }

    /// The layer's own entry, whatever the leaf inherited.
    @inline(always)
    func ownEntry(frame: Int, index: Int) -> MapEntry {
        map.frames[frame].isInherited(index) ? .absent : map.page(frame).mapEntry(index)
    }
}
