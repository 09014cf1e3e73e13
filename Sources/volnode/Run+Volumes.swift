// Volumes of a node by itself: the command line's.

import BlockCore
import ControlAPI
import LogStore
import Logging
import ProgramMain
import StorageNode

extension Run {
    /// The first id of a volume that the command line makes.
    private static let standaloneVolumeIDMin: UInt64 = 1 << 52

    /// Makes and exports the volumes of the command line.
    func makeVolumes(_ node: StorageNode, _ logger: Logger) async throws {
        guard meta == nil else { return }
        try await requireDistinctVolumes(node)
        guard !volume.isEmpty else { return }
        var existing = await node.volumes()
        for argument in volume {
            let found = existing.first { $0.specification.name == argument.name }
            if let byteCount = found?.specification.byteCount, byteCount != argument.byteCount {
                // It may have been resized since: what is there is served.
                logger.warning(
                    "a volume of another size is served",
                    metadata: [
                        "volume": "\(argument.name)",
                        "asked": "\(ByteSize(byteCount: argument.byteCount))",
                        "is": "\(ByteSize(byteCount: byteCount))",
                    ]
                )
            }
            do throws(StoreCommandError) {
                if var specification = found?.specification {
                    guard specification.access != .readWrite else { continue }
                    specification.access = .readWrite
                    _ = try await node.perform(.updateVolume(specification))
                    continue
                }
                // Above the ids of a metadata service in practice, and exact in JSON.
                let last = existing.map(\.specification.id.rawValue).max() ?? 0
                let id = max(Self.standaloneVolumeIDMin, last + 1)
                _ = try await node.perform(
                    .createVolume(
                        VolumeSpecification(
                            id: VolumeID(id),
                            name: argument.name,
                            byteCount: argument.byteCount,
                            access: .readWrite
                        )
                    )
                )
                existing = await node.volumes()
            } catch {
                throw Failure(
                    "The volume '\(argument.name)' cannot be made: \(error.text).",
                    help:
                        "A size is a multiple of 4096 bytes, at most 64TiB; a name has 1 to 128 bytes."
                )
            }
        }
        logger.notice("standalone volumes", metadata: ["count": "\(volume.count)"])
    }

    /// Refuses stores that hold volumes of one name or id, each made by a node of its own: which
    /// one a client gets would depend on the order of the stores.
    private func requireDistinctVolumes(_ node: StorageNode) async throws {
        var names: [String: Int] = [:]
        var ids: [VolumeID: Int] = [:]
        for (index, path) in node.storePaths.enumerated() {
            for volume in await node.volumes(store: index) {
                let name = volume.specification.name
                let sameName = names.updateValue(index, forKey: name)
                let sameID = ids.updateValue(index, forKey: volume.specification.id)
                guard let other = sameName ?? sameID else { continue }
                throw Failure(
                    "\(node.storePaths[other]) has a volume of the same "
                        + "\(sameName == nil ? "id" : "name") as '\(name)' in \(path).",
                    help: "Run a node for each of the stores."
                )
            }
        }
    }
}
