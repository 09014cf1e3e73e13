// `devtool sim store` and `devtool sim replication`: one seed, many seeds, or, for a store, a crash
// at every device request of one seed.

import CProcess
import Foundation
import Simulation

/// What is simulated.
enum SimulationSubject: String {
    case store
    case replication
}

/// The arguments of `devtool sim`.
struct SimulationArguments {
    let subject: SimulationSubject
    var seed: UInt64?
    var first: UInt64 = 1
    var count: UInt64 = 0
    var jobCount = ProcessInfo.processInfo.activeProcessorCount
    var isWorker = false
    var isTraced = false
    var crashesEverywhere = false
    var failsEverywhere = false
    var options = SimulationOptions()
    var replication = ReplicationOptions()

    static let usage = """
        usage: devtool sim store --seed N | --seeds COUNT [--first N] [--jobs N]
                   [--ops N]                requests of the workload (default: the seed chooses)
                   [--crash-at N | every]   crash at the n-th device request, or in turn at each
                   [--error-at N | every]   fail the n-th device request, or in turn each
                   [--calm]                 no faults and no crashes
                   [--crowded]              a small, full, thinly written store
                   [--replicas | --no-replicas]   with or without volumes whose changes are
                                            numbered from outside (default: the seed chooses)
                   [--canary NAME]          plant a bug: \(Canary.allCases.map(\.rawValue).joined(separator: ", "))
                   [--trace]                print everything that happens
               devtool sim replication --seed N | --seeds COUNT [--first N] [--jobs N]
                   [--ops N] [--calm] [--trace]   as above
                   [--canary NAME]          plant a bug: \(ReplicationOptions.canaries.joined(separator: ", "))
        """

    /// Parses the arguments after `sim`; nil when they make no sense.
    init?(_ arguments: [String]) {
        var rest = arguments[...]
        guard let subject = rest.popFirst().flatMap(SimulationSubject.init(rawValue:)) else {
            return nil
        }
        self.subject = subject
        while let name = rest.popFirst() {
            switch name {
            case "--trace": isTraced = true
            case "--worker": isWorker = true
            default:
                if takeFlag(name) { continue }
                guard let value = rest.popFirst(), take(name, value) else { return nil }
            }
        }
        guard (seed == nil) != (count == 0), jobCount > 0 else { return nil }
    }

    /// The options of the subject, as arguments.
    var optionArguments: [String] {
        switch subject {
        case .store: options.arguments
        case .replication: replication.arguments
        }
    }

    private mutating func takeFlag(_ name: String) -> Bool {
        switch subject {
        case .store: options.takeFlag(name)
        case .replication: replication.takeFlag(name)
        }
    }

    private mutating func takeOption(_ name: String, _ value: String) -> Bool {
        switch subject {
        case .store: options.take(name, value)
        case .replication: replication.take(name, value)
        }
    }

    private mutating func take(_ name: String, _ value: String) -> Bool {
        switch name {
        case "--crash-at" where value == "every" && subject == .store: crashesEverywhere = true
        case "--error-at" where value == "every" && subject == .store: failsEverywhere = true
        default:
            if takeOption(name, value) { return true }
            guard let number = UInt64(value) else { return false }
            return take(name, number)
        }
        return true
    }

    private mutating func take(_ name: String, _ number: UInt64) -> Bool {
        switch name {
        case "--seed": seed = number
        case "--seeds": count = number
        case "--first": first = number
        case "--jobs": jobCount = Int(clamping: number)
        default: return false
        }
        return true
    }
}

/// `devtool sim`.
enum SimulationCommand {
    /// Runs the command.
    ///
    /// - Parameter arguments: What follows `sim`.
    /// - Returns: 0 when nothing was found, 1 when something was, 2 for wrong arguments.
    static func run(_ arguments: [String]) -> Int32 {
        guard let parsed = SimulationArguments(arguments) else {
            FileHandle.standardError.write(Data((SimulationArguments.usage + "\n").utf8))
            return arguments.first == "--help" ? 0 : 2
        }
        if let seed = parsed.seed {
            if parsed.crashesEverywhere || parsed.failsEverywhere {
                return runEverywhere(seed, parsed)
            }
            return runOne(seed, parsed)
        }
        return parsed.isWorker ? runWorker(parsed) : SimulationFleet(parsed).run()
    }

    /// The command that repeats a run.
    static func command(_ seed: UInt64, _ arguments: SimulationArguments) -> String {
        (["swift run -c release devtool sim \(arguments.subject) --seed \(seed)"]
            + arguments.optionArguments).joined(separator: " ")
    }

    // MARK: - One seed

    private static func runOne(_ seed: UInt64, _ arguments: SimulationArguments) -> Int32 {
        say("options: seed=\(seed) \(arguments.optionArguments.joined(separator: " "))")
        let emit: ((String) -> Void)? = arguments.isTraced ? { say($0) } : nil
        if arguments.subject == .replication {
            let simulation = ReplicationSimulation(
                seed: seed,
                options: arguments.replication,
                emit: emit
            )
            say("scenario: \(simulation.summary)")
            return end(simulation.run(), arguments)
        }
        let simulation = StoreSimulation(
            seed: seed,
            options: arguments.options,
            memory: SimulationMemory(),
            emit: emit
        )
        say("scenario: \(simulation.summary)")
        let report = simulation.run()
        say(line(report))
        guard report.failure != nil else { return 0 }
        say("repeat: \(command(seed, arguments)) --trace")
        return 1
    }

    private static func end(_ report: ReplicationReport, _ arguments: SimulationArguments) -> Int32
    {
        say(line(report))
        guard report.failure != nil else { return 0 }
        say("repeat: \(command(report.seed, arguments)) --trace")
        return 1
    }

    /// One line that is the same whenever the seed is.
    private static func line(_ report: ReplicationReport) -> String {
        let hash = String(report.traceHash, radix: 16)
        let text =
            "seed=\(report.seed) \(report.failure == nil ? "ok" : "FAILED") trace=\(hash) "
            + "ops=\(report.operationCount) messages=\(report.messageCount) "
            + "faults=\(report.faultCount) takeovers=\(report.takeoverCount) "
            + "ms=\(report.milliseconds)"
        return text + (report.failure.map { ": \($0)" } ?? "")
    }

    /// One line that is the same whenever the seed is.
    static func line(_ report: SimulationReport) -> String {
        let hash = String(report.traceHash, radix: 16)
        var text =
            "seed=\(report.seed) \(report.failure == nil ? "ok" : "FAILED") trace=\(hash) "
            + "ops=\(report.operationCount) device=\(report.deviceRequestCount) "
            + "crashes=\(report.crashCount) damage=\(report.damageCount)"
        if report.endedByDamage { text += " ended-by-damage" }
        if let failure = report.failure { text += ": \(failure)" }
        return text
    }

    /// The same seed again and again, with the crash or the error one device request later.
    private static func runEverywhere(_ seed: UInt64, _ arguments: SimulationArguments) -> Int32 {
        say(
            "options: seed=\(seed) \(arguments.options.arguments.joined(separator: " ")), at every "
                + "device request: \(arguments.crashesEverywhere ? "crash" : "I/O error")"
        )
        let memory = SimulationMemory()
        var point: UInt64 = 1
        while true {
            var turn = arguments
            if arguments.crashesEverywhere { turn.options.crashAt = point }
            if arguments.failsEverywhere { turn.options.errorAt = point }
            let report = StoreSimulation(seed: seed, options: turn.options, memory: memory).run()
            if report.failure != nil {
                say(line(report))
                say("repeat: \(command(seed, turn)) --trace")
                return 1
            }
            if point > report.deviceRequestCount {
                say("seed=\(seed) ok at every one of \(point - 1) device requests")
                return 0
            }
            point += 1
        }
    }

    // MARK: - Worker

    /// Runs seeds one after the other and says which; a trap then names its seed.
    private static func runWorker(_ arguments: SimulationArguments) -> Int32 {
        // Nobody hears it any more then. A fleet that is gone already is noticed with the next line,
        // which its pipe refuses.
        _ = cbl_die_with_parent()
        let memory = SimulationMemory()
        for seed in arguments.first..<arguments.first + arguments.count {
            say("begin \(seed)")
            if arguments.subject == .replication {
                let options = arguments.replication
                say("end \(line(ReplicationSimulation(seed: seed, options: options).run()))")
                continue
            }
            let report = StoreSimulation(
                seed: seed,
                options: arguments.options,
                memory: memory
            ).run()
            say("end \(line(report))")
        }
        return 0
    }
}

/// Prints a line at once: a trap must not swallow what was said before it.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
