// The end of a checkpoint: its manifest, then the superblock that puts it in force.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension LogStore {
    func encodeManifest() {
        for index in 0..<segments.count {
            let segment = segments.segments[index]
            let isBehind = segment.lastBatchSequence > checkpoint.sequence
            checkpoint.manifest.usage.append(
                SegmentUsage(
                    liveBlockCount: segment.capturedLiveBlockCount,
                    content: segment.content,
                    lastBatchSequence: isBehind ? checkpoint.sequence : segment.lastBatchSequence
                )
            )
        }
        checkpoint.bytes = checkpoint.manifest.encode()
        checkpoint.byteOffset = 0
        checkpoint.extents = []
        checkpoint.phase = .manifest
    }

    func writeManifest() -> Bool {
        let bytes = checkpoint.bytes
        while checkpoint.byteOffset < bytes.count {
            guard makeRoom(.manifest, .checkpoint, tailByteCount: 4, payloadBlockCount: 1) else {
                return false
            }
            let rest = bytes.count - checkpoint.byteOffset
            let count = min((rest + 4095) / 4096, payloadRoom(tailByteCountPerBlock: 4))
            let span = beginRecord(
                RecordHeader(
                    kind: .manifest,
                    blockCount: UInt32(count),
                    layer: .none,
                    firstBlock: UInt64(checkpoint.byteOffset / 4096),
                    tailByteCount: UInt32(count * 4)
                )
            )
            let taken = min(rest, count * 4096)
            span.payload.zero()
            let from = checkpoint.byteOffset
            span.payload.copy(from: Array(bytes[from..<(from + taken)]))
            for block in 0..<count {
                let crc = span.payload.slice(block * 4096, 4096).crc32c()
                span.header.store(crc, at: span.tailOffset + block * 4)
            }
            segments.addLive(span.location, count: count)
            checkpoint.extents.append(
                BlockExtent(location: span.location, blockCount: UInt32(count))
            )
            checkpoint.byteOffset += taken
        }
        checkpoint.waitSequence = wantDurable()
        if log.hasOpenRecords { sealBatch() }
        checkpoint.phase = .hardening
        issueFlush()
        return true
    }

    func writeSuperblock() {
        guard let current = superblock else { return }
        let next = Superblock(
            identity: current.identity,
            generation: current.generation + 1,
            deviceByteCount: current.deviceByteCount,
            segmentByteCount: current.segmentByteCount,
            segmentCount: current.segmentCount,
            incarnation: log.incarnation,
            openCount: current.openCount,
            batchSequence: checkpoint.sequence,
            manifestExtents: checkpoint.extents,
            manifestByteCount: UInt32(checkpoint.bytes.count),
            manifestCRC: crc32c(checkpoint.bytes)
        )
        checkpoint.next = next
        checkpoint.phase = .superblock
        checkpoint.pendingWriteCount = 2
        send(next, as: .superblockWrite)
    }

    /// Writes a superblock to its two slots.
    func send(_ superblock: Superblock, as kind: OperationKind) {
        superblock.encode(into: superblockMemory)
        for slot in Superblock.slots(generation: superblock.generation) {
            let operation = ops.take(kind, owner: -1)
            deviceRequests.append(
                DeviceRequest(
                    kind: .writeDurable,
                    offset: Superblock.slotOffsets[slot],
                    region: superblockMemory.slice(0, 4096),
                    token: ops.token(operation)
                )
            )
        }
    }

    /// The checksum of a manifest.
    func crc32c(_ bytes: [UInt8]) -> UInt32 {
        var crc: UInt32 = 0
        var offset = 0
        let buffer = superblockMemory.slice(4096, 4096)
        while offset < bytes.count {
            let count = min(4096, bytes.count - offset)
            buffer.copy(from: Array(bytes[offset..<(offset + count)]))
            crc = buffer.slice(0, count).crc32c(seed: crc)
            offset += count
        }
        return crc
    }

    func finishSuperblockWrite(errno: Int32) {
        guard errno == 0 else {
            fail(.deviceError(errno: errno))
            return
        }
        checkpoint.pendingWriteCount -= 1
        guard checkpoint.pendingWriteCount == 0, let next = checkpoint.next else { return }
        for extent in superblock?.manifestExtents ?? [] {
            segments.removeLive(extent.location, count: Int(extent.blockCount))
        }
        superblock = next
        for index in 0..<segments.count {
            segments.segments[index].checkpointLiveBlockCount =
                segments.segments[index].capturedLiveBlockCount
            // What is still live in it was not found to be: it is a victim like others again.
            segments.change(index) { $0.isDrained = false }
        }
        for segment in checkpoint.nextReserved {
            segments.segments[Int(segment)].reuseCount &+= 1
            segments.segments[Int(segment)].firstBatchSequence = 0
            segments.reserved.append(segment)
        }
        _ = segments.collectFree(checkpointSequence: checkpoint.sequence)
        counters.checkpointCount += 1
        checkpoint.phase = .idle
        checkpoint.writtenPageCount = 0
        checkpoint.bytes = []
        checkpoint.manifest = Manifest()
        checkpoint.next = nil
        resourcesChanged = true
        // Segments that are free but not announced cannot be used: announce them soon when the
        // announced ones run short; not for what every checkpoint uses up and gives back.
        if case .ready = state, segments.free.count > manifestChurnCount,
            segments.reserved.count <= plan.reserveSegmentCount + 2
        {
            checkpoint.isRequested = true
        }
        if recovery != nil { finishRecovery() }
    }
}
