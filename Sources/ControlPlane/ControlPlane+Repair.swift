// Replicas whose nodes stay away, or were removed, are replaced: one at a time per volume, and only
// when its primary says that all others are complete.

package import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// Replaces replicas that are lost.
    ///
    /// - Throws: ``ControlError`` when the metadata cannot be read.
    package func repair() async throws(ControlError) {
        let live = try await meta(await metadata.liveNodes())
        let nodes = try await nodesByName()
        let time = now
        let down = nodes.keys.filter { live[$0] == nil }
        let since = serviceTable.noteDown(Set(down), at: time)
        let all = try await meta(await metadata.allVolumes())
        for volume in all where volume.value.isReplicated && volume.value.pending == nil {
            let placements = volume.value.placements ?? []
            if let unmade = placements.first(where: { $0.isUnmade == true && live[$0.node] != nil })
            {
                await logged(volume.value) { [self] () throws(ControlError) in
                    try await make(unmade, of: volume)
                }
                continue
            }
            guard replaceSeconds > 0 else { continue }
            let lost = placements.first { placement in
                guard nodes[placement.node] != nil else { return true }
                guard let since = since[placement.node] else { return false }
                return time.timeIntervalSince(since) >= replaceSeconds
            }
            guard let lost else { continue }
            await logged(volume.value) { [self] () throws(ControlError) in
                if let move = volume.value.move {
                    let reason = "the one on '\(lost.node)' is lost, and is replaced first"
                    return try await giveUp(volume, move, reason)
                }
                // One that no host has tells of its replicas while it is served to nobody.
                guard let volume = try await tended(volume), areComplete(volume.value, but: lost)
                else { return }
                try await replace(lost, of: volume)
            }
        }
    }

    private func logged(
        _ volume: VolumeRecord,
        _ body: @escaping @Sendable () async throws(ControlError) -> Void
    ) async {
        do throws(ControlError) {
            try await body()
        } catch {
            logger.info(
                "a lost replica is not replaced yet",
                metadata: ["volume": "\(volume.name)", "reason": "\(error.detail)"]
            )
        }
    }

    /// Whether the primary says that all replicas but one are complete.
    private func areComplete(_ volume: VolumeRecord, but lost: PlacementRecord) -> Bool {
        guard let report = serviceTable.report(volume.id), report.node == volume.primary,
            report.status.leaseEpoch == volume.leaseEpoch, report.status.state != .stopped
        else { return false }
        let complete = Set(report.status.replicas.filter(\.isComplete).map(\.instance))
        let others = (volume.placements ?? []).filter { $0 != lost }
        return !others.isEmpty && others.allSatisfy { complete.contains($0.instance) }
    }

    private func replace(
        _ lost: PlacementRecord,
        of volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        var changed = volume
        let kept = (volume.value.placements ?? []).filter { $0 != lost }
        let node = try await placeReplacement(beside: kept.map(\.node), instead: lost.node)
        let placement = PlacementRecord(node: node, instance: newInstance(), isUnmade: true)
        changed.value.placements = volume.value.placements?.map { $0 == lost ? placement : $0 }
        changed.value.replicas = changed.value.holders
        changed.value.placementGeneration = (volume.value.placementGeneration ?? 0) + 1
        let event = EventRecord(
            time: now,
            kind: "replica.replaced",
            subject: volume.value.name,
            message: "its replica on '\(lost.node)' is given up, '\(node)' gets a new one"
        )
        let update = changed
        let updated = try await meta(await metadata.replace(lost, update, event: event))
        guard let updated else { return }
        try await make(placement, of: updated)
    }

    /// Has a replacement made, and tells the primary of it.
    private func make(
        _ placement: PlacementRecord,
        of volume: Versioned<VolumeRecord>
    ) async throws(ControlError) {
        await removeDiscarded(on: placement.node)
        try await createReplica(placement, of: volume, isReplacement: true)
        // Before it counts: metadata that is made anew must not go back to the list before.
        try await describe(placement, of: volume)
        var changed = volume
        changed.value.placements = volume.value.placements?.map { other in
            var other = other
            if other.instance == placement.instance { other.isUnmade = nil }
            return other
        }
        let update = changed
        guard let updated = try await meta(await metadata.update([update])).first else { return }
        await tellPrimary(of: updated)
    }

    /// A number for a new replica: exact in JSON, and never given before.
    func newInstance() -> UInt64 { UInt64.random(in: 1...APILimits.instanceMax) }
}
