// The client's side of the control API: what volctl and volnode use.

import Foundation
import NIOHTTP1

/// Asks things of the metadata service; see Docs/control-api.md for what each does.
///
/// Every change carries an operation key. Pass your own to repeat a command safely across
/// processes; the default is good for one call, however often that has to ask.
public struct ControlClient: Sendable {
    private let api: LeaderClient

    /// Creates a client of the service at `endpoint`; it connects when it is used.
    ///
    /// - Parameters:
    ///   - endpoint: The service.
    ///   - answerMillisecondsMax: How long to wait for an answer.
    ///   - repeatMillisecondsMax: For how long to ask again for a change of which nobody knows
    ///     whether it was made.
    public init(
        endpoint: APIEndpoint,
        answerMillisecondsMax: Int64 = APILimits.answerMillisecondsMax,
        repeatMillisecondsMax: Int64 = 0
    ) {
        self.init(
            endpoints: ControlEndpoints(endpoint),
            answerMillisecondsMax: answerMillisecondsMax,
            repeatMillisecondsMax: repeatMillisecondsMax
        )
    }

    /// Creates a client of whichever of several services leads; the others stand by.
    ///
    /// - Parameters:
    ///   - endpoints: The services.
    ///   - answerMillisecondsMax: How long to wait for an answer.
    ///   - repeatMillisecondsMax: For how long to ask again for a change of which nobody knows
    ///     whether it was made, and to look for one that leads while all of them stand by.
    ///   - leaderMillisecondsMax: How long one of several may take to say whether it leads.
    public init(
        endpoints: ControlEndpoints,
        answerMillisecondsMax: Int64 = APILimits.answerMillisecondsMax,
        repeatMillisecondsMax: Int64 = 0,
        leaderMillisecondsMax: Int64 = APILimits.leaderMillisecondsMax
    ) {
        let clients = endpoints.all.map { endpoint in
            APIClient(
                endpoint: endpoint,
                answerMillisecondsMax: answerMillisecondsMax,
                repeatMillisecondsMax: repeatMillisecondsMax,
                unreachableHelp:
                    "Start a cluster with 'volctl dev up', or name one with --endpoint.",
                brokenOffHelp: "Repeating the command is safe; if that does not help, check that "
                    + "volmeta listens there: volctl dev status, or --endpoint.",
                changeUnknownHelp: "Look first whether it was done, with 'volctl volume show' or "
                    + "'volctl events': the same command may do it again. If nothing answers, check "
                    + "that volmeta listens there: volctl dev status, or --endpoint."
            )
        }
        api = LeaderClient(clients, leaderMillisecondsMax: leaderMillisecondsMax)
    }

    /// A key that no other operation has.
    public static func newOperationKey() -> String { UUID().uuidString }

    // MARK: - Service

    /// Whether the service can serve.
    public func health() async throws(ControlError) -> HealthReport {
        try await api.document(.GET, "/v1/health")
    }

    /// What runs.
    public func version() async throws(ControlError) -> VersionReport {
        try await api.document(.GET, "/v1/version")
    }

    // MARK: - Volumes

    /// All volumes, by name, however many pages they take.
    public func volumes() async throws(ControlError) -> [Volume] {
        var result: [Volume] = []
        var after: String?
        repeat {
            let query = after.map { "?after=\($0)" } ?? ""
            let page: VolumeList = try await api.document(.GET, "/v1/volumes\(query)")
            result += page.volumes
            after = page.nextAfter
        } while after != nil
        return result
    }

    /// One volume.
    public func volume(_ name: String) async throws(ControlError) -> Volume {
        try await api.document(.GET, try path(volume: name))
    }

    /// Makes an empty volume.
    public func createVolume(
        _ creation: VolumeCreation,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Volume {
        try await api.document(.POST, "/v1/volumes", body: creation, operationKey: operation)
    }

    /// Changes a volume's size.
    public func updateVolume(
        _ name: String,
        _ update: VolumeUpdate,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Volume {
        try await api.document(
            .PATCH,
            try path(volume: name),
            body: update,
            operationKey: operation
        )
    }

    /// Deletes a volume and its snapshots; refused while a host has it.
    ///
    /// With `host` it is deleted only while that host alone has it, for writing: whoever made it
    /// undoes that, unless somebody took it since.
    public func deleteVolume(
        _ name: String,
        heldBy host: String? = nil,
        operation: String = newOperationKey()
    ) async throws(ControlError) {
        if let host { try ValidName.require(host, of: "host") }
        let query = host.map { "?host=\($0)" } ?? ""
        try await api.perform(.DELETE, try path(volume: name) + query, operationKey: operation)
    }

    // MARK: - Snapshots and clones

    /// A volume's snapshots, oldest first.
    public func snapshots(of volume: String) async throws(ControlError) -> [Snapshot] {
        let path = try path(volume: volume, "/snapshots")
        let list: SnapshotList = try await api.document(.GET, path)
        return list.snapshots
    }

    /// One snapshot, with where this machine can read it.
    public func snapshot(
        _ name: String,
        of volume: String
    ) async throws(ControlError) -> Snapshot {
        let query = MachineIdentifier.current.map { "?machine_id=\($0)" } ?? ""
        return try await api.document(.GET, try path(volume: volume, snapshot: name) + query)
    }

    /// Takes a snapshot.
    public func createSnapshot(
        _ name: String,
        of volume: String,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Snapshot {
        try await api.document(
            .POST,
            try path(volume: volume, "/snapshots"),
            body: SnapshotCreation(name: name),
            operationKey: operation
        )
    }

    /// Deletes a snapshot.
    public func deleteSnapshot(
        _ name: String,
        of volume: String,
        operation: String = newOperationKey()
    ) async throws(ControlError) {
        try await api.perform(
            .DELETE,
            try path(volume: volume, snapshot: name),
            operationKey: operation
        )
    }

    /// Makes a volume read as its snapshot does.
    public func rollback(
        _ volume: String,
        to snapshot: String,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Volume {
        try await api.document(
            .POST,
            try path(volume: volume, snapshot: snapshot, "/rollback"),
            operationKey: operation
        )
    }

    /// Makes a volume that starts as a snapshot.
    public func clone(
        _ volume: String,
        snapshot: String,
        _ creation: CloneCreation,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Volume {
        try await api.document(
            .POST,
            try path(volume: volume, snapshot: snapshot, "/clones"),
            body: creation,
            operationKey: operation
        )
    }

    // MARK: - Images

    /// The catalogue.
    public func images() async throws(ControlError) -> [Image] {
        let list: ImageList = try await api.document(.GET, "/v1/images")
        return list.images
    }

    /// One image.
    public func image(_ name: String, version: String) async throws(ControlError) -> Image {
        try await api.document(.GET, try path(image: name, version: version))
    }

    /// Catalogues a snapshot.
    public func createImage(
        _ creation: ImageCreation,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Image {
        try await api.document(.POST, "/v1/images", body: creation, operationKey: operation)
    }

    /// Takes an image out of the catalogue; its snapshot stays.
    public func deleteImage(
        _ name: String,
        version: String,
        operation: String = newOperationKey()
    ) async throws(ControlError) {
        try await api.perform(
            .DELETE,
            try path(image: name, version: version),
            operationKey: operation
        )
    }

    /// Makes a volume that starts as an image.
    public func cloneImage(
        _ name: String,
        version: String,
        _ creation: CloneCreation,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Volume {
        try await api.document(
            .POST,
            try path(image: name, version: version) + "/clones",
            body: creation,
            operationKey: operation
        )
    }

    // MARK: - Attachments

    /// A volume's attachments: those that are, then those that were.
    public func attachments(of volume: String) async throws(ControlError) -> [Attachment] {
        let path = try path(volume: volume, "/attachments")
        let list: AttachmentList = try await api.document(.GET, path)
        return list.attachments
    }

    /// Gives a host the volume.
    public func attach(
        _ volume: String,
        _ creation: AttachmentCreation,
        operation: String = newOperationKey()
    ) async throws(ControlError) -> Attachment {
        try await api.document(
            .POST,
            try path(volume: volume, "/attachments"),
            body: creation,
            operationKey: operation
        )
    }

    /// Takes a volume back from a host.
    public func detach(
        _ volume: String,
        from host: String,
        operation: String = newOperationKey()
    ) async throws(ControlError) {
        try ValidName.require(host, of: "host")
        try await api.perform(
            .DELETE,
            try path(volume: volume, "/attachments/\(host)"),
            operationKey: operation
        )
    }

    // MARK: - Nodes

    /// All nodes, by name.
    public func nodes() async throws(ControlError) -> [Node] {
        let list: NodeList = try await api.document(.GET, "/v1/nodes")
        return list.nodes
    }

    /// One node.
    public func node(_ name: String) async throws(ControlError) -> Node {
        try await api.document(.GET, try path(node: name))
    }

    /// Tells the service about a node; `volnode` does, at its start and when the service has
    /// forgotten it.
    public func registerNode(
        _ name: String,
        _ registration: NodeRegistration
    ) async throws(ControlError) -> NodeRegistrationResult {
        try await api.document(.PUT, try path(node: name), body: registration)
    }

    /// Tells the service that a node lives.
    public func heartbeat(
        _ name: String,
        _ heartbeat: NodeHeartbeat
    ) async throws(ControlError) {
        try await api.perform(.POST, try path(node: name) + "/heartbeat", body: heartbeat)
    }

    /// Takes a node out of placement or back in.
    public func updateNode(
        _ name: String,
        _ update: NodeUpdate
    ) async throws(ControlError) -> Node {
        try await api.document(.PATCH, try path(node: name), body: update)
    }

    /// Forgets a node that has no volumes or, when it is lost, its volumes too.
    public func deleteNode(_ name: String, isLost: Bool = false) async throws(ControlError) {
        try await api.perform(.DELETE, try path(node: name) + (isLost ? "?lost=true" : ""))
    }

    /// The volumes that a node holds and the metadata does not know, by name.
    public func strays(of node: String) async throws(ControlError) -> [StrayVolume] {
        let list: StrayVolumeList = try await api.document(.GET, try path(node: node) + "/strays")
        return list.volumes
    }

    /// Deletes one of them, with its snapshots.
    public func deleteStray(_ id: UInt64, of node: String) async throws(ControlError) {
        try await api.perform(.DELETE, try path(node: node) + "/strays/\(id)")
    }

    // MARK: - Events

    /// Events after the revision `after`, oldest first.
    public func events(
        after: UInt64 = 0,
        countMax: Int = APILimits.eventPageCountMax
    ) async throws(ControlError) -> EventList {
        try await api.document(.GET, "/v1/events?after=\(after)&limit=\(countMax)")
    }

    /// Events after the revision `after`, then those to come.
    ///
    /// - Parameters:
    ///   - after: Where to begin.
    ///   - onEvent: Called for each; returns whether to go on.
    /// - Throws: ``ControlError``; ends without one when the service ends the stream.
    public func followEvents(
        after: UInt64 = 0,
        _ onEvent: (ClusterEvent) async -> Bool
    ) async throws(ControlError) {
        let path = "/v1/events?after=\(after)&follow=true"
        try await api.lines(path) { (line) throws(ControlError) -> Bool in
            guard let event = try? ControlJSON.decoder().decode(ClusterEvent.self, from: line)
            else { throw ControlError(.badResponse, "The service sent a line that is no event.") }
            return await onEvent(event)
        }
    }

    // MARK: - Paths

    private func path(volume: String, _ rest: String = "") throws(ControlError) -> String {
        try ValidName.require(volume, of: "volume")
        return "/v1/volumes/\(volume)\(rest)"
    }

    private func path(
        volume: String,
        snapshot: String,
        _ rest: String = ""
    ) throws(ControlError) -> String {
        try ValidName.require(snapshot, of: "snapshot")
        return try path(volume: volume, "/snapshots/\(snapshot)\(rest)")
    }

    private func path(image: String, version: String) throws(ControlError) -> String {
        try ValidName.require(image, of: "image")
        try ValidName.require(version, of: "version")
        return "/v1/images/\(image)/versions/\(version)"
    }

    private func path(node: String) throws(ControlError) -> String {
        try ValidName.require(node, of: "node")
        return "/v1/nodes/\(node)"
    }
}
