// volctl volume export

import ArgumentParser
import ControlAPI
import Foundation
import ProgramMain

/// `volctl volume export`.
struct VolumeExport: ClusterCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write a volume or a snapshot to a raw or qcow2 file.",
        discussion: """
            A volume is exported as it is at one moment, whoever uses it meanwhile. The file is \
            read back and the SHA-256 of both sides compared before it gets its name. What is \
            sparse stays sparse.

            Examples:
              volctl volume export vm1@monday vm1.qcow2
              volctl volume export vm1 /backup/vm1.img --format raw
            """
    )

    @Argument(
        help: ArgumentHelp("The volume, or a snapshot of it.", valueName: "volume[@snapshot]"),
        completion: NameCompletion.exportSources,
        transform: ExportSource.init(parsing:)
    )
    var source: ExportSource
    @Argument(help: "The file.", completion: .file())
    var file: String
    @Option(help: "The file's format; default qcow2 when its name ends so, else raw.")
    var format: ImageFormat?
    @Flag(help: "Compress the clusters of a qcow2 file.")
    var compress = false
    @Flag(help: "Replace a file of the name.")
    var force = false
    @Flag(inversion: .prefixedNo, help: "Read back and compare checksums.")
    var verify = true
    @Option(help: "How to show progress: auto, bar, json or none.")
    var progress: ProgressStyle = .auto
    @OptionGroup var cluster: ClusterOptions

    private var fileFormat: ImageFormat {
        format ?? (file.lowercased().hasSuffix(".qcow2") ? .qcow2 : .raw)
    }

    func validate() throws {
        guard file != "-", !file.isEmpty else {
            throw ValidationError(
                "The file is read back and renamed, so it cannot be standard output: give a name."
            )
        }
        guard !compress || fileFormat == .qcow2 else {
            throw ValidationError("--compress needs --format qcow2.")
        }
    }

    func run() async throws {
        Interruption.watch()
        let work = VolumeExportWork(
            source: source,
            path: absolutePath(file),
            format: fileFormat,
            isCompressed: compress,
            canReplace: force,
            isVerified: verify
        )
        let progress = ProgressDisplay(progress, isJSON: cluster.json)
        let report = try await cluster.withClient { try await work.run($0, progress: progress) }
        if cluster.json {
            printDocument(report)
        } else {
            printText(exportText(report))
        }
    }
}

/// The text of `volctl volume export`.
package func exportText(_ report: VolumeExportWork.Report) -> String {
    let source = report.snapshot.map { "\(report.volume)@\($0)" } ?? report.volume
    var text =
        "Exported \(source), \(sizeText(report.byteCount)), to \(report.file.printable) "
        + "(\(report.format), \(sizeText(report.fileByteCount)) on disk) in \(report.seconds) s."
    if let digest = report.fileSha256 { text += "\nSHA-256 \(digest), the same on both sides." }
    return text
}
