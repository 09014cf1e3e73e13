// What the commands about one node have in common.

import ArgumentParser
import ControlAPI
import ProgramMain

/// The node that a command is about.
struct NodeArgument: ParsableArguments {
    /// Its name.
    @Argument(help: "The node.", completion: NameCompletion.nodes)
    var name: String

    func validate() throws {
        try Usage.require(name, of: "node")
    }
}

/// A command about one node.
protocol SingleNodeCommand: ClusterCommand {
    /// The node.
    var node: NodeArgument { get }
}

extension SingleNodeCommand {
    /// Does `work` with a client and the node's name; an error that there is no such node names
    /// those like it.
    func withNode<Result>(
        _ work: (ControlClient, String) async throws(ControlError) -> Result
    ) async throws -> Result {
        try await cluster.withClient { client in
            try await client.named(node.name) { () throws(ControlError) in
                try await work(client, node.name)
            }
        }
    }
}
