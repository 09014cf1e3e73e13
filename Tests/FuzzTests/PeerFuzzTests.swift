import FuzzSupport
import TestSupport
import Testing

@Suite(.background) struct PeerFuzzTests {
    #if DEBUG
    private static let runCount: UInt64 = 5_000
    #else
    private static let runCount: UInt64 = 100_000
    #endif

    /// A sample of what `devtool fuzz peer` does at length.
    @Test func mutatedFrames_breakNoRule() throws {
        var fuzzer = PeerFuzzer(seed: 2)
        let summary = try fuzzer.run(0..<Self.runCount)
        #expect(summary.runCount == Int(Self.runCount))
        // Mutants that all die at the checksum would show nothing.
        #expect(summary.decodedCount > summary.runCount / 10)
        #expect(summary.refusedBodyCount > summary.runCount / 10)
    }

    @Test func sameSeed_sameRuns() throws {
        var first = PeerFuzzer(seed: 9)
        var second = PeerFuzzer(seed: 9)
        #expect(try first.run(50..<500).digest == second.run(50..<500).digest)
        var other = PeerFuzzer(seed: 10)
        #expect(try first.run(50..<500).digest != other.run(50..<500).digest)
    }
}
