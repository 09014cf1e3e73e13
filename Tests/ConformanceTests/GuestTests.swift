import Foundation
import Testing

extension Conformance {
    /// A real guest kernel on our export, through QEMU's own NBD client.
    @Suite("Guest")
    struct GuestTests {
        @Test(
            "a guest makes a file system, is reset, recovers, and finds its files after a restart",
            .needsScript("guest_boot.py"),
            .needs("qemu-system-x86_64")
        )
        func guest_threeLives_findsItsFiles() async throws {
            let server = try await NodeServer.start()
            let cache = TestEnvironment.root.appendingPathComponent(".build/guest-cache").path
            let result = try await run(
                TestEnvironment.python,
                [TestEnvironment.script("guest_boot.py"), server.unixURI(), "--files", "20"],
                environment: ["LAB_CACHE": cache],
                within: 300
            )
            #expect(result.exitCode == 0, "\(result.report)")
            await server.stop()
        }
    }
}
