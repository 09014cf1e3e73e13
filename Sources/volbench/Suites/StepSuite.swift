/// A step of a suite: what is done before it, and its jobs.
package struct SuiteStep: Sendable {
    /// What tables call it.
    package var label: String
    /// A command that is run first.
    package var command: String?
    /// Jobs that prepare and are not reported.
    package var preparation: [JobOptions] = []
    /// Jobs that run at once and are reported together.
    package var jobs: [JobOptions]
}

/// What a step came to.
package struct StepResult {
    /// What tables call it.
    package var label: String
    /// All its jobs together.
    package var result: JobResult
    /// Bytes that the servers sent to their disks meanwhile; nil when nobody watched.
    package var diskByteCount: UInt64?

    /// Bytes to disk per byte written.
    package var amplification: Double? {
        let written = result[.write].byteCount
        guard let diskByteCount, written > 0 else { return nil }
        return Double(diskByteCount) / Double(written)
    }
}

/// Suites that go from step to step on one target.
package struct StepSuite {
    private let suite: Suite
    private let invocation: Invocation
    private let serverPIDs: [Int32]
    private let live: LiveLine?

    /// How full the target is made, in percent.
    package static let fillPercents = [50, 70, 80, 90]

    /// Creates the steps of an invocation's suite.
    package init(
        _ suite: Suite,
        _ invocation: Invocation,
        serverPIDs: [Int32],
        live: LiveLine?
    ) {
        self.suite = suite
        self.invocation = invocation
        self.serverPIDs = serverPIDs
        self.live = live
    }

    // MARK: - Steps

    /// The steps, in order.
    ///
    /// - Throws: ``BenchError`` when something that the suite needs was not given.
    package func steps() throws(BenchError) -> [SuiteStep] {
        let seconds = invocation.suiteSeconds ?? suite.secondsDefault
        let time = "time_based\nruntime=\(UInt64(seconds * 1e6))us\ngroup_reporting\n"
        switch suite {
        case .cloneStorm: return try cloneSteps(time)
        case .snapshotDepth: return try snapshotSteps(time)
        case .fill: return try fillSteps(time)
        case .aging: return try agingSteps(time)
        case .basic, .quick, .overhead: return []
        }
    }

    private func parse(_ text: String) throws(BenchError) -> [JobOptions] {
        let file = try JobFile(parsing: text, path: "suite \(suite.rawValue)")
        return try JobList.jobs(of: file)
    }

    /// One clone alone, then all at once: every clone reads the same places in the same order.
    private func cloneSteps(_ time: String) throws(BenchError) -> [SuiteStep] {
        guard let target = invocation.target, target.text.contains("%d") else {
            throw BenchError("--suite=clone-storm: %d in the target is the number of the clone")
        }
        var counts = [1]
        if invocation.cloneCount > 1 { counts.append(invocation.cloneCount) }
        var steps: [SuiteStep] = []
        for count in counts {
            var text = "[global]\n\(time)rw=randread\nbs=4k\niodepth=8\n"
            for clone in 0..<count {
                text += "[clones]\nuri=\(target.text.numbered(clone))\n"
            }
            steps.append(SuiteStep(label: "\(count) clones", jobs: try parse(text)))
        }
        return steps
    }

    private func snapshotSteps(_ time: String) throws(BenchError) -> [SuiteStep] {
        guard let command = invocation.stepCommand else {
            throw BenchError(
                "--suite=snapshot-depth needs --step-command, such as "
                    + "--step-command='volctl snapshot create v@s%d'"
            )
        }
        var steps: [SuiteStep] = []
        for depth in 0...invocation.stepCount {
            let number = depth == 0 ? nil : command.numbered(depth)
            for (mode, isFirst) in [("randread", true), ("randwrite", false)] {
                let text =
                    "[global]\n\(time)bs=4k\niodepth=32\nrandseed=\(depth + 1)\n[job]\nrw=\(mode)\n"
                steps.append(
                    SuiteStep(
                        label: "\(depth) snapshots, \(mode)",
                        command: isFirst ? number : nil,
                        jobs: try parse(text)
                    )
                )
            }
        }
        return steps
    }

    private func fillSteps(_ time: String) throws(BenchError) -> [SuiteStep] {
        var steps: [SuiteStep] = []
        var before = 0
        for percent in StepSuite.fillPercents {
            let part = "offset=\(before)%\nsize=\(percent - before)%\n"
            let fill = "[fill]\nrw=write\nbs=1m\niodepth=8\n\(part)"
            let text =
                "[overwrite]\n\(time)rw=randwrite\nbs=4k\niodepth=32\nnorandommap\n"
                + "size=\(percent)%\n"
            let label = "\(percent) % written"
            steps.append(
                SuiteStep(label: label, preparation: try parse(fill), jobs: try parse(text))
            )
            before = percent
        }
        return steps
    }

    private func agingSteps(_ time: String) throws(BenchError) -> [SuiteStep] {
        var steps: [SuiteStep] = []
        for piece in 1...invocation.stepCount {
            let text =
                "[global]\n\(time)bs=4k\nnorandommap\nrandseed=\(piece)\n"
                + "[overwrite]\nrw=randwrite\niodepth=16\n"
                + "[trim]\nrw=randtrim\nbs=64k\nthinktime=1ms\n"
            steps.append(SuiteStep(label: "piece \(piece)", jobs: try parse(text)))
        }
        return steps
    }

    // MARK: - Running

    /// Runs all steps, until one fails or the user asks for the end.
    ///
    /// - Returns: What was measured, and why it ended early, if it did.
    package func run() throws(BenchError) -> (results: [StepResult], failure: String?) {
        var results: [StepResult] = []
        for step in try steps() {
            if Session.wasInterrupted { return (results, "interrupted") }
            if let command = step.command {
                let status = Shell.run(command)
                guard status == 0 else { return (results, "\(command): status \(status)") }
            }
            if let failure = prepare(step) { return (results, "\(step.label): \(failure)") }
            let before = DiskBytes.written(by: serverPIDs)
            let parts = session(step.jobs).run()
            let after = DiskBytes.written(by: serverPIDs)
            let whole = JobResult(options: step.jobs[0])
            whole.jobCount = 0
            for part in parts { whole.merge(part) }
            var written: UInt64?
            if let before, let after, after >= before { written = after - before }
            let result = StepResult(label: step.label, result: whole, diskByteCount: written)
            results.append(result)
            if let failure = whole.failure { return (results, "\(step.label): \(failure)") }
        }
        return (results, nil)
    }

    private func session(_ jobs: [JobOptions]) -> Session {
        let hasOwnTargets = jobs.contains { $0.uri != nil }
        return Session(
            jobs: jobs,
            target: hasOwnTargets ? nil : invocation.target,
            serverPIDs: serverPIDs,
            live: live
        )
    }

    private func prepare(_ step: SuiteStep) -> String? {
        guard !step.preparation.isEmpty else { return nil }
        return session(step.preparation).run().compactMap(\.failure).first
    }

    // MARK: - Output

    /// The columns of a table of steps.
    package static let columns = [
        "step", "IOPS", "MiB/s", "p50 µs", "p99 µs", "p99.9 µs", "longest gap ms",
        "bytes to disk per byte",
    ]

    /// A step's row.
    package static func row(_ step: StepResult) -> [String] {
        let latencies = step.result.latencies
        func percentile(_ fraction: Double) -> String {
            fixed(Double(latencies.percentile(fraction)) / 1e3, 1)
        }
        let bytes = Double(step.result.byteCount) / step.result.seconds
        return [
            step.label, grouped(step.result.rate), fixed(bytes / 1_048_576, 1),
            percentile(0.5), percentile(0.99), percentile(0.999),
            fixed(Double(step.result.gapNanoseconds) / 1e6, 1),
            step.amplification.map { fixed($0, 2) } ?? "-",
        ]
    }

    /// All steps for programs.
    package static func json(_ steps: [StepResult], machine: MachineReport) -> JSONValue {
        .object([
            ("volbench version", .string(VolbenchVersion.text)), ("machine", machine.json),
            (
                "steps",
                .array(
                    steps.map { step in
                        .object([
                            ("label", .string(step.label)),
                            ("iops", .number(step.result.rate, 1)),
                            ("total_ios", .integer(step.result.transferCount)),
                            ("p99_ns", .integer(step.result.latencies.percentile(0.99))),
                            ("longest_gap_ns", .integer(step.result.gapNanoseconds)),
                            ("disk_bytes", .integer(step.diskByteCount ?? 0)),
                            ("amplification", .number(step.amplification ?? 0, 3)),
                        ])
                    }
                )
            ),
        ])
    }
}

/// What processes sent to disks.
enum DiskBytes {
    /// Bytes since the processes began; nil without processes, or where the kernel does not tell.
    static func written(by pids: [Int32]) -> UInt64? {
        var total: UInt64?
        for pid in pids {
            let lines = (TextFile.read("/proc/\(pid)/io") ?? "").split(separator: "\n")
            let line = lines.first { $0.hasPrefix("write_bytes:") }
            guard let count = line.flatMap({ UInt64($0.dropFirst(12).trimmed) }) else { continue }
            total = (total ?? 0) + count
        }
        return total
    }
}

extension String {
    /// The text with `%d` replaced by a number.
    package func numbered(_ number: Int) -> String {
        var result = ""
        var rest = self[...]
        while let range = rest.firstRange(of: "%d") {
            result += rest[..<range.lowerBound] + "\(number)"
            rest = rest[range.upperBound...]
        }
        return result + rest
    }
}
