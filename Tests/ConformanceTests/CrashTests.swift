import Foundation
import Testing

extension Conformance {
    /// `kill -9` under load, recovery, and a judgement of every sector.
    @Suite("Crash", .needsScript("crash_integrity.py"))
    struct CrashTests {
        /// Rounds of one run; `CAIRN_CRASH_ROUNDS=200` is the acceptance run.
        static let roundCount =
            ProcessInfo.processInfo.environment["CAIRN_CRASH_ROUNDS"].flatMap { Int($0) } ?? 20

        @Test(
            "no flushed write is lost and nothing flips back",
            arguments: [("uring", "writeback"), ("aio", "writeback"), ("uring", "durable")]
        )
        func crash_underLoad_losesNothing(engine: String, mode: String) async throws {
            let scratch = try ScratchDirectory()
            var options = NodeServer.Options()
            options.engine = engine
            let volnode = TestEnvironment.program("volnode")
            options.volumes = []
            let server = try await NodeServer.start(options, scratch: scratch)
            try await server.createVolume(
                "vol",
                byteCount: 64 << 20,
                durability: mode == "durable" ? "writethrough" : "writeback"
            )
            await server.stop()
            let arguments = NodeServer.arguments(
                options,
                scratch,
                tcpPort: try FreePort.next(),
                adminPort: try FreePort.next()
            )
            let command = ([volnode] + arguments).map { "'\($0)'" }.joined(separator: " ")
            let result = try await run(
                TestEnvironment.python,
                [
                    TestEnvironment.script("crash_integrity.py"),
                    "--uri", "nbd+unix:///vol?socket=\(scratch.file("nbd.sock"))",
                    "--start", "exec \(command)", "--kill", "kill -9 {pid}",
                    "--rounds", "\(CrashTests.roundCount)", "--mode", mode,
                    "--server-log", scratch.file("server.log"), "--seed", "1",
                    "--start-timeout", "60",
                ],
                within: 30 + 10 * Double(CrashTests.roundCount)
            )
            let log = try? String(contentsOfFile: scratch.file("server.log"), encoding: .utf8)
            #expect(result.exitCode == 0, "\(result.report)\n\(log?.suffix(3000) ?? "")")
            // What the crashes left must be whole under the offline check, too.
            try await succeed(volnode, ["check", scratch.file("store.img")], within: 120)
        }
    }
}
