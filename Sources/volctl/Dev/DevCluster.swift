// A whole cluster on one machine: volmeta and some volnodes, in the background.
//
// Invariants:
//   - whoever changes the cluster holds its lock;
//   - a process record is written before anything waits for the process, so that an interrupted
//     `dev up` leaves nothing that `dev down` does not find;
//   - a signal is sent only to a process whose start time is the recorded one;
//   - a store file has its final name only once it is formatted.

import ControlAPI
import Foundation
import Glibc
package import ProgramMain

/// A development cluster whose lock this program holds.
package struct DevCluster {
    /// Where everything lies.
    package let layout: ClusterLayout
    /// What is remembered.
    package private(set) var file: ClusterFile
    /// Tells people what is under way.
    package let progress: ProgressDisplay
    /// Seconds that starting or stopping one program may take.
    package let secondsMax: Int
    private let lock: FileLock

    /// Seconds to wait for another volctl that changes the same cluster.
    private static var lockSecondsMax: Int { 120 }

    /// Locks the cluster in `directory`, which must exist.
    package init(
        existing directory: String,
        secondsMax: Int,
        progress: ProgressDisplay
    ) async throws {
        layout = ClusterLayout(directory: directory)
        self.progress = progress
        self.secondsMax = secondsMax
        guard Path.exists(layout.directory), try ClusterFile.read(directory) != nil else {
            throw CommandFailure.noCluster(in: directory)
        }
        lock = try await Self.takeLock(layout, progress)
        guard let file = try ClusterFile.read(directory) else {
            throw CommandFailure("no_cluster", "The cluster in \(directory) was just removed.")
        }
        self.file = file
    }

    /// Locks the cluster in `directory`, making it, or nodes of it, when missing.
    ///
    /// - Parameters:
    ///   - directory: The cluster's directory, an absolute path.
    ///   - nodeCount: The number of nodes; nil for those there are, or one.
    ///   - secondsMax: Seconds that starting one program may take.
    ///   - progress: Tells people what is under way.
    /// - Throws: ``CommandFailure``; what was there is as it was.
    package init(
        in directory: String,
        nodeCount: Int?,
        secondsMax: Int,
        progress: ProgressDisplay
    ) async throws {
        layout = ClusterLayout(directory: directory)
        self.progress = progress
        self.secondsMax = secondsMax
        let planned = (0..<(nodeCount ?? 1)).map {
            ClusterFile.nodeName($0, isOfSeveral: (nodeCount ?? 1) > 1)
        }
        try layout.checkSocketPaths(nodes: planned)
        for made in [layout.metaDirectory, layout.logDirectory, layout.runDirectory] {
            try DocumentFile.makeDirectory(made)
        }
        lock = try await Self.takeLock(layout, progress)
        file = try Self.plan(layout, nodeCount: nodeCount)
        try DocumentFile.write(file, to: layout.clusterFile)
    }

    static func takeLock(
        _ layout: ClusterLayout,
        _ progress: ProgressDisplay
    ) async throws -> FileLock {
        try await FileLock(path: layout.lockFile, seconds: lockSecondsMax) {
            progress.note("another volctl is at work on \(layout.directory); waiting for it")
        }
    }

    /// What the cluster's file shall hold: what it holds, and ports for nodes that are new.
    private static func plan(
        _ layout: ClusterLayout,
        nodeCount: Int?
    ) throws(CommandFailure) -> ClusterFile {
        let existing = try ClusterFile.read(layout.directory)
        var taken: Set<UInt16> = []
        func port() throws(CommandFailure) -> UInt16 {
            let port = try LoopbackPort.pick(avoiding: taken)
            taken.insert(port)
            return port
        }
        var file: ClusterFile
        if let existing {
            file = existing
            taken = Set(existing.nodes.flatMap(\.ports) + [existing.metaPort])
            // Of an older program; it listens there when it is started next.
            for index in file.nodes.indices where file.nodes[index].peerPort == nil {
                file.nodes[index].peerPort = try port()
            }
        } else {
            file = ClusterFile(metaPort: try port(), nodes: [])
        }
        let wanted = nodeCount ?? max(1, file.nodes.count)
        guard wanted >= file.nodes.count else {
            throw CommandFailure(
                "too_few_nodes",
                "The cluster in \(layout.directory) has \(counted(file.nodes.count, "node")); "
                    + "\(wanted) would leave some out.",
                remedy: "Leave --nodes away, or start another cluster with --data DIR."
            )
        }
        let first = file.nodes.first?.name ?? ClusterFile.nodeName(0, isOfSeveral: wanted > 1)
        let isOfSeveral = first != ClusterFile.nodeName(0)
        while file.nodes.count < wanted {
            file.nodes.append(
                .init(
                    name: ClusterFile.nodeName(file.nodes.count, isOfSeveral: isOfSeveral),
                    nbdPort: try port(),
                    adminPort: try port(),
                    peerPort: try port()
                )
            )
        }
        try layout.checkSocketPaths(nodes: file.nodes.map(\.name))
        return file
    }

    /// Remembers which store was made for the node called `name`.
    mutating func remember(store identity: String, of name: String) throws(CommandFailure) {
        for index in file.nodes.indices where file.nodes[index].name == name {
            file.nodes[index].storeIdentity = identity
        }
        try DocumentFile.write(file, to: layout.clusterFile)
    }

    /// The state of all programs now.
    package var status: DevStatus { DevStatus(layout, file) }

    /// Ends the change of the cluster; the lock is held until here.
    package func release() { lock.release() }

    /// The node called `name`.
    package func node(_ name: String) throws(CommandFailure) -> ClusterFile.Node {
        if let node = file.nodes.first(where: { $0.name == name }) { return node }
        let names = file.nodes.map(\.name)
        throw CommandFailure(
            "node_not_found",
            "The cluster in \(layout.directory) has no node '\(name)'.",
            remedy: "It has: \(names.joined(separator: ", "))."
        )
    }
}
