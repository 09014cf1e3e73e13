// Replicated volumes in metadata that is made anew: which replicas count, and which epochs come next.

import ControlAPI
import Foundation
import Metadata

extension RebuildPlan {
    /// How many lease epochs may have been given that no replica has promised.
    ///
    /// Chosen so that attempts of some minutes, one each 200 ms, are covered.
    static var leaseEpochMargin: UInt64 { 1024 }

    mutating func replicated(
        _ copies: [Copy],
        _ serving: [(node: String, status: NodeServiceStatus)]
    ) throws(ControlError) -> RestoredVolume? {
        let name = copies[0].held.name
        let newest = copies.filter { $0.descriptor?.placements != nil }.max {
            ($0.descriptor?.generation ?? 0) < ($1.descriptor?.generation ?? 0)
        }
        guard let newest, let placements = newest.descriptor?.placements else {
            findings.append(
                "\(name): its replicas do not say which there are; left alone on "
                    + copies.map(\.node).joined(separator: ", ")
            )
            return nil
        }
        try requireKnown(placements, of: name)
        let quorum = newest.descriptor?.writeQuorum ?? placements.count / 2 + 1
        let members = copies.filter { copy in
            placements.contains {
                $0.node == copy.node && $0.instance == copy.held.replica?.instance
            }
        }
        let usable = members.filter { $0.held.replica?.isBlank == false }
        guard usable.count >= placements.count - quorum + 1 else {
            findings.append(
                "\(name): \(usable.count) of its \(placements.count) replicas found, too few to tell "
                    + "what was written last; left alone on "
                    + copies.map(\.node).joined(separator: ", ")
            )
            return nil
        }
        if members.count < placements.count {
            findings.append("\(name): \(members.count) of its \(placements.count) replicas found")
        }
        var record = record(of: newest, on: placements.map(\.node))
        record.placements = placements
        record.placementGeneration = newest.descriptor?.generation
        record.writeQuorum = quorum
        // All that is committed lies below the greatest.
        record.byteCount = members.map(\.held.byteCount).max() ?? record.byteCount
        record.primary = usable[0].node
        return serve(RestoredVolume(record: record), copies, usable, serving)
    }

    private func requireKnown(
        _ placements: [PlacementRecord],
        of name: String
    ) throws(ControlError) {
        guard let missing = placements.first(where: { !known.contains($0.node) }) else { return }
        throw ControlError(
            .invalidArgument,
            "The volume '\(name)' has a replica on the node '\(missing.node)', which was not asked.",
            help: "Name its API with --node too. If it is lost for good: --without \(missing.node)"
        )
    }

    /// Gives a replicated volume its epochs, its primary if it has one, and its snapshots.
    private mutating func serve(
        _ volume: RestoredVolume,
        _ copies: [Copy],
        _ usable: [Copy],
        _ serving: [(node: String, status: NodeServiceStatus)]
    ) -> RestoredVolume {
        var volume = volume
        let promised = copies.compactMap(\.held.replica?.promisedEpoch).max() ?? 0
        let newest = max(promised, serving.map(\.status.leaseEpoch).max() ?? 0)
        let leaseEpoch = min(newest + Self.leaseEpochMargin, APILimits.leaseEpochMax)
        volume.record.leaseEpoch = leaseEpoch
        // An attachment costs a lease, and each is followed by one detachment at most.
        let begun = copies.map(\.held.epoch).max() ?? 0
        volume.record.epoch = min(begun + 2 * leaseEpoch, APILimits.epochMax)
        let live = serving.first { service in
            service.status.leaseEpoch == newest && service.status.state != .stopped
                && service.status.access != .none
        }
        if let live {
            let isReadOnly = live.status.access == .readOnly
            volume.record.epoch = live.status.exportEpoch
            volume.record.primary = live.node
            volume.record.served = ServedRecord(
                exportEpoch: live.status.exportEpoch,
                readOnly: isReadOnly,
                session: nil,
                since: time
            )
            volume.attachments = attachments(
                epoch: live.status.exportEpoch,
                isReadOnly: isReadOnly,
                usable.map(\.descriptor),
                volume.record.name
            )
        }
        let quorum = volume.record.writeQuorum ?? 1
        volume.snapshots = (usable.first?.held.snapshots ?? []).filter { snapshot in
            usable.count { $0.held.snapshots.contains { $0.name == snapshot.name } }
                >= min(quorum, usable.count)
        }.map(snapshot)
        volume.images = images(usable.lazy.compactMap(\.descriptor).first, of: volume)
        return volume
    }
}
