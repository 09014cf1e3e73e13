/// Built-in jobs by which a block service is judged: job files like any other.
package enum Suite: String, Sendable, CaseIterable {
    case basic
    case quick
    case overhead
    case cloneStorm = "clone-storm"
    case snapshotDepth = "snapshot-depth"
    case fill
    case aging

    /// What it shows, in a line.
    package var summary: String {
        switch self {
        case .basic: "random and sequential work at several depths, and the usual six lines"
        case .quick: "five lines of basic, short"
        case .overhead: "basic on a volume and the raw device: what virtualising costs"
        case .cloneStorm: "the same blocks of N clones at once (--clones, %d in the target)"
        case .snapshotDepth: "random work after each of N snapshots (--steps, --step-command)"
        case .fill: "random overwrites at 50, 70, 80 and 90 % written"
        case .aging: "random overwrites with trims, in N pieces (--steps)"
        }
    }

    /// The suite of that name.
    ///
    /// - Throws: ``BenchError`` with the names there are.
    package init(named name: String) throws(BenchError) {
        guard let suite = Suite(rawValue: name) else {
            let names = Suite.allCases.map(\.rawValue)
            let hint = didYouMean(name, among: names).map { "; \($0)" } ?? ""
            throw BenchError("--suite=\(name): one of \(names.joined(separator: ", "))\(hint)")
        }
        self = suite
    }

    /// Whether its jobs can run on several targets in turns.
    package var isComparable: Bool { [.basic, .quick, .overhead].contains(self) }

    /// Seconds of each job where nothing else is said.
    package var secondsDefault: Double {
        switch self {
        case .quick: 1
        case .aging: 60
        default: 5
        }
    }

    /// The jobs of a suite that needs no steps, each of `seconds`.
    package func jobs(seconds: Double) throws(BenchError) -> [JobOptions] {
        let microseconds = UInt64(seconds * 1e6)
        let head = """
            [global]
            time_based
            runtime=\(microseconds)us
            ramp_time=\(min(microseconds / 5, 1_000_000))us
            log_avg_msec=\(max(10, min(500, microseconds / 20_000)))
            group_reporting

            """
        let body = self == .quick ? Suite.quickJobs : Suite.basicJobs
        let file = try JobFile(parsing: head + body, path: "suite \(rawValue)")
        return try JobList.jobs(of: file)
    }

    private static let quickJobs = """
        [4k randread QD1]
        stonewall
        rw=randread
        [4k randread QD32]
        stonewall
        rw=randread
        iodepth=32
        [4k randwrite QD32]
        stonewall
        rw=randwrite
        iodepth=32
        [4k 70/30 QD32]
        stonewall
        rw=randrw
        rwmixread=70
        iodepth=32
        [1m read QD4]
        stonewall
        rw=read
        bs=1m
        iodepth=4
        """

    /// The last six are the lines that performance guides of block stores ask for: linear 4 MiB at
    /// depth, and random 4 KiB one by one (durable where they write) and many at once.
    private static let basicJobs = """
        [4k randread QD1]
        stonewall
        rw=randread
        [4k randread QD32]
        stonewall
        rw=randread
        iodepth=32
        [4k randread 4xQD32]
        stonewall
        rw=randread
        iodepth=32
        numjobs=4
        [4k randwrite QD1]
        stonewall
        rw=randwrite
        [4k randwrite QD32]
        stonewall
        rw=randwrite
        iodepth=32
        [4k randwrite 4xQD32]
        stonewall
        rw=randwrite
        iodepth=32
        numjobs=4
        [4k 70/30 QD32]
        stonewall
        rw=randrw
        rwmixread=70
        iodepth=32
        [1m read QD4]
        stonewall
        rw=read
        bs=1m
        iodepth=4
        [1m write QD4]
        stonewall
        rw=write
        bs=1m
        iodepth=4
        [4m write QD32]
        stonewall
        rw=write
        bs=4m
        iodepth=32
        [4m read QD32]
        stonewall
        rw=read
        bs=4m
        iodepth=32
        [4k randwrite QD1 flushed]
        stonewall
        rw=randwrite
        fsync=1
        [4k randread QD1 again]
        stonewall
        rw=randread
        randseed=2
        [4k randwrite QD128]
        stonewall
        rw=randwrite
        iodepth=128
        [4k randread QD128]
        stonewall
        rw=randread
        iodepth=128
        """
}
