// Judging how block requests ended.

import BlockCore
import LogStore

extension StoreSimulation {
    /// Takes the end of a request.
    func end(_ completion: StoreCompletion) {
        guard completion.token < Replicas.tokenBase else { return endReplica(completion) }
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
            if completion.status == .mediaError { unreadCount += 1 }
        case .blockStatus:
            if completion.status == .ok { endStatus(active, completion) }
        case .cache, .scan: break
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
            case .read, .flush, .cache, .blockStatus, .scan:
                fail("\(active.kind) of \(active.place) ended with noSpace")
            }
        case .invalid where active.since != nil && !active.isComparable: return
        case .invalid, .readOnly:
            fail("\(active.kind) of \(active.place) sectors \(active.sectors): \(status)")
        }
    }

    /// Whether the store may be full: what is live must at least come near.
    private func checkFullness(_ active: ActiveRequest) {
        let space = driver.store.space
        trace.say { "full: \(space)" }
        // Thinly written stores are full of garbage that costs more than it gives.
        guard !scenario.isCrowded, device.damageCount == 0 else { return }
        // A trim that has not ended may have made room after the refusal, in the same moment.
        guard !requests.contains(where: { $0?.kind == .trim || $0?.kind == .writeZeroes }) else {
            return
        }
        let asked = UInt64(active.sectors.count * SectorStamp.byteCount)
        if asked < space.capacityByteCount / 8, space.liveByteCount < space.capacityByteCount / 2 {
            fail("\(active.kind) of \(active.place) found no space: \(space)")
        }
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
