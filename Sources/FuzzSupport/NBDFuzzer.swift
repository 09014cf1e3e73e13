/// Mutates conversations and runs sessions over them; every run follows from (seed, index).
public struct NBDFuzzer {
    /// What was run.
    public struct Summary: Sendable {
        /// Connections.
        public var runCount = 0
        /// Requests that were accepted.
        public var requestCount = 0
        /// Outputs of the session.
        public var outputCount = 0
        /// A digest of everything, to compare two builds.
        public var digest: UInt64 = 0

        /// Creates an empty summary.
        public init() {}
    }

    private let seed: UInt64
    private let conversations = NBDConversation.all()
    private let mutator = FuzzMutator()
    private let driver = NBDFuzzDriver()
    private var bytes: [UInt8] = []
    private var tail: [UInt8] = []

    /// Creates a fuzzer.
    public init(seed: UInt64) {
        self.seed = seed
        bytes.reserveCapacity(2 * FuzzMutator.byteCountMax)
        tail.reserveCapacity(2 * FuzzMutator.byteCountMax)
    }

    /// Runs the indices `range`.
    ///
    /// - Throws: ``FuzzFailure`` of the first run that breaks a rule. A run that traps ends the
    ///   process: the caller says where it was.
    public mutating func run(_ range: Range<UInt64>) throws(FuzzFailure) -> Summary {
        var summary = Summary()
        for index in range {
            let outcome = try run(index)
            summary.runCount += 1
            summary.requestCount += outcome.requestCount
            summary.outputCount += outcome.outputCount
            summary.digest = (summary.digest &* 31) ^ outcome.digest
        }
        return summary
    }

    private mutating func run(_ index: UInt64) throws(FuzzFailure) -> FuzzOutcome {
        var random = FuzzRandom(seed: seed, stream: index)
        let conversation = conversations[random.below(conversations.count)]
        let other = conversations[random.below(conversations.count)]
        // Changes behind the way in are the deep ones: half of the runs keep what leads there.
        let offsets = conversation.messageOffsets
        let keptByteCount = random.oneIn(2) ? offsets[random.below(offsets.count)] : 0
        tail.removeAll(keepingCapacity: true)
        tail.append(contentsOf: conversation.bytes[keptByteCount...])
        mutator.mutate(&tail, other: other.bytes, random: &random)
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: conversation.bytes[..<keptByteCount])
        bytes.append(contentsOf: tail)
        let chunking: FuzzChunking =
            random.oneIn(32) ? .bytes : random.oneIn(3) ? .pieces : .whole
        let choices = random.next()
        do throws(FuzzViolation) {
            let outcome = try driver.run(
                bytes,
                tlsOffset: conversation.tlsOffset,
                chunking: chunking,
                seed: choices
            )
            if chunking != .whole, !outcome.hasStartedTLS {
                let whole = try driver.run(
                    bytes,
                    tlsOffset: conversation.tlsOffset,
                    chunking: .whole,
                    seed: choices
                )
                // Cut differently, STARTTLS in front of other bytes is an attack, or is not.
                if !whole.hasStartedTLS, conversation.tlsOffset == nil {
                    try demand(whole.digest == outcome.digest, "the cut of the input matters")
                }
            }
            return outcome
        } catch {
            throw FuzzFailure(index: index, rule: error.rule, bytes: bytes)
        }
    }
}
