// Reads: from memory, from the cache, from the device, each block verified.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    func advanceRead(_ slot: Int) -> Progress {
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        let layer = Int(volume.layer)
        while requests[slot].cursor < requests[slot].end {
            let leafIndex = requests[slot].cursor >> MapEntry.pageShift
            let leafEnd = min((leafIndex + 1) << MapEntry.pageShift, requests[slot].end)
            switch resolvedLeaf(layer: layer, index: leafIndex) {
            case .ready(let frame):
                if let progress = noteNumbers(slot, frame: frame, until: leafEnd) {
                    return progress
                }
                guard planBlocks(slot, frame: frame, until: leafEnd) else {
                    return .needsResource
                }
            case .absent:
                zeroBlocks(slot, until: leafEnd)
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource:
                return .needsResource
            case .failed:
                requests[slot].status = .mediaError
                requests[slot].cursor = requests[slot].end
            }
        }
        giveStatusWalk(slot)
        requests[slot].phase = .reading
        completeRead(slot)
        return .done
    }

    /// Plans the blocks from the cursor to `end`, all in the leaf `frame`.
    ///
    /// - Returns: false when operations ran out; the cursor says how far it came.
    private func planBlocks(_ slot: Int, frame: Int, until end: UInt64) -> Bool {
        while requests[slot].cursor < end {
            let block = requests[slot].cursor
            let index = Int(block & 255)
            let entry = map.page(frame).mapEntry(index)
            guard entry.isData else {
                zeroBlocks(slot, until: block + 1)
                continue
            }
            guard isCurrent(entry, frame: frame, index: index) else {
                forgetInherited(frame)
                // Nothing comes back that would wake it: it only has to look again.
                hasDeferredWork = true
                return false
            }
            let segment = segments.segments[segments.index(of: entry.location)]
            if segment.unwrittenBatchCount > 0, let unwritten = log.unwritten(entry.location) {
                copyBlock(slot, block, from: unwritten)
                continue
            }
            guard planDeviceRead(slot, frame: frame, entry: entry, until: end) else { return false }
        }
        return true
    }

    /// Reads the run of adjacent blocks that begins with `entry`.
    private func planDeviceRead(
        _ slot: Int,
        frame: Int,
        entry: MapEntry,
        until end: UInt64
    ) -> Bool {
        let request = requests[slot].request
        let block = requests[slot].cursor
        let segment = segments.index(of: entry.location)
        let reuse = segments.segments[segment].reuseCount
        let firstBlock = request.offset >> BlockGeometry.blockShift
        let isOneBlock = requests[slot].end - firstBlock == 1
        if cache.isEnabled {
            let hit = cache.find(entry.location, reuseCount: reuse)
            if hit >= 0 {
                counters.cacheHitCount += 1
                if isOneBlock {
                    requests[slot].cacheFrame = hit
                    noteData(slot, block)
                    requests[slot].cursor = block + 1
                } else {
                    copyBlock(slot, block, from: cache.block(hit))
                }
                return true
            }
        }
        guard ops.hasRoom else { return false }
        let operation = ops.take(.requestRead, owner: Int32(slot))
        var count = 1
        let checksumBase = operation * OperationTable.blockCountMax
        ops.checksums[checksumBase] = entry.crc
        let page = map.page(frame)
        while block + UInt64(count) < end, count < OperationTable.blockCountMax {
            let next = page.mapEntry(Int((block + UInt64(count)) & 255))
            guard next.location == entry.location + UInt64(count),
                segments.index(of: next.location) == segment,
                isCurrent(next, frame: frame, index: Int((block + UInt64(count)) & 255)),
                segments.segments[segment].unwrittenBatchCount == 0
                    || log.unwritten(next.location) == nil
            else { break }
            ops.checksums[checksumBase + count] = next.crc
            count += 1
        }
        let cacheFrame = isOneBlock ? cache.beginFill(entry.location, reuseCount: reuse) : -1
        let region =
            cacheFrame >= 0
            ? cache.block(cacheFrame)
            : request.region.slice(Int(block - firstBlock) * 4096, count * 4096)
        ops.operations[operation].cacheFrame = cacheFrame
        ops.operations[operation].blockCount = UInt32(count)
        ops.operations[operation].location = entry.location
        ops.operations[operation].firstBlock = block
        ops.operations[operation].region = region
        deviceRequests.append(
            DeviceRequest(
                kind: .read,
                offset: entry.location * 4096,
                region: region,
                token: ops.token(operation)
            )
        )
        requests[slot].pendingReadCount += 1
        for offset in 0..<UInt64(count) { noteData(slot, block + offset) }
        requests[slot].cursor = block + UInt64(count)
        return true
    }

    func finishRequestRead(_ index: Int, _ operation: Operation, _ errno: Int32) {
        let slot = Int(operation.owner)
        requests[slot].pendingReadCount -= 1
        var isGood = errno == 0
        if errno != 0 {
            noteFailure(slot, operation.firstBlock)
            requests[slot].status = .mediaError
        } else if !verify(index, operation) {
            // The segment may have been given out again since the map was read; if the map
            // still says the same, the block is bad.
            isGood = false
            requests[slot].mustRetry = true
        }
        if operation.cacheFrame >= 0 {
            cache.endFill(operation.cacheFrame, isGood: isGood)
            if isGood { requests[slot].cacheFrame = operation.cacheFrame }
        }
        if requests[slot].phase == .reading { completeRead(slot) }
    }

    /// Whether the blocks read are the ones the map named; notes the first that is not.
    private func verify(_ index: Int, _ operation: Operation) -> Bool {
        let base = index * OperationTable.blockCountMax
        for block in 0..<Int(operation.blockCount) {
            let crc = operation.region.slice(block * 4096, 4096).crc32c()
            guard crc == ops.checksums[base + block] else {
                noteFailure(Int(operation.owner), operation.firstBlock + UInt64(block))
                return false
            }
        }
        return true
    }

    private func noteFailure(_ slot: Int, _ block: UInt64) {
        requests[slot].failedBlock = min(requests[slot].failedBlock, block)
    }

    /// Attempts at a read whose blocks do not match their checksums.
    private static var readRetryCountMax: UInt8 { 2 }

    private func completeRead(_ slot: Int) {
        guard requests[slot].pendingReadCount == 0 else { return }
        if requests[slot].mustRetry, requests[slot].status == .ok {
            requests[slot].mustRetry = false
            requests[slot].retryCount += 1
            guard requests[slot].retryCount > LogStore.readRetryCountMax else {
                requests[slot].cursor = requests[slot].request.offset >> BlockGeometry.blockShift
                requests[slot].dataMask = 0
                requests[slot].numberMax = 0
                requests[slot].failedBlock = .max
                requests[slot].cacheFrame = -1
                requests[slot].phase = .working
                runnable.append(Int32(slot))
                return
            }
            counters.checksumErrorCount += 1
            requests[slot].status = .mediaError
        }
        finish(slot, requests[slot].status)
    }

    // MARK: - Blocks

    /// Zeroes the blocks from the cursor to `end` in the request's region.
    private func zeroBlocks(_ slot: Int, until end: UInt64) {
        let request = requests[slot].request
        let first = request.offset >> BlockGeometry.blockShift
        let from = Int(requests[slot].cursor - first) * 4096
        request.region.slice(from, Int(end - requests[slot].cursor) * 4096).zero()
        requests[slot].cursor = end
    }

    private func copyBlock(_ slot: Int, _ block: UInt64, from source: ByteRegion) {
        let request = requests[slot].request
        let first = request.offset >> BlockGeometry.blockShift
        request.region.slice(Int(block - first) * 4096, 4096).copy(from: source)
        noteData(slot, block)
        requests[slot].cursor = block + 1
    }

    @inline(always)
    private func noteData(_ slot: Int, _ block: UInt64) {
        let request = requests[slot].request
        let part = (block - (request.offset >> 12)) / holePartBlockCount(request)
        requests[slot].dataMask |= 1 << min(part, 63)
    }

    // MARK: - Cache requests

    private func cacheOneLeaf(_ slot: Int, layer: Int) -> Progress? {
        let block = requests[slot].cursor
        var leaf = PageResult.noResource
        switch presence(slot, layer: layer, block: block) {
        case .skip(let next):
            moveCursor(slot, to: next)
            return nil
        case .present:
            // More pages than memory holds would only drive one another out.
            if requests[slot].cachedLeafCount < map.count / LogStore.cachedLeafDivisor {
                leaf = resolvedLeaf(layer: layer, index: block >> MapEntry.pageShift)
            }
        case .loading(let frame): leaf = .loading(frame)
        case .noResource, .failed: break
        }
        switch leaf {
        case .ready, .absent:
            requests[slot].cachedLeafCount += 1
            moveCursor(slot, to: ((block >> MapEntry.pageShift) + 1) << MapEntry.pageShift)
        case .loading(let frame):
            wait(slot, forFrame: frame)
            return .waitsForPage
        case .noResource, .failed:
            // Advisory: nothing is promised.
            requests[slot].cursor = requests[slot].end
        }
        return nil
    }

    /// One request fills at most this part of the map memory.
    private static var cachedLeafDivisor: Int { 4 }

    /// Loads the leaves of the range; the blocks themselves are read when they are wanted.
    func advanceCache(_ slot: Int) -> Progress {
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        let layer = Int(volume.layer)
        var leafBudget = LogStore.leafCountPerTurn
        while requests[slot].cursor < requests[slot].end {
            leafBudget -= 1
            guard leafBudget >= 0 else {
                hasDeferredWork = true
                return .needsResource
            }
            if let progress = cacheOneLeaf(slot, layer: layer) { return progress }
        }
        finish(slot, .ok)
        return .done
    }
}
