// One initiator's connection on its reactor: what it is doing and what it holds.

internal import BlockCore
internal import ISCSISession
internal import ISCSIWire
internal import Reactor
internal import SCSI

/// The memory of a connection; pages never touched cost nothing.
struct ISCSIMemory {
    /// Bytes received at a time.
    static let receiveByteCount = 128 << 10
    /// Responses of a turn: headers, and data that is copied beside them.
    static let transmitByteCount = 128 << 10
    static var byteCount: Int {
        receiveByteCount + 2 * transmitByteCount + (ISCSISession.memoryByteCount + 4095) & ~4095
    }

    let receive: ByteRegion
    let transmit: (ByteRegion, ByteRegion)
    let session: ByteRegion

    init(_ region: ByteRegion) {
        receive = region.slice(0, Self.receiveByteCount)
        let first = region.slice(Self.receiveByteCount, Self.transmitByteCount)
        let offset = Self.receiveByteCount + Self.transmitByteCount
        transmit = (first, region.slice(offset, Self.transmitByteCount))
        session = region.suffix(from: offset + Self.transmitByteCount)
    }
}

/// An initiator's connection, made once per place in the table and used again.
///
/// One thread owns it: that of the volume, once it is known which one the initiator wants.
final class ISCSIConnection {
    enum State: UInt8 {
        /// The place is free.
        case free
        /// Login.
        case login
        /// Full feature phase.
        case open
        /// No more input; what was said is sent, then it closes.
        case draining
        /// The socket is being closed.
        case closing
        /// The socket is closed; requests still in work at a store hold the place.
        case closed
    }

    let index: Int32
    let session: ISCSISession
    let memory: ISCSIMemory
    unowned let worker: Worker
    /// Commands in work at a time.
    static var slotCountMax: Int {
        ISCSISession.taskCountMax + ISCSISession.immediateTaskCountMax
    }
    var slots = FixedArray(repeating: ISCSISlot(), count: slotCountMax)
    /// Slots that are not free.
    var slotCount = 0
    /// Bytes of the pool that it holds.
    var heldByteCount = 0

    var state = State.free
    var generation: UInt32 = 0
    var socket = Socket(descriptor: -1)
    /// The volume, from the end of the login on.
    var unit: ISCSIUnit?
    var nexus = NexusIndex(0)
    var isNexusAttached = false

    // Input.
    var receiveStart = 0
    var receiveEnd = 0
    var isReceiving = false
    /// Input waits for responses to go out.
    var isBlocked = false
    var isReady = false
    /// What came before the target was known: it goes along when another reactor has the target.
    var loginBytes: [UInt8] = []
    /// The reactor that has the target, when it is another one.
    var destination: Int?
    /// When it is dropped unless its login is over; nil afterwards.
    var deadline: Instant?
    var heardAt = Instant(nanoseconds: 0)
    /// It was asked whether it is still there, and has not answered.
    var isPinged = false

    // Output.
    var filling = ReplyBatch()
    var sending = ReplyBatch()
    var isSending = false
    var sendingSince: Instant?
    var wantsFlush = false
    /// Tasks whose answers wait for room, in order.
    let deferred = FixedRing<Int32>(
        capacityMin: ISCSISession.taskCountMax + ISCSISession.immediateTaskCountMax
    )

    init(index: Int32, memory: ByteRegion, worker: Worker) {
        self.index = index
        self.memory = ISCSIMemory(memory)
        self.worker = worker
        session = ISCSISession(memory: self.memory.session)
        filling.adopt(chunk: self.memory.transmit.0, isOwn: true)
        sending.adopt(chunk: self.memory.transmit.1, isOwn: true)
    }

    var takesInput: Bool { state == .login || state == .open }
    var takesOutput: Bool { takesInput || state == .draining }

    /// Received bytes not yet consumed.
    var input: ByteRegion { memory.receive.slice(receiveStart, receiveEnd - receiveStart) }

    func consume(_ byteCount: Int) {
        receiveStart += byteCount
        precondition(receiveStart <= receiveEnd, "more consumed than received")
        if receiveStart == receiveEnd {
            receiveStart = 0
            receiveEnd = 0
        }
    }

    /// Makes the place ready for `socket`.
    func begin(socket: Socket, deadline: Instant, now: Instant) {
        precondition(state == .free, "the place is taken")
        state = .login
        self.socket = socket
        self.deadline = deadline
        heardAt = now
        isPinged = false
        receiveStart = 0
        receiveEnd = 0
        isBlocked = false
        loginBytes = []
        destination = nil
        session.reset(targets: self)
    }

    func reference(_ task: Int32) -> ISCSISlotReference {
        ISCSISlotReference(
            connection: index,
            task: task,
            generation: slots[Int(task)].generation
        )
    }
}

extension ISCSIConnection: ISCSITargetSource {
    var portalGroup: UInt16 { 1 }

    func admit(_ login: ISCSILogin) -> ISCSIAdmission { worker.admit(login, self) }

    func establish(_ login: ISCSILogin) -> ISCSIEstablishment { worker.establish(login, self) }

    func targets(for login: ISCSILogin, named name: String?) -> [ISCSITargetEntry] {
        worker.targets(for: login, named: name)
    }

    func randomBytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255) }
    }
}
