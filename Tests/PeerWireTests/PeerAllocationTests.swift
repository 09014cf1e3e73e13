import BlockCore
import CAllocationCounter
import FuzzSupport
import PeerWire
import Replication
import Testing

/// What is said for each request of a client allocates nothing, neither way.
@Suite(.enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"))
struct PeerAllocationTests {
    @Test(
        "Hot messages allocate nothing",
        arguments: [
            PeerFrameKind.write, .read, .flush, .renew, .fetch, .fill, .progress, .readDone,
            .granted, .readRefused, .fetched, .filled,
        ]
    )
    func codec_ofHotMessages_allocatesNothing(_ kind: PeerFrameKind) throws {
        let bench = PeerBench()
        var random = FuzzRandom(seed: 31, stream: UInt64(kind.rawValue))
        let samples = (0..<100).map { _ in PeerSample(kind, random: &random) }
        var sameCount = 0
        let before = allocation_counter_thread_count()
        for sample in samples {
            _ = sample.encode(
                payload: bench.payload,
                into: bench.frame,
                scratch: bench.checksums
            )
            let header = try PeerFrameReader.header(bench.frame)
            let body = bench.frame.suffix(from: PeerLimits.headerByteCount)
            let frame = try PeerFrameReader.frame(header, body: body, payload: PeerSample.payload)
            let checksums = PeerFrameReader.blockChecksums(of: header, body: body)
            let payload = bench.payload.slice(0, header.payloadByteCount)
            if PeerFrameReader.payloadMatches(payload, checksums: checksums), frame == sample.frame
            {
                sameCount += 1
            }
        }
        let count = allocation_counter_thread_count() - before
        #expect(count == 0)
        #expect(sameCount == samples.count)
    }
}
