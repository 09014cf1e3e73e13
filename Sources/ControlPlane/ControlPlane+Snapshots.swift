// Snapshots and the images made of them.

public import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// Its snapshots, oldest first.
    public func snapshots(of volume: String) async throws(ControlError) -> [Snapshot] {
        let record = try await requireVolume(volume).value
        let snapshots = try await meta(await metadata.snapshots(of: record.id))
        let images = try await imagesBySnapshot(of: record.id)
        let known = await nodeSnapshots(of: record)
        let node = try await exportNode(of: record)
        return snapshots.map { snapshot in
            var document = document(snapshot, of: record, known)
            document.images = images[snapshot.name] ?? []
            document.nbdURI = node?.nbdURI(export: "\(record.name)@\(snapshot.name)")
            return document
        }
    }

    /// One of them.
    public func snapshot(
        _ name: String,
        of volume: String,
        machineID: String?
    ) async throws(ControlError) -> Snapshot {
        let record = try await requireVolume(volume).value
        return try await snapshotDocument(name, of: record, machineID: machineID)
    }

    private func snapshotDocument(
        _ name: String,
        of record: VolumeRecord,
        machineID: String? = nil
    ) async throws(ControlError) -> Snapshot {
        let snapshot = try await requireSnapshot(name, of: record)
        let node = try await exportNode(of: record)
        let export = "\(record.name)@\(name)"
        var document = document(snapshot, of: record, await nodeSnapshots(of: record))
        document.images = try await imagesBySnapshot(of: record.id)[name] ?? []
        document.nbdURI = node?.nbdURI(export: export)
        if let machineID, machineID == node?.machineID {
            document.nbdUnixURI = node?.nbdUnixURI(export: export)
        }
        return document
    }

    /// The node that exports a volume's snapshots; nil for a volume with replicas, whose primary
    /// exports the volume alone.
    private func exportNode(of volume: VolumeRecord) async throws(ControlError) -> NodeRecord? {
        guard !volume.isReplicated else { return nil }
        return try await meta(await metadata.node(volume.primary))?.value
    }

    /// Takes one.
    public func createSnapshot(
        of volume: String,
        _ creation: SnapshotCreation,
        operation: String
    ) async throws(ControlError) -> Snapshot {
        let name = creation.name
        let request = "create snapshot \(volume)@\(name)"
        let end = try await change(volume, operation: operation, request: request) {
            [self] (record) throws(ControlError) in
            let existing = try await meta(await metadata.snapshot(name, of: record.id))
            guard existing == nil else {
                throw ControlError(
                    .alreadyExists,
                    "The volume '\(volume)' has a snapshot '\(name)' already.",
                    help: "Choose another name; 'volctl snapshot list \(volume)' shows them."
                )
            }
            guard !record.isReplicated else {
                return try await planReplicaSnapshot(name, of: record)
            }
            return .createSnapshot(name: name)
        }
        switch end {
        case .done(let record), .unnecessary(let record):
            return try await snapshotDocument(name, of: record)
        case .repeated:
            return try await snapshot(name, of: volume, machineID: nil)
        }
    }

    /// Deletes one.
    public func deleteSnapshot(
        _ name: String,
        of volume: String,
        operation: String
    ) async throws(ControlError) {
        let request = "delete snapshot \(volume)@\(name)"
        _ = try await change(volume, operation: operation, request: request) {
            [self] (record) throws(ControlError) in
            _ = try await requireSnapshot(name, of: record)
            if let image = try await imagesBySnapshot(of: record.id)[name]?.first {
                throw ControlError(
                    .inUse,
                    "The image '\(image)' is made of '\(volume)@\(name)'.",
                    help: "'volctl image delete \(image)' takes it out of the catalogue first."
                )
            }
            return .deleteSnapshot(name: name)
        }
    }

    /// Makes the volume read as one of them does.
    public func rollback(
        _ volume: String,
        to snapshot: String,
        operation: String
    ) async throws(ControlError) -> Volume {
        let request = "rollback \(volume)@\(snapshot)"
        let deadline = changeDeadline
        let end = try await change(volume, operation: operation, request: request) {
            [self] (record) throws(ControlError) in
            let found = try await requireSnapshot(snapshot, of: record)
            try await requireDetached(record, toBe: "rolled back")
            guard !record.isReplicated else {
                return try await planReplicaRollback(of: record, to: found)
            }
            let held = try await read(record.primary, until: deadline) {
                node throws(ControlError) in
                try await node.volume(record.id)
            }
            return .rollback(snapshot: snapshot, topLayer: held.topLayer)
        }
        return try await document(end, name: volume)
    }

    private func requireSnapshot(
        _ name: String,
        of volume: VolumeRecord
    ) async throws(ControlError) -> SnapshotRecord {
        let snapshot = try await meta(await metadata.snapshot(name, of: volume.id))
        guard let snapshot else { throw .snapshotNotFound(name, of: volume.name) }
        return snapshot
    }

    private func imagesBySnapshot(
        of volume: UInt64
    ) async throws(ControlError) -> [String: [String]] {
        let images = try await meta(await metadata.images(of: volume))
        var result: [String: [String]] = [:]
        for image in images {
            result[image.snapshot, default: []].append("\(image.name):\(image.version)")
        }
        return result
    }

    private func nodeSnapshots(of volume: VolumeRecord) async -> [NodeSnapshot] {
        do throws(ControlError) {
            return try await askedBriefly(volume.teller) { node throws(ControlError) in
                try await node.volume(volume.id)
            }.snapshots
        } catch {
            // The document leaves out what only the node knows.
            return []
        }
    }

    private func document(
        _ snapshot: SnapshotRecord,
        of volume: VolumeRecord,
        _ told: [NodeSnapshot]
    ) -> Snapshot {
        let known = told.first { other in
            guard let mark = snapshot.mark else { return other.name == snapshot.name }
            return other.replica?.id == mark.id
        }
        return Snapshot(
            volume: volume.name,
            name: snapshot.name,
            byteCount: snapshot.byteCount,
            ownByteCount: known?.ownByteCount,
            cloneCount: known?.cloneCount,
            createdAt: snapshot.createdAt
        )
    }

    // MARK: - Images

    /// The catalogue.
    public func images() async throws(ControlError) -> [Image] {
        try await meta(await metadata.images()).map(document)
    }

    /// One image.
    public func image(
        _ name: String,
        version: String
    ) async throws(ControlError) -> Image {
        document(try await requireImage(name, version: version).value)
    }

    /// Catalogues a snapshot.
    public func createImage(
        _ creation: ImageCreation,
        operation: String
    ) async throws(ControlError) -> Image {
        let request = try Self.fingerprint("create image", creation)
        let deadline = changeDeadline
        return try await locks.withLock(creation.volume) { [self] () throws(ControlError) in
            if try await repeated(operation, request: request, until: deadline) != nil {
                return try await image(creation.name, version: creation.version)
            }
            for _ in 0..<Self.conflictCountMax {
                let volume = try await settled(
                    try await requireVolume(creation.volume),
                    until: deadline
                )
                guard let volume else { throw .volumeNotFound(creation.volume) }
                let record = try await planImage(creation, of: volume.value)
                let event = EventRecord(
                    time: now,
                    kind: "image.created",
                    subject: "\(creation.name):\(creation.version)",
                    message: "made of '\(creation.volume)@\(creation.snapshot)'"
                )
                let isCreated = try await meta(
                    await metadata.createImage(
                        record,
                        of: volume,
                        operation: operation,
                        request: request,
                        event: event
                    )
                )
                if isCreated {
                    describeSoon(record.volumeID)
                    return document(record)
                }
            }
            throw ControlError(.busy, "The volume is being changed by somebody else.")
        }
    }

    private func planImage(
        _ creation: ImageCreation,
        of volume: VolumeRecord
    ) async throws(ControlError) -> ImageRecord {
        let snapshot = try await requireSnapshot(creation.snapshot, of: volume)
        let existing = try await meta(
            await metadata.image(creation.name, version: creation.version)
        )
        guard existing == nil else {
            throw ControlError(
                .alreadyExists,
                "There is an image '\(creation.name):\(creation.version)' already.",
                help: "Choose another version; 'volctl image list' shows those that are."
            )
        }
        return ImageRecord(
            name: creation.name,
            version: creation.version,
            volumeID: volume.id,
            volumeName: volume.name,
            snapshot: snapshot.name,
            byteCount: snapshot.byteCount,
            description: creation.description ?? "",
            sha256: creation.sha256?.lowercased(),
            createdAt: now
        )
    }

    /// Takes an image out of the catalogue; its snapshot stays.
    public func deleteImage(
        _ name: String,
        version: String,
        operation: String
    ) async throws(ControlError) {
        let request = "delete image \(name):\(version)"
        let deadline = changeDeadline
        for _ in 0..<Self.conflictCountMax {
            if try await repeated(operation, request: request, until: deadline) != nil { return }
            let image = try await requireImage(name, version: version)
            let event = EventRecord(
                time: now,
                kind: "image.deleted",
                subject: "\(name):\(version)",
                message: "taken out of the catalogue"
            )
            let isDeleted = try await meta(
                await metadata.deleteImage(
                    image,
                    operation: operation,
                    request: request,
                    event: event
                )
            )
            if isDeleted { return describeSoon(image.value.volumeID) }
        }
        throw ControlError(.busy, "The image is being changed by somebody else.")
    }

    /// Makes a volume that starts as the image.
    public func cloneImage(
        _ name: String,
        version: String,
        _ creation: CloneCreation,
        operation: String
    ) async throws(ControlError) -> Volume {
        let request = try Self.fingerprint("clone image \(name):\(version)", creation)
        return try await clone(creation, operation: operation, request: request) {
            [self] () throws(ControlError) in
            let image = try await requireImage(name, version: version).value
            let parent = try await meta(await metadata.volume(named: image.volumeName))?.value
            // Another volume may have the name by now.
            guard let parent, parent.id == image.volumeID else {
                throw ControlError(
                    .imageNotFound,
                    "The volume that the image '\(name):\(version)' was made of is gone.",
                    help: "'volctl image delete \(name):\(version)' takes it out of the catalogue."
                )
            }
            return (parent, image.snapshot)
        }
    }

    private func requireImage(
        _ name: String,
        version: String
    ) async throws(ControlError) -> Versioned<ImageRecord> {
        let image = try await meta(await metadata.image(name, version: version))
        guard let image else { throw .imageNotFound(name, version: version) }
        return image
    }

    private func document(_ image: ImageRecord) -> Image {
        Image(
            name: image.name,
            version: image.version,
            volume: image.volumeName,
            snapshot: image.snapshot,
            byteCount: image.byteCount,
            description: image.description,
            sha256: image.sha256,
            createdAt: image.createdAt
        )
    }
}
