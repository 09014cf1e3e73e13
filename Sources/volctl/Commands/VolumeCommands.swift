// volctl volume …

package import ArgumentParser
package import ControlAPI
import Foundation
import ProgramMain

/// `volctl volume`.
package struct VolumeCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "volume",
        abstract: "Create, list, resize, export and delete volumes.",
        subcommands: [
            VolumeCreate.self, VolumeListCommand.self, VolumeShow.self, VolumeResize.self,
            VolumeDelete.self, VolumeExport.self,
        ]
    )

    package init() {}
}

/// `volctl volume create`.
struct VolumeCreate: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Create an empty volume.",
        discussion: """
            It takes no space until something is written to it. With writeback a write is \
            acknowledged before it is durable, as by a disk with a cache: a flush makes it so. With \
            writethrough it is durable when it is acknowledged.

            Examples:
              volctl volume create vm1 --size 10GiB
              volctl volume create db --size 1T --block-size 4096 --durability writethrough
            """
    )

    @Argument(help: "The new volume's name.")
    var name: String
    @Option(
        help: ArgumentHelp("Its size: 10GiB, 512MiB, 1T or bytes.", valueName: "size"),
        transform: ByteSize.volumeArgument
    )
    var size: ByteSize
    @Option(
        help: ArgumentHelp(
            "The number of copies, 1 to 5; default 3 where three nodes take some, else 1.",
            valueName: "n"
        ),
        transform: Usage.number(1...APILimits.replicaCountMax)
    )
    var replicas: Int?
    @Option(help: "Its logical block: 512 or 4096 bytes; default 512.")
    var blockSize: BlockSizeArgument?
    @Option(help: "When a write is acknowledged; default writeback.")
    var durability: DurabilityMode?
    @Option(
        help: "The node of its first copy; default the one with most room.",
        completion: NameCompletion.nodes
    )
    var node: String?
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "volume")
        try Usage.require(volumeSize: size)
        try Usage.require(node, of: "node")
        if let replicas, !(1...APILimits.replicaCountMax).contains(replicas) {
            throw ValidationError("--replicas takes 1 to \(APILimits.replicaCountMax).")
        }
    }

    func run() async throws {
        let creation = VolumeCreation(
            name: name,
            byteCount: size.byteCount,
            logicalBlockByteCount: blockSize?.byteCount,
            durability: durability,
            replicas: replicas,
            node: node
        )
        let volume = try await cluster.withClient { try await $0.createVolume(creation) }
        if cluster.json {
            printDocument(volume)
        } else {
            printText(
                "Created \(volume.name), \(sizeText(volume.byteCount)), on "
                    + volume.replicas.joined(separator: ", ") + "."
            )
        }
    }
}

/// `volctl volume list`.
struct VolumeListCommand: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the volumes.",
        aliases: ["ls"]
    )

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let volumes = try await cluster.withClient { try await $0.volumes() }
        if cluster.json {
            printDocument(VolumeList(volumes: volumes))
        } else if volumes.isEmpty {
            printText("There are no volumes. Create one: volctl volume create NAME --size 10GiB")
        } else {
            printText(volumeTable(volumes).rendered(on: .output))
        }
    }
}

/// The table of `volctl volume list`.
package func volumeTable(_ volumes: [Volume]) -> Table {
    var table = Table([
        .text("NAME"), .number("SIZE"), .number("WRITTEN"), .number("SNAPSHOTS"), .text("NODE"),
        .text("ATTACHED TO"), .text("STATE"),
    ])
    for volume in volumes {
        table.append([
            volume.name, sizeText(volume.byteCount), sizeText(volume.space?.writtenByteCount),
            "\(volume.snapshotCount)", volume.primary, holders(of: volume),
            [stateText(volume), volume.warning].compactMap(\.self).joined(separator: ": "),
        ])
    }
    return table
}

/// The state of a volume for people; what is known only of old is not called ready.
private func stateText(_ volume: Volume) -> String {
    let isUnavailable =
        volume.warning != nil && volume.state == .ready && volume.space == nil
    if isUnavailable { return "unavailable" }
    switch volume.serviceState {
    case .suspended where volume.state == .ready: return "suspended"
    case .stopped where volume.state == .ready: return "not served"
    default: return volume.state.rawValue
    }
}

/// The replicas of a volume for people, with how they are where that is known.
private func replicasText(_ volume: Volume) -> String {
    guard let states = volume.replicaStates else {
        return volume.replicas.joined(separator: ", ")
    }
    return states.map { replica in
        let behind = replica.behind.map {
            $0 > 0 ? ", \(counted(Int(clamping: $0), "write")) behind" : ""
        }
        let isKnown = replica.state != .unknown
        let room = replica.lacksRoom == true ? ", no room" : ""
        let part = replica.resyncPerMille.map { ", \($0 / 10)%" } ?? ""
        return replica.node
            + (isKnown ? " (\(replica.state.rawValue)\(part)\(behind ?? "")\(room))" : "")
    }.joined(separator: ", ") + (volume.move.map { ", \(moveText($0))" } ?? "")
}

/// How far a move is, for people.
private func moveText(_ move: VolumeMove) -> String {
    let part = move.perMille.map { ", \($0 / 10)%" } ?? ""
    return "\(move.from) moves to \(move.to) (\(move.phase?.rawValue ?? "not begun")\(part))"
}

/// The hosts that have the volume now.
private func holders(of volume: Volume) -> String {
    volume.attachments.filter { $0.state == .attached }
        .map { $0.readOnly ? "\($0.host) (read-only)" : $0.host }
        .joined(separator: ", ")
}

/// `volctl volume show`.
struct VolumeShow: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show one volume: where it is, who has it, and where its bytes are.",
        discussion: """
            Of the bytes written, those shared lie in layers that other volumes use too; those \
            exclusive would come back if the volume and its snapshots were deleted; of them, the \
            reclaimable ones come back by themselves in the background.
            """
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var name: String
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "volume")
    }

    func run() async throws {
        let volume = try await cluster.withClient { try await $0.existingVolume(name) }
        if cluster.json {
            printDocument(volume)
        } else {
            printText(volumeText(volume))
        }
    }
}

/// A size in units, and in bytes too where that rounds it.
private func exactSizeText(_ byteCount: UInt64) -> String {
    let size = ByteSize(byteCount: byteCount)
    return size.exactText == size.description
        ? size.description : "\(size.description) (\(size.exactText))"
}

/// The text of `volctl volume show`.
package func volumeText(_ volume: Volume) -> String {
    var fields: [(name: String, value: String)] = [
        ("Name", volume.name),
        ("Size", exactSizeText(volume.byteCount)),
        ("Block size", "\(volume.logicalBlockByteCount) bytes"),
        ("Durability", volume.durability.rawValue),
        ("State", stateText(volume)),
    ]
    if let warning = volume.warning { fields.append(("Warning", warning)) }
    fields += [
        ("Primary", volume.primary),
        ("Replicas", replicasText(volume)),
        ("Snapshots", "\(volume.snapshotCount)"),
    ]
    if let service = volume.serviceState { fields.append(("Service", service.rawValue)) }
    if let layerCount = volume.layerCount { fields.append(("Layers", "\(layerCount)")) }
    if let source = volume.source {
        fields.append(("Cloned from", "\(source.volume)@\(source.snapshot)"))
    }
    fields.append(("Attached to", holders(of: volume).isEmpty ? "nobody" : holders(of: volume)))
    for attachment in volume.attachments where attachment.state == .attached {
        if let uri = attachment.nbdURI { fields.append(("NBD URI", uri)) }
        if let uri = attachment.nbdUnixURI { fields.append(("NBD URI here", uri)) }
    }
    fields.append(("Created", timeText(volume.createdAt)))
    if let space = volume.space {
        fields += [
            ("Logical", sizeText(space.logicalByteCount)),
            ("Written", sizeText(space.writtenByteCount)),
            ("  shared", "\(sizeText(space.sharedByteCount)) with other volumes"),
            ("  exclusive", "\(sizeText(space.exclusiveByteCount)) back when it is deleted"),
            ("  reclaimable", "\(sizeText(space.reclaimableByteCount)) back by itself"),
        ]
    } else {
        fields.append(("Space", "unknown"))
    }
    return fieldLines(fields)
}

/// `volctl volume resize`.
struct VolumeResize: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "resize",
        abstract: "Change a volume's size.",
        discussion: """
            A larger size reads as zeros behind the old end; hosts see it when they attach again. \
            A smaller one gives the tail up for good and needs --shrink.

            Examples:
              volctl volume resize vm1 20GiB
              volctl volume resize vm1 5GiB --shrink
            """
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var name: String
    @Argument(
        help: ArgumentHelp("The new size.", valueName: "size"),
        transform: ByteSize.volumeArgument
    )
    var size: ByteSize
    @Flag(help: "Permit a smaller size; what lies behind it is lost.")
    var shrink = false
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "volume")
        try Usage.require(volumeSize: size)
    }

    func run() async throws {
        let update = VolumeUpdate(byteCount: size.byteCount, allowShrink: shrink ? true : nil)
        let volume = try await cluster.withClient { client in
            try await client.named(name) { () throws(ControlError) in
                try await client.updateVolume(name, update)
            }
        }
        if cluster.json {
            printDocument(volume)
        } else {
            printText("\(volume.name) has \(sizeText(volume.byteCount)) now.")
        }
    }
}

/// `volctl volume delete`.
struct VolumeDelete: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Delete a volume and its snapshots.",
        discussion: """
            There is no way back. Refused while a host has the volume, while clones share data \
            with it, and while an image is made of one of its snapshots.
            """,
        aliases: ["rm"]
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var name: String
    @Flag(help: "Succeed when there is no such volume.")
    var ifExists = false
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(name, of: "volume")
    }

    func run() async throws {
        let deleted = try await cluster.withClient { client in
            do throws(ControlError) {
                try await client.named(name) { () throws(ControlError) in
                    try await client.deleteVolume(name)
                }
                return true
            } catch {
                guard ifExists, error.code == .volumeNotFound else { throw error }
                return false
            }
        }
        if cluster.json {
            printDocument(DeletionDocument(volume: name, deleted: deleted))
        } else {
            printText(deleted ? "Deleted \(name)." : "There is no volume \(name).")
        }
    }
}
