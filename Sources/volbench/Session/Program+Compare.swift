extension Program {
    /// Runs jobs, or a suite's, on several targets.
    static func compare(_ invocation: Invocation) throws(BenchError) -> Int32 {
        var jobs = invocation.jobs
        if let name = invocation.suite {
            let suite = try Suite(named: name)
            guard suite.isComparable else {
                throw BenchError("--suite=\(name) takes one target, not --compare")
            }
            jobs = try suite.jobs(seconds: invocation.suiteSeconds ?? suite.secondsDefault)
        }
        let pids = invocation.compared.flatMap(\.serverPIDs)
        try check(pids)
        let load = MachineLoad(serverPIDs: pids)
        let comparison = Comparison(
            targets: invocation.compared,
            jobs: jobs,
            roundCount: invocation.roundCount,
            live: LiveLine(invocation.liveDisplay)
        )
        comparison.run()
        var machine = MachineReport(devicesOf: invocation.compared.map(\.text))
        machine.othersShare = load.othersShare()
        let (workloads, targets) = (comparison.workloads, comparison.targets)
        let isDocument = invocation.format != .normal && invocation.format != .terse
        try write(
            isDocument
                ? ComparisonText.json(workloads, targets, machine: machine).laidOut() + "\n"
                : ComparisonText.text(workloads, targets, machine: machine),
            invocation
        )
        if let path = invocation.reportPath {
            let notes = invocation.notesPath.flatMap(TextFile.read) ?? ""
            try ReportDocument(
                comparison: comparison,
                machine: machine,
                commandLine: invocation.commandLine,
                roundCount: invocation.roundCount,
                notes: notes
            ).write(to: path)
        }
        return tell(comparison.complaints)
    }

    /// Runs a suite on one target.
    static func runSuite(_ name: String, _ invocation: Invocation) throws(BenchError) -> Int32 {
        guard name != "list" else {
            let lines = Suite.allCases.map { suite in
                let padding = String(repeating: " ", count: 16 - suite.rawValue.count)
                return suite.rawValue + padding + suite.summary
            }
            try OutputFile.standardOutput.write(lines.joined(separator: "\n") + "\n")
            return statusDone
        }
        let suite = try Suite(named: name)
        guard suite != .overhead else {
            throw BenchError("--suite=overhead: --compare device=/dev/... volume=nbd://...")
        }
        let pids = invocation.serverPIDs + (try devPIDs(invocation))
        if suite.isComparable {
            var plain = invocation
            plain.jobs = try suite.jobs(seconds: invocation.suiteSeconds ?? suite.secondsDefault)
            return try measureJobs(plain, pids)
        }
        try check(pids)
        let load = MachineLoad(serverPIDs: pids)
        let live = LiveLine(invocation.liveDisplay)
        let (steps, failure) = try StepSuite(suite, invocation, serverPIDs: pids, live: live).run()
        var machine = MachineReport(devicesOf: invocation.target.map { [$0.text] } ?? [])
        machine.othersShare = load.othersShare()
        let rows = [StepSuite.columns] + steps.map(StepSuite.row)
        let isDocument = invocation.format != .normal && invocation.format != .terse
        try write(
            isDocument
                ? StepSuite.json(steps, machine: machine).laidOut() + "\n"
                : ReportDocument.table(rows).joined(separator: "\n") + "\n\n\(machine.text)\n",
            invocation
        )
        if let path = invocation.reportPath {
            let text =
                ["# \(name)", "", "```sh", invocation.commandLine, "```", "", machine.text, ""]
                + ReportDocument.table(rows) + [""]
            try TextFile.write(text.joined(separator: "\n"), to: path)
        }
        return tell(failure.map { [$0] } ?? [])
    }

    static func check(_ pids: [Int32]) throws(BenchError) {
        for pid in pids where Clock.cpuNanoseconds(of: pid) == nil {
            throw BenchError("--server-pid \(pid): no such process")
        }
    }
}
