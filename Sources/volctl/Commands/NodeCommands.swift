// volctl node … and volctl events

package import ArgumentParser
package import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// `volctl node`.
package struct NodeCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "node",
        abstract: "Look at the storage nodes, and take them out of placement.",
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
    var table = Table([
        .text("NAME"), .text("STATE"), .number("VOLUMES"), .number("CAPACITY"), .number("LIVE"),
        .number("AVAILABLE"), .text("NBD"), .text("VERSION"),
    ])
    for node in nodes {
        table.append([
            node.name, node.draining ? "\(node.state.rawValue), draining" : node.state.rawValue,
            "\(node.volumeCount)", sizeText(node.space?.capacityByteCount),
            sizeText(node.space?.liveByteCount), sizeText(node.space?.availableByteCount),
            node.nbdEndpoint ?? "", node.version,
        ])
    }
    return table
}

/// `volctl node show`.
struct NodeShow: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show one node."
    )

    @Argument(help: "The node.", completion: NameCompletion.nodes)
    var name: String
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "node")
    }

    func run() async throws {
        let node = try await cluster.withClient { client in
            try await client.named(name) { () throws(ControlError) in try await client.node(name) }
        }
        if cluster.json {
            printDocument(node)
        } else {
            printText(nodeText(node))
        }
    }
}

/// The text of `volctl node show`.
package func nodeText(_ node: Node) -> String {
    fieldLines([
        ("Name", node.name),
        ("State", node.state.rawValue),
        ("Takes volumes", node.draining ? "no, it drains" : "yes"),
        ("Volumes", "\(node.volumeCount)"),
        ("NBD", node.nbdEndpoint ?? "-"),
        ("NBD socket", node.nbdUnixPath ?? "-"),
        ("API", node.adminEndpoint),
        ("Store", node.storeIdentity),
        ("Version", node.version),
        ("Last seen", node.lastSeenAt.map(timeText) ?? "not since the service started"),
        ("Capacity", sizeText(node.space?.capacityByteCount)),
        ("Live", sizeText(node.space?.liveByteCount)),
        ("Garbage", "\(sizeText(node.space?.garbageByteCount)), given back by itself"),
        ("Available", sizeText(node.space?.availableByteCount)),
    ])
}

/// `volctl node drain`.
struct NodeDrain: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Let a node take no new volumes.",
        discussion: """
            The volumes that it has stay on it; this build does not move them. --undo lets it \
            take volumes again.
            """
    )

    @Argument(help: "The node.", completion: NameCompletion.nodes)
    var name: String
    @Flag(help: "Let it take volumes again.")
    var undo = false
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "node")
    }

    func run() async throws {
        let node = try await cluster.withClient { client in
            try await client.named(name) { () throws(ControlError) in
                try await client.updateNode(name, NodeUpdate(draining: !undo))
            }
        }
        if cluster.json {
            printDocument(node)
        } else if node.draining {
            let left = counted(node.volumeCount, "volume")
            printText("\(node.name) takes no new volumes; it still has \(left).")
        } else {
            printText("\(node.name) takes volumes again.")
        }
    }
}

/// `volctl node delete`.
struct NodeDelete: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Forget a node that is down and holds no volumes.",
        discussion: """
            Its store is left as it is; a node that starts again comes back. --lost is for one whose \
            disk will not: the volumes that only it held are forgotten with it, and their names are \
            free again. If it comes back all the same, what it holds is reported and left alone.

            Examples:
              volctl node delete n3
              volctl node delete n3 --lost
            """,
        aliases: ["rm"]
    )

    @Argument(help: "The node.", completion: NameCompletion.nodes)
    var name: String
    @Flag(help: "Forget the volumes that it holds, too: they are lost.")
    var lost = false
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "node")
    }

    func run() async throws {
        try await cluster.withClient { client in
            try await client.named(name) { () throws(ControlError) in
                try await client.deleteNode(name, isLost: lost)
            }
        }
        if cluster.json {
            printDocument(DeletionDocument(node: name, deleted: true))
        } else {
            printText("The cluster has no node \(name) any more.")
        }
    }
}

/// `volctl events`.
package struct EventsCommand: ClusterCommand {
    package static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened in the cluster, oldest first.",
        discussion: """
            With --follow it goes on until Ctrl-C; --json then prints one document per line.

            Examples:
              volctl events
              volctl events --follow --json | jq -r .kind
            """
    )

    @Flag(name: .shortAndLong, help: "Go on with events as they happen.")
    var follow = false
    @Option(help: ArgumentHelp("Only events after this revision.", valueName: "revision"))
    var after: UInt64 = 0
    @OptionGroup package var cluster: ClusterOptions

    package init() {}

    package func run() async throws {
        if follow {
            try await followAll()
            return
        }
        let list = try await cluster.withClient { client in
            // Pages, until one comes back empty.
            var list = try await client.events(after: after)
            var page = list
            while !page.events.isEmpty {
                page = try await client.events(after: page.nextAfter)
                list.events += page.events
                list.nextAfter = page.nextAfter
            }
            return list
        }
        if cluster.json {
            printDocument(list)
        } else {
            let lines = list.events.map(eventLine).joined(separator: "\n")
            printText(lines.isEmpty ? "No events." : lines)
        }
    }

    /// Follows the events; a stream that ends is taken up again after the last event seen.
    ///
    /// - Throws: ``ControlError`` when the service has not answered for
    ///   ``silenceSecondsMax``, or not at all.
    private func followAll() async throws {
        try await cluster.withClient { client in
            _ = try await client.health()
            var last = after
            var silentSince: ContinuousClock.Instant?
            while true {
                let before = last
                let error = await followOnce(client, &last, &silentSince)
                if let error {
                    guard error.mayPass else { throw error }
                    if silentSince == nil { noteSilence(error) }
                    let start = silentSince ?? .now
                    silentSince = start
                    let silence = ContinuousClock.now - start
                    guard silence < .seconds(Self.silenceSecondsMax) else { throw error }
                }
                if last == before { try await Task.sleep(for: .seconds(1)) }
            }
        }
    }

    /// Prints events until the stream ends.
    ///
    /// - Parameters:
    ///   - client: The service.
    ///   - last: The last revision seen.
    ///   - silentSince: When the service fell silent; nil once it answers.
    /// - Returns: What ended the stream, unless the service did.
    private func followOnce(
        _ client: ControlClient,
        _ last: inout UInt64,
        _ silentSince: inout ContinuousClock.Instant?
    ) async -> ControlError? {
        var newest = last
        defer { last = newest }
        do throws(ControlError) {
            if silentSince != nil { _ = try await client.health() }
            silentSince = nil
            try await client.followEvents(after: newest) { event in
                newest = event.revision
                if cluster.json { printLine(event) } else { printText(eventLine(event)) }
                return true
            }
            return nil
        } catch {
            return error
        }
    }

    /// How long the service may be away before following it is given up: longer than a restart.
    private static var silenceSecondsMax: Int { 120 }

    private func noteSilence(_ error: ControlError) {
        let plan = "Trying again for \(Self.silenceSecondsMax) seconds."
        writeText("volctl: \(error.detail.printable) \(plan)\n", to: STDERR_FILENO)
    }
}

extension ControlError {
    /// Whether a service that restarts gives such an error and is well afterwards.
    fileprivate var mayPass: Bool {
        [.unreachable, .outcomeUnknown, .unavailable].contains(code)
    }
}

/// One line about an event.
package func eventLine(_ event: ClusterEvent) -> String {
    func padded(_ text: String, _ width: Int) -> String {
        text.padding(toLength: max(width, text.count), withPad: " ", startingAt: 0)
    }
    let kind = padded(event.kind, 18)
    return "\(timeText(event.time))  \(kind)  \(padded(event.subject, 12))  \(event.message)"
        .printable
}
