extension OptionTable {
    static let reporting: [OptionEntry] = [
        OptionEntry("percentile_list", [], "percentages between colons") {
            job,
            text throws(BenchError) in
            job.percentiles = try text.percentiles()
        },
        OptionEntry("group_reporting", [], "one result for all jobs of a group") {
            job,
            text throws(BenchError) in
            job.isGroupReported = try text.flag()
        },
        OptionEntry("new_group", [], "begin a group of results") { job, text throws(BenchError) in
            job.beginsGroup = try text.flag()
        },
        OptionEntry(
            "stonewall",
            ["wait_for_previous"],
            "begin when all jobs before have ended"
        ) { job, text throws(BenchError) in
            job.waitsForJobsBefore = try text.flag()
        },
        OptionEntry("write_bw_log", [], "file of bandwidths, NAME_bw.N.log") {
            job,
            text throws(BenchError) in
            job.bandwidthLog = text.value
        },
        OptionEntry("write_iops_log", [], "file of rates, NAME_iops.N.log") {
            job,
            text throws(BenchError) in
            job.operationsLog = text.value
        },
        OptionEntry("write_lat_log", [], "file of latencies, NAME_clat.N.log") {
            job,
            text throws(BenchError) in
            job.latencyLog = text.value
        },
        OptionEntry("log_avg_msec", [], "ms that a line of a log covers") {
            job,
            text throws(BenchError) in
            job.logMilliseconds = try text.count(1...3_600_000)
        },
    ]

    /// Options that volbench obeys whatever they say, as long as they say the one thing it does.
    static let accepted: [OptionEntry] = [
        fixedFlag("direct", true, "files are always opened past the page cache"),
        fixedFlag("buffered", false, "files are always opened past the page cache"),
        fixedFlag("thread", true, "jobs are always threads"),
        fixedFlag("invalidate", true, "nothing is cached on this side"),
        fixedFlag("refill_buffers", true, "no two blocks written are equal"),
        fixedFlag("overwrite", true, "targets are there before the job"),
    ]

    private static func fixedFlag(_ name: String, _ value: Bool, _ reason: String) -> OptionEntry {
        OptionEntry(name, [], reason) { _, text throws(BenchError) in
            guard try text.flag() == value else {
                throw text.wrong("only \(value ? 1 : 0) here: \(reason)")
            }
        }
    }

    /// Names that fio has and that would change what is measured: not known here, and said so
    /// rather than likened to something else.
    static let fioOnly: Set<String> = [
        "allow_file_create", "blockalign", "bs_is_seq_rand", "bs_unaligned", "bsrange",
        "buffer_compress_percentage", "buffer_pattern", "cpus_allowed", "cpuload",
        "create_on_open", "create_serialize", "dedupe_percentage", "directory", "exec_postrun",
        "exec_prerun", "experimental_verify", "file_service_type", "fill_device", "fixedbufs",
        "gtod_reduce", "hipri", "iodepth_batch", "iodepth_batch_complete", "iodepth_low",
        "lat_percentiles", "lockmem", "log_hist_msec", "log_max_value", "mem", "nice", "nrfiles",
        "openfiles", "opendir", "percentage_random", "prio", "random_generator", "rate_min",
        "rate_iops_min", "read_iolog", "registerfiles", "rw_sequencer", "serialize_overlap",
        "softrandommap", "sqthread_poll", "steadystate", "sync_file_range", "unlink",
        "verify_async", "verify_backlog", "verify_interval", "verify_offset", "verify_only",
        "write_hist_log", "write_iolog", "zero_buffers", "zonemode", "zonesize",
    ]
}

extension OptionText {
    /// A time in seconds, as microseconds.
    package func seconds() throws(BenchError) -> UInt64 {
        let result = try microseconds(unit: 1_000_000)
        guard result <= JobLimits.secondsMax * 1_000_000 else {
            throw wrong("at most \(JobLimits.secondsMax) seconds")
        }
        return result
    }

    /// What a job does: `randrw`, `write:64k`.
    package func accessMode() throws(BenchError) -> AccessMode {
        let parts = value.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let word = parts.first.map(String.init) ?? ""
        let isRandom = word.hasPrefix("rand")
        let verb = isRandom ? String(word.dropFirst(4)) : word
        var mode = AccessMode(
            text: word,
            isRandom: isRandom,
            reads: ["read", "rw", "readwrite"].contains(verb),
            writes: ["write", "rw", "readwrite", "trimwrite"].contains(verb),
            trims: ["trim", "trimwrite"].contains(verb)
        )
        guard mode.reads || mode.writes || mode.trims, verb != "readwrite" || !isRandom else {
            let modes = AccessMode.words
            let hint = didYouMean(word, among: modes).map { "; \($0)" } ?? ""
            throw wrong("one of \(modes.joined(separator: ", "))\(hint)")
        }
        guard parts.count == 2 else { return mode }
        let tail = OptionText(name: name, value: String(parts[1]))
        if isRandom {
            mode.runLength = try tail.count(1...1_000_000_000)
        } else {
            mode.gapByteCount = try tail.size()
            guard mode.gapByteCount % UInt64(JobLimits.blockByteCountMin) == 0 else {
                throw wrong("what is left out is a multiple of \(JobLimits.blockByteCountMin)")
            }
        }
        return mode
    }

    /// In which places random operations fall.
    package func distribution() throws(BenchError) -> PlaceDistribution {
        let parts = value.split(separator: ":", maxSplits: 1).map(String.init)
        let argument = OptionText(name: name, value: parts.count == 2 ? parts[1] : "")
        switch parts.first {
        case "random" where parts.count == 1: return .uniform
        case "zipf":
            let theta = try argument.number(0.001...10)
            guard theta != 1 else { throw wrong("zipf's theta is not 1") }
            return .zipf(theta: theta)
        case "pareto": return .pareto(h: try argument.number(0.001...0.999))
        default: throw wrong("random, zipf:THETA or pareto:H")
        }
    }
}

extension AccessMode {
    /// All modes.
    package static var words: [String] {
        let verbs = ["read", "write", "trim", "rw", "trimwrite"]
        return verbs + ["readwrite"] + verbs.map { "rand" + $0 }
    }
}
