// Who talks to a logical unit: I_T nexuses, by index on the data path and by name for reservations.

/// A nexus's place in a logical unit's table; the front chooses it, and may use it again after the
/// nexus is gone.
@frozen
public struct NexusIndex: Hashable, Sendable, BitwiseCopyable {
    /// 0-based, below ``LogicalUnit/nexusCountMax``.
    public var rawValue: UInt8

    /// Creates an index from its number.
    @inlinable
    public init(_ rawValue: UInt8) { self.rawValue = rawValue }
}

/// A set of nexuses of one logical unit.
@frozen
public struct NexusSet: Hashable, Sendable, BitwiseCopyable {
    /// Bit `i` stands for nexus `i`.
    public var rawValue: UInt64

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt64 = 0) { self.rawValue = rawValue }

    /// Whether `nexus` is in it.
    @inlinable
    public func contains(_ nexus: NexusIndex) -> Bool {
        nexus.rawValue < 64 && rawValue & (1 << UInt64(nexus.rawValue)) != 0
    }

    /// Puts `nexus` into it.
    @inlinable
    public mutating func insert(_ nexus: NexusIndex) {
        precondition(nexus.rawValue < 64, "nexus index beyond the set")
        rawValue |= 1 << UInt64(nexus.rawValue)
    }

    /// Whether no nexus is in it.
    @inlinable
    public var isEmpty: Bool { rawValue == 0 }
}

/// An initiator port: what a persistent reservation is registered for.
///
/// Spec: SPC-4, section 7.6.4.6, iSCSI TransportID with the ISID (format 01b); RFC 7143, 10.1.
public struct InitiatorPort: Hashable, Sendable {
    /// The initiator's name in its normal form; ASCII, at most ``nameByteCountMax`` bytes.
    public var name: String
    /// The six bytes of the session's ISID, right-aligned.
    public var isid: UInt64

    /// The longest iSCSI name.
    ///
    /// Spec: RFC 7143, 4.2.7.1.
    public static var nameByteCountMax: Int { 223 }

    /// Creates a port's identity.
    ///
    /// - Precondition: the name has at most ``nameByteCountMax`` bytes; a login checks it.
    public init(name: String, isid: UInt64) {
        precondition(name.utf8.count <= Self.nameByteCountMax, "an iSCSI name has 223 bytes")
        self.name = name
        self.isid = isid & 0xFFFF_FFFF_FFFF
    }
}

/// An I_T nexus by its two ends.
public struct NexusIdentity: Hashable, Sendable {
    /// The initiator's end.
    public var initiator: InitiatorPort
    /// The target's end: the relative target port identifier, which for iSCSI is the portal
    /// group's tag; 1 or more.
    public var targetPort: UInt16

    /// Creates a nexus's identity.
    public init(initiator: InitiatorPort, targetPort: UInt16) {
        self.initiator = initiator
        self.targetPort = targetPort
    }
}

/// Why a logical unit was reset; decides which unit attention its initiators get.
///
/// Spec: SAM-5, section 6.3.
public enum ResetReason: UInt8, Sendable, Hashable, CaseIterable {
    /// LOGICAL UNIT RESET. Sense: BUS DEVICE RESET FUNCTION OCCURRED.
    case logicalUnit
    /// TARGET WARM RESET. Sense: SCSI BUS RESET OCCURRED.
    case targetWarm
    /// TARGET COLD RESET, and every start of the target. Sense: POWER ON OCCURRED.
    case targetCold
    /// The unit moved to another node: tasks and volatile state are gone. Sense: POWER ON, RESET,
    /// OR BUS DEVICE RESET OCCURRED.
    case failover
}
