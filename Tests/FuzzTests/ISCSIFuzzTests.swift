import FuzzSupport
import TestSupport
import Testing

@Suite(.background) struct ISCSIFuzzTests {
    // A debug build is 30 times slower: it takes samples, 7 being no divisor of a byte's bits.
    #if DEBUG
    private static let runCount: UInt64 = 2_000
    private static let bitStride = 7 * 13
    #else
    private static let runCount: UInt64 = 20_000
    private static let bitStride = 1
    #endif

    /// A sample of what `devtool fuzz iscsi` does at length.
    @Test func mutatedConversations_breakNoRule() throws {
        var fuzzer = ISCSIFuzzer(seed: 2)
        let summary = try fuzzer.run(0..<Self.runCount)
        #expect(summary.runCount == Int(Self.runCount))
        // Mutants that all die in the login would show nothing.
        #expect(summary.requestCount > summary.runCount)
        #expect(summary.outputCount > 2 * summary.runCount)
    }

    @Test func sameSeed_sameRuns() throws {
        var first = ISCSIFuzzer(seed: 9)
        var second = ISCSIFuzzer(seed: 9)
        #expect(try first.run(50..<500).digest == second.run(50..<500).digest)
        var other = ISCSIFuzzer(seed: 10)
        #expect(try first.run(50..<500).digest != other.run(50..<500).digest)
    }

    @Test func wellFormed_anyCut_sameEvents() throws {
        let driver = ISCSIFuzzDriver()
        for talk in ISCSIConversation.all() {
            for seed in 0..<20 as Range<UInt64> {
                let outcomes = try FuzzChunking.allCases.map { chunking in
                    try driver.run(
                        talk.bytes,
                        demandsProof: talk.name == "proof",
                        chunking: chunking,
                        seed: seed
                    )
                }
                #expect(Set(outcomes).count == 1, "\(talk.name) seed \(seed)")
                if talk.name != "discovery" {
                    #expect(outcomes[0].requestCount >= 2, "\(talk.name)")
                }
            }
        }
    }

    @Test func everyBitFlip_breaksNoRule() throws {
        let driver = ISCSIFuzzDriver()
        for talk in ISCSIConversation.all() {
            var bytes = talk.bytes
            for bit in stride(from: 0, to: bytes.count * 8, by: Self.bitStride) {
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                _ = try driver.run(
                    bytes,
                    demandsProof: talk.name == "proof",
                    chunking: .whole,
                    seed: 3
                )
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
        }
    }
}
