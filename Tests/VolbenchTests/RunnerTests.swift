import Testing
import volbench

@Suite("Runner")
struct RunnerTests {
    /// Drives the null engine for exactly `count` operations.
    private func run(
        _ change: (inout Workload) -> Void,
        count: UInt64 = 10_000
    ) throws -> Measurement {
        var workload = Workload()
        change(&workload)
        var pace = Pace()
        pace.runSeconds = 60
        pace.operationCountMax = count
        let engine = NullEngine(laneCount: 8, targetByteCount: 1 << 30)
        return try Runner(engine: engine, workload: workload, pace: pace, serverPIDs: []).run()
    }

    @Test("reads and writes come in the ratio asked for")
    func run_mixed_keepsTheRatio() throws {
        let measurement = try run { $0.readPercent = 70 }
        let reads = Double(measurement.latency(.read).count)
        #expect(abs(reads / Double(measurement.transferCount) - 0.7) < 0.03)
        #expect(measurement.byteCount == measurement.transferCount * 4096)
    }

    @Test("each lane flushes after as many writes as asked for")
    func run_flushEvery_alternates() throws {
        let measurement = try run {
            $0.readPercent = 0
            $0.flushInterval = 4
        }
        let ratio =
            Double(measurement.latency(.write).count) / Double(measurement.latency(.flush).count)
        #expect(abs(ratio - 4) < 0.02)
    }

    @Test("a process that is not there is an error, not a zero")
    func run_unknownServer_throws() {
        let engine = NullEngine(laneCount: 1, targetByteCount: 1 << 20)
        var pace = Pace()
        pace.operationCountMax = 1
        let runner = Runner(
            engine: engine,
            workload: Workload(),
            pace: pace,
            serverPIDs: [Int32.max]
        )
        #expect(throws: BenchError.self) { try runner.run() }
    }

    @Test("sequential streams visit every block of their stretch once, in order")
    func source_sequential_coversTheSpan() {
        var workload = Workload()
        workload.order = .sequential
        workload.spanOffset = 8192
        workload.spanByteCount = 64 * 4096
        let source = OperationSource(
            workload: workload,
            laneCount: 4,
            streamCount: 2,
            targetByteCount: 1 << 20
        )
        var offsets: [UInt64] = []
        for index in 0..<64 { offsets.append(source.next(lane: index % 4).offset) }
        #expect(Set(offsets).count == 64)
        #expect(offsets.min() == 8192 && offsets.max() == 8192 + 63 * 4096)
        // And around again from the start of each stretch.
        #expect(source.next(lane: 0).offset == 8192)
        #expect(source.next(lane: 3).offset == 8192 + 32 * 4096)
    }

    @Test("random offsets stay in the span and reach its ends", arguments: [1, 2, 3] as [UInt64])
    func source_random_staysInside(seed: UInt64) {
        var workload = Workload()
        workload.seed = seed
        workload.spanOffset = 4096
        workload.spanByteCount = 16 * 4096
        let source = OperationSource(
            workload: workload,
            laneCount: 1,
            streamCount: 1,
            targetByteCount: 1 << 20
        )
        var seen: Set<UInt64> = []
        for _ in 0..<1000 { seen.insert(source.next(lane: 0).offset) }
        #expect(seen == Set((1...16).map { UInt64($0) * 4096 }))
    }

    @Test("the same seed draws the same operations")
    func source_sameSeed_isTheSame() {
        func draw() -> [UInt64] {
            let source = OperationSource(
                workload: Workload(),
                laneCount: 1,
                streamCount: 1,
                targetByteCount: 1 << 30
            )
            return (0..<100).map { _ in source.next(lane: 0).offset }
        }
        #expect(draw() == draw())
    }
}
