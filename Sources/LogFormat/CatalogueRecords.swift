// Volumes and layers as the log keeps them.

public import BlockCore

/// A volume, apart from its data.
public struct VolumeRecord: Hashable, Sendable {
    /// Its identity.
    public var id: VolumeID
    /// Its export name, UTF-8.
    public var name: [UInt8]
    /// Its size in bytes.
    public var byteCount: UInt64
    /// 512 or 4096.
    public var logicalBlockByteCount: UInt32
    /// `Durability` as a number.
    public var durability: UInt8
    /// `VolumeAccess` as a number.
    public var access: UInt8
    /// The control plane's own bytes.
    public var descriptor: [UInt8]
    /// The layer that takes writes.
    public var topLayer: LayerID
    /// The highest epoch promised.
    public var epoch: UInt64
    /// What a replica keeps durably about itself; empty for a volume that is none.
    public var replica: [UInt8]

    /// The longest name, in bytes.
    public static var nameByteCountMax: Int { 128 }
    /// The longest descriptor, in bytes.
    public static var descriptorByteCountMax: Int { 2048 }
    /// The longest replica record, in bytes.
    public static var replicaByteCountMax: Int { 1024 }
    /// What a record takes beside its name, descriptor and replica record, in bytes.
    public static var fixedByteCount: Int { 50 }
    /// What its name, descriptor and replica record take, in bytes.
    public var textByteCount: Int { name.count + descriptor.count + replica.count }

    /// Creates a record.
    public init(
        id: VolumeID,
        name: [UInt8],
        byteCount: UInt64,
        logicalBlockByteCount: UInt32,
        durability: UInt8,
        access: UInt8,
        descriptor: [UInt8],
        topLayer: LayerID,
        epoch: UInt64,
        replica: [UInt8] = []
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.logicalBlockByteCount = logicalBlockByteCount
        self.durability = durability
        self.access = access
        self.descriptor = descriptor
        self.topLayer = topLayer
        self.epoch = epoch
        self.replica = replica
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(id.rawValue)
        writer.write(counted: name)
        writer.write(byteCount)
        writer.write(logicalBlockByteCount)
        writer.write(durability)
        writer.write(access)
        writer.write(counted: descriptor)
        writer.write(topLayer.rawValue)
        writer.write(epoch)
        writer.write(counted: replica)
    }

    init(_ reader: inout ByteReader) throws(LogFormatError) {
        id = VolumeID(try reader.read(UInt64.self))
        name = try reader.readCounted(byteCountMax: VolumeRecord.nameByteCountMax)
        byteCount = try reader.read(UInt64.self)
        logicalBlockByteCount = try reader.read(UInt32.self)
        durability = try reader.read(UInt8.self)
        access = try reader.read(UInt8.self)
        descriptor = try reader.readCounted(byteCountMax: VolumeRecord.descriptorByteCountMax)
        topLayer = LayerID(try reader.read(UInt64.self))
        epoch = try reader.read(UInt64.self)
        replica = try reader.readCounted(byteCountMax: VolumeRecord.replicaByteCountMax)
        guard byteCount <= BlockGeometry.volumeByteCountMax, byteCount % 4096 == 0,
            logicalBlockByteCount == 512 || logicalBlockByteCount == 4096, durability <= 1,
            access <= 2, topLayer.rawValue <= Superblock.counterMax
        else { throw .malformed }
    }
}

/// What a layer is for.
public enum LayerRole: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// It takes a volume's writes.
    case top
    /// Sealed, with a name.
    case snapshot
    /// Sealed, without a name: children still need it, or it is being merged into its only one.
    case unnamed
    /// Nothing needs it: its blocks are being given back.
    case dropped
}

/// A layer, apart from its map.
public struct LayerRecord: Hashable, Sendable {
    /// Its identity.
    public var id: LayerID
    /// The layer below, or none.
    public var parent: LayerID
    /// The volume it was made for.
    public var volume: VolumeID
    /// What it is for.
    public var role: LayerRole
    /// A snapshot's name, UTF-8.
    public var name: [UInt8]
    /// The volume's size when it was sealed.
    public var byteCount: UInt64
    /// The level of its root page; level 0 maps 1 MiB, each further level 256 times more.
    public var rootLevel: UInt8
    /// The root page on the device; absent for an empty layer.
    public var root: MapEntry
    /// Blocks of data it holds itself.
    public var ownBlockCount: UInt64
    /// The write sequence when it was sealed: its place in time.
    public var sealSequence: UInt64
    /// The number of the last streamed record of its volume when it was the top layer; 0 for none.
    public var streamPosition: UInt64

    /// What a record takes beside its name, in bytes.
    public static var fixedByteCount: Int { 78 }

    /// Creates a record.
    public init(
        id: LayerID,
        parent: LayerID,
        volume: VolumeID,
        role: LayerRole,
        name: [UInt8],
        byteCount: UInt64,
        rootLevel: UInt8,
        root: MapEntry,
        ownBlockCount: UInt64,
        sealSequence: UInt64,
        streamPosition: UInt64 = 0
    ) {
        self.id = id
        self.parent = parent
        self.volume = volume
        self.role = role
        self.name = name
        self.byteCount = byteCount
        self.rootLevel = rootLevel
        self.root = root
        self.ownBlockCount = ownBlockCount
        self.sealSequence = sealSequence
        self.streamPosition = streamPosition
    }

    /// Hashes the identity, which no two layers share.
    public func hash(into hasher: inout Hasher) { hasher.combine(id) }

    func encode(into writer: inout ByteWriter) {
        writer.write(id.rawValue)
        writer.write(parent.rawValue)
        writer.write(volume.rawValue)
        writer.write(role.rawValue)
        writer.write(counted: name)
        writer.write(byteCount)
        writer.write(rootLevel)
        writer.write(root.word0)
        writer.write(root.word1)
        writer.write(ownBlockCount)
        writer.write(sealSequence)
        writer.write(streamPosition)
    }

    init(_ reader: inout ByteReader) throws(LogFormatError) {
        id = LayerID(try reader.read(UInt64.self))
        parent = LayerID(try reader.read(UInt64.self))
        volume = VolumeID(try reader.read(UInt64.self))
        guard let role = LayerRole(rawValue: try reader.read(UInt8.self)) else { throw .malformed }
        self.role = role
        name = try reader.readCounted(byteCountMax: VolumeRecord.nameByteCountMax)
        byteCount = try reader.read(UInt64.self)
        rootLevel = try reader.read(UInt8.self)
        root = MapEntry(
            word0: try reader.read(UInt64.self),
            word1: try reader.read(UInt64.self)
        )
        ownBlockCount = try reader.read(UInt64.self)
        sealSequence = try reader.read(UInt64.self)
        streamPosition = try reader.read(UInt64.self)
        guard rootLevel <= MapGeometry.levelMax, id.rawValue <= Superblock.counterMax,
            streamPosition >> RecordHeader.numberBitCount == 0
        else { throw .malformed }
    }
}

/// Which page maps which block.
public enum MapGeometry {
    /// The highest level a root page can have.
    @inlinable public static var levelMax: UInt8 { 4 }

    /// Whether a map can have such a page.
    public static func contains(level: UInt8, index: UInt64) -> Bool {
        guard level <= levelMax else { return false }
        let leafCount = BlockGeometry.volumeByteCountMax >> 20
        return index < max(1, leafCount >> (MapEntry.pageShift * UInt64(level)))
    }

    /// The level of the root page that covers `byteCount` bytes.
    public static func rootLevel(byteCount: UInt64) -> UInt8 {
        var level: UInt8 = 0
        var covered: UInt64 = 1 << 20
        while covered < byteCount, level < levelMax {
            covered <<= MapEntry.pageShift
            level += 1
        }
        return level
    }
}
