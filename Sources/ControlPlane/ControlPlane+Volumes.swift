// Volumes: list, show, create, clone, resize, delete.

public import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// Volumes by name, from the one after `after`.
    public func volumes(
        after: String?,
        countMax: Int
    ) async throws(ControlError) -> VolumeList {
        let records = try await meta(await metadata.volumes(after: after, countMax: countMax)).map(
            \.value
        )
        let views = await nodeViews(Set(records.map(\.teller)))
        let nodes = try await nodesByName()
        let live = try await meta(await metadata.liveNodes())
        let around = try await meta(await metadata.surroundings(of: records.map(\.id)))
        let volumes = zip(records, around).map { record, around in
            document(record, views[record.teller] ?? .silent, around, nodes[record.primary], live)
        }
        let isLastPage = records.count < countMax
        return VolumeList(volumes: volumes, nextAfter: isLastPage ? nil : records.last?.name)
    }

    /// One volume, with its space when its node answers.
    public func volume(_ name: String) async throws(ControlError) -> Volume {
        try await document(try await requireVolume(name).value)
    }

    /// Makes an empty volume.
    public func createVolume(
        _ creation: VolumeCreation,
        operation: String
    ) async throws(ControlError) -> Volume {
        let request = try Self.fingerprint("create volume", creation)
        let end = try await create(creation.name, operation: operation, request: request) {
            [self] () throws(ControlError) in
            let names = try await place(on: creation.node, replicaCount: creation.replicas)
            var record = VolumeRecord(
                id: newVolumeID(),
                name: creation.name,
                byteCount: creation.byteCount,
                logicalBlockByteCount: creation.logicalBlockByteCount ?? 512,
                durability: (creation.durability ?? .writeback).rawValue,
                state: .creating,
                primary: names[0],
                replicas: names,
                source: nil,
                createdAt: now
            )
            if names.count > 1 {
                record.placements = names.map {
                    PlacementRecord(node: $0, instance: newInstance())
                }
                record.writeQuorum = names.count / 2 + 1
            }
            record.pending = PendingOperation(key: operation, kind: .create, startedAt: now)
            return record
        }
        return try await document(end, name: creation.name)
    }

    /// Makes a volume that starts as a snapshot.
    public func clone(
        _ volume: String,
        snapshot: String,
        _ creation: CloneCreation,
        operation: String
    ) async throws(ControlError) -> Volume {
        let request = try Self.fingerprint("clone \(volume)@\(snapshot)", creation)
        return try await clone(creation, operation: operation, request: request) {
            [self] () throws(ControlError) in
            (try await requireVolume(volume).value, snapshot)
        }
    }

    /// Makes a volume that starts as the snapshot that `source` finds.
    func clone(
        _ creation: CloneCreation,
        operation: String,
        request: String,
        of source:
            @escaping @Sendable () async throws(ControlError)
            -> (parent: VolumeRecord, snapshot: String)
    ) async throws(ControlError) -> Volume {
        let end = try await create(creation.name, operation: operation, request: request) {
            [self] () throws(ControlError) in
            let (parent, snapshot) = try await source()
            let found = try await meta(await metadata.snapshot(snapshot, of: parent.id))
            guard let found else { throw .snapshotNotFound(snapshot, of: parent.name) }
            // A clone shares its parent's layers, so it lives where they are.
            var record = VolumeRecord(
                id: newVolumeID(),
                name: creation.name,
                byteCount: found.byteCount,
                logicalBlockByteCount: parent.logicalBlockByteCount,
                durability: creation.durability?.rawValue ?? parent.durability,
                state: .creating,
                primary: parent.primary,
                replicas: parent.replicas,
                source: VolumeRecord.Source(
                    volumeID: parent.id,
                    volumeName: parent.name,
                    snapshot: snapshot
                ),
                createdAt: now
            )
            record.pending = PendingOperation(key: operation, kind: .clone, startedAt: now)
            if parent.isReplicated { return try cloneRecord(record, of: parent, found) }
            return record
        }
        return try await document(end, name: creation.name)
    }

    /// Changes a volume's size.
    public func updateVolume(
        _ name: String,
        _ update: VolumeUpdate,
        operation: String
    ) async throws(ControlError) -> Volume {
        let request = try Self.fingerprint("update volume \(name)", update)
        let end = try await change(name, operation: operation, request: request) {
            [self] (volume) throws(ControlError) in
            guard let byteCount = update.byteCount, byteCount != volume.byteCount else {
                return nil
            }
            if byteCount < volume.byteCount {
                try await requireShrinkable(volume, to: byteCount, update)
            }
            return .resize(byteCount: byteCount)
        }
        return try await document(end, name: name)
    }

    private func requireShrinkable(
        _ volume: VolumeRecord,
        to byteCount: UInt64,
        _ update: VolumeUpdate
    ) async throws(ControlError) {
        guard update.allowShrink == true else {
            let size = ByteSize(byteCount: byteCount).argumentText
            let wanted = ByteSize(byteCount: byteCount).exactText
            let present = ByteSize(byteCount: volume.byteCount).exactText
            throw ControlError(
                .invalidArgument,
                "\(wanted) is less than the \(present) that '\(volume.name)' has; what lies behind "
                    + "would be lost.",
                help: "If that is meant: volctl volume resize \(volume.name) \(size) --shrink"
            )
        }
        try await requireDetached(volume, toBe: "shrunk")
    }

    /// Deletes a volume and its snapshots; refused while a host has it.
    ///
    /// With `host` it is the other way round: deleted only while that host alone has it for
    /// writing. So a host undoes what it made and nobody was given since.
    public func deleteVolume(
        _ name: String,
        heldBy host: String? = nil,
        operation: String
    ) async throws(ControlError) {
        let request = "delete volume \(name)" + (host.map { " of \($0)" } ?? "")
        _ = try await change(name, operation: operation, request: request) {
            [self] (volume) throws(ControlError) in
            if let host {
                try await requireHeld(volume, by: host)
            } else {
                try await requireDetached(volume, toBe: "deleted")
            }
            let images = try await meta(await metadata.images(of: volume.id))
            if let image = images.first {
                throw ControlError(
                    .inUse,
                    "The image '\(image.name):\(image.version)' is made of '\(name)'.",
                    help: "'volctl image delete \(image.name):\(image.version)' takes it out of "
                        + "the catalogue first."
                )
            }
            return .delete
        }
    }

    // MARK: - Creating

    /// Carries out an operation that makes a volume.
    ///
    /// - Parameters:
    ///   - name: The new volume.
    ///   - key: The client's name for the operation.
    ///   - request: The client's request.
    ///   - plan: Gives the record to begin with, or refuses.
    /// - Returns: How it came out.
    /// - Throws: ``ControlError``; see ``drive(_:isFirstAttempt:until:)`` for what then is so.
    private func create(
        _ name: String,
        operation key: String,
        request: String,
        _ plan: @escaping @Sendable () async throws(ControlError) -> VolumeRecord
    ) async throws(ControlError) -> OperationEnd {
        let deadline = changeDeadline
        return try await locks.withLock(name) { [self] () throws(ControlError) in
            if let end = try await repeated(key, request: request, until: deadline) { return end }
            for _ in 0..<Self.conflictCountMax {
                if let existing = try await meta(await metadata.volume(named: name)) {
                    guard try await isPending(request, on: existing.value) else {
                        throw .volumeExists(name)
                    }
                    let joined = try await meta(
                        await metadata.join(key, existing, request: request)
                    )
                    guard let joined else { continue }
                    return .done(try await drive(joined, isFirstAttempt: false, until: deadline))
                }
                var record = try await plan()
                try requireTime(for: name, until: deadline)
                // So the names that an earlier one's hosts were given do not open this one.
                record.epoch = try await meta(await metadata.firstEpoch())
                let new = record
                let begun = try await meta(await metadata.beginCreation(new, request: request))
                guard let begun else { continue }
                return .done(try await drive(begun, isFirstAttempt: true, until: deadline))
            }
            throw ControlError(.busy, "Somebody else makes '\(name)'.", help: "Try again.")
        }
    }

    private func newVolumeID() -> UInt64 { UInt64.random(in: 1...APILimits.volumeIDMax) }

    /// The client's request as one line, to tell a repetition from another use of its key.
    static func fingerprint(
        _ what: String,
        _ body: some Encodable
    ) throws(ControlError) -> String {
        guard let data = try? ControlJSON.encoder().encode(body) else {
            throw ControlError(.invalidArgument, "The request cannot be written as JSON.")
        }
        return what + " " + String(decoding: data, as: UTF8.self)
    }

    /// Refuses unless the volume is attached to `host`, for writing.
    private func requireHeld(
        _ volume: VolumeRecord,
        by host: String
    ) async throws(ControlError) {
        let current = try await attachmentsRecord(volume.id).current
        if let other = current.first(where: { $0.host != host }) {
            throw ControlError(
                .volumeAttached,
                "The volume '\(volume.name)' is attached to host '\(other.host)', so it is not "
                    + "'\(host)' that may delete it.",
                help: "'volctl volume show \(volume.name)' shows who has it.",
                holder: other.host
            )
        }
        guard let own = current.first, !own.readOnly else {
            throw .attachmentNotFound(volume.name, host: host)
        }
    }

    /// Refuses while a host has the volume.
    func requireDetached(
        _ volume: VolumeRecord,
        toBe participle: String
    ) async throws(ControlError) {
        guard let holder = try await attachmentsRecord(volume.id).current.first else { return }
        throw ControlError(
            .volumeAttached,
            "The volume '\(volume.name)' is attached to host '\(holder.host)'; it must be detached "
                + "to be \(participle).",
            help: "'volctl detach \(volume.name) --host \(holder.host)' does that.",
            holder: holder.host
        )
    }
}

extension ControlError {
    static func volumeExists(_ name: String) -> Self {
        ControlError(
            .alreadyExists,
            "There is a volume '\(name)' already.",
            help: "Choose another name; 'volctl volume show \(name)' shows that one."
        )
    }
}
