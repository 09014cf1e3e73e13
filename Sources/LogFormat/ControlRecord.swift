// Configuration changes as records of the log. Replaying them in order rebuilds the catalogue.

public import BlockCore

/// One configuration change.
public enum ControlRecord: Hashable, Sendable {
    /// A new, empty volume; its top layer is in the record.
    case createVolume(VolumeRecord)
    /// The volume's top layer becomes the snapshot `name`; `newTop` is put on it.
    case createSnapshot(volume: VolumeID, name: [UInt8], newTop: LayerID, sealSequence: UInt64)
    /// A new volume whose top layer stands on `parent`.
    case cloneSnapshot(VolumeRecord, parent: LayerID)
    /// The volume's top layer is dropped; `newTop` stands on `layer`.
    case rollback(volume: VolumeID, layer: LayerID, newTop: LayerID)
    /// The snapshot loses its name.
    case deleteSnapshot(layer: LayerID)
    /// The volume goes; its layers that nothing else needs are dropped.
    case deleteVolume(VolumeID)
    /// Name, size, durability, access, descriptor or epoch change.
    case updateVolume(VolumeRecord)
    /// One map page of a dropped layer is given back, with the blocks it names.
    case reclaimPage(layer: LayerID, level: UInt8, index: UInt64)
    /// One map page of `layer` is given back, its entries moved to `child` where it has none.
    case mergePage(layer: LayerID, child: LayerID, level: UInt8, index: UInt64)
    /// The layer has no pages left and goes; `child`, if any, takes its parent.
    case removeLayer(LayerID, child: LayerID)
    /// What the replica keeps durably about itself changes.
    case setReplica(volume: VolumeID, record: [UInt8])

    /// The record as bytes.
    public func encode() -> [UInt8] {
        var writer = ByteWriter()
        switch self {
        case .createVolume(let volume):
            writer.write(1 as UInt8)
            volume.encode(into: &writer)
        case .createSnapshot(let volume, let name, let newTop, let sealSequence):
            writer.write(2 as UInt8)
            writer.write(volume.rawValue)
            writer.write(counted: name)
            writer.write(newTop.rawValue)
            writer.write(sealSequence)
        case .cloneSnapshot(let volume, let parent):
            writer.write(3 as UInt8)
            volume.encode(into: &writer)
            writer.write(parent.rawValue)
        case .rollback(let volume, let layer, let newTop):
            writer.write(4 as UInt8)
            writer.write(volume.rawValue)
            writer.write(layer.rawValue)
            writer.write(newTop.rawValue)
        case .deleteSnapshot(let layer):
            writer.write(5 as UInt8)
            writer.write(layer.rawValue)
        case .deleteVolume(let volume):
            writer.write(6 as UInt8)
            writer.write(volume.rawValue)
        case .updateVolume(let volume):
            writer.write(7 as UInt8)
            volume.encode(into: &writer)
        case .reclaimPage(let layer, let level, let index):
            writer.write(8 as UInt8)
            writer.write(layer.rawValue)
            writer.write(level)
            writer.write(index)
        case .mergePage(let layer, let child, let level, let index):
            writer.write(9 as UInt8)
            writer.write(layer.rawValue)
            writer.write(child.rawValue)
            writer.write(level)
            writer.write(index)
        case .removeLayer(let layer, let child):
            writer.write(10 as UInt8)
            writer.write(layer.rawValue)
            writer.write(child.rawValue)
        case .setReplica(let volume, let record):
            writer.write(11 as UInt8)
            writer.write(volume.rawValue)
            writer.write(counted: record)
        }
        return writer.bytes
    }

    /// Decodes a record.
    ///
    /// - Parameter bytes: Exactly one record.
    /// - Returns: The record.
    /// - Throws: ``LogFormatError``.
    public static func decode(_ bytes: [UInt8]) throws(LogFormatError) -> ControlRecord {
        var reader = ByteReader(bytes)
        let record = try decode(&reader)
        guard reader.remainingByteCount == 0, record.isWellFormed else { throw .malformed }
        return record
    }

    private var isWellFormed: Bool {
        switch self {
        case .createSnapshot(_, _, let layer, _), .rollback(_, _, let layer):
            layer.rawValue <= Superblock.counterMax
        case .reclaimPage(_, let level, let index), .mergePage(_, _, let level, let index):
            MapGeometry.contains(level: level, index: index)
        case .createVolume, .cloneSnapshot, .deleteSnapshot, .deleteVolume, .updateVolume,
            .removeLayer, .setReplica:
            true
        }
    }

    private static func decode(_ reader: inout ByteReader) throws(LogFormatError) -> ControlRecord {
        switch try reader.read(UInt8.self) {
        case 1: .createVolume(try VolumeRecord(&reader))
        case 2:
            .createSnapshot(
                volume: VolumeID(try reader.read(UInt64.self)),
                name: try reader.readCounted(byteCountMax: VolumeRecord.nameByteCountMax),
                newTop: LayerID(try reader.read(UInt64.self)),
                sealSequence: try reader.read(UInt64.self)
            )
        case 3:
            .cloneSnapshot(
                try VolumeRecord(&reader),
                parent: LayerID(try reader.read(UInt64.self))
            )
        case 4:
            .rollback(
                volume: VolumeID(try reader.read(UInt64.self)),
                layer: LayerID(try reader.read(UInt64.self)),
                newTop: LayerID(try reader.read(UInt64.self))
            )
        case 5: .deleteSnapshot(layer: LayerID(try reader.read(UInt64.self)))
        case 6: .deleteVolume(VolumeID(try reader.read(UInt64.self)))
        case 7: .updateVolume(try VolumeRecord(&reader))
        case 8:
            .reclaimPage(
                layer: LayerID(try reader.read(UInt64.self)),
                level: try reader.read(UInt8.self),
                index: try reader.read(UInt64.self)
            )
        case 9:
            .mergePage(
                layer: LayerID(try reader.read(UInt64.self)),
                child: LayerID(try reader.read(UInt64.self)),
                level: try reader.read(UInt8.self),
                index: try reader.read(UInt64.self)
            )
        case 10:
            .removeLayer(
                LayerID(try reader.read(UInt64.self)),
                child: LayerID(try reader.read(UInt64.self))
            )
        case 11:
            .setReplica(
                volume: VolumeID(try reader.read(UInt64.self)),
                record: try reader.readCounted(byteCountMax: VolumeRecord.replicaByteCountMax)
            )
        default: throw .malformed
        }
    }
}
