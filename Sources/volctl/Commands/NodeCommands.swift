// volctl node: list, show, drain, delete

package import ArgumentParser
package import ControlAPI
import ProgramMain

/// `volctl node`.
package struct NodeCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "node",
        abstract: "Look at the storage nodes, take them out of placement, and forget them.",
        subcommands: [
            NodeListCommand.self, NodeShow.self, NodeDrain.self, NodeDelete.self, NodeStrays.self,
            NodePurge.self,
        ]
    )

    package init() {}
}

/// `volctl node list`.
struct NodeListCommand: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the nodes.",
        aliases: ["ls"]
    )

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let nodes = try await cluster.withClient { try await $0.nodes() }
        if cluster.json {
            printDocument(NodeList(nodes: nodes))
        } else if nodes.isEmpty {
            printText("No node has registered. Start some: volctl dev up")
        } else {
            printText(nodeTable(nodes).rendered(on: .output))
        }
    }
}

/// The table of `volctl node list`.
package func nodeTable(_ nodes: [Node]) -> Table {
    // Only where there are replicated volumes.
    let hasReplicas = nodes.contains { ($0.replicaCount ?? 0) > 0 || ($0.primaryCount ?? 0) > 0 }
    var table = Table(
        [.text("NAME"), .text("STATE"), .number("VOLUMES")]
            + (hasReplicas ? [.number("REPLICAS"), .number("PRIMARIES")] : [])
            + [
                .number("PROVISIONED"), .number("CAPACITY"), .number("LIVE"), .number("USED"),
                .number("AVAILABLE"), .text("NBD"), .text("VERSION"),
            ]
    )
    for node in nodes {
        let counts = ["\(node.replicaCount ?? 0)", "\(node.primaryCount ?? 0)"]
        table.append(
            [node.name, nodeStateText(node), "\(node.volumeCount)"]
                + (hasReplicas ? counts : [])
                + [
                    sizeText(node.provisionedByteCount), sizeText(node.space?.capacityByteCount),
                    sizeText(node.space?.liveByteCount),
                    node.space.map { "\($0.usedPercent)%" } ?? "",
                    sizeText(node.space?.availableByteCount), node.nbdEndpoint ?? "",
                    node.version,
                ]
        )
    }
    return table
}

/// What there is to say of a node's state, in a few words.
private func nodeStateText(_ node: Node) -> String {
    var words = [node.state.rawValue]
    if node.draining { words.append("draining") }
    switch node.space?.room {
    case .scarce: words.append("filling")
    case .refusing: words.append("full")
    case .waiting: words.append("disk full")
    case .ample, nil: break
    }
    if let failures = failures(of: node) {
        if failures.stopped { words.append("store stopped") }
        if failures.requestCount > 0 { words.append("damaged") }
    }
    return words.joined(separator: ", ")
}

/// `volctl node show`.
struct NodeShow: SingleNodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show one node."
    )

    @OptionGroup var node: NodeArgument
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let node = try await withNode { client, name throws(ControlError) in
            try await client.node(name)
        }
        if cluster.json {
            printDocument(node)
        } else {
            printText(nodeText(node))
            if let stores = node.stores, stores.count > 1 {
                printText("\n" + storeTable(stores).rendered(on: .output))
            }
        }
    }
}

/// The table of a node's stores, for one that has several.
package func storeTable(_ stores: [NodeStore]) -> Table {
    var table = Table([
        .text("STORE"), .text("STATE"), .number("CAPACITY"), .number("LIVE"), .number("USED"),
        .number("AVAILABLE"), .text("IDENTITY"),
    ])
    for store in stores {
        table.append([
            store.path, storeStateText(store.failures),
            sizeText(store.space.capacityByteCount),
            sizeText(store.space.liveByteCount), "\(store.space.usedPercent)%",
            sizeText(store.space.availableByteCount), store.identity ?? "-",
        ])
    }
    return table
}

private func storeStateText(_ failures: StoreFailures?) -> String {
    guard let failures else { return "" }
    if failures.stopped { return "stopped" }
    return failures.requestCount > 0 ? "damaged" : "good"
}

/// The text of `volctl node show`.
package func nodeText(_ node: Node) -> String {
    fieldLines([
        ("Name", node.name),
        ("State", nodeStateText(node)),
        ("Takes volumes", node.draining ? "no, it drains\(drainText(node))" : "yes"),
        ("Volumes", volumesText(node)),
        ("NBD", node.nbdEndpoint ?? "-"),
        ("NBD socket", node.nbdUnixPath ?? "-"),
        ("API", node.adminEndpoint),
        ("Store", node.storeIdentity),
        ("Version", node.version),
        ("Last seen", node.lastSeenAt.map(timeText) ?? "not since the service started"),
        ("Capacity", sizeText(node.space?.capacityByteCount)),
        ("Live", sizeText(node.space?.liveByteCount)),
        ("Used", node.space.map(usedText) ?? "-"),
        ("Garbage", "\(sizeText(node.space?.garbageByteCount)), given back by itself"),
        ("Available", sizeText(node.space?.availableByteCount)),
        ("Failures", failures(of: node).map(failureText) ?? "-"),
    ])
}

private func volumesText(_ node: Node) -> String {
    guard let byteCount = node.provisionedByteCount else { return "\(node.volumeCount)" }
    let replicas =
        (node.replicaCount ?? 0) > 0
        ? ", \(counted(node.replicaCount ?? 0, "replica")) among them" : ""
    let primaries =
        (node.primaryCount ?? 0) > 0 ? ", primary of \(node.primaryCount ?? 0)" : ""
    return "\(node.volumeCount), \(sizeText(byteCount)) if they were written in full"
        + replicas + primaries
}

/// What a node's stores could not serve; nil when none of them tells.
private func failures(of node: Node) -> StoreFailures? {
    guard let stores = node.stores, stores.contains(where: { $0.failures != nil }) else {
        return nil
    }
    return StoreFailures(stores: stores)
}

private func failureText(_ failures: StoreFailures) -> String {
    let count = counted(Int(clamping: failures.requestCount), "request")
    let last = failures.volume.map { ", the last of volume \($0)" } ?? ""
    return switch (failures.stopped, failures.requestCount) {
    case (false, 0): "none since it was started"
    case (false, _): "\(count) since it was started\(last)"
    case (true, 0): "a store has stopped, see the node's log"
    case (true, _): "a store has stopped, see the node's log; \(count)\(last)"
    }
}

private func usedText(_ space: StoreSpaceUsage) -> String {
    let used = "\(space.usedPercent)%"
    let help = "delete volumes or snapshots, or drain the node"
    switch space.room {
    case .scarce: return "\(used): \(help)"
    case .refusing: return "\(used), writes are refused: \(help)"
    case .waiting: return "\(used), writes wait: make room on the file system of its store"
    case .ample, nil: return used
    }
}

/// `volctl node delete`.
struct NodeDelete: SingleNodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Forget a node that is down and holds no volumes.",
        discussion: """
            Its store is left as it is; a node that starts again comes back. --lost is for one \
            whose disk will not: the volumes that only it held are forgotten with it, and their \
            names are free again. If it comes back all the same, they are closed on it; 'volctl \
            node strays' lists them.

            Examples:
              volctl node delete n3
              volctl node delete n3 --lost
            """,
        aliases: ["rm"]
    )

    @OptionGroup var node: NodeArgument
    @Flag(help: "Forget the volumes that it holds, too: they are lost.")
    var lost = false
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        try await withNode { client, name throws(ControlError) in
            try await client.deleteNode(name, isLost: lost)
        }
        if cluster.json {
            printDocument(DeletionDocument(node: node.name, deleted: true))
        } else {
            printText("The cluster has no node \(node.name) any more.")
        }
    }
}
