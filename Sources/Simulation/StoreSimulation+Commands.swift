// Configuration commands of the workload, and what must come of them.

import BlockCore
import LogStore

extension StoreSimulation {
    private static var commandCountMax: Int { 3 }

    /// Submits a valid command of the given kind, when there is anything to do it to.
    func commandStep(_ step: StoreScenario.Step) {
        guard expectations.count < StoreSimulation.commandCountMax else { return }
        switch step {
        case .createVolume: createVolume()
        case .createSnapshot: createSnapshot()
        case .clone: clone()
        case .rollback: rollback()
        case .deleteSnapshot: deleteSnapshot()
        case .deleteVolume: deleteVolume()
        case .resize: resize()
        default: update()
        }
    }

    /// Submits a command.
    ///
    /// - Parameters:
    ///   - command: What to do.
    ///   - expected: How it must be refused; nil when it must succeed.
    func submit(_ command: StoreCommand, expecting expected: StoreCommandError? = nil) {
        let token = nextToken
        nextToken += 1
        if expected == nil { oracle.begin(command, token: token) }
        expectations[token] = .some(expected)
        trace.note(5, token, oracle.history.tick) {
            "\(driver.nowNanoseconds) command@\(oracle.history.tick) \(token): \(command)"
        }
        driver.store.submit(command, token: token)
        endCommands()
    }

    /// Takes the ends of commands.
    func endCommands() {
        let ended = driver.store.commandCompletions
        guard !ended.isEmpty else { return }
        driver.store.commandCompletions = []
        for completion in ended {
            trace.note(6, completion.token, 0) {
                "\(driver.nowNanoseconds) command \(completion.token) ended: \(completion.result)"
            }
            if endReplicaCommand(completion) { continue }
            guard let expected = expectations.removeValue(forKey: completion.token) else {
                fail("a command nobody submitted ended: \(completion.token)")
                return
            }
            if let expected {
                checkRefusal(completion.result, expected)
            } else {
                endCommand(completion)
            }
        }
    }

    private func checkRefusal(
        _ result: Result<StoreCommandResult, StoreCommandError>,
        _ expected: StoreCommandError
    ) {
        switch result {
        case .success: fail("a wrong command was accepted; expected \(expected)")
        case .failure(.unavailable): break
        case .failure(let error):
            if error != expected { fail("a wrong command: \(error) instead of \(expected)") }
        }
    }

    private func endCommand(_ completion: LogStore.CommandCompletion) {
        guard let entry = oracle.end(token: completion.token, completion.result) else {
            fail("the oracle does not know command \(completion.token)")
            return
        }
        switch completion.result {
        case .success:
            noteTopLayer(entry.command)
        case .failure(.unavailable) where device.errorCount > 0 || device.damageCount > 0,
            .failure(.uncertain) where device.errorCount > 0 || device.damageCount > 0:
            break
        case .failure(.noSpace): trace.say { "no room: \(driver.store.space)" }
        case .failure(.inUse):
            // A snapshot that was deleted but still carries a clone holds its volume.
            if case .deleteVolume(let id) = entry.command,
                oracle.carriesClones(id.rawValue)
            {
                break
            }
            fail("\(entry.command) was refused: inUse")
        case .failure(let error): fail("\(entry.command) was refused: \(error)")
        }
    }

    private func noteTopLayer(_ command: StoreCommand) {
        guard let id = command.volume, let volume = oracle.volumes[id.rawValue] else { return }
        guard let summary = driver.store.volume(id) else {
            fail("volume \(id.rawValue) is not there after \(command)")
            return
        }
        volume.topLayer = summary.topLayer
    }

    // MARK: - Valid commands

    private func name(_ prefix: String) -> String {
        nextName += 1
        return "\(prefix)\(nextName)"
    }

    private func createVolume() {
        guard oracle.volumes.count < scenario.volumeCountMax else { return }
        let specification = newSpecification()
        submit(.createVolume(specification))
    }

    private func newSpecification() -> VolumeSpecification {
        let id = nextVolume
        nextVolume += 1
        var byteCount = UInt64(random.within(1...1024)) * 4096
        byteCount = max(byteCount, scenario.spanByteCount)
        let isHuge = random.chance(perMille: scenario.hugeVolumePerMille)
        if isHuge {
            byteCount = random.pick([1 << 30, 16 << 30, 40 << 30, 1 << 40, 64 << 40] as [UInt64])
        }
        if scenario.isCrowded {
            byteCount = random.pick(StoreScenario.crowdedVolumeByteCounts)
        } else {
            windows[id] = newWindows(byteCount, isHuge: isHuge)
        }
        return VolumeSpecification(
            id: VolumeID(id),
            name: name("volume"),
            byteCount: byteCount,
            logicalBlockByteCount: random.chance(perMille: scenario.largeBlockPerMille)
                ? 4096 : 512,
            durability: random.chance(perMille: scenario.writethroughPerMille)
                ? .writethrough : .writeback,
            access: random.pick([.none, .readOnly, .readWrite]),
            descriptor: Array(repeating: UInt8(truncatingIfNeeded: id), count: random.below(64))
        )
    }

    /// Where the workload goes: all of a small volume, a few places of a huge one.
    private func newWindows(_ byteCount: UInt64, isHuge: Bool) -> [Window] {
        guard isHuge else { return [Window(offset: 0, byteCount: byteCount)] }
        let span = scenario.spanByteCount
        // Many small windows make many map pages; a few large ones make full pages.
        let count = random.pick([2, 8, 64, 200])
        var result = [Window(offset: byteCount - span / 4, byteCount: span / 4)]
        for _ in 0..<count {
            let offset = random.below(byteCount / 4096) * 4096
            result.append(
                Window(offset: offset, byteCount: max(span / UInt64(count), 16 << 10))
            )
        }
        if byteCount > 16 << 30 {
            // Across the border of two shards.
            result.append(Window(offset: 16 << 30 - 64 << 10, byteCount: 128 << 10))
        }
        return result
    }

    private func createSnapshot() {
        guard let id = anyVolume(), let volume = oracle.volumes[id],
            volume.snapshots.count < scenario.snapshotCountMax
        else { return }
        // Mostly with writes under way; they are in it or not, one by one.
        submit(.createSnapshot(volume: VolumeID(id), name: name("snapshot")))
    }

    private func anySnapshot() -> OracleSnapshot? {
        let all = oracle.volumeIDs.flatMap { oracle.volumes[$0]?.snapshots ?? [] }
            .filter { !isDying($0.layer) && !isLocked($0.volume) }
        return all.isEmpty ? nil : random.pick(all)
    }

    private func clone() {
        guard oracle.volumes.count < scenario.volumeCountMax, let snapshot = anySnapshot(),
            let parent = oracle.volumes[snapshot.volume]
        else { return }
        var specification = newSpecification()
        let block = parent.specification.logicalBlockByteCount
        specification.logicalBlockByteCount = block
        specification.byteCount = snapshot.byteCount
        if random.chance(perMille: 200), snapshot.byteCount < 1 << 40 {
            specification.byteCount += UInt64(random.within(1...64)) * 1 << 20
        }
        windows[specification.id.rawValue] = windows[snapshot.volume]
        submit(.cloneSnapshot(layer: snapshot.layer, specification))
    }

    /// Waits until nothing is under way on a volume and gives its handles back.
    ///
    /// - Returns: false when a crash came in between, or the volume is gone.
    private func quiesce(_ id: UInt64, keepsSnapshots: Bool = false) -> Bool {
        let lives = crashCount
        pump { !self.isBusy(id) && self.expectations.isEmpty }
        guard failure == nil, !endedByDamage, crashCount == lives,
            driver.store.state == .ready, oracle.volumes[id] != nil
        else { return false }
        if keepsSnapshots { closeHandle(of: id, layer: 0) } else { closeHandles(of: id) }
        return true
    }

    private func rollback() {
        guard let snapshot = anySnapshot(), quiesce(snapshot.volume, keepsSnapshots: true),
            oracle.snapshot(snapshot.layer) != nil
        else { return }
        submit(.rollback(volume: VolumeID(snapshot.volume), layer: snapshot.layer))
    }

    private func deleteSnapshot() {
        guard let snapshot = anySnapshot() else { return }
        let layer = snapshot.layer.rawValue
        let lives = crashCount
        pump { !self.requests.contains { $0?.layer == layer } && self.expectations.isEmpty }
        guard crashCount == lives, driver.store.state == .ready,
            oracle.snapshot(snapshot.layer) != nil, failure == nil,
            !requests.contains(where: { $0?.since?.layer == snapshot.layer })
        else { return }
        closeHandle(of: snapshot.volume, layer: layer)
        submit(.deleteSnapshot(layer: snapshot.layer))
    }

    private func deleteVolume() {
        guard let id = anyVolume(), quiesce(id), let volume = oracle.volumes[id] else { return }
        let hasClones = volume.snapshots.contains { oracle.cloneCount($0.layer) > 0 }
        submit(.deleteVolume(VolumeID(id)), expecting: hasClones ? .inUse : nil)
    }

    private func resize() {
        guard let id = anyVolume(), let before = oracle.volumes[id]?.specification.byteCount,
            quiesce(id), let volume = oracle.volumes[id]
        else { return }
        var byteCount = before
        switch random.below(3) {
        case 0: byteCount = min(before * 2, BlockGeometry.volumeByteCountMax)
        case 1: byteCount = max(before / 2 & ~4095, 4096)
        default: byteCount = max(before &- UInt64(random.within(1...16)) * 4096, 4096)
        }
        if byteCount > before, volume.specification.byteCount != before { return }
        if byteCount > BlockGeometry.volumeByteCountMax { return }
        submit(.resizeVolume(VolumeID(id), byteCount: byteCount))
    }

    private func update() {
        guard let id = anyVolume(), let volume = oracle.volumes[id], !isBusy(id) else { return }
        let isPending = oracle.pending.values.contains { $0.command.volume?.rawValue == id }
        guard !isPending else { return }
        var specification = volume.specification
        if random.chance(perMille: 300) { specification.name = name("renamed") }
        specification.access = random.pick([.none, .readOnly, .readWrite])
        specification.descriptor = Array(repeating: 7, count: random.below(2048))
        if specification.epoch > 0, specification.descriptor.count % 8 == 1 {
            specification.epoch -= 1
            return submit(.updateVolume(specification), expecting: .outdated)
        }
        if specification.descriptor.count % 2 == 0 { specification.epoch += 1 }
        submit(.updateVolume(specification))
    }

    // MARK: - Wrong commands

    /// Submits a command that must be refused, and says as what.
    func wrongCommandStep() {
        guard expectations.isEmpty, let id = anyVolume(), let volume = oracle.volumes[id] else {
            return
        }
        var specification = volume.specification
        specification.id = VolumeID(1 << 40)
        specification.name = "nothing"
        switch random.below(8) {
        case 0: submit(.createVolume(volume.specification), expecting: .alreadyExists)
        case 1:
            specification.byteCount = random.pick([0, 4095, 4097, 65 << 40, UInt64.max])
            submit(.createVolume(specification), expecting: .invalid)
        case 2:
            specification.logicalBlockByteCount = random.pick([0, 1, 1024, 8192])
            submit(.createVolume(specification), expecting: .invalid)
        case 3:
            submit(
                .createSnapshot(volume: VolumeID(1 << 41), name: "x"),
                expecting: .volumeNotFound
            )
        case 4:
            guard let snapshot = volume.snapshots.first, !isDying(snapshot.layer) else { return }
            submit(
                .createSnapshot(volume: VolumeID(id), name: snapshot.name),
                expecting: .alreadyExists
            )
        case 5:
            submit(
                .cloneSnapshot(layer: LayerID(1 << 50), specification),
                expecting: .snapshotNotFound
            )
        case 6: submit(.deleteSnapshot(layer: volume.topLayer), expecting: .snapshotNotFound)
        default:
            // With whatever is under way on it.
            guard handle(id) != nil else { return }
            let byteCount = volume.specification.byteCount
            if nextToken % 2 == 0, byteCount > 4096 {
                let smaller = max(byteCount / 2 & ~4095, 4096)
                return submit(.resizeVolume(VolumeID(id), byteCount: smaller), expecting: .inUse)
            }
            submit(.deleteVolume(VolumeID(id)), expecting: .inUse)
        }
    }
}
