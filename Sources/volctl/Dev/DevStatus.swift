// What `dev up`, `dev status` and friends print.

import ControlAPI
import Foundation
package import ProgramMain

/// Whether a program of a development cluster runs.
package enum ProgramState: String, Codable, Hashable, Sendable {
    /// It runs.
    case running
    /// It was stopped, or never started.
    case stopped
    /// It ended without being asked to.
    case crashed
}

/// A process id, `null` in JSON while there is none, so that the key is always there.
package struct ProgramPID: Codable, Hashable, Sendable {
    /// The id.
    package var value: Int32?

    /// Creates an id.
    package init(_ value: Int32?) { self.value = value }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        value = container.decodeNil() ? nil : try container.decode(Int32.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value { try container.encode(value) } else { try container.encodeNil() }
    }

    /// The id for people.
    var text: String { value.map { "\($0)" } ?? "" }
}

/// The state of a development cluster.
package struct DevStatus: Codable, Hashable, Sendable {
    /// The metadata service.
    package struct Meta: Codable, Hashable, Sendable {
        /// Its process id while it runs.
        package var pid: ProgramPID
        /// Whether it runs.
        package var state: ProgramState
        /// Its log.
        package var log: String
    }

    /// One node.
    package struct Node: Codable, Hashable, Sendable {
        /// Its name.
        package var name: String
        /// Its process id while it runs.
        package var pid: ProgramPID
        /// Whether it runs.
        package var state: ProgramState
        /// Where its NBD server listens.
        package var nbd: String
        /// Its NBD server's unix socket.
        package var nbdUnixPath: String
        /// Where its API listens.
        package var admin: String
        /// Where primaries reach its replicas.
        package var peer: String?
        /// Its store.
        package var store: String
        /// Its log.
        package var log: String
    }

    /// Where the control API is.
    package var endpoint: String
    /// The cluster's directory.
    package var data: String
    /// The metadata service.
    package var meta: Meta
    /// The nodes.
    package var nodes: [Node]

    /// For `dev up`, `down`, `kill` and `start`: what it did, empty when there was nothing to do.
    package var changed: [String]?

    /// Finds out the state of the cluster that `file` describes.
    package init(_ layout: ClusterLayout, _ file: ClusterFile) {
        endpoint = file.endpoint
        data = layout.directory
        let record = ProgramRecord(layout, ClusterLayout.metaName)
        meta = Meta(pid: ProgramPID(record.pid), state: record.state, log: record.log)
        nodes = file.nodes.map { node in
            let record = ProgramRecord(layout, node.name)
            return Node(
                name: node.name,
                pid: ProgramPID(record.pid),
                state: record.state,
                nbd: "127.0.0.1:\(node.nbdPort)",
                nbdUnixPath: layout.socketFile(node.name),
                admin: "http://127.0.0.1:\(node.adminPort)",
                peer: node.peerPort.map { "127.0.0.1:\($0)" },
                store: layout.storeFile(node.name),
                log: record.log
            )
        }
    }

    /// The table for people.
    package func rendered(on terminal: Terminal) -> String {
        var table = Table([
            .text("NAME"), .text("STATE"), .number("PID"), .text("LISTENS"), .text("LOG"),
        ])
        table.append([
            ClusterLayout.metaName, meta.state.rawValue, meta.pid.text,
            endpoint, meta.log,
        ])
        for node in nodes {
            table.append([
                node.name, node.state.rawValue, node.pid.text,
                "nbd://\(node.nbd)", node.log,
            ])
        }
        return table.rendered(on: terminal)
    }
}

/// What is known about one program of the cluster.
struct ProgramRecord {
    /// The process, when its record could be read.
    var process: ProcessRecord?
    /// Whether it runs.
    var state: ProgramState
    /// Its log.
    var log: String

    /// Its process id while it runs.
    var pid: Int32? { state == .running ? process?.pid : nil }

    /// Reads the record of `program`.
    init(_ layout: ClusterLayout, _ program: String) {
        log = layout.logFile(program)
        switch DocumentFile.read(ProcessRecord.self, from: layout.processFile(program)) {
        case .absent:
            state = .stopped
        case .damaged:
            // A record cut short by a full disk: whatever it was, it is not known to run.
            state = .crashed
        case .document(let record):
            process = record
            state = record.isRunning ? .running : .crashed
        }
    }
}
