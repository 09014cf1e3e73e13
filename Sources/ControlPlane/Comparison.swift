// A node's volumes against the metadata: what differs is mended where one side is known to be
// right, and otherwise reported and left alone.

import ControlAPI
import Foundation
import Logging
import Metadata

/// What a node holds.
struct HeldVolumes: Sendable {
    var held: [NodeVolume]
    /// Those of which it cannot tell.
    var unknown: Set<UInt64> = []
    /// Why it cannot, in its own words.
    var reason = ""
}

extension ControlPlane {
    /// What a node holds, and the volumes of which it cannot tell.
    ///
    /// One with a store that has stopped gives no list, since that store's volumes would seem to
    /// be gone. It is asked for each volume that may be there. Those of which nobody has heard are
    /// found when all its stores are back.
    ///
    /// - Throws: ``ControlError``.
    func heldVolumes(
        of name: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> HeldVolumes {
        let node = try await nodeService(name)
        do throws(ControlError) {
            let held = try await answered(by: name, until: deadline) { () throws(ControlError) in
                try await node.volumes()
            }
            return HeldVolumes(held: held)
        } catch  where error.code == .unavailable {
            logger.info(
                "a node cannot tell of all its volumes",
                metadata: ["node": "\(name)", "reason": "\(error.detail)"]
            )
            let reason = error.detail
            let known = try await meta(await metadata.allVolumes()).map(\.value)
            let lost = try await meta(await metadata.lostVolumeIDs())
            let ids = known.filter { $0.lies(on: name) }.map(\.id) + lost
            return try await answered(by: name, until: deadline) {
                () throws(ControlError) in
                var held: [NodeVolume] = []
                var unknown: Set<UInt64> = []
                for id in ids {
                    do throws(ControlError) {
                        held.append(try await node.volume(id))
                    } catch  where error.code == .unavailable {
                        unknown.insert(id)
                    } catch  where error.code == .volumeNotFound {
                        // On another node, or gone.
                    }
                }
                return HeldVolumes(held: held, unknown: unknown, reason: reason)
            }
        }
    }

    /// Compares what a node holds with what it is to hold.
    func compare(_ node: String, held: [NodeVolume], known: [VolumeRecord]) async {
        let heldByID = Dictionary(held.map { ($0.id, $0) }) { first, _ in first }
        let knownIDs = Set(known.map(\.id))
        for volume in held where !knownIDs.contains(volume.id) {
            let deadline = changeDeadline
            let answers = await checked(volume.name, on: node, until: deadline) {
                [self] () throws(ControlError) in
                try await reportUnknown(volume, on: node, until: deadline)
            }
            guard answers else { return }
        }
        for volume in known where volume.pending == nil {
            // In step, which is most of them: nothing to lock and nothing to ask.
            if let held = heldByID[volume.id], await agrees(volume, held, on: node) { continue }
            let deadline = changeDeadline
            let answers = await checked(volume.name, on: node, until: deadline) {
                [self] () throws(ControlError) in
                let current = try await meta(await metadata.volume(id: volume.id))
                // What changed since the node was asked is newer than its answer.
                guard let current, current.value == volume else { return }
                guard !volume.isReplicated else {
                    return try await bringReplicaIntoStep(current, on: node, until: deadline)
                }
                try await bringIntoStep(current, until: deadline)
            }
            guard answers else { return }
        }
    }

    /// Looks closer at a volume while nothing else changes it.
    ///
    /// - Returns: Whether it is of use to go on: one node that hangs must not hold up the others
    ///   for each of its volumes.
    private func checked(
        _ name: String,
        on node: String,
        until deadline: ContinuousClock.Instant,
        _ body: @escaping @Sendable () async throws(ControlError) -> Void
    ) async -> Bool {
        do throws(ControlError) {
            try await locks.withLock(name, body)
            return true
        } catch {
            logger.warning(
                "could not compare a volume with its node",
                metadata: ["volume": "\(name)", "reason": "\(error.detail)"]
            )
            return await mayGoOn(with: node, after: error, until: deadline)
        }
    }

    private func agrees(
        _ volume: VolumeRecord,
        _ held: NodeVolume,
        on node: String
    ) async -> Bool {
        guard held.descriptor == (try? await descriptor(of: volume)) else { return false }
        if let placement = volume.placement(on: node) {
            guard held.replica?.instance == placement.instance,
                held.replica?.promisedEpoch ?? 0 <= volume.leaseEpoch ?? 0,
                held.byteCount == volume.byteCount
            else { return false }
            return (try? await unknownSnapshots(of: held))?.isEmpty == true
        }
        guard let attachments = try? await metadata.attachments(of: volume.id) else { return false }
        return held.epoch == volume.epoch && held.access == attachments.access
            && held.byteCount == volume.byteCount
    }

    /// Reports a volume that the metadata does not know.
    private func reportUnknown(
        _ volume: NodeVolume,
        on node: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        // A deletion that ended since the node was asked has taken it from both.
        guard try await meta(await metadata.volume(id: volume.id)) == nil else { return }
        let held: NodeVolume
        do throws(ControlError) {
            let service = try await nodeService(node)
            held = try await answered(by: node, until: deadline) { () throws(ControlError) in
                try await service.volume(volume.id)
            }
        } catch  where error.code == .volumeNotFound {
            return
        }
        let lost = try await meta(await metadata.lostVolume(volume.id))
        guard lost == nil else { return try await closeStray(held, on: node, until: deadline) }
        let event = EventRecord(
            time: now,
            kind: "volume.unknown",
            subject: volume.name,
            message: "the node '\(node)' holds a volume (id \(volume.id), \(volume.byteCount) "
                + "bytes) that the metadata does not know; it is left alone, "
                + "'volctl node strays \(node)' lists it"
        )
        await report(event, id: "unknown-\(node)-\(volume.id)")
    }

    /// Makes node and metadata agree on a volume that nobody changes meanwhile.
    private func bringIntoStep(
        _ volume: Versioned<VolumeRecord>,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        let record = volume.value
        let node = try await nodeService(of: volume)
        let held: NodeVolume
        do throws(ControlError) {
            held = try await answered(by: record.primary, until: deadline) {
                () throws(ControlError) in
                try await node.volume(record.id)
            }
        } catch  where error.code == .volumeNotFound {
            let event = EventRecord(
                time: now,
                kind: "volume.missing",
                subject: record.name,
                message: "the node '\(record.primary)' does not hold it any more"
            )
            return await report(event, id: "missing-\(record.primary)-\(record.id)")
        }
        guard held.epoch <= record.epoch else { return await reportLead(held, of: record) }
        let access = try await attachmentsRecord(record.id).access
        if held.access != access || held.epoch != record.epoch {
            try await answered(by: record.primary, until: deadline) {
                [self] () throws(ControlError) in
                try await setAccess(access, epoch: record.epoch, record.id, node)
            }
            let event = EventRecord(
                time: now,
                kind: "volume.access_restored",
                subject: record.name,
                message: "was '\(held.access.rawValue)' in epoch \(held.epoch) on "
                    + "'\(record.primary)', is '\(access.rawValue)' in epoch \(record.epoch) again"
            )
            await report(event)
        }
        if held.descriptor != (try await descriptor(of: record)) {
            try await describe(volume, on: record.primary)
        }
        if held.byteCount != record.byteCount { try await takeSize(of: held, volume) }
    }

    /// Reports that the node has given the volume to somebody of whom the metadata knows nothing.
    ///
    /// So the metadata is a copy of earlier; taking the volume from them is for people to decide.
    private func reportLead(_ held: NodeVolume, of record: VolumeRecord) async {
        let event = EventRecord(
            time: now,
            kind: "volume.epoch_ahead",
            subject: record.name,
            message: "its node has given it away in epoch \(held.epoch), the metadata knows of "
                + "\(record.epoch): an old copy of it was restored, or a change was not finished; 'volctl attach \(record.name) "
                + "--host HOST --force' takes it from whoever has it"
        )
        await report(event, id: "ahead-\(record.id)-\(held.epoch)")
    }

    /// Notes the size that the node says: an operation that was given up may have changed it.
    private func takeSize(
        of held: NodeVolume,
        _ volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        var changed = volume
        changed.value.byteCount = held.byteCount
        let from = ByteSize(byteCount: volume.value.byteCount).exactText
        let to = ByteSize(byteCount: held.byteCount).exactText
        let event = EventRecord(
            time: now,
            kind: "volume.size_corrected",
            subject: volume.value.name,
            message: "has \(to) on '\(volume.value.primary)', the metadata had \(from)"
        )
        let update = changed
        _ = try await meta(await metadata.updateVolume(update, event: event))
    }
}
