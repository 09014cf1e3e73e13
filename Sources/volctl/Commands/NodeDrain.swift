// volctl node drain

import ArgumentParser
package import ControlAPI
import ProgramMain

/// `volctl node drain`.
struct NodeDrain: SingleNodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Let a node take no new volumes, and move its replicas elsewhere.",
        discussion: """
            Replicas of replicated volumes move to other nodes, a few at a time, and nobody who uses \
            them notices. Volumes that only this node holds stay on it, and so do their clones; \
            volumes that hosts have attached through it stay served by it until the hosts attach \
            them through another node ('volctl attach VOLUME --host HOST --via NODE').

            --wait returns when no replica is left. --undo lets it take volumes again; moves under \
            way end.
            """
    )

    @OptionGroup var node: NodeArgument
    @Flag(help: "Let it take volumes again.")
    var undo = false
    @Flag(help: "Return when all replicas have moved.")
    var wait = false
    @Option(help: "How to show progress with --wait: auto, bar, json or none.")
    var progress: ProgressStyle = .auto
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        guard !undo || !wait else { throw ValidationError("--undo has nothing to wait for.") }
    }

    func run() async throws {
        var node = try await withNode { client, name throws(ControlError) in
            try await client.updateNode(name, NodeUpdate(draining: !undo))
        }
        if wait {
            Interruption.watch()
            let display = ProgressDisplay(progress, isJSON: cluster.json)
            defer { display.finishLine() }
            node = try await cluster.withClient { client in
                try await Self.wait(for: node, client, display)
            }
        }
        if cluster.json {
            printDocument(node)
        } else if node.draining {
            printText("\(node.name) takes no new volumes\(drainText(node)).")
        } else {
            printText("\(node.name) takes volumes again.")
        }
    }

    /// Between two looks at the node, in milliseconds.
    private static let lookMilliseconds = 500
    /// Looks in a row that find nothing under way and a reason for that, before it is an error.
    private static let stuckLookCount = 20

    private static func wait(
        for first: Node,
        _ client: ControlClient,
        _ display: ProgressDisplay
    ) async throws -> Node {
        let total = max(first.replicaCount ?? 0, 1)
        var stuckCount = 0
        display.begin("drain")
        while true {
            let node = try await client.node(first.name)
            let left = node.replicaCount ?? 0
            guard left > 0, node.draining else {
                display.update(percent: 100)
                return node
            }
            let moving = try await client.volumes().compactMap(\.move)
                .filter { $0.from == node.name }
            let parts = moving.map { Double($0.perMille ?? 0) / 1000 }.reduce(0, +)
            display.update(percent: min(99, (Double(total - left) + parts) * 100 / Double(total)))
            stuckCount = moving.isEmpty && node.drainProblem != nil ? stuckCount + 1 : 0
            if stuckCount >= stuckLookCount, let problem = node.drainProblem {
                throw ControlError(
                    .unavailable,
                    "\(counted(left, "replica")) of '\(node.name)' stay there; \(problem)",
                    help: "Add a node, or see 'volctl node list'; the drain goes on by itself."
                )
            }
            try await Task.sleep(for: .milliseconds(lookMilliseconds))
        }
    }
}

/// What is left on a node that drains, in a few words after a verb.
package func drainText(_ node: Node) -> String {
    let replicaCount = node.replicaCount ?? 0
    let soleCount = node.volumeCount - replicaCount
    var parts: [String] = []
    if replicaCount > 0 {
        let moving = (node.movingCount ?? 0) > 0 ? " (\(node.movingCount ?? 0) under way)" : ""
        parts.append("\(counted(replicaCount, "replica")) still to move\(moving)")
    }
    if soleCount > 0 { parts.append("\(counted(soleCount, "volume")) without replicas stay") }
    if let count = node.primaryCount, count > 0 {
        parts.append("hosts use \(counted(count, "volume")) through it")
    }
    if let problem = node.drainProblem { parts.append(problem.withoutFullStop) }
    return parts.isEmpty ? "; nothing is left on it" : "; " + parts.joined(separator: "; ")
}

extension String {
    fileprivate var withoutFullStop: String { hasSuffix(".") ? String(dropLast()) : self }
}
