// The server's side of one NBD connection: a pure machine.
//
// Bytes in, events out. No socket, no clock; after the handshake no allocation.
//
// Invariants:
//   bytes gathered           ≤ optionDataByteCountMax
//   bytes in one output      ≤ outputByteCountMax, in transmission transmissionOutputByteCountMax
//   options per connection   ≤ optionCountMax
//   every request is answered once: by the driver when it is accepted, otherwise here
//
// Fault model: the client may send anything, in pieces of any size. It is answered as the
// specification says where it says, refused with a reply where the stream stays in step, and
// dropped where it does not. Time limits are the driver's: the session knows no clock.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md; branch extension-ext-header.

public import BlockCore
public import NBDWire

/// The server's side of one NBD connection.
///
/// One thread owns it. A driver makes it once per connection slot, calls ``reset(exports:tlsMode:)``
/// for each connection and then ``next(input:)`` until it says `needMore`, `wait` or `close`.
public final class NBDSession {
    /// Memory that a session needs, in bytes; pages never touched cost nothing.
    public static var memoryByteCount: Int { outputByteCountMax + optionDataByteCountMax }
    /// The most bytes in one output: one LIST entry is 8216, a whole GO answer 8322.
    public static var outputByteCountMax: Int { 16 << 10 }
    /// The most bytes in one output after the handshake: an error reply with its text.
    public static var transmissionOutputByteCountMax: Int { 128 }
    /// The longest text of a refused request, in bytes.
    public static var refusalTextByteCountMax: Int { 80 }
    /// Option data that is looked at, in bytes; more is answered TOO_BIG.
    ///
    /// Holds an INFO with the longest name and more requests than there are kinds, and more
    /// context queries of the usual length than ``queryCountMax``.
    public static var optionDataByteCountMax: Int { 32 << 10 }
    /// Option data that is skipped and answered, in bytes.
    ///
    /// A client that announces more is dropped: no option needs it.
    public static var optionSkipByteCountMax: Int { 1 << 20 }
    /// Options per connection.
    ///
    /// Real clients send a dozen; this bounds what a hostile one costs.
    public static var optionCountMax: Int { 8192 }
    /// Queries in a request about metadata contexts; bounds the time of one option.
    public static var queryCountMax: Int { 64 }
    /// Metadata contexts selected at the same time.
    public static var contextCountMax: Int { 16 }

    let output: ByteRegion
    let gathering: ByteRegion
    let selected = FixedArray(
        repeating: NBDSelectedContext(id: 0, kind: .allocation, snapshotHandle: 0),
        count: NBDSession.contextCountMax
    )

    var phase: Phase = .closed
    var closeReason: NBDCloseReason = .disconnected
    var gatheredByteCount = 0
    var outputByteCount = 0
    let rules = NBDRules()
    var skipByteCount: UInt64 = 0
    var refused = RefusedRequest()
    var filterHeader = NBDRequestHeader(.blockStatus, cookie: 0)
    var filterByteCount = 0
    var handshake = Handshake()

    /// Creates a session that works in `memory`, ``memoryByteCount`` bytes that nobody else uses.
    ///
    /// The memory's arena must outlive the session.
    public init(memory: ByteRegion) {
        precondition(memory.byteCount >= Self.memoryByteCount, "too little memory for a session")
        output = memory.slice(0, Self.outputByteCountMax)
        gathering = memory.slice(Self.outputByteCountMax, Self.optionDataByteCountMax)
    }

    /// Begins a new connection; what was before is forgotten.
    ///
    /// The session holds `exports` until the next reset or ``end()``.
    public func reset(exports: any NBDExportSource, tlsMode: NBDTLSMode) {
        phase = .greeting
        gatheredByteCount = 0
        outputByteCount = 0
        skipByteCount = 0
        rules.reset()
        handshake = Handshake()
        handshake.exports = exports
        handshake.tlsMode = tlsMode
    }

    /// Gives back what the session holds after its connection has gone.
    public func end() {
        phase = .closed
        closeReason = .disconnected
        handshake = Handshake()
    }

    /// Takes input and says what to do next.
    ///
    /// - Parameter input: What has arrived and was not consumed; borrowed for the call.
    /// - Returns: The bytes consumed from the front of `input`, and one event. On `needMore` all
    ///   of `input` is consumed: the session keeps what belongs to an unfinished message.
    public func next(input: ByteRegion) -> (consumedByteCount: Int, event: NBDEvent) {
        var stream = Stream(input)
        let event = phase >= .request ? transmit(&stream) : shakeHands(&stream)
        return (stream.consumedByteCount, event)
    }

    // MARK: - Answers of the driver

    /// Says that the TLS handshake is done; what comes now came under TLS.
    ///
    /// - Precondition: the last event but `wait` was `startTLS`.
    public func onTLSEstablished() {
        precondition(phase == .tlsHandshake, "no TLS handshake was asked for")
        phase = .optionHeader
        handshake.isUnderTLS = true
    }

    /// Says that ``export`` is ready for requests.
    ///
    /// - Precondition: the last event but `wait` was `open`.
    public func onOpened() {
        precondition(phase == .opening, "no export was to be opened")
        phase = .opened
    }

    /// Says that ``export`` cannot be opened; the client may try another one.
    ///
    /// - Parameters:
    ///   - kind: An error, such as `unknown`, `policy` or `shutdown`.
    ///   - text: A reason for people.
    /// - Precondition: the last event but `wait` was `open`.
    public func onOpenRefused(_ kind: NBDOptionReplyKind, text: String) {
        precondition(phase == .opening, "no export was to be opened")
        precondition(kind.isError, "a refusal is an error")
        precondition(NBDText.isAllowed(text), "a text that may not be sent")
        guard handshake.option != .exportName else {
            _ = close(.exportNotAvailable)
            return
        }
        handshake.export = nil
        handshake.refusal = OptionRefusal(kind: kind, text: text)
        phase = .optionRefusal
    }

    /// Refuses everything from now on with the protocol's word for a shutdown; requests accepted
    /// before are the driver's to finish.
    public func beginShutdown() { rules.isShuttingDown = true }

    // MARK: - Queries

    /// Whether requests are flowing; before, a driver applies its handshake time limit.
    public var isTransmitting: Bool { phase >= .request && phase != .closed }

    /// The most bytes that the next call can put out.
    ///
    /// A driver calls ``next(input:)`` only while it has room for so many. The answer to GO is an
    /// output of the handshake, though the export is open when it comes.
    public var nextOutputByteCountMax: Int {
        phase >= .request ? Self.transmissionOutputByteCountMax : Self.outputByteCountMax
    }

    /// Whether the TLS handshake has been done.
    public var isUnderTLS: Bool { handshake.isUnderTLS }

    /// The form of replies, valid in transmission.
    public var mode: NBDReplyMode { rules.mode }

    /// The export to open, or opened.
    public var export: NBDExport? { handshake.export }

    /// The number of selected contexts, valid in transmission.
    public var contextCount: Int { rules.contextMask.nonzeroBitCount }

    /// The selected context that bit `index` of ``NBDRequest/contextMask`` stands for.
    public func context(at index: Int) -> NBDSelectedContext {
        precondition(index < contextCount, "not a selected context")
        return selected[index]
    }

    // MARK: - Parts shared by both stages

    /// Ends the session.
    func close(_ reason: NBDCloseReason) -> NBDEvent {
        phase = .closed
        closeReason = reason
        return .close(reason)
    }

    /// The next `byteCount` bytes as one view, or nil when they are not all here.
    ///
    /// In place when they arrive at once, otherwise gathered over several calls. Valid until the
    /// next gathering, or return to the driver.
    func gather(_ byteCount: Int, from stream: inout Stream) -> ByteRegion? {
        if gatheredByteCount == 0, stream.rest.byteCount >= byteCount {
            return stream.take(byteCount)
        }
        let part = stream.take(min(byteCount - gatheredByteCount, stream.rest.byteCount))
        gathering.copy(from: part, at: gatheredByteCount)
        gatheredByteCount += part.byteCount
        guard gatheredByteCount == byteCount else { return nil }
        gatheredByteCount = 0
        return gathering.slice(0, byteCount)
    }

    /// Skips input; whether all that was to be skipped is gone.
    func skip(_ stream: inout Stream) -> Bool {
        let byteCount = Int(min(skipByteCount, UInt64(stream.rest.byteCount)))
        _ = stream.take(byteCount)
        skipByteCount -= UInt64(byteCount)
        return skipByteCount == 0
    }

    /// The event that sends what has been encoded.
    func emit() -> NBDEvent {
        let bytes = output.slice(0, outputByteCount)
        outputByteCount = 0
        return .output(bytes)
    }
}

extension NBDSession {
    /// Where a session is: what it waits for, or will do next.
    enum Phase: UInt8, Comparable {
        // Handshake
        case greeting
        case clientFlags
        case optionHeader
        case optionData
        case optionRefusal
        case aborting
        case listing
        case listingContexts
        case startTLS
        case tlsHandshake
        case open
        case opening
        case opened
        // Transmission
        case request
        case filter
        case refusal
        // After everything
        case closed

        static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    /// A request to be answered with an error once its payload has been skipped.
    struct RefusedRequest: BitwiseCopyable {
        var refusal: NBDRefusal = .unknownCommand
        var cookie: UInt64 = 0
        var offset: UInt64 = 0
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
}
