// A volume as its initiators share it.

internal import BlockCore
internal import LogStore
internal import Replication
internal import SCSI

/// A volume's logical unit, and who uses it.
///
/// It stays while the volume is exported: reservations outlive the sessions that made them.
final class ISCSIUnit {
    let key: ExportKey
    let logical: LogicalUnit
    /// The store's host, or nil for a replicated volume.
    let host: StoreHost?
    /// Connections by nexus.
    var connections: [ISCSIConnection?] = Array(repeating: nil, count: LogicalUnit.nexusCountMax)
    /// The open volume, while any connection has it open.
    var handle = VolumeHandle(0)
    var openCount = 0

    /// Operations under way that change the volume.
    var changeCount = 0
    /// An operation is under way that nothing else may change the volume beside: it reads, compares,
    /// and writes.
    var isExclusive = false
    /// Changes that wait for that, in order.
    var waiting = GrowingQueue<ISCSISlotReference>()

    init(key: ExportKey, description: LogicalUnitDescription, host: StoreHost?) {
        self.key = key
        self.host = host
        logical = LogicalUnit(description)
    }

    /// A free nexus; nil when all are taken.
    var freeNexus: NexusIndex? {
        connections.firstIndex { $0 == nil }.map { NexusIndex(UInt8($0)) }
    }
}

/// Names of targets: one for each volume.
enum ISCSITargetName {
    /// What the names of all targets begin with; what follows is the export's name.
    ///
    /// The authority is not a registered domain: names only have to be unique among the targets that
    /// an initiator sees.
    static let prefix = "iqn.2026-01.cairn:"

    static func name(of export: String) -> String { prefix + export }

    /// The export that a target shows; nil for other names.
    static func export(of target: String) -> String? {
        target.hasPrefix(prefix) ? String(target.dropFirst(prefix.count)) : nil
    }
}

extension LogicalUnitDescription {
    /// The largest transfer of a command: one request of a store.
    static var transferByteCountMax: UInt32 { UInt32(NodeLimits.partByteCountMax) }
    /// The most that WRITE SAME fills: it goes out in pieces, one after the other.
    ///
    /// Enough for initiators, which zero larger ranges command by command, and so little that an
    /// abort need not wait long.
    static var writeSameByteCountMax: UInt64 { 16 << 20 }

    /// The most that one UNMAP gives up: a replicated volume has a record for each MiB of it.
    static var unmapByteCountMax: UInt64 { 1 << 30 }

    /// An export as a logical unit.
    ///
    /// - Parameter store: The store that alone has it; nil for a replicated volume.
    init(_ entry: ExportEntry, store: StoreIdentity?, durability: Durability, isRemovable: Bool) {
        self.init(
            handle: entry.key.volume.rawValue,
            byteCount: entry.byteCount,
            blockByteCount: entry.logicalBlockByteCount,
            physicalBlockExponent: entry.logicalBlockByteCount == 512 ? 3 : 0,
            identity: (high: Self.origin(store), low: entry.key.volume.rawValue),
            name: entry.volumeName,
            isReadOnly: entry.isReadOnly,
            isRemovable: isRemovable,
            caching: durability == .writethrough ? .writethrough : .writeback,
            limits: TransferLimits(
                transferByteCountMax: Self.transferByteCountMax,
                writeSameByteCountMax: Self.writeSameByteCountMax,
                unmapByteCountMax: Self.unmapByteCountMax
            ),
            targetName: ISCSITargetName.name(of: entry.name)
        )
    }

    /// With the volume's id its identity, by which hosts find out that two paths lead to one disk.
    ///
    /// Ids of replicated volumes are random, and the same on every node. Those of a store count from the
    /// same number in each, so its own identity belongs to them.
    private static func origin(_ store: StoreIdentity?) -> UInt64 {
        store.map { $0.high ^ $0.low } ?? 0xCA19_0000_0000_0001
    }
}

extension ExportEntry {
    /// The volume's name, without the epoch that a fenced export's has.
    var volumeName: String {
        let suffix = ":\(key.epoch)"
        return name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : name
    }

    /// Whether it is a volume itself, not a snapshot: only these are targets.
    var isTarget: Bool { key.layer == .none }
}
