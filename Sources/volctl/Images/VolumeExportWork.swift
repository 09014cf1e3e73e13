// A volume or snapshot becomes a file: written under another name, read back and compared, and
// only then given its own.

package import ControlAPI
import Foundation
import Glibc

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
        let byteCount = try await sourceByteCount(of: volume, client)
        let access = try await VolumeAccess.forReading(volume, client)
        let unfinished = "\(path).unfinished.\(getpid())"
        let digests: (source: String, file: String)?
        do {
            digests = try await copy(volume, byteCount, access, to: unfinished, client, progress)
            guard Path.rename(unfinished, to: path) else {
                throw CommandFailure("io_error", "Cannot write \(path): \(systemErrorText()).")
            }
            try await access.end()
        } catch {
            Path.remove(unfinished)
            try? await access.end()
            throw error
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
        let directory = (path as NSString).deletingLastPathComponent
        guard Path.isAccessible(directory, W_OK) else {
            throw CommandFailure(
                "cannot_write",
                "Cannot write to the directory \(directory): \(systemErrorText())."
            )
        }
        guard let status = Path.linkStatus(path) else { return }
        guard status.kind == .file else {
            throw CommandFailure("cannot_write", "\(path) exists and is not a file.")
        }
        guard canReplace else {
            throw CommandFailure(
                "already_exists",
                "The file \(path) exists.",
                remedy: "Choose another, or replace it with --force."
            )
        }
    }

    private func sourceByteCount(
        of volume: Volume,
        _ client: ControlClient
    ) async throws(ControlError) -> UInt64 {
        guard let name = source.snapshot else { return volume.byteCount }
        let reference = SnapshotReference(volume: volume.name, snapshot: name)
        return try await client.named(reference) { () throws(ControlError) in
            try await client.snapshot(name, of: volume.name).byteCount
        }
    }

    /// Copies and compares; a volume in use is exported from a snapshot that lives for as long.
    private func copy(
        _ volume: Volume,
        _ byteCount: UInt64,
        _ access: VolumeAccess,
        to file: String,
        _ client: ControlClient,
        _ progress: ProgressDisplay
    ) async throws -> (source: String, file: String)? {
        if let snapshot = source.snapshot {
            return try copy(access.uri(snapshot: snapshot), byteCount, to: file, progress)
        }
        let isInUse = volume.attachments.contains { $0.state == .attached && !$0.readOnly }
        guard isInUse else { return try copy(access.uri, byteCount, to: file, progress) }
        let temporary = "export-\(VolumeAccess.ownHost)"
        progress.note("\(volume.name) is in use; exporting what it holds at this moment")
        _ = try await client.createSnapshot(temporary, of: volume.name)
        do {
            let result = try copy(access.uri(snapshot: temporary), byteCount, to: file, progress)
            try await client.deleteSnapshot(temporary, of: volume.name)
            return result
        } catch {
            guard (try? await client.deleteSnapshot(temporary, of: volume.name)) == nil else {
                throw error
            }
            throw CommandFailure(
                "failed",
                "The export failed (\(error)), and its snapshot could not be removed.",
                remedy: "Remove it: volctl snapshot delete \(volume.name)@\(temporary)"
            )
        }
    }

    private func copy(
        _ uri: String?,
        _ byteCount: UInt64,
        to file: String,
        _ progress: ProgressDisplay
    ) throws -> (source: String, file: String)? {
        guard let uri else {
            throw CommandFailure("bad_response", "The service gave an NBD URI that is none.")
        }
        progress.begin("convert")
        try Conversion.export(uri, to: file, format: format, isCompressed: isCompressed)
            .run(progress: progress)
        guard isVerified else { return nil }
        progress.begin("checksum")
        let source = try ContentDigest.ofExport(uri, byteCount: byteCount, progress: progress)
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
