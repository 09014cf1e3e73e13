// Records as documents, with what the nodes know added where they answer.

import ControlAPI
import Foundation
import Metadata

/// What a node told of its volumes.
enum NodeView: Sendable {
    /// Its volumes, by id, and those of which it cannot tell, with its reason: their store has
    /// stopped, or it is not the node that had them.
    case volumes([UInt64: NodeVolume], unknown: Set<UInt64> = [], reason: String = "")
    /// It did not answer.
    case silent
}

extension ControlPlane {
    /// Asks nodes for all their volumes, all at once: those that hang cost one wait together.
    func nodeViews(_ names: Set<String>) async -> [String: NodeView] {
        await withTaskGroup(of: (String, NodeView).self) { group in
            for name in names { group.addTask { (name, await self.nodeView(name)) } }
            return await group.reduce(into: [:]) { views, view in views[view.0] = view.1 }
        }
    }

    private func nodeView(_ name: String) async -> NodeView {
        do throws(ControlError) {
            let told = try await heldVolumes(of: name, until: viewDeadline)
            let volumes = Dictionary(told.held.map { ($0.id, $0) }) { first, _ in first }
            return .volumes(volumes, unknown: told.unknown, reason: told.reason)
        } catch {
            return .silent
        }
    }

    /// Asks a node for something that can be left out, and not for long.
    func askedBriefly<Value: Sendable>(
        _ name: String,
        _ question: @escaping @Sendable (any NodeService) async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        let node = try await nodeService(name)
        return try await answered(by: name, until: viewDeadline) { () throws(ControlError) in
            try await question(node)
        }
    }

    /// When a node that is asked now for what can be left out is waited for no more.
    private var viewDeadline: ContinuousClock.Instant { .now + .milliseconds(viewMillisecondsMax) }

    /// A volume's document, with what its node says of it.
    func document(_ record: VolumeRecord) async throws(ControlError) -> Volume {
        var view = NodeView.silent
        do throws(ControlError) {
            let volume = try await askedBriefly(record.teller) { node throws(ControlError) in
                try await node.volume(record.id)
            }
            view = .volumes([record.id: volume])
        } catch  where error.code == .volumeNotFound {
            view = .volumes([:])
        } catch  where error.code == .unavailable {
            view = .volumes([:], unknown: [record.id], reason: error.detail)
        } catch {
            // Silent; the document says so.
        }
        return try await document(record, view)
    }

    /// The document of the volume that an operation ended with.
    func document(_ end: OperationEnd, name: String) async throws(ControlError) -> Volume {
        switch end {
        case .done(let record), .unnecessary(let record):
            return try await document(record)
        case .repeated(let id):
            guard let id else { throw .volumeNotFound(name) }
            let record = try await meta(await metadata.volume(id: id))
            guard let record else { throw .volumeNotFound(name) }
            return try await document(record.value)
        }
    }

    /// A volume's document.
    func document(
        _ record: VolumeRecord,
        _ view: NodeView
    ) async throws(ControlError) -> Volume {
        let around = try await meta(await metadata.surroundings(of: [record.id]))[0]
        let node = try await meta(await metadata.node(record.primary))
        let live = try await meta(await metadata.liveNodes())
        return document(record, view, around, node?.value, live)
    }

    /// A volume's document, everything for it being at hand.
    func document(
        _ record: VolumeRecord,
        _ view: NodeView,
        _ around: ClusterMetadata.Surroundings,
        _ node: NodeRecord?,
        _ live: [String: NodeLiveRecord]
    ) -> Volume {
        var volume = Volume(
            id: record.id,
            name: record.name,
            byteCount: record.byteCount,
            logicalBlockByteCount: record.logicalBlockByteCount,
            durability: record.durabilityMode,
            state: VolumeState(record.state),
            primary: record.primary,
            replicas: record.replicas,
            replicaStates: replicaStates(of: record, live),
            move: moveDocument(of: record),
            serviceState: record.served == nil
                ? nil : currentReport(of: record)?.status.state,
            snapshotCount: around.snapshotCount,
            source: record.source.map {
                VolumeSource(volume: $0.volumeName, snapshot: $0.snapshot)
            },
            attachments: around.attachments.current.map { document($0, of: record, node) },
            createdAt: record.createdAt,
            epoch: record.epoch
        )
        if case .volumes(let volumes, _, _) = view, let known = volumes[record.id] {
            volume.layerCount = known.layerCount
            volume.space = known.space
        }
        let warnings =
            record.isReplicated
            ? [warning(of: record, live)] : [warning(of: record, view)]
        let pending = record.pending.map { "An operation has not ended: \($0.kind.words)." }
        let all = (warnings + [pending]).compactMap(\.self)
        volume.warning = all.isEmpty ? nil : all.joined(separator: " ")
        return volume
    }

    /// What is wrong with a volume on one node.
    private func warning(of record: VolumeRecord, _ view: NodeView) -> String? {
        switch view {
        case .silent:
            return "The node '\(record.primary)' does not answer."
        case .volumes(let volumes, let unknown, let reason):
            guard volumes[record.id] == nil else { return nil }
            if unknown.contains(record.id) {
                return "The node '\(record.primary)' cannot tell of it: \(reason)"
            }
            guard record.pending == nil else { return nil }
            return "The node '\(record.primary)' does not hold it any more."
        }
    }

    /// An attachment's document.
    func document(
        _ attachment: AttachmentRecord,
        of volume: VolumeRecord,
        _ node: NodeRecord?,
        unixURI: Bool = false
    ) -> Attachment {
        let isCurrent = attachment.detachedAt == nil
        // As a node of a cluster names its exports.
        let export = "\(volume.name):\(attachment.epoch)"
        return Attachment(
            volume: volume.name,
            host: attachment.host,
            node: volume.primary,
            protocol: AttachmentProtocol(rawValue: attachment.protocol) ?? .nbd,
            readOnly: attachment.readOnly,
            epoch: attachment.epoch,
            state: isCurrent ? .attached : .detached,
            nbdURI: isCurrent ? node?.nbdURI(export: export) : nil,
            nbdUnixURI: isCurrent && unixURI ? node?.nbdUnixURI(export: export) : nil,
            attachedAt: attachment.attachedAt,
            detachedAt: attachment.detachedAt,
            detachReason: attachment.detachReason
        )
    }
}

extension NodeRecord {
    /// Whether its NBD server wants TLS.
    var transportSecurity: NBDTransportSecurity {
        nbdTLS.flatMap(NBDTransportSecurity.init) ?? .off
    }

    private var scheme: String { transportSecurity == .require ? "nbds" : "nbd" }

    /// Where an export is over TCP; nil when the node is not reached so.
    ///
    /// Spec: NetworkBlockDevice/nbd doc/uri.md.
    func nbdURI(export: String) -> String? {
        nbdEndpoint.map { "\(scheme)://\($0)/\(export)" }
    }

    /// Where an export is on the node's own machine.
    func nbdUnixURI(export: String) -> String? {
        nbdUnixPath?.addingPercentEncoding(withAllowedCharacters: .socketPath).map {
            "\(scheme)+unix:///\(export)?socket=\($0)"
        }
    }
}

extension VolumeState {
    fileprivate init(_ state: VolumeRecord.State) {
        switch state {
        case .creating: self = .creating
        case .ready: self = .ready
        case .deleting: self = .deleting
        }
    }
}

extension CharacterSet {
    /// What may stand unescaped in the socket parameter of an NBD URI.
    ///
    /// Spec: NetworkBlockDevice/nbd doc/uri.md.
    fileprivate static let socketPath = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
    )
}
