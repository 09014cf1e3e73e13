/// The answer to a command.
@frozen
public struct SCSIReply: Sendable, Hashable, BitwiseCopyable {
    /// Why, when ``status`` is ``SCSIStatus/checkCondition``.
    public var sense: SCSISense
    /// Bytes of data-in that the unit wrote to the region it was given; 0 for what a block
    /// operation read, whose count is in the operation.
    public var dataInByteCount: UInt32
    /// The status.
    public var status: SCSIStatus

    /// Creates a reply without sense.
    @inlinable
    public init(_ status: SCSIStatus, dataInByteCount: UInt32 = 0) {
        self.status = status
        self.dataInByteCount = dataInByteCount
        sense = .none
    }

    /// Creates a CHECK CONDITION.
    @inlinable
    public init(_ sense: SCSISense) {
        status = .checkCondition
        dataInByteCount = 0
        self.sense = sense
    }

    /// Creates a CHECK CONDITION of a class and a code.
    @inlinable
    public init(_ key: SenseKey, _ code: SenseCode) { self.init(SCSISense(key, code)) }

    /// GOOD, without data.
    @inlinable
    public static var good: Self { Self(.good) }
}

/// What is to be done about a command.
///
/// A front treats it like this: take ``step``; whatever data-out it does not want is received and
/// thrown away; the residual counts come from ``dataOutByteCount`` and ``dataInByteCount`` against
/// what the initiator expected, when the status is GOOD. For ``BlockOperation/Kind/blockStatus`` the
/// data-in count is the answer's, ``SCSIReply/dataInByteCount``.
@frozen
public struct SCSIPlan: Sendable, Hashable, BitwiseCopyable {
    /// The next step.
    @frozen
    public enum Step: Sendable, Hashable, BitwiseCopyable {
        /// Answer now.
        case reply(SCSIReply)
        /// Receive so many bytes of data-out, not 0, then ask
        /// ``LogicalUnit/plan(_:parameters:dataIn:)``.
        case collect(byteCount: UInt32)
        /// Carry out the operation, then ask ``LogicalUnit/complete(_:_:)`` for the answer.
        case perform(BlockOperation)
        /// Store ``LogicalUnit/pendingReservations`` where it outlives this node, then ask
        /// ``LogicalUnit/reservationsStored(_:)`` for the answer.
        case storeReservations
    }

    /// The next step.
    public var step: Step
    /// Bytes of data-out that the command block asks for, whatever the initiator expected.
    public var dataOutByteCount: UInt32
    /// Bytes of data-in that the command yields, whatever the initiator has room for.
    public var dataInByteCount: UInt32

    /// Creates a plan.
    @inlinable
    public init(_ step: Step, dataOutByteCount: UInt32 = 0, dataInByteCount: UInt32 = 0) {
        self.step = step
        self.dataOutByteCount = dataOutByteCount
        self.dataInByteCount = dataInByteCount
    }

    /// Answer now.
    @inlinable
    public static func reply(_ reply: SCSIReply) -> Self {
        Self(.reply(reply), dataInByteCount: reply.dataInByteCount)
    }

    /// Answer CHECK CONDITION now.
    @inlinable
    public static func fail(_ sense: SCSISense) -> Self { Self(.reply(SCSIReply(sense))) }

    /// Answer CHECK CONDITION now.
    @inlinable
    public static func fail(_ key: SenseKey, _ code: SenseCode) -> Self {
        Self(.reply(SCSIReply(key, code)))
    }
}
