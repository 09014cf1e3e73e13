// Replicated volumes stay served: primaries whose process died are followed by others, those that
// cannot go on get another epoch, attempts that fail are repeated.

package import ControlAPI
import Foundation
import Logging
import Metadata

extension ControlPlane {
    /// How many nodes' answers are waited for at a time when many volumes get another primary.
    static var assignmentCountMax: Int { 32 }
    /// How soon after it was given a volume a node must die for the volume to be suspected, in
    /// seconds.
    static var poisonSeconds: Double { 30 }
    /// How many such deaths in a row take a volume out of service.
    static var poisonDeathCount: Int { 3 }
    /// The longest pause between attempts to have a volume served, in milliseconds.
    static var retryMillisecondsMax: Int { 10_000 }
    /// How long a node may not tell of a volume that it was given, in seconds: two heartbeats may
    /// be on their way or lost.
    static var unheardSeconds: Double { 7 }

    // MARK: - Many at once

    /// Gives every attached volume whose primary's process is gone another one.
    ///
    /// - Throws: ``ControlError`` when the metadata cannot be read or changed.
    package func failOver() async throws(ControlError) {
        let live = try await meta(await metadata.liveNodes())
        let all = try await meta(await metadata.allVolumes())
        let nodes = try await nodesByName()
        let orphans = all.filter { $0.value.isOrphan(live) }
        guard !orphans.isEmpty else { return }
        var load = Self.primaryLoad(all.map(\.value))
        var changes: [UInt64: FailoverChange] = [:]
        var changed: [Versioned<VolumeRecord>] = []
        let time = now
        let isSettled = ContinuousClock.now >= settledAt
        for orphan in orphans {
            let old = orphan.value.primary
            let order = Self.primaryOrder(of: orphan.value, live, load, Array(nodes.values))
            // Whoever served it and is back goes on: only a volume that moves could take one node
            // after the other with it.
            let isInPlace = live[old] != nil
            guard let new = isInPlace ? old : order.first, isInPlace || isSettled else { continue }
            // With no replica at hand nobody could serve it; the next look is soon.
            guard orphan.value.holders.contains(where: { live[$0] != nil }) else { continue }
            var record = orphan.value
            if isInPlace || record.noteDeath(at: time) {
                if isInPlace { record.served?.isQuarantined = nil }
                record.takeLease(on: new, session: live[new]?.session, at: time)
                load[old, default: 1] -= 1
                load[new, default: 0] += 1
            }
            changes[record.id] = FailoverChange(from: old, wasLive: live[old] != nil)
            changed.append(Versioned(value: record, revision: orphan.revision))
        }
        let updates = changed
        let updated = try await meta(await metadata.update(updates))
        await assign(updated.filter { $0.value.served?.isQuarantined != true }, nodes)
        for volume in updated {
            guard let change = changes[volume.value.id] else { continue }
            happened.yield(event(change, volume.value))
        }
    }

    /// What is to be told of a volume that got another primary.
    private struct FailoverChange {
        var from: String
        var wasLive: Bool
    }

    private func event(_ change: FailoverChange, _ volume: VolumeRecord) -> EventRecord {
        let kind: String
        let message: String
        let leaseEpoch = volume.leaseEpoch ?? 0
        if volume.served?.isQuarantined == true {
            kind = "volume.quarantined"
            message =
                "\(Self.poisonDeathCount) nodes in a row died within "
                + "\(Int(Self.poisonSeconds)) s of serving it, last '\(change.from)'; it is not "
                + "served again until that node is back or 'volctl attach \(volume.name) --host "
                + "HOST' asks for it"
        } else if change.from == volume.primary {
            kind = "volume.failover"
            message = "'\(change.from)' was started anew and serves it again, lease \(leaseEpoch)"
        } else {
            kind = "volume.failover"
            message =
                "'\(change.from)' is \(change.wasLive ? "another one now" : "down"), "
                + "'\(volume.primary)' serves it, lease \(leaseEpoch)"
        }
        return EventRecord(time: now, kind: kind, subject: volume.name, message: message)
    }

    /// Has the primaries of volumes serve them, some at a time.
    private func assign(
        _ volumes: [Versioned<VolumeRecord>],
        _ nodes: [String: NodeRecord]
    ) async {
        await withTaskGroup(of: Void.self) { group in
            for (index, volume) in volumes.enumerated() {
                if index >= Self.assignmentCountMax { await group.next() }
                group.addTask { await self.assignOrRetry(volume, nodes) }
            }
        }
    }

    private func assignOrRetry(
        _ volume: Versioned<VolumeRecord>,
        _ nodes: [String: NodeRecord]
    ) async {
        guard let served = volume.value.served else { return }
        do throws(ControlError) {
            try await assign(volume, served, nodes)
        } catch {
            _ = serviceTable.noteFailure(volume.value.id)
            logger.info(
                "a node did not take a volume",
                metadata: [
                    "volume": "\(volume.value.name)", "node": "\(volume.value.primary)",
                    "reason": "\(error.detail)",
                ]
            )
            serveSoon.yield(String(volume.value.id))
        }
    }

    // MARK: - One at a time

    /// Sees to it that an attached volume is served: after a failure, or what a heartbeat told.
    ///
    /// - Parameter name: The volume's id, as the queue has it.
    func keepServed(_ name: String) async {
        guard let id = UInt64(name) else { return }
        do throws(ControlError) {
            guard try await serveAgain(id) else { return }
        } catch {
            logger.info(
                "a volume is not served",
                metadata: ["volume": "\(id)", "reason": "\(error.detail)"]
            )
        }
        let count = serviceTable.noteFailure(id)
        let pause = min(Self.retryMillisecondsMax, 100 << min(count, 10))
        await stopped.wait(atMostMilliseconds: pause)
        if !stopped.isFinished { serveSoon.yield(name) }
    }

    /// Serves a volume again if it has to be.
    ///
    /// - Returns: Whether to look at it again, since it did not work out.
    private func serveAgain(_ id: UInt64) async throws(ControlError) -> Bool {
        guard var volume = try await meta(await metadata.volume(id: id)),
            let served = volume.value.served, volume.value.pending?.leavesPrimaryFree != false,
            served.isQuarantined != true
        else { return false }
        let live = try await meta(await metadata.liveNodes())
        guard !volume.value.isOrphan(live) else {
            try await failOver()
            return false
        }
        let nodes = try await nodesByName()
        guard needsEpoch(volume.value) else {
            guard let report = serviceTable.report(id), !report.status.agrees(with: volume.value)
            else { return false }
            try await assign(volume, served, nodes)
            return false
        }
        volume.value.takeLease(
            on: volume.value.primary,
            session: live[volume.value.primary]?.session,
            at: now
        )
        let update = volume
        guard let updated = try await meta(await metadata.update([update])).first else {
            return true
        }
        guard let served = updated.value.served else { return false }
        try await assign(updated, served, nodes)
        return false
    }

    /// Whether a volume's primary can go on only under another lease epoch.
    private func needsEpoch(_ volume: VolumeRecord) -> Bool {
        if serviceTable.hasFailed(volume.id) { return true }
        guard let served = volume.served else { return false }
        guard let report = serviceTable.report(volume.id), report.node == volume.primary,
            report.status.leaseEpoch >= volume.leaseEpoch ?? 0
        else {
            // Not a word of it: it was never heard of, or the node has lost it.
            guard let heardAt = serviceTable.heardAt(volume.primary) else { return false }
            return heardAt.timeIntervalSince(served.since) > Self.unheardSeconds
        }
        return report.status.needsEpoch || report.status.state == .stopped
    }

    // MARK: - Looking

    /// Looks whether all volumes that hosts have are served by whom they should be.
    func lookAtServices() async throws(ControlError) {
        let live = try await meta(await metadata.liveNodes())
        let volumes = try await meta(await metadata.allVolumes()).map(\.value)
        var hasOrphans = false
        for volume in volumes
        where volume.served != nil && volume.pending?.leavesPrimaryFree != false {
            if volume.isOrphan(live) {
                hasOrphans = true
            } else if needsEpoch(volume)
                || serviceTable.report(volume.id)?.status.agrees(with: volume) == false
            {
                serveSoon.yield(String(volume.id))
            }
        }
        if hasOrphans { try await failOver() }
    }

    /// Has a node stop serving what it is not to serve any more: it was frozen, or cut off, when
    /// it was to stop.
    func stopStrayServices(on name: String) async throws(ControlError) {
        let node = try await nodeService(name)
        let limit = ContinuousClock.now + patient(Self.stopMillisecondsMax)
        let services = try await answered(by: name, until: limit) { () throws(ControlError) in
            try await node.services()
        }
        for service in services where service.state != .stopped {
            let volume = try await meta(await metadata.volume(id: service.volume))
            if let volume {
                let isMeant =
                    (volume.value.served != nil || volume.value.tended != nil)
                    && volume.value.primary == name
                guard !isMeant, volume.value.pending == nil else { continue }
            }
            let stopping = ContinuousClock.now + patient(Self.stopMillisecondsMax)
            try await answered(by: name, until: stopping) { () throws(ControlError) in
                // Of this lease and those before; a later one is not meant.
                try await node.stopServing(service.volume, leaseEpoch: service.leaseEpoch)
            }
        }
    }

    /// Tells the primaries of volumes that have replicas on a node where these are now.
    func tellPrimaries(ofReplicasOn name: String) async {
        let volumes = (try? await metadata.allVolumes()) ?? []
        for volume in volumes where volume.value.lies(on: name) && volume.value.pending == nil {
            guard volume.value.served != nil, volume.value.primary != name else { continue }
            await tellPrimary(of: volume)
        }
    }

    /// Notes what a node says of the volumes that it serves.
    func hear(_ all: [NodeServiceStatus], from name: String) {
        // That one is served to nobody, for a snapshot's or its replicas' sake, is no news.
        for (status, change) in serviceTable.update(name, all, at: now)
        where status.access != .none {
            happened.yield(event(change, status))
        }
        for status in all {
            if status.move?.phase == .filled || status.move?.phase == .ready {
                moveSoon.yield(String(status.volume))
            }
            guard status.access != .none else { continue }
            // One that was replaced since says so, too; who looks will see.
            if status.needsEpoch || status.state == .stopped {
                serveSoon.yield(String(status.volume))
            }
        }
    }

    private func event(
        _ change: ServiceTable.Change,
        _ status: NodeServiceStatus
    ) -> EventRecord {
        let (kind, message): (String, String) =
            switch change {
            case .served(let node, let leaseEpoch):
                ("volume.served", "by '\(node)', lease \(leaseEpoch)")
            case .suspended(let node):
                (
                    "volume.suspended",
                    "too few replicas answer its primary on '\(node)'; requests wait"
                )
            case .resumed(let node): ("volume.resumed", "enough replicas answer '\(node)' again")
            case .replicaDown(let node):
                ("replica.down", "its replica on '\(node)' is not to be reached")
            case .replicaBack(let node):
                ("replica.back", "its replica on '\(node)' is to be reached again")
            case .replicaComplete(let node):
                ("replica.complete", "its replica on '\(node)' has everything")
            case .full:
                (
                    "volume.full",
                    "writes are refused: the stores of too few replicas have room"
                )
            case .roomy: ("volume.roomy", "writes are taken again: its replicas have room")
            case .replicaFull(let node):
                ("replica.full", "its replica's store on '\(node)' has no room; it falls behind")
            case .replicaRoomy(let node):
                ("replica.roomy", "its replica's store on '\(node)' has room again")
            }
        return EventRecord(time: now, kind: kind, subject: status.name, message: message)
    }
}

extension VolumeRecord {
    /// Whether hosts have it and its primary's process is gone.
    fileprivate func isOrphan(_ live: [String: NodeLiveRecord]) -> Bool {
        guard let served, pending?.leavesPrimaryFree != false else { return false }
        guard let node = live[primary] else { return served.isQuarantined != true }
        return served.session != node.session
    }

    /// Notes that the primary's node died and that the volume is to move.
    ///
    /// - Returns: Whether the volume may have another one.
    fileprivate mutating func noteDeath(at time: Date) -> Bool {
        guard let since = served?.since else { return false }
        let wasSoon = time.timeIntervalSince(since) < ControlPlane.poisonSeconds
        let count = wasSoon ? (served?.deathCount ?? 0) + 1 : 0
        served?.deathCount = count
        served?.isQuarantined = count >= ControlPlane.poisonDeathCount ? true : nil
        return count < ControlPlane.poisonDeathCount
    }
}

extension NodeServiceStatus {
    /// Whether the primary knows the volume as its record has it.
    fileprivate func agrees(with volume: VolumeRecord) -> Bool {
        guard leaseEpoch == volume.leaseEpoch, !replicas.isEmpty else { return true }
        let move = volume.move.flatMap { $0.to.isUnmade == true ? nil : $0.to.instance }
        return Set(replicas.map(\.instance)) == Set((volume.placements ?? []).map(\.instance))
            && self.move?.replica.instance == move
    }
}
