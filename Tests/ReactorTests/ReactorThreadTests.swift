import CLinux
import Glibc
import Reactor
import Synchronization
import Testing

@Suite struct ReactorThreadTests {
    /// What the thread below found out about itself.
    private final class Report: Sendable {
        let cpu = Atomic<Int32>(-1)
        let hasName = Atomic<Bool>(false)
    }

    @Test("A thread has its name and its CPU, and join waits for its end")
    func start_nameAndCPU_areSet() throws {
        let report = Report()
        let thread = try ReactorThread.start(name: "reactor 0", cpu: 0) {
            let handle = unsafe fopen("/proc/thread-self/comm", "r")
            var name = [CChar](repeating: 0, count: 32)
            if let handle = unsafe handle {
                unsafe fgets(&name, 32, handle)
                unsafe fclose(handle)
            }
            let text = name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            report.hasName.store(
                String(decoding: text, as: UTF8.self) == "reactor 0\n",
                ordering: .relaxed
            )
            report.cpu.store(sched_getcpu(), ordering: .releasing)
        }
        thread.join()
        #expect(report.cpu.load(ordering: .acquiring) == 0)
        #expect(report.hasName.load(ordering: .relaxed))
    }

    @Test("A CPU that does not exist does not keep the thread from running")
    func start_impossibleCPU_runs() throws {
        let report = Report()
        let thread = try ReactorThread.start(name: "nowhere", cpu: 100_000) {
            report.cpu.store(1, ordering: .relaxed)
        }
        thread.join()
        #expect(report.cpu.load(ordering: .relaxed) == 1)
    }
}
