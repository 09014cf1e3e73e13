// A model of a connection driver that trusts nothing: neither the client nor the session.

import BlockCore
import NBDSession
import NBDWire

/// A rule that a session broke.
public struct FuzzViolation: Error, Sendable {
    /// The rule, for people.
    public let rule: String
}

/// How input is cut into pieces.
public enum FuzzChunking: Sendable, Hashable, CaseIterable {
    /// Everything at once.
    case whole
    /// Pieces of random length.
    case pieces
    /// Byte by byte.
    case bytes
}

/// What happened in one run.
public struct FuzzOutcome: Sendable, Hashable {
    /// A digest of all events, independent of how the input was cut.
    public var digest: UInt64 = 0
    /// Requests handed to the driver.
    public var requestCount = 0
    /// Outputs of the session.
    public var outputCount = 0
    /// Whether a TLS handshake was asked for; then the cut of the input matters.
    public var hasStartedTLS = false
}

/// Runs a session over a client's bytes, answers its events, and checks its rules.
public final class NBDFuzzDriver {
    private let arena: MemoryArena
    private let input: ByteRegion
    private let checker: NBDReplyChecker
    private let session: NBDSession
    private let exports = NBDFuzzExports()
    private var random = FuzzRandom(seed: 0)
    private var outcome = FuzzOutcome()
    private var stepCount = 0
    private var outputRoomByteCount = 0
    private var payloadByteCount: UInt64 = 0
    private var isClosed = false

    /// Creates a driver with its own memory.
    public init() {
        let replyByteCount = 64 << 10
        arena = MemoryArena(
            byteCount: NBDSession.memoryByteCount + FuzzMutator.byteCountMax + 2 * replyByteCount
        )
        session = NBDSession(memory: arena.allocate(byteCount: NBDSession.memoryByteCount))
        input = arena.allocate(byteCount: FuzzMutator.byteCountMax)
        checker = NBDReplyChecker(
            replies: arena.allocate(byteCount: replyByteCount),
            extents: arena.allocate(byteCount: replyByteCount)
        )
    }

    /// Runs one connection.
    ///
    /// - Parameters:
    ///   - bytes: What the client sends, at most ``FuzzMutator/byteCountMax`` bytes.
    ///   - tlsOffset: Where it waits for the end of a TLS handshake.
    ///   - chunking: How the bytes arrive.
    ///   - seed: The driver's own choices; the same for every chunking of the same bytes.
    /// - Returns: What happened.
    /// - Throws: ``FuzzViolation``; the run is abandoned.
    public func run(
        _ bytes: [UInt8],
        tlsOffset: Int?,
        chunking: FuzzChunking,
        seed: UInt64
    ) throws(FuzzViolation) -> FuzzOutcome {
        precondition(bytes.count <= input.byteCount, "more bytes than fit")
        input.copy(from: bytes)
        random = FuzzRandom(seed: seed)
        var cuts = FuzzRandom(seed: seed, stream: 1)
        outcome = FuzzOutcome()
        stepCount = 0
        payloadByteCount = 0
        isClosed = false
        let tlsMode: NBDTLSMode =
            tlsOffset == nil
            ? [.off, .off, .allow][random.below(3)] : [.allow, .require][random.below(2)]
        session.reset(exports: exports, tlsMode: tlsMode)

        try feed(.empty)
        var position = 0
        while position < bytes.count, !isClosed {
            var end = bytes.count
            switch chunking {
            case .whole: break
            case .pieces: end = min(end, position + 1 + cuts.below(100))
            case .bytes: end = position + 1
            }
            if let tlsOffset, position < tlsOffset, end > tlsOffset { end = tlsOffset }
            try feed(input.slice(position, end - position))
            position = end
        }
        session.end()
        return outcome
    }

    /// Hands a piece of input over and carries out what the session asks for, until it is used up.
    private func feed(_ piece: ByteRegion) throws(FuzzViolation) {
        var rest = piece
        while !isClosed {
            stepCount += 1
            try demand(stepCount <= 100_000, "the session never ends")
            if payloadByteCount > 0 {
                let taken = Int(min(payloadByteCount, UInt64(rest.byteCount)))
                payloadByteCount -= UInt64(taken)
                rest = rest.suffix(from: taken)
                if payloadByteCount > 0 { return }
            }
            outputRoomByteCount = session.nextOutputByteCountMax
            let (consumed, event) = session.next(input: rest)
            try demand(consumed >= 0 && consumed <= rest.byteCount, "consumed more than given")
            rest = rest.suffix(from: consumed)
            if case .needMore = event {
                try demand(rest.isEmpty, "wants more and leaves some")
                return
            }
            try act(event)
        }
    }

    private func act(_ event: NBDEvent) throws(FuzzViolation) {
        switch event {
        case .needMore:
            break
        case .output(let bytes):
            outcome.outputCount += 1
            mix(1, UInt64(bytes.crc32c()))
            try demand(!bytes.isEmpty, "an empty output")
            try demand(bytes.byteCount <= outputRoomByteCount, "too much output")
        case .startTLS:
            outcome.hasStartedTLS = true
            mix(2, 0)
            session.onTLSEstablished()
            try demand(session.isUnderTLS, "not under TLS after its handshake")
        case .open:
            mix(3, session.export?.handle ?? 0)
            try demand(session.export != nil, "asks to open nothing")
            if random.oneIn(16) {
                session.onOpenRefused(.policy, text: "not now")
            } else {
                session.onOpened()
            }
        case .wait:
            throw FuzzViolation(rule: "waits for an answer that was given")
        case .request(let request):
            outcome.requestCount += 1
            mix(UInt64(request.command.rawValue) << 32 | UInt64(request.flags.rawValue), 4)
            mix(request.offset, request.byteCount)
            mix(request.cookie, UInt64(request.contextMask))
            guard let export = session.export else {
                throw FuzzViolation(rule: "a request without an export")
            }
            try checker.check(request, export: export, session: session)
            try checker.answer(request, mode: session.mode, random: &random)
            if request.hasPayload { payloadByteCount = request.byteCount }
        case .close(let reason):
            mix(5, UInt64(reason.rawValue))
            isClosed = true
            guard case .close(reason) = session.next(input: .empty).event else {
                throw FuzzViolation(rule: "goes on after it closed")
            }
        }
    }

    private func mix(_ first: UInt64, _ second: UInt64) {
        for value in [first, second] {
            outcome.digest = (outcome.digest ^ value) &* 0x9E37_79B9_7F4A_7C15
            outcome.digest ^= outcome.digest >> 29
        }
    }
}

/// Throws when a rule does not hold.
func demand(
    _ holds: Bool,
    _ rule: @autoclosure () -> String
) throws(FuzzViolation) {
    guard holds else { throw FuzzViolation(rule: rule()) }
}
