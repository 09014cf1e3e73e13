// A model of an iSCSI driver that trusts nothing: neither the initiator nor the session.

import BlockCore
import ISCSISession
import ISCSIWire

/// Targets that welcome everybody, or demand a proof.
private final class FuzzTargets: ISCSITargetSource {
    var demandsProof = false
    var portalGroup: UInt16 { 1 }

    func admit(_ login: ISCSILogin) -> ISCSIAdmission {
        guard login.isDiscovery || login.targetName == ISCSIConversation.target else {
            return .refused(.notFound)
        }
        guard demandsProof else { return .welcome(nil) }
        return .welcome(
            ISCSICredentials(
                user: ISCSIConversation.credentials.user,
                secret: ISCSIConversation.credentials.secret,
                ownUser: "cairn",
                ownSecret: Array("a secret of the target".utf8)
            )
        )
    }

    func establish(_ login: ISCSILogin) -> ISCSIEstablishment { .established(tsih: 3) }

    func targets(for login: ISCSILogin, named name: String?) -> [ISCSITargetEntry] {
        (0..<100).map {
            ISCSITargetEntry(name: "\(ISCSIConversation.target)-\($0)", addresses: ["h:3260,1"])
        }
    }

    func randomBytes(_ count: Int) -> [UInt8] { ISCSIConversation.random(count) }
}

/// Runs a session over an initiator's bytes, answers its events, and checks its rules.
public final class ISCSIFuzzDriver {
    /// What the driver knows of a task.
    private struct Task {
        var isKnown = false
        var isReady = false
        var receivedByteCount: UInt32 = 0
        var checksum: UInt32 = 0
    }

    private let arena: MemoryArena
    private let input: ByteRegion
    private let output: ByteRegion
    private let session: ISCSISession
    private let targets = FuzzTargets()
    private var random = FuzzRandom(seed: 0)
    private var outcome = FuzzOutcome()
    private var tasks: [Task] = []
    private var stepCount = 0
    private var isClosed = false
    /// The login is over, and its last response was taken: from here on there are digests.
    private var isLoggedIn = false
    private var lastStatus: UInt32?
    private var lastCommand: UInt32?

    /// Creates a driver with its own memory.
    public init() {
        let sessionByteCount = (ISCSISession.memoryByteCount + 4095) & ~4095
        let outputByteCount = 16 << 10
        arena = MemoryArena(
            byteCount: sessionByteCount + 2 * FuzzMutator.byteCountMax + outputByteCount
        )
        session = ISCSISession(memory: arena.allocate(byteCount: sessionByteCount))
        input = arena.allocate(byteCount: FuzzMutator.byteCountMax)
        output = arena.allocate(byteCount: outputByteCount)
    }

    /// Runs one connection.
    ///
    /// - Parameters:
    ///   - bytes: What the initiator sends, at most ``FuzzMutator/byteCountMax`` bytes.
    ///   - demandsProof: Whether it has to prove itself.
    ///   - chunking: How the bytes arrive.
    ///   - seed: The driver's own choices; the same for every chunking of the same bytes.
    /// - Returns: What happened.
    /// - Throws: ``FuzzViolation``; the run is abandoned.
    public func run(
        _ bytes: [UInt8],
        demandsProof: Bool,
        chunking: FuzzChunking,
        seed: UInt64
    ) throws(FuzzViolation) -> FuzzOutcome {
        precondition(bytes.count <= input.byteCount, "more bytes than fit")
        input.copy(from: bytes)
        random = FuzzRandom(seed: seed)
        var cuts = FuzzRandom(seed: seed, stream: 1)
        outcome = FuzzOutcome()
        tasks = Array(
            repeating: Task(),
            count: ISCSISession.taskCountMax + ISCSISession.immediateTaskCountMax
        )
        stepCount = 0
        isClosed = false
        isLoggedIn = false
        lastStatus = nil
        lastCommand = nil
        targets.demandsProof = demandsProof
        session.reset(targets: targets)
        var position = 0
        while position < bytes.count, !isClosed {
            var end = bytes.count
            switch chunking {
            case .whole: break
            case .pieces: end = min(end, position + 1 + cuts.below(100))
            case .bytes: end = position + 1
            }
            try feed(input.slice(position, end - position))
            position = end
        }
        session.end()
        try demand(session.taskCount == 0, "tasks that outlive their session")
        return outcome
    }

    private func feed(_ piece: ByteRegion) throws(FuzzViolation) {
        var rest = piece
        while !isClosed {
            stepCount += 1
            try demand(stepCount <= 200_000, "the session never ends")
            let room = session.nextOutputByteCountMax
            let (consumed, event) = session.next(input: rest)
            try demand(consumed >= 0 && consumed <= rest.byteCount, "consumed more than given")
            rest = rest.suffix(from: consumed)
            if case .needMore = event {
                try demand(rest.isEmpty, "wants more and leaves some")
                return
            }
            if case .output(let bytes) = event {
                try demand(bytes.byteCount <= room, "too much output")
            }
            try act(event)
        }
    }

    // MARK: - Events

    private func act(_ event: ISCSIEvent) throws(FuzzViolation) {
        switch event {
        case .needMore: break
        case .output(let bytes): try take(bytes)
        case .command(let task): try begin(task)
        case .data(let task, let offset, let bytes): try receive(task, offset, bytes)
        case .ready(let task): try finish(task)
        case .management(let request):
            mix(5, UInt64(request.taskTag))
            if let task = session.task(withTag: request.referencedTag) { try end(task) }
            let byteCount = session.managementResponse(request.taskTag, .complete, into: output)
            try take(output.slice(0, byteCount))
        case .loggedIn:
            mix(6, 0)
            isLoggedIn = true
            try demand(session.isFullFeature, "logged in and not in full feature phase")
        case .close(let reason):
            mix(7, UInt64(reason.rawValue))
            isClosed = true
        }
    }

    private func begin(_ task: Int32) throws(FuzzViolation) {
        outcome.requestCount += 1
        try demand(!tasks[Int(task)].isKnown, "a place that was taken")
        tasks[Int(task)] = Task(isKnown: true)
        let command = session.command(task)
        mix(2, UInt64(command.taskTag) ^ command.blockHigh)
        let wanted = [UInt32.max, .max, 0, 512, 1][random.below(5)]
        session.accept(task, wantedByteCount: wanted)
    }

    private func receive(
        _ task: Int32,
        _ offset: UInt32,
        _ bytes: ByteRegion
    ) throws(FuzzViolation) {
        try demand(tasks[Int(task)].isKnown, "data of no task")
        try demand(!tasks[Int(task)].isReady, "data behind the end")
        try demand(offset == tasks[Int(task)].receivedByteCount, "data out of order")
        tasks[Int(task)].receivedByteCount += UInt32(bytes.byteCount)
        tasks[Int(task)].checksum = bytes.crc32c(seed: tasks[Int(task)].checksum)
        let most = session.command(task).dataOutByteCount
        try demand(tasks[Int(task)].receivedByteCount <= most, "more data than was announced")
    }

    /// Answers a command, leaves it for later, or drops it.
    private func finish(_ task: Int32) throws(FuzzViolation) {
        let known = tasks[Int(task)]
        try demand(known.isKnown && !known.isReady, "ready without need")
        tasks[Int(task)].isReady = true
        mix(4, UInt64(known.receivedByteCount) << 32 | UInt64(known.checksum))
        let room = session.command(task).dataInByteCount
        switch random.below(4) {
        case 0: return
        case 1: try end(task)
        case 2 where room > 0: try answer(task, byteCount: min(room, 512))
        default:
            let byteCount = session.writeResponse(
                task,
                status: 0,
                sense: .empty,
                dataOut: known.receivedByteCount,
                dataIn: 0,
                into: output
            )
            try take(output.slice(0, byteCount))
            try end(task)
        }
    }

    private func answer(_ task: Int32, byteCount total: UInt32) throws(FuzzViolation) {
        var offset: UInt32 = 0
        while offset < total {
            let byteCount = session.dataInByteCount(task, restByteCount: total - offset)
            try demand(byteCount > 0, "data that does not get on")
            var end = session.writeDataIn(
                task,
                offset: offset,
                byteCount: byteCount,
                isLast: offset + byteCount == total,
                totalByteCount: total,
                into: output
            )
            let data = output.slice(end, Int(byteCount))
            end += data.byteCount
            end += session.writeTail(of: data, into: output.suffix(from: end))
            try take(output.slice(0, end))
            offset += byteCount
        }
        try end(task)
    }

    private func end(_ task: Int32) throws(FuzzViolation) {
        try demand(tasks[Int(task)].isKnown, "the end of no task")
        tasks[Int(task)] = Task()
        session.finish(task)
    }

    // MARK: - Outputs

    /// Takes PDUs apart and looks at their numbers.
    private func take(_ bytes: ByteRegion) throws(FuzzViolation) {
        outcome.outputCount += 1
        mix(1, UInt64(bytes.crc32c()))
        let hasDigest = isLoggedIn && session.parameters.hasHeaderDigest
        let headerByteCount = 48 + (hasDigest ? 4 : 0)
        try demand(bytes.byteCount >= headerByteCount, "a PDU that is cut")
        let header = ISCSIHeader(decoding: bytes)
        try demand(header.opcode?.isRequest == false, "not a target's PDU")
        try demand(
            bytes.byteCount >= headerByteCount + header.paddedByteCount,
            "a PDU without its data"
        )
        let command = UInt32(truncatingIfNeeded: header.long32 >> 32)
        if let lastCommand {
            try demand(Int32(bitPattern: command &- lastCommand) >= 0, "MaxCmdSN falls")
        }
        if isLoggedIn { lastCommand = command }
        let hasStatus =
            header.opcode != .readyToTransfer
            && (header.opcode != .dataIn || header.flags & 0x01 != 0)
        guard hasStatus else { return }
        if let lastStatus { try demand(header.word24 == lastStatus &+ 1, "a hole in StatSN") }
        lastStatus = header.word24
    }

    private func demand(_ condition: Bool, _ rule: String) throws(FuzzViolation) {
        guard condition else { throw FuzzViolation(rule: rule) }
    }

    private func mix(_ kind: UInt64, _ value: UInt64) {
        outcome.digest = (outcome.digest ^ kind &* 0x9E37_79B9 ^ value) &* 0x100_0000_01B3
    }
}
