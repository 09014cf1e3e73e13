// An image becomes a volume: checked first, copied, read back and compared, and undone when any
// of it fails.
//
// Invariant: a volume is written and deleted only while it is attached to this import. The service
// checks that as it deletes, so what somebody took meanwhile is left to them.

package import ControlAPI
import Foundation
import Glibc
package import ProgramMain

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
    /// The number of copies of a new volume; nil for what the service gives by itself.
    package var replicas: Int?
    /// Where the volume is entered into the catalogue, when it is.
    package var catalogue: CatalogueEntry?

    /// Creates an import, to be run.
    package init(
        image: DiskImage,
        volume: String,
        size: ByteSize?,
        canOverwrite: Bool,
        isVerified: Bool,
        node: String?,
        durability: DurabilityMode?,
        replicas: Int? = nil,
        catalogue: CatalogueEntry? = nil
    ) {
        self.image = image
        self.volume = volume
        self.size = size
        self.canOverwrite = canOverwrite
        self.isVerified = isVerified
        self.node = node
        self.durability = durability
        self.replicas = replicas
        self.catalogue = catalogue
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
        let access = try await attached(isNew: isNew, client)
        var undo = ImportUndo(access: access, isNew: isNew)
        var report: Report
        do {
            let isBlank = try await confirm(target, client, &undo)
            let digests = try fill(
                target,
                isBlank: isBlank,
                ServingNode(name: target.primary, uri: try access.uri),
                progress
            )
            if let catalogue {
                try await catalogue.enter(volume, sha256: digests?.volume, client)
            }
            let now = try? await client.volume(volume)
            report = Report(
                volume: volume,
                created: isNew,
                format: image.format.rawValue,
                imageByteCount: image.virtualByteCount,
                byteCount: target.byteCount,
                writtenByteCount: now?.space?.writtenByteCount,
                sourceSha256: digests?.source,
                volumeSha256: digests?.volume,
                seconds: 0,
                image: catalogue?.image.description
            )
        } catch {
            throw await undo.run(because: error, client)
        }
        try await undo.endWhole()
        let elapsed = ContinuousClock.now - start
        report.seconds = (elapsed / .milliseconds(1)).rounded() / 1000
        return report
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
        return (try await makeNewVolume(client), true)
    }

    private func makeNewVolume(_ client: ControlClient) async throws -> Volume {
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
            replicas: replicas,
            node: node
        )
        do throws(ControlError) {
            return try await client.createVolume(creation)
        } catch {
            // Another import of the name may have been faster, by less than it took to look.
            if error.code == .alreadyExists {
                try await Self.requireNoImport(into: volume, client)
            }
            throw error
        }
    }

    /// Refuses a volume that another import has; called before anything long is done for it.
    package static func requireNoImport(into volume: String, _ client: ControlClient) async throws {
        let existing: Volume
        do throws(ControlError) {
            existing = try await client.volume(volume)
        } catch {
            guard error.code == .volumeNotFound else { throw error }
            return
        }
        if let failure = heldByImport(existing) { throw failure }
    }

    /// Refuses a volume that is too small, or that holds something.
    private func check(_ existing: Volume) throws(CommandFailure) {
        if let failure = Self.heldByImport(existing) { throw failure }
        guard image.virtualByteCount <= existing.byteCount else {
            throw tooLarge(
                for: existing.byteCount,
                remedy: "Enlarge it: volctl volume resize \(volume) \(neededSize.argumentText)"
            )
        }
        if let size, size.byteCount != existing.byteCount {
            guard image.virtualByteCount <= size.byteCount else {
                throw tooLarge(for: size.byteCount, remedy: "Leave --size away.")
            }
            let shrink = size.byteCount < existing.byteCount ? " --shrink" : ""
            throw CommandFailure(
                "already_exists",
                "Volume '\(volume)' exists and has "
                    + "\(ByteSize(byteCount: existing.byteCount).exactText), not \(size.exactText).",
                remedy: "Leave --size away, or: volctl volume resize \(volume) "
                    + "\(size.argumentText)\(shrink)"
            )
        }
        guard !canOverwrite else { return }
        guard let byteCount = existing.space?.writtenByteCount else {
            throw CommandFailure(
                "unavailable",
                "The node '\(existing.primary)' does not tell whether '\(volume)' holds data.",
                remedy:
                    "Import again when it answers; 'volctl node show \(existing.primary)' shows "
                    + "its state."
            )
        }
        guard byteCount == 0 else {
            throw CommandFailure(
                "already_exists",
                "Volume '\(volume)' holds \(sizeText(byteCount)) of data.",
                remedy: "Choose another name, or overwrite it with --overwrite."
            )
        }
    }

    /// Attaches the volume to this import; without that it is nobody's to fill or to delete.
    private func attached(
        isNew: Bool,
        _ client: ControlClient
    ) async throws -> VolumeAccess {
        do throws(ControlError) {
            return try await VolumeAccess.forWriting(volume, client)
        } catch {
            guard isNew else { throw held(error) }
            var failure = CommandFailure(error)
            if error.code == .volumeAttached {
                let host = error.holder.map { "'\($0)'" } ?? "another host"
                failure.problem =
                    "The volume '\(volume)' that this import made was attached to \(host) before "
                    + "it could fill it, and is left to that host."
                failure.remedy = "Import under another name, or when that host is done."
                throw failure
            }
            // The answer may have been lost: then the volume is ours, and goes.
            let host = VolumeAccess.ownHost
            if (try? await client.deleteVolume(volume, heldBy: host)) != nil { throw failure }
            failure.append(
                "The empty volume '\(volume)' that was made is left; 'volctl volume show "
                    + "\(volume)' tells whether '\(host)' has it, 'volctl volume delete "
                    + "\(volume)' removes it."
            )
            throw failure
        }
    }

    private static func heldByImport(_ existing: Volume) -> CommandFailure? {
        let hosts = existing.attachments.filter { $0.state == .attached }.map(\.host)
        return hosts.first(where: VolumeAccess.isOtherImport).map {
            heldByImport($0, existing.name)
        }
    }

    /// Another import has the volume, or had it when it was killed.
    ///
    /// Only the host's name is left of that one; whether it runs can be seen on this machine only.
    private static func heldByImport(_ host: String, _ volume: String) -> CommandFailure {
        var failure = CommandFailure(
            "volume_attached",
            "The volume '\(volume)' is attached to another import, '\(host)'."
        )
        if let pid = VolumeAccess.runningImport(of: host, into: volume) {
            failure.problem =
                "The volume '\(volume)' is being filled by another import, '\(host)'."
            failure.remedy =
                "It runs here as process \(pid): wait until it ends, or have it undone with "
                + "'kill \(pid)'."
        } else {
            failure.remedy =
                "It is not seen to run on this machine. If it runs nowhere, free what it left: "
                + "volctl detach \(volume) --host \(host); then import again with --overwrite, or "
                + "remove it: volctl volume delete \(volume)"
        }
        return failure
    }

    /// Why a volume that was there cannot be attached; an import takes none by force.
    private func held(_ error: ControlError) -> CommandFailure {
        guard error.code == .volumeAttached, let host = error.holder else {
            return CommandFailure(error)
        }
        guard !VolumeAccess.isOtherImport(host) else {
            return Self.heldByImport(host, volume)
        }
        return CommandFailure(
            error.code.rawValue,
            error.detail,
            remedy: "Import under another name, or free it when that host is done: "
                + "volctl detach \(volume) --host \(host)"
        )
    }

    /// Looks at the volume again now that nobody else can write to it.
    ///
    /// Between its making and its attaching somebody may have filled it, or deleted it and made
    /// another of its name: that one is not this import's to undo.
    ///
    /// - Returns: Whether it reads as zeros.
    private func confirm(
        _ target: Volume,
        _ client: ControlClient,
        _ undo: inout ImportUndo
    ) async throws -> Bool {
        let now = try await client.volume(volume)
        guard now.id == target.id else {
            undo.isUntouched = true
            throw CommandFailure(
                "already_exists",
                "Somebody made '\(volume)' anew meanwhile.",
                remedy: "Import again, or under another name."
            )
        }
        guard undo.isNew else {
            undo.isUntouched = true
            try check(now)
            undo.isUntouched = false
            return now.space?.writtenByteCount == 0
        }
        if let space = now.space, space.writtenByteCount > 0 || now.snapshotCount > 0 {
            undo.isUntouched = true
            throw CommandFailure(
                "already_exists",
                "Somebody filled the volume '\(volume)', which this import made, before it could.",
                remedy: "Import under another name, or overwrite it with --overwrite."
            )
        }
        return now.space != nil
    }

    private var neededSize: ByteSize { ByteSize(byteCount: image.volumeByteCount) }

    private func tooLarge(for byteCount: UInt64, remedy: String) -> CommandFailure {
        CommandFailure(
            "image_too_large",
            "\(image.path) holds a disk of \(neededSize.exactText), "
                + "the volume '\(volume)' only \(ByteSize(byteCount: byteCount).exactText).",
            remedy: remedy
        )
    }

    // MARK: - Its content

    /// Copies and compares.
    private func fill(
        _ target: Volume,
        isBlank: Bool,
        _ node: ServingNode,
        _ progress: ProgressDisplay
    ) throws -> (source: String, volume: String)? {
        progress.begin("convert")
        try Conversion.import(image, to: node, isBlank: isBlank).run(progress: progress)
        if !isBlank { try zeroTail(of: target, node, progress) }
        return isVerified ? try compare(node, progress) : nil
    }

    /// Makes a larger volume read as zeros behind the image.
    private func zeroTail(
        of target: Volume,
        _ node: ServingNode,
        _ progress: ProgressDisplay
    ) throws {
        let commands = Self.zeroCommands(from: image.virtualByteCount, to: target.byteCount)
        guard !commands.isEmpty else { return }
        progress.begin("zero")
        for start in stride(from: 0, to: commands.count, by: Self.zeroCommandCountMax) {
            let batch = commands[start..<min(start + Self.zeroCommandCountMax, commands.count)]
            let arguments = ["-f", "raw", "-t", "writeback"] + batch.flatMap { ["-c", $0] }
            let result = try Tool.qemuIO.run(arguments + [node.uri], servedBy: node) { _ in }
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
        _ node: ServingNode,
        _ progress: ProgressDisplay
    ) throws -> (source: String, volume: String) {
        progress.begin("checksum")
        let source = try ContentDigest.of(image, progress: progress)
        progress.begin("verify")
        let copy = try ContentDigest.ofExport(
            node,
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
}
