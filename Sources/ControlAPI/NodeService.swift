// What a node does for the metadata service: the server side of the node API.

/// A node as ``nodeRouter(service:)`` serves it; `volnode` conforms its own type.
///
/// The router has checked names, sizes and lengths against ``APILimits`` before it calls.
/// Each change is durable when its method returns. Errors use these codes:
/// `volumeNotFound`, `snapshotNotFound`, `alreadyExists`, `inUse`, `invalidArgument`,
/// `limitReached`, `notComplete`, `outdated`, `noSpace`, `unavailable`; after any of them nothing was
/// changed, where a method does not say otherwise.
public protocol NodeService: Sendable {
    /// The same node, asked for changes that are part of an operation.
    ///
    /// They are refused, as `outdated`, once the node has been asked for a later operation on
    /// the same volume, since a request that was given up may still be under way; and when the
    /// volume was given away in an epoch that the operation does not know of.
    func carryingOut(_ operation: NodeOperation) -> any NodeService
    /// The node itself.
    func report() async throws(ControlError) -> NodeReport
    /// Its counters.
    func statistics() async throws(ControlError) -> NodeStatistics
    /// All its volumes, by name.
    func volumes() async throws(ControlError) -> [NodeVolume]
    /// One volume.
    func volume(_ id: UInt64) async throws(ControlError) -> NodeVolume
    /// Makes an empty volume with access `none`.
    ///
    /// When one with the same id exists: `alreadyExists`; the caller finds out whether it is the
    /// same.
    func createVolume(_ creation: NodeVolumeCreation) async throws(ControlError) -> NodeVolume
    /// Changes size, access, name or descriptor.
    ///
    /// Access `none` returns when no connection to the volume is left.
    func updateVolume(
        _ id: UInt64,
        _ update: NodeVolumeUpdate
    ) async throws(ControlError) -> NodeVolume
    /// Deletes a volume and its snapshots; `inUse` while clones stand on one.
    func deleteVolume(_ id: UInt64) async throws(ControlError)
    /// Seals what the volume holds now under `name`.
    func createSnapshot(
        volume id: UInt64,
        name: String
    ) async throws(ControlError) -> NodeSnapshot
    /// Deletes a snapshot; clones keep what they need of it.
    func deleteSnapshot(volume id: UInt64, name: String) async throws(ControlError)
    /// Makes the volume read as its snapshot does; `inUse` while connections to it are open.
    func rollback(volume id: UInt64, snapshot name: String) async throws(ControlError) -> NodeVolume
    /// Makes a volume that starts as the snapshot.
    func clone(
        volume id: UInt64,
        snapshot name: String,
        _ creation: NodeCloneCreation
    ) async throws(ControlError) -> NodeVolume
    /// The replicated volumes that it is the primary of, by name, those that stopped included.
    func services() async throws(ControlError) -> [NodeServiceStatus]
    /// Becomes the primary of a replicated volume.
    ///
    /// Answers at once, while the takeover goes on. The same lease epoch again changes nothing but
    /// placements, size and access; a higher one replaces what was; a lower one is `outdated`.
    func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus
    /// Is the primary of a volume no more.
    ///
    /// Connections are closed, what is in work ends, grants are given back. Done also when
    /// nothing is served, or only under a higher epoch.
    func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError)
    /// Takes a snapshot of a volume that is served here; durable on a quorum when it answers.
    ///
    /// The same id again gives the same number. `volumeNotFound` when the volume is not served
    /// here, `outdated` when it is under another lease epoch. After `unavailable` it may have been
    /// taken all the same, or be taken yet.
    func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken
    /// Deletes a replica's snapshot, and has the volume's primary forget it, if that is here.
    ///
    /// Done also when it is not there.
    func deleteReplicaSnapshot(of volume: UInt64, _ snapshot: UInt64) async throws(ControlError)
    /// Makes a replica of another volume of a snapshot of the replica here.
    ///
    /// `notComplete` when the replica here has not all of the snapshot, or is another instance;
    /// done also when the new one is there with its instance.
    func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError)
    /// Makes the replica here what it was when the snapshot was taken, as another instance.
    ///
    /// `notComplete` as with a clone; done also when it is that instance.
    func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError)
}

extension NodeService {
    /// None: for nodes without replicas.
    public func services() async throws(ControlError) -> [NodeServiceStatus] { [] }

    /// Refused: for nodes without replicas.
    public func serve(
        _ assignment: NodeServiceAssignment
    ) async throws(ControlError) -> NodeServiceStatus {
        throw .noReplicas
    }

    /// Nothing to do: for nodes without replicas.
    public func stopServing(_ volume: UInt64, leaseEpoch: UInt64) async throws(ControlError) {}

    /// Refused: for nodes without replicas.
    public func takeSnapshot(
        of volume: UInt64,
        _ taking: NodeSnapshotTaking
    ) async throws(ControlError) -> NodeSnapshotTaken { throw .noReplicas }

    /// Nothing to do: for nodes without replicas.
    public func deleteReplicaSnapshot(
        of volume: UInt64,
        _ snapshot: UInt64
    ) async throws(ControlError) {}

    /// Refused: for nodes without replicas.
    public func cloneReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ creation: NodeReplicaCloneCreation
    ) async throws(ControlError) { throw .noReplicas }

    /// Refused: for nodes without replicas.
    public func rollBackReplica(
        of volume: UInt64,
        _ snapshot: UInt64,
        _ rollback: NodeReplicaRollback
    ) async throws(ControlError) { throw .noReplicas }

    /// The same node: for services that are called directly, where nothing is under way.
    public func carryingOut(_ operation: NodeOperation) -> any NodeService { self }
}

extension ControlError {
    fileprivate static var noReplicas: Self {
        ControlError(.unsupported, "This node does not serve replicated volumes.")
    }
}
