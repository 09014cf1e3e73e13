/// A comparison as Markdown, its plots beside it.
package struct ReportDocument {
    private let comparison: Comparison
    private let machine: MachineReport
    private let commandLine: String
    private let roundCount: Int
    /// Lines that say how the servers were started, and their versions; written by who starts them.
    private let notes: String

    /// Creates the report of a comparison that has run.
    package init(
        comparison: Comparison,
        machine: MachineReport,
        commandLine: String,
        roundCount: Int,
        notes: String
    ) {
        self.comparison = comparison
        self.machine = machine
        self.commandLine = commandLine
        self.roundCount = roundCount
        self.notes = notes
    }

    /// Writes the report to `path` and the plots into its folder.
    ///
    /// - Throws: ``BenchError`` with path and reason.
    package func write(to path: String) throws(BenchError) {
        let slash = path.lastIndex(of: "/")
        let folder = slash.map { String(path[...$0]) } ?? ""
        let plots = Plots(workloads: comparison.workloads, targets: comparison.targets)
        try TextFile.write(plots.bars(), to: folder + ReportDocument.barsName)
        try TextFile.write(plots.distributions(), to: folder + ReportDocument.distributionsName)
        try TextFile.write(plots.timelines(), to: folder + ReportDocument.timelinesName)
        try TextFile.write(text, to: path)
    }

    private static let barsName = "iops.svg"
    private static let distributionsName = "latencies.svg"
    private static let timelinesName = "timelines.svg"

    /// The Markdown.
    package var text: String {
        var lines = [
            "# \(comparison.targets.map(\.name).joined(separator: ", ")): side by side", "",
            "Written by volbench on \(Calendar.text). Figures of one run: every round measures "
                + "every target once, in turns, \(roundCount) rounds. Do not hold them against "
                + "figures of other runs.", "", "Machine: \(machine.text).", "",
            "```sh", wrappedCommand, "```", "",
        ]
        if !notes.isEmpty { lines += [notes.trimmed, ""] }
        lines += overhead
        lines += [
            "## Plots", "",
            "Medians, and the middle half of the rounds as error bars; a scale per workload.", "",
            "![IOPS per workload](\(ReportDocument.barsName))", "",
            "Latencies of all rounds together; both axes are logarithmic.", "",
            "![Latencies](\(ReportDocument.distributionsName))", "",
            "IOPS within a round: of each moment the median of the rounds.", "",
            "![IOPS over time](\(ReportDocument.timelinesName))", "", "## Figures", "",
            "IOPS are medians, ±% is half the middle half of the rounds. A ratio is the median of "
                + "the rounds' own ratios to \(comparison.targets[0].name), p the two-sided "
                + "Mann-Whitney test of the rates.", "",
        ]
        for workload in comparison.workloads {
            lines += [
                "### \(workload.name)", "", ComparisonText.describe(workload.options) + ".", "",
            ]
            lines += ReportDocument.table(
                [ComparisonText.columns] + ComparisonText.rows(workload, comparison.targets)
            )
            lines.append("")
        }
        if !comparison.complaints.isEmpty {
            lines += ["## What went wrong", ""]
            lines += Set(comparison.complaints).sorted().map { "- \($0)" } + [""]
        }
        return lines.joined(separator: "\n")
    }

    /// The command, a target or option on a line.
    private var wrappedCommand: String {
        var rest = commandLine[...]
        var result = ""
        // Words of a quoted name stay together: a line ends only before an option or a target.
        for target in comparison.targets {
            let word = Shell.quoted("\(target.name)=\(target.text)")
            guard let range = rest.firstRange(of: " " + word) else { continue }
            result += rest[..<range.lowerBound] + " \\\n    " + word
            rest = rest[range.upperBound...]
        }
        return result + rest
    }

    /// One number per workload: the last target's work in the first one's time.
    private var overhead: [String] {
        var rows = [["workload"] + comparison.targets.dropFirst().map { "\($0.name)" }]
        for workload in comparison.workloads {
            let cells = comparison.targets.indices.dropFirst().map { index -> String in
                let ratios = workload.ratios(of: index)
                guard !ratios.isEmpty else { return "-" }
                let sign: String
                switch workload.verdict(of: index) {
                case .faster: sign = " ▲"
                case .slower: sign = " ▼"
                case .noDifference: sign = " ="
                case .tooFewRounds: sign = ""
                }
                return fixed(Spread(ratios).median, 2) + sign
            }
            rows.append([workload.name] + cells)
        }
        let head =
            "IOPS in multiples of those of \(comparison.targets[0].name); ▲ more, ▼ fewer, = no "
            + "difference beyond the noise."
        return ["## In short", "", head, ""] + ReportDocument.table(rows) + [""]
    }

    /// Rows as Markdown; the first is the head.
    package static func table(_ rows: [[String]]) -> [String] {
        guard let head = rows.first else { return [] }
        let rule = "|" + String(repeating: "---|", count: head.count)
        func line(_ cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }
        return [line(head), rule] + rows.dropFirst().map(line)
    }
}
