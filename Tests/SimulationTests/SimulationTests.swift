import Foundation
import Simulation
import TestSupport
import Testing

/// How many seeds the tests run; many more run by command (`make sim`).
private enum Extent {
    #if DEBUG
    static let chunkSeedCount: UInt64 = 2
    static let operationCountMax = 4000
    static let findsCanaries = false
    #else
    static let chunkSeedCount: UInt64 = 30
    static let operationCountMax = Int.max
    static let findsCanaries = true
    #endif
}

/// Runs a case and says how to repeat it.
private func run(_ testCase: SimulationCase, _ memory: SimulationMemory) -> SimulationReport {
    let report = StoreSimulation(
        seed: testCase.seed,
        options: testCase.options,
        memory: memory
    ).run()
    return report
}

private func repetition(_ testCase: SimulationCase) -> Comment {
    Comment(
        rawValue: "repeat: swift run -c release devtool sim store "
            + testCase.arguments.joined(separator: " ")
    )
}

@Suite("Simulation of a store", .background) struct StoreSimulationTests {
    @Test("Seeds find nothing wrong", arguments: 0..<10 as Range<UInt64>)
    func run_seeds_findsNothing(chunk: UInt64) {
        let memory = SimulationMemory()
        let first = 1 + chunk * Extent.chunkSeedCount
        for seed in first..<first + Extent.chunkSeedCount {
            let testCase = SimulationCase(seed: seed)
            let report = run(testCase, memory)
            #expect(report.failure == nil, repetition(testCase))
        }
    }

    @Test("Stores that are full and die all the time open again, and give everything back")
    func run_crowdedSeeds_findsNothing() {
        let memory = SimulationMemory()
        var options = SimulationOptions()
        options.isCrowded = true
        for seed in 1...Extent.chunkSeedCount {
            let testCase = SimulationCase(seed: seed, options: options)
            let report = run(testCase, memory)
            #expect(report.failure == nil, repetition(testCase))
        }
    }

    @Test("The same seed does the same", arguments: [3, 14, 15, 92, 65, 35] as [UInt64])
    func run_sameSeedTwice_sameTrace(seed: UInt64) {
        let memory = SimulationMemory()
        let first = run(SimulationCase(seed: seed), memory)
        let second = run(SimulationCase(seed: seed), memory)
        #expect(first == second, repetition(SimulationCase(seed: seed)))
        let other = run(SimulationCase(seed: seed + 1), memory)
        #expect(first.traceHash != other.traceHash)
    }

    @Test("A crash at any device request loses nothing")
    func run_crashAtEvery_findsNothing() {
        everyRequest(seed: 7) { options, point in options.crashAt = point }
    }

    @Test("A crash at any device request leaves replicas a prefix of their logs")
    func run_replicasCrashAtEvery_findsNothing() {
        everyRequest(seed: 7) { options, point in
            options.hasReplicas = true
            options.crashAt = point
        }
    }

    @Test("A failed device request loses nothing")
    func run_errorAtEvery_findsNothing() {
        everyRequest(seed: 8) { options, point in options.errorAt = point }
    }

    /// Runs the same short case with something happening at each of its device requests, until
    /// it lies behind the last of them.
    private func everyRequest(seed: UInt64, _ happen: (inout SimulationOptions, UInt64) -> Void) {
        let memory = SimulationMemory()
        // Every request of a short run would take long in a debug build: a prime step instead.
        let step: UInt64 = Extent.chunkSeedCount < 10 ? 37 : 1
        // Several times as many as the run has: one that never ends is a failure too.
        let pointCountMax: UInt64 = 4000
        for point in stride(from: 1, to: pointCountMax, by: Int(step)) {
            var options = SimulationOptions()
            options.operationCount = 12
            happen(&options, point)
            let testCase = SimulationCase(seed: seed, options: options)
            let report = run(testCase, memory)
            #expect(report.failure == nil, repetition(testCase))
            if report.deviceRequestCount < point { return }
        }
        Issue.record("the run has more than \(pointCountMax) device requests: not all were tried")
    }

    @Test("Every line of the seed file is a case")
    func fixture_everyLine_isACase() {
        #expect(Fixture.cases.count == Fixture.lines.count)
        #expect(!Fixture.lines.isEmpty)
    }

    @Test("Seeds with a story find nothing wrong", arguments: Fixture.shortCases)
    func run_fixtureSeed_findsNothing(testCase: SimulationCase) {
        let report = run(testCase, SimulationMemory())
        #expect(report.failure == nil, repetition(testCase))
    }
}

@Suite("Canaries: planted bugs are found", .background) struct CanaryTests {
    /// Seeds within which a planted bug must be found.
    private static let seedCountMax: UInt64 = 120

    @Test(
        .enabled(if: Extent.findsCanaries, "takes seeds by the hundred"),
        arguments: Canary.allCases
    )
    func run_plantedBug_isFound(canary: Canary) {
        let memory = SimulationMemory()
        var options = SimulationOptions()
        options.canary = canary
        for seed in 1...CanaryTests.seedCountMax {
            if run(SimulationCase(seed: seed, options: options), memory).failure != nil { return }
        }
        Issue.record("\(canary) was not found within \(CanaryTests.seedCountMax) seeds")
    }
}

/// The seeds of `Fixtures/seeds`.
private enum Fixture {
    static var cases: [SimulationCase] { lines.compactMap { SimulationCase(line: $0) } }

    /// Those that end within seconds.
    static var shortCases: [SimulationCase] {
        cases.filter { $0.options.operationCount ?? 0 <= Extent.operationCountMax }
    }

    /// Lines that are not comments.
    static var lines: [String] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("Fixtures/seeds/store.txt")
        guard let text = try? String(contentsOf: file, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("#") }
    }
}
