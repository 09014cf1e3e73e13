// What a crash leaves open, and how the reopened store's list of volumes closes it.

import BlockCore
import LogStore

extension StoreOracle {
    /// The store is gone; everything that is not durable may be too.
    func crash() {
        history.cut()
        for (token, entry) in pending {
            guard case .createSnapshot(let id, _) = entry.command else { continue }
            pending[token]?.frozenImage =
                volumes[id.rawValue]?.image.frozen(submittedTick: entry.submittedTick)
        }
        for volume in volumes.values {
            volume.sealingCount = 0
            volume.changesUnderWay = 0
            volume.image.crash()
        }
    }

    /// Everything that a crash left open has been read: a new life begins.
    func beginLife() {
        history.beginLife()
        for volume in volumes.values { volume.image.beginLife() }
    }

    /// Decides from the list of a reopened store which of the pending commands happened, then
    /// compares the list with the model.
    ///
    /// - Returns: What is wrong, or nil.
    func resolve(_ listing: [VolumeSummary]) -> String? {
        let entries = pending.values.sorted { $0.submittedTick < $1.submittedTick }
        pending = [:]
        for entry in entries {
            if let layer = outcome(of: entry, in: listing) {
                apply(entry, layer: layer)
                history.noteDurable(entry.submittedTick)
            }
        }
        for id in volumeIDs {
            volumes[id]?.image.refine(survivedTick: history.durableTick)
        }
        return compare(listing)
    }

    /// The layer that a command made, if the list shows that it happened; nil if it did not.
    private func outcome(
        of entry: PendingOracleCommand,
        in listing: [VolumeSummary]
    ) -> LayerID? {
        func summary(_ id: VolumeID) -> VolumeSummary? {
            listing.first { $0.specification.id == id }
        }
        switch entry.command {
        case .createVolume(let specification), .cloneSnapshot(_, let specification):
            return summary(specification.id)?.topLayer
        case .createSnapshot(let id, let name):
            return summary(id)?.snapshots.first { $0.name == name }?.layer
        case .rollback(let id, _):
            guard let found = summary(id), found.topLayer != entry.topLayer else { return nil }
            return found.topLayer
        case .deleteSnapshot(let layer):
            let isThere = listing.contains { $0.snapshots.contains { $0.layer == layer } }
            return isThere ? nil : LayerID.none
        case .deleteVolume(let id):
            return summary(id) == nil ? LayerID.none : nil
        case .resizeVolume(let id, let byteCount):
            // A size that it had before tells nothing.
            guard volumes[id.rawValue]?.specification.byteCount != byteCount else { return nil }
            return summary(id)?.specification.byteCount == byteCount ? LayerID.none : nil
        case .updateVolume(let specification):
            guard let found = summary(specification.id)?.specification,
                let before = volumes[specification.id.rawValue]?.specification,
                !before.isSameConfiguration(as: specification)
            else { return nil }
            return found.isSameConfiguration(as: specification) ? LayerID.none : nil
        case .setReplica(let id, let record):
            let before = volumes[id.rawValue]?.specification.replica
            guard let found = summary(id)?.specification, before != record else { return nil }
            return found.replica == record ? LayerID.none : nil
        }
    }

    /// Compares a list of volumes with the model, while no command is under way.
    ///
    /// - Returns: What is wrong, or nil.
    func compare(_ listing: [VolumeSummary]) -> String? {
        for id in volumeIDs where !listing.contains(where: { $0.specification.id.rawValue == id }) {
            return "volume \(id) is missing"
        }
        for summary in listing {
            let id = summary.specification.id.rawValue
            guard let volume = volumes[id] else { return "volume \(id) should not exist" }
            if summary.specification != volume.specification {
                return "volume \(id) is \(summary.specification), should be "
                    + "\(volume.specification)"
            }
            if let problem = compareSnapshots(summary, volume) { return problem }
            volume.topLayer = summary.topLayer
        }
        return nil
    }

    private func compareSnapshots(_ summary: VolumeSummary, _ volume: OracleVolume) -> String? {
        let id = summary.specification.id.rawValue
        for snapshot in volume.snapshots
        where !summary.snapshots.contains(where: { $0.layer == snapshot.layer }) {
            return "snapshot \(snapshot.name) of volume \(id) is missing"
        }
        for found in summary.snapshots {
            guard let snapshot = volume.snapshots.first(where: { $0.layer == found.layer }) else {
                return "snapshot \(found.name) of volume \(id) should not exist"
            }
            if found.name != snapshot.name || found.byteCount != snapshot.byteCount {
                return "snapshot \(found.name) of volume \(id) has \(found.byteCount) bytes, "
                    + "should be \(snapshot.name) with \(snapshot.byteCount)"
            }
            if found.isBelowVolume != volume.below.contains(found.layer) {
                return "snapshot \(found.name) of volume \(id): isBelowVolume is "
                    + "\(found.isBelowVolume)"
            }
            if found.cloneCount != cloneCount(found.layer) {
                return "snapshot \(found.name) of volume \(id) has \(found.cloneCount) clones, "
                    + "should have \(cloneCount(found.layer))"
            }
        }
        let order = summary.snapshots.map(\.layer)
        if order != volume.snapshots.map(\.layer) {
            return "snapshots of volume \(id) are not listed oldest first"
        }
        return nil
    }
}

extension VolumeSpecification {
    /// Whether all that an update can change is the same.
    fileprivate func isSameConfiguration(as other: VolumeSpecification) -> Bool {
        name == other.name && access == other.access && epoch == other.epoch
            && durability == other.durability
            && descriptor == other.descriptor
    }
}
