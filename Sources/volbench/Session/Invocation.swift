/// How results are printed.
package enum OutputFormat: String, Sendable, CaseIterable {
    /// For people, in fio's words.
    case normal
    /// fio's line of semicolons, version 3.
    case terse
    /// fio's JSON.
    case json
    /// The same with the histograms' bins.
    case jsonPlus = "json+"
    /// A short document with units in its names, one for all jobs.
    case brief
}

/// When the live line is shown.
package enum LiveDisplay: String, Sendable {
    /// On terminals.
    case auto
    /// Always.
    case always
    /// Never.
    case never
}

/// A target and what comparisons call it.
package struct NamedTarget: Sendable, Equatable {
    /// What reports call it.
    package var name: String
    /// What is measured.
    package var target: Target
    /// How it was written.
    package var text: String
    /// Processes that serve it.
    package var serverPIDs: [Int32] = []
}

/// What the command line asked for.
package struct Invocation: Sendable {
    /// The jobs, checked one by one; empty where a suite has them.
    package var jobs: [JobOptions] = []
    /// What is measured where a job names no target of its own.
    package var target: NamedTarget?
    /// Targets to set side by side; the first is what the others are held against.
    package var compared: [NamedTarget] = []
    /// Processes whose CPU is reported.
    package var serverPIDs: [Int32] = []
    /// Where a development cluster is looked for; nil does not look.
    package var devData: String?
    package var format = OutputFormat.normal
    package var outputPath: String?
    package var reportPath: String?
    /// A file whose Markdown goes into the report: who serves, in which version, started how.
    package var notesPath: String?
    package var liveDisplay = LiveDisplay.auto
    package var hooks: [Hook] = []
    package var suite: String?
    package var roundCount = 5
    package var cloneCount = 8
    package var stepCount = 4
    package var stepCommand: String?
    /// Seconds of each job of a suite; nil leaves it to the suite.
    package var suiteSeconds: Double?
    package var wantsHelp = false
    package var wantsVersion = false
    /// How it was written, for reports.
    package var commandLine = ""
    private var pidTexts: [String] = []

    /// Rounds of a comparison at most.
    package static var roundCountMax: Int { 1000 }
    /// Clones or steps of a suite at most.
    package static var stepCountMax: Int { 512 }
    /// Seconds that a run has where nothing says how long.
    private static let runtimeDefault = "5"

    private static let flags: Set<String> = ["json", "help", "h", "version", "dev"]
    private static let valued: Set<String> = [
        "output_format", "output", "eta", "server_pid", "hook", "compare", "rounds", "suite",
        "report", "notes", "clones", "steps", "step_command", "suite_runtime",
    ]
    /// Options of jobs that may stand without a value.
    private static let jobFlags: Set<String> = [
        "norandommap", "time_based", "do_verify", "verify_fatal", "group_reporting", "new_group",
        "stonewall", "wait_for_previous", "end_fsync", "fsync_on_close", "latency_run",
        "simple_replies", "direct", "thread", "invalidate", "refill_buffers", "buffered",
        "overwrite", "randrepeat", "allrandrepeat", "fua",
    ]

    /// Parses the arguments after the program's name.
    ///
    /// - Parameters:
    ///   - arguments: The arguments.
    ///   - variable: The value of an environment variable, for job files.
    /// - Throws: ``BenchError`` that names what is wrong.
    package init(
        parsing arguments: [String],
        variable: (String) -> String? = { _ in nil }
    ) throws(BenchError) {
        commandLine = (["volbench"] + arguments.map(Shell.quoted)).joined(separator: " ")
        var rest = arguments[...]
        var files: [String] = []
        var written: [(name: String, value: String)] = []
        while let argument = rest.popFirst() {
            guard argument.hasPrefix("-"), argument != "-" else {
                try addPositional(argument, &files)
                continue
            }
            try parseOption(argument, &rest, &written)
        }
        if wantsHelp || wantsVersion { return }
        try makeJobs(files, written, variable)
        try placePIDs()
        try checkWhole(files)
    }

    private mutating func addPositional(
        _ argument: String,
        _ files: inout [String]
    ) throws(BenchError) {
        if [".fio", ".job", ".ini"].contains(where: argument.hasSuffix) {
            files.append(argument)
            return
        }
        guard target == nil else {
            throw BenchError("\(argument): a second target; --compare NAME=TARGET takes several")
        }
        target = NamedTarget(
            name: argument,
            // A suite may put a number in place of %d, which by itself is no escape of a URI.
            target: try Target(parsing: argument.numbered(0)),
            text: argument
        )
    }

    private mutating func parseOption(
        _ argument: String,
        _ rest: inout ArraySlice<String>,
        _ written: inout [(name: String, value: String)]
    ) throws(BenchError) {
        let parts = argument.drop { $0 == "-" }.split(separator: "=", maxSplits: 1)
        guard let first = parts.first else { throw BenchError("\(argument): no option") }
        let name = String(first.map { $0 == "-" ? "_" : $0 })
        var value = parts.count == 2 ? String(parts[1]) : nil
        if Invocation.flags.contains(name) {
            try applyFlag(name, value)
            return
        }
        let isCommand = Invocation.valued.contains(name)
        let isJobOption = OptionTable.names.contains(name)
        guard isCommand || isJobOption else { throw unknown(String(first)) }
        if value == nil, Invocation.jobFlags.contains(name) { value = "1" }
        guard let value = value ?? rest.popFirst() else {
            throw BenchError("--\(first) needs a value")
        }
        guard isCommand else {
            written.append((name, value))
            return
        }
        try apply(OptionText(name: "--\(first)", value: value), name)
        while name == "compare", let next = rest.first, !next.hasPrefix("-"), next.contains("=") {
            try apply(OptionText(name: "--compare", value: rest.removeFirst()), name)
        }
    }

    private func unknown(_ name: String) -> BenchError {
        do throws(BenchError) {
            _ = try OptionTable.entry(name)
        } catch {
            let names = OptionTable.names + Invocation.valued + Invocation.flags
            guard let hint = didYouMean(String(name.map { $0 == "-" ? "_" : $0 }), among: names)
            else { return BenchError("--\(error.message)") }
            return error.message.contains("fio has")
                ? BenchError("--\(error.message)")
                : BenchError("--\(name): no such option; \(hint)")
        }
        return BenchError("--\(name): no such option")
    }

    private mutating func applyFlag(_ name: String, _ value: String?) throws(BenchError) {
        switch name {
        case "json": format = .brief
        case "help", "h": wantsHelp = true
        case "dev": devData = value ?? ""
        default: wantsVersion = true
        }
    }

    private mutating func apply(_ text: OptionText, _ name: String) throws(BenchError) {
        switch name {
        case "output_format":
            guard let known = OutputFormat(rawValue: text.value) else {
                throw text.wrong(OutputFormat.allCases.map(\.rawValue).joined(separator: ", "))
            }
            format = known
        case "output": outputPath = text.value
        case "report": reportPath = text.value
        case "notes": notesPath = text.value
        case "eta":
            guard let known = LiveDisplay(rawValue: text.value) else {
                throw text.wrong("auto, always or never")
            }
            liveDisplay = known
        case "server_pid": pidTexts.append(text.value)
        case "hook": hooks.append(try Hook(parsing: text))
        case "compare": try addCompared(text)
        case "rounds": roundCount = try text.count(1...Invocation.roundCountMax)
        case "suite": suite = text.value
        case "clones": cloneCount = try text.count(1...Invocation.stepCountMax)
        case "steps": stepCount = try text.count(1...Invocation.stepCountMax)
        case "step_command": stepCommand = text.value
        default: suiteSeconds = try text.number(0.05...86_400)
        }
    }

    private mutating func addCompared(_ text: OptionText) throws(BenchError) {
        let parts = text.value.split(separator: "=", maxSplits: 1)
        guard parts.count == 2 else { throw text.wrong("NAME=TARGET") }
        let name = String(parts[0])
        guard !compared.contains(where: { $0.name == name }) else {
            throw text.wrong("\(name) is there already")
        }
        let target = try Target(parsing: String(parts[1]))
        compared.append(NamedTarget(name: name, target: target, text: String(parts[1])))
    }

    // MARK: - Jobs

    private mutating func makeJobs(
        _ files: [String],
        _ written: [(name: String, value: String)],
        _ variable: (String) -> String?
    ) throws(BenchError) {
        for path in files {
            guard let text = TextFile.read(path) else {
                throw BenchError("\(path): no such job file, or one that cannot be read")
            }
            let file = try JobFile(parsing: text, path: path, variable: variable)
            jobs += try JobList.jobs(of: file, overrides: written)
        }
        guard files.isEmpty else { return }
        guard suite == nil else {
            guard let option = written.first else { return }
            throw BenchError("--\(option.name): a suite has its own jobs; --suite-runtime there is")
        }
        var global = JobOptions()
        var named: [JobOptions] = []
        for (name, value) in written {
            if name == "name" {
                var job = global
                job.own = []
                named.append(job)
            }
            if named.isEmpty {
                try OptionTable.apply(name, value, to: &global, isOwn: false)
            } else {
                try OptionTable.apply(name, value, to: &named[named.count - 1], isOwn: true)
            }
        }
        if named.isEmpty {
            global.own = global.given.keys.sorted()
            named = [global]
        }
        for index in named.indices {
            try Invocation.setLength(&named[index])
            try JobList.check(named[index])
        }
        jobs = named
    }

    /// A command line that says nothing of amounts measures for a time.
    private static func setLength(_ job: inout JobOptions) throws(BenchError) {
        let amounts = ["size", "io_size", "number_ios", "loops", "time_based", "latency_target"]
        guard !amounts.contains(where: job.has) else { return }
        if job.runMicroseconds == nil {
            try OptionTable.apply("runtime", runtimeDefault, to: &job, isOwn: true)
        }
        job.isTimeBased = true
    }

    // MARK: - The whole

    private mutating func placePIDs() throws(BenchError) {
        for text in pidTexts {
            let parts = text.split(separator: "=", maxSplits: 1)
            let number = OptionText(name: "--server-pid", value: String(parts.last ?? ""))
            let pid = Int32(try number.count(1...Int(Int32.max)))
            guard parts.count == 2 else {
                serverPIDs.append(pid)
                continue
            }
            guard let index = compared.firstIndex(where: { $0.name == parts[0] }) else {
                throw BenchError("--server-pid \(text): --compare has no \(parts[0])")
            }
            compared[index].serverPIDs.append(pid)
        }
    }

    private func checkWhole(_ files: [String]) throws(BenchError) {
        let clones = jobs.reduce(0) { $0 + $1.cloneCount }
        guard clones <= JobLimits.jobCountMax else {
            throw BenchError("\(clones) jobs: \(JobLimits.jobCountMax) at most")
        }
        if !compared.isEmpty, target != nil {
            throw BenchError("--compare names the targets: take the other one out")
        }
        guard compared.count != 1 else {
            throw BenchError("--compare takes two targets or more")
        }
        if compared.isEmpty, suite != "list" {
            for job in jobs where target == nil && job.engine != .null {
                guard job.uri != nil || job.filename != nil else {
                    let place = files.isEmpty ? "" : " [\(job.name)]"
                    throw BenchError("no target\(place): give one, or uri= or filename= in the job")
                }
            }
            if jobs.isEmpty, target == nil { throw BenchError("no target") }
        }
        if suite == nil, compared.isEmpty, reportPath != nil {
            throw BenchError("--report is for --suite and --compare")
        }
        if !hooks.isEmpty, !compared.isEmpty {
            throw BenchError("--hook and --compare: a hook would hit one target only")
        }
    }
}
