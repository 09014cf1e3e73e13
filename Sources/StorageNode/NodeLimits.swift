// Every limit of a node, with its number and its reason.

/// How much a node takes on, decided when it starts.
///
/// What clients share (slots, buffers) is handed out by one rule: nobody may hold more than a
/// fraction of what is still free (``mayTake(_:held:free:)``), so that one busy client gets much of
/// it. Those who never give back what they hold can still use all of it up, a thousand of them
/// together; so every connection also has slots and a buffer of its own with which it gets on.
public struct NodeLimits: Sendable, Hashable {
    /// Connections open at the same time, over all reactors.
    public var connectionCountMax: Int = 4096
    /// Requests (and parts of large ones) in work per reactor, beside ``ownSlotCount`` for each
    /// connection that lives there.
    public var slotCount: Int = 4096
    /// Device transfers in flight per reactor, divided among its stores; the rest waits in the
    /// stores' queues.
    ///
    /// More than devices take at a time (NVMe 1023, libaio here 1024); and with the default
    /// connections what the reactor's default table leaves: 16,384 - 3 x (4160 + 21 listeners).
    public var deviceOperationCount: Int = 3840
    /// Requests in work in one store at most; more wait in front of it.
    ///
    /// A slot of a store takes about 250 bytes and is touched at start: 4 MiB for each store. More
    /// in flight than this no device makes use of, and one reactor alone (12,416) never waits.
    public var storeRequestCountMax: Int = 16_384
    /// Requests of replicas in work in one store at most, beside those of clients.
    public var replicaRequestCountMax: Int = 1024
    /// Connections between primaries and replicas on one reactor: 256 volumes served with two
    /// replicas elsewhere, and 512 replicas of others' volumes.
    public var peerLinkCountMax: Int = 1024
    /// Connections that have not said which replica they are for, on one reactor: what anybody can
    /// begin who reaches the port.
    public var peerGreetingCountMax: Int = 64
    /// Seconds that they have for it from accept on, TLS included: five times as long as a primary
    /// waits for an answer.
    public var peerGreetingSeconds: Int = 5
    /// iSCSI connections on one reactor: 64 sessions of each of a few volumes, or four paths of 64
    /// hosts.
    public var iscsiConnectionCountMax: Int = 256
    /// Requests of iSCSI commands in work in the stores of one reactor: 32 of each session.
    ///
    /// More are answered BUSY.
    public var iscsiRequestCountMax: Int = 8192
    /// Messages that a reactor's mailbox holds; those that find it full wait with their sender.
    ///
    /// For all that can be under way at worst, 16 reactors would need 73,856 requests or their
    /// ends and 2 x 4160 messages about connections, of some 200 bytes, and all of it comes into
    /// use because a mailbox is a ring: 16 MiB for each. This is 0.8 MiB, and eight turns' worth
    /// for a reactor that handles 512 messages a turn.
    public var mailboxMessageCount: Int = 4096
    /// Requests in work per connection: above the deepest queue that clients use (fio and QEMU
    /// stop at 128), below what one client could hold up others with.
    public var requestsPerConnectionMax: Int = 256
    /// Seconds from accept to the end of the handshake.
    public var handshakeSeconds: Int = 10
    /// Seconds that the rest of a request or payload may take to arrive.
    public var payloadSeconds: Int = 60
    /// Seconds that a client may leave replies unread while it holds buffers.
    public var unreadSeconds: Int = 300
    /// How much of a store is used when operators are told that room is scarce, in percent: late
    /// enough to mean something, and time enough to delete or to add a node.
    public var scarceRoomPercent: Int = 85
    /// Seconds that an orderly shutdown may take before connections are cut.
    public var shutdownSeconds: Int = 5

    /// Creates the defaults.
    public init() {}

    /// The largest request that goes to a store in one piece, in bytes; larger ones are cut.
    @inlinable
    public static var partByteCountMax: Int { 1 << 20 }
    /// The least part that a request is cut into when memory is short, in bytes; every connection
    /// has a buffer of its own for one.
    @inlinable
    public static var partByteCountMin: Int { 16 << 10 }
    /// Slots that a connection gets whatever others hold: a large request and a part of it.
    @inlinable
    public static var ownSlotCount: Int { 2 }
    /// Connections beyond ``connectionCountMax`` that are on their way out: each has made room for
    /// a new one that is there already.
    @inlinable
    public static var leavingCountMax: Int { 64 }
    /// Places for connections, over all reactors; any reactor may come to have all of them.
    @inlinable
    public var placeCountMax: Int { connectionCountMax + NodeLimits.leavingCountMax }
    /// Operations of a reactor's sockets in flight, or ended and not taken: a receive, a send and a
    /// close of each connection; an accept, its connection and a close of each listener.
    @inlinable
    public func socketOperationCountMax(listenerCount: Int) -> Int {
        3 * (placeCountMax + listenerCount)
    }
    /// The most requests in work on one reactor, when all connections live there.
    ///
    /// 4096 + 2 x 4160 = 12,416. The table is so long on each reactor, but of it only what was
    /// used at some time has been touched.
    @inlinable
    public var slotCountOfReactor: Int { slotCount + NodeLimits.ownSlotCount * placeCountMax }
    /// The most requests in work over all reactors: a connection's own slots exist once, wherever
    /// it lives.
    ///
    /// 16 reactors: 16 x 4096 + 2 x 4160 = 73,856.
    @inlinable
    public func requestCountMax(reactorCount: Int) -> Int {
        reactorCount * slotCount + NodeLimits.ownSlotCount * placeCountMax
    }
    /// Parts of one request in work at the same time: keeps a disk busy, bounds the memory.
    @inlinable
    public static var partsPerRequestMax: Int { 4 }
    /// What a unix socket takes of replies before it is full, in bytes; the kernel counts its own
    /// book-keeping too and allows twice that.
    ///
    /// The system's 208 KiB have a reply of 1 MiB wait for its reader five times. Measured: 1 MiB
    /// reads go from 1,500, 1,700, 1,330, 1,320 to 1,720, 1,780, 1,540, 1,450 a second, for a
    /// sixth less CPU; four times as much gains nothing more.
    @inlinable
    public static var localSocketByteCount: Int32 { 512 << 10 }
    /// Seconds beyond ``shutdownSeconds`` that stores have to answer what is still in work.
    @inlinable
    public static var storeGraceSeconds: Int { 5 }
    /// The most reply data that is copied beside its header, in bytes.
    ///
    /// Many small replies then make one segment; larger data is sent from its own buffer. Measured:
    /// a copy of 16 KiB in cache costs 0.15 µs, less than the bookkeeping and the page pinning of a
    /// segment of its own.
    ///
    /// At least ``partByteCountMin``: what fits into a connection's own request buffer is never
    /// sent from there, because a batch gives the buffers it was handed back to the pool.
    @inlinable
    public static var copiedReplyByteCountMax: Int { 16 << 10 }
    /// The chunk in which replies are gathered, in bytes: a queue of 32 replies of 4 KiB.
    @inlinable
    public static var transmitByteCount: Int { 256 << 10 }
    /// The chunk that requests are received into, in bytes.
    @inlinable
    public static var receiveByteCount: Int { 128 << 10 }
    /// Of the pool, the part that the buffers of TLS connections may take: one half, so that as
    /// much is left for requests whoever comes.
    @inlinable
    static var tlsPoolDivisor: Int { 2 }
    /// Of the pool, the part for TLS connections that have not opened an export: whoever can
    /// connect gets that far, so those who have proved themselves must keep room.
    ///
    /// A quarter: 512 handshakes at a time with 128 MiB on one reactor.
    @inlinable
    static var tlsHandshakePoolDivisor: Int { 4 }
    /// Chunks of a read reply at most, so that scattered holes do not explode a reply.
    @inlinable
    public static var replyChunkCountMax: Int { 32 }

    /// Whether one that holds `held` may take `wanted` more while `free` are free.
    ///
    /// The dynamic threshold of shared-memory switches: a holder stays below a quarter of what
    /// is free, which with n greedy holders leaves 4 / (4 + n) of the whole free.
    ///
    /// Source: Choudhury, Hahne, "Dynamic queue length thresholds for shared-memory packet
    /// switches" (1998), with alpha = 1/4.
    @inlinable
    static func mayTake(_ wanted: Int, held: Int, free: Int) -> Bool {
        wanted <= free && held + wanted <= (free - wanted) / 4 + 1
    }
}
