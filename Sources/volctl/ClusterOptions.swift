// Options that all commands have, and the client they lead to.

package import ArgumentParser
package import ControlAPI
import Foundation
import ProgramMain

/// Which cluster, and which kind of output.
package struct ClusterOptions: ParsableArguments {
    /// The control API.
    @Option(
        help: ArgumentHelp(
            "The control API, or with commas those of all its programs; default CAIRN_ENDPOINT, "
                + "then the last 'dev up'.",
            valueName: "url"
        )
    )
    package var endpoint: String?

    /// A development cluster's directory.
    @Option(
        help: ArgumentHelp("The directory of a development cluster.", valueName: "dir"),
        completion: .directory
    )
    package var data: String?

    /// Whether to print JSON.
    @Flag(help: "Print one JSON document on standard output.")
    package var json = false

    package init() {}

    package func validate() throws {
        try Usage.require(directory: data)
        try requireEndpoint(environment: ProcessInfo.processInfo.environment)
    }

    /// Refuses what cannot be an endpoint, wherever this call takes it from.
    ///
    /// - Parameter environment: The environment.
    /// - Throws: `ValidationError`.
    package func requireEndpoint(environment: [String: String]) throws {
        if let endpoint {
            guard (try? ControlEndpoints(endpoint)) == nil else { return }
            throw ValidationError(
                "'\(endpoint)' is not an endpoint. Write http://HOST:PORT or unix:/PATH."
            )
        }
        guard data == nil, let endpoint = environment["CAIRN_ENDPOINT"], !endpoint.isEmpty,
            (try? ControlEndpoints(endpoint)) == nil
        else { return }
        throw ValidationError(
            "'\(endpoint)', the value of CAIRN_ENDPOINT, is not an endpoint. Set it to "
                + "http://HOST:PORT or unix:/PATH, or unset it."
        )
    }

    /// The cluster that the options, the environment and the context lead to.
    package func choice() throws(CommandFailure) -> ClusterChoice {
        try ClusterChoice(
            endpoint: endpoint,
            data: data,
            environment: ProcessInfo.processInfo.environment
        )
    }

    /// Does `work` with a client of the cluster, and turns its errors into failures that help.
    package func withClient<Result>(
        _ work: (ControlClient) async throws -> Result
    ) async throws -> Result {
        let choice = try choice()
        let client = ControlClient(
            endpoints: try choice.endpoints(),
            repeatMillisecondsMax: APILimits.repeatMillisecondsMax
        )
        do {
            return try await work(client)
        } catch let error as ControlError {
            throw explained(error, choice)
        }
    }

    /// Adds what this side knows: how to start the cluster.
    private func explained(
        _ error: ControlError,
        _ choice: ClusterChoice
    ) -> CommandFailure {
        var failure = CommandFailure(error)
        if error.code == .unreachable, let data = choice.data {
            failure.remedy = "Start the cluster: volctl dev up --data \(data.shellQuoted)"
        } else if error.code == .unreachable {
            failure.remedy =
                "Check --endpoint and CAIRN_ENDPOINT, or start a cluster: volctl dev up"
        }
        return failure
    }
}

/// A command that talks to a cluster.
package protocol ClusterCommand: AsyncParsableCommand {
    /// Which cluster, and which kind of output.
    var cluster: ClusterOptions { get }
}

extension ControlError {
    /// The error with a remedy that names existing things nearest to `name`.
    package func suggesting(_ name: String, among names: [String]) -> ControlError {
        guard let suggestion = didYouMean(name, among: names) else { return self }
        var error = self
        let capitalised = suggestion.prefix(1).uppercased() + suggestion.dropFirst()
        error.help = help.map { "\(capitalised) \($0)" } ?? capitalised
        return error
    }
}
