// Which cluster a command talks to.

package import ControlAPI
import Foundation

/// What `dev up` leaves for later calls: the cluster used last.
package struct Context: Codable, Hashable, Sendable {
    /// Where the control API is.
    package var endpoint: String
    /// The directory of the development cluster, when it is one.
    package var data: String?

    /// Creates a context.
    package init(endpoint: String, data: String?) {
        self.endpoint = endpoint
        self.data = data
    }
}

/// Where the choice of a cluster came from; messages say so.
package enum ContextOrigin: Hashable, Sendable {
    /// `--endpoint`.
    case option
    /// `--data DIR`.
    case cluster(String)
    /// `CAIRN_ENDPOINT`.
    case environment
    /// The context file.
    case file(String)
}

/// A cluster to talk to.
package struct ClusterChoice: Hashable, Sendable {
    /// Where the control API is, or with commas where all its programs are.
    package var endpoint: String
    /// The directory of the development cluster, when known.
    package var data: String?
    /// Where the choice came from.
    package var origin: ContextOrigin

    /// Chooses: `--endpoint`, then `--data`, then `CAIRN_ENDPOINT`, then the context file.
    ///
    /// - Parameters:
    ///   - endpoint: The value of `--endpoint`.
    ///   - data: The value of `--data`.
    ///   - environment: The environment.
    /// - Throws: ``CommandFailure`` that says how to get or name a cluster.
    package init(
        endpoint: String?,
        data: String?,
        environment: [String: String]
    ) throws(CommandFailure) {
        if let endpoint {
            self.init(endpoint: try Self.checked(endpoint, "--endpoint"), origin: .option)
            return
        }
        if let data {
            let directory = absolutePath(data)
            let cluster = try ClusterFile.read(directory)
            guard let cluster else {
                throw CommandFailure.noCluster(in: directory)
            }
            self.init(endpoint: cluster.endpoint, data: directory, origin: .cluster(directory))
            return
        }
        if let endpoint = environment["CAIRN_ENDPOINT"], !endpoint.isEmpty {
            self.init(endpoint: try Self.checked(endpoint, "CAIRN_ENDPOINT"), origin: .environment)
            return
        }
        let path = UserDirectories(environment: environment).contextFile
        switch DocumentFile.read(Context.self, from: path) {
        case .document(let context):
            self.init(
                endpoint: try Self.checked(context.endpoint, path),
                data: context.data,
                origin: .file(path)
            )
        case .damaged(let reason):
            throw CommandFailure(
                "bad_context",
                "The context file \(path) is damaged: \(reason).",
                remedy: "Write it anew with 'volctl dev up', or name the cluster with --endpoint."
            )
        case .absent:
            throw CommandFailure(
                "no_context",
                "No cluster is known.",
                remedy:
                    "Start one with 'volctl dev up', or name one with --endpoint, --data or "
                    + "CAIRN_ENDPOINT."
            )
        }
    }

    private init(endpoint: String, data: String? = nil, origin: ContextOrigin) {
        self.endpoint = endpoint
        self.data = data
        self.origin = origin
    }

    /// Refuses what cannot be an endpoint before anything is sent.
    private static func checked(
        _ endpoint: String,
        _ source: String
    ) throws(CommandFailure) -> String {
        guard (try? ControlEndpoints(endpoint)) != nil else {
            throw CommandFailure(
                "bad_endpoint",
                "The endpoint '\(endpoint)' from \(source) is not one.",
                remedy: "Write http://HOST:PORT or unix:/PATH."
            )
        }
        return endpoint
    }

    /// The endpoints for a client.
    package func endpoints() throws(ControlError) -> ControlEndpoints {
        try ControlEndpoints(endpoint)
    }
}

/// `path` from the root, without `.`, `..` and doubled slashes.
package func absolutePath(_ path: String) -> String {
    let expanded = path.hasPrefix("~/") ? NSString(string: path).expandingTildeInPath : path
    return URL(fileURLWithPath: expanded).standardizedFileURL.path
}
