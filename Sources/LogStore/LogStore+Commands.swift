// Configuration changes: checked, applied to the catalogue, logged, answered when durable.

internal import BlockCore
internal import LogFormat

/// A command on its way.
struct PendingCommand {
    var command: StoreCommand
    var token: UInt64
    var result = StoreCommandResult(volume: .none, layer: .none)
    /// The batch that must be durable before the answer.
    var waitSequence: UInt64 = 0
    /// For a shrink: the tail has been given up.
    var isTrimmed = false
    /// The request that gives the tail up, or -1.
    var trimSlot = -1
}

extension LogStore {
    /// Applies commands in order, as far as room and checkpoints allow.
    func runCommands() {
        while let pending = commands.first {
            var next = pending
            do throws(StoreCommandError) {
                guard try apply(&next) else {
                    commands[0] = next
                    return
                }
                commands.removeFirst()
                shrinking = .none
                next.waitSequence = wantDurable()
                durableCommands.append(next)
            } catch {
                commands.removeFirst()
                shrinking = .none
                commandCompletions.append(
                    CommandCompletion(token: pending.token, result: .failure(error))
                )
            }
        }
        completeDurableCommands()
    }

    func completeDurableCommands() {
        while let first = durableCommands.first, first.waitSequence <= log.durableThrough {
            durableCommands.removeFirst()
            commandCompletions.append(
                CommandCompletion(token: first.token, result: .success(first.result))
            )
        }
    }

    /// Applies a command.
    ///
    /// - Returns: false when it must wait.
    private func apply(_ pending: inout PendingCommand) throws(StoreCommandError) -> Bool {
        let record: ControlRecord
        switch pending.command {
        case .createVolume(let specification):
            let top = LayerID(catalogue.nextLayerID)
            let volume = try checkNew(specification, top: top)
            pending.result = StoreCommandResult(volume: volume.id, layer: top)
            record = .createVolume(volume)
        case .cloneSnapshot(let layer, let specification):
            guard let parent = catalogue.slot(of: layer),
                catalogue.layers[parent].role == .snapshot
            else { throw .snapshotNotFound }
            let top = LayerID(catalogue.nextLayerID)
            let volume = try checkNew(specification, top: top)
            guard volume.byteCount >= catalogue.layers[parent].byteCount else { throw .invalid }
            pending.result = StoreCommandResult(volume: volume.id, layer: top)
            record = .cloneSnapshot(volume, parent: layer)
        case .createSnapshot(let id, let name):
            record = try snapshotRecord(id, name, &pending)
        case .rollback(let id, let layer):
            record = try rollbackRecord(id, layer, &pending)
        case .deleteSnapshot(let layer):
            guard let slot = catalogue.slot(of: layer), catalogue.layers[slot].role == .snapshot
            else { throw .snapshotNotFound }
            guard !catalogue.isOpen({ $0.layer == Int32(slot) }) else { throw .inUse }
            pending.result = StoreCommandResult(
                volume: catalogue.layers[slot].volume,
                layer: layer
            )
            record = .deleteSnapshot(layer: layer)
        case .deleteVolume(let id):
            record = try deletionRecord(id, &pending)
        case .resizeVolume(let id, let byteCount):
            guard let resized = try resizeRecord(id, byteCount, &pending) else { return false }
            record = resized
        case .updateVolume(let specification):
            record = try updateRecord(specification, &pending)
        case .setReplica(let id, let bytes):
            record = try replicaRecord(id, bytes, &pending)
        }
        return logControl(record)
    }

    /// Logs and applies a control record.
    ///
    /// - Returns: false when there is no room in the log, or no frame for a new root page, now.
    func logControl(_ record: ControlRecord) -> Bool {
        let bytes = record.encode()
        guard
            makeRoom(.client, record.privilege, tailByteCount: bytes.count, payloadBlockCount: 0)
        else { return false }
        // After making room, which may change what is in memory.
        guard map.reserve(growthFrameCount(record)) else {
            // Pages on their way free their frames; dirty ones only a checkpoint frees.
            if ops.inFlightCount == 0, map.dirtyCount > 0 { checkpoint.isRequested = true }
            return false
        }
        let span = beginRecord(
            RecordHeader(
                kind: .control,
                blockCount: 0,
                layer: .none,
                firstBlock: 0,
                sequence: writeSequence,
                tailByteCount: UInt32(bytes.count)
            )
        )
        span.header.copy(from: bytes, at: span.tailOffset)
        let isApplied = applyControl(record, batchSequence: span.batchSequence)
        precondition(isApplied, "the frames for it were reserved")
        return true
    }

    // MARK: - Checks

    /// Whether one more layer finds a place in the catalogue, and with a volume in a manifest.
    private var hasRoomForLayer: Bool {
        let added =
            LayerRecord.fixedByteCount + VolumeRecord.fixedByteCount
            + 2 * VolumeRecord.nameByteCountMax + VolumeRecord.descriptorByteCountMax
            + VolumeRecord.replicaByteCountMax
        return catalogue.hasRoomForLayer && manifestHasRoom(added)
    }

    /// Layers that commands may still add; some at most, where the manifest is what limits them.
    var leftLayerCount: Int {
        hasRoomForLayer ? catalogue.leftLayerCount : 0
    }

    private func manifestHasRoom(_ byteCount: Int) -> Bool {
        manifestByteCount + byteCount
            <= StoreFormat.manifestByteCountMax(
                segmentByteCount: UInt32(segments.blockCount * 4096)
            )
    }

    private func checkNew(
        _ specification: VolumeSpecification,
        top: LayerID
    ) throws(StoreCommandError) -> VolumeRecord {
        let record = try checked(specification, top: top)
        guard catalogue.volumes[record.id] == nil, catalogue.volume(named: record.name) == nil
        else { throw .alreadyExists }
        guard hasRoomForLayer else { throw .tooMany }
        return record
    }

    private func checked(
        _ specification: VolumeSpecification,
        top: LayerID
    ) throws(StoreCommandError) -> VolumeRecord {
        let name = Array(specification.name.utf8)
        guard specification.id != .none, !name.isEmpty,
            name.count <= VolumeSpecification.nameByteCountMax,
            specification.descriptor.count <= VolumeSpecification.descriptorByteCountMax,
            specification.replica.count <= VolumeSpecification.replicaRecordByteCountMax,
            specification.byteCount > 0, specification.byteCount % 4096 == 0,
            specification.byteCount <= BlockGeometry.volumeByteCountMax,
            specification.logicalBlockByteCount == 512
                || specification.logicalBlockByteCount == 4096
        else { throw .invalid }
        return VolumeRecord(
            id: specification.id,
            name: name,
            byteCount: specification.byteCount,
            logicalBlockByteCount: specification.logicalBlockByteCount,
            durability: specification.durability.rawValue,
            access: specification.access.rawValue,
            descriptor: specification.descriptor,
            topLayer: top,
            epoch: specification.epoch,
            replica: specification.replica
        )
    }

    private func snapshotRecord(
        _ id: VolumeID,
        _ name: String,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord {
        guard let volume = catalogue.volumes[id] else { throw .volumeNotFound }
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty, bytes.count <= VolumeSpecification.nameByteCountMax else {
            throw .invalid
        }
        guard catalogue.snapshot(named: bytes, of: id) == nil else { throw .alreadyExists }
        guard hasRoomForLayer else { throw .tooMany }
        pending.result = StoreCommandResult(volume: id, layer: volume.topLayer)
        return .createSnapshot(
            volume: id,
            name: bytes,
            newTop: LayerID(catalogue.nextLayerID),
            sealSequence: writeSequence + catalogue.nextLayerID
        )
    }

    private func rollbackRecord(
        _ id: VolumeID,
        _ layer: LayerID,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord {
        guard catalogue.volumes[id] != nil else { throw .volumeNotFound }
        guard let slot = catalogue.slot(of: layer), catalogue.layers[slot].role == .snapshot,
            catalogue.layers[slot].volume == id
        else { throw .snapshotNotFound }
        guard !catalogue.isOpen({ $0.volume == id && !$0.isSnapshot }) else { throw .inUse }
        guard hasRoomForLayer else { throw .tooMany }
        let top = LayerID(catalogue.nextLayerID)
        pending.result = StoreCommandResult(volume: id, layer: top)
        return .rollback(volume: id, layer: layer, newTop: top)
    }

    private func deletionRecord(
        _ id: VolumeID,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord {
        guard let volume = catalogue.volumes[id] else { throw .volumeNotFound }
        guard !catalogue.isOpen({ $0.volume == id }) else { throw .inUse }
        for slot in catalogue.layers(of: id) {
            for child in catalogue.children(of: slot)
            where catalogue.layers[child].volume != id && catalogue.layers[child].role != .dropped {
                throw .inUse
            }
        }
        pending.result = StoreCommandResult(volume: id, layer: volume.topLayer)
        return .deleteVolume(id)
    }

    private func updateRecord(
        _ specification: VolumeSpecification,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord {
        guard let volume = catalogue.volumes[specification.id] else { throw .volumeNotFound }
        var record = try checked(specification, top: volume.topLayer)
        record.replica = volume.replica
        guard record.epoch >= volume.epoch else { throw .outdated }
        guard record.byteCount == volume.byteCount,
            record.logicalBlockByteCount == volume.logicalBlockByteCount
        else { throw .invalid }
        if let other = catalogue.volume(named: record.name), other != record.id {
            throw .alreadyExists
        }
        let growth = record.textByteCount - volume.textByteCount
        guard growth <= 0 || manifestHasRoom(growth) else { throw .tooMany }
        pending.result = StoreCommandResult(volume: record.id, layer: record.topLayer)
        return .updateVolume(record)
    }

    private func replicaRecord(
        _ id: VolumeID,
        _ record: [UInt8],
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord {
        guard let volume = catalogue.volumes[id] else { throw .volumeNotFound }
        guard record.count <= VolumeSpecification.replicaRecordByteCountMax else { throw .invalid }
        let growth = record.count - volume.replica.count
        guard growth <= 0 || manifestHasRoom(growth) else { throw .tooMany }
        pending.result = StoreCommandResult(volume: id, layer: volume.topLayer)
        return .setReplica(volume: id, record: record)
    }

    /// The record of a resize; nil when it must wait: a new root page cannot appear while a
    /// checkpoint is under way, and a tail that is cut off is given up first.
    private func resizeRecord(
        _ id: VolumeID,
        _ byteCount: UInt64,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) -> ControlRecord? {
        guard var volume = catalogue.volumes[id] else { throw .volumeNotFound }
        guard byteCount > 0, byteCount % 4096 == 0, byteCount <= BlockGeometry.volumeByteCountMax
        else { throw .invalid }
        pending.result = StoreCommandResult(volume: id, layer: volume.topLayer)
        if byteCount < volume.byteCount, !pending.isTrimmed {
            try trimTail(volume, from: byteCount, &pending)
            if !pending.isTrimmed { return nil }
        }
        if byteCount > volume.byteCount, !checkpoint.isIdle { return nil }
        volume.byteCount = byteCount
        return .updateVolume(volume)
    }

    private func trimTail(
        _ volume: VolumeRecord,
        from byteCount: UInt64,
        _ pending: inout PendingCommand
    ) throws(StoreCommandError) {
        if pending.trimSlot < 0 {
            // Nor before a slot is free: by then somebody may have opened it.
            guard !catalogue.isOpen({ $0.volume == volume.id && !$0.isSnapshot }) else {
                throw .inUse
            }
            guard freeRequest >= 0 else { return }
            guard let handle = catalogue.openHandle(volume, snapshot: nil) else { throw .tooMany }
            let slot = takeRequestSlot()
            shrinking = volume.id
            pending.trimSlot = slot
            trimHandle = handle
            trimStatus = nil
            trimRequest = slot
            begin(
                slot,
                StoreRequest(
                    kind: .trim,
                    volume: handle,
                    offset: byteCount,
                    byteCount: volume.byteCount - byteCount,
                    token: 0
                )
            )
        }
        guard let status = trimStatus, let handle = trimHandle else { return }
        catalogue.closeHandle(handle)
        trimHandle = nil
        guard status == .ok else { throw status == .noSpace ? .noSpace : .unavailable }
        pending.isTrimmed = true
    }
}
