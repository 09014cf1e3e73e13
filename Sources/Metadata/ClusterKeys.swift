// The keys of the cluster's metadata. Names hold no '/', so no key is the prefix of another's.

/// Spells keys below one prefix per cluster.
struct ClusterKeys: Sendable {
    /// `/cairn/CLUSTER/`.
    let root: String

    init(cluster: String) { root = "/cairn/\(cluster)/" }

    /// Which process decides, and the order of those that did.
    var leader: String { root + "leader" }
    var term: String { root + "term" }

    /// What is added to the revision for the epoch of a new volume.
    var epochFloor: String { root + "epoch-floor" }

    /// name → id: names are unique.
    var names: String { root + "vn/" }
    func name(_ name: String) -> String { names + name }

    var volumes: String { root + "v/" }
    func volume(_ id: UInt64) -> String { volumes + Self.hex(id) }

    func snapshots(_ volume: UInt64) -> String { root + "sn/\(Self.hex(volume))/" }
    func snapshot(_ volume: UInt64, _ name: String) -> String { snapshots(volume) + name }

    func attachments(_ volume: UInt64) -> String { root + "va/" + Self.hex(volume) }

    var images: String { root + "im/" }
    func image(_ name: String, _ version: String) -> String { images + "\(name)/\(version)" }

    /// One key per image made of a volume's snapshots: what keeps a snapshot from deletion.
    func imageUses(_ volume: UInt64) -> String { root + "iu/\(Self.hex(volume))/" }
    func imageUses(_ volume: UInt64, _ snapshot: String) -> String {
        imageUses(volume) + snapshot + "/"
    }
    func imageUse(_ image: ImageRecord) -> String {
        imageUses(image.volumeID, image.snapshot) + "\(image.name)/\(image.version)"
    }

    var nodes: String { root + "n/" }
    func node(_ name: String) -> String { nodes + name }

    var live: String { root + "live/" }
    func live(_ name: String) -> String { live + name }

    /// Volumes that were forgotten with their node.
    var lost: String { root + "lost/" }
    func lost(_ volume: UInt64) -> String { lost + Self.hex(volume) }

    /// Replicas that a node is to delete when it is heard from.
    func discarded(_ node: String) -> String { root + "dr/\(node)/" }
    func discarded(_ node: String, _ instance: UInt64) -> String {
        discarded(node) + Self.hex(instance)
    }

    var operations: String { root + "op/" }
    func operation(_ key: String) -> String {
        // A client's key is any printable text; '/' would reach into other keys.
        operations + key.replacing("%", with: "%25").replacing("/", with: "%2F")
    }

    var events: String { root + "ev/" }
    func event(_ id: String) -> String { events + id }

    private static func hex(_ id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
