// The end of recovery: the log goes on where it ended, and a checkpoint closes what came before.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// The closing checkpoint may take so many times what is kept back for one while serving.
    private static var closingReserveFactor: Int { 4 }

    func endReplay(_ recovery: Recovery) {
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
            segments.change(Int(segment)) { $0.state = .reserved }
            segments.reserved.append(segment)
            if segments.reserved.count >= plan.reserveSegmentCount * LogStore.closingReserveFactor {
                break
            }
        }
        recovery.phase = .checkpointing
        beginCheckpoint()
        continueRecovery()
    }

    /// Fewer blocks than this are not worth going on in: a header and seven blocks of data, or an
    /// eighth of a segment that is small.
    var resumeBlockCountMin: Int { min(8, segments.blockCount / 8) }

    /// Where the log ended in a segment.
    private struct LogEnd {
        var segment: UInt32
        /// Blocks from the segment's start.
        var blockOffset: Int
        /// What its last batch was written for; nil when there is none behind the checkpoint.
        var stream: LogStream?
        /// Of its last batch; 0 when there is none behind the checkpoint.
        var sequence: UInt64 = 0
    }

    /// Goes on filling the segments that were being filled, so that a store that is killed again
    /// and again does not use a fresh segment up each time.
    ///
    /// What lies behind the last batch that counts is of a life that is over and is overwritten.
    private func resumeHeads(_ recovery: Recovery) {
        // Pages and the manifest in force may lie behind the place where the log was found to end.
        guard recovery.isCheckpointWhole else { return }
        let worthwhile = logEnds(recovery).filter {
            segments.blockCount - $0.blockOffset >= resumeBlockCountMin
        }
        let isTaken = { (stream: LogStream) in self.log.heads[stream.rawValue].segment >= 0 }
        // The youngest first: of two segments of a stream, the older was already left behind.
        for end in worthwhile.sorted(by: { ($0.sequence, $1.segment) > ($1.sequence, $0.segment) })
        {
            let content = segments.segments[Int(end.segment)].content
            let stream =
                end.stream
                ?? LogStream.allCases.first {
                    !isTaken($0) && (content == .unknown || content == $0.content)
                }
            guard let stream, !isTaken(stream) else { continue }
            segments.change(Int(end.segment)) {
                $0.state = .open
                $0.content = stream.content
            }
            log.heads[stream.rawValue] = StreamHead(
                segment: Int32(end.segment),
                blockOffset: Int32(end.blockOffset)
            )
        }
    }

    /// The segments in which the log can go on.
    private func logEnds(_ recovery: Recovery) -> [LogEnd] {
        var ends: [UInt32: LogEnd] = [:]
        for start in recovery.manifest.replayStarts where start.blockOffset > 0 {
            let segment = start.segment
            ends[segment] = LogEnd(segment: segment, blockOffset: Int(start.blockOffset))
        }
        // All of them: the first behind a checkpoint hold its own pages and manifest.
        for batch in recovery.batches {
            let segment = UInt32(segments.index(of: batch.location))
            let end = batch.location + 1 + UInt64(batch.payloadBlockCount)
            ends[segment] = LogEnd(
                segment: segment,
                blockOffset: Int(end - segments.location(of: Int(segment))),
                stream: batch.stream,
                sequence: batch.sequence
            )
        }
        return Array(ends.values)
    }

    /// The closing checkpoint is durable.
    func finishRecovery() {
        recovery = nil
        state = .ready
        checkpoint.isRequested = false
        layerJob.mayHaveWork = true
    }
}
