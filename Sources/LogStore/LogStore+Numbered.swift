// Changes whose numbers come from outside: what a replica of a replicated volume appends.
//
// A block's copy is as new as its number, whoever wrote it and in which order it came. So a record
// changes a block only where the copy of the volume's top layer is older, and replay, which meets
// the same copies in the same order, decides the same again. What does not apply of a record's
// payload is garbage from the start.
//
// One request is one record in one batch: after a crash it is there or not, never in part.
//
// Specification: Docs/replication.md, "Over the log store".

internal import BlockCore
internal import LogFormat

/// A bug planted to see that a test would find it.
package enum StoreDefect: Sendable {
    /// Replay takes numbered records for the store's own, which always hold.
    case replayIgnoresNumbers
    /// A checkpoint does not say how far the streams of its volumes came.
    case positionNotCheckpointed
}

extension RecordHeader {
    /// Whether the record holds for a block of which the layer itself has `own`.
    ///
    /// A numbered hole goes where it hides something or where who looks for numbers must find it: not
    /// where the whole stack has nothing. That is the same at run time and in replay, because
    /// what a layer stands on changes by records of the log only.
    @inline(always)
    func applies(over own: MapEntry, hasParent: Bool) -> Bool {
        guard flags.contains(.numbered) else { return true }
        if own.isAbsent { return kind == .data || hasParent || flags.contains(.staysAllocated) }
        return own.sequence < sequence
    }
}

extension LogStore {
    /// Blocks that a numbered write can have: ``StoreRequest/numberedBlockCountMax``, or as many as a
    /// batch of this store's segments has room for, if that is less.
    public var numberedBlockCountMax: Int {
        min(StoreRequest.numberedBlockCountMax, segments.blockCount - 1)
    }

    /// What is left for changes that have numbers.
    ///
    /// Less than what is taken: writes of a stream go as deep as trims, and trims are told half of
    /// that reserve. New map pages count as live only when they are written.
    ///
    /// - Complexity: O(volumes that are open).
    public var numberedRoom: NumberedRoom {
        let live = segments.liveBlockCount
        let left = { (limit: UInt64) in limit > live ? limit - live : 0 }
        return NumberedRoom(
            writeBlockCount: left(plan.usableBlockCount),
            trimBlockCount: left((plan.usableBlockCount + plan.trimBlockCount) / 2),
            layerCount: leftLayerCount
        )
    }

    /// Changes logged in this life: who waits for room tries again after any of them.
    var changeCount: UInt64 { writeSequence &+ numberedChangeCount }

    /// Whether a change that has a number is one that a single record can hold.
    func numberIsValid(_ request: StoreRequest) -> Bool {
        guard request.number > 0 else {
            return request.flags.isDisjoint(with: [.streamed, .repair, .weigh])
        }
        if request.flags.contains(.weigh) {
            guard request.kind == .writeZeroes, request.flags.contains(.noHole),
                request.flags.isDisjoint(with: [.streamed, .repair])
            else { return false }
        }
        if request.flags.contains(.repair) {
            guard request.kind == .write, request.byteCount == 4096,
                !request.flags.contains(.streamed)
            else { return false }
        }
        guard request.number >> RecordHeader.numberBitCount == 0, request.byteCount > 0,
            (request.offset | request.byteCount) & 4095 == 0
        else { return false }
        let leafShift = BlockGeometry.blockShift + MapEntry.pageShift
        let last = request.offset + request.byteCount - 1
        guard request.offset >> leafShift == last >> leafShift else { return false }
        guard request.kind == .write else { return true }
        let blockCount = Int(request.byteCount >> BlockGeometry.blockShift)
        let checksumByteCount = request.checksums.byteCount
        return blockCount <= numberedBlockCountMax
            && (checksumByteCount == 0 || checksumByteCount == 4 * blockCount)
    }

    func advanceNumbered(_ slot: Int) -> Progress {
        guard requests[slot].status == .ok else {
            finish(slot, requests[slot].status)
            return .done
        }
        if case .failed = state {
            finish(slot, .mediaError)
            return .done
        }
        let volume = catalogue.open[Int(requests[slot].request.volume.rawValue)]
        let layer = Int(volume.layer)
        let record = numberedRecord(requests[slot].request, layer: layer, epoch: volume.epoch)
        let isWeighed = requests[slot].request.flags.contains(.weigh)
        switch effect(of: record, slot, layer: layer) {
        case .nothing where isWeighed:
            finish(slot, .ok)
            return .done
        case .blocks(let newCount) where isWeighed:
            requests[slot].extentCount = UInt32(newCount)
            finish(slot, .ok)
            return .done
        case .nothing: return appendPosition(slot, record, layer: layer)
        case .blocks(let newCount):
            return appendNumbered(slot, record, layer: layer, newBlockCount: newCount)
        case .loading(let frame):
            wait(slot, forFrame: frame)
            return .waitsForPage
        case .noResource: return .needsResource
        case .failed:
            finish(slot, .mediaError)
            return .done
        }
    }

    private func numberedRecord(
        _ request: StoreRequest,
        layer: Int,
        epoch: UInt64
    ) -> RecordHeader {
        let block = request.offset >> BlockGeometry.blockShift
        let count = UInt32(request.byteCount >> BlockGeometry.blockShift)
        var flags = RecordFlags.numbered
        if request.flags.contains(.streamed) { flags.insert(.streamed) }
        let isWrite = request.kind == .write
        if request.kind == .writeZeroes, request.flags.contains(.noHole) {
            flags.insert(.staysAllocated)
        }
        return RecordHeader(
            kind: isWrite ? .data : .zero,
            flags: flags,
            blockCount: count,
            layer: catalogue.layers[layer].id,
            firstBlock: block,
            epoch: epoch,
            sequence: request.number,
            shard: BlockGeometry.shard(ofBlock: block),
            tailByteCount: isWrite ? count * 4 : 0
        )
    }

    // MARK: - What applies

    private enum NumberedEffect {
        /// Every block is as new already, or there is nothing to give up.
        case nothing
        /// It changes blocks, of which so many have no data of the layer yet.
        case blocks(newCount: UInt64)
        case loading(Int)
        case noResource
        case failed
    }

    /// Looks whether a record would change anything, before anything is made ready for it.
    private func effect(of record: RecordHeader, _ slot: Int, layer: Int) -> NumberedEffect {
        if record.kind == .zero, !record.flags.contains(.staysAllocated) {
            // What nothing has anything of is not given up: no page is made for it.
            switch presence(slot, layer: layer, block: record.firstBlock) {
            case .skip: return .nothing
            case .present: break
            case .loading(let frame): return .loading(frame)
            case .noResource: return .noResource
            case .failed: return .failed
            }
        }
        var frame = -1
        switch loadPage(layer: layer, level: 0, index: record.firstBlock >> MapEntry.pageShift) {
        case .ready(let found): frame = found
        case .absent: break
        case .loading(let frame): return .loading(frame)
        case .noResource: return .noResource
        case .failed: return .failed
        }
        let hasParent = catalogue.layers[layer].parent >= 0
        var appliesAnywhere = false
        var newCount: UInt64 = 0
        for position in 0..<Int(record.blockCount) {
            let index = Int(record.firstBlock & 255) + position
            let own = frame < 0 ? MapEntry.absent : ownEntry(frame: frame, index: index)
            guard record.applies(over: own, hasParent: hasParent) else { continue }
            appliesAnywhere = true
            if !own.isData { newCount += 1 }
        }
        return appliesAnywhere ? .blocks(newCount: newCount) : .nothing
    }

    // MARK: - Appending

    /// Ends a change of which nothing applies; of a streamed one its number is logged, in a record of
    /// no blocks.
    private func appendPosition(_ slot: Int, _ record: RecordHeader, layer: Int) -> Progress {
        if record.flags.contains(.streamed) {
            let privilege = record.kind == .data ? LogPrivilege.client : .metadata
            guard makeRoom(.client, privilege, tailByteCount: 0, payloadBlockCount: 0) else {
                return .needsResource
            }
            var position = record
            position.kind = .zero
            position.flags.remove(.staysAllocated)
            position.blockCount = 0
            position.tailByteCount = 0
            _ = beginRecord(position)
            noteLogged(position, layer: layer)
        }
        finishChange(slot)
        return .done
    }

    private func appendNumbered(
        _ slot: Int,
        _ record: RecordHeader,
        layer: Int,
        newBlockCount: UInt64
    ) -> Progress {
        let isData = record.kind == .data
        let isAllocating = isData || record.flags.contains(.staysAllocated)
        let payload = Int(record.payloadBlockCount)
        // What is in the stream has been promised room, and may use up the reserve that trims have.
        let isStreamed = record.flags.contains(.streamed)
        let liveMax = isStreamed ? plan.trimBlockCount : plan.usableBlockCount
        let isDeep =
            isStreamed
            && segments.liveBlockCount + UInt64(map.dirtyCount) + newBlockCount
                >= plan.usableBlockCount
        let privilege = isData && !isDeep ? LogPrivilege.client : .metadata
        let leaf = writableLeaf(
            layer: layer,
            index: record.firstBlock >> MapEntry.pageShift,
            blockCount: isData ? newBlockCount : 0,
            payloadBlockCount: payload,
            liveMax: isAllocating ? liveMax : plan.trimBlockCount,
            privilege: privilege
        )
        switch leaf {
        case .ready(let frame):
            guard
                !isData || newBlockCount == 0
                    || segments.liveBlockCount + newBlockCount <= liveMax
            else {
                finish(slot, .noSpace)
                return .done
            }
            // Again, now that the page is there: what made it ready may have sealed the batch.
            guard
                makeRoom(
                    .client,
                    privilege,
                    tailByteCount: Int(record.tailByteCount),
                    payloadBlockCount: payload
                )
            else { return .needsResource }
            append(slot, record, frame: frame, layer: layer)
            finishChange(slot)
            return .done
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

    private func append(_ slot: Int, _ record: RecordHeader, frame: Int, layer: Int) {
        let span = beginRecord(record)
        noteLogged(record, layer: layer)
        guard record.kind == .data else {
            applyZero(record, frame: frame, layer: layer)
            return
        }
        let count = Int(record.blockCount)
        let hasParent = catalogue.layers[layer].parent >= 0
        let checksums = requests[slot].request.checksums
        span.payload.copy(from: requests[slot].request.region.slice(0, count * 4096))
        for position in 0..<count {
            let crc =
                checksums.isEmpty
                ? span.payload.slice(position * 4096, 4096).crc32c()
                : checksums.load(position * 4, as: UInt32.self)
            span.header.store(crc, at: span.tailOffset + position * 4)
            let index = Int(record.firstBlock & 255) + position
            let own = ownEntry(frame: frame, index: index)
            guard record.applies(over: own, hasParent: hasParent) else { continue }
            let entry = MapEntry(
                location: span.location + UInt64(position),
                crc: crc,
                sequence: record.sequence
            )
            setOwnEntry(entry, frame: frame, index: index, layer: layer)
        }
        counters.dataByteCount += UInt64(count * 4096)
    }

    private func noteLogged(_ record: RecordHeader, layer: Int) {
        numberedChangeCount &+= 1
        if record.flags.contains(.streamed) {
            catalogue.layers[layer].streamPosition = record.sequence
        }
    }
}
