// A connection between a primary and a replica on another node, or another reactor.
//
// Invariants
//   frames leave in the order in which they were given; each is whole in one batch, or waits
//   a payload that a batch or the queue refers to is held until it was sent or the link is gone
//   a bounded number of bytes waits here: a peer that does not read loses its link, which its
//   primary sees as a replica that lags, and not its memory
// Faults: the other end may say anything and fall silent at any point. What does not decode, and
// silence, end the link.

internal import BlockCore
internal import PeerWire
internal import Reactor
internal import Replication

/// One TCP connection of one primary to one replica; belongs to one reactor.
final class PeerLink {
    enum State: UInt8 {
        /// The hello was sent and not answered.
        case greeting
        /// The other side has not said who it is.
        case awaitingHello
        /// Machines talk.
        case open
        /// The last words are being sent.
        case draining
        /// The socket is being closed.
        case closing
        /// It is over.
        case closed
    }

    /// Whose link it is.
    enum Role {
        /// A primary's, to the replica in a slot.
        case primary(PrimaryHost, slot: Int)
        /// A replica's, to a primary.
        case replica(ReplicaHost, LinkID)
        /// Nobody's yet.
        case none
    }

    /// What waits for room in a batch.
    enum Waiting {
        case primary(PrimaryMessage)
        case replica(ReplicaMessage)
    }

    let index: Int32
    let generation: UInt32
    let socket: Socket
    var state: State
    var role: Role
    /// The encryption, unless the nodes of this cluster do without.
    var tls: PeerTLS?
    /// When it began.
    let beganAt: Instant
    /// What its frames are stamped with.
    var volume = VolumeID.none
    var instance = ReplicaInstance(0)

    // Input.
    private let arena: MemoryArena
    let chunk: ByteRegion
    var receiveStart = 0
    var receiveEnd = 0
    var isReceiving = false
    /// There is no memory for the payload of the next frame.
    var isBlocked = false
    /// When something came last.
    var heardAt: Instant

    // Output.
    var filling: PeerBatch
    var sending: PeerBatch
    var isSending = false
    /// It stands in the queue of those with something to send.
    var isMarked = false
    var backlog = GrowingQueue<Waiting>()
    var heldByteCount = 0

    /// The largest frame, and room to receive some more behind it.
    static let receiveByteCount = 384 << 10
    /// Without a word from the other side for so long a link is over.
    ///
    /// A frozen process and a half-open connection look like this. A primary asks four times in a
    /// grant.
    static let silenceNanosecondsMax: UInt64 = 1_000_000_000
    /// The same where nobody need say anything: at a replica, which must not be the first to give
    /// up, and while a primary gathers promises.
    ///
    /// Longer than a takeover waits for replicas that have not forgotten: each connection that is
    /// made anew counts as news.
    static let idleNanosecondsMax: UInt64 = 60_000_000_000
    /// Before a primary connects again.
    static let pauseNanosecondsMin: UInt64 = 10_000_000
    static let pauseNanosecondsMax: UInt64 = 1_000_000_000

    /// Creates a link; nil when the system grants no memory.
    init?(
        index: Int32,
        generation: UInt32,
        socket: Socket,
        state: State,
        role: Role,
        session: TLSSession?,
        now: Instant
    ) {
        let byteCount =
            Self.receiveByteCount + 2 * PeerBatch.byteCount
            + (session == nil ? 0 : PeerTLS.buffersByteCount)
        guard let arena = MemoryArena(sparseByteCountIfGranted: byteCount) else { return nil }
        self.arena = arena
        self.index = index
        self.generation = generation
        self.socket = socket
        self.state = state
        self.role = role
        chunk = arena.allocate(byteCount: Self.receiveByteCount)
        filling = PeerBatch(arena.allocate(byteCount: PeerBatch.byteCount))
        sending = PeerBatch(arena.allocate(byteCount: PeerBatch.byteCount))
        tls = session.map { session in
            PeerTLS(
                session: session,
                incoming: arena.allocate(byteCount: PeerTLS.bufferByteCount),
                outgoing: arena.allocate(byteCount: PeerTLS.bufferByteCount)
            )
        }
        heardAt = now
        beganAt = now
    }

    /// Whether this node has dialled: the other one was named.
    var isDialled: Bool {
        if case .primary = role { true } else { false }
    }

    /// The node that was dialled.
    var peer: String? {
        guard case .primary(let primary, let slot) = role else { return nil }
        return primary.slots[slot].placement.node
    }

    /// Received bytes that are not consumed.
    var input: ByteRegion { chunk.slice(receiveStart, receiveEnd - receiveStart) }

    /// Counts input as consumed.
    func consume(_ byteCount: Int) {
        receiveStart += byteCount
        precondition(receiveStart <= receiveEnd, "more consumed than received")
        if receiveStart == receiveEnd {
            receiveStart = 0
            receiveEnd = 0
        }
    }

    /// Makes room behind what was received, for a frame of any size.
    func makeRoom() {
        guard receiveStart > 0, chunk.byteCount - receiveEnd < chunk.byteCount / 2 else { return }
        let rest = input
        chunk.copy(from: rest)
        receiveStart = 0
        receiveEnd = rest.byteCount
    }
}

/// Frames gathered for one send: small ones copied one after the other, large payloads by reference.
struct PeerBatch {
    /// Bytes of frames in one batch.
    static let byteCount = 256 << 10
    /// Payloads up to this are copied, which costs less than a region of their own.
    static let copiedByteCountMax = 16 << 10
    /// Regions in one send at most.
    static let regionCountMax = 60

    private let memory: ByteRegion
    private var usedByteCount = 0
    private var closedByteCount = 0
    private(set) var regions: [ByteRegion] = []
    private(set) var payloads: [PayloadID] = []

    init(_ memory: ByteRegion) {
        self.memory = memory
        regions.reserveCapacity(Self.regionCountMax + 2)
        payloads.reserveCapacity(Self.regionCountMax)
    }

    /// Whether there is nothing to send.
    var isEmpty: Bool { usedByteCount == closedByteCount && regions.isEmpty }

    /// Where the next frame goes.
    var room: ByteRegion { memory.suffix(from: usedByteCount) }

    /// Whether a frame with so many bytes to copy fits.
    func hasRoom(byteCount: Int) -> Bool {
        memory.byteCount - usedByteCount >= byteCount && regions.count < Self.regionCountMax
    }

    /// Counts bytes written at the start of ``room``.
    mutating func didWrite(byteCount: Int) { usedByteCount += byteCount }

    /// Adds a payload's bytes by reference.
    mutating func append(_ payload: PayloadID, _ bytes: ByteRegion) {
        closeRegion()
        regions.append(bytes)
        payloads.append(payload)
    }

    /// Makes ``regions`` cover everything.
    mutating func closeRegion() {
        guard usedByteCount > closedByteCount else { return }
        regions.append(memory.slice(closedByteCount, usedByteCount - closedByteCount))
        closedByteCount = usedByteCount
    }

    /// Forgets what was sent.
    mutating func reset() {
        usedByteCount = 0
        closedByteCount = 0
        regions.removeAll(keepingCapacity: true)
        payloads.removeAll(keepingCapacity: true)
    }
}
