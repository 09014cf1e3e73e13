// Mutates frames of replication, and decodes them.

internal import BlockCore
internal import PeerWire

/// Decodes mutated frames; every run follows from (seed, index).
///
/// The rule: nothing traps, and what decodes encodes to the same bytes.
public struct PeerFuzzer {
    /// What was run.
    public struct Summary: Sendable {
        /// Frames.
        public var runCount = 0
        /// Frames that decoded.
        public var decodedCount = 0
        /// Frames that were refused behind their checksum.
        public var refusedBodyCount = 0
        /// A digest of everything, to compare two builds.
        public var digest: UInt64 = 0

        /// Creates an empty summary.
        public init() {}
    }

    private let seed: UInt64
    private let mutator = FuzzMutator()
    private let arena: MemoryArena
    private let input: ByteRegion
    private let output: ByteRegion
    private let scratch: ByteRegion
    private let payload: ByteRegion
    private var bytes: [UInt8] = []

    /// Creates a fuzzer with its own memory.
    public init(seed: UInt64) {
        self.seed = seed
        let frameByteCount = PeerLimits.frameByteCountMax + FuzzMutator.byteCountMax
        let pageByteCount = 4096
        arena = MemoryArena(
            byteCount: 2 * frameByteCount + PeerLimits.payloadByteCountMax + 4 * pageByteCount
        )
        input = arena.allocate(byteCount: frameByteCount)
        output = arena.allocate(byteCount: frameByteCount)
        scratch = arena.allocate(byteCount: pageByteCount)
        payload = arena.allocate(byteCount: PeerLimits.payloadByteCountMax)
        bytes.reserveCapacity(frameByteCount)
    }

    /// Runs the indices `range`.
    ///
    /// - Throws: ``FuzzFailure`` of the first run that breaks the rule.
    public mutating func run(_ range: Range<UInt64>) throws(FuzzFailure) -> Summary {
        var summary = Summary()
        for index in range { try run(index, &summary) }
        return summary
    }

    private mutating func run(
        _ index: UInt64,
        _ summary: inout Summary
    ) throws(FuzzFailure) {
        var random = FuzzRandom(seed: seed, stream: index)
        let kinds = PeerFrameKind.allCases
        let other = sample(kinds[random.below(kinds.count)], &random)
        bytes = sample(kinds[random.below(kinds.count)], &random)
        let isBodyOnly = random.oneIn(2) && bytes.count > PeerLimits.headerByteCount
        if isBodyOnly {
            // What is deep is in the body: the header stays.
            var body = Array(bytes[PeerLimits.headerByteCount...])
            mutator.mutate(&body, other: other, random: &random)
            bytes.replaceSubrange(PeerLimits.headerByteCount..., with: body)
        } else {
            mutator.mutate(&bytes, other: other, random: &random)
        }
        let region = input.slice(0, bytes.count)
        region.copy(from: bytes)
        // Nearly everything dies at the checksum: most runs mend it.
        if !random.oneIn(4) { mend(region) }
        summary.runCount += 1
        do throws(PeerWireError) {
            try decode(region, index, &summary)
        } catch {
            for byte in error.text.utf8 { summary.digest = summary.digest &* 31 ^ UInt64(byte) }
        }
        if let rule { throw FuzzFailure(index: index, rule: rule, bytes: bytes) }
    }

    /// The rule that the last run broke.
    private var rule: String?

    private mutating func decode(
        _ region: ByteRegion,
        _ index: UInt64,
        _ summary: inout Summary
    ) throws(PeerWireError) {
        let header = try PeerFrameReader.header(region)
        let body = region.suffix(from: PeerLimits.headerByteCount)
        let frame: PeerFrame
        do throws(PeerWireError) {
            frame = try PeerFrameReader.frame(header, body: body, payload: PeerSample.payload)
        } catch {
            summary.refusedBodyCount += error == .badChecksum ? 0 : 1
            throw error
        }
        summary.decodedCount += 1
        let checksums = PeerFrameReader.blockChecksums(of: header, body: body)
        let byteCount = PeerSample.encode(frame, header.volume, checksums, into: output)
        let used = PeerLimits.headerByteCount + header.bodyByteCount
        if byteCount != used || !output.slice(0, used).equals(region.slice(0, used)) {
            rule = "what decodes encodes to the same bytes"
        }
        let digest = UInt64(region.slice(0, used).crc32c())
        summary.digest = summary.digest &* 31 ^ digest ^ frame.endBlock
    }

    private func sample(_ kind: PeerFrameKind, _ random: inout FuzzRandom) -> [UInt8] {
        let sample = PeerSample(kind, random: &random)
        let count = sample.encode(payload: payload, into: output, scratch: scratch)
        return output.slice(0, count).array()
    }

    /// Makes counts and checksum fit what the frame now is.
    private func mend(_ region: ByteRegion) {
        guard region.byteCount >= PeerLimits.headerByteCount else { return }
        let bodyByteCount = region.byteCount - PeerLimits.headerByteCount
        if bodyByteCount <= PeerLimits.bodyByteCountMax {
            region.store(UInt32(bodyByteCount), at: 12)
        }
        let announced = Int(region.load(12, as: UInt32.self))
        guard announced <= bodyByteCount else { return }
        // As the page says: the header without the checksum's field, then the body.
        let start = region.slice(0, 8).crc32c()
        let crc = region.slice(12, PeerLimits.headerByteCount - 12 + announced).crc32c(seed: start)
        region.store(crc, at: 8)
    }
}
