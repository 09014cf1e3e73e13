import Foundation
import Testing

extension Conformance {
    /// What running programs do when they are asked to stop, and say of those that signals ended.
    @Suite("Signals")
    struct SignalTests {
        @Test("an import whose server fell silent ends at once when it is asked to")
        func import_serverIsSilent_isInterrupted() async throws {
            try await withCluster { cluster in
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
                for (start, number) in [(head, SIGINT), (head + "x", SIGTERM), ("", SIGHUP)] {
                    let server = try SilentServer(start: start)
                    let child = try ChildProcess(
                        TestEnvironment.program("volctl"),
                        [
                            "image", "import", "http://127.0.0.1:\(server.port)/disk.img", "v",
                        ],
                        environment: cluster.environment.filter { $0.key != "CAIRN_ENDPOINT" },
                        directory: cluster.scratch.path
                    )
                    try await Task.sleep(for: .seconds(2))
                    #expect(child.isRunning, "\(child.errorOutput)")
                    child.signal(number)
                    #expect(await child.exit(within: 10) == 130, "\(child.errorOutput)")
                    #expect(child.errorOutput == "volctl: Interrupted.\n")
                    withExtendedLifetime(server) {}
                }
            }
        }
    }
}
