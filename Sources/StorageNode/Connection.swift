// One client connection on its reactor: what it is doing and what it holds.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire
internal import Reactor

/// The memory that a connection has whatever happens, so that it can always say no.
struct ConnectionMemory {
    /// Received bytes before a connection has earned a larger chunk.
    static let receiveByteCount = 16 << 10
    /// Replies when there is no larger chunk: one output of the session, and some headers.
    static let transmitByteCount = 32 << 10
    /// A request or a part of one when the pool has nothing for it: the least part, and the block
    /// that the stores add.
    static let requestByteCount = NodeLimits.partByteCountMin + BlockGeometry.blockByteCount
    /// All of it; pages never touched cost nothing.
    static let byteCount =
        receiveByteCount + transmitByteCount + requestByteCount + NBDSession.memoryByteCount

    let receive: ByteRegion
    let transmit: ByteRegion
    let request: ByteRegion
    let session: ByteRegion

    init(_ region: ByteRegion) {
        receive = region.slice(0, Self.receiveByteCount)
        transmit = region.slice(Self.receiveByteCount, Self.transmitByteCount)
        let requestOffset = Self.receiveByteCount + Self.transmitByteCount
        request = region.slice(requestOffset, Self.requestByteCount)
        session = region.suffix(from: requestOffset + Self.requestByteCount)
    }
}

/// A client connection, made once per place in the table and used again.
///
/// One thread owns it.
final class Connection {
    enum State: UInt8 {
        /// The place is free.
        case free
        /// Options are negotiated.
        case handshake
        /// The export is being opened on the reactor of its store.
        case opening
        /// Requests flow.
        case open
        /// No more input; what is in work is finished, answered and sent, then it closes.
        case draining
        /// The socket is being closed.
        case closing
        /// The socket is closed; requests still in work at a store hold the place.
        case closed
    }

    let index: Int32
    let session: NBDSession
    let memory: ConnectionMemory

    var state = State.free
    var generation: UInt32 = 0
    var socket = Socket(descriptor: -1)
    var tls: TLSConnection?
    /// It is between STARTTLS and the end of the TLS handshake.
    var isStartingTLS = false
    /// The export, from `opening` on.
    var export: ExportKey?
    var isReadOnlyExport = true
    var handle = VolumeHandle(0)
    /// The store's host when it lives on this reactor.
    var host: StoreHost?
    /// The reactor of the store.
    var storeWorker: Int32 = -1
    /// Another reactor was asked to open the export and has not answered: the place is kept, so
    /// that no connection has more than one such question under way.
    var isAttaching = false
    /// The export was opened on its store's reactor and must be closed there.
    var isAttached = false

    // Input.
    /// Where received bytes go: its own small chunk, or a larger one of the pool.
    var receiveChunk: ByteRegion
    var receiveStart = 0
    var receiveEnd = 0
    var isReceiving = false
    /// The receive in flight goes straight into the buffer of `fillSlot`.
    var isReceivingPayload = false
    /// The buffer of that receive when its slot has gone before it ended.
    var orphanedBuffer = ByteRegion.empty
    /// The session or a payload wants bytes that have not come.
    var wantsInput = false
    /// The client has ended its side.
    var isInputEnded = false
    /// Input waits for room in the tables or for replies to go out.
    var isBlocked = false
    /// It stands in the queue of those who wait for slots or buffers.
    var isWaiting = false
    /// It stands in the queue of those with something to do.
    var isReady = false
    /// When it is dropped unless something happens; nil for never.
    var deadline: Instant?
    /// A valid request that has not found its place yet.
    var pending: NBDRequest?
    /// The slot whose payload is being received.
    var fillSlot = RequestSlot.none
    var filledByteCount = 0
    /// The split request whose parts are being handed out.
    var splitSlot = RequestSlot.none

    // Requests.
    var slotCount = 0
    /// Bytes of the pool that it holds.
    var heldByteCount = 0
    /// Its own request buffer is in use.
    private var isOwnRequestBusy = false

    // Output.
    var filling = ReplyBatch()
    var sending = ReplyBatch()
    var isSending = false
    /// When the send in flight began.
    var sendingSince: Instant?
    /// It stands in the queue of those with replies to send.
    var wantsFlush = false
    /// The split READ whose reply is on its way and must be whole.
    var streamingSlot = RequestSlot.none
    /// Replies that wait for room, in order.
    var deferredHead = RequestSlot.none
    var deferredTail = RequestSlot.none

    init(index: Int32, memory: ByteRegion) {
        self.index = index
        self.memory = ConnectionMemory(memory)
        session = NBDSession(memory: self.memory.session)
        receiveChunk = self.memory.receive
    }

    /// Whether requests and options are read from it.
    var takesInput: Bool { state == .handshake || state == .open }

    /// Whether replies may still be written.
    var takesOutput: Bool { state == .handshake || state == .open || state == .draining }

    /// Received bytes not yet consumed.
    var input: ByteRegion { receiveChunk.slice(receiveStart, receiveEnd - receiveStart) }

    /// Counts input as consumed.
    func consume(_ byteCount: Int) {
        receiveStart += byteCount
        precondition(receiveStart <= receiveEnd, "more consumed than received")
        if receiveStart == receiveEnd {
            receiveStart = 0
            receiveEnd = 0
        }
    }

    /// Takes its own request buffer, if that is free and large enough.
    func takeOwnRequestBuffer(byteCount: Int) -> ByteRegion? {
        guard !isOwnRequestBusy, byteCount <= memory.request.byteCount else { return nil }
        isOwnRequestBusy = true
        return memory.request.slice(0, byteCount)
    }

    /// Takes its own request buffer back; false for a buffer that is not it.
    func giveOwnRequestBuffer(_ buffer: ByteRegion) -> Bool {
        guard isOwnRequestBusy, memory.request.holds(buffer) else { return false }
        isOwnRequestBusy = false
        return true
    }

    /// Whether one of its batches uses its own small chunk.
    var isOwnChunkBusy: Bool { filling.usesOwnChunk || sending.usesOwnChunk }

    /// Makes the place ready for `socket`.
    func begin(socket: Socket, deadline: Instant) {
        precondition(state == .free, "the place is taken")
        state = .handshake
        self.socket = socket
        self.deadline = deadline
        export = nil
        isReadOnlyExport = true
        host = nil
        storeWorker = -1
        isAttached = false
        receiveStart = 0
        receiveEnd = 0
        isInputEnded = false
        isBlocked = false
        isStartingTLS = false
        wantsInput = false
        pending = nil
        fillSlot = RequestSlot.none
        filledByteCount = 0
        splitSlot = RequestSlot.none
        streamingSlot = RequestSlot.none
    }
}
