// An image becomes a volume: checked first, copied, read back and compared, and undone when any
// of it fails.

package import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// One import.
package struct ImageImport {
    /// The image's file.
    package var image: DiskImage
    /// The volume's name.
    package var volume: String
    /// The size of a new volume; nil takes the image's.
    package var size: ByteSize?
    /// Whether a volume that holds data may be overwritten.
    package var canOverwrite: Bool
    /// Whether to read back and compare.
    package var isVerified: Bool
    /// The node for a new volume.
    package var node: String?
    /// The durability of a new volume.
    package var durability: DurabilityMode?

    /// Creates an import, to be run.
    package init(
        image: DiskImage,
        volume: String,
        size: ByteSize?,
        canOverwrite: Bool,
        isVerified: Bool,
        node: String?,
        durability: DurabilityMode?
    ) {
        self.image = image
        self.volume = volume
        self.size = size
        self.canOverwrite = canOverwrite
        self.isVerified = isVerified
        self.node = node
        self.durability = durability
    }

    /// What an import did.
    package struct Report: Codable, Hashable, Sendable {
        /// The volume.
        package var volume: String
        /// Whether it was made by the import.
        package var created: Bool
        /// The format of the image.
        package var format: String
        /// The size of the disk in the image.
        package var imageByteCount: UInt64
        /// The size of the volume.
        package var byteCount: UInt64
        /// Bytes that the volume holds, when its node answered.
        package var writtenByteCount: UInt64?
        /// The SHA-256 of the disk in the image, computed from the image.
        package var sourceSha256: String?
        /// The same computed from the volume; equal, or the import would have failed.
        package var volumeSha256: String?
        /// Seconds that it took.
        package var seconds: Double
        /// The image in the catalogue, as `NAME:VERSION`, when one was asked for.
        package var image: String?
    }

    /// Does it.
    ///
    /// - Throws: ``CommandFailure``; a volume that the import made is gone again, or the message
    ///   says how to remove it.
    package func run(_ client: ControlClient, progress: ProgressDisplay) async throws -> Report {
        let start = ContinuousClock.now
        if isVerified {
            _ = try Tool.nbdCopy.located()
            _ = try Tool.qemuServer.located()
        }
        _ = try Tool.qemuImage.located()
        if image.format == .qcow2 { progress.begin("check") }
        try image.checkIntegrity()
        let (target, isNew) = try await makeVolume(client)
        do {
            let digests = try await fill(target, isNew: isNew, client, progress)
            let now = try? await client.volume(volume)
            let elapsed = ContinuousClock.now - start
            return Report(
                volume: volume,
                created: isNew,
                format: image.format.rawValue,
                imageByteCount: image.virtualByteCount,
                byteCount: target.byteCount,
                writtenByteCount: now?.space?.writtenByteCount,
                sourceSha256: digests?.source,
                volumeSha256: digests?.volume,
                seconds: (elapsed / .milliseconds(1)).rounded() / 1000
            )
        } catch {
            throw await undone(isNew: isNew, because: error, client)
        }
    }

    // MARK: - The volume

    /// The volume to fill; made when there is none of the name.
    private func makeVolume(_ client: ControlClient) async throws -> (Volume, isNew: Bool) {
        let existing: Volume?
        do throws(ControlError) {
            existing = try await client.volume(volume)
        } catch {
            guard error.code == .volumeNotFound else { throw error }
            existing = nil
        }
        if let existing {
            try check(existing)
            return (existing, false)
        }
        let byteCount = size?.byteCount ?? image.volumeByteCount
        guard byteCount >= image.virtualByteCount else {
            throw tooLarge(
                for: byteCount,
                remedy: "Leave --size away, or give at least \(neededSize.argumentText)."
            )
        }
        let creation = VolumeCreation(
            name: volume,
            byteCount: byteCount,
            durability: durability,
            node: node
        )
        return (try await client.createVolume(creation), true)
    }

    /// Refuses a volume that is too small, or that holds something.
    private func check(_ existing: Volume) throws(CommandFailure) {
        guard image.virtualByteCount <= existing.byteCount else {
            throw tooLarge(
                for: existing.byteCount,
                remedy: "Enlarge it: volctl volume resize \(volume) \(neededSize.argumentText)"
            )
        }
        if let size, size.byteCount != existing.byteCount {
            throw CommandFailure(
                "already_exists",
                "Volume '\(volume)' exists and has \(sizeText(existing.byteCount)), not \(size).",
                remedy: "Leave --size away, or: volctl volume resize \(volume) \(size.argumentText)"
            )
        }
        guard canOverwrite || existing.space?.writtenByteCount == 0 else {
            throw CommandFailure(
                "already_exists",
                "Volume '\(volume)' holds \(sizeText(existing.space?.writtenByteCount)) of data.",
                remedy: "Choose another name, or overwrite it with --overwrite."
            )
        }
    }

    private var neededSize: ByteSize { ByteSize(byteCount: image.volumeByteCount) }

    private func tooLarge(for byteCount: UInt64, remedy: String) -> CommandFailure {
        CommandFailure(
            "image_too_large",
            "\(image.path) holds a disk of \(neededSize), "
                + "the volume '\(volume)' only \(sizeText(byteCount)).",
            remedy: remedy
        )
    }

    // MARK: - Its content

    /// Copies and compares, with the volume attached to this process only.
    private func fill(
        _ target: Volume,
        isNew: Bool,
        _ client: ControlClient,
        _ progress: ProgressDisplay
    ) async throws -> (source: String, volume: String)? {
        let access = try await VolumeAccess.forWriting(volume, client)
        do {
            let isBlank = isNew || target.space?.writtenByteCount == 0
            progress.begin("convert")
            try Conversion.import(image, to: access.uri, isBlank: isBlank).run(progress: progress)
            if !isBlank { try zeroTail(of: target, access.uri, progress) }
            let digests = isVerified ? try compare(access.uri, progress) : nil
            try await access.end()
            return digests
        } catch {
            try? await access.end()
            throw error
        }
    }

    /// Makes a larger volume read as zeros behind the image.
    private func zeroTail(of target: Volume, _ uri: String, _ progress: ProgressDisplay) throws {
        let commands = Self.zeroCommands(from: image.virtualByteCount, to: target.byteCount)
        guard !commands.isEmpty else { return }
        progress.begin("zero")
        for start in stride(from: 0, to: commands.count, by: Self.zeroCommandCountMax) {
            let batch = commands[start..<min(start + Self.zeroCommandCountMax, commands.count)]
            let arguments = ["-f", "raw", "-t", "writeback"] + batch.flatMap { ["-c", $0] }
            let result = try Tool.qemuIO.run(arguments + [uri]) { _ in }
            guard result.isSuccess else {
                throw CommandFailure("convert_failed", "qemu-io could not zero: \(result.reason).")
            }
        }
    }

    /// Commands of one `qemu-io`, so that its command line stays far below the kernel's limit.
    private static var zeroCommandCountMax: Int { 1000 }
    /// Bytes of one command; QEMU takes less than 2 GiB at a time.
    private static var zeroCommandByteCountMax: UInt64 { 1 << 30 }

    /// The `qemu-io` commands that make a range read as zeros and give its space back.
    package static func zeroCommands(from start: UInt64, to end: UInt64) -> [String] {
        stride(from: start, to: end, by: Int(zeroCommandByteCountMax)).map { offset in
            "write -z -u \(offset) \(min(zeroCommandByteCountMax, end - offset))"
        }
    }

    private func compare(
        _ uri: String,
        _ progress: ProgressDisplay
    ) throws -> (source: String, volume: String) {
        progress.begin("checksum")
        let source = try ContentDigest.of(image, progress: progress)
        progress.begin("verify")
        let copy = try ContentDigest.ofExport(
            uri,
            byteCount: image.virtualByteCount,
            progress: progress
        )
        progress.finishLine()
        guard source == copy else {
            throw CommandFailure(
                "checksum_mismatch",
                "The volume does not hold what the image does: SHA-256 \(copy), not \(source).",
                remedy: "Was the image changed meanwhile? Import it again."
            )
        }
        return (source, copy)
    }

    // MARK: - Undoing

    /// Removes what a failed import made, and says so when that fails too.
    private func undone(
        isNew: Bool,
        because error: any Error,
        _ client: ControlClient
    ) async -> CommandFailure {
        var failure =
            switch error {
            case let failure as CommandFailure: failure
            case let error as ControlError: CommandFailure(error)
            default: CommandFailure("failed", "The import failed: \(error).")
            }
        let rest: String
        if isNew {
            guard (try? await client.deleteVolume(volume)) == nil else { return failure }
            rest = "A half-filled volume is left; remove it: volctl volume delete \(volume)"
        } else {
            let codes: [ControlError.Code] = [.volumeAttached, .volumeNotFound, .unreachable]
            if let error = error as? ControlError, codes.contains(error.code) { return failure }
            rest = "'\(volume)' may hold part of the image; import again or roll it back."
        }
        failure.remedy = failure.remedy.map { "\($0) \(rest)" } ?? rest
        return failure
    }
}
