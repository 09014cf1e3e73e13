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

    func recoveryRead(offset: UInt64, into region: ByteRegion) {
        guard let recovery else { return }
        recovery.pendingReadCount += 1
        let operation = ops.take(.recoveryRead, owner: -1)
        ops.operations[operation].location = offset / 4096
        deviceRequests.append(
            DeviceRequest(kind: .read, offset: offset, region: region, token: ops.token(operation))
        )
    }

    func finishRecoveryRead(location: UInt64, errno: Int32) {
        guard let recovery else { return }
        recovery.pendingReadCount -= 1
        if errno != 0 {
            recovery.readErrno = errno
            recovery.unreadableLocations.insert(location)
        }
        guard recovery.pendingReadCount == 0 else { return }
        switch recovery.phase {
        case .superblocks: break
        case .manifest, .scanning, .announcing, .replaying, .checkpointing:
            guard recovery.unreadableLocations.isEmpty else {
                fail(.deviceError(errno: recovery.readErrno))
                return
            }
        }
        switch recovery.phase {
        case .superblocks: chooseSuperblock(recovery)
        case .manifest: takeManifestPiece(recovery)
        case .scanning: scan(recovery)
        case .announcing, .replaying, .checkpointing: break
        }
    }

    // MARK: - Superblock and manifest

    /// Whether no copy of some generation can be read: it may be the newest, and going on from the
    /// one before would write over it.
    private func isGenerationUnreadable(_ recovery: Recovery) -> Bool {
        [0, 1].contains { generation in
            Superblock.slots(generation: generation).allSatisfy {
                recovery.unreadableLocations.contains(Superblock.slotOffsets[$0] / 4096)
            }
        }
    }

    private func chooseSuperblock(_ recovery: Recovery) {
        guard !isGenerationUnreadable(recovery) else {
            fail(.deviceError(errno: recovery.readErrno))
            return
        }
        var best: Superblock?
        var damagedOffset: UInt64?
        var newer: UInt32?
        var older: UInt32?
        for slot in 0..<Superblock.slotOffsets.count {
            do throws(LogFormatError) {
                let found = try Superblock.decode(recovery.buffer.slice(slot * 4096, 4096))
                if found.generation > best?.generation ?? 0 || best == nil { best = found }
            } catch {
                switch error {
                case .versionTooNew(let version): newer = version
                case .versionTooOld(let version): older = version
                case .badChecksum: damagedOffset = Superblock.slotOffsets[slot]
                case .malformed, .truncated: break
                }
            }
        }
        if let newer {
            fail(.versionTooNew(found: newer, supported: Superblock.version))
        } else if let best {
            accept(best, recovery)
        } else if let older {
            fail(.versionTooOld(found: older, supported: Superblock.version))
        } else if !recovery.unreadableLocations.isEmpty {
            fail(.deviceError(errno: recovery.readErrno))
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
        recovery.unreadableLocations = []
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
            let manifest = try? Manifest.decode(bytes, segmentCount: superblock.segmentCount),
            manifest.usage.allSatisfy({
                UInt64($0.liveBlockCount) * 4096 <= UInt64(superblock.segmentByteCount)
            })
        else {
            fail(.corrupt(offset: offset))
            return
        }
        guard manifest.layers.count <= catalogue.layerCountMax else {
            fail(.corrupt(offset: offset))
            return
        }
        recovery.manifest = manifest
        adoptSegments(manifest, superblock)
        guard adoptCatalogue(manifest) else {
            fail(.corrupt(offset: offset))
            return
        }
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
            segments.change(index) {
                $0.state = .closed
                $0.content = usage.content
                $0.lastBatchSequence = usage.lastBatchSequence
                $0.checkpointLiveBlockCount = usage.liveBlockCount
            }
            segments.addLive(location, count: Int(usage.liveBlockCount))
        }
        for extent in superblock.manifestExtents {
            segments.addLive(extent.location, count: Int(extent.blockCount))
        }
        plan = SpacePlan(
            segmentCount: segments.count,
            segmentBlockCount: segments.blockCount,
            frameCount: map.count
        )
    }

    /// - Returns: Whether each layer finds what it stands on; to go on without one would take what
    ///   it has out of the next checkpoint.
    private func adoptCatalogue(_ manifest: Manifest) -> Bool {
        // A layer is made later than what it stands on, and so has the higher number; merging puts
        // it on something older still. Parents first, so that each finds its own.
        for layer in manifest.layers.sorted(by: { $0.id.rawValue < $1.id.rawValue }) {
            guard layer.parent == .none || catalogue.slot(of: layer.parent) != nil else {
                return false
            }
            _ = catalogue.addLayer(layer)
        }
        for volume in manifest.volumes { catalogue.setVolume(volume) }
        for forward in manifest.forwards { catalogue.addForward(forward) }
        catalogue.nextLayerID = max(catalogue.nextLayerID, manifest.nextLayerID)
        writeSequence = manifest.writeSequence
        return true
    }
}
