// Blocks that a request covers in part: what they hold is fetched first, so that the whole block
// can be written.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
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
                hasDeferredWork = true
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
}
