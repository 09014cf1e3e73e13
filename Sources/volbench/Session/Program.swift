internal import Glibc

/// The program: from arguments to an exit status.
package enum Program {
    /// Measured.
    static let statusDone: Int32 = 0
    /// Something failed.
    static let statusFailed: Int32 = 1
    /// The command line or a job file is wrong.
    private static let statusUsage: Int32 = 2

    /// Runs.
    ///
    /// - Returns: The exit status.
    package static func run(_ arguments: [String]) -> Int32 {
        let invocation: Invocation
        do throws(BenchError) {
            invocation = try Invocation(parsing: arguments, variable: environment)
        } catch {
            complain("\(error.message) (volbench --help shows the options)")
            return statusUsage
        }
        do throws(BenchError) {
            if invocation.wantsHelp || invocation.wantsVersion {
                let text = invocation.wantsHelp ? Invocation.usage : VolbenchVersion.text
                try OutputFile.standardOutput.write(text + "\n")
                return statusDone
            }
            Session.stopOnSignals()
            return try measure(invocation)
        } catch {
            complain(error.message)
            return statusFailed
        }
    }

    private static func environment(_ name: String) -> String? {
        // SAFETY: the text is copied at once; nobody changes the environment here.
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe String(cString: value)
    }

    /// Prints one line on standard error.
    package static func complain(_ line: String) {
        // A failure to complain is not worth a complaint.
        try? OutputFile.standardError.write("volbench: \(line)\n")
    }

    private static func measure(_ invocation: Invocation) throws(BenchError) -> Int32 {
        // Whoever measures for hours must not hear afterwards that there is nowhere to put it.
        for path in [invocation.outputPath, invocation.reportPath] {
            if let path { try TextFile.checkWritable(path) }
        }
        if !invocation.compared.isEmpty { return try compare(invocation) }
        if let suite = invocation.suite { return try runSuite(suite, invocation) }
        let pids = invocation.serverPIDs + (try devPIDs(invocation))
        return try measureJobs(invocation, pids)
    }

    static func measureJobs(
        _ invocation: Invocation,
        _ pids: [Int32]
    ) throws(BenchError) -> Int32 {
        try check(pids)
        let load = MachineLoad(serverPIDs: pids)
        let session = Session(
            jobs: invocation.jobs,
            target: invocation.target,
            serverPIDs: pids,
            hooks: invocation.hooks,
            live: LiveLine(invocation.liveDisplay)
        )
        let results = session.run()
        var machine = MachineReport(devicesOf: results.map(\.targetText))
        machine.othersShare = load.othersShare()
        try print(results, invocation, machine)
        return report(results, session.complaints)
    }

    /// Complains of what went wrong, one line each, the same line once.
    private static func report(_ results: [JobResult], _ complaints: [String]) -> Int32 {
        var lines = complaints
        for result in results {
            if let failure = result.failure {
                lines.append(failure.naming(result.options.name))
            } else if result.errorCount > 0 {
                let reason = describe(result.firstErrno)
                let line =
                    "\(result.errorCount) operations failed, the first with: \(reason)"
                lines.append(line.naming(result.options.name))
            }
        }
        return tell(lines)
    }

    /// Complains of each line once.
    ///
    /// - Returns: The exit status.
    static func tell(_ lines: [String]) -> Int32 {
        var told: Set<String> = []
        for line in lines where told.insert(line).inserted { complain(line) }
        return lines.isEmpty ? statusDone : statusFailed
    }

    private static func print(
        _ results: [JobResult],
        _ invocation: Invocation,
        _ machine: MachineReport
    ) throws(BenchError) {
        // Where nothing ran, the complaint says it all; programs get their document all the same.
        let hasRun = results.contains { $0.elapsedNanoseconds > 0 }
        if !hasRun, invocation.format == .normal || invocation.format == .terse { return }
        let text: String
        switch invocation.format {
        case .normal: text = NormalOutput.text(results) + "\n\(machine.text)\n"
        case .terse: text = TerseOutput.text(results)
        case .brief: text = BriefOutput.text(results)
        case .json, .jsonPlus:
            let hasBins = invocation.format == .jsonPlus
            let document = FioJSON(results: results, hasBins: hasBins, machine: machine).document
            text = document.laidOut() + "\n"
        }
        try write(text, invocation)
    }

    /// Writes results to where they were wished.
    static func write(_ text: String, _ invocation: Invocation) throws(BenchError) {
        guard let path = invocation.outputPath else {
            try OutputFile.standardOutput.write(text)
            return
        }
        do throws(BenchError) {
            try TextFile.write(text, to: path)
        } catch {
            // The figures are not lost for that.
            try OutputFile.standardOutput.write(text)
            throw error
        }
    }

    /// The processes of a development cluster's nodes.
    static func devPIDs(_ invocation: Invocation) throws(BenchError) -> [Int32] {
        guard let data = invocation.devData else { return [] }
        let option = data.isEmpty ? "" : " --data \(Shell.quoted(data))"
        guard let text = Shell.output("volctl dev status --json\(option)") else {
            throw BenchError("--dev: `volctl dev status` found no cluster")
        }
        let pids = pids(inStatus: text)
        guard !pids.isEmpty else { throw BenchError("--dev: no node of the cluster runs") }
        return pids
    }

    /// The numbers of the `"pid"` fields of a status document.
    package static func pids(inStatus text: String) -> [Int32] {
        var result: [Int32] = []
        var rest = text[...]
        while let range = rest.firstRange(of: "\"pid\"") {
            rest = rest[range.upperBound...].drop { $0 == " " || $0 == ":" }
            if let pid = Int32(rest.prefix { $0.isNumber }), pid > 0 { result.append(pid) }
        }
        return result
    }
}

extension String {
    /// The line with the job's name before it, where the job has one and the line has not.
    fileprivate func naming(_ name: String) -> String {
        name == JobOptions().name || hasPrefix(name + ":") ? self : "\(name): \(self)"
    }
}
