// A node's events as lines of the log.

import BlockCore
import Logging
import StorageNode

/// Writes what happens in a node to a log.
struct NodeLog: Sendable {
    let logger: Logger

    func record(_ event: NodeEvent) {
        switch event {
        case .reactorStarted(let index, let report):
            logger.notice(
                "reactor started",
                metadata: ["index": "\(index)", "report": "\(report)"]
            )
        case .storeReady(let path, let milliseconds):
            logger.notice("store ready", metadata: ["path": "\(path)", "ms": "\(milliseconds)"])
        case .storeFailed(let path, let error):
            logger.error(
                "store stopped: its volumes answer errors",
                metadata: ["path": "\(path)", "error": "\(error)"]
            )
        case .connectionsRefused(let count):
            logger.warning(
                "connections refused: all places are taken",
                metadata: ["count": "\(count)"]
            )
        case .acceptFailed(let errno):
            logger.warning("accepting failed", metadata: ["errno": "\(errno)"])
        case .tlsFailed(let failure):
            logger.info("TLS failed", metadata: ["reason": "\(failure)"])
        case .tlsWarning(let warning):
            logger.warning("\(warning)")
        case .roomScarce(let path, let percent):
            logger.warning(
                "room is scarce: delete volumes or snapshots, or let the node take no new ones",
                metadata: ["store": "\(path)", "used_percent": "\(percent)"]
            )
        case .roomAmple(let path, let percent):
            logger.notice(
                "there is room again",
                metadata: ["store": "\(path)", "used_percent": "\(percent)"]
            )
        case .writesRefused(let path, let count):
            logger.error(
                "writes refused: the store is full",
                metadata: ["store": "\(path)", "count": "\(count)"]
            )
        case .lossAccepted(let path, let offset):
            logger.error(
                "opened without flushed writes that its damaged log has lost, as --accept-loss says",
                metadata: ["store": "\(path)", "damaged_at": "\(offset)"]
            )
        case .requestsFailed(let path, let volume, let count):
            logger.error(
                "requests failed: blocks are damaged or cannot be read; see 'dmesg', 'volnode check'",
                metadata: [
                    "store": "\(path)", "count": "\(count)", "volume": "\(volume ?? "-")",
                ]
            )
        case .writesWait(let path, let seconds):
            logger.error(
                "writes wait: the file system of the store is full; make room there ('df \(path)')",
                metadata: ["store": "\(path)", "seconds": "\(seconds)"]
            )
        case .writesGoOn(let path, let seconds):
            logger.notice(
                "writes go on",
                metadata: ["store": "\(path)", "seconds_waited": "\(seconds)"]
            )
        case .exportsChanged(let count):
            logger.debug("exports changed", metadata: ["count": "\(count)"])
        case .serviceChanged(let volume, let state):
            logger.notice(
                "volume",
                metadata: ["volume": "\(volume)", "state": "\(state.rawValue)"]
            )
        case .serviceRoomChanged(let volume, let nodes, let refusesWrites):
            tellRoom(of: volume, nodes, refusesWrites)
        case .serviceStopped(let volume, let reason):
            logger.warning(
                "a volume needs another epoch to be served",
                metadata: ["volume": "\(volume)", "reason": "\(reason)"]
            )
        case .serviceDeposed(let volume):
            logger.warning(
                "another process has taken a volume over",
                metadata: ["volume": "\(volume)"]
            )
        case .replicaFailed(let volume, let path):
            logger.error(
                "a replica ended: its store refused to go on",
                metadata: ["volume": "\(volume.rawValue)", "store": "\(path)"]
            )
        case .blocksRepaired(let volume, let path, let count):
            logger.warning(
                "damaged blocks of a replica were written anew; see 'dmesg' about the disk",
                metadata: [
                    "volume": "\(volume.rawValue)", "store": "\(path)", "count": "\(count)",
                ]
            )
        case .peerTLSFailed(let peer, let isDialled, let failure):
            var metadata: Logger.Metadata = ["reason": "\(failure)"]
            metadata[isDialled ? "node" : "from"] = "\(peer)"
            if let help = failure.help { metadata["help"] = "\(help)" }
            logger.warning("no link with another node", metadata: metadata)
        case .peerViolation(let volume, let reason):
            logger.warning(
                "a connection of a replica was cut",
                metadata: ["volume": "\(volume.rawValue)", "reason": "\(reason)"]
            )
        }
    }
}

extension NodeLog {
    /// Says whose stores have no room for a volume, and whether that has its writes refused.
    private func tellRoom(of volume: String, _ nodes: [String], _ refusesWrites: Bool) {
        var metadata: Logger.Metadata = ["volume": "\(volume)"]
        if !nodes.isEmpty { metadata["full"] = "\(nodes.joined(separator: ","))" }
        if refusesWrites {
            logger.error(
                "writes refused: the stores of too few replicas have room; delete snapshots or volumes there, or trim",
                metadata: metadata
            )
        } else if nodes.isEmpty {
            logger.notice("the stores of all replicas have room", metadata: metadata)
        } else {
            logger.warning(
                "replicas fall behind: their stores have no room",
                metadata: metadata
            )
        }
    }
}

extension PeerTLSFailure {
    /// What helps, where one thing does.
    fileprivate var help: String? {
        switch self {
        case .isPlain, .isRequired, .ended:
            "Start all nodes with --peer-tls-certificates, or none."
        case .wouldBePlain:
            "Add --peer-tls-certificates DIR, which 'volctl certs create' makes, or --peer-tls off."
        case .isAnother: "Check the node's --advertise-peer and --peer-tls-certificates."
        case .isNoNode, .refused, .failed, .isLate: nil
        }
    }
}
