/// Mutates initiators' conversations and runs sessions over them; every run follows from (seed, index).
public struct ISCSIFuzzer {
    private let seed: UInt64
    private let conversations = ISCSIConversation.all()
    private let mutator = FuzzMutator()
    private let driver = ISCSIFuzzDriver()

    /// Creates a fuzzer.
    public init(seed: UInt64) { self.seed = seed }

    /// Runs the indices `range`.
    ///
    /// - Throws: ``FuzzFailure`` of the first run that breaks a rule. A run that traps ends the
    ///   process: the caller says where it was.
    public mutating func run(_ range: Range<UInt64>) throws(FuzzFailure) -> NBDFuzzer.Summary {
        var summary = NBDFuzzer.Summary()
        for index in range {
            let outcome = try run(index)
            summary.runCount += 1
            summary.requestCount += outcome.requestCount
            summary.outputCount += outcome.outputCount
            summary.digest = (summary.digest &* 31) ^ outcome.digest
        }
        return summary
    }

    private func run(_ index: UInt64) throws(FuzzFailure) -> FuzzOutcome {
        var random = FuzzRandom(seed: seed, stream: index)
        let conversation = conversations[random.below(conversations.count)]
        let other = conversations[random.below(conversations.count)]
        // Most of the runs keep what leads to where they are changed.
        let offsets = conversation.messageOffsets
        let keptByteCount = random.oneIn(4) ? 0 : offsets[random.below(offsets.count)]
        var tail = Array(conversation.bytes[keptByteCount...])
        mutator.mutate(&tail, other: other.bytes, random: &random)
        let bytes = Array(
            (conversation.bytes[..<keptByteCount] + tail).prefix(FuzzMutator.byteCountMax)
        )
        let chunking: FuzzChunking =
            random.oneIn(32) ? .bytes : random.oneIn(3) ? .pieces : .whole
        let demandsProof = conversation.name == "proof"
        let choices = random.next()
        do throws(FuzzViolation) {
            let outcome = try driver.run(
                bytes,
                demandsProof: demandsProof,
                chunking: chunking,
                seed: choices
            )
            guard chunking != .whole else { return outcome }
            let whole = try driver.run(
                bytes,
                demandsProof: demandsProof,
                chunking: .whole,
                seed: choices
            )
            guard whole.digest == outcome.digest else {
                throw FuzzViolation(rule: "the cut of the input matters")
            }
            return outcome
        } catch {
            throw FuzzFailure(index: index, rule: error.rule, bytes: bytes)
        }
    }
}
