internal import BlockCore

/// One run of one workload on one target.
package struct Sample {
    /// The round, from 0.
    package var round: Int
    /// Everything that was measured.
    package var result: JobResult

    /// Creates a sample.
    package init(round: Int, result: JobResult) {
        self.round = round
        self.result = result
    }

    /// Operations per second.
    package var rate: Double { result.rate }

    /// CPU of the target's servers per operation, in microseconds; nil when nobody watched.
    package var serverMicroseconds: Double? {
        guard !result.servers.isEmpty, result.transferCount > 0 else { return nil }
        let total = result.servers.reduce(0) { $0 + $1.nanoseconds }
        return Double(total) / 1e3 / Double(result.transferCount)
    }

    /// CPU of volbench per operation, in microseconds.
    package var clientMicroseconds: Double {
        let usage = result.usage
        let total = usage.userMicroseconds + usage.systemMicroseconds
        return Double(total) / Double(max(result.transferCount, 1))
    }
}

/// A workload's figures on all targets, by target.
package struct WorkloadComparison {
    /// The job's or group's name.
    package var name: String
    /// What it does.
    package var options: JobOptions
    /// A list of samples per target, in the order of the targets.
    package var samples: [[Sample]]

    /// Creates a workload's figures.
    package init(name: String, options: JobOptions, samples: [[Sample]]) {
        self.name = name
        self.options = options
        self.samples = samples
    }

    /// What a target is to the first one.
    package enum Verdict: Sendable, Equatable {
        /// More operations per second, beyond the noise.
        case faster
        /// Fewer.
        case slower
        /// No difference beyond the noise.
        case noDifference
        /// Too few rounds for any statement.
        case tooFewRounds
    }

    /// Rounds from which on a winner can be called: with three, chance alone orders two samples
    /// perfectly in one of ten cases.
    package static var roundCountMin: Int { 4 }
    /// The probability below which a difference is not put down to chance.
    package static var probabilityMax: Double { 0.05 }

    /// The rounds' own ratios of a target's rate to the first target's.
    package func ratios(of target: Int) -> [Double] {
        samples[target].compactMap { sample in
            let base = samples[0].first { $0.round == sample.round }
            guard let base, base.rate > 0, sample.rate > 0 else { return nil }
            return sample.rate / base.rate
        }
    }

    /// The probability that a target and the first differ as they do by chance.
    package func probability(of target: Int) -> Double {
        RankTest.probability(samples[target].map(\.rate), samples[0].map(\.rate))
    }

    /// What a target is to the first one; noise is never called a difference.
    package func verdict(of target: Int) -> Verdict {
        let ratios = ratios(of: target)
        guard ratios.count >= Self.roundCountMin else { return .tooFewRounds }
        let spread = Spread(ratios)
        guard probability(of: target) < Self.probabilityMax else { return .noDifference }
        if spread.lowQuartile > 1 { return .faster }
        return spread.highQuartile < 1 ? .slower : .noDifference
    }
}

/// Runs jobs on several targets in turns.
package final class Comparison {
    /// The targets; the first is what the others are held against.
    package let targets: [NamedTarget]
    private let jobs: [JobOptions]
    private let roundCount: Int
    private let live: LiveLine?
    /// What was measured, by workload.
    package private(set) var workloads: [WorkloadComparison] = []
    /// What went wrong, a line each.
    package private(set) var complaints: [String] = []

    /// Creates a comparison.
    package init(targets: [NamedTarget], jobs: [JobOptions], roundCount: Int, live: LiveLine?) {
        self.targets = targets
        self.jobs = jobs
        self.roundCount = roundCount
        self.live = live
    }

    /// The order of the targets in a round: turned by one place each time, so that nobody always
    /// comes after the same other.
    package static func order(round: Int, targetCount: Int) -> [Int] {
        (0..<targetCount).map { (round + $0) % targetCount }
    }

    /// Runs all rounds, workload by workload, until the user asks for the end.
    package func run() {
        for batch in Comparison.batches(jobs) {
            for round in 0..<roundCount {
                for target in Comparison.order(round: round, targetCount: targets.count) {
                    if Session.wasInterrupted {
                        complaints.append("interrupted: not every round was run")
                        return
                    }
                    measure(batch, target: target, round: round)
                }
            }
        }
    }

    /// Jobs that run at the same time, in order.
    private static func batches(_ jobs: [JobOptions]) -> [[JobOptions]] {
        var result: [[JobOptions]] = []
        for job in jobs {
            if result.isEmpty || job.waitsForJobsBefore {
                result.append([job])
            } else {
                result[result.count - 1].append(job)
            }
        }
        return result
    }

    private func measure(_ batch: [JobOptions], target: Int, round: Int) {
        var jobs = batch
        for index in jobs.indices { jobs[index].seed &+= UInt64(round) }
        let session = Session(
            jobs: jobs,
            target: targets[target],
            serverPIDs: targets[target].serverPIDs,
            live: live
        )
        for result in Comparison.merged(session.run()) {
            let name = "\(targets[target].name), \(result.options.name)"
            if let failure = result.failure {
                complaints.append("\(name): \(failure)")
            } else if result.errorCount > 0 {
                let reason = describe(result.firstErrno)
                complaints.append("\(name): operations failed, the first with: \(reason)")
            }
            guard result.transferCount > 0 else { continue }
            add(Sample(round: round, result: result), target)
        }
    }

    /// One result for each name: clones of a job are one measurement, not several.
    private static func merged(_ results: [JobResult]) -> [JobResult] {
        var merged: [JobResult] = []
        for result in results {
            if let twin = merged.first(where: { $0.options.name == result.options.name }) {
                twin.merge(result)
            } else {
                merged.append(result)
            }
        }
        return merged
    }

    private func add(_ sample: Sample, _ target: Int) {
        let name = sample.result.options.name
        if let index = workloads.firstIndex(where: { $0.name == name }) {
            workloads[index].samples[target].append(sample)
            return
        }
        var workload = WorkloadComparison(
            name: name,
            options: sample.result.options,
            samples: targets.map { _ in [] }
        )
        workload.samples[target].append(sample)
        workloads.append(workload)
    }
}
