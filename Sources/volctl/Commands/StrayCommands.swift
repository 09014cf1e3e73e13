// volctl node strays, volctl node purge

import ArgumentParser
package import ControlAPI
import ProgramMain

/// `volctl node strays`.
struct NodeStrays: SingleNodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "strays",
        abstract: "List the volumes that a node holds and the cluster does not know.",
        discussion: """
            A node that was deleted as lost and comes back has some, and so has one whose volumes \
            are newer than a restored copy of the metadata. 'volctl node purge' deletes one.
            """
    )

    @OptionGroup var node: NodeArgument
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let strays = try await withNode { client, name throws(ControlError) in
            try await client.strays(of: name)
        }
        if cluster.json {
            printDocument(StrayVolumeList(volumes: strays))
        } else {
            printText(strayTable(strays).rendered(on: .output))
        }
    }
}

/// The table of `volctl node strays`.
package func strayTable(_ strays: [StrayVolume]) -> Table {
    var table = Table([
        .number("ID"), .text("NAME"), .number("SIZE"), .text("ACCESS"), .number("SNAPSHOTS"),
    ])
    for stray in strays {
        table.append([
            "\(stray.id)", stray.name, sizeText(stray.byteCount), stray.access.rawValue,
            "\(stray.snapshots.count)",
        ])
    }
    return table
}

/// `volctl node purge`.
struct NodePurge: SingleNodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge",
        abstract: "Delete a volume that a node holds and the cluster does not know.",
        discussion: """
            Its data and snapshots are gone for good. What the cluster knows is refused here: \
            'volctl volume delete' is for that.

            Examples:
              volctl node strays n3
              volctl node purge n3 8123456789
            """
    )

    @OptionGroup var node: NodeArgument
    @Argument(
        help: "The volume's id, as 'volctl node strays' shows it.",
        transform: Usage.number(1...APILimits.volumeIDMax)
    )
    var id: UInt64
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        guard (1...APILimits.volumeIDMax).contains(id) else {
            throw ValidationError("An id is 1 to \(APILimits.volumeIDMax).")
        }
    }

    func run() async throws {
        try await withNode { client, name throws(ControlError) in
            try await client.deleteStray(id, of: name)
        }
        if cluster.json {
            printDocument(DeletionDocument(volume: "\(id)", node: node.name, deleted: true))
        } else {
            printText("\(node.name) does not hold the volume \(id) any more.")
        }
    }
}
