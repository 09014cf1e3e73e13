/// fio's JSON document: its keys, and a few of our own beside them.
package struct FioJSON {
    private let results: [JobResult]
    private let hasBins: Bool
    private let machine: MachineReport

    /// Creates the document of a run.
    package init(results: [JobResult], hasBins: Bool, machine: MachineReport) {
        self.results = results
        self.hasBins = hasBins
        self.machine = machine
    }

    /// The document.
    package var document: JSONValue {
        .object([
            ("fio version", .string("fio-3.33")),
            ("volbench version", .string(VolbenchVersion.text)),
            ("timestamp", .integer(Calendar.now / 1000)),
            ("timestamp_ms", .integer(Calendar.now)),
            ("time", .string(Calendar.text)),
            ("global options", .object([])),
            ("machine", machine.json),
            ("jobs", .array(results.map(job))),
        ])
    }

    // MARK: - Jobs

    private func job(_ result: JobResult) -> JSONValue {
        let options = result.options
        var fields: [(String, JSONValue)] = [
            ("jobname", .string(options.name)),
            ("groupid", .integer(UInt64(result.groupIndex))),
            ("error", .integer(UInt64(result.firstErrno))),
            ("eta", .integer(0)),
            ("elapsed", .integer(UInt64(result.seconds.rounded(.up)))),
            ("job options", options.document),
        ]
        if !options.description.isEmpty {
            fields.append(("desc", .string(options.description)))
        }
        for kind in [Operation.Kind.read, .write, .trim] {
            fields.append(("\(kind)", direction(result, kind)))
        }
        let flushes = result[.flush].clat
        fields.append(
            (
                "sync",
                .object([
                    ("total_ios", .integer(flushes.count)),
                    ("lat_ns", latency(flushes, options, hasPercentiles: true)),
                ])
            )
        )
        return .object(fields + thread(result) + target(result) + own(result))
    }

    private func thread(_ result: JobResult) -> [(String, JSONValue)] {
        let usage = result.usage
        let microseconds = max(Double(result.elapsedNanoseconds) / 1e3, 1)
        func percent(_ part: UInt64) -> JSONValue {
            .number(100 * Double(part) / microseconds / Double(result.jobCount))
        }
        let depths = FioShares.depths(result)
        let none = ["0", "4", "8", "16", "32", "64", ">=64"].map { ($0, JSONValue.number(0)) }
        let shares = FioShares.latencies(result)
        return [
            ("job_runtime", .integer(result.elapsedNanoseconds / 1_000_000)),
            ("usr_cpu", percent(usage.userMicroseconds)),
            ("sys_cpu", percent(usage.systemMicroseconds)),
            ("ctx", .integer(usage.switchCount)),
            ("majf", .integer(usage.majorFaultCount)),
            ("minf", .integer(usage.minorFaultCount)),
            ("iodepth_level", .object(depths.map { ($0.name, .number($0.percent)) })),
            ("iodepth_submit", .object(none)),
            ("iodepth_complete", .object(none)),
            ("latency_ns", .object(shares.nanoseconds.map { ($0.name, .number($0.percent)) })),
            ("latency_us", .object(shares.microseconds.map { ($0.name, .number($0.percent)) })),
            ("latency_ms", .object(shares.milliseconds.map { ($0.name, .number($0.percent)) })),
        ]
    }

    private func target(_ result: JobResult) -> [(String, JSONValue)] {
        let options = result.options
        let depth = result.latencyTarget?.depth ?? options.depth
        return [
            ("latency_depth", .integer(UInt64(depth))),
            ("latency_target", .integer(options.latencyTargetMicroseconds)),
            ("latency_percentile", .number(options.latencyPercentile)),
            ("latency_window", .integer(options.latencyWindowMicroseconds)),
        ]
    }

    /// What fio does not have.
    private func own(_ result: JobResult) -> [(String, JSONValue)] {
        let transfers = Double(max(result.transferCount, 1))
        var fields: [(String, JSONValue)] = [
            ("target", .string(result.targetText)),
            ("total_err", .integer(result.errorCount)),
            ("corrected", .boolean(result.isCorrected)),
            ("unstarted_ios", .integer(result.unstartedCount)),
            ("longest_gap_ns", .integer(result.gapNanoseconds)),
            ("longest_gap_at_ms", .integer(result.gapBegin / 1_000_000)),
            (
                "server_cpu",
                .array(
                    result.servers.map { server in
                        .object([
                            ("pid", .integer(UInt64(server.pid))),
                            ("usec", .integer(server.nanoseconds / 1000)),
                            (
                                "usec_per_io",
                                .number(Double(server.nanoseconds) / 1e3 / transfers)
                            ),
                        ])
                    }
                )
            ),
        ]
        if let failure = result.failure { fields.append(("failure", .string(failure))) }
        return fields
    }

    // MARK: - Directions

    private func direction(_ result: JobResult, _ kind: Operation.Kind) -> JSONValue {
        let part = result[kind]
        let curve = FioCurve(result.series.intervals, kind: Int(kind.rawValue))
        let hasIO = part.clat.count > 0
        let seconds = result.seconds
        let bytesPerSecond = Double(part.byteCount) / seconds
        return .object([
            ("io_bytes", .integer(part.byteCount)),
            ("io_kbytes", .integer(part.byteCount >> 10)),
            ("bw_bytes", .integer(UInt64(bytesPerSecond))),
            ("bw", .integer(UInt64(bytesPerSecond / 1024))),
            ("iops", .number(Double(part.clat.count) / seconds)),
            ("runtime", .integer(hasIO ? result.elapsedNanoseconds / 1_000_000 : 0)),
            ("total_ios", .integer(part.clat.count)),
            ("short_ios", .integer(0)),
            ("drop_ios", .integer(0)),
            ("slat_ns", latency(Histogram(), result.options, hasPercentiles: false)),
            ("clat_ns", latency(part.clat, result.options, hasPercentiles: true)),
            ("lat_ns", latency(part.lat, result.options, hasPercentiles: result.isCorrected)),
            ("bw_min", .integer(UInt64(curve.bandwidth.least))),
            ("bw_max", .integer(UInt64(curve.bandwidth.greatest))),
            ("bw_agg", .number(hasIO ? 100 : 0)),
            ("bw_mean", .number(curve.bandwidth.mean)),
            ("bw_dev", .number(curve.bandwidth.deviation)),
            ("bw_samples", .integer(UInt64(curve.bandwidth.count))),
            ("iops_min", .integer(UInt64(curve.operations.least))),
            ("iops_max", .integer(UInt64(curve.operations.greatest))),
            ("iops_mean", .number(curve.operations.mean)),
            ("iops_stddev", .number(curve.operations.deviation)),
            ("iops_samples", .integer(UInt64(curve.operations.count))),
        ])
    }

    private func latency(
        _ histogram: Histogram,
        _ options: JobOptions,
        hasPercentiles: Bool
    ) -> JSONValue {
        var fields: [(String, JSONValue)] = [
            ("min", .integer(histogram.count == 0 ? 0 : histogram.minimum)),
            ("max", .integer(histogram.maximum)),
            ("mean", .number(histogram.mean)),
            ("stddev", .number(histogram.deviation)),
            ("N", .integer(histogram.count)),
        ]
        guard hasPercentiles, histogram.count > 0 else { return .object(fields) }
        let points = (options.percentiles ?? JobOptions.percentilesDefault).map { percent in
            (fixed(percent, 6), JSONValue.integer(histogram.percentile(percent / 100)))
        }
        fields.append(("percentile", .object(points)))
        if hasBins {
            let bins = histogram.bins.map { ("\($0.upperEdge)", JSONValue.integer($0.count)) }
            fields.append(("bins", .object(bins)))
        }
        return .object(fields)
    }
}

extension JobOptions {
    /// The options as fio prints them: what readers group and label plots by.
    var document: JSONValue {
        // Plotting programs look for these in the job even where they are global.
        let always = ["rw", "bs", "iodepth", "numjobs", "ioengine", "rwmixread", "size", "runtime"]
        var values = given
        values["rw"] = values["rw"] ?? mode.text
        values["bs"] = values["bs"] ?? "4k"
        values["iodepth"] = "\(depth)"
        values["numjobs"] = "\(cloneCount)"
        let names = values.keys.filter { own.contains($0) || always.contains($0) }.sorted()
        return .object(names.map { ($0, .string(values[$0] ?? "")) })
    }
}
