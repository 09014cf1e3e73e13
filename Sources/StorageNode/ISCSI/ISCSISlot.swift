// A command in work, from its header to its response.

internal import BlockCore
internal import SCSI

/// A command in work, at the place of its task in the session's table.
struct ISCSISlot: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable {
        case free
        /// Its data is coming.
        case receiving
        /// It waits for others' changes of the unit.
        case queued
        /// The store has a request of it, or will have in this turn.
        case working
        /// Its answer is on its way.
        case answering
    }

    var state = State.free
    /// Nobody waits for its answer.
    var isAborted = false
    /// It counts among the unit's changes, or is the one that excludes them.
    var isChanging = false
    /// Grows with every use, so that a late completion is told from one for the present user.
    var generation: UInt32 = 0
    var command = SCSICommand(
        block: SCSICommandBlock(high: 0, low: 0),
        nexus: NexusIndex(0),
        dataOutByteCount: 0,
        dataInByteCount: 0
    )
    var plan = SCSIPlan(.reply(.good))
    /// What the command block asks for, as the first plan said it.
    var dataOutByteCount: UInt32 = 0
    var dataInByteCount: UInt32 = 0
    var operation = BlockOperation(.flush)
    var reply = SCSIReply.good

    /// Data of the initiator, or for it; empty when it has none.
    var buffer = ByteRegion.empty
    /// What is read to be compared or changed, or written again and again.
    var second = ByteRegion.empty
    /// What goes to the initiator.
    var data = ByteRegion.empty
    /// Of `data`, the bytes that are on their way.
    var sentByteCount: UInt32 = 0
    /// A batch refers to a part of them: the memory goes with the last piece, and not before.
    var isReferenced = false
    /// When data of the initiator last came for it.
    var movedAt = Instant(nanoseconds: 0)

    /// Which of an operation's requests is next.
    var step: UInt32 = 0
    /// Of an operation that is many requests, how far it has come: an index, and bytes within.
    var index: Int32 = 0
    var progressByteCount: UInt64 = 0
}

/// A slot by its places, for queues.
struct ISCSISlotReference: BitwiseCopyable, Hashable, Sendable {
    var connection: Int32
    var task: Int32
    var generation: UInt32
}
