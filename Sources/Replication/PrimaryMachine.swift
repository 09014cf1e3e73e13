// The primary of one placement group, as a machine: requests of clients and messages of replicas
// in, messages and completions out.
//
// Invariants:
//   hardened ≤ committed < nextCounter
//   what left the window is durable at W complete replicas or, while there was no room to make them
//     complete, at one of those that the others are made complete from
//   committed = the W-th greatest `applied` among complete replicas, never less than it was
//   no client is answered before the tail is committed by W complete replicas
//   a replica that is not complete is given no snapshot in its stream
//   a read is answered only while W replicas' grants hold, and shows only what is committed
//   what a client wrote is numbered when W complete replicas have room for it and for all that they
//     have not applied
//   the window keeps each write until every replica that is streamed to has it durable
//   a replica becomes complete only when its strays are overwritten, what it lacked is filled, and
//     its stream has passed all of that and everything committed
//
// Fault model: replicas, links and this process stop, freeze and come back at any time; messages
// may be late or absurd. Nobody lies on purpose. Clocks: their rates differ by less than
// `clockRateErrorPerMille`; only reads hang on it.
//
// Specification: Docs/replication.md.

public import BlockCore

/// What a primary wants done.
public enum PrimaryAction: Sendable, Hashable {
    /// Send a message to the replica in a slot; dropped when its link is gone.
    case send(slot: Int, PrimaryMessage)
    /// A client's request ended.
    case complete(token: UInt64, ClientResult)
    /// The machine will not name a payload any more.
    ///
    /// What was sent before and is still on its way out keeps it for itself.
    case release(PayloadID)
    /// The primary is over; it says nothing any more, but gives back the payloads of what still
    /// comes.
    case stopped(PrimaryStop)
}

/// How a client's request ended.
public enum ClientResult: Sendable, Hashable {
    /// A write is as safe as was asked, or a snapshot taken for ever.
    case written(WriteNumber)
    /// What was read; the payload is the owner's from then on.
    case read(PayloadID)
    /// Every replica has a damaged block in the range, and had a while later; not the same one, if
    /// there are several: block by block what is not lost can be read.
    case damaged
    /// Everything acknowledged before is durable.
    case flushed
    /// Less than W replicas have room for a write, or for a snapshot: it did not happen.
    case noRoom
    /// The primary stopped: nobody knows whether a write happened.
    case unknown
}

/// Why a primary is over.
public enum PrimaryStop: Sendable, Hashable {
    /// A replica has promised a higher epoch.
    case deposed(by: Epoch)
    /// The source was lost before its tail was written again; a new epoch chooses anew.
    case sourceLost
    /// No complete replica is at hand, and enough others are to choose anew.
    case stuck
    /// The epoch's numbers are used up.
    case numbersExhausted
    /// ``PrimaryMachine/close(now:)`` was called.
    case closed
}

/// A primary of a placement group.
///
/// One thread owns it. After every call the owner carries out ``actions`` in their order and
/// empties it.
///
/// Payloads with bytes (``PayloadID/hasBytes``) come in with writes that it took, and with messages.
/// Each comes out once: in ``PrimaryAction/release(_:)``, or in ``ClientResult/read(_:)``. Only
/// those of a machine that is thrown away are the owner's to know.
public final class PrimaryMachine {
    /// Where a primary is in its life.
    public enum State: Sendable, Hashable {
        /// Waiting for enough answers to choose a source.
        case sealing
        /// Writing the source's tail again.
        case renewing
        /// Numbering writes; see ``PrimaryMachine/isServing``.
        case open
        /// Over.
        case stopped
    }

    /// What is to be done; the owner empties it after every call.
    public var actions: [PrimaryAction] = []
    /// Where it is in its life.
    public internal(set) var state = State.sealing
    /// Whether the tail is committed: from then on clients are answered while W replicas are there.
    public internal(set) var isServing = false
    /// The counter up to which everything is committed.
    public internal(set) var committed: UInt64 = 0
    /// The counter up to which W complete replicas have everything durable.
    public internal(set) var hardened: UInt64 = 0
    /// Messages that were ignored: of stale lives, absurd, or out of turn.
    public internal(set) var ignoredCount: UInt64 = 0
    /// Requests that were refused, because less than W replicas have room for them.
    public internal(set) var refusedCount: UInt64 = 0
    /// The epoch.
    public let epoch: Epoch

    var policy: ReplicationPolicy
    let primary: PrimaryID
    /// The slot of the replica on this node, which reads are sent to first.
    var localSlot: Int?
    var peers: [Peer]
    /// Those that count.
    var voters: SlotSet
    var move: ReplicaMove?
    var now: Instant

    // Takeover
    var lineage = Lineage.origin
    var renewFrom = WriteNumber.zero
    var sourceSlot = 0
    var renewal: BlockWalk?
    /// The counter of the last renewal; 0 when there was nothing to renew.
    var tailCount: UInt64 = 0
    var lastAnswerAt: Instant
    var stuckSince: Instant?

    // Window
    let window: FixedArray<WindowEntry>
    var windowStart: UInt64 = 1
    var nextCounter: UInt64 = 1
    var windowByteCount = 0
    /// The write for which replicas are asked whether it takes room.
    var weighing: Weighing?
    /// What all numbered writes take of a store at most.
    var chargedTotal: UInt64 = 0
    /// The counter that somebody wants durable.
    var flushWanted: UInt64 = 0

    // Snapshots
    /// Those of the lineage and of this epoch, in the order of their numbers.
    public internal(set) var snapshots: [SnapshotMark] = []
    /// Stages that were begun.
    var stageCount: UInt64 = 0

    // Clients
    let requests: FixedArray<ClientRequest>
    let freeRequests: FixedRing<Int32>
    let waitingWrites: FixedRing<Int32>
    /// Writes that have a number and no answer, in the order of their numbers; the forced ones wait
    /// until they are hardened.
    let numberedWrites: FixedRing<Int32>
    let forcedWrites: FixedRing<Int32>
    let waitingReads: FixedRing<Int32>
    let heldReads: FixedRing<Int32>
    /// When the next read under way will be late, or before.
    var nextHedgeAt: Instant?
    let flushes: FixedRing<Int32>

    // Renewal and resync
    var fetches: [Fetch] = []
    let budget: ResyncBudget
    var nextToken: UInt64 = 1
    var lastRenewAt: Instant?

    /// Begins a takeover.
    ///
    /// - Parameters:
    ///   - epoch: The epoch that the metadata service gave to this process alone.
    ///   - primary: This process.
    ///   - instances: The replica in each slot, as the metadata service said with the epoch.
    ///   - localSlot: The slot whose replica is on this node, if one is.
    ///   - policy: As the volume says.
    ///   - budget: What resyncs may have on their way; shared by the volumes of a thread.
    ///   - now: The time by this process's clock.
    public init(
        epoch: Epoch,
        primary: PrimaryID,
        instances: [ReplicaInstance],
        localSlot: Int?,
        policy: ReplicationPolicy,
        budget: ResyncBudget = ResyncBudget(),
        now: Instant
    ) {
        precondition(instances.count == policy.replicaCount, "a replica for each slot")
        precondition(epoch.rawValue > 0 && epoch <= WriteNumber.epochMax, "epoch out of range")
        self.epoch = epoch
        self.primary = primary
        self.policy = policy
        self.budget = budget
        self.localSlot = localSlot
        self.now = now
        lastAnswerAt = now
        peers = instances.map { Peer(instance: $0) }
        voters = SlotSet(below: instances.count)
        // Clients fill the one part; the other is for the tail and for strays, block by block.
        let windowCountMin =
            policy.windowCountMax + policy.windowByteCountMax / BlockGeometry.blockByteCount
        var windowCount = 1
        while windowCount < windowCountMin { windowCount *= 2 }
        window = FixedArray(repeating: WindowEntry(), count: windowCount)
        let requestCount = policy.requestCountMax
        requests = FixedArray(repeating: ClientRequest(), count: requestCount)
        freeRequests = FixedRing(capacityMin: requestCount)
        waitingWrites = FixedRing(capacityMin: requestCount)
        numberedWrites = FixedRing(capacityMin: requestCount)
        forcedWrites = FixedRing(capacityMin: requestCount)
        waitingReads = FixedRing(capacityMin: requestCount)
        heldReads = FixedRing(capacityMin: requestCount)
        flushes = FixedRing(capacityMin: requestCount)
        for index in 0..<requestCount { freeRequests.append(Int32(index)) }
        actions.reserveCapacity(4 * requestCount)
        fetches.reserveCapacity(policy.fetchCountMax)
    }

    // One that is dropped while it serves must not keep what others are to have.
    deinit { endFetches() }

    // MARK: - Inputs

    /// A connection to the replica in a slot is there.
    public func onLinkOpened(slot: Int, now: Instant) {
        guard state != .stopped else { return }
        self.now = now
        if peers[slot].isLinked { loseLink(slot) }
        peers[slot].isLinked = true
        greet(slot)
        pump()
    }

    /// The connection to the replica in a slot is gone.
    public func onLinkClosed(slot: Int, now: Instant) {
        guard state != .stopped else { return }
        self.now = now
        loseLink(slot)
        pump()
    }

    /// Takes a message.
    ///
    /// - Parameters:
    ///   - message: As it came; nothing in it is trusted.
    ///   - slot: Whose link it came over.
    ///   - now: The time by this process's clock.
    public func onMessage(_ message: ReplicaMessage, slot: Int, now: Instant) {
        guard state != .stopped else { return release(message.body.payload) }
        self.now = now
        guard message.instance == peers[slot].instance, message.epoch == epoch,
            peers[slot].isLinked
        else { return ignore(message.body) }
        if case .refused(let promised) = message.body {
            if promised > epoch { stop(.deposed(by: promised)) } else { ignoredCount += 1 }
            return
        }
        if case .sealed(let status) = message.body {
            onSealed(slot, status, message.incarnation)
        } else if message.incarnation == peers[slot].incarnation {
            onAnswer(slot, message.body)
        } else {
            ignore(message.body)
        }
        pump()
    }

    /// Lets time pass; to be called at least every eighth of a grant.
    ///
    /// - Returns: When to call again for the sake of reads that are late, if any are under way.
    @discardableResult
    public func onTick(now: Instant) -> Instant? {
        guard state != .stopped else { return nil }
        self.now = now
        renewGrants()
        checkStuck()
        passByRoomless()
        retryFetches()
        pump()
        return nextHedgeAt
    }

    /// Ends in order: replicas are told that their grants are not used any more.
    public func close(now: Instant) {
        guard state != .stopped else { return }
        self.now = now
        for slot in peers.indices where peers[slot].isLinked { send(.release, to: slot) }
        stop(.closed)
    }

    /// Puts another replica into a slot, once the metadata service has it under this epoch.
    public func replace(slot: Int, by instance: ReplicaInstance, now: Instant) {
        guard state != .stopped else { return }
        self.now = now
        loseLink(slot)
        peers[slot] = Peer(instance: instance)
        peers[slot].isHolding = false
        if localSlot == slot { localSlot = nil }
        for index in 0..<requests.count { requests[index].failed.remove(slot) }
        pump()
    }

    // MARK: - Common parts

    func send(_ body: PrimaryMessage.Body, to slot: Int) {
        let message = PrimaryMessage(
            instance: peers[slot].instance,
            epoch: epoch,
            primary: primary,
            body: body
        )
        actions.append(.send(slot: slot, message))
    }

    /// Does everything that has become possible.
    func pump() {
        guard state != .stopped else { return }
        if state == .sealing { chooseSource() }
        if state == .renewing { advanceRenewal() }
        numberWaiting()
        stream()
        advanceCounters()
        releaseWindow()
        // What waited for room in the window goes on.
        if state == .renewing { advanceRenewal() }
        advanceResyncs()
        // Both may have numbered writes.
        stream()
        askForFlushes()
        serveReads()
    }

    func stop(_ reason: PrimaryStop) {
        guard state != .stopped else { return }
        state = .stopped
        isServing = false
        for index in 0..<requests.count where requests[index].kind != .free {
            actions.append(.complete(token: requests[index].token, .unknown))
            requests[index].kind = .free
        }
        for counter in windowStart..<nextCounter { release(window[windowIndex(counter)].payload) }
        // What has no number yet, and what was read and not shown.
        while let slot = waitingWrites.popFirst() { release(requests[Int(slot)].payload) }
        while let slot = heldReads.popFirst() { release(requests[Int(slot)].payload) }
        endFetches()
        actions.append(.stopped(reason))
    }

    /// Gives a payload back, unless it has no bytes.
    func release(_ payload: PayloadID) {
        if payload.hasBytes { actions.append(.release(payload)) }
    }

    /// Counts a message that says nothing to this machine.
    func ignore(_ body: ReplicaMessage.Body) {
        ignoredCount += 1
        release(body.payload)
    }

    func windowIndex(_ counter: UInt64) -> Int { Int(counter) & (window.count - 1) }

    func takeToken() -> UInt64 {
        nextToken += 1
        return nextToken
    }
}
