// A logical unit: a volume as SCSI block commands see it, without any I/O.
//
// Commands in, plans out: each command is answered at once, or turned into a block operation that
// the caller carries out, or into a list of parameters to collect first. The unit has no thread, no
// clock and no randomness; one owner calls it. Planning READ, WRITE and SYNCHRONIZE CACHE allocates
// nothing.
//
// Invariants:
//   - a block operation lies inside the volume and is allowed to its nexus by the reservation,
//     by write protection and by the medium's presence at the time of planning;
//   - every command block, whatever its bytes, gets exactly one plan;
//   - reservations change only in `reservationsStored(.stored)`, `init` and `restore`.
//
// Spec: SPC-4 (INCITS 513), SBC-3/SBC-4 (INCITS 514/506), SAM-5 (INCITS 515).
// Not verified here: the order of commands and task attributes, which are the transport's.

internal import BlockCore

/// Whether changed reservations could be stored.
@frozen
public enum StoreOutcome: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// They outlive this node now.
    case stored
    /// They were not stored: the initiator is told to try again.
    case failed
}

/// The answer to PERSISTENT RESERVE OUT, and what goes with it.
@frozen
public struct ReservationOutcome: Sendable, Hashable, BitwiseCopyable {
    /// The answer.
    public var reply: SCSIReply
    /// Nexuses whose commands are to be aborted before the answer (PREEMPT AND ABORT).
    public var aborted: NexusSet
}

/// A volume as a logical unit; see the head of the file.
public final class LogicalUnit {
    /// The most nexuses at a time.
    ///
    /// Chosen so that a set of them is one word; an initiator beyond it is refused at login.
    public static var nexusCountMax: Int { 64 }
    /// Bytes of the region for data-in that every call can fill.
    ///
    /// The largest is PERSISTENT RESERVE IN's full status: 64 registrations of at most 272 bytes.
    public static var dataInByteCountMax: Int { 20 << 10 }
    /// The most bytes that ``SCSIPlan/Step/collect(byteCount:)`` asks for.
    ///
    /// The largest is EXTENDED COPY's; UNMAP with 256 ranges and WRITE SAME need 4104.
    public static var parameterByteCountMax: Int { 8 << 10 }

    /// What it is.
    public internal(set) var description: LogicalUnitDescription
    /// The LUNs of the target, for REPORT LUNS, as the eight bytes of each, big-endian.
    public var lunInventory: [UInt64] = [0]
    /// Other volumes that EXTENDED COPY may name; itself it always knows.
    public var copyPeers: [LogicalUnitDescription] = []
    /// Reservations as they are in force.
    public internal(set) var reservations: ReservationState
    /// Reservations as they will be in force once stored; nil when nothing waits.
    public internal(set) var pendingReservations: ReservationState?

    var geometry: Geometry
    var commands: CommandTable
    var nexuses: FixedArray<NexusState>
    var identities: [NexusIdentity?]
    var pendingChange: PendingChange?
    var modes = ModeParameters()
    var isMediumPresent = true
    /// Who holds the reservation of RESERVE (6) or (10).
    var legacyHolder: NexusIndex?
    var copies = CopyRecords()

    /// Creates a unit for `description`, with the reservations that were stored for it last.
    public init(
        _ description: LogicalUnitDescription,
        reservations: ReservationState = ReservationState()
    ) {
        self.description = description
        self.reservations = reservations
        geometry = Geometry(description)
        commands = CommandTable(description)
        nexuses = FixedArray(repeating: NexusState(), count: Self.nexusCountMax)
        identities = Array(repeating: nil, count: Self.nexusCountMax)
    }
}
