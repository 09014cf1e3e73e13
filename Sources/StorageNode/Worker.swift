// One reactor thread of a node: its stores, its connections, its memory, and the loop.
//
// Invariants
//   what one connection holds of slots and pool ≤ its share or its own (NodeLimits)
//   slots in use = those that are their connections' own + sharedSlotCount
//   operations of sockets ≤ 3 for each connection and listener; device transfers in flight
//   ≤ limits.deviceOperationCount; both together ≤ the reactor's operationCountMax
//   a buffer has one owner: the pool, a slot, a batch on its way, or another reactor's store
//   a connection's place is free only when its socket is closed and none of its requests is in
//   work; a completion that comes late finds another generation and is dropped
//   no store is called while its completions are being handled: their data may lie in its memory
// Faults: a client may send anything at any speed and vanish at any point; it loses its
// connection, nobody else anything. A store may fail; its volumes then answer errors.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import Reactor
internal import Replication
internal import StorageIO

/// What the reactors of a node share; everything in it that changes is an atomic.
final class NodeShared: Sendable {
    let configuration: NodeConfiguration
    let tls: TLSContext?
    let peerCredentials: PeerCredentials?
    let sink: NodeEventSink
    let connectionCount = SharedCount()
    /// This process, as replicas know primaries.
    let process = PrimaryID(UInt64.random(in: 1...UInt64.max))

    init(
        configuration: NodeConfiguration,
        tls: TLSContext?,
        peerCredentials: PeerCredentials?,
        sink: @escaping NodeEventSink
    ) {
        self.configuration = configuration
        self.tls = tls
        self.peerCredentials = peerCredentials
        self.sink = sink
    }
}

/// A reactor thread of a node.
///
/// `advance` reads a connection's input, `answer` writes its replies, `pump` moves what a store
/// wants and has done; the loop calls them until there is nothing to do.
final class Worker: @unchecked Sendable {
    // SAFETY (Sendable): set up by the thread that starts the node, then handed to its own
    // thread; others reach it through `mailbox` and `control` only.

    /// What a completion is about: the kinds of this worker's tokens.
    enum TokenKind {
        static let accept: UInt8 = 1
        static let receive: UInt8 = 2
        static let send: UInt8 = 3
        static let close: UInt8 = 4
        static let device: UInt8 = 5
        static let listenerClose: UInt8 = 6
        /// Of a store request: from a slot of this worker.
        static let localRequest: UInt8 = 7
        /// Of a store request: from another worker.
        static let remoteRequest: UInt8 = 8
        /// Of a store request: a replica's.
        static let replicaRequest: UInt8 = 9
        static let peerReceive: UInt8 = 10
        static let peerSend: UInt8 = 11
        static let peerClose: UInt8 = 12
        static let iscsiReceive: UInt8 = 13
        static let iscsiSend: UInt8 = 14
        static let iscsiClose: UInt8 = 15
        /// Of a store request: from a slot of an iSCSI connection here.
        static let iscsiRequest: UInt8 = 16
    }

    let index: Int32
    let shared: NodeShared
    let limits: NodeLimits
    let reactor: Reactor
    let mailbox: Mailbox<HopMessage>
    let control: ControlQueue
    let arena: MemoryArena
    let pool: BufferPool
    let slots: SlotTable
    /// Slots in use beyond their connections' own; at most `limits.slotCount`.
    var sharedSlotCount = 0
    let remotes: RemoteTable
    /// Replicated volumes: what it holds of them and serves.
    let replication: ReplicationState
    /// iSCSI; nil on a node without it.
    let iscsi: ISCSIFront?
    /// What holes are answered with where the protocol has no word for them.
    let zeroes: ByteRegion
    let directory = ExportDirectory()

    /// The mailboxes of all workers, set before the threads start.
    var peers: [Mailbox<HopMessage>] = []
    var peerWakers: [Waker] = []
    var peerControls: [ControlQueue] = []
    var needsWake: [Bool] = []
    /// Messages for each worker whose mailbox was full, in order.
    ///
    /// Bounded by the requests and connections of this worker: each has one message under way.
    var backlogs: [[HopMessage]]
    var hasBacklog = false
    /// How long messages wait before their mailbox is tried again.
    private static let backlogNanoseconds: UInt64 = 100_000
    /// The worker of each store.
    var storeWorkers: [Int32] = []

    var hosts: [StoreHost] = []
    var hostsByStore: [StoreHost?] = []
    /// Tells the node what a store exports, and what volumes it has.
    var publisher: (@Sendable (Int32, [ExportEntry], [VolumeSummary]) -> Void)?
    var listeners: [ListenerState] = []
    /// Where the next accepted connection goes.
    var nextWorker = 0

    var connections: [Connection] = []
    var freeConnections: [Int32] = []
    var connectionArenas: [MemoryArena] = []
    /// Connections under TLS, and of these the ones that have not opened an export.
    var tlsCount = 0
    var tlsHandshakeCount = 0
    let ready: FixedRing<Int32>
    let waiting: FixedRing<Int32>
    let flushing: FixedRing<Int32>
    /// Slots to submit again when no completion is being handled.
    let again: FixedRing<Int32>
    /// Slots or buffers came free since the waiting ones were last looked at.
    var hasFreed = false
    /// Waiting connections still to be tried since then.
    private var lapCount = 0
    /// Waiting connections tried per turn, so that a thousand of them do not hold up the rest.
    private static let resumedCountMax = 32

    var now: Instant
    var sweepAt: Instant
    var counters = NodeCounters()
    var refusedReportedCount: UInt64 = 0
    /// Clients are let in because every store is ready; before, they wait in the kernel.
    var isAccepting = false
    var isStopping = false
    var isFinished = false
    /// Called when the last connection is gone while stopping.
    var onDrained: (() -> Void)?
    /// Called when all stores are closed.
    var onStoresClosed: (() -> Void)?
    var stopDeadline: Instant?

    /// A part of the largest size, from where zeroes are sent.
    private static let zeroByteCount = NodeLimits.partByteCountMax

    init(index: Int32, shared: NodeShared) throws(ReactorError) {
        // Else connections' own request buffers would go to batches, and from there to the pool.
        precondition(
            NodeLimits.copiedReplyByteCountMax >= NodeLimits.partByteCountMin,
            "data of a connection's own request buffer must be copied"
        )
        let configuration = shared.configuration
        let workerCount = configuration.reactorCount
        self.index = index
        self.shared = shared
        limits = configuration.limits
        var options = configuration.reactor
        options.operationCountMax = configuration.operationCountMax
        options.deviceCountMax = max(options.deviceCountMax, configuration.stores.count)
        reactor = try Reactor(options: options)
        let slotCount = limits.slotCountOfReactor
        // Alone nobody writes to it.
        mailbox = Mailbox(
            capacityMin: workerCount > 1 ? limits.mailboxMessageCount : 1,
            waker: reactor.waker
        )
        backlogs = Array(repeating: [], count: workerCount)
        control = ControlQueue(waker: reactor.waker)
        let poolByteCount = max(
            configuration.bufferMemoryByteCount / workerCount,
            NodeConfiguration.bufferMemoryByteCountMin
        )
        arena = MemoryArena(byteCount: poolByteCount + Self.zeroByteCount)
        pool = BufferPool(region: arena.allocate(byteCount: poolByteCount & ~4095))
        zeroes = arena.allocate(byteCount: Self.zeroByteCount)
        slots = SlotTable(count: slotCount)
        // All that is in work on the others.
        remotes = RemoteTable(count: limits.requestCountMax(reactorCount: workerCount - 1))
        replication = ReplicationState(
            process: shared.process,
            byteCount: configuration.replicationMemoryByteCount
        )
        iscsi = configuration.iscsiListeners.isEmpty ? nil : ISCSIFront(limits: limits)
        ready = FixedRing(capacityMin: limits.placeCountMax)
        waiting = FixedRing(capacityMin: limits.placeCountMax)
        flushing = FixedRing(capacityMin: limits.placeCountMax)
        again = FixedRing(capacityMin: slotCount)
        now = MonotonicClock.now()
        sweepAt = now
    }

    // MARK: - The loop

    /// Runs until the node has stopped; the body of the thread.
    func run() {
        for host in hosts {
            host.openedAt = MonotonicClock.now()
            host.store.open(
                identity: shared.configuration.stores[Int(host.index)].identity,
                now: host.openedAt
            )
            pump(host)
        }
        while !isFinished { turn() }
        reactor.shutDown()
        // The devices are unlocked when the last reference to them goes: here.
        for host in hosts { reactor.detach(host.deviceHandle) }
        hosts = []
        hostsByStore = hostsByStore.map { _ in nil }
        replication.forgetAll()
    }

    private func turn() {
        _ = reactor.turn(deadline: nextDeadline())
        now = reactor.now
        while let completion = reactor.nextCompletion() { dispatch(completion) }
        receiveMessages()
        for work in control.takeAll() { work(self) }
        resumeWaiting()
        advanceReady()
        advanceReadyISCSI()
        submitAgain()
        submitAgainISCSI()
        tickReplication()
        settleReplication()
        for index in hosts.indices { endTurn(hosts[index]) }
        settleReplication()
        // The device works while the replies are copied out.
        if !flushing.isEmpty || iscsi?.flushing.isEmpty == false {
            reactor.submitDeviceOperations()
        }
        flushLinks()
        flushAll()
        flushAllISCSI()
        if sweepAt <= now { sweep() }
        postBacklogs()
        wakePeers()
    }

    /// When the next turn must begin although nothing happens.
    private func nextDeadline() -> Instant? {
        if !ready.isEmpty || !again.isEmpty || lapCount > 0 || (hasFreed && !waiting.isEmpty) {
            return now
        }
        if let iscsi, !iscsi.ready.isEmpty || !iscsi.again.isEmpty { return now }
        var deadline = needsSweep ? sweepAt : nil
        for index in hosts.indices {
            guard let due = hosts[index].deadline else { continue }
            deadline = min(deadline ?? due, due)
        }
        if let due = replication.tickAt { deadline = min(deadline ?? due, due) }
        if hasBacklog {
            let due = now.advanced(byNanoseconds: Self.backlogNanoseconds)
            deadline = min(deadline ?? due, due)
        }
        return deadline
    }

    private func dispatch(_ completion: Completion) {
        let token = Token(rawValue: completion.token)
        switch token.kind {
        case TokenKind.receive:
            if let connection = connection(token) { onReceived(connection, completion.result) }
        case TokenKind.send:
            if let connection = connection(token) { onSent(connection, completion.result) }
        case TokenKind.device:
            let host = hosts[Int(token.index)]
            host.deviceOperationCount -= 1
            host.store.onDeviceCompletion(
                DeviceCompletion(token: completion.requestToken, errno: completion.errno),
                now: now
            )
            pump(host)
        case TokenKind.accept:
            onAccepted(Int(token.index), completion)
        case TokenKind.close:
            if let connection = connection(token) { onClosed(connection) }
        case TokenKind.peerReceive:
            if let link = link(token) { onPeerReceived(link, completion.result) }
        case TokenKind.peerSend:
            if let link = link(token) { onPeerSent(link, completion.result) }
        case TokenKind.peerClose:
            if let link = link(token) { onPeerClosed(link) }
        case TokenKind.iscsiReceive:
            if let found = iscsiConnection(token) { onISCSIReceived(found, completion.result) }
        case TokenKind.iscsiSend:
            if let found = iscsiConnection(token) { onISCSISent(found, completion.result) }
        case TokenKind.iscsiClose:
            if let found = iscsiConnection(token) { onISCSIClosed(found) }
        case TokenKind.listenerClose:
            listeners[Int(token.index)].isClosed = true
        default:
            preconditionFailure("a completion of no kind")
        }
    }

    /// The connection that a token is for, unless its place has a new one.
    func connection(_ token: Token) -> Connection? {
        let index = Int(token.index)
        guard index < connections.count else { return nil }
        let connection = connections[index]
        guard connection.generation & Token.generationMask == token.generation else { return nil }
        return connection.state == .free ? nil : connection
    }

    func token(_ kind: UInt8, _ connection: Connection) -> UInt64 {
        Token(
            kind: kind,
            index: UInt32(connection.index),
            generation: connection.generation
        ).rawValue
    }

    // MARK: - Queues

    /// Has `advance` called for the connection in this turn or the next.
    func markReady(_ connection: Connection) {
        guard !connection.isReady else { return }
        connection.isReady = true
        ready.append(connection.index)
    }

    /// Has the connection's replies sent at the end of the turn.
    func markFlush(_ connection: Connection) {
        guard !connection.wantsFlush else { return }
        connection.wantsFlush = true
        flushing.append(connection.index)
    }

    /// Has the connection try again when slots or buffers have come free.
    func markWaiting(_ connection: Connection) {
        counters.resourceWaitCount &+= 1
        guard !connection.isWaiting else { return }
        connection.isWaiting = true
        waiting.append(connection.index)
    }

    private func advanceReady() {
        // What becomes ready again while this runs waits for the next turn: replies go first.
        var count = ready.count
        while count > 0, let index = ready.popFirst() {
            count -= 1
            let connection = connections[Int(index)]
            connection.isReady = false
            advance(connection)
            // Nothing more comes for it in this turn: its client works while others are served.
            if connection.wantsFlush, connection.slotCount == 0 { flush(connection) }
        }
    }

    /// Gives those who wait another try, in order, when something came free.
    private func resumeWaiting() {
        if hasFreed {
            hasFreed = false
            lapCount = waiting.count
        }
        guard lapCount > 0 else { return }
        var count = min(lapCount, Self.resumedCountMax)
        lapCount -= count
        while count > 0, let index = waiting.popFirst() {
            count -= 1
            let connection = connections[Int(index)]
            connection.isWaiting = false
            markReady(connection)
        }
    }

    private func flushAll() {
        while let index = flushing.popFirst() {
            let connection = connections[Int(index)]
            connection.wantsFlush = false
            flush(connection)
        }
    }
}
