import Foundation
import Simulation
import TestSupport
import Testing

/// How many seeds the tests run; many more run by command (`make sim`).
private enum ReplicationExtent {
    #if DEBUG
    static let chunkSeedCount: UInt64 = 4
    static let findsCanaries = false
    #else
    static let chunkSeedCount: UInt64 = 40
    static let findsCanaries = true
    #endif
    /// Seeds within which a planted bug must be found: the rarest shows in one of 500, and a change
    /// that only draws other numbers finds it elsewhere.
    static let canarySeedCountMax: UInt64 = 1000
}

private func run(_ seed: UInt64, _ options: ReplicationOptions) -> ReplicationReport {
    ReplicationSimulation(seed: seed, options: options).run()
}

private func repetition(_ seed: UInt64, _ options: ReplicationOptions) -> Comment {
    let words = ["--seed", "\(seed)"] + options.arguments
    return Comment(
        rawValue: "repeat: swift run -c release devtool sim replication "
            + words.joined(separator: " ")
    )
}

@Suite("Simulation of replication", .background) struct ReplicationSimulationTests {
    @Test("Seeds find nothing wrong", arguments: 0..<10 as Range<UInt64>)
    func run_seeds_findsNothing(chunk: UInt64) {
        let options = ReplicationOptions()
        let first = 1 + chunk * ReplicationExtent.chunkSeedCount
        for seed in first..<first + ReplicationExtent.chunkSeedCount {
            let report = run(seed, options)
            #expect(report.failure == nil, repetition(seed, options))
        }
    }

    @Test("The same seed does the same", arguments: [3, 14, 15, 92, 65, 35] as [UInt64])
    func run_sameSeedTwice_sameTrace(seed: UInt64) {
        let options = ReplicationOptions()
        let first = run(seed, options)
        #expect(first == run(seed, options), repetition(seed, options))
        #expect(first.traceHash != run(seed + 1, options).traceHash)
    }

    @Test("Every line of the seed file is a case that finds nothing wrong")
    func run_fixtureSeeds_findNothing() throws {
        let lines = Fixture.lines
        #expect(!lines.isEmpty)
        for line in lines {
            let words = line.prefix { $0 != "#" }.split(separator: " ")
            let isCase = words.count == 2 && words[0] == "--seed"
            #expect(isCase, "\(line)")
            let seed = try #require(UInt64(words[1]))
            let options = ReplicationOptions()
            #expect(run(seed, options).failure == nil, repetition(seed, options))
        }
    }

    @Test(
        "Planted bugs are found",
        .enabled(if: ReplicationExtent.findsCanaries, "takes seeds by the hundred"),
        arguments: ReplicationOptions.canaries
    )
    func run_plantedBug_isFound(canary: String) {
        var options = ReplicationOptions()
        options.canary = canary
        for seed in 1...ReplicationExtent.canarySeedCountMax
        where run(seed, options).failure != nil { return }
        Issue.record(
            "\(canary) was not found within \(ReplicationExtent.canarySeedCountMax) seeds"
        )
    }
}

/// The seeds of `Fixtures/seeds/replication.txt`.
private enum Fixture {
    static var lines: [String] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("Fixtures/seeds/replication.txt")
        guard let text = try? String(contentsOf: file, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("#") }
    }
}
