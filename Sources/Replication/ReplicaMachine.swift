// One replica of one placement group, as a machine: messages of primaries and ends of storage
// operations in, messages and storage operations out.
//
// Invariants:
//   accepted ≤ promised; both only grow, and are durable before anybody is told
//   durable ≤ applied ≤ received: counters of the accepted epoch, without a gap from where the
//     stream began
//   isComplete ⇒ the replica has its lineage and the accepted epoch up to `applied`, or newer
//     copies of the same blocks, and no block with a greater number that anybody knows of
//   a seal is answered only when the promise is durable and no grant of another process holds
//
// Fault model: the process may stop at any time and come back with a prefix of what it appended
// that contains everything flushed; messages may be late, doubled by a new connection, or absurd.
// Not checked here: that payloads arrive whole (the wire's checksum).
//
// Specification: Docs/replication.md.

public import BlockCore

/// What a replica wants done.
public enum ReplicaAction: Sendable, Hashable {
    /// Send a message; dropped when the link is gone.
    case send(LinkID, ReplicaMessage)
    /// Append a record to the log and flush; ends with ``ReplicaMachine/onPersisted(now:)``.
    case persist(ReplicaRecord)
    /// Append a write of the stream, block by block where the copy is older; ends with
    /// ``ReplicaMachine/onAppended(now:)``, in order.
    case append(number: WriteNumber, range: BlockRange, payload: PayloadID)
    /// Apply an old block where the copy is older; ends with ``ReplicaMachine/onFilled(_:)``, or with
    /// ``ReplicaMachine/onFillRefused(_:)`` when there is no room for it.
    case fill(block: UInt64, number: WriteNumber, payload: PayloadID, ReplyAddress)
    /// Make everything appended durable; ends with ``ReplicaMachine/onFlushed(now:)``.
    case flush
    /// Write the bytes of a block's copy again where that has just this number and is damaged,
    /// under the same number; nobody waits for the end.
    case repair(block: UInt64, number: WriteNumber, payload: PayloadID)
    /// Take a snapshot, unless it is there; ends with ``ReplicaMachine/onAppended(now:)`` when it is
    /// of the stream, in order with its writes.
    case snapshot(SnapshotMark, isStreamed: Bool)
    /// Do nothing, in order with the stream's writes; ends with ``ReplicaMachine/onAppended(now:)``.
    case skip
    /// Delete a snapshot that the lineage does not have; nobody waits for the end.
    case dropSnapshot(SnapshotMark)
    /// Read; ends with ``ReplicaMachine/onRead(_:payload:number:)`` or
    /// ``ReplicaMachine/onReadFailed(_:block:)``.
    case read(BlockRange, ReplyAddress)
    /// Count the blocks of a range of which there is no copy above all snapshots; ends with
    /// ``ReplicaMachine/onWeighed(_:blockCount:)``.
    case weigh(BlockRange, ReplyAddress)
    /// Read one block; ends with ``ReplicaMachine/onFetched(_:payload:number:)`` or
    /// ``ReplicaMachine/onFetchFailed(_:number:)``, or ``ReplicaMachine/onViewMissing(_:)``.
    case fetch(ReplicaView, block: UInt64, ReplyAddress)
    /// Find blocks above a number; ends with ``ReplicaMachine/onScanned(_:entries:next:)`` or
    /// ``ReplicaMachine/onViewMissing(_:)``.
    case scan(ReplicaView, above: WriteNumber, from: UInt64, ReplyAddress)
    /// Nothing is done with a payload that came in a message, or from the store.
    case release(PayloadID)
}

/// To whom the end of a storage operation is told.
public struct ReplyAddress: Sendable, Hashable, BitwiseCopyable {
    /// The link that asked.
    public var link: LinkID
    /// The epoch that asked.
    public var epoch: Epoch
    /// The asker's mark.
    public var token: UInt64
}

/// A replica of a placement group.
///
/// One thread owns it. After every call the owner carries out ``actions`` in their order and
/// empties it. Appends, records and flushes take effect in the order in which they were asked for.
///
/// Payloads with bytes (``PayloadID/hasBytes``) come in with messages, and with what was read. Each
/// comes out at once, and once: in what is to be stored, in an answer, or in
/// ``ReplicaAction/release(_:)``. From then on it is the owner's.
public final class ReplicaMachine {
    /// What is to be done; the owner empties it after every call.
    public var actions: [ReplicaAction] = []
    /// What the replica keeps durably, as it will be when all records under way are.
    public internal(set) var record: ReplicaRecord
    /// The counter up to which the stream is in memory.
    public internal(set) var applied: UInt64
    /// The counter up to which it is durable.
    public internal(set) var durable: UInt64
    /// The highest number a primary said is committed.
    public internal(set) var committed = WriteNumber.zero
    /// Its snapshots, in the order of their numbers, as they will be when all under way is done.
    public internal(set) var snapshots: [SnapshotMark]
    /// What its store has room for now; the owner says so before it calls anything else.
    public var room = ReplicaRoom.plentiful
    /// Messages that were ignored: not for this replica, absurd, or out of turn.
    public internal(set) var ignoredCount: UInt64 = 0

    let policy: ReplicationPolicy
    let incarnation: Incarnation
    /// The counter up to which the stream was received.
    var received: UInt64
    /// Until when another process than `grantHolder` is not told that it sealed.
    var grantEnd: Instant
    /// Nil after a restart: who held a grant then is not known.
    var grantHolder: PrimaryID?

    /// Records asked for, and of these the durable ones.
    var persistCount: UInt64 = 0
    var persistedCount: UInt64 = 0
    /// `received` when each record under way was asked for.
    var persistThrough: [UInt64] = []
    /// Answers that wait for a record or a grant.
    var pending: [PendingAnswer] = []
    /// Writes under way that the counters of now do not count: of an earlier epoch, or from before
    /// a gap.
    var staleAppendCount: UInt64 = 0
    var isFlushing = false
    var isFlushWanted = false
    var flushThrough: UInt64 = 0
    /// Where the stream comes from: progress is told there.
    var streamLink: LinkID? {
        didSet {
            // Who opens a link takes room for granted until it hears otherwise.
            if streamLink != oldValue { toldRoom = hasLackedRoom ? nil : .plentiful }
        }
    }
    /// What was said of its room over that link; nil when what was said over it before is not known.
    var toldRoom: ReplicaRoom? = .plentiful
    /// Whether room was ever said to be less than plentiful.
    var hasLackedRoom = false

    /// Starts a replica on what its log holds.
    ///
    /// - Parameters:
    ///   - record: The last record in the log.
    ///   - streamed: The counter of the last write of the stream in the log after that record, or
    ///     the record's own.
    ///   - snapshots: The snapshots that its store has, in the order of their numbers.
    ///   - incarnation: This life's name.
    ///   - policy: As the volume says.
    ///   - isNew: Whether it is the first life of a replica: nobody can hold a grant of it.
    ///   - now: The time.
    public init(
        record: ReplicaRecord,
        streamed: UInt64,
        snapshots: [SnapshotMark] = [],
        incarnation: Incarnation,
        policy: ReplicationPolicy,
        isNew: Bool,
        now: Instant
    ) {
        self.record = record
        self.snapshots = snapshots
        self.policy = policy
        self.incarnation = incarnation
        applied = max(streamed, record.streamed)
        durable = applied
        received = applied
        grantEnd = isNew ? now : now.advanced(byNanoseconds: policy.grantNanoseconds)
        if record.mayHaveForgotten && !isNew { self.record.remembers = false }
        actions.reserveCapacity(policy.requestCountMax)
        // A crash came between a snapshot and the record that counts it: the stream brings it again.
        dropSnapshots(above: end)
    }

    /// An answer of the cold path.
    struct PendingAnswer {
        enum Kind: Equatable {
            case sealed, opened, completed
            case kept(WriteNumber)
        }
        var kind: Kind
        var link: LinkID
        var epoch: Epoch
        var primary: PrimaryID
        /// The record that must be durable first.
        var persist: UInt64
    }

    // MARK: - Inputs

    /// Takes a message.
    ///
    /// - Parameters:
    ///   - message: As it came; nothing in it is trusted.
    ///   - link: Where it came from, and where the answer goes.
    ///   - now: The time by this process's clock.
    public func onMessage(_ message: PrimaryMessage, from link: LinkID, now: Instant) {
        guard message.instance == record.instance, message.epoch.rawValue > 0,
            message.epoch <= WriteNumber.epochMax
        else { return ignore(message.body) }
        guard message.epoch >= record.promised || policy.defect == .lowerEpochAccepted else {
            send(.refused(promised: record.promised), to: link, epoch: message.epoch)
            return release(message.body.payload)
        }
        switch message.body {
        case .seal: onSeal(message, link, now)
        case .open(let lineage, let start): onOpen(message, lineage, start, link, now)
        case .renew(let sentAt, let committed): onRenew(message, sentAt, committed, link, now)
        case .release:
            if grantHolder == message.primary { grantEnd = now }
            settle(now)
        default:
            // Everything else is for those who follow the epoch.
            guard message.epoch == record.accepted || policy.defect == .lowerEpochAccepted else {
                return ignore(message.body)
            }
            onFollowerMessage(message, link, now)
        }
    }

    /// Forgets a link: what waits to be said over it is not said.
    public func onLinkClosed(_ link: LinkID) { pending.removeAll { $0.link == link } }

    /// Lets time pass.
    ///
    /// - Returns: When to call again at the latest, or nil when only an event can change something.
    @discardableResult
    public func onTick(now: Instant) -> Instant? {
        settle(now)
        let waits = pending.contains { $0.kind == .sealed && $0.persist <= persistedCount }
        return waits ? grantEnd : nil
    }

    /// The oldest record under way is durable, and so is everything appended before it.
    public func onPersisted(now: Instant) {
        persistedCount += 1
        guard !persistThrough.isEmpty else { return }
        let through = min(persistThrough.removeFirst(), applied)
        if through > durable {
            durable = through
            tellProgress()
        }
        settle(now)
    }

    /// The oldest write under way is in memory, and will be in the log.
    public func onAppended(now: Instant) {
        guard staleAppendCount == 0 else {
            staleAppendCount -= 1
            return
        }
        guard applied < received else { return }
        applied += 1
        // Where only what is durable counts, the end of the flush says both.
        if policy.isWritethrough, isFlushing { return }
        tellProgress()
    }

    /// Everything appended before the flush was asked for is durable.
    public func onFlushed(now: Instant) {
        isFlushing = false
        if flushThrough > durable {
            durable = min(flushThrough, applied)
            tellProgress()
        }
        startFlush()
    }

    // MARK: - Output

    /// Counts a message that says nothing to this machine.
    func ignore(_ body: PrimaryMessage.Body) {
        ignoredCount += 1
        release(body.payload)
    }

    /// Gives a payload back, unless it has no bytes.
    func release(_ payload: PayloadID) {
        if payload.hasBytes { actions.append(.release(payload)) }
    }

    func send(_ body: ReplicaMessage.Body, to link: LinkID, epoch: Epoch) {
        let message = ReplicaMessage(
            instance: record.instance,
            incarnation: incarnation,
            epoch: epoch,
            body: body
        )
        actions.append(.send(link, message))
    }

    /// Asks for the record as it is now to be made durable.
    ///
    /// - Returns: Its number among the records of this life.
    func persist() -> UInt64 {
        record.streamed = received
        actions.append(.persist(record))
        persistThrough.append(received)
        persistCount += 1
        return persistCount
    }

    /// Says what can be said now of what waits.
    func settle(_ now: Instant) {
        guard !pending.isEmpty else { return }
        var index = 0
        while index < pending.count {
            let answer = pending[index]
            if answer.epoch < record.promised {
                send(.refused(promised: record.promised), to: answer.link, epoch: answer.epoch)
            } else if isDue(answer, now) {
                say(answer)
            } else {
                index += 1
                continue
            }
            pending.remove(at: index)
        }
    }

    private func isDue(_ answer: PendingAnswer, _ now: Instant) -> Bool {
        let isBold = policy.defect == .promiseNotPersisted && answer.kind == .sealed
        guard answer.persist <= persistedCount || isBold else { return false }
        guard answer.kind == .sealed, policy.defect != .grantNotKept else { return true }
        return now >= grantEnd || grantHolder == answer.primary
    }

    private func say(_ answer: PendingAnswer) {
        switch answer.kind {
        case .sealed:
            let status = ReplicaStatus(
                record: record,
                applied: applied,
                durable: durable,
                committed: committed,
                snapshots: snapshots
            )
            send(.sealed(status), to: answer.link, epoch: answer.epoch)
        case .opened:
            tellRoom(to: answer.link)
            send(
                .opened(isComplete: record.isComplete, applied: applied, durable: durable),
                to: answer.link,
                epoch: answer.epoch
            )
        case .completed:
            send(.completed, to: answer.link, epoch: answer.epoch)
        case .kept(let number):
            send(.kept(number), to: answer.link, epoch: answer.epoch)
        }
    }
}
