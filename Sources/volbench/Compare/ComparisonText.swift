/// A comparison for people: one table per workload.
package enum ComparisonText {
    /// The columns of a table.
    package static let columns = [
        "target", "IOPS", "±%", "MiB/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/IO",
        "client µs/IO", "ratio (least-most)", "p", "verdict",
    ]

    /// The rows of a workload's table, a list of cells per target.
    package static func rows(
        _ workload: WorkloadComparison,
        _ targets: [NamedTarget]
    ) -> [[String]] {
        targets.indices.compactMap { index in
            let samples = workload.samples[index]
            guard !samples.isEmpty else { return nil }
            return [targets[index].name] + figures(samples) + judgement(workload, index)
        }
    }

    private static func figures(_ samples: [Sample]) -> [String] {
        let rates = Spread(samples.map(\.rate))
        let bytes = Spread(samples.map { Double($0.result.byteCount) / $0.result.seconds })
        let servers = samples.compactMap(\.serverMicroseconds)
        return [
            grouped(rates.median), fixed(rates.noisePercent, 1),
            fixed(bytes.median / 1_048_576, 1), percentile(samples, 0.5),
            percentile(samples, 0.99), percentile(samples, 0.999),
            servers.isEmpty ? "-" : fixed(Spread(servers).median, 2),
            fixed(Spread(samples.map(\.clientMicroseconds)).median, 2),
        ]
    }

    private static func percentile(_ samples: [Sample], _ fraction: Double) -> String {
        let values = samples.map { Double($0.result.latencies.percentile(fraction)) / 1e3 }
        let median = Spread(values).median
        return median < 100 ? fixed(median, 1) : grouped(median)
    }

    private static func judgement(_ workload: WorkloadComparison, _ target: Int) -> [String] {
        guard target > 0 else { return ["1", "", ""] }
        let ratios = workload.ratios(of: target)
        guard !ratios.isEmpty else { return ["-", "", ""] }
        let spread = Spread(ratios)
        let range = "\(fixed(spread.least, 2))-\(fixed(spread.greatest, 2))"
        let words: [WorkloadComparison.Verdict: String] = [
            .faster: "faster", .slower: "slower", .noDifference: "no difference beyond the noise",
            .tooFewRounds: "too few rounds to say",
        ]
        return [
            "\(fixed(spread.median, 2)) (\(range))",
            fixed(workload.probability(of: target), 4),
            words[workload.verdict(of: target)] ?? "",
        ]
    }

    /// All tables as text.
    package static func text(
        _ workloads: [WorkloadComparison],
        _ targets: [NamedTarget],
        machine: MachineReport
    ) -> String {
        var lines: [String] = []
        for workload in workloads {
            lines.append("\(workload.name): \(describe(workload.options))")
            lines += aligned([columns] + rows(workload, targets)).map { "  " + $0 }
            lines.append("")
        }
        lines.append(machine.text)
        return lines.joined(separator: "\n") + "\n"
    }

    /// What a job does, in a few words.
    package static func describe(_ options: JobOptions) -> String {
        var text = "\(options.mode.text), bs \(options.given["bs"] ?? "4k"), QD\(options.depth)"
        if options.cloneCount > 1 { text = text + " x \(options.cloneCount) jobs" }
        if options.mode.isMixed { text += ", \(options.readPercent) % reads" }
        if options.flushInterval > 0 { text += ", flush every \(options.flushInterval)" }
        if options.forceUnitAccess { text += ", FUA" }
        return text
    }

    /// Cells in columns.
    private static func aligned(_ rows: [[String]]) -> [String] {
        let widths = (rows.first ?? []).indices.map { column in
            rows.map { $0[column].count }.max() ?? 0
        }
        return rows.map { row in
            zip(row, widths).map { cell, width in
                cell + String(repeating: " ", count: width - cell.count)
            }.joined(separator: "  ").trimmedEnd
        }
    }

    /// All figures for programs.
    package static func json(
        _ workloads: [WorkloadComparison],
        _ targets: [NamedTarget],
        machine: MachineReport
    ) -> JSONValue {
        .object([
            ("volbench version", .string(VolbenchVersion.text)), ("machine", machine.json),
            ("workloads", .array(workloads.map { json($0, targets) })),
        ])
    }

    private static func json(
        _ workload: WorkloadComparison,
        _ targets: [NamedTarget]
    ) -> JSONValue {
        let rows = targets.indices.map { index -> JSONValue in
            let ratios = Spread(workload.ratios(of: index))
            return .object([
                ("target", .string(targets[index].name)), ("uri", .string(targets[index].text)),
                ("iops", .array(workload.samples[index].map { .number($0.rate, 1) })),
                (
                    "p99_ns",
                    .array(
                        workload.samples[index].map {
                            .integer($0.result.latencies.percentile(0.99))
                        }
                    )
                ),
                (
                    "server_usec_per_io",
                    .array(
                        workload.samples[index].compactMap(\.serverMicroseconds).map {
                            .number($0, 3)
                        }
                    )
                ),
                ("ratio", .number(ratios.median, 4)), ("ratio_min", .number(ratios.least, 4)),
                ("ratio_max", .number(ratios.greatest, 4)),
                ("p", .number(index == 0 ? 1 : workload.probability(of: index), 6)),
                ("verdict", .string(index == 0 ? "base" : "\(workload.verdict(of: index))")),
            ])
        }
        return .object([
            ("name", .string(workload.name)),
            ("what", .string(describe(workload.options))), ("targets", .array(rows)),
        ])
    }
}

extension String {
    /// Without spaces at the end.
    var trimmedEnd: String {
        var text = self[...]
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
