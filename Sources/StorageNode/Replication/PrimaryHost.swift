// A volume that this node serves as its primary: its machine, its replicas' connections, and the
// clients' requests as the machine takes them.
//
// Invariants
//   a client's request ends once: when all its pieces have, or when the volume is given away
//   what a primary left open, because its epoch ended without another process having the volume,
//     is asked again of the next one: nobody was told that it happened
//   a request that is not made of whole blocks is alone with its blocks from its read to its end
// Faults: replicas come and go; requests wait while too few are there. Deposed, its connections are
// cut before its requests are let go, so that no client hears an error for what may have happened.

internal import BlockCore
internal import LogStore
internal import Replication

/// A volume served by this node; belongs to one reactor.
final class PrimaryHost {
    /// One of the volume's replicas, as its primary reaches it.
    struct Slot {
        var placement: ServicePlacement
        /// Whether its replica has moved elsewhere, and none is here.
        var isVacant = false
        /// A replica of the same reactor.
        var local: ReplicaHost?
        /// The name of the link that is up, local or not.
        var link: LinkID?
        /// The connection, while there is one.
        var peer: PeerLink?
        /// When to connect again, and how long the pause before that was.
        var connectAt = Instant(nanoseconds: 0)
        var pauseNanoseconds: UInt64 = 0
    }

    /// Its place in the reactor's table, which is its handle for connections.
    let index: Int32
    var assignment: ServiceAssignment
    /// Nil between two epochs.
    var machine: PrimaryMachine?
    var slots: [Slot]
    /// Why the last machine stopped, when that was not for a higher epoch.
    var stopReason: PrimaryStop?
    /// A higher epoch is promised: another process has the volume.
    var isDeposed = false
    /// It takes no new requests and goes when those in work have ended.
    var isEnded = false
    /// Nothing of it is in work any more; connections on their way out may still refer to it.
    var isGone = false
    /// When it is let go: its connections have been told to go by then.
    var abandonAt: Instant?
    /// Connections that have it open, of all reactors.
    var connectionCount = 0
    var operations = OperationList()
    /// Requests that wait for room, or for blocks that another one has, in order.
    var waiting = GrowingQueue<Int32>()
    /// Something came free since they were last tried.
    var isWaitingWorthwhile = false
    var isMarked = false
    /// What its owner was told last.
    var lastState: ServiceState?
    /// The same of the room in the stores of its replicas.
    var room = ServiceRoomWatch()
    /// Snapshots that the machine was asked for and has not answered, by the request's token.
    var snapshotWaits: [UInt64: SnapshotWait] = [:]
    private var snapshotTokenCount: UInt64 = 0
    /// Told when it was given back.
    var onEnded: (() -> Void)?

    init(index: Int32, assignment: ServiceAssignment) {
        self.index = index
        self.assignment = assignment
        slots = assignment.placements.map { Slot(placement: $0) }
    }

    /// How long the last flush of a service that is given back may take.
    static let endNanosecondsMax: UInt64 = 3_000_000_000
    /// How long connections have to go before their requests end.
    static let dropNanoseconds: UInt64 = 20_000_000

    /// The token of the flush of its own.
    static var ownFlushToken: UInt64 { UInt64.max }

    /// A token for a snapshot; no piece of a request has one like it.
    func nextSnapshotToken() -> UInt64 {
        snapshotTokenCount = (snapshotTokenCount + 1) % Self.snapshotTokenCountMax
        return Self.ownFlushToken - 1 - snapshotTokenCount
    }

    static func isSnapshotToken(_ token: UInt64) -> Bool {
        token < ownFlushToken && token >= ownFlushToken - 1 - snapshotTokenCountMax
    }

    private static var snapshotTokenCountMax: UInt64 { 1 << 20 }
}

/// A snapshot that the machine was asked for, and those who wait for it.
struct SnapshotWait {
    var id: UInt64
    var waiters: [Waiter]

    struct Waiter {
        /// When it is told that nobody knows.
        var deadline: Instant
        var done: (Result<WriteNumber, ServiceError>) -> Void
    }

    /// How long a snapshot is waited for: longer than a takeover, shorter than its asker's patience.
    static let nanosecondsMax: UInt64 = 10_000_000_000
}

/// A client's request in work.
struct VolumeOperation: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// Nothing of it is handed out.
        case waiting
        /// The blocks that it covers in part are being read.
        case readingEdges
        /// Its pieces are handed out and in work.
        case working
    }

    var state = State.free
    var request = StoreRequest(
        kind: .flush,
        volume: VolumeHandle(0),
        offset: 0,
        byteCount: 0,
        token: 0
    )
    /// All blocks that it touches.
    var first: UInt64 = 0
    var end: UInt64 = 0
    /// The next block to hand out.
    var cursor: UInt64 = 0
    var pendingCount: Int32 = 0
    /// Why it fails: a piece of it cannot be read anywhere, or has no room.
    var failure: StoreStatus?
    /// The primary stopped while pieces were in work: it begins anew.
    var isOpen = false
    /// What the first and the last block held, where it covers them in part.
    var head = PayloadID.zeroes
    var tail = PayloadID.zeroes
    /// It stands in the queue of those that wait.
    var isQueued = false
    /// Next in the list of free entries, or -1.
    var next: Int32 = -1

    var isChange: Bool {
        switch request.kind {
        case .write, .writeZeroes, .trim: true
        case .read, .flush, .cache, .blockStatus, .scan: false
        }
    }

    /// Whether it covers a block in part and must keep the rest of it.
    var isPartial: Bool {
        guard request.kind == .write || request.kind == .writeZeroes else { return false }
        return (request.offset | request.byteCount) & 4095 != 0
    }

    var coversHead: Bool { request.offset & 4095 == 0 }
    var coversTail: Bool { (request.offset + request.byteCount) & 4095 == 0 }
}

/// The requests in work of one volume; grows to what was needed at some time.
struct OperationList {
    private var entries: [VolumeOperation] = []
    private var freeHead: Int32 = -1
    /// Entries in use.
    private(set) var count = 0
    /// Requests in use that cover blocks in part.
    private(set) var partialCount = 0

    subscript(index: Int32) -> VolumeOperation {
        get { entries[Int(index)] }
        _modify { yield &entries[Int(index)] }
    }

    mutating func take(_ operation: VolumeOperation) -> Int32 {
        count += 1
        if operation.isPartial { partialCount += 1 }
        guard freeHead >= 0 else {
            entries.append(operation)
            return Int32(entries.count - 1)
        }
        let index = freeHead
        freeHead = entries[Int(index)].next
        entries[Int(index)] = operation
        return index
    }

    mutating func release(_ index: Int32) {
        precondition(entries[Int(index)].state != .free, "a request that ended twice")
        if entries[Int(index)].isPartial { partialCount -= 1 }
        entries[Int(index)] = VolumeOperation()
        entries[Int(index)].next = freeHead
        freeHead = index
        count -= 1
    }

    /// The requests in work.
    var indices: [Int32] {
        entries.indices.filter { entries[$0].state != .free }.map { Int32($0) }
    }

    /// Whether a change must wait for another one that has some of its blocks.
    ///
    /// Two changes of whole blocks need not: whoever writes at the same time may come in any order.
    func isBlocked(_ operation: VolumeOperation, index: Int32) -> Bool {
        guard partialCount > 0 else { return false }
        for other in entries.indices where Int32(other) != index {
            let entry = entries[other]
            guard entry.state == .working || entry.state == .readingEdges, entry.isChange,
                entry.isPartial || operation.isPartial,
                entry.first < operation.end, operation.first < entry.end
            else { continue }
            return true
        }
        return false
    }
}
