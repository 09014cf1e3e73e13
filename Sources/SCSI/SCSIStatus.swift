/// The outcome of a command.
///
/// Spec: SAM-5, table 43.
@frozen
public enum SCSIStatus: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `GOOD`.
    case good = 0x00
    /// Spec: `CHECK CONDITION`; the sense says what.
    case checkCondition = 0x02
    /// Spec: `CONDITION MET`: PRE-FETCH found everything in the cache.
    case conditionMet = 0x04
    /// Spec: `BUSY`: try again later.
    case busy = 0x08
    /// Spec: `RESERVATION CONFLICT`.
    case reservationConflict = 0x18
    /// Spec: `TASK SET FULL`.
    case taskSetFull = 0x28
    /// Spec: `TASK ABORTED`.
    case taskAborted = 0x40
}

/// The class of a failure.
///
/// Spec: SPC-4, table 48.
@frozen
public enum SenseKey: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `NO SENSE`.
    case noSense = 0x0
    /// Spec: `RECOVERED ERROR`.
    case recoveredError = 0x1
    /// Spec: `NOT READY`.
    case notReady = 0x2
    /// Spec: `MEDIUM ERROR`.
    case mediumError = 0x3
    /// Spec: `HARDWARE ERROR`.
    case hardwareError = 0x4
    /// Spec: `ILLEGAL REQUEST`.
    case illegalRequest = 0x5
    /// Spec: `UNIT ATTENTION`.
    case unitAttention = 0x6
    /// Spec: `DATA PROTECT`.
    case dataProtect = 0x7
    /// Spec: `COPY ABORTED`.
    case copyAborted = 0xA
    /// Spec: `ABORTED COMMAND`.
    case abortedCommand = 0xB
    /// Spec: `MISCOMPARE`.
    case miscompare = 0xE
}

/// What exactly is wrong: the additional sense code and its qualifier, as one number.
///
/// Spec: SPC-4, table 56. The names are the specification's.
@frozen
public struct SenseCode: Hashable, Sendable, BitwiseCopyable {
    /// Code in the upper byte, qualifier in the lower.
    public var rawValue: UInt16

    /// Creates a code from its number.
    @inlinable
    public init(_ rawValue: UInt16) { self.rawValue = rawValue }

    /// Spec: `NO ADDITIONAL SENSE INFORMATION`.
    public static var none: Self { Self(0x0000) }
    /// Spec: `OPERATION IN PROGRESS`.
    public static var operationInProgress: Self { Self(0x0016) }
    /// Spec: `LOGICAL UNIT IS IN PROCESS OF BECOMING READY`.
    public static var becomingReady: Self { Self(0x0401) }
    /// Spec: `LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION`.
    public static var accessStateTransition: Self { Self(0x040A) }
    /// Spec: `LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE`.
    public static var targetPortStandby: Self { Self(0x040B) }
    /// Spec: `LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE`.
    public static var targetPortUnavailable: Self { Self(0x040C) }
    /// Spec: `WRITE ERROR`.
    public static var writeError: Self { Self(0x0C00) }
    /// Spec: `WRITE ERROR - UNEXPECTED UNSOLICITED DATA`.
    public static var unexpectedUnsolicitedData: Self { Self(0x0C0C) }
    /// Spec: `WRITE ERROR - NOT ENOUGH UNSOLICITED DATA`.
    public static var notEnoughUnsolicitedData: Self { Self(0x0C0D) }
    /// Spec: `THIRD PARTY DEVICE FAILURE`.
    public static var thirdPartyDeviceFailure: Self { Self(0x0D01) }
    /// Spec: `COPY TARGET DEVICE NOT REACHABLE`.
    public static var copyTargetNotReachable: Self { Self(0x0D02) }
    /// Spec: `UNRECOVERED READ ERROR`.
    public static var unrecoveredReadError: Self { Self(0x1100) }
    /// Spec: `PARAMETER LIST LENGTH ERROR`.
    public static var parameterListLength: Self { Self(0x1A00) }
    /// Spec: `MISCOMPARE DURING VERIFY OPERATION`.
    public static var miscompare: Self { Self(0x1D00) }
    /// Spec: `INVALID COMMAND OPERATION CODE`.
    public static var invalidOperationCode: Self { Self(0x2000) }
    /// Spec: `LOGICAL BLOCK ADDRESS OUT OF RANGE`.
    public static var addressOutOfRange: Self { Self(0x2100) }
    /// Spec: `INVALID FIELD IN CDB`.
    public static var invalidFieldInCDB: Self { Self(0x2400) }
    /// Spec: `LOGICAL UNIT NOT SUPPORTED`.
    public static var unitNotSupported: Self { Self(0x2500) }
    /// Spec: `INVALID FIELD IN PARAMETER LIST`.
    public static var invalidFieldInParameters: Self { Self(0x2600) }
    /// Spec: `INVALID RELEASE OF PERSISTENT RESERVATION`.
    public static var invalidRelease: Self { Self(0x2604) }
    /// Spec: `TOO MANY TARGET DESCRIPTORS`.
    public static var tooManyTargetDescriptors: Self { Self(0x2606) }
    /// Spec: `UNSUPPORTED TARGET DESCRIPTOR TYPE CODE`.
    public static var unsupportedTargetDescriptor: Self { Self(0x2607) }
    /// Spec: `TOO MANY SEGMENT DESCRIPTORS`.
    public static var tooManySegmentDescriptors: Self { Self(0x2608) }
    /// Spec: `UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE`.
    public static var unsupportedSegmentDescriptor: Self { Self(0x2609) }
    /// Spec: `WRITE PROTECTED`.
    public static var writeProtected: Self { Self(0x2700) }
    /// Spec: `SPACE ALLOCATION FAILED WRITE PROTECT`.
    public static var spaceAllocationFailed: Self { Self(0x2707) }
    /// Spec: `NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED`.
    public static var mediumMayHaveChanged: Self { Self(0x2800) }
    /// Spec: `POWER ON, RESET, OR BUS DEVICE RESET OCCURRED`.
    public static var powerOnOrReset: Self { Self(0x2900) }
    /// Spec: `POWER ON OCCURRED`.
    public static var powerOn: Self { Self(0x2901) }
    /// Spec: `SCSI BUS RESET OCCURRED`.
    public static var busReset: Self { Self(0x2902) }
    /// Spec: `BUS DEVICE RESET FUNCTION OCCURRED`.
    public static var deviceReset: Self { Self(0x2903) }
    /// Spec: `I_T NEXUS LOSS OCCURRED`.
    public static var nexusLoss: Self { Self(0x2907) }
    /// Spec: `MODE PARAMETERS CHANGED`.
    public static var modeParametersChanged: Self { Self(0x2A01) }
    /// Spec: `RESERVATIONS PREEMPTED`.
    public static var reservationsPreempted: Self { Self(0x2A03) }
    /// Spec: `RESERVATIONS RELEASED`.
    public static var reservationsReleased: Self { Self(0x2A04) }
    /// Spec: `REGISTRATIONS PREEMPTED`.
    public static var registrationsPreempted: Self { Self(0x2A05) }
    /// Spec: `ASYMMETRIC ACCESS STATE CHANGED`.
    public static var accessStateChanged: Self { Self(0x2A06) }
    /// Spec: `CAPACITY DATA HAS CHANGED`.
    public static var capacityChanged: Self { Self(0x2A09) }
    /// Spec: `COMMANDS CLEARED BY ANOTHER INITIATOR`.
    public static var commandsCleared: Self { Self(0x2F00) }
    /// Spec: `SAVING PARAMETERS NOT SUPPORTED`.
    public static var savingNotSupported: Self { Self(0x3900) }
    /// Spec: `THIN PROVISIONING SOFT THRESHOLD REACHED`.
    public static var thinThresholdReached: Self { Self(0x3807) }
    /// Spec: `MEDIUM NOT PRESENT`.
    public static var mediumNotPresent: Self { Self(0x3A00) }
    /// Spec: `INQUIRY DATA HAS CHANGED`.
    public static var inquiryDataChanged: Self { Self(0x3F03) }
    /// Spec: `REPORTED LUNS DATA HAS CHANGED`.
    public static var reportedLUNsChanged: Self { Self(0x3F0E) }
    /// Spec: `INTERNAL TARGET FAILURE`.
    public static var internalFailure: Self { Self(0x4400) }
    /// Spec: `DATA PHASE CRC ERROR DETECTED`.
    public static var dataDigestError: Self { Self(0x4701) }
    /// Spec: `PROTOCOL SERVICE CRC ERROR`.
    public static var protocolDigestError: Self { Self(0x4705) }
    /// Spec: `INITIATOR DETECTED ERROR MESSAGE RECEIVED`.
    public static var initiatorDetectedError: Self { Self(0x4800) }
    /// Spec: `MEDIUM REMOVAL PREVENTED`.
    public static var removalPrevented: Self { Self(0x5302) }
    /// Spec: `INSUFFICIENT REGISTRATION RESOURCES`.
    public static var insufficientRegistrations: Self { Self(0x5504) }
}
