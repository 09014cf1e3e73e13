// The oracle of a store: what every sector of every volume and snapshot may legally read as.
//
// Kept apart from the code under test, and slow on purpose. What it holds the store to:
//   a read returns, per sector, the value of a write (or zero) that nothing acknowledged before
//     the read was submitted had overwritten; once returned, nothing older is returned while the
//     store lives
//   after a crash a sector holds the value of any request, answered or not, that does not come
//     before a durable one; seen once, it stays
//   what survives a crash is a prefix: if something survived, so did everything that ended
//     before it was submitted, on whatever volume
//   a snapshot holds one legal state of its volume between the submission and the end of its
//     command, and never changes; a clone starts as its snapshot
//   a command that was acknowledged survives; one that was not happened whole or not at all
//
// Not checked: that a write of many blocks is atomic (it need not be), and that two sectors of
// one snapshot are of the same instant beyond what real time says.

import BlockCore
import LogStore

/// A named, immutable layer.
final class OracleSnapshot {
    let layer: LayerID
    let name: String
    let byteCount: UInt64
    let volume: UInt64
    let image: OracleImage
    /// The layers that it stands on.
    let below: [LayerID]
    /// Changes to the volume before the snapshot's command; nil when some were under way.
    let changeCount: Int?

    init(
        layer: LayerID,
        name: String,
        byteCount: UInt64,
        volume: UInt64,
        image: OracleImage,
        below: [LayerID],
        changeCount: Int?
    ) {
        self.layer = layer
        self.name = name
        self.byteCount = byteCount
        self.volume = volume
        self.image = image
        self.below = below
        self.changeCount = changeCount
    }
}

/// A volume as it should be.
final class OracleVolume {
    var specification: VolumeSpecification
    var image: OracleImage
    var topLayer: LayerID
    var snapshots: [OracleSnapshot] = []
    /// The layers that its top layer stands on, named or not.
    var below: [LayerID] = []
    /// The layers that were sealed for it, named or not.
    var sealed: [LayerID] = []
    /// Snapshot commands under way.
    var sealingCount = 0
    /// Changes ever submitted.
    var changeCount = 0
    /// Changes under way.
    var changesUnderWay = 0

    init(specification: VolumeSpecification, image: OracleImage, topLayer: LayerID) {
        self.specification = specification
        self.image = image
        self.topLayer = topLayer
    }

    var sectorCount: UInt64 { specification.byteCount / UInt64(SectorStamp.byteCount) }
}

/// A command that was submitted and has not ended.
struct PendingOracleCommand {
    var command: StoreCommand
    var submittedTick: UInt64
    var topLayer: LayerID
    /// What the snapshot would hold, computed at a crash.
    var frozenImage: OracleImage?
    /// For a snapshot: changes before it; nil when some were under way.
    var changeCount: Int?
    /// For a shrink: the trim of the tail, which a crash may leave done while the size is not.
    var trim: UInt32?
}

/// Everything that a store may legally hold.
final class StoreOracle {
    /// The seed that stamps carry.
    let run: UInt64
    let history = OracleHistory()
    var volumes: [UInt64: OracleVolume] = [:]
    var pending: [UInt64: PendingOracleCommand] = [:]
    /// Whether damage and a crash came together: then the log may have been cut before what was
    /// durable, and only foreign, torn and misplaced contents are wrong.
    var isLenient = false
    /// What was read since the last crash and is not judged yet.
    var observations: [Observation] = []

    /// One sector as seen after a crash.
    struct Observation {
        var image: OracleImage
        var sector: UInt64
        var matches: [UInt32]
        var place: String
    }

    init(run: UInt64) { self.run = run }

    /// Volumes in order, so that runs are repeatable.
    var volumeIDs: [UInt64] { volumes.keys.sorted() }

    func snapshot(_ layer: LayerID) -> OracleSnapshot? {
        for volume in volumes.values {
            for snapshot in volume.snapshots where snapshot.layer == layer { return snapshot }
        }
        return nil
    }

    /// The volumes whose nearest snapshot of another volume this is.
    func cloneCount(_ layer: LayerID) -> Int {
        guard let owner = snapshot(layer)?.volume else { return 0 }
        return volumes.reduce(0) { count, entry in
            guard entry.key != owner else { return count }
            let nearest = entry.value.below.last { below in
                guard let snapshot = snapshot(below) else { return false }
                return snapshot.volume != entry.key
            }
            return count + (nearest == layer ? 1 : 0)
        }
    }

    /// Whether another volume stands on a layer of this one, named or not.
    func carriesClones(_ id: UInt64) -> Bool {
        guard let volume = volumes[id] else { return false }
        return volumes.contains { other, clone in
            other != id && clone.below.contains { volume.sealed.contains($0) }
        }
    }

    // MARK: - Requests

    /// A change was submitted.
    func beginChange(
        _ kind: OracleOperation.Kind,
        volume id: UInt64,
        firstSector: UInt64,
        sectorCount: UInt64
    ) -> UInt32 {
        guard let volume = volumes[id] else { preconditionFailure("no such volume") }
        let operation = history.begin(
            OracleOperation(
                kind: kind,
                volume: id,
                firstSector: firstSector,
                sectorCount: sectorCount,
                submittedTick: history.nextTick()
            )
        )
        volume.changeCount += 1
        volume.changesUnderWay += 1
        volume.image.add(operation, mayPrune: volume.sealingCount == 0)
        return operation
    }

    /// A change ended.
    func endChange(_ id: UInt32, status: StoreStatus, isForced: Bool) {
        let operation = history[id]
        let volume = volumes[operation.volume]
        volume?.changesUnderWay -= 1
        let isThrough = volume?.specification.durability == .writethrough
        history.end(id, isCertain: status == .ok, isDurable: isForced || isThrough)
    }

    /// A flush that was submitted at `tick` was acknowledged.
    func endFlush(submittedTick tick: UInt64) {
        _ = history.nextTick()
        history.noteDurable(tick)
    }

    // MARK: - Commands

    /// A command was submitted.
    func begin(_ command: StoreCommand, token: UInt64) {
        var entry = PendingOracleCommand(
            command: command,
            submittedTick: history.nextTick(),
            topLayer: .none
        )
        if let id = command.volume, let volume = volumes[id.rawValue] {
            entry.topLayer = volume.topLayer
            if case .createSnapshot = command {
                volume.sealingCount += 1
                entry.changeCount = volume.changesUnderWay == 0 ? volume.changeCount : nil
            }
            if case .resizeVolume(_, let byteCount) = command,
                byteCount < volume.specification.byteCount
            {
                let first = byteCount / UInt64(SectorStamp.byteCount)
                entry.trim = beginChange(
                    .trim,
                    volume: id.rawValue,
                    firstSector: first,
                    sectorCount: volume.sectorCount - first
                )
            }
        }
        pending[token] = entry
    }

    /// A command ended.
    ///
    /// - Returns: The command, to be compared with what the workload expected.
    func end(
        token: UInt64,
        _ result: Result<StoreCommandResult, StoreCommandError>
    ) -> PendingOracleCommand? {
        guard var entry = pending.removeValue(forKey: token) else { return nil }
        _ = history.nextTick()
        if let trim = entry.trim { endChange(trim, status: .mediaError, isForced: false) }
        switch result {
        case .success(let made):
            entry.frozenImage = freeze(entry)
            endSealing(entry)
            apply(entry, layer: made.layer)
            history.noteDurable(entry.submittedTick)
        case .failure(.unavailable), .failure(.uncertain):
            // The device failed under it: a reopened store will tell.
            pending[token] = entry
        case .failure:
            endSealing(entry)
        }
        return entry
    }

    private func endSealing(_ entry: PendingOracleCommand) {
        if case .createSnapshot(let id, _) = entry.command {
            volumes[id.rawValue]?.sealingCount -= 1
        }
    }

    private func freeze(_ entry: PendingOracleCommand) -> OracleImage? {
        guard case .createSnapshot(let id, _) = entry.command else { return nil }
        return volumes[id.rawValue]?.image.frozen(submittedTick: entry.submittedTick)
    }

    /// Makes the model as after the command.
    func apply(_ entry: PendingOracleCommand, layer: LayerID) {
        switch entry.command {
        case .createVolume(let specification):
            volumes[specification.id.rawValue] = OracleVolume(
                specification: specification,
                image: OracleImage(history: history),
                topLayer: layer
            )
        case .createSnapshot(let id, let name):
            guard let volume = volumes[id.rawValue], let image = entry.frozenImage else { return }
            volume.snapshots.append(
                OracleSnapshot(
                    layer: layer,
                    name: name,
                    byteCount: volume.specification.byteCount,
                    volume: id.rawValue,
                    image: image,
                    below: volume.below,
                    changeCount: entry.changeCount
                )
            )
            volume.below.append(layer)
            volume.sealed.append(layer)
        case .cloneSnapshot(let origin, let specification):
            guard let snapshot = snapshot(origin) else { return }
            let volume = OracleVolume(
                specification: specification,
                image: OracleImage(copying: snapshot.image),
                topLayer: layer
            )
            let end = specification.byteCount / UInt64(SectorStamp.byteCount)
            volume.image.truncate(at: end)
            volume.below = snapshot.below + [origin]
            volumes[specification.id.rawValue] = volume
        case .rollback(let id, let origin):
            guard let volume = volumes[id.rawValue], let snapshot = snapshot(origin) else {
                return
            }
            volume.image = OracleImage(copying: snapshot.image)
            volume.specification.byteCount = snapshot.byteCount
            volume.topLayer = layer
            volume.below = snapshot.below + [origin]
            volume.changeCount += 1
        case .deleteSnapshot(let layer):
            for volume in volumes.values { volume.snapshots.removeAll { $0.layer == layer } }
        case .deleteVolume(let id):
            volumes[id.rawValue] = nil
        case .resizeVolume(let id, let byteCount):
            guard let volume = volumes[id.rawValue] else { return }
            volume.specification.byteCount = byteCount
            volume.image.truncate(at: volume.sectorCount)
            volume.changeCount += 1
        case .updateVolume(let specification):
            guard let volume = volumes[specification.id.rawValue] else { return }
            let byteCount = volume.specification.byteCount
            let replica = volume.specification.replica
            volume.specification = specification
            volume.specification.byteCount = byteCount
            volume.specification.replica = replica
        case .setReplica(let id, let record):
            volumes[id.rawValue]?.specification.replica = record
        }
    }
}

extension StoreCommand {
    /// The volume that a command concerns, if it names one.
    var volume: VolumeID? {
        switch self {
        case .createVolume(let specification), .updateVolume(let specification),
            .cloneSnapshot(_, let specification):
            specification.id
        case .createSnapshot(let id, _), .rollback(let id, _), .deleteVolume(let id),
            .resizeVolume(let id, _), .setReplica(let id, _):
            id
        case .deleteSnapshot: nil
        }
    }
}
