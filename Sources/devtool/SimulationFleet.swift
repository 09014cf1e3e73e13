// Many seeds in worker processes: a trap in one seed ends its worker, not the others.

import ChildProcesses
import Foundation
import Simulation
import Synchronization

/// Runs a range of seeds in parallel.
final class SimulationFleet: Sendable {
    private struct State {
        var next: UInt64
        var doneCount: UInt64 = 0
        var failures: [String] = []
        var crashCount = 0
        var damagedCount = 0
        var requestCount: UInt64 = 0
        var faultCount = 0
        var takeoverCount = 0
        var messageCount: UInt64 = 0
        var lastReport = Date()
    }

    private static var blockSeedCount: UInt64 { 50 }
    private static var failureCountMax: Int { 20 }

    private let arguments: SimulationArguments
    private let state: Mutex<State>
    private let started = Date()

    init(_ arguments: SimulationArguments) {
        self.arguments = arguments
        state = Mutex(State(next: arguments.first))
    }

    /// Runs them all.
    ///
    /// - Returns: 0 when none failed.
    func run() -> Int32 {
        let last = arguments.first + arguments.count - 1
        say(
            "options: seeds \(arguments.first)...\(last), \(arguments.jobCount) jobs "
                + arguments.optionArguments.joined(separator: " ")
        )
        let group = DispatchGroup()
        for _ in 0..<arguments.jobCount {
            let thread = Thread { [self] in
                while let block = takeBlock() { run(block) }
                group.leave()
            }
            group.enter()
            thread.start()
        }
        group.wait()
        let seconds = Date().timeIntervalSince(started)
        return state.withLock { state in
            let what =
                switch arguments.subject {
                case .store:
                    "\(state.crashCount) crashes, \(state.damagedCount) damaged, "
                        + "\(state.requestCount) device requests"
                case .replication:
                    "\(state.faultCount) faults, \(state.takeoverCount) takeovers, "
                        + "\(state.messageCount) messages"
                }
            say(
                "\(state.doneCount) seeds, \(state.failures.count) failed, \(what), "
                    + "\(Int(seconds)) s"
            )
            return state.failures.isEmpty ? 0 : 1
        }
    }

    private func takeBlock() -> Range<UInt64>? {
        state.withLock { state in
            let end = arguments.first + arguments.count
            guard state.next < end, state.failures.count < SimulationFleet.failureCountMax else {
                return nil
            }
            let upper = min(state.next + SimulationFleet.blockSeedCount, end)
            defer { state.next = upper }
            return state.next..<upper
        }
    }

    /// Runs a block in a worker; after a trap, the rest of it in another.
    private func run(_ block: Range<UInt64>) {
        var rest = block
        while !rest.isEmpty {
            let last = runWorker(rest)
            guard let trapped = last else { return }
            note(
                failure: "seed=\(trapped) TRAPPED\n  repeat: "
                    + SimulationCommand.command(trapped, arguments)
            )
            rest = (trapped + 1)..<block.upperBound
        }
    }

    /// Runs seeds in one process.
    ///
    /// - Returns: The seed at which it died, or nil when it came to the end.
    private func runWorker(_ seeds: Range<UInt64>) -> UInt64? {
        var environment = ProcessInfo.processInfo.environment
        environment["SWIFT_BACKTRACE"] = "enable=no"
        let pipe = Pipe()
        var worker = ChildSpecification(
            "/proc/self/exe",
            ["sim", arguments.subject.rawValue, "--worker", "--first", "\(seeds.lowerBound)"]
                + ["--seeds", "\(seeds.upperBound - seeds.lowerBound)"] + arguments.optionArguments,
            output: pipe.fileHandleForWriting.fileDescriptor
        )
        worker.environment = environment
        let pid: pid_t
        do throws(SpawnFailure) { pid = try worker.start() } catch {
            note(failure: "no worker: errno \(error.errorNumber)")
            return nil
        }
        // Ours would keep the end of what it writes from being seen.
        try? pipe.fileHandleForWriting.close()
        var running: UInt64?
        var buffer = Data()
        while true {
            let data = pipe.fileHandleForReading.availableData
            if data.isEmpty { break }
            buffer.append(data)
            while let end = buffer.firstIndex(of: 10) {
                let line = String(decoding: buffer[buffer.startIndex..<end], as: UTF8.self)
                buffer.removeSubrange(buffer.startIndex...end)
                take(line, &running)
            }
        }
        _ = ChildEnd.wait(for: pid)
        return running
    }

    private func take(_ line: String, _ running: inout UInt64?) {
        if line.hasPrefix("begin ") {
            running = UInt64(line.dropFirst(6))
        } else if line.hasPrefix("end ") {
            let seed = running
            running = nil
            noteEnd(String(line.dropFirst(4)), seed ?? 0)
        }
    }

    private func noteEnd(_ line: String, _ seed: UInt64) {
        func number(_ name: String) -> Int {
            guard let start = line.range(of: " \(name)=") else { return 0 }
            return Int(line[start.upperBound...].prefix { $0.isNumber }) ?? 0
        }
        if line.contains(" FAILED ") {
            note(failure: "\(line)\n  repeat: \(SimulationCommand.command(seed, arguments))")
        }
        state.withLock { state in
            state.doneCount += 1
            state.crashCount += number("crashes")
            state.requestCount += UInt64(number("device"))
            state.faultCount += number("faults")
            state.takeoverCount += number("takeovers")
            state.messageCount += UInt64(number("messages"))
            if number("damage") > 0 { state.damagedCount += 1 }
            guard Date().timeIntervalSince(state.lastReport) > 10 else { return }
            state.lastReport = Date()
            say(
                "\(state.doneCount) of \(arguments.count) seeds, "
                    + "\(state.failures.count) failed"
            )
        }
    }

    private func note(failure: String) {
        state.withLock { $0.failures.append(failure) }
        say(failure)
    }
}
