/// How a persistent reservation limits the nexuses that do not hold it.
///
/// Spec: SPC-4, table 68.
@frozen
public enum ReservationType: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Others read.
    case writeExclusive = 0x1
    /// Others do neither read nor write.
    case exclusiveAccess = 0x3
    /// Who is registered writes, all read.
    case writeExclusiveRegistrantsOnly = 0x5
    /// Who is registered reads and writes.
    case exclusiveAccessRegistrantsOnly = 0x6
    /// As ``writeExclusiveRegistrantsOnly``, and all who are registered hold it.
    case writeExclusiveAllRegistrants = 0x7
    /// As ``exclusiveAccessRegistrantsOnly``, and all who are registered hold it.
    case exclusiveAccessAllRegistrants = 0x8

    /// Whether every registered nexus is a holder.
    public var isHeldByAll: Bool { rawValue >= 0x7 }
    /// Whether registered nexuses have the holder's access.
    public var isForRegistrants: Bool { rawValue >= 0x5 }
    /// Whether those without access may not even read.
    public var excludesReads: Bool {
        switch self {
        case .exclusiveAccess, .exclusiveAccessRegistrantsOnly, .exclusiveAccessAllRegistrants:
            true
        default: false
        }
    }
}

/// Registrations and the persistent reservation of a logical unit: a value to store and restore.
///
/// Invariants: keys are not 0; an identity is registered at most once; there is a holder exactly
/// when there is a type that is not ``ReservationType/isHeldByAll``, and the holder is registered;
/// a type that all hold has at least one registration.
///
/// Spec: SPC-4, section 5.13.
public struct ReservationState: Sendable, Hashable {
    /// A nexus and its key.
    public struct Registration: Sendable, Hashable {
        /// Who is registered.
        public var identity: NexusIdentity
        /// Under what key; not 0.
        public var key: UInt64
    }

    /// The most registrations; one more is refused with INSUFFICIENT REGISTRATION RESOURCES.
    ///
    /// Chosen above what clusters of hypervisors use (32 hosts with 2 paths each), so that a full
    /// status still fits one data-in region.
    public static var registrationCountMax: Int { 64 }

    /// Grows with each service action that changes registrations.
    ///
    /// Spec: PRGENERATION.
    public internal(set) var generation: UInt32 = 0
    /// Who is registered, in the order of registration.
    public internal(set) var registrations: [Registration] = []
    /// The reservation's type; nil without a reservation.
    public internal(set) var type: ReservationType?
    /// Who holds it; nil without a reservation and where all who are registered hold it.
    public internal(set) var holder: NexusIdentity?
    /// Whether it outlives a power loss of the whole cluster (it always outlives a node).
    public internal(set) var persistsThroughPowerLoss = false

    /// Nobody is registered.
    public init() {}

    /// What is left of it after a power loss of everything.
    public var afterPowerLoss: ReservationState {
        persistsThroughPowerLoss ? self : ReservationState()
    }

    /// The index of `identity`'s registration.
    func index(of identity: NexusIdentity) -> Int? {
        registrations.firstIndex { $0.identity == identity }
    }

    /// Whether `identity` holds the reservation.
    public func isHolder(_ identity: NexusIdentity) -> Bool {
        guard let type else { return false }
        return type.isHeldByAll ? index(of: identity) != nil : holder == identity
    }
}
