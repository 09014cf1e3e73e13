// The fixed table of requests in work on one reactor.

internal import BlockCore
internal import LogStore
internal import NBDSession
internal import NBDWire

/// A request in work, or a part of one.
///
/// A request of up to ``NodeLimits/partByteCountMax`` is `whole`: one slot, one buffer, one call
/// of the store. A larger READ or WRITE is `split`: its slot keeps the account, and each `part`
/// has a slot and a buffer of its own.
struct RequestSlot: BitwiseCopyable {
    enum Role: UInt8, BitwiseCopyable {
        case free
        case whole
        case split
        case part
    }

    static var none: Int32 { -1 }

    var role = Role.free
    /// Grows with every use, so that a late completion is told from one for the present user.
    var generation: UInt32 = 0
    var connection: Int32 = none
    /// The next in whichever list the slot is: free, deferred, or ready parts.
    var next: Int32 = none
    /// The request; for a part, its parent's.
    var request = NBDRequest(.flush, cookie: 0)
    /// The reply in the making, for a READ that is whole or split.
    var reply: NBDReadReply?
    /// Its memory; empty when it has none.
    var buffer = ByteRegion.empty
    /// What this slot covers: bytes from the start of the export.
    var offset: UInt64 = 0
    var byteCount: UInt64 = 0

    // What came of it.
    var status = StoreStatus.ok
    var data = ByteRegion.empty
    var holeMask: UInt64 = 0
    var holePartByteCount: UInt32 = 0
    var extentCount: UInt32 = 0
    /// For BLOCK_STATUS: the context whose extents `data` holds.
    var contextIndex: Int32 = 0

    // For a part.
    var parent: Int32 = none

    // For a split request.
    /// Bytes handed to parts so far, from the start of the request.
    var issuedByteCount: UInt64 = 0
    /// Bytes of a reply that must be whole, sent so far.
    var streamedByteCount: UInt64 = 0
    /// Parts in work or waiting to be sent.
    var partCount = 0
    /// The rest of it is not coming: the client has gone, or a part failed.
    var isAbandoned = false
    /// It stands in the connection's queue of replies, or its reply has begun.
    var isQueued = false
    /// Finished parts of a reply that must be whole, waiting for the ones before them.
    var readyHead: Int32 = none
}

/// The slots of one reactor; nothing allocates after `init`, and only slots that were in use at
/// some time have touched memory.
final class SlotTable {
    private let slots: SparseTable<RequestSlot>
    private let state: FixedArray<(freeHead: Int32, freeCount: Int)>

    /// The number of slots.
    let count: Int

    init(count: Int) {
        self.count = count
        slots = SparseTable(capacity: count)
        state = FixedArray(repeating: (freeHead: RequestSlot.none, freeCount: count), count: 1)
    }

    /// The number of free slots.
    var freeCount: Int { state[0].freeCount }

    subscript(index: Int32) -> RequestSlot {
        @inline(always) get { slots[Int(index)] }
        @inline(always) _modify { yield &slots[Int(index)] }
    }

    /// Takes a free slot; nil when all are taken.
    func take(_ role: RequestSlot.Role, connection: Int32, request: NBDRequest) -> Int32? {
        guard state[0].freeCount > 0 else { return nil }
        var index = state[0].freeHead
        if index == RequestSlot.none {
            index = Int32(slots.append(RequestSlot()))
        } else {
            state[0].freeHead = slots[Int(index)].next
        }
        state[0].freeCount -= 1
        var slot = RequestSlot()
        slot.role = role
        slot.generation = slots[Int(index)].generation
        slot.connection = connection
        slot.request = request
        slots[Int(index)] = slot
        return index
    }

    /// Frees a slot whose buffer was released or handed on.
    func release(_ index: Int32) {
        precondition(slots[Int(index)].role != .free, "a slot released twice")
        precondition(slots[Int(index)].buffer.isEmpty, "a slot released with its buffer")
        slots[Int(index)].role = .free
        slots[Int(index)].generation &+= 1
        slots[Int(index)].next = state[0].freeHead
        state[0].freeHead = index
        state[0].freeCount += 1
    }
}
