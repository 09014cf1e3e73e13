// What a reactor has of iSCSI.

internal import BlockCore
internal import Reactor
internal import SCSI

/// Somebody who asked for tasks to be aborted, and waits for their operations to end.
struct ISCSIAbortWait {
    /// What is answered then.
    enum Answer {
        /// A task management request.
        case management(taskTag: UInt32)
        /// A command that aborted others' tasks.
        case command(ISCSISlotReference, SCSIReply)
    }

    /// Requests about tasks of one connection that may wait; one more is rejected.
    static var countMax: Int { 8 }

    var connection: Int32
    var generation: UInt32
    var answer: Answer
    var slots: Set<ISCSISlotReference>
    /// The connections of the unit are closed when it was answered.
    var closesAll = false
}

/// What a reactor has of iSCSI; on a node without it, nothing is allocated.
final class ISCSIFront {
    /// Connections for which memory is mapped at a time; costs what is used of it.
    static let lotCount = 16
    /// Sense data, and what of REQUEST SENSE's size is encoded.
    private static let senseByteCount = 256

    var connections: [ISCSIConnection] = []
    var freeConnections: [Int32] = []
    var arenas: [MemoryArena] = []
    var units: [ExportKey: ISCSIUnit] = [:]
    let ready: FixedRing<Int32>
    let flushing: FixedRing<Int32>
    /// Slots whose next request could not be submitted while completions were handled.
    let again: FixedRing<ISCSISlotReference>
    var waits: [ISCSIAbortWait] = []
    /// Requests that stores have, of all connections.
    var requestCount = 0
    var nextHandle: UInt16 = 0
    /// Where initiators reach the node: `address:port,group`.
    var portals: [String] = []

    private let arena: MemoryArena
    /// Where logical units put their answers.
    let dataIn: ByteRegion
    let sense: ByteRegion

    init(limits: NodeLimits) {
        arena = MemoryArena(
            byteCount: (LogicalUnit.dataInByteCountMax + 4095) & ~4095 + 4096,
            usesHugePages: false
        )
        dataIn = arena.allocate(byteCount: LogicalUnit.dataInByteCountMax)
        sense = arena.allocate(byteCount: Self.senseByteCount)
        ready = FixedRing(capacityMin: limits.iscsiConnectionCountMax)
        flushing = FixedRing(capacityMin: limits.iscsiConnectionCountMax)
        // Everything that waits for one exclusive operation may go on at once.
        again = FixedRing(capacityMin: limits.iscsiConnectionCountMax * ISCSIConnection.slotCountMax)
    }

    /// A handle for a new session; never 0.
    func takeHandle() -> UInt16 {
        nextHandle = nextHandle == .max ? 1 : nextHandle + 1
        return nextHandle
    }
}
