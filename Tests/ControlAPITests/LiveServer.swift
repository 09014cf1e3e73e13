// A router behind a real socket.

import ControlAPI
import Foundation
import Hummingbird
import Logging
import ServiceLifecycle
import Testing

/// Runs `body` with a server of `router`, over TCP and over a unix socket.
func withServer(
    _ router: Router<APIContext>,
    unix: Bool,
    requestMillisecondsMax: Int64 = APILimits.requestSecondsMax * 1000,
    idleMillisecondsMax: Int64 = APILimits.idleSecondsMax * 1000,
    writeMillisecondsMax: Int64 = APILimits.writeSecondsMax * 1000,
    _ body: @Sendable (APIEndpoint) async throws -> Void
) async throws {
    let path = "/tmp/cairn-\(UUID().uuidString.prefix(8)).sock"
    let wanted = unix ? APIEndpoint.unix(path: path) : .tcp(host: "127.0.0.1", port: 0)
    let (listening, continuation) = AsyncStream<APIEndpoint>.makeStream()
    let server = apiServer(
        router: router,
        endpoint: wanted,
        logger: Cluster.quiet,
        requestMillisecondsMax: requestMillisecondsMax,
        idleMillisecondsMax: idleMillisecondsMax,
        writeMillisecondsMax: writeMillisecondsMax
    ) {
        continuation.yield($0)
    }
    let group = ServiceGroup(
        configuration: ServiceGroupConfiguration(services: [server], logger: Cluster.quiet)
    )
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        let endpoint = try #require(await listening.first { _ in true })
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(endpoint))
        } catch {
            result = .failure(error)
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
        try result.get()
    }
}
