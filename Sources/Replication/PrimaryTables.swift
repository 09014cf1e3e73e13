// What a primary keeps of each replica, write and request.

internal import BlockCore

/// What a primary knows of the replica in a slot.
struct Peer {
    var instance: ReplicaInstance
    /// The life that it last introduced itself with.
    var incarnation: Incarnation?
    var isLinked = false
    /// What it answered to the seal over this link.
    var status: ReplicaStatus?
    /// Whether `open` was sent over this link.
    var isOpening = false
    /// Whether it has answered that, and takes the stream.
    var isStreaming = false
    /// Whether it is to be given snapshots that it missed before it takes the stream.
    var isStaging = false
    /// Whether what the lineage does not have of its blocks was overwritten in that.
    var areStraysGone = false

    /// Whether it counts.
    var isComplete = false
    /// Counters of this epoch, as it last said.
    var applied: UInt64 = 0
    var durable: UInt64 = 0
    /// The next write to send.
    var nextToSend: UInt64 = 1
    /// Where the stream it now takes began.
    var streamStart: UInt64 = 1
    /// Up to where its past is the lineage's, while it is not complete.
    var common = WriteNumber.zero
    /// Whether it lacks nothing but what is renewed.
    var isNear = false
    /// Whether the window keeps what it does not have durable.
    var isHolding = true
    /// Up to where a flush was asked for.
    var flushAsked: UInt64 = 0
    /// Whether it forgot, and was not told yet that it has everything again.
    var hasForgotten = false
    /// Until when its grant holds, by this process's clock.
    var grantEnd: Instant?
    var resync: Resync?
    /// Whether a read was not answered in time, and nothing was since.
    var isLate = false
    /// Whether it is on the primary's node.
    var isLocal = false

    /// What its store has room for, as it last said over this link.
    var room = ReplicaRoom.plentiful
    /// The last write that was numbered without asking for room in its store.
    var lastUnpromised: UInt64 = 0
    /// Since when the next write of its stream is not sent, for want of room.
    var waitsForRoomSince: Instant?
    /// Since when it does not get on for want of room, as far as that was noticed.
    var stuckForRoomSince: Instant?
    /// Whether it is to be opened where the stream is now: it is without room for what comes before.
    var isPassedBy = false

    init(instance: ReplicaInstance) { self.instance = instance }

    /// What a slot has that no replica is in.
    static var vacant: Peer {
        var result = Peer(instance: ReplicaInstance(0))
        result.isHolding = false
        return result
    }

    var isVacant: Bool { instance == ReplicaInstance(0) }

    /// Whether blocks may be sent to it that it lacks.
    var isFillable: Bool { (isStreaming || isStaging && !isOpening) && !isComplete }
}

/// A write between its numbering and the moment when all who are streamed to have it durable.
struct WindowEntry: BitwiseCopyable {
    var range = BlockRange(first: 0, count: 0)
    var payload = PayloadID.zeroes
    /// The id of a snapshot, which has neither blocks nor bytes; 0 for a write.
    var snapshot: UInt64 = 0
    /// The replicas that had room for it when it was numbered, or since.
    var promised = SlotSet()
    /// What it and all writes of the epoch before it take of a store at most.
    var chargedThrough: UInt64 = 0
}

/// A client's request.
struct ClientRequest: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable { case free, read, write, flush, snapshot }
    var kind = Kind.free
    var token: UInt64 = 0
    var range = BlockRange(first: 0, count: 0)
    var payload = PayloadID.zeroes
    var isForced = false
    /// A snapshot's id.
    var snapshot: UInt64 = 0
    /// A write's counter, or up to where all must be hardened for a flush.
    var through: UInt64 = 0
    /// A read: from whom an answer may still come; nobody while it waits, and once it has one.
    var asked = SlotSet()
    /// A read: when the last of them was asked.
    var askedAt = Instant(nanoseconds: 0)
    /// A read: in which slots a block of it was damaged, when it last was, and whether all that
    /// could be asked were asked again since.
    var failed = SlotSet()
    var failedAt = Instant(nanoseconds: 0)
    var isRetried = false
    /// A read: the counter that must be committed before what was read may be shown.
    var shownAfter: UInt64 = 0
    /// Tells apart the requests that a slot had one after the other, and the tries of one.
    var generation: UInt32 = 0
}

/// Blocks above a number, found by scan after scan.
struct BlockWalk {
    /// The replica that is scanned.
    var slot: Int
    var above: WriteNumber
    /// What is scanned, and where the blocks that were found are fetched.
    var scanned = ReplicaView.volume
    var fetched = ReplicaView.volume
    /// Where the next scan begins; nil when the last one came to the end.
    var cursor: UInt64? = 0
    /// The scan under way, or 0.
    var token: UInt64 = 0
    var todo: [ScanEntry] = []
    var inflightCount = 0
    /// The counter that the stream must have passed before what was found here can be relied on:
    /// of rewritten strays, and of whatever of this epoch was seen or filled ahead of the stream.
    var passCounter: UInt64 = 0
    /// Whether a block was left out, because the replica has no room for it.
    var hasLeftOut = false

    init(slot: Int, above: WriteNumber) {
        self.slot = slot
        self.above = above
    }

    var isDone: Bool { cursor == nil && token == 0 && todo.isEmpty && inflightCount == 0 }
}

/// A replica's way back to completeness.
struct Resync {
    enum Phase {
        /// As `strays` and `missing`, of the oldest snapshot that it lacks.
        case stageStrays
        case stageMissing
        /// Told to keep that snapshot.
        case keeping
        /// Finding and overwriting blocks that the lineage does not have.
        case strays
        /// Sending blocks that the replica does not have.
        case missing
        /// Waiting until the stream has passed everything.
        case passing
        /// Told to be complete.
        case told
    }
    var phase: Phase
    var walk: BlockWalk
    /// The snapshot that it is given, and what blocks are overwritten under that do not belong there.
    var stage: SnapshotMark?
    var stageNumber = WriteNumber.zero
}

/// A block on its way from one replica to where it is needed.
struct Fetch {
    enum Purpose {
        case renewal, stray, missing, stageStray, stageMissing, repair

        /// Whether nobody but the replica that lacks it waits for the block.
        var isUnhurried: Bool {
            switch self {
            case .missing, .stageStray, .stageMissing: true
            case .renewal, .stray, .repair: false
            }
        }
    }
    var token: UInt64
    var purpose: Purpose
    /// Where it is to be looked for, and where it was asked for last.
    var view = ReplicaView.volume
    var asked = ReplicaView.volume
    /// Whose resync, or repair, it is for.
    var slot: Int
    var entry: ScanEntry
    /// The replica that was asked; −1 while there is none to ask.
    var helper: Int
    /// The number of the copy that was asked for, once it is known to be damaged: then any replica
    /// may have it, complete or not.
    var wanted: WriteNumber?
    /// Those that were asked in vain.
    var failed = SlotSet()
    /// When it is asked for again, once it is damaged in all.
    var retryAt: Instant?
    /// Missing blocks: whether the block is on its way to the replica.
    var isFilling = false
    /// Strays: whether a newer write has made it needless.
    var isCancelled = false

    var isUnhurried: Bool { purpose.isUnhurried }
}
