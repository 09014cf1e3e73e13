// Submitting block requests.

import BlockCore
import LogStore

/// A request under way.
struct ActiveRequest {
    enum Purpose {
        /// Part of the workload.
        case workload
        /// Reading back while nothing is open: judged at once.
        case verify
        /// Reading back after a crash: judged when all is read.
        case gather
        /// Wrong on purpose: must be refused.
        case wrong(StoreStatus)
    }

    var kind: StoreRequest.Kind
    var purpose: Purpose
    var volume: UInt64
    var layer: UInt64
    var image: OracleImage
    var sectors: Range<UInt64>
    var submittedTick: UInt64
    var operation: UInt32 = 0
    var isForced = false
    var isBlockAtomic = false
    var statusKind = BlockStatusKind.allocation
    var since: OracleSnapshot?
    var isOneExtent = false
    /// Whether the volume stands on `since`, so that it can be compared with it.
    var isComparable = true
    var region: ByteRegion

    var place: String {
        layer == 0 ? "volume \(volume)" : "volume \(volume) snapshot \(layer)"
    }
}

extension StoreSimulation {
    var hasFreeRequest: Bool { requests.contains { $0 == nil } }

    func freeRequest() -> Int? { requests.firstIndex { $0 == nil } }

    /// Whether any request on the volume or its snapshots is under way.
    func isBusy(_ volume: UInt64) -> Bool { requests.contains { $0?.volume == volume } }

    func buffer(_ index: Int) -> ByteRegion {
        buffers.slice(index * StoreSimulation.bufferByteCount, StoreSimulation.bufferByteCount)
    }

    // MARK: - Handles

    /// An open handle of a volume (`layer` 0) or one of its snapshots.
    func handle(_ volume: UInt64, layer: UInt64 = 0) -> VolumeHandle? {
        let key = HandleKey(volume: volume, layer: layer)
        if let handle = handles[key] { return handle }
        let opened = driver.store.openVolume(
            VolumeID(volume),
            layer: layer == 0 ? nil : LayerID(layer)
        )
        guard let opened else {
            // After damage and a crash a volume may be gone with the end of the log.
            if !endedByDamage { fail("volume \(volume) layer \(layer) cannot be opened") }
            return nil
        }
        handles[key] = opened
        return opened
    }

    /// Gives back every handle of a volume and its snapshots.
    ///
    /// - Precondition: no request on them is under way.
    func closeHandles(of volume: UInt64) {
        let keys = handles.keys.filter { $0.volume == volume }.sorted { $0.layer < $1.layer }
        for key in keys {
            if let handle = handles.removeValue(forKey: key) { driver.store.closeVolume(handle) }
        }
    }

    func closeHandle(of volume: UInt64, layer: UInt64) {
        let key = HandleKey(volume: volume, layer: layer)
        if let handle = handles.removeValue(forKey: key) { driver.store.closeVolume(handle) }
    }

    // MARK: - Submission

    /// Submits a change.
    func submitChange(
        _ kind: StoreRequest.Kind,
        volume id: UInt64,
        sectors: Range<UInt64>,
        flags: StoreRequestFlags
    ) {
        guard let slot = freeRequest(), let volume = oracle.volumes[id],
            let handle = handle(id)
        else { return }
        oracle.history.oldestReadTick =
            requests.lazy.compactMap { $0?.submittedTick }.min() ?? .max
        var change = OracleOperation.Kind.write
        if kind == .trim { change = .trim }
        if kind == .writeZeroes {
            change = flags.contains(.noHole) ? .writeZeroesAllocated : .writeZeroes
        }
        let operation = oracle.beginChange(
            change,
            volume: id,
            firstSector: sectors.lowerBound,
            sectorCount: UInt64(sectors.count)
        )
        let byteCount = sectors.count * SectorStamp.byteCount
        var region = ByteRegion.empty
        if kind == .write {
            region = buffer(slot).slice(0, (byteCount + 4095) & ~4095 + 4096)
            SectorStamp.fill(
                region.slice(0, byteCount),
                firstSector: sectors.lowerBound,
                operation: operation,
                run: oracle.run
            )
        }
        var active = ActiveRequest(
            kind: kind,
            purpose: .workload,
            volume: id,
            layer: 0,
            image: volume.image,
            sectors: sectors,
            submittedTick: oracle.history[operation].submittedTick,
            region: region
        )
        active.operation = operation
        active.isForced = flags.contains(.forceUnitAccess)
        requests[slot] = active
        var sent = flags
        if options.canary == .dropForceUnitAccess { sent.remove(.forceUnitAccess) }
        note(active, slot)
        if options.canary == .skipTrim, kind == .trim {
            end(StoreCompletion(token: UInt64(slot), status: .ok))
            return
        }
        driver.store.submit(
            StoreRequest(
                kind: kind,
                volume: handle,
                offset: sectors.lowerBound * 512,
                byteCount: UInt64(byteCount),
                region: region,
                flags: sent,
                token: UInt64(slot)
            )
        )
    }

    /// Submits a read, or `cache`.
    func submitRead(
        _ kind: StoreRequest.Kind = .read,
        volume id: UInt64,
        layer: UInt64 = 0,
        image: OracleImage,
        sectors: Range<UInt64>,
        purpose: ActiveRequest.Purpose
    ) {
        guard let slot = freeRequest(), let handle = handle(id, layer: layer) else { return }
        let byteCount = sectors.count * SectorStamp.byteCount
        let region =
            kind == .read
            ? buffer(slot).slice(0, (byteCount + 4095) & ~4095 + 4096) : ByteRegion.empty
        var active = ActiveRequest(
            kind: kind,
            purpose: purpose,
            volume: id,
            layer: layer,
            image: image,
            sectors: sectors,
            submittedTick: oracle.history.nextTick(),
            region: region
        )
        active.isBlockAtomic =
            oracle.volumes[id]?.specification.logicalBlockByteCount == 4096
        requests[slot] = active
        note(active, slot)
        driver.store.submit(
            StoreRequest(
                kind: kind,
                volume: handle,
                offset: sectors.lowerBound * 512,
                byteCount: UInt64(byteCount),
                region: region,
                token: UInt64(slot)
            )
        )
    }

    /// Submits a block status.
    func submitStatus(
        _ statusKind: BlockStatusKind,
        volume id: UInt64,
        layer: UInt64,
        image: OracleImage,
        sectors: Range<UInt64>,
        since: OracleSnapshot?,
        isOneExtent: Bool
    ) {
        guard let slot = freeRequest(), let handle = handle(id, layer: layer) else { return }
        let region = buffer(slot).slice(0, 4096 * random.within(1...4))
        var active = ActiveRequest(
            kind: .blockStatus,
            purpose: .workload,
            volume: id,
            layer: layer,
            image: image,
            sectors: sectors,
            submittedTick: oracle.history.nextTick(),
            region: region
        )
        active.statusKind = statusKind
        active.since = since
        active.isOneExtent = isOneExtent
        if let since {
            active.isComparable = oracle.volumes[id]?.below.contains(since.layer) ?? false
        }
        requests[slot] = active
        note(active, slot)
        driver.store.submit(
            StoreRequest(
                kind: .blockStatus,
                volume: handle,
                offset: sectors.lowerBound * 512,
                byteCount: UInt64(sectors.count * SectorStamp.byteCount),
                region: region,
                flags: isOneExtent ? .oneExtent : [],
                statusKind: statusKind,
                sinceLayer: since?.layer ?? .none,
                token: UInt64(slot)
            )
        )
    }

    /// Submits a flush.
    func submitFlush(volume id: UInt64) {
        guard let slot = freeRequest(), let volume = oracle.volumes[id],
            let handle = handle(id)
        else { return }
        let active = ActiveRequest(
            kind: .flush,
            purpose: .workload,
            volume: id,
            layer: 0,
            image: volume.image,
            sectors: 0..<0,
            submittedTick: oracle.history.nextTick(),
            region: .empty
        )
        requests[slot] = active
        note(active, slot)
        if options.canary == .skipVolumeFlush {
            end(StoreCompletion(token: UInt64(slot), status: .ok))
            return
        }
        driver.store.submit(
            StoreRequest(
                kind: .flush,
                volume: handle,
                offset: 0,
                byteCount: 0,
                token: UInt64(slot)
            )
        )
    }

    /// Submits a request that must be refused.
    func submitWrong(_ request: StoreRequest, expecting status: StoreStatus) {
        guard let slot = freeRequest() else { return }
        var request = request
        request.token = UInt64(slot)
        let active = ActiveRequest(
            kind: request.kind,
            purpose: .wrong(status),
            volume: 0,
            layer: 0,
            image: OracleImage(history: oracle.history),
            sectors: 0..<0,
            submittedTick: oracle.history.nextTick(),
            region: request.region
        )
        requests[slot] = active
        note(active, slot)
        driver.store.submit(request)
    }

    private func note(_ active: ActiveRequest, _ slot: Int) {
        trace.note(3, UInt64(active.kind.rawValue) << 32 | UInt64(slot), active.sectors.lowerBound)
        {
            "\(driver.nowNanoseconds) submit@\(active.submittedTick) [\(slot)] \(active.kind) "
                + "\(active.place) sectors \(active.sectors)"
                + (active.operation != 0 ? " #\(active.operation)" : "")
                + (active.isForced ? " FUA" : "")
        }
    }
}
