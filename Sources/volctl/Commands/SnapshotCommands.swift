// volctl snapshot … and volctl clone

package import ArgumentParser
package import ControlAPI
import Foundation
import ProgramMain

/// `volctl snapshot`.
package struct SnapshotCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Keep the states of volumes, and go back to them.",
        subcommands: [
            SnapshotCreate.self, SnapshotListCommand.self, SnapshotDelete.self,
            SnapshotRollback.self,
        ]
    )

    package init() {}
}

private let snapshotHelp = ArgumentHelp(
    "The volume and the snapshot's name.",
    valueName: "volume@snapshot"
)

/// `volctl snapshot create`.
struct SnapshotCreate: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Keep what a volume holds now, at once and whatever its size.",
        discussion: """
            A volume in use may be snapshotted: the snapshot is what a power cut at that moment \
            would have left.

            Example:
              volctl snapshot create vm1@before-upgrade
            """
    )

    @Argument(
        help: snapshotHelp,
        completion: NameCompletion.snapshots,
        transform: SnapshotReference.init(parsing:)
    )
    var snapshot: SnapshotReference
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let made = try await cluster.withClient { client in
            try await client.named(snapshot.volume) { () throws(ControlError) in
                try await client.createSnapshot(snapshot.snapshot, of: snapshot.volume)
            }
        }
        if cluster.json {
            printDocument(made)
        } else {
            printText("Created \(made.volume)@\(made.name).")
        }
    }
}

/// `volctl snapshot list`.
struct SnapshotListCommand: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List a volume's snapshots, oldest first.",
        aliases: ["ls"]
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var volume: String
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(volume, of: "volume")
    }

    func run() async throws {
        let snapshots = try await cluster.withClient { client in
            try await client.named(volume) { () throws(ControlError) in
                try await client.snapshots(of: volume)
            }
        }
        if cluster.json {
            printDocument(SnapshotList(snapshots: snapshots))
        } else if snapshots.isEmpty {
            printText("\(volume) has no snapshots. Take one: volctl snapshot create \(volume)@NAME")
        } else {
            printText(snapshotTable(snapshots).rendered(on: .output))
        }
    }
}

/// The table of `volctl snapshot list`.
package func snapshotTable(_ snapshots: [Snapshot]) -> Table {
    var table = Table([
        .text("NAME"), .number("SIZE"), .number("OWN"), .number("CLONES"), .text("IMAGES"),
        .text("CREATED"),
    ])
    for snapshot in snapshots {
        table.append([
            snapshot.name, sizeText(snapshot.byteCount), sizeText(snapshot.ownByteCount),
            snapshot.cloneCount.map { "\($0)" } ?? "", snapshot.images.joined(separator: ", "),
            timeText(snapshot.createdAt),
        ])
    }
    return table
}

/// `volctl snapshot delete`.
struct SnapshotDelete: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Delete a snapshot; clones keep what they need of it.",
        aliases: ["rm"]
    )

    @Argument(
        help: snapshotHelp,
        completion: NameCompletion.snapshots,
        transform: SnapshotReference.init(parsing:)
    )
    var snapshot: SnapshotReference
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        try await cluster.withClient { client in
            try await client.named(snapshot) { () throws(ControlError) in
                try await client.deleteSnapshot(snapshot.snapshot, of: snapshot.volume)
            }
        }
        if cluster.json {
            printDocument(
                DeletionDocument(
                    volume: snapshot.volume,
                    snapshot: snapshot.snapshot,
                    deleted: true
                )
            )
        } else {
            printText("Deleted \(snapshot).")
        }
    }
}

/// `volctl snapshot rollback`.
struct SnapshotRollback: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Make a volume read as its snapshot does.",
        discussion: """
            What was written since is given up, and the volume has its size of then; it must be \
            attached to nobody. Take \
            another snapshot first to be able to come back.
            """
    )

    @Argument(
        help: snapshotHelp,
        completion: NameCompletion.snapshots,
        transform: SnapshotReference.init(parsing:)
    )
    var snapshot: SnapshotReference
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let (before, volume) = try await cluster.withClient { client in
            try await client.named(snapshot) { () throws(ControlError) in
                let before = try await client.volume(snapshot.volume)
                return (before, try await client.rollback(snapshot.volume, to: snapshot.snapshot))
            }
        }
        if cluster.json {
            printDocument(volume)
        } else {
            printText(rollbackText(snapshot, from: before.byteCount, to: volume.byteCount))
        }
    }
}

/// The text of `volctl snapshot rollback`.
package func rollbackText(
    _ snapshot: SnapshotReference,
    from before: UInt64,
    to after: UInt64
) -> String {
    let text = "\(snapshot.volume) reads as \(snapshot) now."
    guard before != after else { return text }
    let sizes = [before, after].map { ByteSize(byteCount: $0).exactText }
    return "\(text) Its size went from \(sizes[0]) back to \(sizes[1])."
}

/// `volctl clone`.
package struct CloneCommand: ClusterCommand {
    package static let configuration = CommandConfiguration(
        commandName: "clone",
        abstract: "Make a volume that starts as a snapshot or an image, at once.",
        discussion: """
            The two share what neither has overwritten.

            Examples:
              volctl clone base@clean vm1
              volctl clone debian:12 vm2
            """
    )

    @Argument(
        help: ArgumentHelp(
            "The snapshot as VOLUME@SNAPSHOT, or the image as NAME:VERSION.",
            valueName: "source"
        ),
        completion: NameCompletion.cloneSources,
        transform: CloneSource.init(parsing:)
    )
    var source: CloneSource
    @Argument(help: "The new volume's name.")
    var name: String
    @Option(help: "When a write to it is acknowledged; default as its source.")
    var durability: DurabilityMode?
    @OptionGroup package var cluster: ClusterOptions

    package init() {}

    package func validate() throws {
        try Usage.require(name, of: "volume")
    }

    package func run() async throws {
        let creation = CloneCreation(name: name, durability: durability)
        let volume = try await cluster.withClient { client in
            switch source {
            case .snapshot(let reference):
                try await client.named(reference) { () throws(ControlError) in
                    try await client.clone(
                        reference.volume,
                        snapshot: reference.snapshot,
                        creation
                    )
                }
            case .image(let image):
                try await client.cloneImage(image.name, version: image.version, creation)
            }
        }
        if cluster.json {
            printDocument(volume)
        } else {
            printText(
                "Created \(volume.name), \(sizeText(volume.byteCount)), on \(volume.primary)."
            )
        }
    }
}
