/// What an acknowledged write promises; the caching mode page says it.
@frozen
public enum WriteCaching: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Acknowledged when durable: WCE is 0.
    case writethrough
    /// Acknowledged before it is durable: WCE is 1, SYNCHRONIZE CACHE and FUA make it durable.
    case writeback
}

/// Whether a path is good to use.
///
/// Spec: SPC-4, table 307, asymmetric access states.
@frozen
public enum AccessState: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// On the primary's node.
    case activeOptimized = 0x0
    /// Served, through another node.
    case activeNonOptimized = 0x1
    /// Could serve after a failover.
    case standby = 0x2
    /// Not now.
    case unavailable = 0x3
    /// Between two of the others.
    case transitioning = 0xF
}

/// A portal group as ALUA sees it: a target port group with one target port.
public struct TargetPortGroup: Sendable, Hashable {
    /// The target port group's number; 1 or more.
    public var group: UInt16
    /// The relative target port identifier; 1 or more.
    ///
    /// For iSCSI the portal group tag.
    public var targetPort: UInt16
    /// What it is good for.
    public var state: AccessState

    /// Creates a group.
    public init(group: UInt16, targetPort: UInt16, state: AccessState) {
        self.group = group
        self.targetPort = targetPort
        self.state = state
    }
}

/// The most that one command may ask for; advertised in the block limits page and enforced.
public struct TransferLimits: Sendable, Hashable {
    /// READ, WRITE and the like, in bytes.
    public var transferByteCountMax: UInt32
    /// A transfer size that suits the store, in bytes.
    public var transferByteCountOptimal: UInt32
    /// Transfers start best at a multiple of so many bytes.
    public var granularityByteCount: UInt32
    /// COMPARE AND WRITE, in bytes of one half; at most 255 blocks are used.
    public var compareByteCountMax: UInt32
    /// WRITE SAME, in bytes.
    public var writeSameByteCountMax: UInt64
    /// UNMAP: all ranges of a command, in bytes; more than the volume has is no limit.
    public var unmapByteCountMax: UInt64
    /// UNMAP: ranges in a command.
    public var unmapRangeCountMax: UInt16
    /// What UNMAP really frees is a multiple of so many bytes.
    public var unmapGranularityByteCount: UInt32
    /// WRITE ATOMIC, in bytes; 0 when the store cannot.
    public var atomicByteCountMax: UInt32
    /// A segment of EXTENDED COPY, in bytes; at most 65,535 blocks are used.
    public var copyByteCountMax: UInt32

    /// Limits that suit the log store: payloads of up to 8 MiB, blocks of 4 KiB.
    public init(
        transferByteCountMax: UInt32 = 8 << 20,
        transferByteCountOptimal: UInt32 = 1 << 20,
        granularityByteCount: UInt32 = 4096,
        compareByteCountMax: UInt32 = 128 << 10,
        writeSameByteCountMax: UInt64 = 1 << 30,
        unmapByteCountMax: UInt64 = .max,
        unmapRangeCountMax: UInt16 = 256,
        unmapGranularityByteCount: UInt32 = 4096,
        atomicByteCountMax: UInt32 = 0,
        copyByteCountMax: UInt32 = 16 << 20
    ) {
        self.transferByteCountMax = transferByteCountMax
        self.transferByteCountOptimal = transferByteCountOptimal
        self.granularityByteCount = granularityByteCount
        self.compareByteCountMax = compareByteCountMax
        self.writeSameByteCountMax = writeSameByteCountMax
        self.unmapByteCountMax = unmapByteCountMax
        self.unmapRangeCountMax = unmapRangeCountMax
        self.unmapGranularityByteCount = unmapGranularityByteCount
        self.atomicByteCountMax = atomicByteCountMax
        self.copyByteCountMax = copyByteCountMax
    }
}

/// A volume as a logical unit.
public struct LogicalUnitDescription: Sendable, Hashable {
    /// The caller's own number for the volume; the unit never looks at it.
    public var handle: UInt64
    /// The volume's size, a multiple of ``blockByteCount``, not 0.
    public var byteCount: UInt64
    /// Bytes in a logical block: 512 or 4096.
    public var blockByteCount: UInt32
    /// Log2 of the logical blocks in a physical block: 3 for 512-byte blocks on a 4 KiB store.
    public var physicalBlockExponent: UInt8
    /// The volume's identity, unique for ever; the designators and the serial number are made
    /// of it, so it is the same on all nodes and after every restart.
    public var identity: (high: UInt64, low: UInt64) {
        get { (identityHigh, identityLow) }
        set { (identityHigh, identityLow) = newValue }
    }
    var identityHigh: UInt64
    var identityLow: UInt64
    /// The volume's name, for people.
    public var name: String
    /// Whether changes are refused.
    public var isReadOnly: Bool
    /// Whether unwritten blocks cost nothing, and UNMAP and WRITE SAME with UNMAP give space back.
    public var isThin: Bool
    /// Whether the unit says that its medium can be taken out, as a tray that a START STOP UNIT
    /// opens for this unit alone.
    public var isRemovable: Bool
    /// What an acknowledged write promises.
    public var caching: WriteCaching
    /// The most that one command may ask for.
    public var limits: TransferLimits
    /// The iSCSI name of the target that shows the unit.
    public var targetName: String
    /// The target port groups of the target, on all nodes that show it; at least one.
    public var portGroups: [TargetPortGroup]

    /// Creates a description.
    public init(
        handle: UInt64,
        byteCount: UInt64,
        blockByteCount: UInt32,
        physicalBlockExponent: UInt8 = 0,
        identity: (high: UInt64, low: UInt64),
        name: String,
        isReadOnly: Bool = false,
        isThin: Bool = true,
        isRemovable: Bool = false,
        caching: WriteCaching = .writeback,
        limits: TransferLimits = TransferLimits(),
        targetName: String,
        portGroups: [TargetPortGroup] = [
            TargetPortGroup(group: 1, targetPort: 1, state: .activeOptimized)
        ]
    ) {
        self.handle = handle
        self.byteCount = byteCount
        self.blockByteCount = blockByteCount
        self.physicalBlockExponent = physicalBlockExponent
        identityHigh = identity.high
        identityLow = identity.low
        self.name = name
        self.isReadOnly = isReadOnly
        self.isThin = isThin
        self.isRemovable = isRemovable
        self.caching = caching
        self.limits = limits
        self.targetName = targetName
        self.portGroups = portGroups
    }
}
