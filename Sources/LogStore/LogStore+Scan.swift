// Finding the batches behind the checkpoint: from each place where the log went on, up to the first
// gap, or the first batch that a crash cut short.
//
// A payload that does not verify is taken for cut short only where no header says that its batch was
// durable: otherwise it rotted, and what reads it is told so. Payloads that replay does not look at
// (map pages, manifests) cut nothing short.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    func scanSegment(_ recovery: Recovery) {
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
            nextSegment(recovery)
            return
        }
        recovery.readBlockCount = min(rest, blockCount)
        let location = segments.location(of: Int(start.segment)) + UInt64(recovery.headerOffset)
        recoveryRead(
            offset: location * 4096,
            into: recovery.buffer.slice(0, recovery.readBlockCount * 4096)
        )
    }

    /// Takes the batches in the buffer.
    func scan(_ recovery: Recovery) {
        if let gap = recovery.gap {
            lookBehindGap(recovery, gap)
            return
        }
        let base = recovery.headerOffset
        var offset = 0
        while offset < recovery.readBlockCount {
            let block = recovery.buffer.slice(offset * 4096, 4096)
            let location = location(recovery, base + offset)
            guard let header = BatchHeader.decode(block), isExpected(header, at: location),
                base + offset + 1 + Int(header.payloadBlockCount) <= segments.blockCount
            else {
                endSegment(recovery, at: base + offset)
                return
            }
            recovery.isBehindUsed = true
            let count = Int(header.payloadBlockCount)
            guard offset + 1 + count <= recovery.readBlockCount else { break }
            let payload = recovery.buffer.slice((offset + 1) * 4096, count * 4096)
            let records = block.slice(BatchHeader.recordsOffset, Int(header.recordByteCount))
            recovery.batches.append(
                ReplayBatch(
                    sequence: header.sequence,
                    location: location,
                    records: recovery.keep(records),
                    recordCount: header.recordCount,
                    payloadBlockCount: header.payloadBlockCount,
                    isWhole: payloadVerifies(header, block, payload)
                )
            )
            recovery.promisedSequence = max(recovery.promisedSequence, header.promisedSequence)
            offset += 1 + count
        }
        recovery.headerOffset = base + offset
        readLog(recovery, blockCount: Recovery.bufferBlockCount)
    }

    private func location(_ recovery: Recovery, _ blockOffset: Int) -> UInt64 {
        let start = recovery.manifest.replayStarts[recovery.startIndex]
        return segments.location(of: Int(start.segment)) + UInt64(blockOffset)
    }

    // MARK: - Behind a gap

    /// The log of a segment ends, or has a hole: what lies behind tells which.
    private func endSegment(_ recovery: Recovery, at blockOffset: Int) {
        let start = recovery.manifest.replayStarts[recovery.startIndex]
        let isUnused = start.blockOffset == 0 && blockOffset == 0
        // Announced segments are used in order. Behind the first that nothing was written to,
        // most likely, none was.
        guard !isUnused || recovery.isBehindUsed else {
            nextSegment(recovery)
            return
        }
        recovery.isBehindUsed = !isUnused
        recovery.gap = LogGap(location: location(recovery, blockOffset))
        recovery.headerOffset = blockOffset + 1
        readLog(recovery, blockCount: LogGap.quietBlockCountMax)
    }

    /// Takes what the batches behind a hole say was durable; their records are worth nothing
    /// without those of the batch that is missing.
    private func lookBehindGap(_ recovery: Recovery, _ found: LogGap) {
        var gap = found
        let base = recovery.headerOffset
        var offset = 0
        while offset < recovery.readBlockCount, gap.quietBlockCount < LogGap.quietBlockCountMax {
            let block = recovery.buffer.slice(offset * 4096, 4096)
            guard let header = BatchHeader.decode(block),
                isExpected(header, at: location(recovery, base + offset))
            else {
                gap.quietBlockCount += 1
                offset += 1
                continue
            }
            gap.quietBlockCount = 0
            recovery.isBehindUsed = true
            recovery.promisedSequence = max(recovery.promisedSequence, header.promisedSequence)
            recovery.gapLocation = recovery.gapLocation ?? gap.location
            if let stream = header.records(in: block).stream, stream.isRepeated {
                recovery.repeatedBehindGap = max(recovery.repeatedBehindGap, header.sequence)
            }
            offset += 1 + Int(header.payloadBlockCount)
        }
        guard gap.quietBlockCount < LogGap.quietBlockCountMax else {
            nextSegment(recovery)
            return
        }
        recovery.gap = gap
        recovery.headerOffset = base + offset
        readLog(recovery, blockCount: Recovery.bufferBlockCount)
    }

    private func nextSegment(_ recovery: Recovery) {
        recovery.gap = nil
        recovery.startIndex += 1
        scanSegment(recovery)
    }

    private func isExpected(_ header: BatchHeader, at location: UInt64) -> Bool {
        guard let superblock else { return false }
        return header.location == location && header.identity == log.identity
            && header.payloadBlockCount <= UInt32(LogWriter.payloadBlockCountMax)
            && header.incarnation == superblock.incarnation
            && header.sequence > superblock.batchSequence
    }

    private func payloadVerifies(
        _ header: BatchHeader,
        _ block: ByteRegion,
        _ payload: ByteRegion
    ) -> Bool {
        let records = block.suffix(from: BatchHeader.recordsOffset)
        return header.records(in: block).allSatisfy { record in
            guard LogStream(ofRecords: record.header.kind).isRepeated else { return true }
            let stride = Int(RecordHeader.tailByteCountPerBlock(record.header.kind))
            return (0..<Int(record.header.payloadBlockCount)).allSatisfy { position in
                let place = (record.payloadIndex + position) * 4096
                let expected = records.load(
                    record.tailOffset + position * stride,
                    as: UInt32.self
                )
                return payload.slice(place, 4096).crc32c() == expected
            }
        }
    }

    /// Keeps the batches up to the first gap, or the first that was cut short.
    private func orderBatches(_ recovery: Recovery) {
        guard let superblock else { return }
        recovery.batches.sort { $0.sequence < $1.sequence }
        let manifest = superblock.manifestExtents.last?.location ?? 0
        // The checkpoint was put in force when its manifest was durable.
        let checkpointEnd = recovery.batches.first { $0.contains(manifest) }?.sequence
        let durable = max(recovery.promisedSequence, checkpointEnd ?? 0)
        var next = superblock.batchSequence + 1
        var kept = 0
        for batch in recovery.batches {
            guard batch.sequence == next,
                batch.isWhole || batch.sequence <= durable
            else { break }
            next += 1
            kept += 1
        }
        recovery.isCheckpointWhole = checkpointEnd.map { $0 < next } ?? false
        if lacksDurable(recovery, from: next, kept) {
            let last = kept > 0 ? recovery.batches[kept - 1] : nil
            let end = last.map { $0.location + 1 + UInt64($0.payloadBlockCount) } ?? manifest
            let offset = (recovery.gapLocation ?? end) * 4096
            guard configuration.acceptsLoss else {
                fail(.writesLost(offset: offset))
                return
            }
            acceptedLossOffset = offset
        }
        recovery.batches.removeSubrange(kept...)
        recovery.lastSequence = next - 1
        for batch in recovery.batches.prefix(neededBatchCount(recovery)) {
            let segment = segments.index(of: batch.location)
            let last = segments.segments[segment].lastBatchSequence
            segments.segments[segment].lastBatchSequence = max(last, batch.sequence)
            segments.segments[segment].content = batch.stream.content
        }
        announceOpening(recovery, superblock)
    }

    /// Whether going on without the batches from `next` on would take back what was promised.
    ///
    /// A checkpoint in force has all its batches, whatever crashes: where one is missing, it and
    /// those behind it were lost to damage, and any that replay repeats may have been durable.
    private func lacksDurable(_ recovery: Recovery, from next: UInt64, _ kept: Int) -> Bool {
        if recovery.promisedSequence >= next { return true }
        // The manifest of a store that was only formatted is in no batch.
        guard !recovery.isCheckpointWhole, superblock?.incarnation ?? 0 > 0 else { return false }
        return recovery.repeatedBehindGap >= next
            || recovery.batches[kept...].contains { $0.stream.isRepeated }
    }

    /// Batches up to the last that replay does something with.
    ///
    /// Those behind it hold pages of a checkpoint that was not finished. Nothing is lost when the
    /// next opening finds fewer of them, so their segments are free.
    private func neededBatchCount(_ recovery: Recovery) -> Int {
        let last = recovery.batches.lastIndex { $0.stream != .map && $0.stream != .manifest }
        return last.map { $0 + 1 } ?? 0
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
}
