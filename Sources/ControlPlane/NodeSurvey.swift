// What a node says of all that it has, for metadata that is made anew.

public import ControlAPI

/// What one node says of itself.
public struct NodeSurvey: Sendable, Hashable {
    /// Where its API is.
    public var endpoint: APIEndpoint
    /// The node itself.
    public var report: NodeReport
    /// All that lies in its stores.
    public var volumes: [NodeVolume]
    /// What it serves of replicated volumes.
    public var services: [NodeServiceStatus]

    /// Creates a survey.
    public init(
        endpoint: APIEndpoint,
        report: NodeReport,
        volumes: [NodeVolume],
        services: [NodeServiceStatus]
    ) {
        self.endpoint = endpoint
        self.report = report
        self.volumes = volumes
        self.services = services
    }

    /// Asks the node at `endpoint`.
    ///
    /// - Returns: What it says.
    /// - Throws: ``ControlError`` when it does not answer, or cannot tell of all its stores.
    public static func ask(_ endpoint: APIEndpoint) async throws(ControlError) -> Self {
        try await ask(NodeClient(endpoint: endpoint), at: endpoint)
    }

    /// Asks a node.
    ///
    /// - Parameters:
    ///   - node: The node.
    ///   - endpoint: Where its API is.
    /// - Returns: What it says.
    /// - Throws: ``ControlError``.
    public static func ask(
        _ node: some NodeService,
        at endpoint: APIEndpoint
    ) async throws(ControlError) -> Self {
        NodeSurvey(
            endpoint: endpoint,
            report: try await node.report(),
            volumes: try await node.volumes(),
            services: try await node.services()
        )
    }
}
