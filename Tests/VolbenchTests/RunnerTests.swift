import BlockCore
import Testing
import volbench

@Suite("Runner", .serialized)
struct RunnerTests {
    @Test("reads and writes come in the ratio asked for, and all of them are counted")
    func run_mixed_keepsTheRatio() throws {
        let result = try Runs.one(
            "null:",
            "--rw=randrw",
            "--rwmixread=70",
            "--iodepth=8",
            "--number_ios=10000"
        )
        #expect(result.transferCount == 10_000 && result.byteCount == 10_000 * 4096)
        #expect(abs(Double(result[.read].clat.count) / 10_000 - 0.7) < 0.03)
        #expect(result.failure == nil && result.depthCounts.reduce(0, +) == 10_000)
    }

    @Test("flushes are counted beside the writes that they follow")
    func run_flushes_areCounted() throws {
        let result = try Runs.one("null:", "--rw=randwrite", "--fsync=4", "--number_ios=10000")
        #expect(result[.flush].clat.count == 2499 || result[.flush].clat.count == 2500)
        #expect(result.transferCount == 10_000)
    }

    @Test("clones of a group are one result; without grouping each has its own")
    func run_groups() throws {
        let line = ["null:", "--numjobs=3", "--number_ios=100", "--size=1m"]
        let each = try Runs.run(line)
        #expect(each.count == 3 && each.allSatisfy { $0.transferCount == 100 })
        let grouped = try Runs.run(line + ["--group_reporting"])
        #expect(grouped.count == 1 && grouped[0].transferCount == 300 && grouped[0].jobCount == 3)
    }

    @Test("a process that is not there is an error, not a zero")
    func run_unknownServer_fails() throws {
        let line = try Invocation(parsing: ["null:", "--number_ios=1"])
        let session = Session(jobs: line.jobs, target: line.target, serverPIDs: [Int32.max])
        #expect(session.run()[0].failure?.contains("no such process") == true)
    }

    @Test("a rate makes so many operations due, and latencies count from then")
    func run_rate_isKept() throws {
        let result = try Runs.one(
            "null:",
            "--rw=randread",
            "--rate_iops=1000",
            "--number_ios=100",
            "--size=1m"
        )
        #expect(result.transferCount == 100 && result.isCorrected)
        // The last is due 99 ms after the first: no machine is faster.
        #expect(result.elapsedNanoseconds >= 99_000_000)
        #expect(result[.read].lat.count == 100)
    }

    @Test("each direction has its own rate: the one that is due does not wait for the other")
    func run_rates_areApart() throws {
        let result = try Runs.one(
            "null:",
            "--rw=randrw",
            "--rate_iops=2000,20",
            "--runtime=0.5",
            "--iodepth=4"
        )
        // Whatever was not begun in time was due all the same: it is counted apart.
        let reads = result[.read].clat.count + result.unstartedCount
        #expect(reads > 900 && reads < 1100)
        #expect(result[.write].clat.count <= 11)
    }

    @Test("a job takes as long as it was to, also when it waited for its next turn")
    func run_idle_takesItsTime() throws {
        let result = try Runs.one("null:", "--rate_iops=1", "--runtime=0.2", "--time_based")
        #expect(result.transferCount == 1 && result.elapsedNanoseconds >= 200_000_000)
    }

    @Test("the last writes are flushed when all of them have ended, also when time ends the job")
    func run_endFlush() throws {
        for limit in ["--number_ios=100", "--runtime=0.05"] {
            let result = try Runs.one("null:", "--rw=write", "--end_fsync=1", "--iodepth=8", limit)
            #expect(result[.flush].clat.count == 1 && result.failure == nil, "\(limit)")
        }
    }

    @Test("a job that ends within its ramp says that nothing was measured")
    func run_ramp_isTooLong() throws {
        let result = try Runs.one("null:", "--size=1m", "--ramp_time=60")
        #expect(result.failure?.contains("ramp_time") == true)
    }

    @Test("a stalled target is charged for what was due meanwhile")
    func run_stall_isNotOmitted() throws {
        let plan = try Runs.plan([
            "rw": "read", "rate_iops": "1000", "number_ios": "200", "size": "1m",
        ])
        let result = JobRunner(engine: StallingEngine(), plan: plan).run()
        #expect(result.transferCount == 200)
        // One answer took 100 ms: without correction one latency in 200 shows it, with it about a
        // hundred, half of them over 50 ms.
        #expect(result[.read].lat.percentile(0.80) >= 50_000_000)
        #expect(result.gapNanoseconds >= 100_000_000)
    }

    @Test("a search for a depth ends at the largest that keeps the latency")
    func search_findsTheDepth() throws {
        let plan = try Runs.plan([
            "latency_target": "100", "latency_window": "1000", "latency_percentile": "99",
            "iodepth": "64",
        ])
        for limit in [0, 1, 5, 37, 64] {
            var now = Instant(nanoseconds: 0)
            var search = try #require(DepthSearch(options: plan.options, start: now))
            for _ in 0..<40 where !search.isDone {
                for _ in 0..<100 { search.record(search.depth <= limit ? 99_000 : 101_000) }
                now = now.advanced(byNanoseconds: 1_000_001)
                search.tick(now: now)
            }
            #expect(search.isDone)
            #expect(search.result.depth == max(limit, 1) && search.result.isKept == (limit > 0))
        }
    }

    @Test("too many intervals become fewer and longer, and lose nothing")
    func series_coalesces() {
        var series = IntervalSeries()
        for index in 0..<10_000 {
            var interval = Interval()
            interval.nanoseconds = 5
            interval.endMilliseconds = UInt64(index)
            interval.counts[0] = 3
            series.append(interval)
        }
        series.finish()
        #expect(series.intervals.count <= IntervalSeries.countMax)
        #expect(series.intervals.reduce(0) { $0 + $1.counts[0] } == 30_000)
        #expect(series.intervals.reduce(0) { $0 + $1.nanoseconds } == 50_000)
        #expect(series.intervals.last?.endMilliseconds == 9999)
    }
}

/// Answers at once, but for one operation that takes a tenth of a second: the fifteenth.
private final class StallingEngine: Engine {
    let laneCount = 1
    let targetByteCount: UInt64 = 1 << 20
    let completions = FixedRing<EngineCompletion>(capacityMin: 1)
    private var count = 0
    private static let stallNanoseconds: UInt64 = 100_000_000

    func payload(lane: Int) -> ByteRegion { .empty }

    func submit(_ operation: Operation, lane: Int) {
        count += 1
        if count == 15 {
            Clock.sleep(until: Clock.now().advanced(byNanoseconds: Self.stallNanoseconds))
        }
        completions.append(EngineCompletion(lane: Int32(lane), errno: 0))
    }

    func turn(deadline: Instant) throws(BenchError) {
        if completions.isEmpty { Clock.sleep(until: deadline) }
    }

    func close() {}
}
