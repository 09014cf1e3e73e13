// The same job file through fio and through volbench, against one server that logs what it is
// asked for.

import Foundation
import TestSupport
import Testing
import volbench

/// What a server was asked for.
private struct Request: Hashable {
    var kind: String
    var offset: UInt64
    var byteCount: UInt64
}

@Suite("fio does the same", .serialized, .background)
struct FioEquivalenceTests {
    private static var jobFiles: [String] {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Bench/jobs").standardizedFileURL.path
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasSuffix(".fio") }.sorted().map { "\(folder)/\($0)" }
    }

    static var canRun: Bool { NBDKit.isInstalled && Programs.installed("fio") != nil }

    @Test("there are job files")
    func files_areThere() { #expect(Self.jobFiles.count >= 20) }

    @Test(
        "counts, bytes and places",
        .enabled(if: canRun, "fio and nbdkit are not installed"),
        arguments: jobFiles
    )
    func jobFile_sameRequests(_ path: String) throws {
        let server = try NBDKit("--filter=log", "memory", "64M", "logfile=LOG")
        let fio = try Programs.run(
            try #require(Programs.installed("fio")),
            [path, "--output-format=json", "--output=\(server.folder.path)/fio.json"],
            environment: ["uri": server.uri]
        )
        #expect(fio.status == 0, "\(fio.errors)")
        let theirs = try requests(server.takeLog())

        let text = try String(contentsOfFile: path, encoding: .utf8)
        let file = try JobFile(parsing: text, path: path) { $0 == "uri" ? server.uri : nil }
        let jobs = try JobList.jobs(of: file)
        let results = Session(jobs: jobs, target: nil).run()
        #expect(results.compactMap(\.failure) == [])
        let ours = try requests(server.takeLog())

        try compareTotals(results, "\(server.folder.path)/fio.json", jobs)
        compare(theirs, ours, jobs)
        // What was counted is what was asked for.
        let counted = results.reduce(0) { $0 + $1.transferCount }
        #expect(counted == UInt64(ours.filter { $0.kind != "Flush" }.count))
    }

    // MARK: - What was asked for

    /// `... Read id=1 offset=0x0 count=0x1000 ...`: the requests of the log, in order.
    private func requests(_ log: String) throws -> [Request] {
        var result: [Request] = []
        for line in log.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 4, ["Read", "Write", "Trim", "Flush"].contains(words[3]) else {
                continue
            }
            func number(_ name: String) -> UInt64 {
                let word = words.first { $0.hasPrefix(name + "=0x") }
                return word.flatMap { UInt64($0.dropFirst(name.count + 3), radix: 16) } ?? 0
            }
            result.append(
                Request(
                    kind: String(words[3]),
                    offset: number("offset"),
                    byteCount: number("count")
                )
            )
        }
        return result
    }

    private func compare(_ theirs: [Request], _ ours: [Request], _ jobs: [JobOptions]) {
        #expect(!ours.isEmpty)
        let isDrawn = jobs.contains { $0.mode.isMixed || $0.blockSizes.write.entries.count > 1 }
        let repeats = jobs.contains { $0.repeatsPlaces || $0.distribution != .uniform }
        for kind in ["Read", "Write", "Trim", "Flush"] {
            let (left, right) = (theirs.filter { $0.kind == kind }, ours.filter { $0.kind == kind })
            let spread = isDrawn ? 5 * (Double(theirs.count)).squareRoot() : 0
            #expect(abs(Double(left.count) - Double(right.count)) <= spread, "\(kind)")
            let (leftBytes, rightBytes) = (bytes(left), bytes(right))
            let bytesSpread = isDrawn ? 0.15 * Double(max(leftBytes, rightBytes)) + 65536 : 0
            #expect(abs(Double(leftBytes) - Double(rightBytes)) <= bytesSpread, "\(kind)")
            if !isDrawn, !repeats {
                #expect(counts(left) == counts(right), "\(kind): other places")
            }
        }
        let (left, right) = (theirs.filter { $0.byteCount > 0 }, ours.filter { $0.byteCount > 0 })
        if isDrawn, !repeats { compareCoverage(left, right) }
        if repeats { compareDistribution(left, right, isSkewed: jobs[0].distribution != .uniform) }
    }

    private func bytes(_ requests: [Request]) -> UInt64 {
        requests.reduce(0) { $0 + $1.byteCount }
    }

    private func counts(_ requests: [Request]) -> [Request: Int] {
        requests.reduce(into: [:]) { $0[$1, default: 0] += 1 }
    }

    /// Each place is asked for as often, whatever for; sequences end where their shares end.
    private func compareCoverage(_ left: [Request], _ right: [Request]) {
        #expect(bytes(left) == bytes(right))
        let (leftPlaces, rightPlaces) = (Set(left.map(\.offset)), Set(right.map(\.offset)))
        let different = leftPlaces.symmetricDifference(rightPlaces).count
        #expect(Double(different) <= 0.15 * Double(leftPlaces.count))
    }

    /// Two samples of one distribution: Kolmogorov and Smirnov's distance, or for skewed ones that
    /// of the counts by rank, since each has its own favourites.
    private func compareDistribution(_ left: [Request], _ right: [Request], isSkewed: Bool) {
        guard isSkewed else {
            let distance = distance(left.map(\.offset).sorted(), right.map(\.offset).sorted())
            let (n, m) = (Double(left.count), Double(right.count))
            // One pair of samples in a million is further apart. Runs of places are fewer draws.
            #expect(distance < 2.7 * ((n + m) / (n * m)).squareRoot() * 3)
            return
        }
        for share in [0.001, 0.01, 0.1, 0.5] {
            let (theirs, ours) = (favourites(left, share), favourites(right, share))
            #expect(abs(theirs - ours) < 0.03, "\(share): \(theirs) and \(ours)")
        }
    }

    /// Which part of the requests falls on the most asked for `share` of 8192 places.
    private func favourites(_ requests: [Request], _ share: Double) -> Double {
        let sorted = Dictionary(grouping: requests, by: \.offset).values.map(\.count).sorted(by: >)
        let taken = sorted.prefix(Int(8192 * share)).reduce(0, +)
        return Double(taken) / Double(requests.count)
    }

    private func distance(_ left: [UInt64], _ right: [UInt64]) -> Double {
        var (i, j, greatest) = (0, 0, 0.0)
        while i < left.count, j < right.count {
            let value = min(left[i], right[j])
            while i < left.count, left[i] == value { i += 1 }
            while j < right.count, right[j] == value { j += 1 }
            let difference = Double(i) / Double(left.count) - Double(j) / Double(right.count)
            greatest = max(greatest, abs(difference))
        }
        return greatest
    }

    // MARK: - What was reported

    /// fio's document against ours: the same keys, and the same totals where nothing is drawn.
    private func compareTotals(
        _ results: [JobResult],
        _ path: String,
        _ jobs: [JobOptions]
    ) throws {
        let theirs = try document(Data(contentsOf: URL(fileURLWithPath: path)))
        let json = FioJSON(results: results, hasBins: false, machine: MachineReport()).document
        let ours = try document(Data(json.laidOut().utf8))
        #expect(theirs.count == ours.count)
        let isDrawn = jobs.contains { $0.mode.isMixed || $0.blockSizes.write.entries.count > 1 }
        for (left, right) in zip(theirs, ours) {
            #expect(Set(left.keys).subtracting(right.keys) == [], "keys that fio has")
            for kind in ["read", "write", "trim"] {
                let (theirs, ours) = (left[kind] as? [String: Any], right[kind] as? [String: Any])
                #expect(Set(theirs?.keys ?? [:].keys).subtracting(ours?.keys ?? [:].keys) == [])
                guard !isDrawn else { continue }
                for key in ["total_ios", "io_bytes", "io_kbytes"] {
                    #expect(theirs?[key] as? Int == ours?[key] as? Int, "\(kind) \(key)")
                }
            }
        }
    }

    private func document(_ data: Data) throws -> [[String: Any]] {
        let whole = try JSONSerialization.jsonObject(with: data) as? [String: Any]
        return try #require(whole?["jobs"] as? [[String: Any]])
    }
}
