// Volumes whose changes are numbered from outside, beside the others: what their owner does.

import BlockCore
import LogStore

/// The replicas' volumes of a run, and what is under way on them.
struct Replicas {
    /// Draws of their own: what the rest of a run does stays as it was.
    var random: SeededRandom
    var volumes: [ReplicaVolume] = []
    var requests: [UInt64: ReplicaRequest] = [:]
    var commands: [UInt64: ReplicaCommand] = [:]
    var nextToken = Replicas.tokenBase
    var nextID = Replicas.idBase
    var snapshotCount = 0
    var freeBuffers = Array(0..<Replicas.bufferCount)
    /// What the transfer that is waited for found.
    var found = ReplicaFound()
    var lastStatus = StoreStatus.ok
    var lastByteCount: UInt64 = 0

    static var tokenBase: UInt64 { 1 << 40 }
    static var idBase: UInt64 { 1 << 32 }
    static var bufferCount: Int { 12 }
    static var bufferByteCount: Int { 512 << 10 }
    /// Behind those of the other requests.
    static var bufferOffset: Int { 40 << 20 }

    var isIdle: Bool { requests.isEmpty && commands.isEmpty }
}

/// A command under way on a replica's volume.
struct ReplicaCommand {
    var volume: ReplicaVolume
    /// Changes that had ended when it was submitted.
    var fromIndex: Int
    /// Whether it is about the volume's snapshots, which change nothing of what it holds.
    var isOfSnapshots: Bool
}

/// A request under way on a replica's volume.
struct ReplicaRequest {
    enum Purpose {
        case change
        case flush
        case read
        case scan
        /// Reading while nothing else is under way: judged when all is read.
        case gatherRead
        case gatherScan
    }

    var purpose: Purpose
    var volume: ReplicaVolume
    /// Changes that had ended when it was submitted.
    var fromIndex: Int
    var blocks: Range<UInt64> = 0..<0
    var above: UInt64 = 0
    var isForced = false
    var buffer: Int
    var region = ByteRegion.empty
}

extension StoreSimulation {
    // MARK: - Steps

    /// Does something with the replicas' volumes.
    func replicaStep() {
        guard scenario.hasReplicas, failure == nil, !endedByDamage,
            driver.store.state == .ready, !isReckoning
        else { return }
        for volume in replicas.volumes where volume.phase == .ready { step(volume) }
        replicas.volumes.removeAll { $0.phase == .gone }
        if replicas.volumes.count < 2, replicas.random.chance(perMille: 300) { createReplica() }
    }

    private func step(_ volume: ReplicaVolume) {
        guard volume.handle != nil || openReplica(volume), replicas.freeBuffers.count > 4 else {
            return
        }
        let isQuiet = !volume.isChanging && !hasCommand(volume)
        switch replicas.random.below(100) {
        case 0..<50 where isQuiet: change(volume, volume.stream.next())
        case 50..<70 where isQuiet && !volume.stream.isOrdered:
            change(volume, volume.stream.fill())
        case 50..<64 where isQuiet: changeSnapshots(volume)
        case 70..<73 where isQuiet: setRecord(volume)
        case 73 where isQuiet: if replicas.random.chance(perMille: 300) { delete(volume) }
        case 74..<80: flush(volume)
        case 80..<92: query(volume, .read, volume.stream.anyRange())
        case 92..<100:
            let first = volume.stream.anyRange().lowerBound
            let end = volume.specification.byteCount >> 12
            let count = replicas.random.pick([1, 300, 1 << 16, end])
            query(volume, .scan, first..<min(end, first + count))
        default: break
        }
        if volume.changes.count > 200, replicas.freeBuffers.count > 4 { flush(volume) }
    }

    private func hasCommand(_ volume: ReplicaVolume) -> Bool {
        replicas.commands.values.contains { $0.volume === volume }
    }

    func openReplica(_ volume: ReplicaVolume) -> Bool {
        volume.handle = driver.store.openVolume(volume.specification.id)
        if volume.handle == nil { fail("replica \(volume.id) cannot be opened") }
        return volume.handle != nil
    }

    // MARK: - Commands

    private func createReplica() {
        let id = replicas.nextID
        replicas.nextID += 1
        var random = replicas.random.fork(id)
        let byteCount = random.pick([1 << 20, 8 << 20, 16 << 30, 64 << 40] as [UInt64])
        let leafCount = byteCount >> 20
        let most = scenario.isCrowded ? 64 : random.pick([1, 3, 8])
        let leaves = (0..<most).map { _ in random.below(leafCount) }
        let stream = ReplicaStream(
            random: random.fork(id),
            leaves: leaves,
            spanBlockCount: scenario.isCrowded ? 8 : random.pick([8, 64, 256] as [UInt64]),
            blockCountMax: scenario.isCrowded ? 4 : driver.store.numberedBlockCountMax,
            isOrdered: random.chance(perMille: 400)
        )
        let specification = VolumeSpecification(
            id: VolumeID(id),
            name: "replica\(id - Replicas.idBase)",
            byteCount: byteCount,
            logicalBlockByteCount: random.pick([512, 4096]),
            durability: random.pick([.writeback, .writeback, .writethrough]),
            replica: [UInt8](repeating: 1, count: random.within(1...100))
        )
        let volume = ReplicaVolume(specification, stream: stream)
        replicas.volumes.append(volume)
        submit(.createVolume(specification), for: volume)
    }

    private func setRecord(_ volume: ReplicaVolume) {
        var change = ReplicaChange(kind: .record)
        let byteCount = replicas.random.below(1025)
        let byte = UInt8(truncatingIfNeeded: replicas.random.next())
        change.record = [UInt8](repeating: byte, count: max(1, byteCount))
        volume.begin(change)
        let command = StoreCommand.setReplica(
            volume: volume.specification.id,
            record: change.record
        )
        submit(command, for: volume)
    }

    private func changeSnapshots(_ volume: ReplicaVolume) {
        let id = volume.specification.id
        let snapshots = driver.store.volume(id)?.snapshots ?? []
        if snapshots.count < scenario.snapshotCountMax, replicas.random.chance(perMille: 600) {
            replicas.snapshotCount += 1
            let name = "s\(replicas.snapshotCount)"
            submit(.createSnapshot(volume: id, name: name), for: volume, isOfSnapshots: true)
        } else if !snapshots.isEmpty {
            let layer = replicas.random.pick(snapshots).layer
            submit(.deleteSnapshot(layer: layer), for: volume, isOfSnapshots: true)
        }
    }

    func delete(_ volume: ReplicaVolume) {
        let isBusy = replicas.requests.values.contains { $0.volume === volume }
        guard !isBusy, !hasCommand(volume) else { return }
        if let handle = volume.handle { driver.store.closeVolume(handle) }
        volume.handle = nil
        volume.phase = .deleting
        submit(.deleteVolume(volume.specification.id), for: volume)
    }

    private func submit(
        _ command: StoreCommand,
        for volume: ReplicaVolume,
        isOfSnapshots: Bool = false
    ) {
        let token = replicas.nextToken
        replicas.nextToken += 1
        replicas.commands[token] = ReplicaCommand(
            volume: volume,
            fromIndex: volume.endedIndex,
            isOfSnapshots: isOfSnapshots
        )
        trace.note(10, token, volume.id) {
            "\(driver.nowNanoseconds) replica \(volume.id): \(command)"
        }
        driver.store.submit(command, token: token)
        endCommands()
    }

    /// Takes the end of a command, if it is one of theirs.
    func endReplicaCommand(_ completion: LogStore.CommandCompletion) -> Bool {
        guard let command = replicas.commands.removeValue(forKey: completion.token) else {
            return false
        }
        switch completion.result {
        case .success: commandSucceeded(command)
        case .failure(let error): commandFailed(command, error)
        }
        return true
    }

    private func commandSucceeded(_ command: ReplicaCommand) {
        let volume = command.volume
        switch volume.phase {
        case .ready where command.isOfSnapshots:
            volume.noteDurable(command.fromIndex)
            fold(volume)
        case .creating: volume.phase = .ready
        case .deleting: volume.phase = .gone
        case .ready:
            volume.end(isDurable: true)
            fold(volume)
        case .gone, .unknown: break
        }
    }

    private func commandFailed(_ command: ReplicaCommand, _ error: StoreCommandError) {
        let volume = command.volume
        // Whether it holds shows after the start that comes now.
        if case .failed = driver.store.state, device.errorCount + device.damageCount > 0 { return }
        guard error == .noSpace else {
            fail("a command of replica \(volume.id) was refused: \(error)")
            return
        }
        switch volume.phase {
        case .ready where command.isOfSnapshots: break
        case .creating: volume.phase = .gone
        case .deleting: volume.phase = .ready
        case .ready: _ = volume.withdraw()
        case .gone, .unknown: break
        }
    }

    // MARK: - Requests

    private func change(_ volume: ReplicaVolume, _ change: ReplicaChange) {
        var flags: StoreRequestFlags = change.isStreamed ? .streamed : []
        let isForced = replicas.random.chance(perMille: scenario.forcedPerMille)
        if isForced { flags.insert(.forceUnitAccess) }
        var kind = StoreRequest.Kind.write
        switch change.kind {
        case .trim: kind = replicas.random.chance(perMille: 500) ? .trim : .writeZeroes
        case .zeroes:
            kind = .writeZeroes
            flags.insert(.noHole)
        case .write, .record: break
        }
        var request = ReplicaRequest(
            purpose: .change,
            volume: volume,
            fromIndex: volume.endedIndex,
            blocks: change.blocks,
            buffer: replicas.freeBuffers.removeLast()
        )
        request.isForced = isForced
        if kind == .write {
            request.region = replicaBuffer(request.buffer).slice(0, change.blocks.count * 4096)
            fillRegion(request.region, change, volume)
        }
        volume.begin(change)
        submit(request, kind, flags: flags, number: change.number)
    }

    /// What a write brings to a block follows from the change, also where a fill brings a part of it.
    private func fillRegion(
        _ region: ByteRegion,
        _ change: ReplicaChange,
        _ volume: ReplicaVolume
    ) {
        SectorStamp.fill(
            region,
            firstSector: change.blocks.lowerBound * 8,
            operation: change.operation,
            run: scenario.seed ^ volume.id
        )
    }

    func replicaBuffer(_ index: Int) -> ByteRegion {
        buffers.slice(
            Replicas.bufferOffset + index * Replicas.bufferByteCount,
            Replicas.bufferByteCount
        )
    }

    private func flush(_ volume: ReplicaVolume) {
        let request = ReplicaRequest(
            purpose: .flush,
            volume: volume,
            fromIndex: volume.endedIndex,
            buffer: replicas.freeBuffers.removeLast()
        )
        submit(request, .flush, flags: [], number: 0)
    }

    /// Submits a read or a scan.
    func query(
        _ volume: ReplicaVolume,
        _ purpose: ReplicaRequest.Purpose,
        _ blocks: Range<UInt64>,
        above: UInt64? = nil
    ) {
        var request = ReplicaRequest(
            purpose: purpose,
            volume: volume,
            fromIndex: volume.endedIndex,
            blocks: blocks,
            buffer: replicas.freeBuffers.removeLast()
        )
        var kind = StoreRequest.Kind.read
        var byteCount = (blocks.count + 1) * 4096
        switch purpose {
        case .scan:
            kind = .scan
            let copies = volume.base.copies
            let numbers = blocks.count <= 300 ? blocks.compactMap { copies[$0]?.number } : []
            request.above = numbers.isEmpty ? 0 : replicas.random.pick(numbers + [0])
            byteCount = replicas.random.pick([16, 64, 4096])
        case .gatherScan:
            kind = .scan
            byteCount = 16 << 10
        case .read, .gatherRead, .change, .flush: break
        }
        request.region = replicaBuffer(request.buffer).slice(0, byteCount)
        submit(request, kind, flags: [], number: request.above)
    }

    private func submit(
        _ request: ReplicaRequest,
        _ kind: StoreRequest.Kind,
        flags: StoreRequestFlags,
        number: UInt64
    ) {
        guard let handle = request.volume.handle else { return }
        let token = replicas.nextToken
        replicas.nextToken += 1
        replicas.requests[token] = request
        trace.note(11, token, number) {
            "\(driver.nowNanoseconds) replica \(request.volume.id) [\(token - Replicas.tokenBase)] "
                + "\(kind) \(request.blocks) number \(number >> 36).\(number & (1 << 36 - 1)) "
                + "flags \(flags.rawValue)"
        }
        driver.store.submit(
            StoreRequest(
                kind: kind,
                volume: handle,
                offset: request.blocks.lowerBound * 4096,
                byteCount: UInt64(request.blocks.count) * 4096,
                region: request.region,
                flags: flags,
                number: number,
                token: token
            )
        )
    }

    /// Forgets the order of changes that nothing under way can tell apart any more.
    func fold(_ volume: ReplicaVolume) {
        let queries = replicas.requests.values.filter { $0.volume === volume }
        volume.fold(before: queries.map(\.fromIndex).min() ?? .max)
    }
}
