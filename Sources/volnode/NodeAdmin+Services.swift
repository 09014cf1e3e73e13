// Replicated volumes in the node API: what this node serves, and the replicas that it holds.

import BlockCore
import ControlAPI
import LogStore
import Replication
import StorageNode
import Synchronization

extension NodeAdmin {
    func services() async throws(ControlError) -> [NodeServiceStatus] {
        await node.services().map(\.document)
    }

    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        // Meant for an earlier life of this node, which may have had the epoch already.
        if let session = assignment.session, self.session.value != session {
            throw ControlError(.unavailable, "The node has registered anew, or not yet.")
        }
        let asked = try ServiceAssignment(assignment)
        do throws(ServiceError) {
            return try await node.serve(asked).document
        } catch {
            throw ControlError(error)
        }
    }

    func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        await node.stopServing(VolumeID(volume), leaseEpoch: Epoch(leaseEpoch))
    }

    /// Where primaries reach the replicas here, as `HOST:PORT`.
    var peerEndpoint: String? { node.peerListener.map { "\($0)" } }
}

/// The session that the metadata service gave to this process, once it has.
final class SessionBox: Sendable {
    private let box = Mutex<UInt64?>(nil)

    var value: UInt64? {
        get { box.withLock { $0 } }
        set { box.withLock { $0 = newValue } }
    }
}

extension ServiceAssignment {
    fileprivate init(_ document: NodeServiceAssignment) throws(ControlError) {
        var placements: [ServicePlacement] = []
        for placement in document.placements { placements.append(try ServicePlacement(placement)) }
        var move: ServiceMove?
        if let asked = document.move {
            move = ServiceMove(
                from: ReplicaInstance(asked.from),
                to: try ServicePlacement(asked.to),
                joins: asked.joins ?? false
            )
        }
        self.init(
            volume: VolumeID(document.volume),
            name: document.name,
            byteCount: document.byteCount,
            logicalBlockByteCount: document.logicalBlockByteCount,
            durability: document.durability.store,
            leaseEpoch: Epoch(document.leaseEpoch),
            exportEpoch: document.exportEpoch,
            access: document.access.store,
            writeQuorum: document.writeQuorum,
            placements: placements,
            move: move
        )
    }
}

extension ServicePlacement {
    fileprivate init(_ document: NodePlacement) throws(ControlError) {
        var address: PeerAddress?
        if let text = document.peerEndpoint {
            guard let parsed = try? HostPort.advertised(text) else {
                throw ControlError(
                    .invalidArgument,
                    "'\(text)' is not where a node's replicas can be reached.",
                    help: "A peer endpoint is HOST:PORT."
                )
            }
            address = PeerAddress(host: parsed.host, port: parsed.port)
        }
        self.init(
            node: document.node,
            instance: ReplicaInstance(document.instance),
            address: address
        )
    }
}

extension ServiceStatus {
    private func document(_ peer: PeerSummary, of placement: ServicePlacement) -> NodePeerStatus {
        let total = assignment.byteCount / UInt64(BlockGeometry.blockByteCount)
        return NodePeerStatus(
            node: placement.node,
            instance: peer.instance.rawValue,
            isLinked: peer.isLinked,
            isComplete: peer.isComplete,
            behindCount: peer.behindCount,
            lacksRoom: peer.lacksRoom ? true : nil,
            resync: peer.resync?.rawValue,
            resyncDoneCount: peer.resyncBlock.map { min($0, total) },
            resyncTotalCount: peer.resyncBlock == nil ? nil : total
        )
    }

    var document: NodeServiceStatus {
        let summaries = Dictionary(peers.map { ($0.instance, $0) }) { first, _ in first }
        let replicas = assignment.placements.compactMap { placement in
            summaries[placement.instance].map { document($0, of: placement) }
        }
        let moving = move.flatMap { move in
            assignment.move.map { asked in
                NodeMoveStatus(
                    phase: NodeMovePhase(move.phase),
                    replica: document(move.peer, of: asked.to)
                )
            }
        }
        return NodeServiceStatus(
            volume: assignment.volume.rawValue,
            name: assignment.name,
            leaseEpoch: assignment.leaseEpoch.rawValue,
            exportEpoch: assignment.exportEpoch,
            access: NodeVolumeAccess(assignment.access),
            state: NodeServiceState(state),
            stopReason: stopReason,
            needsEpoch: needsEpoch,
            refusesWrites: refusesWrites ? true : nil,
            connectionCount: connectionCount,
            replicas: replicas,
            move: moving
        )
    }
}

extension NodeMovePhase {
    fileprivate init(_ phase: MovePhase) {
        switch phase {
        case .filling: self = .filling
        case .filled: self = .filled
        case .joining: self = .joining
        case .ready: self = .ready
        }
    }
}

extension NodeServiceState {
    fileprivate init(_ state: ServiceState) {
        switch state {
        case .sealing: self = .sealing
        case .renewing: self = .renewing
        case .opening: self = .opening
        case .serving: self = .serving
        case .suspended: self = .suspended
        case .stopped: self = .stopped
        }
    }
}

extension NodeReplica {
    /// What a store keeps of a replica; nil when the bytes are not a record.
    init?(record bytes: [UInt8]) {
        guard let record = ReplicaRecord(decoding: bytes) else { return nil }
        self.init(
            instance: record.instance.rawValue,
            promisedEpoch: record.promised.rawValue,
            acceptedEpoch: record.accepted.rawValue,
            isComplete: record.isComplete,
            isBlank: record.isBlank,
            remembers: record.remembers
        )
    }
}

extension NodeReplicaCreation {
    /// The record that the replica begins with.
    var record: [UInt8] {
        let instance = ReplicaInstance(instance)
        let record: ReplicaRecord = isReplacement ? .replacing(instance) : .created(instance)
        return record.encoded()
    }
}
