// Repeating the records behind the checkpoint, in the order of their batches.

internal import BlockCore
internal import LogFormat

extension LogStore {
    func beginBatch(_ recovery: Recovery) {
        guard recovery.batchIndex < recovery.batches.count else { return }
        recovery.walk = recovery.batches[recovery.batchIndex].walk
        recovery.record = recovery.walk.next()
    }

    /// Goes on with replay, or with the checkpoint that closes it.
    func continueRecovery() {
        guard let recovery, case .opening = state else { return }
        switch recovery.phase {
        case .superblocks, .manifest, .scanning, .announcing: return
        case .checkpointing:
            while runCheckpoint() {}
            closeTurn()
            // Nothing under way brings the checkpoint forward: it found no segment.
            if case .opening = state, ops.inFlightCount == 0 { fail(.noRoom) }
            return
        case .replaying: break
        }
        while recovery.batchIndex < recovery.batches.count {
            let batch = recovery.batches[recovery.batchIndex]
            while let record = recovery.record {
                guard replay(record, batch) else {
                    waitForPages(recovery)
                    return
                }
                recovery.record = recovery.walk.next()
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
    private func replay(_ placed: PlacedRecord, _ batch: ReplayBatch) -> Bool {
        var record = placed.header
        if defect == .replayIgnoresNumbers { record.flags.remove(.numbered) }
        // Numbers of others, which moved blocks may carry too, are none to count on from.
        if record.kind != .relocate, !placed.header.flags.contains(.numbered) {
            writeSequence = max(writeSequence, record.sequence)
        }
        switch record.kind {
        case .mapPage, .manifest: return true
        case .control: return replayControl(placed, batch)
        case .data, .zero, .relocate: break
        }
        guard let slot = catalogue.slot(of: record.layer) else { return true }
        if record.flags.contains(.streamed) {
            catalogue.layers[slot].streamPosition = record.sequence
        }
        guard record.blockCount > 0 else { return true }
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
        let hasParent = catalogue.layers[slot].parent >= 0
        let stride = Int(RecordHeader.tailByteCountPerBlock(record.kind))
        for position in 0..<Int(record.blockCount) {
            let offset = placed.tailOffset + position * stride
            let block = Int(record.firstBlock & 255) + position
            var sequence = record.sequence
            let own = ownEntry(frame: frame, index: block)
            if record.kind == .relocate {
                let old = batch.records.load(offset + 4, as: UInt64.self)
                sequence = batch.records.load(offset + 12, as: UInt64.self)
                guard own.location == old else { continue }
            }
            guard record.applies(over: own, hasParent: hasParent) else { continue }
            let entry = MapEntry(
                location: batch.location + 1 + UInt64(placed.payloadIndex + position),
                crc: batch.records.load(offset, as: UInt32.self),
                sequence: sequence
            )
            setOwnEntry(entry, frame: frame, index: block, layer: slot)
        }
        return true
    }

    private func replayControl(_ record: PlacedRecord, _ batch: ReplayBatch) -> Bool {
        let tail = batch.records.slice(record.tailOffset, Int(record.header.tailByteCount))
        let bytes = tail.array()
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
            guard applyControl(control, batchSequence: batch.sequence) else { return false }
        }
        return true
    }

    /// Has the pages read that the next records need; fails when there are no frames for them.
    private func waitForPages(_ recovery: Recovery) {
        guard case .opening = state else { return }
        prefetch(recovery)
        guard ops.inFlightCount == 0 else { return }
        // Every frame holds a page that replay has changed.
        let recorded = Int(recovery.manifest.dirtyPageCountMax)
        let have = map.count * 4096
        let need = max(SpacePlan.mapMemoryByteCount(forDirtyPages: recorded), have * 2)
        fail(.mapMemoryTooSmall(need: need, have: have))
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
            for record in recovery.batches[batchIndex].walk.lazy.map(\.header) {
                budget -= 1
                switch record.kind {
                case .data, .zero, .relocate: break
                case .mapPage, .manifest, .control: continue
                }
                guard let slot = catalogue.slot(of: record.layer) else { continue }
                guard record.blockCount > 0 else { continue }
                let index = record.firstBlock >> MapEntry.pageShift
                if case .noResource = loadPage(layer: slot, level: 0, index: index) { return }
            }
            batchIndex += 1
        }
    }
}
