// Where a snapshot's bytes can be read for an export.
//
// A volume's node exports its snapshots. The primary of a volume with replicas exports the volume
// alone, so that a clone is made for the time, which costs nothing, and given to this process.

package import ControlAPI

extension Snapshot {
    /// Calls `body` with where the snapshot can be read.
    ///
    /// - Parameters:
    ///   - volume: Its volume.
    ///   - client: The cluster.
    ///   - body: What to do with it.
    /// - Returns: What that returns.
    /// - Throws: What that throws, or why the snapshot cannot be read.
    package func withExport<Value>(
        of volume: Volume,
        _ client: ControlClient,
        _ body: (ServingNode) throws -> Value
    ) async throws -> Value {
        guard volume.replicaStates != nil else {
            let uri = try VolumeAccess.uri(of: self)
            return try body(ServingNode(name: volume.primary, uri: uri))
        }
        let clone = TemporaryClone(client)
        let result: Result<Value, any Error>
        do {
            result = .success(try body(try await clone.make(of: self)))
        } catch {
            result = .failure(error)
        }
        try await clone.remove(after: result)
        return try result.get()
    }
}

/// A clone that this process has for as long as it reads a snapshot.
private struct TemporaryClone {
    private let client: ControlClient
    /// Its name, and that of the host that it is attached to.
    private let name = "export-\(VolumeAccess.processTag)"

    init(_ client: ControlClient) { self.client = client }

    func make(of snapshot: Snapshot) async throws -> ServingNode {
        _ = try await client.clone(
            snapshot.volume,
            snapshot: snapshot.name,
            CloneCreation(name: name)
        )
        // For writing, though it is read only: so it can be deleted by whom it was made for.
        let attachment = try await client.attach(name, AttachmentCreation(host: name))
        return ServingNode(name: attachment.node, uri: try VolumeAccess.uri(of: attachment))
    }

    /// Deletes it, attached or not; where nobody knows whether it was made, that is no error.
    func remove<Value>(after result: Result<Value, any Error>) async throws {
        do throws(ControlError) {
            do throws(ControlError) {
                try await client.deleteVolume(name, heldBy: name)
            } catch  where error.code == .attachmentNotFound {
                try await client.deleteVolume(name)
            }
        } catch  where error.code == .volumeNotFound {
            // It never was.
        } catch {
            let outcome =
                switch result {
                case .success: "The file is written"
                case .failure(let error): "The export failed (\(error))"
                }
            throw CommandFailure(
                "failed",
                "\(outcome), but the clone for it could not be removed: \(error.detail)",
                remedy: "Remove it: volctl detach \(name) --host \(name); volctl volume delete "
                    + name
            )
        }
    }
}
