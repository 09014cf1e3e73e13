// Errors about names that do not exist, with the names that do.

package import ControlAPI

extension ControlClient {
    /// Does `work` on the volume `name`; when there is none, the error names those like it.
    package func named<Result>(
        _ name: String,
        _ work: () async throws(ControlError) -> Result
    ) async throws(ControlError) -> Result {
        do throws(ControlError) {
            return try await work()
        } catch {
            let names = await candidates(for: error, volume: name)
            // What is there is not mistyped.
            guard let names, !names.contains(name) else { throw error }
            throw error.suggesting(name, among: names)
        }
    }

    /// As ``named(_:_:)``, for a snapshot of a volume.
    package func named<Result>(
        _ reference: SnapshotReference,
        _ work: () async throws(ControlError) -> Result
    ) async throws(ControlError) -> Result {
        do throws(ControlError) {
            return try await work()
        } catch {
            if error.code == .snapshotNotFound,
                let snapshots = try? await snapshots(of: reference.volume)
            {
                throw error.suggesting(reference.snapshot, among: snapshots.map(\.name))
            }
            let names = await candidates(for: error, volume: reference.volume)
            guard let names, !names.contains(reference.volume) else { throw error }
            throw error.suggesting(reference.volume, among: names)
        }
    }

    /// The volume `name`.
    package func existingVolume(_ name: String) async throws(ControlError) -> Volume {
        try await named(name) { () throws(ControlError) in try await volume(name) }
    }

    private func candidates(for error: ControlError, volume name: String) async -> [String]? {
        switch error.code {
        case .volumeNotFound: (try? await volumes())?.map(\.name)
        case .nodeNotFound: (try? await nodes())?.map(\.name)
        default: nil
        }
    }
}
