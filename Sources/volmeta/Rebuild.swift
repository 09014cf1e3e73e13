// volmeta rebuild: lost metadata, made anew from what the nodes have.

import ArgumentParser
import ControlAPI
import ControlPlane
import Foundation
import Logging
import Metadata
import ProgramMain

/// `volmeta rebuild`.
struct Rebuild: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes lost metadata anew, from what the nodes have.",
        discussion: """
            Asks every node what lies in its stores, and writes volumes, replicas, snapshots, images \
            and attachments into an empty database or etcd. Nothing is changed on the nodes, and \
            they go on serving meanwhile.

            Example:
              volmeta rebuild --data /var/lib/cairn/meta --node http://10.0.0.1:7401 \
                --node http://10.0.0.2:7401 --node http://10.0.0.3:7401
            """
    )

    @Option(
        help: ArgumentHelp(
            "The directory of the database to make; it has none.",
            valueName: "directory"
        )
    )
    var data: String?

    @OptionGroup var etcd: EtcdOptions

    @Option(
        help: ArgumentHelp(
            "The API of a node ('volnode run --admin'); once for each node.",
            valueName: "url"
        ),
        transform: APIEndpoint.argument
    )
    var node: [APIEndpoint] = []

    @Option(
        help: ArgumentHelp(
            "A node that is lost for good; its replicas are replaced.",
            valueName: "name"
        )
    )
    var without: [String] = []

    @Flag(help: "Ask the nodes and say what would be written; write nothing.")
    var dryRun = false

    @Option(help: "What to log.")
    var logLevel: LogLevel = .warning

    func validate() throws {
        guard data == nil || etcd.store == nil else {
            throw ValidationError("--data and --store exclude each other.")
        }
        guard data != nil || etcd.store != nil || dryRun else {
            throw ValidationError("Missing expected argument '--data <directory>'")
        }
        guard !node.isEmpty else {
            throw ValidationError("Missing expected argument '--node <url>'")
        }
        for name in without {
            try Usage.check { () throws(ControlError) in try ValidName.require(name, of: "node") }
        }
    }

    func run() async throws {
        let logger = logLevel.startLogging(as: "volmeta")
        var surveys: [NodeSurvey] = []
        for endpoint in node {
            do throws(ControlError) {
                surveys.append(try await NodeSurvey.ask(endpoint))
            } catch {
                throw Failure(
                    "The node at \(endpoint) does not tell what it has: \(error.detail)",
                    help: "Nothing was written. Start it with all its stores; if it is lost for "
                        + "good, leave it out and say '--without NAME'."
                )
            }
        }
        let now = Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded(.down))
        let plan = try RebuildPlan(surveys, without: Set(without), at: now)
        print(summary(of: plan.cluster))
        for finding in plan.findings { print("  " + finding) }
        guard !dryRun else { return print("Nothing was written (--dry-run).") }
        let event = EventRecord(
            time: now,
            kind: "metadata.rebuilt",
            subject: "metadata",
            message: "made anew from what the nodes have: " + summary(of: plan.cluster)
        )
        if let configuration = try etcd.configuration() {
            let target = try EtcdMetaStore(configuration, logger: logger)
            _ = try await MetadataCopy.restore(plan.cluster, into: target, event: event)
            await target.close()
        } else if let data {
            let target = try SQLiteMetaStore(directory: absolute(data), logger: logger)
            _ = try await MetadataCopy.restore(plan.cluster, into: target, event: event)
            try target.close()
        }
        print("Written. Start 'volmeta run' on it now.")
    }

    private func summary(of cluster: RestoredCluster) -> String {
        let replicated = cluster.volumes.count { $0.record.isReplicated }
        let snapshots = cluster.volumes.reduce(0) { $0 + $1.snapshots.count }
        let images = cluster.volumes.reduce(0) { $0 + $1.images.count }
        let attached = cluster.volumes.count { $0.attachments != nil }
        return "\(counted(cluster.nodes.count, "node")), "
            + "\(counted(cluster.volumes.count, "volume")) (\(replicated) replicated, "
            + "\(attached) attached), \(counted(snapshots, "snapshot")), "
            + "\(counted(images, "image"))."
    }
}
