// Writes: payload into the open batch, map entries changed at once, acknowledged as the
// volume's durability says. A block written in part is merged with its old copy first.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    // MARK: - Partial blocks

    /// Notes which of a write's outer blocks it covers only in part.
    func markPartialBlocks(_ slot: Int) {
        let request = requests[slot].request
        let end = request.offset + request.byteCount
        let isHeadPartial = request.offset & 4095 != 0
        let isTailPartial = end & 4095 != 0
        let isOneBlock = requests[slot].end - requests[slot].cursor == 1
        if isHeadPartial || (isOneBlock && isTailPartial) { requests[slot].head.state = .wanted }
        if isTailPartial, !isOneBlock { requests[slot].tail.state = .wanted }
    }

    /// Brings the old copies of partial blocks into scratch.
    ///
    /// - Returns: nil when they are there, otherwise why not yet.
    func gatherPartialBlocks(_ slot: Int) -> Progress? {
        let request = requests[slot].request
        let block = request.offset >> BlockGeometry.blockShift
        if requests[slot].head.state != .none, requests[slot].cursor == block {
            if let progress = gather(slot, part: 0, block: block) { return progress }
        }
        if requests[slot].tail.state != .none {
            if let progress = gather(slot, part: 1, block: requests[slot].end - 1) {
                return progress
            }
        }
        return nil
    }

    /// Takes scratch for all of a write's partial blocks, or for none: writes that each held one
    /// would wait for one another.
    private func takeScratch(_ slot: Int) -> Bool {
        let wantsHead = requests[slot].head.state != .none && requests[slot].head.scratch < 0
        let wantsTail = requests[slot].tail.state != .none && requests[slot].tail.scratch < 0
        guard scratch.availableCount >= (wantsHead ? 1 : 0) + (wantsTail ? 1 : 0) else {
            return false
        }
        if wantsHead { requests[slot].head.scratch = scratch.take() ?? -1 }
        if wantsTail { requests[slot].tail.scratch = scratch.take() ?? -1 }
        return true
    }

    private func gather(_ slot: Int, part: UInt8, block: UInt64) -> Progress? {
        let partial = part == 0 ? requests[slot].head : requests[slot].tail
        if partial.state == .reading { return .done }
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        var entry = MapEntry.absent
        let leaf = resolvedLeaf(layer: Int(volume.layer), index: block >> MapEntry.pageShift)
        switch leaf {
        case .ready(let frame):
            let index = Int(block & 255)
            entry = map.page(frame).mapEntry(index)
            guard isCurrent(entry, frame: frame, index: index) else {
                forgetInherited(frame)
                return .needsResource
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
        if partial.state == .ready, partial.entry0 == entry.word0, partial.entry1 == entry.word1 {
            return nil
        }
        return fetch(slot, part: part, entry: entry)
    }

    /// Fills scratch with the bytes that `entry` names.
    private func fetch(_ slot: Int, part: UInt8, entry: MapEntry) -> Progress? {
        guard takeScratch(slot) else { return .needsResource }
        var partial = part == 0 ? requests[slot].head : requests[slot].tail
        partial.entry0 = entry.word0
        partial.entry1 = entry.word1
        let memory = scratch.block(partial.scratch)
        var progress: Progress?
        if !entry.isData {
            memory.zero()
            partial.state = .ready
        } else if let unwritten = log.unwritten(entry.location) {
            memory.copy(from: unwritten)
            partial.state = .ready
        } else if ops.hasRoom {
            let operation = ops.take(.scratchRead, owner: Int32(slot))
            ops.operations[operation].part = part
            ops.operations[operation].region = memory
            ops.checksums[operation * OperationTable.blockCountMax] = entry.crc
            deviceRequests.append(
                DeviceRequest(
                    kind: .read,
                    offset: entry.location * 4096,
                    region: memory,
                    token: ops.token(operation)
                )
            )
            partial.state = .reading
            progress = .done
        } else {
            progress = .needsResource
        }
        if part == 0 { requests[slot].head = partial } else { requests[slot].tail = partial }
        return progress
    }

    /// Attempts at an old copy whose checksum does not match.
    private static var scratchRetryCountMax: UInt8 { 3 }

    func finishScratchRead(_ index: Int, _ operation: Operation, _ errno: Int32) {
        let slot = Int(operation.owner)
        let expected = ops.checksums[index * OperationTable.blockCountMax]
        let isGood = errno == 0 && operation.region.crc32c() == expected
        if !isGood {
            requests[slot].retryCount += 1
            if requests[slot].retryCount > LogStore.scratchRetryCountMax {
                counters.checksumErrorCount += 1
                requests[slot].status = .mediaError
            }
        }
        let state: PartialBlock.State = isGood ? .ready : .wanted
        if operation.part == 0 {
            requests[slot].head.state = state
        } else {
            requests[slot].tail.state = state
        }
        runnable.append(Int32(slot))
    }

    // MARK: - Writing

    func advanceWrite(_ slot: Int) -> Progress {
        guard requests[slot].status == .ok else {
            finish(slot, requests[slot].status)
            return .done
        }
        if case .failed = state {
            finish(slot, .mediaError)
            return .done
        }
        if let progress = gatherPartialBlocks(slot) { return progress }
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        let layer = Int(volume.layer)
        while requests[slot].cursor < requests[slot].end {
            let leafIndex = requests[slot].cursor >> MapEntry.pageShift
            let leaf = writableLeaf(
                layer: layer,
                index: leafIndex,
                blockCount: min((leafIndex + 1) << MapEntry.pageShift, requests[slot].end)
                    - requests[slot].cursor,
                liveMax: plan.usableBlockCount,
                privilege: .client
            )
            switch leaf {
            case .ready(let frame):
                guard hasSpace(slot, frame: frame) else {
                    finish(slot, .noSpace)
                    return .done
                }
                // Again, now that the page is there: what made it ready may have sealed the batch.
                guard makeRoom(.client, .client, tailByteCount: 4, payloadBlockCount: 1) else {
                    return .needsResource
                }
                appendBlocks(slot, frame: frame, layer: layer, epoch: volume.epoch)
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource: return .needsResource
            case .failed:
                finish(slot, .mediaError)
                return .done
            case .absent:
                finish(slot, .noSpace)
                return .done
            }
        }
        finishChange(slot)
        return .done
    }

    /// The leaf that a change goes into, made when the layer has none and there is room for it.
    ///
    /// The room is looked for first, in the log too: a change that is refused afterwards would
    /// leave a dirty page behind, and checkpoints would write such pages until no segment is left.
    ///
    /// - Parameters:
    ///   - layer: The layer's slot.
    ///   - index: The leaf's index.
    ///   - blockCount: Blocks of data that the change adds at most.
    ///   - liveMax: Blocks that may be live afterwards if the leaf is new.
    ///   - privilege: How deep into the reserve the change may go.
    /// - Returns: As ``writablePage(layer:level:index:isUrgent:)``; `absent` when there is no room.
    private func writableLeaf(
        layer: Int,
        index: UInt64,
        blockCount: UInt64,
        liveMax: UInt64,
        privilege: LogPrivilege
    ) -> PageResult {
        // Dirty pages may be new ones, which count as live only when they are written.
        if segments.liveBlockCount + UInt64(map.dirtyCount) + blockCount >= liveMax {
            let own = loadPage(layer: layer, level: 0, index: index)
            guard case .ready = own else { return own }
        }
        let payload = blockCount > 0 ? 1 : 0
        guard
            makeRoom(.client, privilege, tailByteCount: payload * 4, payloadBlockCount: payload)
        else { return .noResource }
        return writablePage(layer: layer, level: 0, index: index)
    }

    /// Whether the leaf's part of a write fits; overwriting what is there always does.
    private func hasSpace(_ slot: Int, frame: Int) -> Bool {
        let block = requests[slot].cursor
        let leafEnd = ((block >> MapEntry.pageShift) + 1) << MapEntry.pageShift
        let end = min(leafEnd, requests[slot].end)
        if segments.liveBlockCount + (end - block) <= plan.usableBlockCount { return true }
        var newCount: UInt64 = 0
        for offset in 0..<Int(end - block)
        where !ownEntry(frame: frame, index: Int(block & 255) + offset).isData {
            newCount += 1
        }
        return newCount == 0 || segments.liveBlockCount + newCount <= plan.usableBlockCount
    }

    /// Appends one record of as many blocks as the leaf and the batch take.
    private func appendBlocks(_ slot: Int, frame: Int, layer: Int, epoch: UInt64) {
        let block = requests[slot].cursor
        let leafEnd = ((block >> MapEntry.pageShift) + 1) << MapEntry.pageShift
        let wanted = Int(min(leafEnd, requests[slot].end) - block)
        let count = min(wanted, payloadRoom(tailByteCountPerBlock: 4))
        writeSequence += 1
        let span = beginRecord(
            RecordHeader(
                kind: .data,
                blockCount: UInt32(count),
                layer: catalogue.layers[layer].id,
                firstBlock: block,
                epoch: epoch,
                sequence: writeSequence,
                shard: BlockGeometry.shard(ofBlock: block),
                tailByteCount: UInt32(count * 4)
            )
        )
        copyPayload(slot, block: block, count: count, into: span.payload)
        for offset in 0..<count {
            let crc = span.payload.slice(offset * 4096, 4096).crc32c()
            span.header.store(crc, at: span.tailOffset + offset * 4)
            let entry = MapEntry(
                location: span.location + UInt64(offset),
                crc: crc,
                sequence: writeSequence
            )
            setOwnEntry(entry, frame: frame, index: Int(block & 255) + offset, layer: layer)
        }
        counters.dataByteCount += UInt64(count * 4096)
        requests[slot].cursor = block + UInt64(count)
    }

    /// Copies `count` blocks of payload, the partial ones over their old copies.
    private func copyPayload(_ slot: Int, block: UInt64, count: Int, into payload: ByteRegion) {
        let request = requests[slot].request
        let firstBlock = request.offset >> BlockGeometry.blockShift
        let headByteCount = Int(request.offset & 4095)
        let isFirst = block == firstBlock
        let isLast = block + UInt64(count) == requests[slot].end
        if isFirst, requests[slot].head.state == .ready {
            payload.slice(0, 4096).copy(from: scratch.block(requests[slot].head.scratch))
        }
        if isLast, requests[slot].tail.state == .ready {
            payload.slice((count - 1) * 4096, 4096)
                .copy(from: scratch.block(requests[slot].tail.scratch))
        }
        let destination = isFirst ? headByteCount : 0
        let source = isFirst ? 0 : Int(block - firstBlock) * 4096 - headByteCount
        let wanted = count * 4096 - destination
        let available = Int(request.byteCount) - source
        payload.copy(from: request.region.slice(source, min(wanted, available)), at: destination)
    }

    // MARK: - Zeroing

    func advanceZero(_ slot: Int) -> Progress {
        guard requests[slot].status == .ok else {
            finish(slot, requests[slot].status)
            return .done
        }
        if case .failed = state {
            finish(slot, .mediaError)
            return .done
        }
        let request = requests[slot].request
        // A range that is not made of whole blocks: its ends are written as zeroes.
        if (request.offset | request.byteCount) & 4095 != 0, requests[slot].head.state == .none,
            requests[slot].tail.state == .none
        {
            markPartialBlocks(slot)
        }
        if let progress = gatherPartialBlocks(slot) { return progress }
        let volume = catalogue.open[Int(request.volume.rawValue)]
        let layer = Int(volume.layer)
        let keepsBlocks = request.kind == .writeZeroes && request.flags.contains(.noHole)
        var leafBudget = LogStore.leafCountPerTurn
        while requests[slot].cursor < requests[slot].end {
            leafBudget -= 1
            guard leafBudget >= 0 else {
                hasDeferredWork = true
                return .needsResource
            }
            if let progress = zeroOneLeaf(slot, layer: layer, volume.epoch, keepsBlocks) {
                return progress
            }
        }
        finishChange(slot)
        return .done
    }

    private func zeroOneLeaf(
        _ slot: Int,
        layer: Int,
        _ epoch: UInt64,
        _ keepsBlocks: Bool
    ) -> Progress? {
        let block = requests[slot].cursor
        let leafIndex = block >> MapEntry.pageShift
        let isPartial = isPartialBlock(slot, block)
        if !keepsBlocks, !isPartial {
            switch presence(slot, layer: layer, block: block) {
            case .skip(let next):
                moveCursor(slot, to: min(next, limitOfWhole(slot)))
                return nil
            case .present: break
            case .loading(let frame):
                wait(slot, forFrame: frame)
                return .waitsForPage
            case .noResource: return .needsResource
            case .failed:
                finish(slot, .mediaError)
                return .done
            }
        }
        let payload = isPartial ? 1 : 0
        let privilege = isPartial ? LogPrivilege.client : .metadata
        let leaf = writableLeaf(
            layer: layer,
            index: leafIndex,
            blockCount: UInt64(payload),
            liveMax: keepsBlocks || isPartial ? plan.usableBlockCount : plan.trimBlockCount,
            privilege: privilege
        )
        switch leaf {
        case .ready(let frame):
            guard !isPartial || hasSpaceForBlock(block, frame: frame) else {
                finish(slot, .noSpace)
                return .done
            }
            guard
                makeRoom(
                    .client,
                    privilege,
                    tailByteCount: payload * 4,
                    payloadBlockCount: payload
                )
            else { return .needsResource }
            if isPartial {
                appendZeroedPart(slot, frame: frame, layer: layer, epoch)
            } else {
                appendZero(slot, frame: frame, layer: layer, epoch, keepsBlocks)
            }
            return nil
        case .loading(let frame):
            wait(slot, forFrame: frame)
            return .waitsForPage
        case .noResource: return .needsResource
        case .failed:
            finish(slot, .mediaError)
            return .done
        case .absent:
            finish(slot, .noSpace)
            return .done
        }
    }

    /// Whether one block fits: overwriting what is there always does.
    private func hasSpaceForBlock(_ block: UInt64, frame: Int) -> Bool {
        ownEntry(frame: frame, index: Int(block & 255)).isData
            || segments.liveBlockCount < plan.usableBlockCount
    }

    private func isPartialBlock(_ slot: Int, _ block: UInt64) -> Bool {
        let entry = requests[slot]
        let first = entry.request.offset >> BlockGeometry.blockShift
        if block == first, entry.head.state == .ready { return true }
        return block == entry.end - 1 && entry.tail.state == .ready
    }

    /// Where a run of whole blocks ends at the latest: before a partial tail.
    private func limitOfWhole(_ slot: Int) -> UInt64 {
        requests[slot].end - (requests[slot].tail.state == .ready ? 1 : 0)
    }

    /// Writes a block that is zeroed in part.
    private func appendZeroedPart(_ slot: Int, frame: Int, layer: Int, _ epoch: UInt64) {
        let request = requests[slot].request
        let block = requests[slot].cursor
        let blockStart = block << BlockGeometry.blockShift
        let isHead =
            block == request.offset >> BlockGeometry.blockShift
            && requests[slot].head.state == .ready
        let old = scratch.block(isHead ? requests[slot].head.scratch : requests[slot].tail.scratch)
        let from = max(request.offset, blockStart) - blockStart
        let to = min(request.offset + request.byteCount, blockStart + 4096) - blockStart
        writeSequence += 1
        let span = beginRecord(
            RecordHeader(
                kind: .data,
                blockCount: 1,
                layer: catalogue.layers[layer].id,
                firstBlock: block,
                epoch: epoch,
                sequence: writeSequence,
                shard: BlockGeometry.shard(ofBlock: block),
                tailByteCount: 4
            )
        )
        span.payload.copy(from: old)
        span.payload.slice(Int(from), Int(to - from)).zero()
        let crc = span.payload.crc32c()
        span.header.store(crc, at: span.tailOffset)
        let entry = MapEntry(location: span.location, crc: crc, sequence: writeSequence)
        setOwnEntry(entry, frame: frame, index: Int(block & 255), layer: layer)
        requests[slot].cursor = block + 1
    }

    /// Records that the blocks from the cursor to the leaf's end read as zero.
    private func appendZero(
        _ slot: Int,
        frame: Int,
        layer: Int,
        _ epoch: UInt64,
        _ keepsBlocks: Bool
    ) {
        let block = requests[slot].cursor
        let leafEnd = ((block >> MapEntry.pageShift) + 1) << MapEntry.pageShift
        let end = min(leafEnd, limitOfWhole(slot))
        writeSequence += 1
        let record = RecordHeader(
            kind: .zero,
            flags: keepsBlocks ? 1 : 0,
            blockCount: UInt32(end - block),
            layer: catalogue.layers[layer].id,
            firstBlock: block,
            epoch: epoch,
            sequence: writeSequence,
            shard: BlockGeometry.shard(ofBlock: block),
            tailByteCount: 0
        )
        _ = beginRecord(record)
        applyZero(record, frame: frame, layer: layer)
        moveCursor(slot, to: end)
    }

    /// Puts a zero record into its leaf; also how replay does it.
    func applyZero(_ record: RecordHeader, frame: Int, layer: Int) {
        let location =
            if record.flags & 1 != 0 {
                MapEntry.zeroLocation
            } else if catalogue.layers[layer].parent >= 0 {
                MapEntry.holeLocation
            } else {
                MapEntry.absentLocation
            }
        let entry =
            location == MapEntry.absentLocation
            ? MapEntry.absent : MapEntry(location: location, crc: 0, sequence: record.sequence)
        for offset in 0..<UInt64(record.blockCount) {
            let index = Int((record.firstBlock + offset) & 255)
            setOwnEntry(entry, frame: frame, index: index, layer: layer)
        }
    }

    // MARK: - Skipping what is not there

    /// Whether anything is stored at a block, and if not, how far nothing is.
    enum Presence {
        case present
        case skip(UInt64)
        case loading(Int)
        case noResource
        case failed
    }

    /// What the stack has at the request's cursor.
    ///
    /// A stack too deep for the map memory would drive its own pages out for ever while it is
    /// looked through; after as many reads as memory holds something counts as present.
    func presence(_ slot: Int, layer: Int, block: UInt64) -> Presence {
        guard requests[slot].walkReadCount < map.count / 2 else { return .present }
        let found = skipAbsent(layer: layer, block: block)
        if case .loading = found { requests[slot].walkReadCount += 1 }
        return found
    }

    /// Goes on to a block of which nothing has been looked up yet.
    func moveCursor(_ slot: Int, to block: UInt64) {
        requests[slot].cursor = block
        requests[slot].walkReadCount = 0
    }

    /// Looks through the whole stack for the largest subtree around `block` that is absent.
    func skipAbsent(layer: Int, block: UInt64) -> Presence {
        var slot = Int32(layer)
        var skipLevel = MapGeometry.levelMax
        while slot >= 0 {
            switch absentLevel(layer: Int(slot), block: block) {
            case .present: return .present
            case .skip(let level): skipLevel = min(skipLevel, UInt8(level))
            case .loading(let frame): return .loading(frame)
            case .noResource: return .noResource
            case .failed: return .failed
            }
            slot = catalogue.layers[Int(slot)].parent
        }
        let shift = MapEntry.pageShift * (UInt64(skipLevel) + 1)
        return .skip(((block >> shift) + 1) << shift)
    }

    /// The level at which a layer has nothing at `block`.
    private func absentLevel(layer: Int, block: UInt64) -> Presence {
        let rootLevel = catalogue.layers[layer].rootLevel
        let shift = MapEntry.pageShift
        // A dirty page has its whole path resident, so the first absent one has nothing below.
        var level = Int(rootLevel)
        while level >= 0 {
            let index = block >> (shift * (UInt64(level) + 1))
            switch loadPage(layer: layer, level: UInt8(level), index: index) {
            case .ready: level -= 1
            case .absent: return .skip(UInt64(level))
            case .loading(let frame): return .loading(frame)
            case .noResource: return .noResource
            case .failed: return .failed
            }
        }
        return .present
    }
}
