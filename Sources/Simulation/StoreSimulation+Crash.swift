// Starting, crashing, restarting, reading back.

import BlockCore
import LogStore

extension StoreSimulation {
    // MARK: - Crash

    /// Says where the next crash of the scenario comes.
    func scheduleCrash() {
        guard options.crashAt == nil, scenario.crashInterval > 0, !isReckoning else { return }
        let distance = 1 + random.below(scenario.crashInterval * 2)
        driver.crashAt = device.requestCount + UInt64(distance)
    }

    /// The store stops where it is, and starts again.
    func crash() {
        crashCount += 1
        let kind = random.pick(scenario.crashKinds)
        trace.note(7, device.requestCount, UInt64(crashCount)) {
            "\(driver.nowNanoseconds) CRASH \(kind) at device request \(device.requestCount)"
        }
        die(kind)
        if random.chance(perMille: 100) { checkAfterCrash() }
        recover()
        if failure == nil, !endedByDamage { scheduleCrash() }
    }

    private func die(_ kind: CrashKind) {
        driver.crashAt = nil
        for slot in requests.indices { requests[slot] = nil }
        handles = [:]
        expectations = [:]
        crashReplicas()
        driver.crash(kind)
        if let problem = oracle.judge() { fail(problem) }
        oracle.crash()
        if device.damageCount > damageAtOpen { oracle.isLenient = true }
    }

    /// The store stopped by itself: right after an error that it cannot go on from.
    func storeFailed(_ error: StoreError) {
        guard device.errorCount > 0 || device.damageCount > 0 else {
            fail("the store failed on a good device: \(error)")
            return
        }
        trace.say { "\(driver.nowNanoseconds) store failed: \(error)" }
        crashCount += 1
        die(random.pick(scenario.crashKinds))
        recover()
        if failure == nil, !endedByDamage { scheduleCrash() }
    }

    // MARK: - Start

    private static var openAttemptCountMax: Int { 12 }

    /// Opens what the device holds, decides what survived, and reads back what was uncertain.
    func recover() {
        for attempt in 0..<StoreSimulation.openAttemptCountMax {
            guard failure == nil else { return }
            // Errors at random must not keep a store from ever opening.
            device.faults = attempt < 4 ? scenario.faults : scenario.faults.withoutErrors
            if options.crashAt == nil, random.chance(perMille: scenario.recrashPerMille),
                scenario.crashInterval > 0, attempt < 3, !isReckoning
            {
                driver.crashAt = device.requestCount + UInt64(random.within(1...40))
            }
            switch attemptRecovery() {
            case .ready:
                device.faults = isReckoning ? scenario.faults.withoutErrors : scenario.faults
                if emptySpace == nil { emptySpace = driver.store.space }
                damageAtOpen = device.damageCount
                return
            case .crashed:
                crashCount += 1
                let kind = random.pick(scenario.crashKinds)
                trace.note(8, device.requestCount, UInt64(crashCount)) {
                    "\(driver.nowNanoseconds) CRASH \(kind) in recovery, "
                        + "device request \(device.requestCount)"
                }
                die(kind)
            case .refused(let error):
                trace.say { "\(driver.nowNanoseconds) open failed: \(error)" }
                if judgeRefusal(error) { return }
                die(.process)
            }
        }
        fail("the store does not open, however often it is tried")
    }

    private enum Recovery {
        case ready
        case crashed
        case refused(StoreError)
    }

    /// Whether a refusal to open ends the run.
    private func judgeRefusal(_ error: StoreError) -> Bool {
        if device.damageCount > 0 {
            switch error {
            case .corrupt, .writesLost, .deviceError, .notAStore:
                endedByDamage = true
            case .versionTooNew, .versionTooOld, .wrongIdentity, .deviceTooSmall,
                .mapMemoryTooSmall, .noRoom:
                fail("a damaged store was taken for another: \(error)")
            }
            return true
        }
        if case .deviceError = error, device.errorCount > 0 { return false }
        fail("the store does not open: \(error); \(driver.store.progressDescription)")
        return true
    }

    private func attemptRecovery() -> Recovery {
        driver.open()
        for _ in 0..<200_000 {
            let event = driver.turn(untilNanoseconds: nil) { self.end($0) }
            if let misuse = device.misuse { fail(misuse) }
            guard failure == nil else { return .ready }
            if case .crashDue = event { return .crashed }
            if case .failed(let error) = driver.store.state { return .refused(error) }
            if driver.store.state == .ready { return checkRecovered() }
            if case .quiet = event {
                fail("the store fell silent while opening")
                return .ready
            }
        }
        fail("opening takes for ever")
        return .ready
    }

    private func checkRecovered() -> Recovery {
        trace.say {
            "\(driver.nowNanoseconds) open: \(driver.store.counters); "
                + driver.store.progressDescription
        }
        // Damage may also come while the log is read.
        if crashCount > 0, device.damageCount > damageAtOpen { oracle.isLenient = true }
        if oracle.isLenient {
            endLeniently()
            return .ready
        }
        if let problem = oracle.resolve(listedVolumes) {
            fail(problem)
            return .ready
        }
        guard readBack(.gather, onlyOpen: true) else {
            if failure != nil || endedByDamage { return .ready }
            if case .failed(let error) = driver.store.state { return .refused(error) }
            return .crashed
        }
        guard resolveReplicas() else {
            if failure != nil || endedByDamage { return .ready }
            if case .failed(let error) = driver.store.state { return .refused(error) }
            return .crashed
        }
        if let problem = oracle.judge() { fail(problem) }
        oracle.beginLife()
        return .ready
    }

    /// The volumes that the oracle knows.
    var listedVolumes: [VolumeSummary] {
        driver.store.volumes().filter { $0.specification.id.rawValue < Replicas.idBase }
    }

    /// Ends a run after damage and a crash.
    ///
    /// The log may have been cut: what there is must be of this run and of its place, and that
    /// is all.
    private func endLeniently() {
        for summary in listedVolumes {
            let id = summary.specification.id.rawValue
            guard let volume = oracle.volumes[id] else { continue }
            volume.specification.byteCount = summary.specification.byteCount
            volume.snapshots = []
            let end = min(volume.sectorCount, 16 << 11)
            _ = readRanges(volume: id, layer: 0, image: volume.image, [0..<end], .verify)
        }
        endedByDamage = true
    }

    // MARK: - Restart

    /// An orderly end, with everything answered first.
    ///
    /// - Returns: Whether the store is closed; false when something came in between.
    func shutDown() -> Bool {
        settle()
        guard failure == nil, !endedByDamage, driver.store.state == .ready else { return false }
        for id in oracle.volumeIDs { closeHandles(of: id) }
        handles = [:]
        closeReplicas()
        let lives = crashCount
        trace.note(9, 0, 0) { "\(driver.nowNanoseconds) close" }
        driver.store.close()
        trace.say { driver.store.progressDescription }
        pump { self.driver.store.state == .closed }
        guard failure == nil, !endedByDamage, crashCount == lives else { return false }
        if device.inFlightCount > 0 { fail("closed with device requests in flight") }
        return failure == nil
    }

    /// An orderly end and a new start.
    func restart() {
        guard shutDown() else { return }
        noteReplicasDurable()
        // Closed in order means: as if everything had been flushed.
        oracle.history.noteDurable(oracle.history.nextTick())
        _ = oracle.history.nextTick()
        oracle.crash()
        recover()
    }

    // MARK: - Reading back

    /// Reads everything and judges it.
    func verifyAll(_ when: String) {
        guard failure == nil, !endedByDamage else { return }
        trace.say { "\(driver.nowNanoseconds) reading everything back \(when)" }
        compareListing()
        for _ in 0..<4 {
            unreadCount = 0
            if readBack(.verify, onlyOpen: false), verifyReplicas(isWhole: true) { return }
            // A crash or an error came in between: recover, and read it all once more.
            guard failure == nil, !endedByDamage else { return }
            if case .failed(let error) = driver.store.state {
                storeFailed(error)
            } else {
                crash()
            }
            guard failure == nil, !endedByDamage else { return }
        }
        fail("everything cannot be read back without another crash")
    }

    /// Reads all volumes and snapshots, or only what is not known for sure.
    ///
    /// - Returns: false when a crash or failure came in between.
    private func readBack(_ purpose: ActiveRequest.Purpose, onlyOpen: Bool) -> Bool {
        for id in oracle.volumeIDs {
            guard let volume = oracle.volumes[id] else { continue }
            let ranges =
                onlyOpen ? volume.image.doubtfulRanges : volume.image.touchedRanges
            guard readRanges(volume: id, layer: 0, image: volume.image, ranges, purpose) else {
                return false
            }
            for snapshot in volume.snapshots {
                let image = snapshot.image
                let ranges = onlyOpen ? image.openRanges : image.touchedRanges
                let layer = snapshot.layer.rawValue
                guard readRanges(volume: id, layer: layer, image: image, ranges, purpose) else {
                    return false
                }
                if handles.count > 256, !isBusy(id) { closeHandle(of: id, layer: layer) }
            }
        }
        return finishReading()
    }

    private func readRanges(
        volume id: UInt64,
        layer: UInt64,
        image: OracleImage,
        _ ranges: [Range<UInt64>],
        _ purpose: ActiveRequest.Purpose
    ) -> Bool {
        guard let volume = oracle.volumes[id] else { return true }
        var end = volume.sectorCount
        if layer != 0 { end = (oracle.snapshot(LayerID(layer))?.byteCount ?? 0) / 512 }
        for range in ranges {
            // Whole blocks, so that 4096-byte volumes can be read too.
            var first = range.lowerBound & ~7
            let last = min((range.upperBound + 7) & ~7, end)
            while first < last {
                let next = min(first + 512, last)
                submitRead(
                    volume: id,
                    layer: layer,
                    image: image,
                    sectors: first..<next,
                    purpose: purpose
                )
                guard continueReading() else { return false }
                first = next
            }
        }
        return finishReading()
    }

    /// Makes room for one more read.
    private func continueReading() -> Bool { turns { self.hasFreeRequest } }

    private func finishReading() -> Bool { turns { self.requests.allSatisfy { $0 == nil } } }

    /// Like `pump`, but leaves a crash to the caller.
    func turns(_ isDone: () -> Bool) -> Bool {
        for _ in 0..<100_000 {
            guard failure == nil else { return false }
            if isDone() { return true }
            let event = driver.turn(untilNanoseconds: nil) { self.end($0) }
            if let misuse = device.misuse { fail(misuse) }
            if case .crashDue = event { return false }
            if case .failed = driver.store.state { return false }
            if case .quiet = event, !isDone() {
                fail("the store fell silent while everything is read back")
                return false
            }
        }
        fail("reading back takes for ever")
        return false
    }
}
