// Writes: payload into the open batch, map entries changed at once, acknowledged as the
// volume's durability says.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
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
                payloadBlockCount: 1,
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
    ///   - payloadBlockCount: Blocks of payload of its least useful record.
    ///   - liveMax: Blocks that may be live afterwards if the leaf is new.
    ///   - privilege: How deep into the reserve the change may go.
    /// - Returns: As ``writablePage(layer:level:index:isUrgent:)``; `absent` when there is no room.
    func writableLeaf(
        layer: Int,
        index: UInt64,
        blockCount: UInt64,
        payloadBlockCount: Int,
        liveMax: UInt64,
        privilege: LogPrivilege
    ) -> PageResult {
        // Dirty pages may be new ones, which count as live only when they are written.
        if segments.liveBlockCount + UInt64(map.dirtyCount) + blockCount >= liveMax {
            let own = loadPage(layer: layer, level: 0, index: index)
            guard case .ready = own else { return own }
        }
        guard
            makeRoom(
                .client,
                privilege,
                tailByteCount: payloadBlockCount * 4,
                payloadBlockCount: payloadBlockCount
            )
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
}
