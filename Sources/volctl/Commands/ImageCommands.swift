// volctl image …

package import ArgumentParser
package import ControlAPI
import Foundation
import ProgramMain

/// `volctl image`.
package struct ImageCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "image",
        abstract: "Bring disk images in, and keep a catalogue of snapshots to clone.",
        subcommands: [
            ImageImportCommand.self, ImageCreate.self, ImageListCommand.self, ImageDelete.self,
        ]
    )

    package init() {}
}

/// `volctl image import`.
struct ImageImportCommand: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Make a volume of a raw or qcow2 image.",
        discussion: """
            The image is checked first; then it is copied, read back from the volume, and the \
            SHA-256 of both sides compared. What is sparse stays sparse. When anything fails, a \
            volume that was made is removed again, unless somebody took it meanwhile.

            Examples:
              volctl image import debian-12.qcow2 base
              volctl image import debian-12.qcow2 base --size 20GiB --catalogue debian:12
              volctl image import http://192.168.1.5:8000/disk.raw vm1
            """
    )

    @Argument(
        help: ArgumentHelp("A file, or an http or https URL.", valueName: "file"),
        completion: .file()
    )
    var source: String
    @Argument(
        help: "The volume; made when there is none of the name.",
        completion: NameCompletion.volumes
    )
    var volume: String
    @Option(help: "The image's format; default found out from its first bytes.")
    var format: ImageFormat?
    @Option(
        help: ArgumentHelp("The size of the new volume; default the image's.", valueName: "size"),
        transform: ByteSize.volumeArgument
    )
    var size: ByteSize?
    @Option(help: "When a write to the new volume is acknowledged; default writeback.")
    var durability: DurabilityMode?
    @Option(help: "The node to place the new volume on.")
    var node: String?
    @Option(
        help: ArgumentHelp(
            "The copies of the new volume, 1 to 5; default 3 where three nodes take some, else 1.",
            valueName: "n"
        ),
        transform: Usage.number(1...APILimits.replicaCountMax)
    )
    var replicas: Int?
    @Flag(help: "Overwrite a volume that holds data.")
    var overwrite = false
    @Flag(inversion: .prefixedNo, help: "Read back and compare checksums.")
    var verify = true
    @Option(
        help: ArgumentHelp(
            "Also snapshot the volume and put it into the catalogue.",
            valueName: "image:version"
        ),
        transform: ImageReference.init(parsing:)
    )
    var catalogue: ImageReference?
    @Option(
        help: ArgumentHelp("The largest download accepted.", valueName: "size"),
        transform: ByteSize.argument
    )
    var downloadLimit = ByteSize(byteCount: 256 << 30)
    @Option(help: "How to show progress: auto, bar, json or none.")
    var progress: ProgressStyle = .auto
    @OptionGroup var cluster: ClusterOptions

    func validate() throws {
        try Usage.require(volume, of: "volume")
        try Usage.require(node, of: "node")
        try Usage.require(volumeSize: size)
    }

    func run() async throws {
        Interruption.watch()
        let progress = ProgressDisplay(progress, isJSON: cluster.json)
        let entry = catalogue.map { image in
            let file = FilePath.name(of: source)
            return CatalogueEntry(
                image: image,
                description: Download.isURL(source) ? shownURL(source) : file
            )
        }
        let report = try await cluster.withClient { client in
            // Before a long download: is anybody there to give the image to?
            _ = try await client.health()
            try await ImageImport.requireNoImport(into: volume, client)
            try await entry?.requireFree(for: volume, client)
            let download = try await fetch(progress)
            defer { download?.remove() }
            do {
                let work = ImageImport(
                    image: try DiskImage(inspecting: download?.path ?? source, format: format),
                    volume: volume,
                    size: size,
                    canOverwrite: overwrite,
                    isVerified: verify,
                    node: node,
                    durability: durability,
                    replicas: replicas,
                    catalogue: entry
                )
                return try await work.run(client, progress: progress)
            } catch var failure as CommandFailure {
                // The file of a download is gone when its name is read.
                if let download { failure.rename(download.path, to: shownURL(source)) }
                throw failure
            }
        }
        if cluster.json {
            printDocument(report)
        } else {
            printText(importText(report))
        }
    }

    private func fetch(_ progress: ProgressDisplay) async throws -> Download? {
        guard Download.isURL(source) else { return nil }
        progress.begin("download")
        let directory =
            try cluster.choice().data.map { "\($0)/downloads" } ?? UserDirectories().cache
        return try await Download(
            source,
            into: directory,
            byteCountMax: downloadLimit.byteCount,
            progress: progress
        )
    }
}

/// The text of `volctl image import`.
package func importText(_ report: ImageImport.Report) -> String {
    let written = report.writtenByteCount.map { ", \(sizeText($0)) of it written" } ?? ""
    var text =
        "Imported a \(report.format) image of \(sizeText(report.imageByteCount)) into "
        + "\(report.volume) (\(sizeText(report.byteCount))\(written)) in \(report.seconds) s."
    if let digest = report.volumeSha256 {
        text += "\nSHA-256 \(digest), the same on both sides."
    }
    if let image = report.image {
        text += "\nIn the catalogue as \(image); clone it: volctl clone \(image) NAME"
    } else {
        text += "\nTo clone it: volctl snapshot create \(report.volume)@clean"
    }
    return text
}

/// `volctl image create`.
struct ImageCreate: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Put a snapshot into the catalogue.",
        discussion: """
            Example:
              volctl image create debian:12 base@clean --description 'Debian 12, cloud-init'
            """
    )

    @Argument(
        help: ArgumentHelp("The image's name and version.", valueName: "image:version"),
        transform: ImageReference.init(parsing:)
    )
    var image: ImageReference
    @Argument(
        help: ArgumentHelp("The snapshot.", valueName: "volume@snapshot"),
        completion: NameCompletion.snapshots,
        transform: SnapshotReference.init(parsing:)
    )
    var snapshot: SnapshotReference
    @Option(help: "What it is, for people.")
    var description: String?
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let creation = ImageCreation(
            name: image.name,
            version: image.version,
            volume: snapshot.volume,
            snapshot: snapshot.snapshot,
            description: description
        )
        let made = try await cluster.withClient { client in
            try await client.named(snapshot) { () throws(ControlError) in
                try await client.createImage(creation)
            }
        }
        if cluster.json {
            printDocument(made)
        } else {
            printText("\(snapshot) is in the catalogue as \(image).")
        }
    }
}

/// `volctl image list`.
struct ImageListCommand: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the catalogue.",
        aliases: ["ls"]
    )

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let images = try await cluster.withClient { try await $0.images() }
        if cluster.json {
            printDocument(ImageList(images: images))
        } else if images.isEmpty {
            printText(
                "The catalogue is empty. Fill it: volctl image create IMAGE:VERSION VOLUME@SNAP"
            )
        } else {
            printText(imageTable(images).rendered(on: .output))
        }
    }
}

/// The table of `volctl image list`.
package func imageTable(_ images: [Image]) -> Table {
    var table = Table([
        .text("IMAGE"), .number("SIZE"), .text("SNAPSHOT"), .text("CREATED"), .text("DESCRIPTION"),
    ])
    for image in images {
        table.append([
            "\(image.name):\(image.version)", sizeText(image.byteCount),
            "\(image.volume)@\(image.snapshot)", timeText(image.createdAt), image.description,
        ])
    }
    return table
}

/// `volctl image delete`.
struct ImageDelete: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Take an image out of the catalogue; its snapshot stays.",
        aliases: ["rm"]
    )

    @Argument(
        help: ArgumentHelp("The image's name and version.", valueName: "image:version"),
        completion: NameCompletion.images,
        transform: ImageReference.init(parsing:)
    )
    var image: ImageReference
    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        try await cluster.withClient {
            try await $0.deleteImage(image.name, version: image.version)
        }
        if cluster.json {
            printDocument(DeletionDocument(image: image.description, deleted: true))
        } else {
            printText("\(image) is out of the catalogue.")
        }
    }
}
