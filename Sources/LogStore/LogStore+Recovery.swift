// Opening a store: the newest checkpoint, then the log behind it, batch by batch, up to the
// first gap or damage. What comes out is a prefix of what was written. A checkpoint closes
// recovery, so that nothing behind the gap is ever taken for a continuation.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    func beginRecovery(expected: StoreIdentity?) {
        let recovery = Recovery(expected: expected)
        self.recovery = recovery
        guard geometry.byteCount >= Superblock.segmentAreaOffset else {
            fail(.notAStore)
            return
        }
        for slot in 0..<Superblock.slotOffsets.count {
            recoveryRead(
                offset: Superblock.slotOffsets[slot],
                into: recovery.buffer.slice(slot * 4096, 4096)
            )
        }
    }

    private func recoveryRead(offset: UInt64, into region: ByteRegion) {
        guard let recovery else { return }
        recovery.pendingReadCount += 1
        let operation = ops.take(.recoveryRead, owner: -1)
        deviceRequests.append(
            DeviceRequest(kind: .read, offset: offset, region: region, token: ops.token(operation))
        )
    }

    func finishRecoveryRead(errno: Int32) {
        guard let recovery else { return }
        recovery.pendingReadCount -= 1
        if errno != 0 { recovery.failedReadCount += 1 }
        guard recovery.pendingReadCount == 0 else { return }
        if recovery.failedReadCount > 0 {
            switch recovery.phase {
            case .superblocks: break
            case .manifest, .scanning, .announcing, .replaying, .checkpointing:
                fail(.deviceError(errno: errno))
                return
            }
        }
        switch recovery.phase {
        case .superblocks: chooseSuperblock(recovery, lastErrno: errno)
        case .manifest: takeManifestPiece(recovery)
        case .scanning: scan(recovery)
        case .announcing, .replaying, .checkpointing: break
        }
    }

    // MARK: - Superblock and manifest

    private func chooseSuperblock(_ recovery: Recovery, lastErrno: Int32) {
        var best: Superblock?
        var damagedOffset: UInt64?
        var newer: UInt32?
        for slot in 0..<Superblock.slotOffsets.count {
            do throws(LogFormatError) {
                let found = try Superblock.decode(recovery.buffer.slice(slot * 4096, 4096))
                if found.generation > best?.generation ?? 0 || best == nil { best = found }
            } catch {
                switch error {
                case .versionTooNew(let version): newer = version
                case .badChecksum: damagedOffset = Superblock.slotOffsets[slot]
                case .malformed, .truncated: break
                }
            }
        }
        if let newer {
            fail(.versionTooNew(found: newer, supported: Superblock.version))
        } else if let best {
            accept(best, recovery)
        } else if recovery.failedReadCount > 0 {
            fail(.deviceError(errno: lastErrno == 0 ? 5 : lastErrno))
        } else if let damagedOffset {
            fail(.corrupt(offset: damagedOffset))
        } else {
            fail(.notAStore)
        }
    }

    private func accept(_ found: Superblock, _ recovery: Recovery) {
        identity = found.identity
        if let expected = recovery.expected, expected != found.identity {
            fail(.wrongIdentity(found: found.identity))
            return
        }
        let need =
            Superblock.segmentAreaOffset
            + UInt64(found.segmentCount) * UInt64(found.segmentByteCount)
        guard geometry.byteCount >= need else {
            fail(.deviceTooSmall(need: need, have: geometry.byteCount))
            return
        }
        recovery.failedReadCount = 0
        superblock = found
        recovery.phase = .manifest
        readManifestPiece(recovery)
    }

    private func readManifestPiece(_ recovery: Recovery) {
        guard let superblock else { return }
        guard recovery.extentIndex < superblock.manifestExtents.count else {
            adoptManifest(recovery, superblock)
            return
        }
        let extent = superblock.manifestExtents[recovery.extentIndex]
        guard extent.blockCount > 0, extent.blockCount <= Recovery.bufferBlockCount else {
            fail(.corrupt(offset: extent.location * 4096))
            return
        }
        recoveryRead(
            offset: extent.location * 4096,
            into: recovery.buffer.slice(0, Int(extent.blockCount) * 4096)
        )
    }

    private func takeManifestPiece(_ recovery: Recovery) {
        guard let superblock else { return }
        let extent = superblock.manifestExtents[recovery.extentIndex]
        recovery.manifestBytes += recovery.buffer.slice(0, Int(extent.blockCount) * 4096).array()
        recovery.extentIndex += 1
        readManifestPiece(recovery)
    }

    private func adoptManifest(_ recovery: Recovery, _ superblock: Superblock) {
        let byteCount = Int(superblock.manifestByteCount)
        let offset = (superblock.manifestExtents.first?.location ?? 0) * 4096
        guard recovery.manifestBytes.count >= byteCount else {
            fail(.corrupt(offset: offset))
            return
        }
        let bytes = Array(recovery.manifestBytes[0..<byteCount])
        recovery.manifestBytes = []
        guard crc32c(bytes) == superblock.manifestCRC,
            let manifest = try? Manifest.decode(bytes, segmentCount: superblock.segmentCount)
        else {
            fail(.corrupt(offset: offset))
            return
        }
        recovery.manifest = manifest
        adoptSegments(manifest, superblock)
        adoptCatalogue(manifest)
        log.identity = superblock.identity.low
        log.incarnation = superblock.openCount + 1
        recovery.lastSequence = superblock.batchSequence
        recovery.phase = .scanning
        scanSegment(recovery)
    }

    private func adoptSegments(_ manifest: Manifest, _ superblock: Superblock) {
        segments = SegmentTable(
            segmentCount: Int(superblock.segmentCount),
            segmentByteCount: Int(superblock.segmentByteCount)
        )
        for index in 0..<segments.count {
            let usage = manifest.usage[index]
            let location = segments.location(of: index)
            segments.segments[index].state = .closed
            segments.segments[index].lastBatchSequence = usage.lastBatchSequence
            segments.segments[index].checkpointLiveBlockCount = usage.liveBlockCount
            segments.addLive(location, count: Int(usage.liveBlockCount))
        }
        for extent in superblock.manifestExtents {
            segments.addLive(extent.location, count: Int(extent.blockCount))
        }
        decideLimits(recordedDirtyMax: Int(manifest.dirtyPageCountMax))
    }

    /// Capacities that follow from the device and the memory.
    private func decideLimits(recordedDirtyMax: Int) {
        let blocks = segments.blockCount
        let total = segments.count * blocks
        dirtyPageCountMax = max(32, min(map.count / 2, total / 32, 32_768))
        let pageSegments = (dirtyPageCountMax * 5 / 4 + blocks - 1) / (blocks - 2)
        let manifestBlocks = (segments.count * 12 + 65_536) / 4096 + 1
        let manifestSegments = (manifestBlocks + blocks - 1) / (blocks - 2)
        reserveSegmentCount = 6 + 2 * (pageSegments + manifestSegments)
        reserveSegmentCount = min(reserveSegmentCount, max(6, segments.count / 4))
        let packed = (segments.count - reserveSegmentCount - 3) * (blocks - 1 - blocks / 60)
        usableBlockCount = UInt64(max(packed, 0)) * 92 / 100
    }

    private func adoptCatalogue(_ manifest: Manifest) {
        // Parents first, so that each layer finds the one it stands on.
        var waiting = manifest.layers
        while !waiting.isEmpty {
            var rest: [LayerRecord] = []
            for layer in waiting {
                if layer.parent == .none || catalogue.slot(of: layer.parent) != nil {
                    _ = catalogue.addLayer(layer)
                } else {
                    rest.append(layer)
                }
            }
            guard rest.count < waiting.count else { break }
            waiting = rest
        }
        for volume in manifest.volumes { catalogue.setVolume(volume) }
        for forward in manifest.forwards { catalogue.addForward(forward) }
        catalogue.nextLayerID = max(catalogue.nextLayerID, manifest.nextLayerID)
        writeSequence = manifest.writeSequence
    }

    // MARK: - Scanning the log

    private func scanSegment(_ recovery: Recovery) {
        guard recovery.startIndex < recovery.manifest.replayStarts.count else {
            orderBatches(recovery)
            return
        }
        let start = recovery.manifest.replayStarts[recovery.startIndex]
        recovery.headerOffset = Int(start.blockOffset)
        readLog(recovery, blockCount: Recovery.probeBlockCount)
    }

    private func readLog(_ recovery: Recovery, blockCount: Int) {
        let start = recovery.manifest.replayStarts[recovery.startIndex]
        let rest = segments.blockCount - recovery.headerOffset
        guard rest > 0 else {
            recovery.startIndex += 1
            scanSegment(recovery)
            return
        }
        recovery.readBlockCount = min(rest, blockCount)
        let location = segments.location(of: Int(start.segment)) + UInt64(recovery.headerOffset)
        recoveryRead(
            offset: location * 4096,
            into: recovery.buffer.slice(0, recovery.readBlockCount * 4096)
        )
    }

    /// Takes the whole batches in the buffer.
    private func scan(_ recovery: Recovery) {
        let start = recovery.manifest.replayStarts[recovery.startIndex]
        let base = recovery.headerOffset
        var offset = 0
        while offset < recovery.readBlockCount {
            let block = recovery.buffer.slice(offset * 4096, 4096)
            let location = segments.location(of: Int(start.segment)) + UInt64(base + offset)
            guard let header = BatchHeader.decode(block), isExpected(header, at: location) else {
                recovery.startIndex += 1
                scanSegment(recovery)
                return
            }
            let count = Int(header.payloadBlockCount)
            guard base + offset + 1 + count <= segments.blockCount else {
                recovery.startIndex += 1
                scanSegment(recovery)
                return
            }
            guard offset + 1 + count <= recovery.readBlockCount else { break }
            let payload = recovery.buffer.slice((offset + 1) * 4096, count * 4096)
            guard payloadVerifies(header, block, payload) else {
                recovery.startIndex += 1
                scanSegment(recovery)
                return
            }
            let records = block.slice(BatchHeader.recordsOffset, Int(header.recordByteCount))
            recovery.batches.append(
                ReplayBatch(
                    sequence: header.sequence,
                    location: location,
                    records: recovery.keep(records),
                    recordCount: header.recordCount,
                    payloadBlockCount: header.payloadBlockCount
                )
            )
            offset += 1 + count
        }
        recovery.headerOffset = base + offset
        readLog(recovery, blockCount: Recovery.bufferBlockCount)
    }

    private func isExpected(_ header: BatchHeader, at location: UInt64) -> Bool {
        guard let superblock else { return false }
        return header.location == location && header.identity == log.identity
            && header.incarnation == superblock.incarnation
            && header.sequence > superblock.batchSequence
    }

    private func payloadVerifies(
        _ header: BatchHeader,
        _ block: ByteRegion,
        _ payload: ByteRegion
    ) -> Bool {
        let records = block.slice(BatchHeader.recordsOffset, Int(header.recordByteCount))
        var offset = 0
        var index = 0
        for _ in 0..<header.recordCount {
            guard let record = RecordHeader.decode(records, at: offset) else { return false }
            let stride = Int(RecordHeader.tailByteCountPerBlock(record.kind))
            for position in 0..<Int(record.payloadBlockCount) {
                let expected = records.load(
                    offset + RecordHeader.byteCount + position * stride,
                    as: UInt32.self
                )
                guard payload.slice(index * 4096, 4096).crc32c() == expected else { return false }
                index += 1
            }
            offset += RecordHeader.byteCount + Int(record.tailByteCount)
        }
        return true
    }

    /// Keeps the batches up to the first gap.
    private func orderBatches(_ recovery: Recovery) {
        guard let superblock else { return }
        recovery.batches.sort { $0.sequence < $1.sequence }
        var next = superblock.batchSequence + 1
        var kept = 0
        for batch in recovery.batches {
            guard batch.sequence == next else { break }
            next += 1
            kept += 1
        }
        recovery.batches.removeSubrange(kept...)
        recovery.lastSequence = next - 1
        for batch in recovery.batches {
            let segment = segments.index(of: batch.location)
            let last = segments.segments[segment].lastBatchSequence
            segments.segments[segment].lastBatchSequence = max(last, batch.sequence)
        }
        announceOpening(recovery, superblock)
    }

    /// Takes a new life of the log before anything is written in it.
    private func announceOpening(_ recovery: Recovery, _ current: Superblock) {
        var next = current
        next.generation += 1
        next.openCount += 1
        superblock = next
        recovery.phase = .announcing
        checkpoint.pendingWriteCount = 2
        send(next, as: .recoveryWrite)
    }

    func finishRecoveryWrite(errno: Int32) {
        guard let recovery else { return }
        guard errno == 0 else {
            fail(.deviceError(errno: errno))
            return
        }
        checkpoint.pendingWriteCount -= 1
        guard checkpoint.pendingWriteCount == 0 else { return }
        recovery.phase = .replaying
        beginBatch(recovery)
        continueRecovery()
    }

    // MARK: - Replaying

    private func beginBatch(_ recovery: Recovery) {
        recovery.recordOffset = 0
        recovery.recordIndex = 0
        guard recovery.batchIndex < recovery.batches.count else { return }
        recovery.payloadLocation = recovery.batches[recovery.batchIndex].location + 1
    }

    /// Goes on with replay, or with the checkpoint that closes it.
    func continueRecovery() {
        guard let recovery, case .opening = state else { return }
        switch recovery.phase {
        case .superblocks, .manifest, .scanning, .announcing: return
        case .checkpointing:
            while runCheckpoint() {}
            closeTurn()
            return
        case .replaying: break
        }
        while recovery.batchIndex < recovery.batches.count {
            let batch = recovery.batches[recovery.batchIndex]
            while recovery.recordIndex < batch.recordCount {
                guard
                    let record = RecordHeader.decode(batch.records, at: recovery.recordOffset)
                else { preconditionFailure("records were verified when the batch was read") }
                guard replay(record, batch, recovery) else {
                    prefetch(recovery)
                    return
                }
                recovery.recordIndex += 1
                recovery.recordOffset += RecordHeader.byteCount + Int(record.tailByteCount)
                recovery.payloadLocation += UInt64(record.payloadBlockCount)
            }
            counters.replayedBatchCount += 1
            recovery.batchIndex += 1
            beginBatch(recovery)
        }
        endReplay(recovery)
    }

    /// Repeats one record.
    ///
    /// - Returns: false when a page must be read first.
    private func replay(_ record: RecordHeader, _ batch: ReplayBatch, _ recovery: Recovery) -> Bool
    {
        writeSequence = max(writeSequence, record.sequence)
        switch record.kind {
        case .mapPage, .manifest: return true
        case .control: return replayControl(record, batch, recovery)
        case .data, .zero, .relocate: break
        }
        guard let slot = catalogue.slot(of: record.layer) else { return true }
        let index = record.firstBlock >> MapEntry.pageShift
        let page = writablePage(layer: slot, level: 0, index: index, isUrgent: true)
        guard case .ready(let frame) = page else {
            if case .failed = page { failReplay(batch) }
            return false
        }
        if record.kind == .zero {
            applyZero(record, frame: frame, layer: slot)
            return true
        }
        let tail = recovery.recordOffset + RecordHeader.byteCount
        let stride = Int(RecordHeader.tailByteCountPerBlock(record.kind))
        for position in 0..<Int(record.blockCount) {
            let offset = tail + position * stride
            let block = Int(record.firstBlock & 255) + position
            var sequence = record.sequence
            if record.kind == .relocate {
                let old = batch.records.load(offset + 4, as: UInt64.self)
                sequence = batch.records.load(offset + 12, as: UInt64.self)
                guard ownEntry(frame: frame, index: block).location == old else { continue }
            }
            let entry = MapEntry(
                location: recovery.payloadLocation + UInt64(position),
                crc: batch.records.load(offset, as: UInt32.self),
                sequence: sequence
            )
            setOwnEntry(entry, frame: frame, index: block, layer: slot)
        }
        return true
    }

    private func replayControl(
        _ record: RecordHeader,
        _ batch: ReplayBatch,
        _ recovery: Recovery
    ) -> Bool {
        let offset = recovery.recordOffset + RecordHeader.byteCount
        let bytes = batch.records.slice(offset, Int(record.tailByteCount)).array()
        guard let control = try? ControlRecord.decode(bytes) else {
            fail(.corrupt(offset: batch.location * 4096))
            return false
        }
        switch control {
        case .reclaimPage, .mergePage:
            sawFailedPage = false
            guard pagesAreReady(control, isUrgent: true) else {
                if sawFailedPage { failReplay(batch) }
                return false
            }
            applyPage(control)
        default:
            applyControl(control, batchSequence: batch.sequence)
        }
        return true
    }

    /// A map page that replay needs cannot be read.
    private func failReplay(_ batch: ReplayBatch) {
        fail(
            pageErrno == 0
                ? .corrupt(offset: batch.location * 4096) : .deviceError(errno: pageErrno)
        )
    }

    /// Records looked at ahead, so that their pages are read side by side.
    private static var prefetchRecordCount: Int { 256 }

    private func prefetch(_ recovery: Recovery) {
        var budget = LogStore.prefetchRecordCount
        var batchIndex = recovery.batchIndex
        while budget > 0, batchIndex < recovery.batches.count {
            let batch = recovery.batches[batchIndex]
            var offset = 0
            for _ in 0..<batch.recordCount {
                guard let record = RecordHeader.decode(batch.records, at: offset) else { return }
                offset += RecordHeader.byteCount + Int(record.tailByteCount)
                budget -= 1
                switch record.kind {
                case .data, .zero, .relocate: break
                case .mapPage, .manifest, .control: continue
                }
                guard let slot = catalogue.slot(of: record.layer) else { continue }
                let index = record.firstBlock >> MapEntry.pageShift
                if case .noResource = loadPage(layer: slot, level: 0, index: index) { return }
            }
            batchIndex += 1
        }
    }

    private func endReplay(_ recovery: Recovery) {
        guard let superblock else { return }
        resumeHeads(recovery)
        recovery.batches = []
        recovery.headerArenas = []
        recovery.headerRoom = .empty
        log.nextSequence = recovery.lastSequence + 1
        log.sealedThrough = recovery.lastSequence
        log.writtenThrough = recovery.lastSequence
        // Replayed batches were read back, perhaps from a cache that power loss empties: the
        // checkpoint's flush is what makes them durable.
        log.durableThrough = 0
        log.lastVolatile = recovery.lastSequence
        _ = segments.collectFree(checkpointSequence: superblock.batchSequence)
        // Nothing written before the closing checkpoint needs to be found again, so any free
        // segment will do.
        while let segment = segments.free.popFirst() {
            segments.segments[Int(segment)].state = .reserved
            segments.reserved.append(segment)
            if segments.reserved.count >= reserveSegmentCount * 4 { break }
        }
        recovery.phase = .checkpointing
        beginCheckpoint()
        continueRecovery()
    }

    /// Fewer blocks than this are not worth going on in a segment.
    private static var resumeBlockCountMin: Int { 8 }

    /// Goes on filling the segments that were being filled, so that a store that is killed again
    /// and again does not use a fresh segment up each time.
    ///
    /// What lies behind the last batch that counts is of a life that is over and is overwritten.
    private func resumeHeads(_ recovery: Recovery) {
        var ends: [UInt32: (offset: Int, stream: LogStream?, sequence: UInt64)] = [:]
        for start in recovery.manifest.replayStarts where start.blockOffset > 0 {
            ends[start.segment] = (Int(start.blockOffset), nil, 0)
        }
        for batch in recovery.batches {
            let segment = segments.index(of: batch.location)
            let end = batch.location + 1 + UInt64(batch.payloadBlockCount)
            ends[UInt32(segment)] = (
                Int(end - segments.location(of: segment)), stream(of: batch), batch.sequence
            )
        }
        let worthwhile = ends.sorted { ($1.value.sequence, $1.key) < ($0.value.sequence, $0.key) }
            .filter { segments.blockCount - $0.value.offset >= LogStore.resumeBlockCountMin }
        for (segment, end) in worthwhile {
            let isTaken = { (stream: LogStream) in self.log.heads[stream.rawValue].segment >= 0 }
            let stream = end.stream ?? LogStream.allCases.first { !isTaken($0) }
            guard let stream, !isTaken(stream) else { continue }
            segments.segments[Int(segment)].state = .open
            log.heads[stream.rawValue] = StreamHead(
                segment: Int32(segment),
                blockOffset: Int32(end.offset)
            )
        }
    }

    /// The stream that a batch was written for: its first record tells.
    private func stream(of batch: ReplayBatch) -> LogStream {
        guard let record = RecordHeader.decode(batch.records, at: 0) else { return .client }
        return switch record.kind {
        case .data, .zero, .control: .client
        case .relocate: .survivor
        case .mapPage, .manifest: .map
        }
    }

    /// The closing checkpoint is durable.
    func finishRecovery() {
        recovery = nil
        state = .ready
        checkpoint.isRequested = false
        layerJob.mayHaveWork = true
    }
}
