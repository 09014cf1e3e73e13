internal import BlockCore
internal import CLinux

/// What an operation does.
enum OperationKind: UInt8, BitwiseCopyable {
    case free
    case read
    case write
    case writeDurable
    case flush
    case discard
    case accept
    case receive
    case send

    var isTransfer: Bool { self == .read || self == .write || self == .writeDurable }
    var isDevice: Bool { isTransfer || self == .flush || self == .discard }
}

/// Where an operation stands.
enum OperationState: UInt8, BitwiseCopyable {
    /// The kernel has it, or the engine's queue.
    case inFlight
    /// An `accept` whose last connection the owner has not taken yet.
    case parked
    /// Held back by an injected fault, or until it is worth another try.
    case delayed
}

/// One operation, from its submission to its last completion.
struct Operation: BitwiseCopyable {
    var kind = OperationKind.free
    var state = OperationState.inFlight
    var isCancelled = false
    var generation: UInt32 = 0
    var descriptor: Int32 = -1
    /// Index of the attached device, or -1 for a socket.
    var device: Int32 = -1
    /// The neighbours in the descriptor's list, or in the free list.
    var next: Int32 = -1
    var previous: Int32 = -1
    var token: UInt64 = 0
    var requestToken: UInt64 = 0
    /// What is transferred; for a send, the regions are in the slot's vector.
    var region = ByteRegion.empty
    var offset: UInt64 = 0
    var byteCount: UInt64 = 0
    var doneByteCount: UInt64 = 0
    /// A fault's bound on the first transfer, in bytes.
    var firstByteCountMax = UInt64.max
    /// When it is started, while it is delayed.
    var dueNanoseconds: UInt64 = 0
    /// Whether it is delayed because there was no space.
    var isWaitingForSpace = false
    /// How often it was tried again.
    var retryCount: UInt16 = 0
    /// Of a send: regions in the vector, and the first that is not yet sent.
    var vectorCount: UInt32 = 0
    var vectorIndex: UInt32 = 0
}

/// What the kernel gives back with a completion: which slot, in which of its lives, and why.
struct UserData: BitwiseCopyable {
    enum Kind: UInt8 {
        case operation = 1
        case wake = 2
        case cancel = 3
    }

    var rawValue: UInt64

    static var slotCountMax: Int { 1 << 24 }

    init(rawValue: UInt64) { self.rawValue = rawValue }

    init(_ kind: Kind, slot: Int = 0, generation: UInt32 = 0) {
        rawValue = UInt64(kind.rawValue) << 56 | UInt64(generation) << 24 | UInt64(slot)
    }

    var kind: Kind? { Kind(rawValue: UInt8(truncatingIfNeeded: rawValue >> 56)) }
    var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 24) }
    var slot: Int { Int(rawValue & 0xff_ffff) }
}

/// The reactor's operations, at fixed addresses for as long as the kernel may touch them.
///
/// A slot is free only after its last completion, even when nobody waits for it any more; its
/// generation grows when it is freed, so that a completion that comes too late names nobody.
final class OperationTable {
    let slots: FixedArray<Operation>
    private var freeHead: Int32
    private(set) var inFlightCount = 0

    // The vectors and message headers of sends. Mapped, not allocated: the pages of slots that
    // never send are never touched.
    private let vectorMemory: MemoryArena
    private let messageOffset: Int
    private static var messageStride: Int { 64 }

    init(count: Int) {
        precondition(count > 0 && count <= UserData.slotCountMax, "operationCountMax: 1 to 2^24")
        precondition(MemoryLayout<ByteRegion>.size == 16, "a region is not laid out as an iovec")
        // SAFETY: only sizes of types are looked at.
        unsafe precondition(MemoryLayout<msghdr>.size <= Self.messageStride, "msghdr has grown")
        slots = FixedArray(repeating: Operation(), count: count)
        for index in 0..<count { slots[index].next = index + 1 < count ? Int32(index + 1) : -1 }
        freeHead = 0
        messageOffset = count * Reactor.sendRegionCountMax * MemoryLayout<ByteRegion>.stride
        vectorMemory = MemoryArena(
            byteCount: messageOffset + count * Self.messageStride,
            usesHugePages: false
        )
    }

    /// Takes a free slot; the caller has checked that there is one.
    func take(_ kind: OperationKind, token: UInt64) -> Int {
        precondition(freeHead >= 0, "operation table full: raise operationCountMax")
        let slot = Int(freeHead)
        freeHead = slots[slot].next
        let generation = slots[slot].generation
        slots[slot] = Operation(kind: kind, generation: generation, token: token)
        inFlightCount += 1
        return slot
    }

    /// Ends a slot's life.
    func free(_ slot: Int) {
        slots[slot].kind = .free
        slots[slot].generation &+= 1
        slots[slot].next = freeHead
        freeHead = Int32(slot)
        inFlightCount -= 1
    }

    func userData(_ slot: Int) -> UInt64 {
        UserData(.operation, slot: slot, generation: slots[slot].generation).rawValue
    }

    /// The regions that a slot sends: an array of struct iovec, as the kernel sees it.
    @unsafe
    func vector(_ slot: Int) -> UnsafeMutablePointer<ByteRegion> {
        let stride = Reactor.sendRegionCountMax * MemoryLayout<ByteRegion>.stride
        // SAFETY: the memory is only ever used as regions; `slot` is below the count, checked
        // where it came from.
        return unsafe vectorMemory.region.slice(slot * stride, stride).address
            .assumingMemoryBound(to: ByteRegion.self)
    }

    /// The message header of a slot's send.
    @unsafe
    func message(_ slot: Int) -> UnsafeMutablePointer<msghdr> {
        // SAFETY: as above; the stride keeps headers aligned.
        unsafe vectorMemory.region
            .slice(messageOffset + slot * Self.messageStride, Self.messageStride).address
            .assumingMemoryBound(to: msghdr.self)
    }
}

/// What a reactor knows of a descriptor: its operations, so that a close can wait for them.
struct DescriptorEntry: BitwiseCopyable {
    var head: Int32 = -1
    var operationCount: Int32 = 0
    /// A receive or an accept is in flight.
    var hasReader = false
    /// A send is in flight.
    var hasWriter = false
    var isClosing = false
    /// The aio engine's epoll watches it.
    var isWatched = false
    var closeToken: UInt64 = 0
}
