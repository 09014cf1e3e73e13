// The metadata service's side of the node API.

import Foundation
import NIOHTTP1

/// Asks things of one node; the same methods as the ``NodeService`` at the other end.
public struct NodeClient: NodeService {
    private var api: APIClient

    /// Creates a client of the node at `endpoint`.
    ///
    /// - Parameters:
    ///   - endpoint: The node.
    ///   - storeIdentity: A store that it must have; one without refuses everything. Nil for
    ///     whatever answers there.
    ///   - otherStoreIdentities: Further stores that it must have.
    ///   - answerMillisecondsMax: How long to wait for an answer.
    public init(
        endpoint: APIEndpoint,
        storeIdentity: String? = nil,
        otherStoreIdentities: [String] = [],
        answerMillisecondsMax: Int64 = APILimits.nodeAnswerMillisecondsMax
    ) {
        api = APIClient(
            endpoint: endpoint,
            answerMillisecondsMax: answerMillisecondsMax,
            storeIdentity: storeIdentity,
            otherStoreIdentities: otherStoreIdentities,
            unreachableHelp: "Look at the node with 'volctl node list' and start it again.",
            brokenOffHelp: "Look at the node with 'volctl node list'.",
            changeUnknownHelp: "Look at the node with 'volctl node list'."
        )
    }

    /// The node, asked for changes that are part of an operation.
    public func carryingOut(_ operation: NodeOperation) -> any NodeService {
        var client = self
        client.api.operation = operation
        return client
    }

    /// The node itself.
    public func report() async throws(ControlError) -> NodeReport {
        try await api.document(.GET, "/v1/node")
    }

    /// Its counters.
    public func statistics() async throws(ControlError) -> NodeStatistics {
        try await api.document(.GET, "/v1/stats")
    }

    /// All its volumes, by name.
    public func volumes() async throws(ControlError) -> [NodeVolume] {
        let list: NodeVolumeList = try await api.document(.GET, "/v1/volumes")
        return list.volumes
    }

    /// One volume.
    public func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume {
        try await api.document(.GET, "/v1/volumes/\(id)")
    }

    /// Makes an empty volume with access `none`.
    public func createVolume(
        _ creation: NodeVolumeCreation
    ) async throws(ControlError) -> NodeVolume {
        try await api.document(.POST, "/v1/volumes", body: creation)
    }

    /// Changes size, access, name or descriptor.
    public func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume {
        try await api.document(.PATCH, "/v1/volumes/\(id)", body: update)
    }

    /// Deletes a volume and its snapshots.
    public func deleteVolume(_ id: UInt64) async throws(ControlError) {
        try await api.perform(.DELETE, "/v1/volumes/\(id)")
    }

    /// Seals what the volume holds now under `name`.
    public func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot {
        try await api.document(
            .POST,
            "/v1/volumes/\(id)/snapshots",
            body: SnapshotCreation(name: name)
        )
    }

    /// Deletes a snapshot.
    public func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError) {
        try await api.perform(.DELETE, "/v1/volumes/\(id)/snapshots/\(name)")
    }

    /// Makes the volume read as its snapshot does.
    public func rollback(
        volume id: UInt64,
        snapshot name: String
    ) async throws(ControlError) -> NodeVolume {
        try await api.document(.POST, "/v1/volumes/\(id)/snapshots/\(name)/rollback")
    }

    /// Makes a volume that starts as the snapshot.
    public func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume {
        try await api.document(.POST, "/v1/volumes/\(id)/snapshots/\(name)/clones", body: creation)
    }

    /// The replicated volumes that it is the primary of, by name.
    public func services() async throws(ControlError) -> [NodeServiceStatus] {
        let list: NodeServiceList = try await api.document(.GET, "/v1/services")
        return list.services
    }

    /// Has it become the primary of a replicated volume.
    public func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        try await api.document(.PUT, "/v1/services/\(assignment.volume)", body: assignment)
    }

    /// Has it be the primary of a volume no more.
    public func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {
        try await api.perform(.DELETE, "/v1/services/\(volume)?lease_epoch=\(leaseEpoch)")
    }

    /// Has it take a snapshot of a volume that it serves.
    public func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken {
        try await api.document(.POST, "/v1/services/\(volume)/snapshots", body: taking)
    }

    /// Deletes a replica's snapshot.
    public func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {
        try await api.perform(.DELETE, "/v1/replicas/\(volume)/snapshots/\(snapshot)")
    }

    /// Makes a replica of another volume of a replica's snapshot.
    public func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) {
        let path = "/v1/replicas/\(volume)/snapshots/\(snapshot)/clones"
        try await api.perform(.POST, path, body: creation)
    }

    /// Makes a replica what it was when a snapshot was taken.
    public func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) {
        let path = "/v1/replicas/\(volume)/snapshots/\(snapshot)/rollback"
        try await api.perform(.POST, path, body: rollback)
    }
}
