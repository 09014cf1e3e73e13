import Foundation
import Reactor
import Synchronization
import Testing

@Suite struct ReactorThreadTests {
    /// What a thread found out about itself.
    private final class Report: Sendable {
        let lines = Mutex<[String]>([])
    }

    /// Runs a thread that reads what the kernel says of it.
    private func run(name: String, cpu: Int?) throws -> [String] {
        let report = Report()
        let thread = try ReactorThread.start(name: name, cpu: cpu) {
            let status = FileManager.default.contents(atPath: "/proc/thread-self/status")
            let text = String(decoding: status ?? Data(), as: UTF8.self)
            report.lines.withLock { $0 = text.split(separator: "\n").map(String.init) }
        }
        thread.join()
        return report.lines.withLock { $0 }
    }

    @Test("A thread has its name and its CPU, and join waits for its end")
    func start_nameAndCPU_areSet() throws {
        let lines = try run(name: "reactor 0", cpu: 0)
        #expect(lines.contains("Name:\treactor 0"))
        #expect(lines.contains("Cpus_allowed_list:\t0"))
    }

    @Test("A CPU that does not exist does not keep the thread from running")
    func start_impossibleCPU_runs() throws {
        #expect(try run(name: "a name of more than 15 bytes", cpu: 100_000).isEmpty == false)
    }
}
