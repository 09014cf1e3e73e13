// What the workload does next.

import BlockCore
import LogStore

extension StoreSimulation {
    /// Does one step of the workload.
    func step() {
        guard failure == nil, driver.store.state == .ready else { return }
        let step = StoreScenario.Step.allCases[random.pickIndex(weights: scenario.weights)]
        operationCount += 1
        switch step {
        case .read: readStep(.read)
        case .cache: readStep(.cache)
        case .write: changeStep(.write)
        case .writeZeroes: changeStep(.writeZeroes)
        case .trim: changeStep(.trim)
        case .flush: if let id = anyVolume() { submitFlush(volume: id) }
        case .blockStatus: statusStep()
        case .createVolume, .createSnapshot, .clone, .rollback, .deleteSnapshot, .deleteVolume,
            .resize, .update:
            commandStep(step)
        case .idle: idleStep()
        case .reopenHandle: reopenStep()
        case .restart: restart()
        case .wrongRequest: wrongRequestStep()
        case .wrongCommand: wrongCommandStep()
        case .compareListing: compareListing()
        case .fill: fillStep()
        }
    }

    /// A volume that takes requests now; nil when there is none.
    func anyVolume() -> UInt64? {
        let ids = oracle.volumeIDs.filter { !isLocked($0) }
        return ids.isEmpty ? nil : random.pick(ids)
    }

    /// Whether a command under way forbids requests on the volume.
    func isLocked(_ id: UInt64) -> Bool {
        oracle.pending.values.contains { entry in
            switch entry.command {
            case .createSnapshot, .createVolume, .updateVolume, .deleteSnapshot, .setReplica:
                false
            case .cloneSnapshot(_, let specification): specification.id.rawValue == id
            case .rollback(let volume, _), .deleteVolume(let volume),
                .resizeVolume(let volume, _):
                volume.rawValue == id
            }
        }
    }

    // MARK: - Ranges

    /// A range of a volume, mostly where other requests are too.
    func range(of volume: OracleVolume, byteCountMax: Int) -> Range<UInt64> {
        let id = volume.specification.id.rawValue
        let block = volume.specification.logicalBlockByteCount
        let grain = UInt64(max(block, random.chance(perMille: 700) ? 4096 : 512))
        let total = volume.specification.byteCount
        var window =
            windows[id].map { random.pick($0) }
            ?? Window(offset: 0, byteCount: total)
        if scenario.hotPerMille > 0, random.chance(perMille: scenario.hotPerMille) {
            window.byteCount = min(window.byteCount, 64 << 10)
        }
        if window.offset >= total { window = Window(offset: 0, byteCount: total) }
        window.byteCount = min(window.byteCount, total - window.offset)
        let grains = max(window.byteCount / grain, 1)
        let first = window.offset / grain * grain + random.below(grains) * grain
        guard first < total else { return 0..<UInt64(block) / 512 }
        let byteCount = min(drawByteCount(grain: grain, max: byteCountMax), total - first)
        return first / 512..<(first + byteCount) / 512
    }

    private func drawByteCount(grain: UInt64, max byteCountMax: Int) -> UInt64 {
        let most = UInt64(max(byteCountMax, Int(grain))) / grain
        switch random.below(10) {
        case 0..<5: return grain * (1 + random.below(min(most, 4)))
        case 5..<9: return grain * (1 + random.below(min(most, 32)))
        default: return grain * (1 + random.below(most))
        }
    }

    // MARK: - Requests

    private func readStep(_ kind: StoreRequest.Kind) {
        guard hasFreeRequest, let id = anyVolume(), let volume = oracle.volumes[id] else { return }
        if !volume.snapshots.isEmpty, random.chance(perMille: 300) {
            let snapshot = random.pick(volume.snapshots)
            guard !isDying(snapshot.layer) else { return }
            let range = range(of: volume, byteCountMax: 1 << 20)
            let end = min(range.upperBound, snapshot.byteCount / 512)
            guard range.lowerBound < end else { return }
            submitRead(
                kind,
                volume: id,
                layer: snapshot.layer.rawValue,
                image: snapshot.image,
                sectors: range.lowerBound..<end,
                purpose: .workload
            )
            return
        }
        submitRead(
            kind,
            volume: id,
            image: volume.image,
            sectors: range(of: volume, byteCountMax: 1 << 20),
            purpose: .workload
        )
    }

    func isDying(_ layer: LayerID) -> Bool {
        oracle.pending.values.contains { $0.command == .deleteSnapshot(layer: layer) }
    }

    private func changeStep(_ kind: StoreRequest.Kind) {
        guard hasFreeRequest, let id = anyVolume(), let volume = oracle.volumes[id] else { return }
        var flags: StoreRequestFlags = []
        if random.chance(perMille: scenario.forcedPerMille) { flags.insert(.forceUnitAccess) }
        if kind == .writeZeroes, random.chance(perMille: 500) { flags.insert(.noHole) }
        var byteCountMax = scenario.requestByteCountMax
        if kind != .write { byteCountMax = max(byteCountMax, 1 << 20) }
        var range = range(of: volume, byteCountMax: byteCountMax)
        // As mkfs does: the whole volume at once.
        if kind != .write, !flags.contains(.noHole), random.chance(perMille: 20) {
            range = 0..<volume.sectorCount
        }
        submitChange(kind, volume: id, sectors: range, flags: flags)
    }

    private func statusStep() {
        guard hasFreeRequest, let id = anyVolume(), let volume = oracle.volumes[id] else { return }
        var sectors = range(of: volume, byteCountMax: 4 << 20)
        if random.chance(perMille: 200) { sectors = 0..<volume.sectorCount }
        let isOneExtent = random.chance(perMille: 200)
        let kind = random.pick([BlockStatusKind.allocation, .allocationDepth, .changedSince])
        let candidates = volume.snapshots.filter { !isDying($0.layer) }
        if kind == .changedSince {
            guard !candidates.isEmpty else { return }
            submitStatus(
                kind,
                volume: id,
                layer: 0,
                image: volume.image,
                sectors: sectors,
                since: random.pick(candidates),
                isOneExtent: isOneExtent
            )
            return
        }
        var image = volume.image
        var layer: UInt64 = 0
        if !candidates.isEmpty, random.chance(perMille: 300) {
            let snapshot = random.pick(candidates)
            let end = min(sectors.upperBound, snapshot.byteCount / 512)
            guard sectors.lowerBound < end else { return }
            sectors = sectors.lowerBound..<end
            image = snapshot.image
            layer = snapshot.layer.rawValue
        }
        submitStatus(
            kind,
            volume: id,
            layer: layer,
            image: image,
            sectors: sectors,
            since: nil,
            isOneExtent: isOneExtent
        )
    }

    // MARK: - Everything else

    private func idleStep() {
        let span = random.pick([1_000_000, 20_000_000, 200_000_000] as [UInt64])
        pump(untilNanoseconds: driver.nowNanoseconds + span) { true }
    }

    private func reopenStep() {
        // A command that must find the volume open is applied in the next turn.
        guard expectations.isEmpty, let id = anyVolume(), !isBusy(id) else { return }
        closeHandles(of: id)
    }

    /// Writes until the store has no room, then makes some.
    private func fillStep() {
        guard let id = anyVolume(), oracle.volumes[id] != nil else { return }
        var isFull = false
        var offset: UInt64 = 0
        let most = scenario.deviceByteCount + (4 << 20)
        while !isFull, failure == nil, driver.store.state == .ready, offset < most {
            guard let volume = oracle.volumes[id] else { return }
            let byteCount = min(512 << 10, volume.specification.byteCount)
            let places = volume.specification.byteCount / byteCount
            let first = (offset / byteCount) % places * byteCount
            if offset / byteCount >= places { return }
            let lives = crashCount
            submitChange(
                .write,
                volume: id,
                sectors: first / 512..<(first + byteCount) / 512,
                flags: []
            )
            pump { self.hasFreeRequest }
            if crashCount != lives { return }
            offset += byteCount
            isFull = driver.store.space.availableByteCount < byteCount
        }
        guard failure == nil, driver.store.state == .ready, hasFreeRequest,
            let volume = oracle.volumes[id], !isLocked(id)
        else { return }
        trace.say { "filled: \(driver.store.space)" }
        guard scatter(id, volume.sectorCount), hasFreeRequest else { return }
        // Half of the time only a part comes back.
        let written = min(volume.sectorCount, offset / 512)
        let sectors = random.chance(perMille: 500) ? written : written / 2
        submitChange(.trim, volume: id, sectors: 0..<max(sectors & ~7, 8), flags: [])
    }

    /// Writes of one block each that a client of a full store goes on with.
    private static let scatteredWriteCount = 400
    /// Sectors of a volume that has a map page for each of them, at least.
    private static let scatteredSectorCountMin: UInt64 = 2 << 20

    /// Goes on elsewhere in a large volume, as a guest does whose disk is full: what is refused
    /// must not take room.
    ///
    /// - Returns: Whether the volume still takes requests.
    private func scatter(_ id: UInt64, _ sectorCount: UInt64) -> Bool {
        guard sectorCount >= Self.scatteredSectorCountMin else { return true }
        let lives = crashCount
        for _ in 0..<Self.scatteredWriteCount {
            let first = random.below(sectorCount / 2048) * 2048
            submitChange(.write, volume: id, sectors: first..<(first + 8), flags: [])
            pump { self.hasFreeRequest }
            guard crashCount == lives, failure == nil, driver.store.state == .ready,
                oracle.volumes[id] != nil, !isLocked(id)
            else { return false }
        }
        return true
    }

    private func wrongRequestStep() {
        guard hasFreeRequest, let id = anyVolume(), let volume = oracle.volumes[id],
            let handle = handle(id)
        else { return }
        let end = volume.specification.byteCount
        let region = buffer(freeRequest() ?? 0).slice(0, 8192)
        func request(
            _ kind: StoreRequest.Kind,
            _ offset: UInt64,
            _ byteCount: UInt64
        )
            -> StoreRequest
        {
            StoreRequest(
                kind: kind,
                volume: handle,
                offset: offset,
                byteCount: byteCount,
                region: region,
                token: 0
            )
        }
        let kind = random.pick([StoreRequest.Kind.read, .write, .trim, .writeZeroes, .blockStatus])
        switch random.below(6) {
        case 0: submitWrong(request(kind, end, 4096), expecting: .invalid)
        case 1: submitWrong(request(kind, 1, 512), expecting: .invalid)
        case 2: submitWrong(request(kind, 0, 511), expecting: .invalid)
        case 3: submitWrong(request(kind, UInt64.max - 511, 4096), expecting: .invalid)
        case 4: submitWrong(request(kind, 0, UInt64.max - 511), expecting: .invalid)
        default:
            guard let snapshot = volume.snapshots.last, !isDying(snapshot.layer),
                let sealed = self.handle(id, layer: snapshot.layer.rawValue)
            else { return }
            var wrong = request(random.pick([.write, .trim, .writeZeroes]), 0, 4096)
            wrong.volume = sealed
            submitWrong(wrong, expecting: .readOnly)
        }
    }

    func compareListing() {
        guard !endedByDamage, expectations.isEmpty, driver.store.state == .ready else { return }
        if let problem = oracle.compare(listedVolumes) { fail(problem) }
    }
}
