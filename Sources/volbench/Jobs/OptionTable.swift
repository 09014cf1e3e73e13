// The options that jobs have, in one table: names, meanings and what a value does.

internal import BlockCore

/// One option of a job.
package struct OptionEntry: Sendable {
    /// Reads a value into a job.
    package typealias Apply =
        @Sendable (inout JobOptions, OptionText) throws(BenchError) -> Void

    /// Its name.
    package let name: String
    /// Other names for it.
    package let aliases: [String]
    /// What it means, in a line.
    package let help: String
    /// Reads a value into a job.
    package let apply: Apply

    init(_ name: String, _ aliases: [String] = [], _ help: String, _ apply: @escaping Apply) {
        self.name = name
        self.aliases = aliases
        self.help = help
        self.apply = apply
    }
}

/// All options of jobs.
package enum OptionTable {
    /// Every option, in the order of the manual.
    package static let entries: [OptionEntry] =
        target + access + amount + time + durability + verification + reporting + accepted

    private static let byName: [String: OptionEntry] = {
        var result: [String: OptionEntry] = [:]
        for entry in entries {
            for name in [entry.name] + entry.aliases { result[name] = entry }
        }
        return result
    }()

    /// Every name and alias.
    package static var names: [String] { byName.keys.sorted() }

    /// The option called `name`, with `-` as good as `_`.
    ///
    /// - Throws: ``BenchError`` that names the nearest option, or says that only fio has it.
    package static func entry(_ name: String) throws(BenchError) -> OptionEntry {
        let spelled = String(name.map { $0 == "-" ? "_" : $0 })
        if let entry = byName[spelled] { return entry }
        if fioOnly.contains(spelled) {
            throw BenchError("\(name): fio has this option, volbench does not; take it out")
        }
        guard let hint = didYouMean(spelled, among: names) else {
            throw BenchError("\(name): no such option")
        }
        throw BenchError("\(name): no such option; \(hint)")
    }

    /// Reads one option into a job.
    ///
    /// - Throws: ``BenchError`` that names the option and what is wrong.
    package static func apply(
        _ name: String,
        _ value: String,
        to job: inout JobOptions,
        isOwn: Bool
    ) throws(BenchError) {
        let entry = try entry(name)
        try entry.apply(&job, OptionText(name: entry.name, value: value))
        job.given[entry.name] = value
        if isOwn, !job.own.contains(entry.name) { job.own.append(entry.name) }
    }

    // MARK: - Target

    private static let target: [OptionEntry] = [
        OptionEntry("name", [], "name of the job") { job, text throws(BenchError) in
            job.name = text.value
        },
        OptionEntry("description", [], "text about the job") { job, text throws(BenchError) in
            job.description = text.value
        },
        OptionEntry("ioengine", [], "nbd, uring, aio or null") { job, text throws(BenchError) in
            switch text.value {
            case "nbd": job.engine = .nbd
            case "uring", "io_uring": job.engine = .uring
            case "aio", "libaio": job.engine = .aio
            case "null": job.engine = .null
            case "iscsi": throw text.wrong("not built yet; attach the volume over NBD")
            default: throw text.wrong("nbd, uring (io_uring), aio (libaio) or null")
            }
        },
        OptionEntry("uri", [], "NBD target") { job, text throws(BenchError) in job.uri = text.value
        },
        OptionEntry("filename", [], "file or block device") { job, text throws(BenchError) in
            job.filename = text.value
        },
        OptionEntry("connections", [], "NBD connections of each job") {
            job,
            text throws(BenchError) in
            job.connectionCount = try text.count(1...JobLimits.connectionCountMax)
        },
        OptionEntry("simple_replies", [], "do not ask for structured replies") {
            job,
            text throws(BenchError) in
            job.usesStructuredReplies = try !text.flag()
        },
    ]

    // MARK: - What is done

    private static let access: [OptionEntry] = [
        OptionEntry("rw", ["readwrite"], "read, write, randrw, ...") {
            job,
            text throws(BenchError) in
            job.mode = try text.accessMode()
        },
        OptionEntry("rwmixread", [], "percent of reads") { job, text throws(BenchError) in
            job.readPercent = try text.count(0...100)
        },
        OptionEntry("rwmixwrite", [], "percent of writes") { job, text throws(BenchError) in
            job.readPercent = 100 - (try text.count(0...100))
        },
        OptionEntry("bs", ["blocksize"], "bytes per operation: reads,writes,trims") {
            job,
            text throws(BenchError) in
            job.blockSizes = try text.perDirection { text throws(BenchError) in
                .fixed(try JobLimits.blockByteCount(try text.size(), of: text))
            }
        },
        OptionEntry("bssplit", [], "sizes and their shares: 4k/10:64k/90") {
            job,
            text throws(BenchError) in
            job.blockSizes = try text.perDirection { text throws(BenchError) in
                try text.blockSplit()
            }
        },
        OptionEntry("iodepth", [], "operations in flight per job") { job, text throws(BenchError) in
            job.depth = try text.count(1...JobLimits.depthMax)
        },
        OptionEntry("norandommap", [], "random places with repetition") {
            job,
            text throws(BenchError) in
            job.repeatsPlaces = try text.flag()
        },
        OptionEntry("random_distribution", [], "random, zipf:THETA, pareto:H") {
            job,
            text throws(BenchError) in
            job.distribution = try text.distribution()
        },
        OptionEntry("randseed", ["seed"], "seed of all choices") { job, text throws(BenchError) in
            job.seed = UInt64(try text.count(0...Int.max))
        },
        OptionEntry("randrepeat", ["allrandrepeat"], "0: another seed each time") {
            job,
            text throws(BenchError) in
            if try !text.flag() { job.seed = Clock.now().nanoseconds }
        },
    ]

    // MARK: - How much

    private static let amount: [OptionEntry] = [
        OptionEntry("numjobs", [], "clones of the job") { job, text throws(BenchError) in
            job.cloneCount = try text.count(1...JobLimits.cloneCountMax)
        },
        OptionEntry("size", [], "bytes used, or percent") { job, text throws(BenchError) in
            job.size = try text.extent()
        },
        OptionEntry("offset", [], "first byte used, or percent") { job, text throws(BenchError) in
            job.offset = try text.extent()
        },
        OptionEntry("offset_increment", [], "how much further each clone begins") {
            job,
            text throws(BenchError) in
            job.offsetIncrement = try text.extent()
        },
        OptionEntry("io_size", ["io_limit"], "bytes to move in all") {
            job,
            text throws(BenchError) in
            job.ioSize = try text.extent()
        },
        OptionEntry("number_ios", ["count"], "end after so many operations") {
            job,
            text throws(BenchError) in
            job.operationCountMax = UInt64(try text.count(1...Int.max))
        },
        OptionEntry("loops", [], "times to do it all") { job, text throws(BenchError) in
            job.loopCount = try text.count(1...1_000_000)
        },
    ]

    // MARK: - Time

    private static let time: [OptionEntry] = [
        OptionEntry("runtime", ["timeout"], "seconds at most") { job, text throws(BenchError) in
            job.runMicroseconds = try text.seconds()
        },
        OptionEntry("time_based", [], "go on until runtime is over") {
            job,
            text throws(BenchError) in
            job.isTimeBased = try text.flag()
        },
        OptionEntry("ramp_time", ["ramp"], "seconds before anything counts") {
            job,
            text throws(BenchError) in
            job.rampMicroseconds = try text.seconds()
        },
        OptionEntry("startdelay", [], "seconds to wait before the start") {
            job,
            text throws(BenchError) in
            job.startDelayMicroseconds = try text.seconds()
        },
        OptionEntry("thinktime", [], "µs of rest") { job, text throws(BenchError) in
            job.thinkMicroseconds = try text.microseconds(unit: 1)
        },
        OptionEntry("thinktime_blocks", [], "operations between rests") {
            job,
            text throws(BenchError) in
            job.thinkOperationCount = try text.count(1...1_000_000_000)
        },
        OptionEntry("rate", [], "bytes per second: reads,writes,trims") {
            job,
            text throws(BenchError) in
            job.byteRate = try text.perDirection { text throws(BenchError) in
                Int(clamping: try text.size())
            }
        },
        OptionEntry("rate_iops", [], "operations per second: reads,writes,trims") {
            job,
            text throws(BenchError) in
            job.operationRate = try text.perDirection { text throws(BenchError) in
                try text.count(1...JobLimits.rateMax)
            }
        },
        OptionEntry("rate_process", [], "linear or poisson") { job, text throws(BenchError) in
            switch text.value {
            case "linear": job.hasPoissonArrivals = false
            case "poisson": job.hasPoissonArrivals = true
            default: throw text.wrong("linear or poisson")
            }
        },
        OptionEntry("latency_target", [], "µs to keep by choice of depth") {
            job,
            text throws(BenchError) in
            job.latencyTargetMicroseconds = try text.microseconds(unit: 1)
        },
        OptionEntry("latency_window", [], "µs over which it is judged") {
            job,
            text throws(BenchError) in
            job.latencyWindowMicroseconds = try text.microseconds(unit: 1)
        },
        OptionEntry("latency_percentile", [], "percent that keep it") {
            job,
            text throws(BenchError) in
            job.latencyPercentile = try text.number(0.001...100)
        },
        OptionEntry("latency_run", [], "go on at the depth found") { job, text throws(BenchError) in
            job.isLatencyRunEndless = try text.flag()
        },
    ]

    // MARK: - Durability

    private static let durability: [OptionEntry] = [
        OptionEntry(
            "fsync",
            ["fdatasync", "flush_every"],
            "flush after so many writes"
        ) { job, text throws(BenchError) in
            job.flushInterval = try text.count(0...1_000_000_000)
        },
        OptionEntry("end_fsync", ["fsync_on_close"], "flush at the end") {
            job,
            text throws(BenchError) in
            job.flushesAtEnd = try text.flag()
        },
        OptionEntry("sync", ["fua"], "every write durable when it completes") {
            job,
            text throws(BenchError) in
            switch text.value {
            case "1", "sync", "dsync": job.forceUnitAccess = true
            case "0", "none": job.forceUnitAccess = false
            default: throw text.wrong("none, sync or dsync")
            }
        },
    ]

    // MARK: - Verification

    private static let verification: [OptionEntry] = [
        OptionEntry("verify", [], "crc32c or pattern") { job, text throws(BenchError) in
            switch text.value {
            case "0", "none": job.verification = .none
            case "crc32c", "crc32c-intel": job.verification = .crc32c
            case "pattern": job.verification = .pattern
            default: throw text.wrong("crc32c or pattern")
            }
        },
        OptionEntry("verify_pattern", [], "what verify=pattern writes") {
            job,
            text throws(BenchError) in
            job.pattern = try text.pattern()
        },
        OptionEntry("do_verify", [], "0: do not read back what was written") {
            job,
            text throws(BenchError) in
            job.verifiesAfterwards = try text.flag()
        },
        OptionEntry("verify_fatal", [], "end at the first wrong block") {
            job,
            text throws(BenchError) in
            job.isVerifyFailureFatal = try text.flag()
        },
        OptionEntry("continue_on_error", [], "none, io or all") { job, text throws(BenchError) in
            switch text.value {
            case "none", "0": job.errorPolicy = .stop
            case "io", "all", "1", "read", "write", "verify": job.errorPolicy = .proceed
            default: throw text.wrong("none, io or all")
            }
        },
    ]
}
