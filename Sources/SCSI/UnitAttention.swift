/// Something that happened to a logical unit and that an initiator has to be told once.
///
/// A nexus has a set of them; the first in this order is reported first. Spec: SAM-5, 5.14.
@frozen
public enum UnitAttention: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// The nexus is new, or the unit moved here from another node.
    case powerOnOrReset
    /// TARGET COLD RESET.
    case powerOn
    /// TARGET WARM RESET.
    case busReset
    /// LOGICAL UNIT RESET.
    case deviceReset
    /// The nexus was lost and is back.
    case nexusLoss
    /// Another nexus cleared this one's commands.
    case commandsCleared
    /// The medium was taken out and put back.
    case mediumMayHaveChanged
    /// Another nexus released the reservation.
    case reservationsReleased
    /// Another nexus cleared the reservation and all registrations.
    case reservationsPreempted
    /// Another nexus removed this one's registration.
    case registrationsPreempted
    /// Another nexus changed mode parameters.
    case modeParametersChanged
    /// The volume's size changed.
    case capacityChanged
    /// What INQUIRY says changed.
    case inquiryDataChanged
    /// The target shows other units than before.
    case reportedLUNsChanged
    /// A path's asymmetric access state changed.
    case accessStateChanged
    /// The store is nearly full.
    case thinThresholdReached

    /// What it is called in sense data.
    public var code: SenseCode {
        switch self {
        case .powerOnOrReset: .powerOnOrReset
        case .powerOn: .powerOn
        case .busReset: .busReset
        case .deviceReset: .deviceReset
        case .nexusLoss: .nexusLoss
        case .commandsCleared: .commandsCleared
        case .mediumMayHaveChanged: .mediumMayHaveChanged
        case .reservationsReleased: .reservationsReleased
        case .reservationsPreempted: .reservationsPreempted
        case .registrationsPreempted: .registrationsPreempted
        case .modeParametersChanged: .modeParametersChanged
        case .capacityChanged: .capacityChanged
        case .inquiryDataChanged: .inquiryDataChanged
        case .reportedLUNsChanged: .reportedLUNsChanged
        case .accessStateChanged: .accessStateChanged
        case .thinThresholdReached: .thinThresholdReached
        }
    }
}

/// The unit attentions that wait for a nexus.
struct UnitAttentionSet: BitwiseCopyable, Sendable, Hashable {
    private var bits: UInt32 = 0

    init() {}

    var isEmpty: Bool { bits == 0 }

    mutating func insert(_ attention: UnitAttention) { bits |= 1 << UInt32(attention.rawValue) }

    func contains(_ attention: UnitAttention) -> Bool {
        bits & (1 << UInt32(attention.rawValue)) != 0
    }

    mutating func remove(_ attention: UnitAttention) { bits &= ~(1 << UInt32(attention.rawValue)) }

    /// Removes and returns the first.
    mutating func popFirst() -> UnitAttention? {
        guard bits != 0 else { return nil }
        let first = UnitAttention(rawValue: UInt8(bits.trailingZeroBitCount))
        bits &= bits - 1
        return first
    }
}
