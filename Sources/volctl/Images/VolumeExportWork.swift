// A volume or snapshot becomes a file: written under another name, read back and compared, and
// only then given its own.

package import ControlAPI
import Foundation
import Glibc
package import ProgramMain

/// One export.
package struct VolumeExportWork {
    /// What to export.
    package var source: ExportSource
    /// The file, an absolute path.
    package var path: String
    /// Its format.
    package var format: ImageFormat
    /// Whether the clusters of a qcow2 file are compressed.
    package var isCompressed: Bool
    /// Whether a file of the name may be replaced.
    package var canReplace: Bool
    /// Whether to read back and compare.
    package var isVerified: Bool

    /// What an export did.
    package struct Report: Codable, Hashable, Sendable {
        /// The volume.
        package var volume: String
        /// The snapshot, when one was asked for.
        package var snapshot: String?
        /// The file.
        package var file: String
        /// Its format.
        package var format: String
        /// The size of the disk.
        package var byteCount: UInt64
        /// Bytes that the file takes.
        package var fileByteCount: UInt64
        /// The SHA-256 of the disk, computed from the volume.
        package var sourceSha256: String?
        /// The same computed from the file; equal, or the export would have failed.
        package var fileSha256: String?
        /// Seconds that it took.
        package var seconds: Double
    }

    /// Does it.
    ///
    /// - Throws: ``CommandFailure``; the file is then as it was.
    package func run(_ client: ControlClient, progress: ProgressDisplay) async throws -> Report {
        let start = ContinuousClock.now
        if isVerified { _ = try Tool.nbdCopy.located() }
        if isVerified, format == .qcow2 { _ = try Tool.qemuServer.located() }
        _ = try Tool.qemuImage.located()
        try checkFile()
        let volume = try await client.existingVolume(source.volume)
        let unfinished = "\(path).unfinished.\(getpid())"
        let (byteCount, digests) = try await source.withSnapshot(of: volume.name, client) {
            snapshot in
            let digests = try await snapshot.withExport(of: volume, client) { node in
                do {
                    let digests = try copy(node, snapshot.byteCount, to: unfinished, progress)
                    try takeName(unfinished)
                    return digests
                } catch {
                    Path.remove(unfinished)
                    throw error
                }
            }
            return (snapshot.byteCount, digests)
        }
        return Report(
            volume: source.volume,
            snapshot: source.snapshot,
            file: path,
            format: format.rawValue,
            byteCount: byteCount,
            fileByteCount: Path.status(path)?.allocatedByteCount ?? 0,
            sourceSha256: digests?.source,
            fileSha256: digests?.file,
            seconds: ((ContinuousClock.now - start) / .milliseconds(1)).rounded() / 1000
        )
    }

    /// Refuses before any work what the final rename would refuse, or should.
    private func checkFile() throws(CommandFailure) {
        let directory = FilePath.parent(of: path)
        guard Path.isAccessible(directory, W_OK) else {
            throw CommandFailure(
                "cannot_write",
                "Cannot write to the directory \(directory): \(systemErrorText())."
            )
        }
        guard let status = Path.linkStatus(path) else { return }
        guard status.kind == .file else {
            let what = status.kind == .link ? "is a symbolic link" : "exists and is not a file"
            throw CommandFailure(
                "cannot_write",
                "\(path) \(what).",
                remedy: "Give the name of a new file."
            )
        }
        guard canReplace else { throw fileExists }
    }

    private var fileExists: CommandFailure {
        CommandFailure(
            "already_exists",
            "The file \(path) exists.",
            remedy: "Choose another, or replace it with --force."
        )
    }

    /// Gives the finished file its name, which somebody may have taken since the work began.
    private func takeName(_ unfinished: String) throws(CommandFailure) {
        let isNamed =
            canReplace
            ? Path.rename(unfinished, to: path) : Path.renameUnlessTaken(unfinished, to: path)
        guard !isNamed else { return }
        guard errno != EEXIST || canReplace else { throw fileExists }
        throw CommandFailure("io_error", "Cannot write \(path): \(systemErrorText()).")
    }

    private func copy(
        _ node: ServingNode,
        _ byteCount: UInt64,
        to file: String,
        _ progress: ProgressDisplay
    ) throws -> (source: String, file: String)? {
        progress.begin("convert")
        try Conversion.export(node, to: file, format: format, isCompressed: isCompressed)
            .run(progress: progress)
        guard isVerified else { return nil }
        progress.begin("checksum")
        let source = try ContentDigest.ofExport(node, byteCount: byteCount, progress: progress)
        progress.begin("verify")
        let image = try DiskImage(inspecting: file, format: format)
        let copy = try ContentDigest.of(image, progress: progress)
        progress.finishLine()
        guard image.virtualByteCount == byteCount, source == copy else {
            throw CommandFailure(
                "checksum_mismatch",
                "The file does not hold what the volume does: SHA-256 \(copy), not \(source).",
                remedy: "Check the disk that the file is on, and export again."
            )
        }
        return (source, copy)
    }
}

extension ExportSource {
    /// Calls `body` with the snapshot that was asked for, or with one that is taken for it.
    package func withSnapshot<Value>(
        of volume: String,
        _ client: ControlClient,
        _ body: (Snapshot) async throws -> Value
    ) async throws -> Value {
        if let name = snapshot {
            let reference = SnapshotReference(volume: volume, snapshot: name)
            let found = try await client.named(reference) { () throws(ControlError) in
                try await client.snapshot(name, of: volume)
            }
            return try await body(found)
        }
        let temporary = "export-\(VolumeAccess.processTag)"
        try await take(temporary, of: volume, client)
        let result: Result<Value, any Error>
        do {
            let taken = try await client.snapshot(temporary, of: volume)
            result = .success(try await body(taken))
        } catch {
            result = .failure(error)
        }
        do throws(ControlError) {
            try await client.deleteSnapshot(temporary, of: volume)
        } catch {
            let outcome =
                switch result {
                case .success: "The file is written"
                case .failure(let error): "The export failed (\(error))"
                }
            throw CommandFailure(
                "failed",
                "\(outcome), but the snapshot for it could not be removed: \(error.detail)",
                remedy: "Remove it: volctl snapshot delete \(volume)@\(temporary)"
            )
        }
        return try result.get()
    }

    /// Takes the snapshot; where nobody knows whether it was taken, it is removed.
    private func take(_ name: String, of volume: String, _ client: ControlClient) async throws {
        let failure: ControlError
        do throws(ControlError) {
            _ = try await client.createSnapshot(name, of: volume)
            return
        } catch {
            failure = error
        }
        guard failure.code == .outcomeUnknown else { throw failure }
        do throws(ControlError) {
            try await client.deleteSnapshot(name, of: volume)
        } catch  where error.code == .snapshotNotFound || error.code == .volumeNotFound {
            // It never was.
        } catch {
            throw CommandFailure(
                error.code.rawValue,
                "It is not known whether the snapshot for the export was taken: \(error.detail)",
                remedy: "When the node answers again, remove it if it is there: volctl snapshot "
                    + "delete \(volume)@\(name)"
            )
        }
        throw failure
    }
}
