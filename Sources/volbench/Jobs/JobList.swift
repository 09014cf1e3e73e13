/// The jobs of a run, in order, each checked for itself.
package enum JobList {
    /// The jobs of a file; what the command line says wins.
    ///
    /// - Throws: ``BenchError`` with file and line, or that the options contradict each other.
    package static func jobs(
        of file: JobFile,
        overrides: [(name: String, value: String)] = []
    ) throws(BenchError) -> [JobOptions] {
        var global = JobOptions()
        var result: [JobOptions] = []
        for section in file.sections {
            var job = global
            if !section.isGlobal { job.own = [] }
            for assignment in section.assignments {
                do throws(BenchError) {
                    try OptionTable.apply(
                        assignment.name,
                        assignment.value,
                        to: &job,
                        isOwn: !section.isGlobal
                    )
                } catch {
                    throw BenchError("\(file.path):\(assignment.line): \(error.message)")
                }
            }
            guard !section.isGlobal else {
                global = job
                continue
            }
            if !job.own.contains("name") { job.name = section.name }
            for (name, value) in overrides {
                try OptionTable.apply(name, value, to: &job, isOwn: false)
            }
            do throws(BenchError) {
                try check(job)
            } catch {
                throw BenchError("\(file.path): [\(section.name)] \(error.message)")
            }
            result.append(job)
        }
        return result
    }

    // MARK: - Contradictions

    /// Refuses a job whose options contradict each other.
    ///
    /// - Throws: ``BenchError`` that names both.
    package static func check(_ job: JobOptions) throws(BenchError) {
        try checkTarget(job)
        try checkAccess(job)
        try checkTime(job)
        try checkVerification(job)
    }

    private static func checkTarget(_ job: JobOptions) throws(BenchError) {
        let isFile = job.engine == .uring || job.engine == .aio
        if job.uri != nil, job.filename != nil {
            throw BenchError("uri and filename: a job has one target")
        }
        if job.engine == .nbd, job.filename != nil {
            throw BenchError("ioengine=nbd takes uri=, not filename=")
        }
        if isFile, job.uri != nil {
            throw BenchError("ioengine=\(job.engine?.rawValue ?? "") takes filename=, not uri=")
        }
        if job.connectionCount > 1, isFile || job.filename != nil || job.engine == .null {
            throw BenchError("connections is for NBD targets; raise iodepth or numjobs")
        }
        guard job.connectionCount <= job.depth else {
            throw BenchError(
                "connections=\(job.connectionCount) share iodepth=\(job.depth): raise iodepth"
            )
        }
        let laneByteCount = job.blockByteCountMax + 8192
        guard job.depth * laneByteCount <= JobLimits.memoryByteCountMax else {
            throw BenchError("bs and iodepth need more than 4 GiB of memory")
        }
    }

    private static func checkAccess(_ job: JobOptions) throws(BenchError) {
        if job.has("bs"), job.has("bssplit") {
            throw BenchError("bs and bssplit: one of the two")
        }
        if let read = Int(job.given["rwmixread"] ?? ""),
            let write = Int(job.given["rwmixwrite"] ?? ""), read + write != 100
        {
            throw BenchError("rwmixread and rwmixwrite are not 100 together")
        }
        if job.has("rwmixread") || job.has("rwmixwrite"), job.mode.text != "", !job.mode.isMixed {
            throw BenchError("rwmixread and rwmixwrite are for rw=rw and rw=randrw")
        }
        if job.distribution != .uniform, !job.mode.isRandom {
            throw BenchError("random_distribution is for random modes, not rw=\(job.mode.text)")
        }
        if job.flushInterval > 0 || job.forceUnitAccess, !job.mode.writes {
            throw BenchError("fsync and sync are for jobs that write, not rw=\(job.mode.text)")
        }
        if job.mode.trims, job.mode.writes, job.blockSizes.write != job.blockSizes.trim {
            throw BenchError("rw=\(job.mode.text) writes what it trims: one bs for both")
        }
        if case .bytes(let size)? = job.size, size < UInt64(job.blockByteCountMax) {
            throw BenchError("size is smaller than a block of \(job.blockByteCountMax) bytes")
        }
    }

    private static func checkTime(_ job: JobOptions) throws(BenchError) {
        if job.isTimeBased, job.runMicroseconds ?? 0 == 0 {
            throw BenchError("time_based needs runtime")
        }
        if job.byteRate != nil, job.operationRate != nil {
            throw BenchError("rate and rate_iops: one of the two")
        }
        if let rate = job.byteRate, min(rate.read, rate.write, rate.trim) <= 0 {
            throw BenchError("rate: at least one byte per second")
        }
        if job.hasPoissonArrivals, job.byteRate == nil, job.operationRate == nil {
            throw BenchError("rate_process needs rate or rate_iops")
        }
        if job.has("thinktime_blocks"), job.thinkMicroseconds == 0 {
            throw BenchError("thinktime_blocks needs thinktime")
        }
        let hasTarget = job.latencyTargetMicroseconds > 0
        if hasTarget, job.latencyWindowMicroseconds == 0 {
            throw BenchError("latency_target needs latency_window")
        }
        if !hasTarget, job.has("latency_window") || job.has("latency_percentile") {
            throw BenchError("latency_window and latency_percentile need latency_target")
        }
        if hasTarget, job.byteRate != nil || job.operationRate != nil {
            throw BenchError("latency_target chooses the load: no rate beside it")
        }
    }

    private static func checkVerification(_ job: JobOptions) throws(BenchError) {
        if job.verification == .pattern, job.pattern.isEmpty {
            throw BenchError("verify=pattern needs verify_pattern")
        }
        if job.has("verify_pattern"), job.verification != .pattern {
            throw BenchError("verify_pattern needs verify=pattern")
        }
        guard job.verification != .none else { return }
        if job.mode.trims { throw BenchError("verify cannot know blocks that are trimmed") }
        let sizes = job.blockSizes
        let isUneven = sizes.write.entries.count > 1 || sizes.read != sizes.write
        let overlaps = job.mode.isRandom && (job.repeatsPlaces || job.distribution != .uniform)
        if isUneven, overlaps || job.mode.isMixed {
            throw BenchError("verify needs blocks that do not overlap: one bs, or no norandommap")
        }
        if job.mode.isMixed, overlaps || job.isTimeBased {
            throw BenchError("verify of rw=\(job.mode.text) needs each block visited once")
        }
    }
}
