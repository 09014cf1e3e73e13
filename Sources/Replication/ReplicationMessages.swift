// What a primary and a replica say to each other, as values. Encoding them is another module's.
//
// A link delivers in order or breaks. Whatever comes may still be late: of an earlier connection,
// to or from an earlier life. So each message says for which instance and under which epoch it is,
// and those that would do harm late name the incarnation too.

public import BlockCore

/// A message of a primary to a replica.
public struct PrimaryMessage: Sendable, Hashable {
    /// The replica it is for; another one ignores it.
    public var instance: ReplicaInstance
    /// The sender's epoch; refused below what the replica promised.
    public var epoch: Epoch
    /// The sender's process.
    public var primary: PrimaryID
    /// What it says.
    public var body: Body

    /// Creates a message.
    public init(instance: ReplicaInstance, epoch: Epoch, primary: PrimaryID, body: Body) {
        self.instance = instance
        self.epoch = epoch
        self.primary = primary
        self.body = body
    }

    /// What a primary can say.
    public enum Body: Sendable, Hashable {
        /// Promise this epoch, and say what you have. Every connection begins with it.
        case seal
        /// Follow this epoch, which begins where `lineage` ends; the writes from counter `start`
        /// on come next, those before it do not.
        case open(lineage: Lineage, start: UInt64)
        /// A write, in the order of numbers.
        case write(number: WriteNumber, range: BlockRange, payload: PayloadID)
        /// A snapshot, in the order of numbers: what comes after it is not in it.
        case snapshot(SnapshotMark)
        /// Make everything up to this counter durable.
        case flush(through: UInt64)
        /// I am here: grant me reads. `sentAt` is by my clock and comes back as it is.
        case renew(sentAt: Instant, committed: WriteNumber)
        /// You have everything: you are complete. For this life of yours only.
        case complete(Incarnation)
        /// You have again what you had forgotten. For this life of yours only.
        case recall(Incarnation)
        /// Read for a client, if complete and up to counter `floor`.
        case read(token: UInt64, range: BlockRange, floor: UInt64)
        /// Which blocks from `from` on have copies above a number, in the volume or in a snapshot?
        case scan(token: UInt64, view: ReplicaView, above: WriteNumber, from: UInt64)
        /// A block, with its number.
        case fetch(token: UInt64, view: ReplicaView, block: UInt64)
        /// An old block, applied only where the copy is older.
        case fill(token: UInt64, block: UInt64, number: WriteNumber, payload: PayloadID)
        /// You have everything of a snapshot that you missed: keep it. For this life of yours only.
        case keep(Incarnation, SnapshotMark)
        /// How many blocks of a range have you no copy of your own of, above all snapshots?
        case weigh(token: UInt64, range: BlockRange)
        /// I read no more: what you granted me is void.
        case release
        /// The bytes of a copy that is damaged; for one with just this number.
        case repair(block: UInt64, number: WriteNumber, payload: PayloadID)
    }
}

/// A message of a replica to a primary.
public struct ReplicaMessage: Sendable, Hashable {
    /// The sender.
    public var instance: ReplicaInstance
    /// Its life.
    public var incarnation: Incarnation
    /// The epoch that it answers.
    public var epoch: Epoch
    /// What it says.
    public var body: Body

    /// Creates a message.
    public init(
        instance: ReplicaInstance,
        incarnation: Incarnation,
        epoch: Epoch,
        body: Body
    ) {
        self.instance = instance
        self.incarnation = incarnation
        self.epoch = epoch
        self.body = body
    }

    /// What a replica can say.
    public enum Body: Sendable, Hashable {
        /// The epoch is promised, no other process reads by my grant, and this is what I have.
        case sealed(ReplicaStatus)
        /// The epoch is below what I promised.
        case refused(promised: Epoch)
        /// I follow the epoch.
        case opened(isComplete: Bool, applied: UInt64, durable: UInt64)
        /// Everything up to these counters is in memory, and durable.
        case progress(applied: UInt64, durable: UInt64)
        /// What my store has room for, beyond what I have said is applied.
        case room(ReplicaRoom)
        /// An old block was not applied: there is no room for it.
        case fillRefused(token: UInt64)
        /// So many blocks would take room.
        case weighed(token: UInt64, blockCount: UInt32)
        /// A grant, from now on.
        case granted(sentAt: Instant)
        /// I know that I am complete, durably.
        case completed
        /// I have kept the snapshot with this number, durably.
        case kept(WriteNumber)
        /// The snapshot that was to be looked at is not here.
        case viewMissing(token: UInt64)
        /// What was read, and the greatest number among the blocks.
        case readDone(token: UInt64, payload: PayloadID, number: WriteNumber)
        /// I am not the one to read from.
        case readRefused(token: UInt64)
        /// Blocks above the number, ascending; `next` is where to go on, nil at the end.
        case scanned(token: UInt64, entries: [ScanEntry], next: UInt64?)
        /// A block with its number.
        case fetched(token: UInt64, payload: PayloadID, number: WriteNumber)
        /// An old block was applied, or a newer one was there.
        case filled(token: UInt64)
        /// A block of what was to be read is damaged here: read it elsewhere.
        case readFailed(token: UInt64, block: UInt64)
        /// The block is damaged here; its copy had this number.
        case fetchFailed(token: UInt64, number: WriteNumber)
    }
}

extension PrimaryMessage.Body {
    /// The payload that it brings; one without bytes when it brings none.
    public var payload: PayloadID {
        switch self {
        case .write(_, _, let payload), .fill(_, _, _, let payload), .repair(_, _, let payload):
            payload
        default: .zeroes
        }
    }
}

extension ReplicaMessage.Body {
    /// The payload that it brings; one without bytes when it brings none.
    public var payload: PayloadID {
        switch self {
        case .readDone(_, let payload, _), .fetched(_, let payload, _): payload
        default: .zeroes
        }
    }
}

/// A block and the number of its copy.
public struct ScanEntry: Sendable, Hashable, BitwiseCopyable {
    /// The block, counted from the volume's start.
    public var block: UInt64
    /// The number of its copy at the replica that was asked.
    public var number: WriteNumber

    /// Creates an entry.
    public init(block: UInt64, number: WriteNumber) {
        self.block = block
        self.number = number
    }
}

/// What a replica says of itself when it is sealed.
public struct ReplicaStatus: Sendable, Hashable {
    /// What it keeps durably.
    public var record: ReplicaRecord
    /// The greatest counter of the accepted epoch up to which its stream is in memory.
    public var applied: UInt64
    /// The same of what survives power loss.
    public var durable: UInt64
    /// The highest number its primary said is committed.
    public var committed: WriteNumber
    /// Its snapshots, in the order of their numbers.
    public var snapshots: [SnapshotMark]

    /// Creates a status.
    public init(
        record: ReplicaRecord,
        applied: UInt64,
        durable: UInt64,
        committed: WriteNumber,
        snapshots: [SnapshotMark] = []
    ) {
        self.record = record
        self.applied = applied
        self.durable = durable
        self.committed = committed
        self.snapshots = snapshots
    }

    /// The last number up to which the replica has everything of its lineage.
    public var end: WriteNumber {
        record.isComplete ? WriteNumber(epoch: record.accepted, counter: applied) : record.common
    }

    /// Whether it makes sense: it comes over a wire.
    func isValid(answering epoch: Epoch) -> Bool {
        SnapshotMark.areValid(snapshots) && hasValidCounters(answering: epoch)
    }

    private func hasValidCounters(answering epoch: Epoch) -> Bool {
        record.promised == epoch && record.accepted <= epoch
            && applied <= WriteNumber.counterMax && durable <= applied
            && record.common.isValid && committed.isValid
            && record.common.epoch <= record.accepted
            && Lineage(checking: record.lineage.ends, of: record.accepted) != nil
            || record.accepted.rawValue == 0 && record.lineage.ends.isEmpty && applied == 0
                && record.promised == epoch && record.common == .zero
    }
}
