// Handles, summaries, space, background work and the end.

public import BlockCore
internal import LogFormat

extension LogStore {
    // MARK: - Handles

    /// Opens a volume, or a snapshot of it (read-only), for requests.
    ///
    /// - Parameters:
    ///   - id: The volume.
    ///   - layer: A snapshot's layer, or nil for the volume itself.
    /// - Returns: nil when there is no such volume or snapshot, too many are open, or the volume
    ///   is being shrunk.
    public func openVolume(_ id: VolumeID, layer: LayerID? = nil) -> VolumeHandle? {
        guard let record = catalogue.volumes[id] else { return nil }
        guard let layer else {
            return shrinking == id ? nil : catalogue.openHandle(record, snapshot: nil)
        }
        guard let slot = catalogue.slot(of: layer), catalogue.layers[slot].role == .snapshot,
            catalogue.layers[slot].volume == id
        else { return nil }
        return catalogue.openHandle(record, snapshot: slot)
    }

    /// Gives a handle back; no request on it may be in flight.
    public func closeVolume(_ handle: VolumeHandle) { catalogue.closeHandle(handle) }

    // MARK: - Summaries

    /// All volumes, by name.
    public func volumes() -> [VolumeSummary] {
        catalogue.volumes.keys.compactMap { volume($0) }
            .sorted { $0.specification.name < $1.specification.name }
    }

    /// One volume.
    ///
    /// - Parameter id: The volume.
    /// - Returns: The summary, or nil when there is no such volume.
    /// - Complexity: O(layers of the volume, of its stack, and their children).
    public func volume(_ id: VolumeID) -> VolumeSummary? {
        guard let record = catalogue.volumes[id], let top = catalogue.slot(of: record.topLayer)
        else { return nil }
        let stack = catalogue.stack(of: top)
        let below = Set(stack)
        let own = catalogue.layers(of: id)
        let slots = catalogue.snapshots(among: own)
        let snapshots = slots.map { summary(ofSnapshot: $0, isBelowVolume: below.contains($0)) }
        let cloned = zip(slots, snapshots).filter { $1.cloneCount > 0 }.map { $0.0 }
        return VolumeSummary(
            specification: specification(of: record),
            topLayer: record.topLayer,
            snapshots: snapshots,
            space: volumeSpace(record, own: own, stack: stack, clonedSnapshots: cloned),
            layerCount: stack.count,
            streamPosition: catalogue.layers[top].streamPosition
        )
    }

    /// What was asked for when a volume was made or last changed.
    ///
    /// - Parameter id: The volume.
    /// - Returns: The specification, or nil when there is no such volume.
    /// - Complexity: O(1).
    public func specification(of id: VolumeID) -> VolumeSpecification? {
        catalogue.volumes[id].map { specification(of: $0) }
    }

    /// The number of the last streamed change of a volume that is in the log, durable or not; after
    /// a start that of the prefix of the log that was found.
    ///
    /// - Parameter volume: The volume.
    /// - Returns: The number, or 0 when there was none or there is no such volume.
    /// - Complexity: O(1).
    public func streamPosition(of volume: VolumeID) -> UInt64 {
        guard let record = catalogue.volumes[volume],
            let top = catalogue.slot(of: record.topLayer)
        else { return 0 }
        return catalogue.layers[top].streamPosition
    }

    /// The volume whose snapshot `layer` is.
    ///
    /// - Parameter layer: The snapshot's layer.
    /// - Returns: The volume, or nil when there is no such snapshot.
    /// - Complexity: O(1).
    public func volume(ofSnapshot layer: LayerID) -> VolumeID? {
        guard let slot = catalogue.slot(of: layer), catalogue.layers[slot].role == .snapshot
        else { return nil }
        let volume = catalogue.layers[slot].volume
        return catalogue.volumes[volume] == nil ? nil : volume
    }

    /// The size of a volume; for those who ask often, whom the whole specification would cost copies.
    ///
    /// - Parameter id: The volume.
    /// - Returns: Its size, or nil when there is no such volume.
    /// - Complexity: O(1).
    public func byteCount(of id: VolumeID) -> UInt64? { catalogue.volumes[id]?.byteCount }

    /// The bytes of a snapshot, which are those of its volume when it was taken.
    ///
    /// - Parameter layer: The snapshot's layer.
    /// - Returns: Its size, or nil when there is no such snapshot.
    /// - Complexity: O(1).
    public func byteCount(ofSnapshot layer: LayerID) -> UInt64? {
        guard let slot = catalogue.slot(of: layer), catalogue.layers[slot].role == .snapshot
        else { return nil }
        return catalogue.layers[slot].byteCount
    }

    private func specification(of record: VolumeRecord) -> VolumeSpecification {
        VolumeSpecification(
            id: record.id,
            name: String(decoding: record.name, as: UTF8.self),
            byteCount: record.byteCount,
            logicalBlockByteCount: record.logicalBlockByteCount,
            durability: Durability(rawValue: record.durability) ?? .writeback,
            access: VolumeAccess(rawValue: record.access) ?? .none,
            epoch: record.epoch,
            descriptor: record.descriptor,
            replica: record.replica
        )
    }

    private func summary(ofSnapshot slot: Int, isBelowVolume: Bool) -> SnapshotSummary {
        let layer = catalogue.layers[slot]
        return SnapshotSummary(
            layer: layer.id,
            name: String(decoding: catalogue.snapshotNames[layer.id] ?? [], as: UTF8.self),
            byteCount: layer.byteCount,
            ownByteCount: layer.ownBlockCount * 4096,
            cloneCount: clones(of: slot, notOf: layer.volume).count,
            isBelowVolume: isBelowVolume
        )
    }

    /// The volumes whose nearest snapshot of another volume this is.
    ///
    /// Layers without a name are looked through: merging them, which happens in the background,
    /// changes nothing here.
    private func clones(of snapshot: Int, notOf origin: VolumeID) -> Set<VolumeID> {
        var clones: Set<VolumeID> = []
        var rest = [snapshot]
        while let slot = rest.popLast() {
            for child in catalogue.children(of: slot) {
                let layer = catalogue.layers[child]
                switch layer.role {
                case .dropped: continue
                case .top, .snapshot:
                    if layer.volume != origin { clones.insert(layer.volume) }
                case .unnamed: rest.append(child)
                }
            }
        }
        return clones
    }

    /// Where the store's bytes are.
    public var space: StoreSpace {
        let live = segments.liveBlockCount
        let capacity = plan.usableBlockCount
        let used = UInt64(segments.count - segments.availableCount) * UInt64(segments.blockCount)
        return StoreSpace(
            capacityByteCount: capacity * 4096,
            liveByteCount: live * 4096,
            availableByteCount: (capacity > live ? capacity - live : 0) * 4096,
            garbageByteCount: (used > live ? used - live : 0) * 4096
        )
    }

    /// Layers that commands and summaries looked at since the store was opened.
    package var layerStepCount: UInt64 { catalogue.stepCount }

    /// Frames of map memory that merging layers looked at since the store was opened.
    package var resolvingStepCount: UInt64 { map.resolvingStepCount }

    /// What the store is doing in the background and what for, in one line, for reports of
    /// stores that do not come to rest.
    package var progressDescription: String {
        let dying = segments.pendingFreeCount
        let heads = (0..<log.heads.count).map { stream in
            let head = log.heads[stream]
            return head.segment < 0 ? "-" : "\(head.segment)+\(head.blockOffset)"
        }
        let job = layerJob.slot < 0 ? "none" : "layer \(layerJob.slot) into \(layerJob.child)"
        let live = { (content: SegmentContent) in
            self.segmentList(content).map(String.init).joined(separator: " ")
        }
        return """
            state \(state); segments \(segments.count) of \(segments.blockCount) blocks: \
            free \(segments.free.count), announced \(segments.reserved.count), dying \(dying), \
            reserve \(plan.reserveSegmentCount); heads \(heads.joined(separator: " ")); \
            live in data \(live(.data)), in map \(live(.map)), else \(live(.unknown)); \
            checkpoint \(checkpoint.phase) requested \(checkpoint.isRequested) \
            for space \(checkpoint.isSpaceWanted); cleaner \(cleaner.phase) on \
            \(cleaner.victim) fruitless \(cleaner.fruitlessCount); layer job \(job); \
            dirty \(map.dirtyCount) of \(plan.dirtyPageCountMax), frames \(map.count); \
            log open \(log.hasOpenRecords), in flight \(log.inFlight.count), \
            sealed \(log.sealedThrough), durable \(log.durableThrough); \
            waiting: reads \(readWaiters.count), writes \(writeWaiters.count), \
            durability \(durabilityWaiters.count), commands \(commands.count)
            """
    }

    /// Live blocks of each closed segment with this content.
    private func segmentList(_ content: SegmentContent) -> [UInt32] {
        (0..<segments.count).map { segments.segments[$0] }
            .filter { $0.state == .closed && $0.content == content }
            .map(\.liveBlockCount)
    }

    // MARK: - Background

    /// Checkpoint, cleaner and layer work, a bounded piece of each.
    ///
    /// - Returns: Whether any of it can go on at once.
    func runBackground() -> Bool {
        let checkpointGoesOn = runCheckpoint()
        let cleanerGoesOn = runCleaner()
        let layersGoOn = runLayerJob()
        return checkpointGoesOn || cleanerGoesOn || layersGoOn
    }

    /// Ends an orderly shutdown once the last checkpoint is durable and nothing is in flight.
    func finishClosing() {
        guard case .closing = state, checkpoint.isIdle, !checkpoint.isRequested,
            requestsInFlight == 0, commands.isEmpty, durableCommands.isEmpty,
            ops.inFlightCount == 0
        else { return }
        guard map.dirtyCount == 0 || log.sealedThrough == superblock?.batchSequence else {
            checkpoint.isRequested = true
            return
        }
        state = .closed
    }
}
