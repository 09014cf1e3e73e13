// What nodes keep with volumes is kept up with the metadata: Docs/rebuild.md.

import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// What is to be kept with a volume now.
    func descriptor(of volume: VolumeRecord) async throws(ControlError) -> String {
        let hosts = try await attachmentsRecord(volume.id).current
        let images = try await meta(await metadata.images(of: volume.id))
        return VolumeDescriptor(volume, hosts: hosts, images: images).text
    }

    /// Has a volume's nodes told soon what to keep with it; comparisons do it otherwise.
    func describeSoon(_ volume: UInt64) { toDescribe.yield(String(volume)) }

    /// Has the nodes of a volume keep what is so now.
    ///
    /// Those that do not hear of it are told by the next comparison.
    ///
    /// - Parameter name: The volume's id, as the queue has it.
    func describe(_ name: String) async {
        guard let id = UInt64(name) else { return }
        do throws(ControlError) {
            let volume = try await meta(await metadata.volume(id: id))
            // The end of what is pending has it looked at again.
            guard let volume, volume.value.pending == nil else { return }
            let live = try await meta(await metadata.liveNodes())
            for node in volume.value.holders where live[node] != nil {
                try await describe(volume, on: node)
            }
        } catch {
            logger.info(
                "a node has not noted what is so of a volume",
                metadata: ["volume": "\(name)", "reason": "\(error.detail)"]
            )
        }
    }

    /// Has one node keep what is so of a volume.
    ///
    /// Nobody is kept from changing the volume meanwhile: the node refuses what is older than
    /// what it has done.
    func describe(
        _ volume: Versioned<VolumeRecord>,
        on name: String
    ) async throws(ControlError) {
        let text = try await descriptor(of: volume.value)
        let id = volume.value.id
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        let limit = ContinuousClock.now + patient(Self.replicaMillisecondsMax)
        try await answered(by: name, until: limit) { () throws(ControlError) in
            _ = try await node.updateVolume(id, NodeVolumeUpdate(descriptor: text))
        }
    }

    /// Has as many of a volume's other replicas know of a new one as make a quorum with it.
    ///
    /// - Throws: ``ControlError`` when there are fewer.
    func describe(
        _ placement: PlacementRecord,
        of volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        var doneCount = 0
        var failure: ControlError?
        for other in volume.value.placements ?? [] where other.instance != placement.instance {
            do throws(ControlError) {
                try await describe(volume, on: other.node)
                doneCount += 1
            } catch {
                failure = error
            }
        }
        guard let failure, doneCount < (volume.value.writeQuorum ?? 1) - 1 else { return }
        throw failure
    }
}
