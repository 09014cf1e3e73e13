// A process of a simulated cluster: its clock, its replica, its primary, its clients.

internal import BlockCore
internal import Replication

/// What can happen in a simulated cluster.
enum ClusterEvent {
    /// Time passes in a process.
    case tick(process: Int, life: Int)
    /// The first message in a direction of a connection arrives.
    case arrive(connection: Int, toReplica: Bool)
    /// A primary tries to connect to the replica in a slot.
    case connect(process: Int, primary: Int, slot: Int)
    /// The disk has done something for a replica.
    case stored(process: Int, life: Int, StorageEnd)
    /// A client of a primary may send its next request.
    case client(process: Int, primary: Int)
    /// The metadata service answers who asked for the next epoch.
    case epochGranted(process: Int, life: Int)
    /// Something goes wrong.
    case disturb
    /// It does so no longer.
    case heal(Healing)
    /// A store's room is used up, by something else.
    case fill
    /// Somebody outside looks whether there is a primary.
    case watch
    /// An operator has a replica moved.
    case beginMove
    /// Who manages the volume goes on with a move.
    case advanceMove
    /// The metadata is to name the new replica, under an epoch.
    case decideMove(epoch: UInt64, instance: ReplicaInstance)
    /// A primary hears that it does.
    case endMove(process: Int, primary: Int, instance: ReplicaInstance)
}

/// The end of a storage operation of a replica.
enum StorageEnd {
    /// A write, an old block or a record is in memory; what reads see.
    case appended(number: WriteNumber, range: BlockRange, value: UInt64)
    case filled(ReplyAddress, block: UInt64, BlockCopy)
    case recorded(ReplicaRecord)
    /// A flush begins, and covers what is in memory now.
    case flushing
    case persisted(position: Int)
    case flushed(position: Int)
    case read(ReplyAddress, BlockRange)
    case snapshot(SnapshotMark, isStreamed: Bool)
    case skipped
    case dropped(UInt64)
    case weighed(ReplyAddress, BlockRange)
    case fetched(ReplyAddress, ReplicaView, UInt64)
    case scanned(ReplyAddress, ReplicaView, above: WriteNumber, from: UInt64)
    case repaired(block: UInt64, BlockCopy)
}

/// The end of a fault.
enum Healing {
    case restart(process: Int)
    case thaw(process: Int, life: Int)
    case reach(from: Int, to: Int)
    case metadata
    case disk(process: Int)
    case room(process: Int)
}

/// A connection of a primary to a replica: two queues, each in order.
struct SimulatedConnection {
    enum Item {
        case toReplica(PrimaryMessage)
        case toPrimary(ReplicaMessage)
        case closed
    }
    let primaryProcess: Int
    /// Which of the process's primaries it is for.
    let primary: Int
    let replicaProcess: Int
    let replicaLife: Int
    let slot: Int
    var isBroken = false
    var toReplica: [Item] = []
    var toPrimary: [Item] = []
    var lastToReplica: UInt64 = 0
    var lastToPrimary: UInt64 = 0
}

/// A request of a client under way.
struct ClientOperation {
    enum Kind { case read, write, flush, snapshot }
    var kind: Kind
    var range: BlockRange
    /// Of a write its first block's; of a snapshot its id.
    var value: UInt64
    var isForced: Bool
    /// When it was sent, in steps.
    var start: UInt64
    /// The same in nanoseconds.
    var sentAt: UInt64
    /// How often it was sent already, and every replica had damage.
    var failureCount = 0
}

/// One process.
///
/// What is volatile goes with its life.
final class SimulatedProcess {
    let index: Int
    /// How fast its clock runs, in millionths, and where it began.
    let clockRate: UInt64
    let clockOffset: UInt64

    var isAlive = true
    var isFrozen = false
    /// Grows with each start.
    var life = 1
    /// What waits for a frozen process.
    var inbox: [ClusterEvent] = []

    var disk: ReplicaDisk?
    /// Grows with each start of a replica.
    var storeLife = 1
    var replica: ReplicaMachine?
    /// When the last write that was asked for is in memory, and the last flush done.
    var lastAppendAt: UInt64 = 0
    var lastFlushAt: UInt64 = 0
    var isDiskSlow = false
    /// Its disk answers nothing, though the process goes on.
    var isDiskStalled = false
    /// What the disk will have done then.
    var stalledEnds: [ClusterEvent] = []

    /// What the resyncs of all primaries of this life may have on their way.
    var resyncs: ResyncBudget
    var primary: PrimaryMachine?
    /// Grows with each primary it has been.
    var primaryCount = 0
    /// The process of the replica in each of the primary's slots; −1 where none is.
    var targets: [Int] = []
    /// The connection to each slot's replica.
    var links: [Int?] = []
    var operations: [UInt64: ClientOperation] = [:]
    /// Payloads that the primary has been given and not given back, with how often.
    var payloads: [UInt64: Int] = [:]
    /// When somebody was last missing whom its reads need.
    var lastShortAt: UInt64 = 0
    var hasServed = false
    /// Whether its replica has moved elsewhere, and is to be deleted.
    var isLeft = false
    var isAskingForEpoch = false

    init(
        index: Int,
        clockRate: UInt64,
        clockOffset: UInt64,
        resyncs: ResyncBudget
    ) {
        self.resyncs = resyncs
        self.index = index
        self.clockRate = clockRate
        self.clockOffset = clockOffset
    }

    /// The process's own time.
    func localTime(_ now: UInt64) -> Instant {
        Instant(nanoseconds: clockOffset + now / 1_000_000 * clockRate + now % 1_000_000)
    }
}
