// Zeroes and trims: records without payload, block by block where something is, and past what is
// not there.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
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
            payloadBlockCount: payload,
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
            flags: keepsBlocks ? .staysAllocated : [],
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
        let hasParent = catalogue.layers[layer].parent >= 0
        let location =
            if record.flags.contains(.staysAllocated) {
                MapEntry.zeroLocation
            } else if hasParent || record.flags.contains(.numbered) {
                // A number must stay where it can be found.
                MapEntry.holeLocation
            } else {
                MapEntry.absentLocation
            }
        let entry =
            location == MapEntry.absentLocation
            ? MapEntry.absent : MapEntry(location: location, crc: 0, sequence: record.sequence)
        for offset in 0..<UInt64(record.blockCount) {
            let index = Int((record.firstBlock + offset) & 255)
            let own = ownEntry(frame: frame, index: index)
            guard record.applies(over: own, hasParent: hasParent) else { continue }
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
