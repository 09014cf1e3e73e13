import BlockCore
import FuzzSupport
import NBDWire
import TestSupport
import Testing

@Suite(.background) struct NBDFuzzTests {
    // A debug build is 30 times slower: it takes samples, 7 being no divisor of a byte's bits.
    #if DEBUG
    private static let runCount: UInt64 = 5_000
    private static let bitStride = 7
    #else
    private static let runCount: UInt64 = 100_000
    private static let bitStride = 1
    #endif

    /// A sample of what `devtool fuzz nbd` does at length.
    @Test func mutatedConversations_breakNoRule() throws {
        var fuzzer = NBDFuzzer(seed: 2)
        let summary = try fuzzer.run(0..<Self.runCount)
        #expect(summary.runCount == Int(Self.runCount))
        // Mutants that all die in the handshake would show nothing.
        #expect(summary.requestCount > summary.runCount)
        #expect(summary.outputCount > 2 * summary.runCount)
    }

    @Test func sameSeed_sameRuns() throws {
        var first = NBDFuzzer(seed: 9)
        var second = NBDFuzzer(seed: 9)
        #expect(try first.run(50..<500).digest == second.run(50..<500).digest)
        var other = NBDFuzzer(seed: 10)
        #expect(try first.run(50..<500).digest != other.run(50..<500).digest)
    }

    @Test(arguments: NBDConversation.all())
    func wellFormed_anyCut_sameEvents(_ talk: NBDConversation) throws {
        let driver = NBDFuzzDriver()
        for seed in 0..<20 as Range<UInt64> {
            let outcomes = try FuzzChunking.allCases.map { chunking in
                try driver.run(
                    talk.bytes,
                    tlsOffset: talk.tlsOffset,
                    chunking: chunking,
                    seed: seed
                )
            }
            #expect(Set(outcomes).count == 1, "\(talk.name) seed \(seed)")
        }
    }

    @Test(arguments: NBDConversation.all())
    func everyBitFlip_breaksNoRule(_ talk: NBDConversation) throws {
        let driver = NBDFuzzDriver()
        var bytes = talk.bytes
        for bit in stride(from: 0, to: bytes.count * 8, by: Self.bitStride) {
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            _ = try driver.run(bytes, tlsOffset: talk.tlsOffset, chunking: .whole, seed: 3)
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        }
    }

    @Test(arguments: NBDConversation.all())
    func everyTruncation_breaksNoRule(_ talk: NBDConversation) throws {
        let driver = NBDFuzzDriver()
        for length in 0...talk.bytes.count {
            let bytes = Array(talk.bytes[..<length])
            _ = try driver.run(bytes, tlsOffset: talk.tlsOffset, chunking: .whole, seed: 4)
        }
    }
}
