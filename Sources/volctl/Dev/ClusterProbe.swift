// Whether the programs of a development cluster serve.

import ControlAPI

/// Asks the programs of a development cluster how they are.
struct ClusterProbe {
    /// Where the control API is.
    var endpoint: String

    /// How long one question may take, in milliseconds: they are repeated anyway.
    private static var answerMillisecondsMax: Int64 { 2_000 }

    /// Whether the metadata service answers.
    func isMetaServing() async -> Bool {
        guard let client else { return false }
        return (try? await client.health()) != nil
    }

    /// Whether the node answers, and the metadata service counts it as up, with the store it has.
    ///
    /// A node that was killed and started again is still `up` for the service until its heartbeat
    /// is missed, so the node itself is asked first; one whose store was formatted anew meanwhile
    /// is not known yet.
    func isNodeServing(_ node: ClusterFile.Node) async -> Bool {
        guard let client, let report = await report(of: node), report.name == node.name,
            let known = try? await client.node(node.name)
        else { return false }
        return known.state == .up && known.storeIdentity == report.storeIdentity.lowercased()
    }

    /// Whether the node itself answers, whatever is known of it.
    func isNodeAnswering(_ node: ClusterFile.Node) async -> Bool { await report(of: node) != nil }

    private func report(of node: ClusterFile.Node) async -> NodeReport? {
        guard let admin = try? APIEndpoint("http://127.0.0.1:\(node.adminPort)") else { return nil }
        return try? await NodeClient(
            endpoint: admin,
            answerMillisecondsMax: Self.answerMillisecondsMax
        ).report()
    }

    private var client: ControlClient? {
        guard let endpoints = try? ControlEndpoints(endpoint) else { return nil }
        return ControlClient(
            endpoints: endpoints,
            answerMillisecondsMax: Self.answerMillisecondsMax
        )
    }
}
