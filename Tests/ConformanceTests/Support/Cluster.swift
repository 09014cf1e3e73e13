import Foundation
import Testing

/// A development cluster of one test, made and ended by `volctl dev`.
///
/// Home, state and configuration directories lie in the test's scratch directory, so that the
/// contexts of whoever runs the tests stay as they are.
final class Cluster: Sendable {
    let scratch: ScratchDirectory
    /// What makes `volctl` find this cluster and no other.
    let environment: [String: String]

    /// The cluster's data directory.
    var dataPath: String { scratch.file("d") }

    init(scratch: ScratchDirectory) {
        self.scratch = scratch
        environment = [
            "HOME": scratch.path, "XDG_STATE_HOME": scratch.file("s"),
            "XDG_CONFIG_HOME": scratch.file("c"), "NO_COLOR": "1", "CAIRN_ENDPOINT": "",
        ]
    }

    /// Starts a cluster of `nodeCount` nodes.
    static func start(nodeCount: Int = 1) async throws -> Cluster {
        let cluster = Cluster(scratch: try ScratchDirectory())
        let result = try await cluster.volctl(
            ["dev", "up", "--nodes", "\(nodeCount)", "--data", cluster.dataPath, "--json"],
            within: 90
        )
        try #require(result.exitCode == 0, "\(result.report)")
        return cluster
    }

    /// Runs `volctl`; the cluster is found by its context.
    func volctl(
        _ arguments: [String],
        environment extra: [String: String] = [:],
        within seconds: Double = 60
    ) async throws -> CommandResult {
        var environment = environment
        // An empty endpoint would be an endpoint: leave the variable out altogether.
        environment["CAIRN_ENDPOINT"] = nil
        return try await run(
            TestEnvironment.program("volctl"),
            arguments,
            environment: environment.merging(extra) { _, new in new },
            directory: scratch.path,
            within: seconds
        )
    }

    /// Runs `volctl` with `--json`, which must succeed, and returns its document.
    @discardableResult
    func json(
        _ arguments: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [String: Any] {
        let result = try await volctl(arguments + ["--json"])
        try #require(result.exitCode == 0, "\(result.report)", sourceLocation: sourceLocation)
        return try #require(
            result.json,
            "not one JSON object: \(result.report)",
            sourceLocation: sourceLocation
        )
    }

    /// Runs `volctl`, which must refuse with one line on standard error.
    @discardableResult
    func refuse(
        _ arguments: String...,
        exitCode: Int32 = 1,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> String {
        let result = try await volctl(arguments)
        #expect(result.exitCode == exitCode, "\(result.report)", sourceLocation: sourceLocation)
        let lines = result.errorOutput.split(separator: "\n")
        if exitCode == 1 {
            #expect(lines.count == 1, "\(result.report)", sourceLocation: sourceLocation)
        }
        #expect(result.output.isEmpty, "\(result.report)", sourceLocation: sourceLocation)
        return result.errorOutput
    }

    /// The NBD URI of a volume, attached for `host`.
    func attach(
        _ volume: String,
        host: String = "h1",
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> String {
        let document = try await json(
            "attach",
            volume,
            "--host",
            host,
            sourceLocation: sourceLocation
        )
        return try #require(document["nbd_uri"] as? String, sourceLocation: sourceLocation)
    }

    /// Ends the cluster; fails the test when that fails.
    func stop(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let result = try await volctl(["dev", "down", "--data", dataPath], within: 90)
        #expect(result.exitCode == 0, "\(result.report)", sourceLocation: sourceLocation)
    }
}

/// Starts a cluster, gives it to `body`, and ends it however `body` ends.
func withCluster(
    nodeCount: Int = 1,
    _ body: (Cluster) async throws -> Void
) async throws {
    let cluster = try await Cluster.start(nodeCount: nodeCount)
    do {
        try await body(cluster)
    } catch {
        try? await cluster.stop()
        throw error
    }
    try await cluster.stop()
}
