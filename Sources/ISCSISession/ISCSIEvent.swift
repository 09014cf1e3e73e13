public import BlockCore
public import ISCSIWire

/// A request about tasks.
@frozen
public struct ISCSIManagement: Sendable, Hashable, BitwiseCopyable {
    /// What is asked.
    public var function: ISCSITaskFunction
    /// The unit.
    public var lun: UInt64
    /// For ABORT TASK: which.
    public var referencedTag: UInt32
    /// The request's own tag, for the answer.
    public var taskTag: UInt32
}

/// Why a session ended.
@frozen
public enum ISCSICloseReason: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// The driver ended it.
    case disconnected
    /// The initiator logged out, or its login was refused; both were told.
    case orderly
    /// The connection is somebody else's; nothing has been said on it.
    case handedOver
    /// The login was no login.
    case badLogin
    /// A header whose digest is wrong: nobody knows what follows.
    case headerDigest
    /// More bytes than were ever agreed on.
    case tooLarge
    /// A hole in the command numbers.
    case commandNumber

    /// Whether what was said last is still to be sent.
    @inlinable public var isOrderly: Bool { self == .orderly }
}

/// What a driver has to do next.
@frozen
public enum ISCSIEvent: BitwiseCopyable {
    /// More bytes have to come; all of the input was consumed.
    case needMore
    /// Send these bytes; valid until the next call.
    case output(ByteRegion)
    /// A new command: look at it with ``ISCSISession/command(_:)``, and say with
    /// ``ISCSISession/accept(_:wantedByteCount:)`` how much of its data is wanted.
    case command(Int32)
    /// Data of a task: `bytes` at `offset` of what was wanted; valid until the next call.
    case data(task: Int32, offset: UInt32, bytes: ByteRegion)
    /// All data of a task has come that is going to come: carry it out.
    case ready(Int32)
    /// Do something about tasks, and answer.
    case management(ISCSIManagement)
    /// The login is over; the session is in full feature phase.
    case loggedIn
    /// The session has ended.
    case close(ISCSICloseReason)
}

/// What is wrong with a task's data.
@frozen
public enum ISCSIDamage: UInt8, Sendable, Hashable, BitwiseCopyable {
    /// Nothing.
    case none
    /// A data digest is wrong.
    case digest
    /// Data came that was not agreed on.
    case unexpectedData
    /// Data that was agreed on did not come, or not in order.
    case missingData
}

/// A command as the driver sees it.
@frozen
public struct ISCSICommand: Sendable, Hashable, BitwiseCopyable {
    /// Bytes 0 to 7 of the command block, big-endian.
    public var blockHigh: UInt64
    /// Bytes 8 to 15.
    public var blockLow: UInt64
    /// The unit.
    public var lun: UInt64
    /// The initiator's tag.
    public var taskTag: UInt32
    /// Bytes that the initiator sends.
    public var dataOutByteCount: UInt32
    /// Bytes that it has room for.
    public var dataInByteCount: UInt32
}

/// A task: from its command to its response.
struct ISCSITask: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// The driver has not said how much data it wants.
        case fresh
        /// Data is to come.
        case receiving
        /// The driver's, until it is finished.
        case ready
    }

    var state = State.free
    var isImmediate = false
    var reads = false
    var writes = false
    /// Unsolicited data is still to come.
    var isUnsolicited = false
    var damage = ISCSIDamage.none
    /// Grows with every use and every request for data, so that late data is told from what is due.
    var generation: UInt32 = 0
    var taskTag: UInt32 = 0
    var lun: UInt64 = 0
    var blockHigh: UInt64 = 0
    var blockLow: UInt64 = 0
    var expectedByteCount: UInt32 = 0
    /// Of a bidirectional command, the bytes that it has room for.
    var expectedReadByteCount: UInt32 = 0

    /// Bytes that the driver wants, from the start.
    var wantedByteCount: UInt32 = 0
    /// Bytes that have come, from the start; more than wanted when nobody wants them.
    var receivedByteCount: UInt32 = 0
    /// Where the data that was asked for last ends.
    var solicitedEnd: UInt32 = 0
    /// The DataSN that is due.
    var dataNumber: UInt32 = 0
    /// R2Ts, or Data-Ins, sent.
    var sentCount: UInt32 = 0
    /// Bytes of the present sequence of Data-In.
    var burstByteCount: UInt32 = 0
}
