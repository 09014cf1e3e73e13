// What the metadata service does: the server side of the control API.

/// The metadata service as ``controlRouter(service:)`` serves it.
///
/// The router has checked names against ``ValidName`` before it calls. A change carries an
/// operation key: repeating it with the same key and body gives the first answer again.
public protocol ControlService: Sendable {
    /// Whether it can serve.
    func health() async throws(ControlError) -> HealthReport
    /// What runs.
    func version() -> VersionReport

    /// Volumes by name, from the one after `after`.
    func volumes(after: String?, countMax: Int) async throws(ControlError) -> VolumeList
    /// One volume, with its space when its node answers.
    func volume(_ name: String) async throws(ControlError) -> Volume
    /// Makes an empty volume.
    func createVolume(
        _ creation: VolumeCreation,
        operation: String
    ) async throws(ControlError) -> Volume
    /// Changes its size.
    func updateVolume(
        _ name: String,
        _ update: VolumeUpdate,
        operation: String
    ) async throws(ControlError) -> Volume
    /// Deletes it and its snapshots; with `host` only while that host alone has it.
    func deleteVolume(
        _ name: String,
        heldBy host: String?,
        operation: String
    ) async throws(ControlError)

    /// Its snapshots, oldest first.
    func snapshots(of volume: String) async throws(ControlError) -> [Snapshot]
    /// One of them.
    func snapshot(
        _ name: String,
        of volume: String,
        machineID: String?
    ) async throws(ControlError) -> Snapshot
    /// Takes one.
    func createSnapshot(
        of volume: String,
        _ creation: SnapshotCreation,
        operation: String
    ) async throws(ControlError) -> Snapshot
    /// Deletes one.
    func deleteSnapshot(
        _ name: String,
        of volume: String,
        operation: String
    ) async throws(ControlError)
    /// Makes the volume read as one of them does.
    func rollback(
        _ volume: String,
        to snapshot: String,
        operation: String
    ) async throws(ControlError) -> Volume
    /// Makes a volume that starts as one of them.
    func clone(
        _ volume: String,
        snapshot: String,
        _ creation: CloneCreation,
        operation: String
    ) async throws(ControlError) -> Volume

    /// The catalogue.
    func images() async throws(ControlError) -> [Image]
    /// One image.
    func image(_ name: String, version: String) async throws(ControlError) -> Image
    /// Catalogues a snapshot.
    func createImage(
        _ creation: ImageCreation,
        operation: String
    ) async throws(ControlError) -> Image
    /// Takes an image out of the catalogue; its snapshot stays.
    func deleteImage(
        _ name: String,
        version: String,
        operation: String
    ) async throws(ControlError)
    /// Makes a volume that starts as the image.
    func cloneImage(
        _ name: String,
        version: String,
        _ creation: CloneCreation,
        operation: String
    ) async throws(ControlError) -> Volume

    /// A volume's attachments and how earlier ones ended.
    func attachments(of volume: String) async throws(ControlError) -> [Attachment]
    /// Gives a host the volume.
    func attach(
        _ volume: String,
        _ creation: AttachmentCreation,
        operation: String
    ) async throws(ControlError) -> Attachment
    /// Takes it back.
    func detach(
        _ volume: String,
        from host: String,
        operation: String
    ) async throws(ControlError)

    /// All nodes, by name.
    func nodes() async throws(ControlError) -> [Node]
    /// One node.
    func node(_ name: String) async throws(ControlError) -> Node
    /// Takes a node in, or back.
    func registerNode(
        _ name: String,
        _ registration: NodeRegistration
    ) async throws(ControlError) -> NodeRegistrationResult
    /// Notes that a node lives.
    func heartbeat(_ name: String, _ heartbeat: NodeHeartbeat) async throws(ControlError)
    /// Takes a node out of placement or back in.
    func updateNode(_ name: String, _ update: NodeUpdate) async throws(ControlError) -> Node
    /// Forgets a node that is down.
    ///
    /// - Parameters:
    ///   - name: The node.
    ///   - isLost: Whether its disk will not come back: the volumes that it holds are forgotten with
    ///     it, with their snapshots and images. Else a node with volumes is refused.
    /// - Throws: ``ControlError``.
    func deleteNode(_ name: String, isLost: Bool) async throws(ControlError)
    /// The volumes that a node holds and the metadata does not know, by name.
    func strays(of node: String) async throws(ControlError) -> [StrayVolume]
    /// Deletes one of them, with its snapshots.
    func deleteStray(_ id: UInt64, of node: String) async throws(ControlError)

    /// Events after the revision `after`, oldest first.
    func events(after: UInt64, countMax: Int) async throws(ControlError) -> EventList
    /// Events after the revision `after`, then those to come; each element is oldest first.
    ///
    /// The stream ends when the reader is too slow or the service stops; the reader goes on from
    /// the last revision that it saw.
    func followEvents(after: UInt64) async throws(ControlError) -> AsyncStream<[ClusterEvent]>
}
