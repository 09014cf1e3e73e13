// The target's side of one iSCSI session, which has one connection: a pure machine.
//
// Bytes in, events out. No socket, no clock; after the login no allocation, but for text requests.
//
// Invariants:
//   bytes gathered           ≤ gatheringByteCount
//   bytes in one output      ≤ nextOutputByteCountMax
//   tasks                    ≤ taskCountMax + immediateTaskCountMax
//   MaxCmdSN - ExpCmdSN + 1  = tasks that are free; MaxCmdSN never falls
//   StatSN is given out in the order in which responses are written
//   data outside of what a task wants is never handed out
//
// Fault model: the initiator may send anything, in pieces of any size. A breach that leaves the
// stream in step costs it the task or gets a Reject; one that does not costs it the connection.
// Time limits are the driver's: the session knows no clock.
//
// Spec: RFC 7143. MaxConnections is 1 and ErrorRecoveryLevel is 0 (Docs/iscsi.md says why).

public import BlockCore
internal import ISCSIWire

/// The target's side of one iSCSI session.
///
/// One thread owns it. A driver makes it once per connection slot, calls ``reset(targets:)`` for each
/// connection and then ``next(input:)`` until it says `needMore` or `close`.
public final class ISCSISession {
    /// Memory that a session needs, in bytes.
    public static var memoryByteCount: Int {
        outputByteCountMax + gatheringByteCount + tailByteCount
    }
    /// The most bytes in one output: a login response of the size that every initiator takes.
    public static var outputByteCountMax: Int { 16 << 10 }
    /// The most bytes in one output after the login: a piece of text, or an echo, and its frame.
    public static var fullFeatureOutputByteCountMax: Int { echoByteCountMax + 64 }
    /// The most bytes of text, or of an echo, in one PDU of ours.
    public static var echoByteCountMax: Int { 4096 }
    /// What is gathered: text of a request, or a header with all that can follow it.
    static var gatheringByteCount: Int { 16 << 10 }
    static var tailByteCount: Int { 64 }
    /// Commands in work: above the deepest queue that initiators use (Linux has 32 by default, at
    /// most 128), below what one could hold up others with.
    public static var taskCountMax: Int { 128 }
    /// Immediate commands in work, beside the others.
    public static var immediateTaskCountMax: Int { 8 }
    /// The most data in a PDU to us.
    public static var segmentByteCountMax: UInt32 { 256 << 10 }
    /// The most data in a sequence: the largest transfer of a command.
    public static var burstByteCountMax: UInt32 { 1 << 20 }
    /// The most data that comes unasked.
    public static var firstBurstByteCountMax: UInt32 { 256 << 10 }
    /// Requests in one login; real initiators need five.
    public static var loginRequestCountMax: Int { 32 }
    /// Bytes of text in one login or text request, over all its PDUs.
    public static var textByteCountMax: Int { 32 << 10 }

    let output: ByteRegion
    let gathering: ByteRegion
    let tail: ByteRegion
    var tasks = FixedArray(
        repeating: ISCSITask(),
        count: ISCSISession.taskCountMax + ISCSISession.immediateTaskCountMax
    )

    var phase = Phase.closed
    var closeReason = ISCSICloseReason.disconnected
    /// What was agreed on.
    public internal(set) var parameters = ISCSIParameters()
    var login = LoginState()
    var text = TextState()

    var expectedCommand: UInt32 = 0
    var statusNumber: UInt32 = 0
    var busyCount = 0
    var immediateBusyCount = 0

    var gatheredByteCount = 0
    var header = ISCSIHeader(.nopOut)
    /// Where the data segment goes, and what of it has not come.
    var sink = Sink.skip
    var sinkOffset: UInt32 = 0
    var segmentByteCount = 0
    var restByteCount = 0
    var checksum: UInt32 = 0
    /// The task to look at before the next header.
    var pendingTask: Int32 = -1
    var outputByteCount = 0

    /// Creates a session that works in `memory`, ``memoryByteCount`` bytes that nobody else uses.
    public init(memory: ByteRegion) {
        precondition(memory.byteCount >= Self.memoryByteCount, "too little memory for a session")
        output = memory.slice(0, Self.outputByteCountMax)
        gathering = memory.slice(Self.outputByteCountMax, Self.gatheringByteCount)
        tail = memory.slice(Self.outputByteCountMax + Self.gatheringByteCount, Self.tailByteCount)
    }

    /// Begins a new connection; what was before is forgotten.
    ///
    /// The session holds `targets` until ``end()``.
    public func reset(targets: any ISCSITargetSource) {
        end()
        phase = .header
        closeReason = .disconnected
        parameters = ISCSIParameters()
        login.targets = targets
        // Tags count from the connection's beginning: its bytes alone decide what it says.
        for index in 0..<tasks.count { tasks[index].generation = 0 }
    }

    /// Gives back what the session holds after its connection has gone.
    public func end() {
        phase = .closed
        closeReason = .disconnected
        login = LoginState()
        text = TextState()
        for index in 0..<tasks.count where tasks[index].state != .free { free(Int32(index)) }
        gatheredByteCount = 0
        pendingTask = -1
        expectedCommand = 0
        statusNumber = 0
    }

    /// Takes input and says what to do next.
    ///
    /// - Parameter input: What has arrived and was not consumed; borrowed for the call.
    /// - Returns: The bytes consumed from the front of `input`, and one event. On `needMore` all
    ///   of `input` is consumed.
    public func next(input: ByteRegion) -> (consumedByteCount: Int, event: ISCSIEvent) {
        var stream = Stream(input)
        let event = step(&stream)
        return (stream.consumedByteCount, event)
    }

    // MARK: - Queries

    /// Whether the login is over.
    public var isFullFeature: Bool { login.isDone && phase != .closed }

    /// Who is logged in, or wants to be.
    public var identity: ISCSILogin { login.names }

    /// The most bytes that the next call can put out.
    public var nextOutputByteCountMax: Int {
        login.isDone ? Self.fullFeatureOutputByteCountMax : Self.outputByteCountMax
    }

    /// Tasks that are not free.
    public var taskCount: Int { busyCount + immediateBusyCount }

    /// A command.
    public func command(_ task: Int32) -> ISCSICommand {
        let found = tasks[Int(task)]
        precondition(found.state != .free, "no task")
        return ISCSICommand(
            blockHigh: found.blockHigh,
            blockLow: found.blockLow,
            lun: found.lun,
            taskTag: found.taskTag,
            dataOutByteCount: found.writes ? found.expectedByteCount : 0,
            dataInByteCount: found.writes
                ? found.expectedReadByteCount : found.reads ? found.expectedByteCount : 0
        )
    }

    /// What is wrong with a task's data.
    public func damage(of task: Int32) -> ISCSIDamage { tasks[Int(task)].damage }
}

extension ISCSISession {
    /// What a session waits for.
    enum Phase: UInt8 {
        case header
        case segment
        case tail
        case closing
        case closed
    }

    /// Where a data segment goes.
    enum Sink: BitwiseCopyable {
        case gather
        case task(Int32)
        case skip
    }

    /// The input of one call.
    struct Stream: BitwiseCopyable {
        private let input: ByteRegion
        private(set) var consumedByteCount = 0

        init(_ input: ByteRegion) { self.input = input }

        var rest: ByteRegion { input.suffix(from: consumedByteCount) }

        mutating func take(_ byteCount: Int) -> ByteRegion {
            let bytes = input.slice(consumedByteCount, byteCount)
            consumedByteCount += byteCount
            return bytes
        }
    }

    /// Ends the session.
    func close(_ reason: ISCSICloseReason) -> ISCSIEvent {
        phase = .closed
        closeReason = reason
        return .close(reason)
    }
}
