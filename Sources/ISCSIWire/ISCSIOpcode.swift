// The numbers of the protocol, with the specification's names.

/// What a PDU is.
///
/// Spec: RFC 7143, 11.2.1.2.
@frozen
public enum ISCSIOpcode: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Spec: `NOP-Out`.
    case nopOut = 0x00
    /// Spec: `SCSI Command`.
    case command = 0x01
    /// Spec: `SCSI Task Management Function Request`.
    case taskManagement = 0x02
    /// Spec: `Login Request`.
    case login = 0x03
    /// Spec: `Text Request`.
    case text = 0x04
    /// Spec: `SCSI Data-Out`.
    case dataOut = 0x05
    /// Spec: `Logout Request`.
    case logout = 0x06
    /// Spec: `SNACK Request`.
    case snack = 0x10
    /// Spec: `NOP-In`.
    case nopIn = 0x20
    /// Spec: `SCSI Response`.
    case response = 0x21
    /// Spec: `SCSI Task Management Function Response`.
    case taskManagementResponse = 0x22
    /// Spec: `Login Response`.
    case loginResponse = 0x23
    /// Spec: `Text Response`.
    case textResponse = 0x24
    /// Spec: `SCSI Data-In`.
    case dataIn = 0x25
    /// Spec: `Logout Response`.
    case logoutResponse = 0x26
    /// Spec: `R2T`.
    case readyToTransfer = 0x31
    /// Spec: `Asynchronous Message`.
    case asyncMessage = 0x32
    /// Spec: `Reject`.
    case reject = 0x3F

    /// Whether initiators send it.
    @inlinable public var isRequest: Bool { rawValue < 0x20 }
}

/// Why a PDU was refused.
///
/// Spec: RFC 7143, 11.17.1.
@frozen
public enum ISCSIRejectReason: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `Data (payload) digest error`.
    case dataDigest = 0x02
    /// Spec: `SNACK Reject`.
    case snack = 0x03
    /// Spec: `Protocol Error`.
    case protocolError = 0x04
    /// Spec: `Command not supported`.
    case notSupported = 0x05
    /// Spec: `Immediate command reject`.
    case tooManyImmediate = 0x06
    /// Spec: `Task in progress`.
    case taskInProgress = 0x07
    /// Spec: `Invalid PDU field`.
    case invalidField = 0x09
    /// Spec: `Negotiation Reset`.
    case negotiationReset = 0x0B
}

/// How a login went: class in the upper byte, detail in the lower.
///
/// Spec: RFC 7143, 11.13.5.
@frozen
public enum ISCSILoginStatus: UInt16, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `Success`.
    case success = 0x0000
    /// Spec: `Target moved temporarily`.
    case movedTemporarily = 0x0101
    /// Spec: `Initiator error`: something is wrong with what it sent.
    case initiatorError = 0x0200
    /// Spec: `Authentication failure`.
    case authenticationFailure = 0x0201
    /// Spec: `Not found`: also what may not be seen.
    case notFound = 0x0203
    /// Spec: `Unsupported version`.
    case unsupportedVersion = 0x0205
    /// Spec: `Too many connections`.
    case tooManyConnections = 0x0206
    /// Spec: `Missing parameter`.
    case missingParameter = 0x0207
    /// Spec: `Session type not supported`.
    case sessionType = 0x0209
    /// Spec: `Session does not exist`.
    case noSession = 0x020A
    /// Spec: `Invalid during login`.
    case invalidDuringLogin = 0x020B
    /// Spec: `Target error`.
    case targetError = 0x0300
    /// Spec: `Service unavailable`.
    case serviceUnavailable = 0x0301
    /// Spec: `Out of resources`.
    case outOfResources = 0x0302
}

/// A stage of the login.
///
/// Spec: RFC 7143, 11.12.3.
@frozen
public enum ISCSIStage: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `SecurityNegotiation`.
    case security = 0
    /// Spec: `LoginOperationalNegotiation`.
    case operational = 1
    /// Spec: `FullFeaturePhase`.
    case fullFeature = 3
}

/// What is to become of tasks.
///
/// Spec: RFC 7143, 11.5.1.
@frozen
public enum ISCSITaskFunction: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `ABORT TASK`.
    case abortTask = 1
    /// Spec: `ABORT TASK SET`.
    case abortTaskSet = 2
    /// Spec: `CLEAR ACA`.
    case clearACA = 3
    /// Spec: `CLEAR TASK SET`.
    case clearTaskSet = 4
    /// Spec: `LOGICAL UNIT RESET`.
    case unitReset = 5
    /// Spec: `TARGET WARM RESET`.
    case targetWarmReset = 6
    /// Spec: `TARGET COLD RESET`.
    case targetColdReset = 7
    /// Spec: `TASK REASSIGN`.
    case taskReassign = 8
}

/// What became of them.
///
/// Spec: RFC 7143, 11.6.1.
@frozen
public enum ISCSITaskOutcome: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `Function complete`.
    case complete = 0
    /// Spec: `Task does not exist`.
    case noTask = 1
    /// Spec: `LUN does not exist`.
    case noUnit = 2
    /// Spec: `Task allegiance reassignment not supported`.
    case noReassignment = 4
    /// Spec: `Task management function not supported`.
    case notSupported = 5
    /// Spec: `Function rejected`.
    case rejected = 255
}

/// What an asynchronous message says.
///
/// Spec: RFC 7143, 11.9.1.
@frozen
public enum ISCSIAsyncEvent: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Spec: `Target requests Logout`.
    case logoutRequested = 1
    /// Spec: `Target will drop the connection`.
    case droppingConnection = 2
    /// Spec: `Target will drop all connections of the session`.
    case droppingSession = 3
}

/// Limits and constants of the protocol itself.
public enum ISCSILimits {
    /// Bytes of a basic header segment.
    @inlinable public static var headerByteCount: Int { 48 }
    /// Bytes of a digest.
    @inlinable public static var digestByteCount: Int { 4 }
    /// Bytes of the additional headers: their count is a byte, in words.
    @inlinable public static var additionalByteCountMax: Int { 255 * 4 }
    /// Data in a PDU until something else is declared.
    ///
    /// Spec: RFC 7143, 13.12, MaxRecvDataSegmentLength.
    @inlinable public static var segmentByteCountDefault: Int { 8192 }
    /// The longest name of a node.
    ///
    /// Spec: RFC 7143, 4.2.7.1.
    @inlinable public static var nameByteCountMax: Int { 223 }
    /// The longest key.
    ///
    /// Spec: RFC 7143, 6.1.
    @inlinable public static var keyByteCountMax: Int { 63 }
    /// A tag that names nothing.
    @inlinable public static var noTag: UInt32 { 0xFFFF_FFFF }
}
