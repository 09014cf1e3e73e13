// The directory of a development cluster: what lies where, and what is remembered about it.

import ControlAPI
import Foundation
import Glibc

/// The paths of a development cluster, all below its directory, so that it can be moved.
package struct ClusterLayout: Hashable, Sendable {
    /// The cluster's directory.
    package var directory: String

    /// The longest path of a unix socket, in bytes: `sun_path` less its final zero.
    package static var socketPathByteCountMax: Int { 107 }

    /// Creates the paths below `directory`, an absolute path.
    package init(directory: String) { self.directory = directory }

    /// What is remembered about the cluster.
    package var clusterFile: String { "\(directory)/cluster.json" }
    /// Held by whoever changes the cluster.
    package var lockFile: String { "\(directory)/cluster.lock" }
    /// The metadata service's database.
    package var metaDirectory: String { "\(directory)/meta" }
    /// The programs' logs.
    package var logDirectory: String { "\(directory)/log" }
    /// The certificates of links between nodes.
    package var certificateDirectory: String { "\(directory)/certs" }
    /// The programs' process ids.
    package var runDirectory: String { "\(directory)/run" }
    /// The log of `program`, a node's name or ``metaName``.
    package func logFile(_ program: String) -> String { "\(logDirectory)/\(program).log" }
    /// The process id of `program`.
    package func processFile(_ program: String) -> String { "\(runDirectory)/\(program).json" }
    /// The directory of a node.
    package func nodeDirectory(_ node: String) -> String { "\(directory)/nodes/\(node)" }
    /// A node's store.
    package func storeFile(_ node: String) -> String { "\(nodeDirectory(node))/store.img" }
    /// A node's NBD socket.
    package func socketFile(_ node: String) -> String { "\(nodeDirectory(node))/nbd.sock" }

    /// The name of the metadata service among the programs.
    package static var metaName: String { "volmeta" }

    /// Refuses a directory below which a node's socket would have too long a path.
    package func checkSocketPaths(nodes: [String]) throws(CommandFailure) {
        guard
            let longest = nodes.map({ socketFile($0) }).max(by: { $0.utf8.count < $1.utf8.count }),
            longest.utf8.count > Self.socketPathByteCountMax
        else { return }
        throw CommandFailure(
            "path_too_long",
            "The socket path \(longest) has \(longest.utf8.count) bytes; "
                + "the kernel allows \(Self.socketPathByteCountMax).",
            remedy: "Choose a shorter directory with --data DIR."
        )
    }
}

/// What is remembered about a development cluster, so that its programs come back on the same
/// ports.
package struct ClusterFile: Codable, Hashable, Sendable {
    /// One node.
    package struct Node: Codable, Hashable, Sendable {
        /// Its name.
        package var name: String
        /// The port of its NBD server.
        package var nbdPort: UInt16
        /// The port of its API.
        package var adminPort: UInt16
        /// The port where primaries reach its replicas; nil for those of older programs.
        package var peerPort: UInt16?
        /// The identity of the store that was made for it; nil for those of older programs.
        package var storeIdentity: String?

        /// Creates the entry of a node that has no store yet.
        package init(
            name: String,
            nbdPort: UInt16,
            adminPort: UInt16,
            peerPort: UInt16? = nil
        ) {
            self.name = name
            self.nbdPort = nbdPort
            self.adminPort = adminPort
            self.peerPort = peerPort
        }

        /// All its ports.
        var ports: [UInt16] { [nbdPort, adminPort] + (peerPort.map { [$0] } ?? []) }
    }

    /// The version of this file's format.
    package var version: Int
    /// Where the control API is.
    package var endpoint: String
    /// The port of the control API.
    package var metaPort: UInt16
    /// The nodes, by number.
    package var nodes: [Node]

    /// The format that this program reads and writes.
    package static var versionCurrent: Int { 1 }
    /// The most nodes of one development cluster.
    package static var nodeCountMax: Int { 64 }

    /// Creates what is remembered.
    package init(metaPort: UInt16, nodes: [Node]) {
        version = Self.versionCurrent
        endpoint = "http://127.0.0.1:\(metaPort)"
        self.metaPort = metaPort
        self.nodes = nodes
    }

    /// The name of node number `index`, from 0.
    ///
    /// - Parameters:
    ///   - index: Its number.
    ///   - isOfSeveral: Whether the cluster was made with several nodes: one that was made with one
    ///     keeps to its way of naming when others are added.
    /// - Returns: Its name.
    package static func nodeName(_ index: Int, isOfSeveral: Bool = false) -> String {
        "\(isOfSeveral ? "n" : "node")\(index + 1)"
    }

    /// Reads the cluster of `directory`; nil when there is none.
    ///
    /// - Throws: ``CommandFailure`` when the file is damaged or from a newer program.
    package static func read(_ directory: String) throws(CommandFailure) -> ClusterFile? {
        let path = ClusterLayout(directory: directory).clusterFile
        switch DocumentFile.read(ClusterFile.self, from: path) {
        case .absent:
            return nil
        case .damaged(let reason):
            throw CommandFailure(
                "bad_cluster_file",
                "The file \(path) is damaged: \(reason).",
                remedy: "Stop what runs with 'volctl dev down --data \(directory.shellQuoted)', "
                    + "remove the file, and 'volctl dev up' makes it anew; volumes are not in it."
            )
        case .document(let file):
            guard file.version <= versionCurrent else {
                throw CommandFailure(
                    "bad_cluster_file",
                    "The file \(path) has version \(file.version); "
                        + "this volctl reads version \(versionCurrent).",
                    remedy: "Use the newer volctl that wrote it."
                )
            }
            return file
        }
    }
}
