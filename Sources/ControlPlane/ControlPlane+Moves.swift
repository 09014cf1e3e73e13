// Replicas of nodes that drain move elsewhere: Docs/replication.md, "Moving a replica".
//
// Invariants:
//   a move is in the metadata before any node hears of it
//   the metadata name the new set only while the lease epoch is the one whose primary said that the
//   move is ready
//   a replica that was to be moved to and is not is deleted, one day, by its node

package import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// How many replicas of the cluster move at a time.
    package static var moveCountMax: Int { 4 }
    /// How often the primary is asked whether both sets have everything, before others are looked at.
    static var joinLookCountMax: Int { 50 }
    /// Between two such looks, in milliseconds.
    static var joinLookMilliseconds: Int { 20 }

    /// The name of the entry of ``moveSoon`` that stands for all volumes.
    static var allVolumes: String { "volumes" }

    /// Goes on with the moves under way, and begins those that nodes which drain need.
    ///
    /// - Throws: ``ControlError`` when the metadata cannot be read.
    package func moveReplicas() async throws(ControlError) {
        let all = try await meta(await metadata.allVolumes())
        await goOn(with: all.filter { $0.value.move != nil && $0.value.pending == nil })
        try await beginMoves()
        await endTending(try await meta(await metadata.allVolumes()))
    }

    /// Goes on with one volume's move, or looks at all.
    ///
    /// - Parameter name: The volume's id, as the queue has it.
    func goOnMoving(_ name: String) async {
        do throws(ControlError) {
            guard let id = UInt64(name) else { return try await moveReplicas() }
            let volume = try await meta(await metadata.volume(id: id))
            guard let volume, volume.value.pending == nil else { return }
            await goOn(with: [volume])
            try await beginMoves()
            if let after = try await meta(await metadata.volume(id: id)) {
                await endTending([after])
            }
        } catch {
            logger.info("moves do not go on", metadata: ["reason": "\(error.detail)"])
        }
    }

    private func goOn(with volumes: [Versioned<VolumeRecord>]) async {
        _ = await withEach(volumes) { [self] (volume) throws(ControlError) in
            do throws(ControlError) {
                guard let move = volume.value.move else { return }
                try await advance(volume, move)
            } catch {
                logger.info(
                    "a replica does not move on yet",
                    metadata: ["volume": "\(volume.value.name)", "reason": "\(error.detail)"]
                )
            }
        }
    }

    // MARK: - The beginning

    /// Begins moves from nodes that drain, as many as there may be; one after the other, since they
    /// are counted.
    private func beginMoves() async throws(ControlError) {
        try await locks.withLock(Self.beginningName) { [self] () throws(ControlError) in
            try await beginMovesAlone()
        }
    }

    /// The name of the lock for that: no volume has such a one.
    private static var beginningName: String { "/moves" }

    private func beginMovesAlone() async throws(ControlError) {
        let draining = try await meta(await metadata.nodes()).filter(\.draining).map(\.name)
        guard !draining.isEmpty else { return }
        let all = try await meta(await metadata.allVolumes())
        var count = all.count { $0.value.move != nil }
        for name in draining {
            var problem: String?
            for volume in all where volume.value.mayBeginMove && count < Self.moveCountMax {
                guard let leaving = volume.value.placements?.first(where: { $0.node == name })
                else { continue }
                do throws(ControlError) {
                    if try await beginMove(of: leaving, volume) { count += 1 }
                } catch {
                    problem = "'\(volume.value.name)': \(error.detail)"
                }
            }
            if count < Self.moveCountMax || problem != nil {
                nodeTable.noteDrain(name, problem: problem)
            }
        }
    }

    /// - Returns: Whether it was begun; otherwise somebody else changed the volume.
    private func beginMove(
        of leaving: PlacementRecord,
        _ volume: Versioned<VolumeRecord>
    ) async throws(ControlError) -> Bool {
        let kept = (volume.value.placements ?? []).filter { $0 != leaving }
        let node = try await placeReplacement(beside: kept.map(\.node), instead: leaving.node)
        let placement = PlacementRecord(node: node, instance: newInstance(), isUnmade: true)
        var changed = volume
        changed.value.move = ReplicaMoveRecord(from: leaving.instance, to: placement, since: now)
        let event = EventRecord(
            time: now,
            kind: "replica.moving",
            subject: volume.value.name,
            message: "its replica on '\(leaving.node)' moves to '\(node)'"
        )
        let update = changed
        guard try await meta(await metadata.updateVolume(update, event: event)) else {
            return false
        }
        moveSoon.yield(String(volume.value.id))
        return true
    }

    // MARK: - The way

    /// Goes on with a move as far as it goes now.
    private func advance(
        _ volume: Versioned<VolumeRecord>,
        _ move: ReplicaMoveRecord
    ) async throws(ControlError) {
        guard let leaving = volume.value.placements?.first(where: { $0.instance == move.from })
        else { return try await giveUp(volume, move, "that one is not there any more") }
        if let reason = try await reasonToGiveUp(move) {
            return try await giveUp(volume, move, reason)
        }
        guard let made = try await made(volume, move), let volume = try await tended(made) else {
            return
        }
        var heard = currentReport(of: volume.value)?.status
        if heard == nil { heard = try await tell(volume) }
        guard var status = heard else { return }
        for _ in 0..<Self.joinLookCountMax {
            let told = status.move?.replica.instance == move.to.instance ? status.move : nil
            let answer: NodeServiceStatus?
            switch told?.phase {
            case nil: answer = try await tell(volume)
            case .filling: return
            case .filled: answer = try await tell(volume, joins: true)
            case .joining:
                await stopped.wait(atMostMilliseconds: Self.joinLookMilliseconds)
                answer = try await tell(volume, joins: true)
            case .ready: return try await end(move, of: volume, leaving)
            }
            guard let answer, !answer.needsEpoch, !stopped.isFinished else { return }
            // One that was just told of it begins to fill, and its next heartbeats say how far it is.
            guard told != nil || answer.move != nil else { return }
            status = answer
        }
    }

    /// Has the new replica made, unless it is.
    private func made(
        _ volume: Versioned<VolumeRecord>,
        _ move: ReplicaMoveRecord
    ) async throws(ControlError) -> Versioned<VolumeRecord>? {
        guard move.to.isUnmade == true else { return volume }
        await removeDiscarded(on: move.to.node)
        try await createReplica(move.to, of: volume, isReplacement: true)
        var changed = volume
        changed.value.move?.to.isUnmade = nil
        let update = changed
        return try await meta(await metadata.update([update])).first
    }

    /// Why a move is of no use any more; nil when it is.
    private func reasonToGiveUp(_ move: ReplicaMoveRecord) async throws(ControlError) -> String? {
        let name = move.to.node
        guard try await meta(await metadata.node(name)) != nil else {
            return "the node '\(name)' was removed"
        }
        guard try await meta(await metadata.liveNode(name)) == nil, replaceSeconds > 0 else {
            return nil
        }
        let since = serviceTable.downSince(name) ?? now
        let seconds = now.timeIntervalSince(since)
        return seconds >= replaceSeconds ? "the node '\(name)' is down" : nil
    }

    // MARK: - The end

    /// Names the new set of replicas; whoever serves the volume leaves the old one.
    private func end(
        _ move: ReplicaMoveRecord,
        of volume: Versioned<VolumeRecord>,
        _ leaving: PlacementRecord
    ) async throws(ControlError) {
        var changed = volume
        let arrived = PlacementRecord(node: move.to.node, instance: move.to.instance)
        changed.value.placements = volume.value.placements?.map { $0 == leaving ? arrived : $0 }
        changed.value.replicas = changed.value.holders
        changed.value.placementGeneration = (volume.value.placementGeneration ?? 0) + 1
        changed.value.move = nil
        let event = EventRecord(
            time: now,
            kind: "replica.moved",
            subject: volume.value.name,
            message: "its replica on '\(leaving.node)' is on '\(arrived.node)' now"
        )
        let update = changed
        // Under this lease epoch only: its primary is who said that the move is ready.
        let updated = try await meta(await metadata.replace(leaving, update, event: event))
        guard let updated else { return }
        do throws(ControlError) {
            // Before the old set is left: metadata that is made anew must not go back to it.
            try await describe(updated, on: arrived.node)
            try await describe(arrived, of: updated)
        } catch {
            logger.info(
                "nodes have not noted where a volume's replicas are; a comparison tells them",
                metadata: ["volume": "\(volume.value.name)", "reason": "\(error.detail)"]
            )
        }
        await tellPrimary(of: updated)
        await removeDiscarded(on: leaving.node)
        try await reportDrained(leaving.node)
    }

    private func reportDrained(_ name: String) async throws(ControlError) {
        guard try await meta(await metadata.node(name))?.value.draining == true else { return }
        let all = try await meta(await metadata.allVolumes())
        guard !all.contains(where: { $0.value.isReplicated && $0.value.lies(on: name) }) else {
            return
        }
        let event = EventRecord(
            time: now,
            kind: "node.drained",
            subject: name,
            message: "has no replicas any more"
        )
        await report(event)
    }

    /// Ends a move without its replica having taken the other's place.
    func giveUp(
        _ volume: Versioned<VolumeRecord>,
        _ move: ReplicaMoveRecord,
        _ reason: String
    ) async throws(ControlError) {
        var changed = volume
        changed.value.move = nil
        let event = EventRecord(
            time: now,
            kind: "replica.move_given_up",
            subject: volume.value.name,
            message: "its replica does not move to '\(move.to.node)': \(reason)"
        )
        let update = changed
        let updated = try await meta(await metadata.replace(move.to, update, event: event))
        guard let updated else { return }
        // Where both sets count already it gets another epoch for it.
        await tellPrimary(of: updated)
        await removeDiscarded(on: move.to.node)
    }
}

extension VolumeRecord {
    /// Whether one of its replicas may begin to move.
    fileprivate var mayBeginMove: Bool {
        isReplicated && state == .ready && pending == nil && move == nil
            && placements?.contains { $0.isUnmade == true } == false
    }
}
