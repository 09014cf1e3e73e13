// Device requests in flight: who asked, and what the bytes must be.

internal import BlockCore
internal import StorageIO

/// Who waits for a device request.
enum OperationKind: UInt8, BitwiseCopyable {
    /// Blocks of a read request.
    case requestRead
    /// The old copy of a block that is overwritten in part.
    case scratchRead
    /// A map page; `owner` is the frame.
    case pageRead
    /// A batch; `owner` is its slot.
    case batchWrite
    /// A flush; `location` is the batch it covers.
    case flush
    /// A superblock.
    case superblockWrite
    /// A read of recovery.
    case recoveryRead
    /// A superblock written by recovery.
    case recoveryWrite
    /// A read of the cleaner.
    case cleanerRead

    /// Whether clients alone may keep such operations in flight for ever.
    var isRead: Bool {
        switch self {
        case .requestRead, .scratchRead, .pageRead: true
        case .batchWrite, .flush, .superblockWrite, .recoveryRead, .recoveryWrite, .cleanerRead:
            false
        }
    }
}

/// One device request in flight.
struct Operation: BitwiseCopyable {
    var kind = OperationKind.flush
    var isUsed = false
    var generation: UInt32 = 0
    /// Request slot, frame or batch slot.
    var owner: Int32 = -1
    /// For a scratch read 0 is the head and 1 the tail; for a page read it is the attempt.
    var part: UInt8 = 0
    /// The cache frame that is being filled, or -1.
    var cacheFrame: Int32 = -1
    var blockCount: UInt32 = 0
    /// Blocks from the start of the device.
    var location: UInt64 = 0
    /// The first block of the volume that it covers.
    var firstBlock: UInt64 = 0
    var region = ByteRegion.empty
    var next: Int32 = -1
}

/// A fixed table of operations, with room for the checksums their blocks must have.
final class OperationTable {
    /// The most blocks one operation reads: 1 MiB.
    static let blockCountMax = 256

    let operations: FixedArray<Operation>
    /// `blockCountMax` checksums per operation.
    let checksums: FixedArray<UInt32>
    private var freeHead: Int32 = -1
    private(set) var inFlightCount = 0
    /// Of these, reads for clients and of map pages.
    private(set) var readCount = 0

    init(count: Int) {
        operations = FixedArray(repeating: Operation(), count: count)
        checksums = FixedArray(repeating: 0, count: count * OperationTable.blockCountMax)
        for index in stride(from: count - 1, through: 0, by: -1) {
            operations[index].next = freeHead
            freeHead = Int32(index)
        }
    }

    /// Operations kept for map pages, batches and flushes, so that reads cannot starve them.
    static let reservedCount = 128

    /// Of these, operations kept for batches and flushes alone.
    static let pageReserveCount = 64

    /// Whether a block request may take another operation.
    var hasRoom: Bool {
        inFlightCount < operations.count - OperationTable.reservedCount
    }

    /// Takes an operation.
    ///
    /// - Precondition: one is free; requests ask ``hasRoom`` first, the others are few.
    func take(_ kind: OperationKind, owner: Int32) -> Int {
        precondition(freeHead >= 0, "operation table exhausted")
        let index = Int(freeHead)
        freeHead = operations[index].next
        let generation = operations[index].generation
        var operation = Operation()
        operation.kind = kind
        operation.isUsed = true
        operation.generation = generation
        operation.owner = owner
        operations[index] = operation
        inFlightCount += 1
        if kind.isRead { readCount += 1 }
        return index
    }

    func token(_ index: Int) -> UInt64 {
        UInt64(operations[index].generation) << 32 | UInt64(index)
    }

    /// The operation of a completion, or nil for one that is not in flight.
    func find(_ token: UInt64) -> Int? {
        let index = Int(token & 0xFFFF_FFFF)
        guard index < operations.count, operations[index].isUsed,
            operations[index].generation == UInt32(token >> 32)
        else { return nil }
        return index
    }

    func release(_ index: Int) {
        operations[index].isUsed = false
        operations[index].generation &+= 1
        operations[index].next = freeHead
        freeHead = Int32(index)
        inFlightCount -= 1
        if operations[index].kind.isRead { readCount -= 1 }
    }
}

/// Whole blocks for merging partial writes.
final class ScratchPool {
    private let memory: ByteRegion
    private let free: FixedRing<Int32>

    init(count: Int, arena: MemoryArena) {
        memory = arena.allocate(byteCount: count * 4096)
        free = FixedRing(capacityMin: count)
        for index in 0..<count { free.append(Int32(index)) }
    }

    func take() -> Int32? { free.popFirst() }
    func give(_ index: Int32) { free.append(index) }
    var availableCount: Int { free.count }
    func block(_ index: Int32) -> ByteRegion { memory.slice(Int(index) * 4096, 4096) }
}
