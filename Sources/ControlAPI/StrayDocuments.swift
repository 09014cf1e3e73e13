// Volumes that a node holds and the metadata does not know.

/// A volume that its node holds and the metadata does not know: its node was deleted as lost and
/// came back, or an old copy of the metadata was restored.
public struct StrayVolume: Sendable, Hashable, Codable {
    /// Its identity.
    public var id: UInt64
    /// Its name on the node.
    public var name: String
    /// Its size.
    public var byteCount: UInt64
    /// Who may still use it there.
    public var access: NodeVolumeAccess
    /// The epoch of that.
    public var epoch: UInt64
    /// Its snapshots, oldest first.
    public var snapshots: [String]

    /// Creates a stray volume's document.
    public init(
        id: UInt64,
        name: String,
        byteCount: UInt64,
        access: NodeVolumeAccess,
        epoch: UInt64,
        snapshots: [String]
    ) {
        self.id = id
        self.name = name
        self.byteCount = byteCount
        self.access = access
        self.epoch = epoch
        self.snapshots = snapshots
    }
}

/// A node's stray volumes, by name.
public struct StrayVolumeList: Sendable, Hashable, Codable {
    /// The volumes.
    public var volumes: [StrayVolume]

    /// Creates a list.
    public init(volumes: [StrayVolume]) { self.volumes = volumes }
}
