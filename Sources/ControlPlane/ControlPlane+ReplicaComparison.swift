// A node's replicas against the metadata. Who may use a volume is its primary's business, so only
// which replica it is, its size and the epochs that it promised are compared.

import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// Makes a node and the metadata agree on a replica, while nothing else changes the volume.
    func bringReplicaIntoStep(
        _ volume: Versioned<VolumeRecord>,
        on name: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        let record = volume.value
        guard let placement = record.placement(on: name) else { return }
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        let held: NodeVolume?
        do throws(ControlError) {
            held = try await answered(by: name, until: deadline) { () throws(ControlError) in
                try await node.volume(record.id)
            }
        } catch  where error.code == .volumeNotFound {
            held = nil
        }
        guard let held, let replica = held.replica, replica.instance == placement.instance else {
            // One that is still to be made is made by whoever replaces the lost one.
            guard placement.isUnmade != true else { return }
            let event = EventRecord(
                time: now,
                kind: "volume.missing",
                subject: record.name,
                message: "the node '\(name)' does not hold its replica any more"
            )
            return await report(event, id: "missing-\(name)-\(placement.instance)")
        }
        if replica.promisedEpoch > record.leaseEpoch ?? 0 {
            try await takeLeaseEpoch(replica.promisedEpoch, volume, from: name)
        }
        try await deleteUnknownSnapshots(of: held, volume, on: name, until: deadline)
        if held.descriptor != (try await descriptor(of: record)) {
            try await describe(volume, on: name)
        }
        guard held.byteCount != record.byteCount else { return }
        // All that is committed lies below the size that the metadata has.
        try await answered(by: name, until: deadline) { () throws(ControlError) in
            _ = try await node.updateVolume(
                record.id,
                NodeVolumeUpdate(byteCount: record.byteCount)
            )
        }
        let event = EventRecord(
            time: now,
            kind: "volume.size_corrected",
            subject: record.name,
            message:
                "its replica on '\(name)' had \(ByteSize(byteCount: held.byteCount).exactText), "
                + "has \(ByteSize(byteCount: record.byteCount).exactText) now"
        )
        await report(event)
    }

    /// Goes on above an epoch that a replica has promised and the metadata does not know of: an old
    /// copy of it was restored.
    private func takeLeaseEpoch(
        _ epoch: UInt64,
        _ volume: Versioned<VolumeRecord>,
        from name: String
    ) async throws(ControlError) {
        var changed = volume
        changed.value.leaseEpoch = epoch
        changed.value.tended = nil
        let event = EventRecord(
            time: now,
            kind: "volume.epoch_ahead",
            subject: volume.value.name,
            message:
                "its replica on '\(name)' has promised the lease \(epoch), the metadata knew of "
                + "\(volume.value.leaseEpoch ?? 0): an old copy of it was restored"
        )
        let update = changed
        _ = try await meta(await metadata.updateVolume(update, event: event))
        // That lease may be somebody else's: its primary, if it has one, gets the next.
        if volume.value.served != nil {
            _ = serviceTable.noteFailure(volume.value.id)
            serveSoon.yield(String(volume.value.id))
        }
    }
}
