internal import BlockCore
internal import Glibc

/// One connection of the NBD client: requests batched out, replies parsed in place.
///
/// Requests that were queued since the last send go out together, from one staging area, so that
/// a turn costs one system call; large payloads go out from their lane's own memory. Replies are
/// received into one buffer and their payloads are stepped over where they lie: the client pays
/// the kernel's copy, as any client must, and no second one.
///
/// Spec: NBD doc/proto.md, "Transmission phase".
final class NBDConnection {
    /// Payloads up to this size are copied beside their headers; above, they are sent in place.
    static var stagedPayloadByteCountMax: Int { 16 << 10 }
    /// Bytes received at once: a batch of 32 replies of 4 KiB, and still within a core's cache.
    static var receiveByteCount: Int { 256 << 10 }
    /// Bytes of a request's header.
    static var requestByteCount: Int { 28 }

    private enum Magic {
        static let request: UInt32 = 0x2560_9513
        static let simpleReply: UInt32 = 0x6744_6698
        static let chunk: UInt32 = 0x668e_33ef
    }

    /// One request that waits to be sent.
    struct Request: BitwiseCopyable {
        var operation: Operation
        var lane: Int32
    }

    /// What the connection knows of a lane.
    private struct Lane: BitwiseCopyable {
        var memory: ByteRegion
        var isBusy = false
        var offset: UInt64 = 0
        var readByteCount = 0
        var errno: Int32 = 0
    }

    /// The stream.
    let socket: Socket
    /// What the handshake settled.
    let export: NBDExport
    private let firstLane: Int
    private let depth: Int

    // Sending: `pending` waits for the batch under way to be out.
    private let pending: FixedRing<Request>
    private let outgoing: FixedRing<ByteRegion>
    private var outgoingRest: ByteRegion = .empty
    private let staging: ByteRegion
    private let lanes: FixedArray<Lane>

    // Receiving: `received[begin..<end]` is not parsed yet; `skipByteCount` more is payload.
    private let received: ByteRegion
    private var begin = 0
    private var end = 0
    private var skipByteCount = 0
    private var endingLane = -1
    // Where stepped bytes go when payloads are kept: a lane, and bytes from its block's start.
    private let keepsPayloads: Bool
    private var keptLane = -1
    private var keptPosition = 0

    /// Creates a connection whose lanes are `firstLane ..< firstLane + depth` of its engine.
    ///
    /// - Parameters:
    ///   - socket: Connected, the handshake done.
    ///   - export: What the handshake settled.
    ///   - firstLane: The first of its lanes.
    ///   - laneMemory: For each lane ``payloadOffset`` bytes and the payload of its writes.
    ///   - keepsPayloads: Whether what reads bring is copied into the lanes' memory.
    ///   - arena: Has room for ``memoryByteCount(depth:blockByteCount:)``.
    init(
        socket: Socket,
        export: NBDExport,
        firstLane: Int,
        laneMemory: [ByteRegion],
        keepsPayloads: Bool,
        arena: MemoryArena
    ) {
        self.keepsPayloads = keepsPayloads
        self.socket = socket
        self.export = export
        self.firstLane = firstLane
        depth = laneMemory.count
        pending = FixedRing(capacityMin: depth)
        outgoing = FixedRing(capacityMin: depth + 1)
        let stagedMax = min(laneMemory[0].byteCount, NBDConnection.stagedPayloadByteCountMax)
        staging = arena.allocate(byteCount: depth * (NBDConnection.requestByteCount + stagedMax))
        received = arena.allocate(byteCount: NBDConnection.receiveByteCount)
        lanes = FixedArray(repeating: Lane(memory: .empty), count: depth)
        for (index, memory) in laneMemory.enumerated() { lanes[index].memory = memory }
        socket.makeNonBlocking()
    }

    /// Bytes of arena that a connection takes.
    static func memoryByteCount(depth: Int, blockByteCount: Int) -> Int {
        let staged = min(blockByteCount + 4096, stagedPayloadByteCountMax) + requestByteCount
        return depth * staged + receiveByteCount + 3 * 4096
    }

    // MARK: - Sending

    /// Queues `operation` for the next ``send()``.
    func queue(_ operation: Operation, lane: Int) {
        pending.append(Request(operation: operation, lane: Int32(lane)))
    }

    /// Sends what is queued, as far as the socket takes it.
    ///
    /// - Returns: Whether bytes are left that need room first.
    func send() throws(BenchError) -> Bool {
        while true {
            if outgoing.isEmpty && outgoingRest.isEmpty {
                guard !pending.isEmpty else { return false }
                stageBatch()
            }
            guard try sendBatch() else { return true }
        }
    }

    /// Lays all pending requests out for sending.
    private func stageBatch() {
        var stagedByteCount = 0
        while let request = pending.popFirst() {
            let lane = Int(request.lane) - firstLane
            let isWrite = request.operation.kind == .write
            let payload =
                isWrite
                ? lanes[lane].memory.slice(
                    NBDConnection.payloadOffset,
                    request.operation.byteCount
                ) : .empty
            lanes[lane].isBusy = true
            lanes[lane].offset = request.operation.offset
            lanes[lane].errno = 0
            lanes[lane].readByteCount =
                request.operation.kind == .read ? request.operation.byteCount : 0
            if payload.byteCount <= NBDConnection.stagedPayloadByteCountMax {
                writeHeader(of: request, at: stagedByteCount, in: staging)
                stagedByteCount += NBDConnection.requestByteCount
                staging.copy(from: payload, at: stagedByteCount)
                stagedByteCount += payload.byteCount
            } else {
                // The header sits right before the payload, so that one send carries both.
                let header = NBDConnection.requestByteCount
                let message = lanes[lane].memory.slice(
                    NBDConnection.payloadOffset - header,
                    header + request.operation.byteCount
                )
                writeHeader(of: request, at: 0, in: message)
                outgoing.append(message)
            }
        }
        if stagedByteCount > 0 { outgoing.append(staging.slice(0, stagedByteCount)) }
    }

    /// Where a lane's payload begins in its memory: a page, so that it is aligned.
    static var payloadOffset: Int { 4096 }

    private func writeHeader(of request: Request, at offset: Int, in region: ByteRegion) {
        let operation = request.operation
        // Spec: `NBD_CMD_READ` 0, `NBD_CMD_WRITE` 1, `NBD_CMD_FLUSH` 3, `NBD_CMD_TRIM` 4;
        // `NBD_CMD_FLAG_FUA` 1.
        let command: UInt16
        switch operation.kind {
        case .read: command = 0
        case .write: command = 1
        case .flush: command = 3
        case .trim: command = 4
        }
        let header = region.slice(offset, NBDConnection.requestByteCount)
        header.storeBigEndian(Magic.request, at: 0)
        header.storeBigEndian(UInt16(operation.forceUnitAccess ? 1 : 0), at: 4)
        header.storeBigEndian(command, at: 6)
        header.storeBigEndian(UInt64(request.lane), at: 8)
        header.storeBigEndian(operation.offset, at: 16)
        header.storeBigEndian(UInt32(operation.byteCount), at: 24)
    }

    /// - Returns: false when the socket has no room for the rest.
    private func sendBatch() throws(BenchError) -> Bool {
        while true {
            if outgoingRest.isEmpty {
                guard let next = outgoing.popFirst() else { return true }
                outgoingRest = next
            }
            switch socket.send(outgoingRest) {
            case .moved(let count): outgoingRest = outgoingRest.suffix(from: count)
            case .wouldBlock: return false
            case .ended: throw NBDConnection.closed
            case .failed(let code): throw NBDConnection.failure("send", code)
            }
        }
    }

    // MARK: - Failures

    private static let closed = BenchError("the server closed the connection", code: ECONNRESET)

    /// However a server's end shows, it is one and the same thing to people.
    private static func failure(_ what: String, _ code: Int32) -> BenchError {
        code == ECONNRESET || code == EPIPE
            ? closed : BenchError("\(what): \(describe(code))", code: code)
    }

    // MARK: - Receiving

    /// Receives once and reports every operation that ended.
    func receive(into completions: FixedRing<EngineCompletion>) throws(BenchError) {
        switch socket.receive(into: received.suffix(from: end)) {
        case .moved(let count): end += count
        case .wouldBlock: return
        case .ended: throw NBDConnection.closed
        case .failed(let code): throw NBDConnection.failure("receive", code)
        }
        try parse(into: completions)
        // A cut header moves to the front; payloads are stepped over, never kept.
        let rest = end - begin
        guard begin >= rest else { return }
        received.copy(from: received.slice(begin, rest))
        (begin, end) = (0, rest)
    }

    private func parse(into completions: FixedRing<EngineCompletion>) throws(BenchError) {
        while true {
            let stepped = min(skipByteCount, end - begin)
            if keepsPayloads, keptLane >= 0, stepped > 0 { keep(stepped) }
            begin += stepped
            skipByteCount -= stepped
            guard skipByteCount == 0 else { return }
            if endingLane >= 0 {
                let errno = lanes[endingLane].errno
                completions.append(
                    EngineCompletion(lane: Int32(firstLane + endingLane), errno: errno)
                )
                lanes[endingLane].isBusy = false
                endingLane = -1
            }
            guard try parseHeader() else { return }
        }
    }

    /// Copies stepped bytes to where they belong.
    private func keep(_ byteCount: Int) {
        lanes[keptLane].memory.copy(
            from: received.slice(begin, byteCount),
            at: NBDConnection.payloadOffset + keptPosition
        )
        keptPosition += byteCount
    }

    /// - Returns: false when the header is not complete yet.
    private func parseHeader() throws(BenchError) -> Bool {
        guard end - begin >= 16 else { return false }
        switch received.loadBigEndian(begin, as: UInt32.self) {
        case Magic.simpleReply:
            let code = received.loadBigEndian(begin + 4, as: UInt32.self)
            let lane = try lane(received.loadBigEndian(begin + 8, as: UInt64.self))
            begin += 16
            lanes[lane].errno = code == 0 ? 0 : NBDConnection.errno(of: code)
            skipByteCount = code == 0 ? lanes[lane].readByteCount : 0
            (keptLane, keptPosition) = (lane, 0)
            endingLane = lane
            return true
        case Magic.chunk: return try parseChunk()
        default: throw BenchError("the server's reply has the wrong magic number")
        }
    }

    /// What a server's error is here: those of the protocol are Linux's; none is no error, and any
    /// other is one all the same.
    private static func errno(of code: UInt32) -> Int32 {
        code > 0 && code <= UInt32(errnoMax) ? Int32(code) : EIO
    }

    private static var errnoMax: Int32 { 4095 }

    /// - Returns: false when the chunk's header, or its error, is not complete yet.
    private func parseChunk() throws(BenchError) -> Bool {
        guard end - begin >= 20 else { return false }
        let isLast = received.loadBigEndian(begin + 4, as: UInt16.self) & 1 != 0
        let type = received.loadBigEndian(begin + 6, as: UInt16.self)
        let lane = try lane(received.loadBigEndian(begin + 8, as: UInt64.self))
        let byteCount = Int(received.loadBigEndian(begin + 16, as: UInt32.self))
        // Spec: chunk types with bit 15 are errors; they begin with a 32-bit errno.
        if type & 1 << 15 != 0 {
            guard byteCount >= 4 else { throw BenchError("an error chunk without an error") }
            guard end - begin >= 24 else { return false }
            let code = received.loadBigEndian(begin + 20, as: UInt32.self)
            lanes[lane].errno = NBDConnection.errno(of: code)
        }
        keptLane = -1
        if keepsPayloads, type == 1 || type == 2 {
            guard try parseContent(type, lane, byteCount) else { return false }
        } else {
            begin += 20
            skipByteCount = byteCount
        }
        if isLast { endingLane = lane }
        return true
    }

    /// Notes where a chunk's bytes belong, or clears what it says is a hole.
    ///
    /// Spec: `NBD_REPLY_TYPE_OFFSET_DATA` 1, `NBD_REPLY_TYPE_OFFSET_HOLE` 2.
    /// - Returns: false when the chunk's own fields are not complete yet.
    private func parseContent(
        _ type: UInt16,
        _ lane: Int,
        _ byteCount: Int
    ) throws(BenchError) -> Bool {
        let fieldByteCount = type == 1 ? 8 : 12
        guard byteCount >= fieldByteCount else { throw BenchError("a read chunk is too short") }
        guard end - begin >= 20 + fieldByteCount else { return false }
        let offset = received.loadBigEndian(begin + 20, as: UInt64.self)
        let length =
            type == 1
            ? byteCount - 8 : Int(received.loadBigEndian(begin + 28, as: UInt32.self))
        let (position, isBefore) = offset.subtractingReportingOverflow(lanes[lane].offset)
        guard !isBefore, position <= UInt64(lanes[lane].readByteCount),
            length <= lanes[lane].readByteCount - Int(position)
        else { throw BenchError("the server sent bytes that were not asked for") }
        begin += 20 + fieldByteCount
        skipByteCount = byteCount - fieldByteCount
        if type == 1 {
            (keptLane, keptPosition) = (lane, Int(position))
        } else {
            lanes[lane].memory.slice(NBDConnection.payloadOffset + Int(position), length).zero()
        }
        return true
    }

    /// The lane, counted from this connection's first, that `cookie` names.
    private func lane(_ cookie: UInt64) throws(BenchError) -> Int {
        guard cookie >= UInt64(firstLane), cookie < UInt64(firstLane + depth),
            lanes[Int(cookie) - firstLane].isBusy
        else { throw BenchError("the server answered a request that was not in flight") }
        return Int(cookie) - firstLane
    }
}
