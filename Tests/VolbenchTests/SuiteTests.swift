import Foundation
import TestSupport
import Testing
import volbench

@Suite("Suites", .serialized, .background)
struct SuiteTests {
    private static var hasServer: Bool { NBDKit.isInstalled }

    private func run(_ arguments: [String]) throws -> (Programs.Outcome, [String: Any]) {
        let outcome = try Programs.run(Programs.volbench, arguments + ["--output-format=json"])
        let document = try? JSONSerialization.jsonObject(with: Data(outcome.output.utf8))
        return (outcome, document as? [String: Any] ?? [:])
    }

    @Test("every suite's jobs are jobs")
    func jobs_parse() throws {
        for suite in Suite.allCases where suite.isComparable {
            let jobs = try suite.jobs(seconds: 0.5)
            #expect(jobs.count >= 5)
            #expect(Set(jobs.map(\.name)).count == jobs.count)
            #expect(jobs.allSatisfy { $0.isTimeBased && $0.runMicroseconds == 500_000 })
        }
        let error = #expect(throws: BenchError.self) { try Suite(named: "basik") }
        #expect(error?.message.contains("'basic'") == true)
    }

    @Test("basic on one target: a result per workload")
    func basic_runs() throws {
        let (outcome, document) = try run(["null:", "--suite=basic", "--suite-runtime=0.05"])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect((document["jobs"] as? [Any])?.count == (try Suite.basic.jobs(seconds: 1).count))
    }

    @Test("a comparison with a suite writes a report, whose plots are drawings of all targets")
    func comparison_report() throws {
        let folder = try TestDirectory()
        try "Notes about servers.\n".write(
            toFile: "\(folder.path)/notes.md",
            atomically: false,
            encoding: .utf8
        )
        let (outcome, document) = try run([
            "--suite=quick", "--suite-runtime=0.05", "--rounds=4", "--report=\(folder.path)/R.md",
            "--notes=\(folder.path)/notes.md", "--compare", "left=null:", "right<&>=null:",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        let workloads = document["workloads"] as? [[String: Any]]
        #expect(workloads?.count == 5)
        let report = try String(contentsOfFile: "\(folder.path)/R.md", encoding: .utf8)
        #expect(report.contains("Notes about servers.") && report.contains("4k randread QD32"))
        for name in ["iops", "latencies", "timelines"] {
            #expect(report.contains("](\(name).svg)"))
            let url = URL(fileURLWithPath: "\(folder.path)/\(name).svg")
            let parser = XMLCounter()
            #expect(parser.parse(try Data(contentsOf: url)), "\(name).svg is no XML")
            #expect(parser.counts["text", default: 0] > 20)
            // A colour each, in the legend and in the drawing; where a machine that is busy with
            // other things leaves a curve one point, there is no line to draw.
            let text = try String(contentsOf: url, encoding: .utf8)
            for index in 0..<2 {
                let uses = text.components(separatedBy: SVGCanvas.color(index)).count - 1
                #expect(uses >= (name == "timelines" ? 1 : 1 + 5), "\(name).svg, target \(index)")
            }
        }
    }

    @Test(
        "fill writes all it says and measures what went to the disk",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func fill_runs() throws {
        let server = try NBDKit("--filter=log", "memory", "64M", "logfile=LOG")
        let (outcome, document) = try run([
            server.uri, "--suite=fill", "--suite-runtime=0.1", "--server-pid=\(server.pid)",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        let steps = document["steps"] as? [[String: Any]]
        #expect(steps?.compactMap { $0["label"] as? String }.count == StepSuite.fillPercents.count)
        #expect(steps?.allSatisfy { ($0["total_ios"] as? Int ?? 0) > 0 } == true)
        let filled = try server.takeLog().split(separator: "\n")
            .filter { $0.contains(" Write ") && $0.contains("count=0x100000 ") }.count
        // Nine tenths of 64 MiB, in blocks of 1 MiB; the steps' ends are cut to whole blocks.
        #expect(filled >= 54 && filled <= 57)
    }

    @Test(
        "a clone storm asks every clone for the same blocks",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func cloneStorm_sameBlocks() throws {
        let server = try NBDKit("--filter=log", "null", "64M", "logfile=LOG")
        let target = server.uri.replacingOccurrences(of: "///?", with: "///clone%d?")
        let (outcome, document) = try run([
            target, "--suite=clone-storm", "--clones=3", "--suite-runtime=0.1",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect((document["steps"] as? [Any])?.count == 2)
        var offsets: [Substring: [Substring]] = [:]
        for line in try server.takeLog().split(separator: "\n") where line.contains(" Read ") {
            let words = line.split(separator: " ")
            guard let connection = words.first(where: { $0.hasPrefix("connection=") }),
                let offset = words.first(where: { $0.hasPrefix("offset=") })
            else { continue }
            offsets[connection, default: []].append(offset)
        }
        #expect(offsets.count == 4)
        // Requests in flight together may be served in another order: sets of the first hundreds.
        let sets = offsets.values.map { Set($0.prefix(200)) }
        for set in sets { #expect(set.intersection(sets[0]).count >= 150) }
    }

    @Test("snapshot-depth takes its snapshots between the steps")
    func snapshotDepth_runsCommands() throws {
        let folder = try TestDirectory()
        let (outcome, document) = try run([
            "null:", "--suite=snapshot-depth", "--steps=3", "--suite-runtime=0.05",
            "--step-command=echo %d >> \(folder.path)/taken",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect((document["steps"] as? [Any])?.count == 8)
        let taken = try String(contentsOfFile: "\(folder.path)/taken", encoding: .utf8)
        #expect(taken == "1\n2\n3\n")
    }

    @Test("a command that fails ends the suite, and what was measured is kept")
    func snapshotDepth_failingCommand() throws {
        let (outcome, document) = try run([
            "null:", "--suite=snapshot-depth", "--steps=3", "--suite-runtime=0.05",
            "--step-command=test %d -lt 2",
        ])
        #expect(outcome.status == 1 && outcome.errorLines.count == 1)
        #expect((document["steps"] as? [Any])?.count == 4)
    }

    @Test("aging overwrites and trims, in pieces")
    func aging_runs() throws {
        let (outcome, document) = try run([
            "null:", "--suite=aging", "--steps=2", "--suite-runtime=0.1",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect((document["steps"] as? [Any])?.count == 2)
    }

    @Test(
        "a server that is frozen and thawed leaves a gap that is found",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func hooks_freeze_isAGap() throws {
        let server = try NBDKit("null", "64M")
        let (outcome, document) = try run([
            server.uri, "--rw=randread", "--runtime=1.6", "--hook=0.2:stop:\(server.pid)",
            "--hook=1.2:cont:\(server.pid)",
        ])
        #expect(outcome.status == 0, "\(outcome.errors)")
        let job = (document["jobs"] as? [[String: Any]])?.first
        #expect((job?["longest_gap_ns"] as? Int ?? 0) > 300_000_000)
        #expect((job?["longest_gap_at_ms"] as? Int ?? 0) >= 150)
    }

    @Test(
        "what a suite needs and was not given is told",
        arguments: [
            (["null:", "--suite=snapshot-depth"], "--step-command"),
            (["null:", "--suite=clone-storm"], "%d"), (["null:", "--suite=nope"], "basic"),
            (["null:", "--suite=overhead"], "--compare"),
            (["--suite=fill", "--compare", "a=null:", "b=null:"], "one target"),
        ]
    )
    func suite_incomplete_isTold(_ arguments: [String], _ word: String) throws {
        let outcome = try Programs.run(Programs.volbench, arguments)
        #expect(outcome.status != 0 && outcome.errorLines.count == 1)
        #expect(outcome.errors.contains(word), "\(outcome.errors)")
    }
}

/// How many elements of each name a drawing has.
private final class XMLCounter {
    private(set) var counts: [String: Int] = [:]

    /// Whether every tag that opens is closed, in order.
    func parse(_ data: Data) -> Bool {
        let text = String(decoding: data, as: UTF8.self)
        var open: [Substring] = []
        for piece in text.split(separator: "<").dropFirst(text.hasPrefix("<") ? 0 : 1) {
            guard let end = piece.firstIndex(of: ">") else { return false }
            let tag = piece[..<end]
            let name = tag.drop { $0 == "/" }.prefix { $0.isLetter }
            if tag.hasPrefix("/") {
                guard open.popLast() == name else { return false }
            } else {
                counts[String(name), default: 0] += 1
                if !tag.hasSuffix("/") { open.append(name) }
            }
        }
        return open.isEmpty
    }
}
