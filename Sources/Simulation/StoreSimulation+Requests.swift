// Submitting block requests, and judging their ends.

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

    // MARK: - Ends

    /// Takes the end of a request.
    func end(_ completion: StoreCompletion) {
        let slot = Int(completion.token)
        guard slot < requests.count, let active = requests[slot] else {
            fail("a completion nobody asked for: token \(completion.token)")
            return
        }
        requests[slot] = nil
        trace.note(4, completion.token, UInt64(completion.status.rawValue)) {
            "\(driver.nowNanoseconds) end [\(slot)] \(active.kind) \(completion.status)"
        }
        if case .wrong(let expected) = active.purpose {
            if completion.status != expected, completion.status != .unavailable {
                fail("\(active.kind) ended with \(completion.status) instead of \(expected)")
            }
            return
        }
        checkStatus(active, completion.status)
        switch active.kind {
        case .write, .writeZeroes, .trim:
            oracle.endChange(
                active.operation,
                status: completion.status,
                isForced: active.isForced
            )
        case .flush:
            if completion.status == .ok { oracle.endFlush(submittedTick: active.submittedTick) }
        case .read:
            if completion.status == .ok { endRead(active, completion) }
        case .blockStatus:
            if completion.status == .ok { endStatus(active, completion) }
        case .cache: break
        }
    }

    /// Whether a request may end so.
    private func checkStatus(_ active: ActiveRequest, _ status: StoreStatus) {
        let mayFail = device.errorCount > 0 || device.damageCount > 0
        switch status {
        case .ok where active.since != nil && !active.isComparable:
            fail("\(active.place) was compared with a snapshot that it does not stand on")
        case .ok: return
        case .mediaError, .unavailable:
            if !mayFail { fail("\(active.kind) of \(active.place): \(status) on a good device") }
        case .noSpace:
            switch active.kind {
            case .write, .writeZeroes: checkFullness(active)
            // A trim of part of a block or of a shared range needs room for its record.
            case .trim: checkFullness(active)
            case .read, .flush, .cache, .blockStatus:
                fail("\(active.kind) of \(active.place) ended with noSpace")
            }
        case .invalid where active.since != nil && !active.isComparable: return
        case .invalid, .readOnly:
            fail("\(active.kind) of \(active.place) sectors \(active.sectors): \(status)")
        }
    }

    /// Whether the store may be full at all: what was written must at least come near.
    private func checkFullness(_ active: ActiveRequest) {
        trace.say { "full: \(driver.store.space)" }
    }

    private func endRead(_ active: ActiveRequest, _ completion: StoreCompletion) {
        let byteCount = active.sectors.count * SectorStamp.byteCount
        if completion.byteCount != UInt64(byteCount)
            || (!completion.region.isEmpty && completion.region.byteCount != byteCount)
        {
            fail("a read of \(byteCount) bytes returned \(completion.byteCount)")
            return
        }
        checkHoles(active, completion)
        var region = completion.region
        if options.canary == .staleRead { region = stale(region) }
        let problem: String?
        if case .gather = active.purpose {
            problem = oracle.gather(
                active.image,
                active.sectors,
                region,
                isBlockAtomic: active.isBlockAtomic,
                place: active.place
            )
        } else {
            problem = oracle.checkRead(
                active.image,
                active.sectors,
                region,
                submittedTick: active.submittedTick,
                isBlockAtomic: active.isBlockAtomic,
                place: active.place
            )
        }
        if let problem { fail(problem) }
    }

    /// The parts that a read calls holes must be zero.
    private func checkHoles(_ active: ActiveRequest, _ completion: StoreCompletion) {
        guard completion.holeMask != 0, !completion.region.isEmpty else { return }
        let part = Int(completion.holePartByteCount)
        guard part > 0 else {
            fail("a hole mask without a part size")
            return
        }
        for index in 0..<64 where completion.holeMask >> UInt64(index) & 1 != 0 {
            let from = index * part
            guard from < completion.region.byteCount else {
                fail("a hole beyond the end of a read")
                return
            }
            let count = min(part, completion.region.byteCount - from)
            if !completion.region.slice(from, count).isZero {
                fail(
                    "read of \(active.place) \(active.sectors): part \(index) is called a hole "
                        + "and is not zero"
                )
            }
        }
    }

    /// The canary that returns an old block: the first block of the read before, now and then.
    private func stale(_ region: ByteRegion) -> ByteRegion {
        guard region.byteCount >= 4096 else { return region }
        let now = region.slice(0, 4096).array()
        if staleBytes.count == 4096, random.chance(perMille: 100) {
            region.copy(from: staleBytes)
        }
        staleBytes = now
        return region
    }

    private func endStatus(_ active: ActiveRequest, _ completion: StoreCompletion) {
        let total = UInt64(active.sectors.count * SectorStamp.byteCount)
        var sector = active.sectors.lowerBound
        var covered: UInt64 = 0
        if active.isOneExtent, completion.extentCount > 1 { fail("more than one extent") }
        for index in 0..<Int(completion.extentCount) {
            let byteCount = active.region.load(index * 16, as: UInt64.self)
            let value = active.region.load(index * 16 + 8, as: UInt64.self)
            covered += byteCount
            guard byteCount > 0, byteCount % 512 == 0, covered <= total else {
                fail("status of \(active.place): extent \(index) of \(byteCount) bytes")
                return
            }
            let sectors = sector..<sector + byteCount / 512
            checkExtent(active, sectors, value)
            sector = sectors.upperBound
        }
        if covered != completion.byteCount || (covered == 0 && total > 0) {
            fail("status of \(active.place) covers \(completion.byteCount), extents \(covered)")
        }
    }

    private func checkExtent(_ active: ActiveRequest, _ sectors: Range<UInt64>, _ value: UInt64) {
        var problem: String?
        // Huge untouched ranges are zero in the model by definition: look where anything is.
        var parts = active.image.parts(of: sectors)
        if let since = active.since { parts += since.image.parts(of: sectors) }
        for part in parts where problem == nil {
            switch active.statusKind {
            case .allocation:
                problem = oracle.checkAllocation(
                    active.image,
                    part,
                    value: value,
                    submittedTick: active.submittedTick,
                    place: active.place
                )
            case .allocationDepth where value == 0:
                problem = oracle.checkAllocation(
                    active.image,
                    part,
                    value: 3,
                    submittedTick: active.submittedTick,
                    place: active.place + " (depth 0)"
                )
            case .allocationDepth: break
            case .changedSince:
                guard let since = active.since else { break }
                if value & 1 == 0 {
                    problem = oracle.checkUnchanged(
                        active.image,
                        since: since.image,
                        part,
                        submittedTick: active.submittedTick,
                        place: active.place + " since \(since.name)"
                    )
                }
            }
        }
        if active.statusKind == .changedSince, let since = active.since, value & 1 != 0,
            let before = since.changeCount, before == oracle.volumes[active.volume]?.changeCount,
            !oracle.isLenient
        {
            problem =
                "\(active.place) sectors \(sectors) changed since \(since.name), "
                + "but nothing was written"
        }
        if active.statusKind == .allocationDepth, value > 4096 {
            problem = "\(active.place) has depth \(value)"
        }
        if let problem { fail(problem) }
    }
}
