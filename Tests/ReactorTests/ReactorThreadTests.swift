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
    private func run(name: String) throws -> [String] {
        let report = Report()
        let thread = try ReactorThread.start(name: name) {
            let status = FileManager.default.contents(atPath: "/proc/thread-self/status")
            let text = String(decoding: status ?? Data(), as: UTF8.self)
            report.lines.withLock { $0 = text.split(separator: "\n").map(String.init) }
        }
        thread.join()
        return report.lines.withLock { $0 }
    }

    @Test("A thread has its name, cut to what the kernel keeps, and join waits for its end")
    func start_name_isSet() throws {
        #expect(try run(name: "reactor 0").contains("Name:\treactor 0"))
        #expect(try run(name: "a name of more than 15 bytes").contains("Name:\ta name of more "))
    }
}
