// How an import ends: whole, or undone as far as the volume is still its own.

package import ControlAPI
import Foundation

/// What an import has to take back when it fails.
struct ImportUndo {
    /// The attachment under which the volume is filled.
    var access: VolumeAccess
    /// Whether the import made the volume.
    var isNew: Bool
    /// Whether the import has written nothing, and shall leave the volume to whoever has.
    var isUntouched = false

    private var volume: String { access.volume }

    /// Takes everything back after `error`, and says what is left.
    func run(because error: any Error, _ client: ControlClient) async -> CommandFailure {
        var failure = CommandFailure(ofImport: error)
        do throws(ControlError) {
            guard isNew, !isUntouched else {
                try await access.end()
                if !isUntouched { failure.append(mayHoldPart) }
                return failure
            }
            try await client.deleteVolume(volume, heldBy: VolumeAccess.ownHost)
        } catch  where error.meansTaken {
            return taken(error, "it may hold part of the image")
        } catch  where error.code == .volumeNotFound {
            return failure
        } catch  where error.code == .inUse {
            failure.append("The volume '\(volume)' is left, half-filled: \(error.detail)")
            guard (try? await access.end()) == nil else { return failure }
            failure.append("Free it: \(detachCommand)")
        } catch {
            let state = isNew ? "A half-filled volume is left" : mayHoldPart
            let delete = isNew ? " && volctl volume delete \(volume)" : ""
            let verb = isNew ? "remove it" : "free it"
            failure.append(
                "\(state) \(isNew ? "attached" : "It is attached") to this import; \(verb) when the "
                    + "cluster answers: \(detachCommand)\(delete)"
            )
        }
        return failure
    }

    /// Gives the filled volume free.
    ///
    /// - Throws: ``CommandFailure`` when it was taken from the import, or is not free.
    func endWhole() async throws(CommandFailure) {
        do throws(ControlError) {
            try await access.end()
        } catch  where error.meansTaken || error.code == .volumeNotFound {
            throw taken(error, "the image was in it by then")
        } catch {
            throw CommandFailure(
                error.code.rawValue,
                "The image is in '\(volume)', but that could not be detached: \(error.detail)",
                remedy: "Free it when the cluster answers: \(detachCommand)"
            )
        }
    }

    private var mayHoldPart: String {
        "'\(volume)' may hold part of the image; import again or roll it back."
    }

    private var detachCommand: String {
        "volctl detach \(volume) --host \(VolumeAccess.ownHost)"
    }

    private func taken(_ error: ControlError, _ state: String) -> CommandFailure {
        let holder = error.holder.map { " by host '\($0)'" } ?? ""
        return CommandFailure(
            "volume_taken",
            "The volume '\(volume)' was taken from the import\(holder); \(state), and it is left "
                + "as it is.",
            remedy: "'volctl volume show \(volume)' shows who has it."
        )
    }
}

extension ControlError {
    /// Whether the volume is not attached to the import any more.
    fileprivate var meansTaken: Bool { code == .attachmentNotFound || code == .volumeAttached }
}

extension CommandFailure {
    /// Whatever ended an import.
    fileprivate init(ofImport error: any Error) {
        switch error {
        case let failure as CommandFailure: self = failure
        case let error as ControlError: self.init(error)
        default: self.init("failed", "The import failed: \(error).")
        }
    }

    /// Adds a sentence to the remedy.
    mutating func append(_ sentence: String) {
        remedy = remedy.map { "\($0) \(sentence)" } ?? sentence
    }
}

/// Where an import enters its volume into the catalogue.
package struct CatalogueEntry: Hashable, Sendable {
    /// The image's name and version; the snapshot is called as the version.
    package var image: ImageReference
    /// What it is, for people.
    package var description: String

    /// Creates an entry.
    package init(image: ImageReference, description: String) {
        self.image = image
        self.description = description
    }

    /// Refuses a name that is taken, before there is anything to enter.
    package func requireFree(for volume: String, _ client: ControlClient) async throws {
        let entered = try await client.ifFound(.imageNotFound) { () throws(ControlError) in
            try await client.image(image.name, version: image.version)
        }
        if let entered {
            throw CommandFailure(
                "already_exists",
                "The catalogue has '\(image)' already, of '\(entered.volume)@\(entered.snapshot)'.",
                remedy: "Choose another version, or: volctl image delete \(image)"
            )
        }
        let snapshot = try await client.ifFound(.volumeNotFound, .snapshotNotFound) {
            () throws(ControlError) in
            try await client.snapshot(image.version, of: volume)
        }
        guard snapshot == nil else {
            throw CommandFailure(
                "already_exists",
                "The volume '\(volume)' has a snapshot '\(image.version)' already, as the image's "
                    + "is to be called.",
                remedy: "Choose another version, or: volctl snapshot delete "
                    + "\(volume)@\(image.version)"
            )
        }
    }

    /// Snapshots the volume and enters it; when that fails, the snapshot is gone again.
    package func enter(_ volume: String, sha256: String?, _ client: ControlClient) async throws {
        _ = try await client.createSnapshot(image.version, of: volume)
        do throws(ControlError) {
            _ = try await client.createImage(
                ImageCreation(
                    name: image.name,
                    version: image.version,
                    volume: volume,
                    snapshot: image.version,
                    description: description,
                    sha256: sha256
                )
            )
        } catch {
            // Refused when the image was entered after all, and its answer lost.
            try? await client.deleteSnapshot(image.version, of: volume)
            throw error
        }
    }
}

extension ControlClient {
    /// What `work` finds; nil when it ends with one of `codes`.
    fileprivate func ifFound<Value>(
        _ codes: ControlError.Code...,
        work: () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value? {
        do throws(ControlError) {
            return try await work()
        } catch {
            guard codes.contains(error.code) else { throw error }
            return nil
        }
    }
}
