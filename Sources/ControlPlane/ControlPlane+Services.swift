// Who serves a replicated volume: the choice of its primary, and the assignment to it.
//
// Invariants:
//   a lease epoch is in the metadata before a node hears of it, and is given to one session of one
//   node: an attempt to give it that failed is followed by one under the next epoch;
//   an older primary is asked to stop as a courtesy to it; what fences it are the replicas.

import ControlAPI
import Foundation
import Logging
import Metadata

/// A node that is to be a volume's primary.
struct PrimaryChoice: Sendable {
    var node: String
    /// Its session; another one is another process.
    var session: UInt64?
}

extension ControlPlane {
    /// How long a node may take to answer that it takes a volume, in milliseconds: it does so
    /// before the takeover.
    static var serviceMillisecondsMax: Int64 { 5_000 }
    /// How long the old primary of an ordinary move may take to end what is in work.
    static var stopMillisecondsMax: Int64 { 3_000 }
    /// How long those who may be the primary have to show that they live, in milliseconds: one
    /// that is frozen counts as up until its heartbeats are missed.
    static var probeMillisecondsMax: Int64 { 250 }
    /// How long they are given when none of them did, in milliseconds.
    static var secondProbeMillisecondsMax: Int64 { 2000 }

    // MARK: - Choice

    /// The primary that a volume is to have.
    ///
    /// - Parameters:
    ///   - volume: The volume.
    ///   - wanted: A node that was asked for.
    /// - Returns: That node; else the present one if it is up, else one that has a replica and the
    ///   fewest primaries.
    /// - Throws: ``ControlError`` when there is none.
    func choosePrimary(
        of volume: VolumeRecord,
        wanted: String? = nil
    ) async throws(ControlError) -> PrimaryChoice {
        let live = try await meta(await metadata.liveNodes())
        if let wanted {
            _ = try await requireNode(wanted)
            guard let node = live[wanted] else {
                throw ControlError(
                    .unavailable,
                    "The node '\(wanted)' is down.",
                    help: "Start it, or leave --via out."
                )
            }
            return PrimaryChoice(node: wanted, session: node.session)
        }
        let load = Self.primaryLoad(try await meta(await metadata.allVolumes()).map(\.value))
        let nodes = try await meta(await metadata.nodes())
        let order = Self.primaryOrder(of: volume, live, load, nodes)
        guard let first = order.first else {
            throw ControlError(
                .unavailable,
                "No node that could serve '\(volume.name)' is up; its replicas are on "
                    + "'\(volume.holders.joined(separator: "', '"))'.",
                help: "Start those nodes; see 'volctl node list'."
            )
        }
        var name: String?
        // When nobody answers at once it is rather this machine that has too much to do.
        for milliseconds in [Self.probeMillisecondsMax, Self.secondProbeMillisecondsMax] {
            if name == nil { name = await firstToAnswer(order, within: patience * milliseconds) }
        }
        let chosen = name ?? first
        return PrimaryChoice(node: chosen, session: live[chosen]?.session)
    }

    /// The nodes that are up in the order in which they are to be a volume's primary.
    static func primaryOrder(
        of volume: VolumeRecord,
        _ live: [String: NodeLiveRecord],
        _ load: [String: Int],
        _ nodes: [NodeRecord]
    ) -> [String] {
        let draining = Set(nodes.filter(\.draining).map(\.name))
        func rank(_ name: String) -> [Int] {
            [
                name == volume.primary ? 0 : 1, volume.lies(on: name) ? 0 : 1,
                draining.contains(name) ? 1 : 0, load[name] ?? 0,
            ]
        }
        let names = nodes.map(\.name).filter { live[$0] != nil }
        return names.sorted { left, right in
            let (leftRank, rightRank) = (rank(left), rank(right))
            guard leftRank == rightRank else {
                return leftRank.lexicographicallyPrecedes(rightRank)
            }
            return left < right
        }
    }

    /// How many replicated volumes each node serves.
    static func primaryLoad(_ volumes: [VolumeRecord]) -> [String: Int] {
        var load: [String: Int] = [:]
        for volume in volumes where volume.served != nil { load[volume.primary, default: 0] += 1 }
        return load
    }

    /// The first of some nodes, in their order, that answers something harmless at once.
    private func firstToAnswer(_ names: [String], within milliseconds: Int64) async -> String? {
        guard names.count > 1 else { return names.first }
        let limit = ContinuousClock.now + .milliseconds(milliseconds)
        return await withTaskGroup(of: (String, Bool).self) { group in
            for name in names { group.addTask { (name, await self.answers(name, until: limit)) } }
            var answered: [String: Bool] = [:]
            for await (name, isThere) in group {
                answered[name] = isThere
                // Nobody waits for those that would come later.
                for name in names {
                    guard let isThere = answered[name] else { break }
                    if isThere {
                        group.cancelAll()
                        return name
                    }
                }
            }
            return nil
        }
    }

    private func answers(_ name: String, until limit: ContinuousClock.Instant) async -> Bool {
        do throws(ControlError) {
            let node = try await nodeService(name)
            _ = try await answered(by: name, until: limit) { () throws(ControlError) in
                try await node.report()
            }
            return true
        } catch {
            return error.isRefusal
        }
    }

    // MARK: - Assignment

    /// What a volume's primary is told.
    ///
    /// - Parameters:
    ///   - volume: The volume, with the lease epoch that is meant.
    ///   - served: What its hosts may do.
    ///   - nodes: All nodes.
    ///   - access: Who may use it, when it is not what `served` says.
    ///   - joins: Whether both sets of replicas of its move are to count.
    /// - Returns: The assignment.
    static func assignment(
        _ volume: VolumeRecord,
        _ served: ServedRecord,
        _ nodes: [String: NodeRecord],
        access: NodeVolumeAccess? = nil,
        joins: Bool = false
    ) -> NodeServiceAssignment {
        func told(_ placement: PlacementRecord) -> NodePlacement {
            NodePlacement(
                node: placement.node,
                instance: placement.instance,
                peerEndpoint: nodes[placement.node]?.peerEndpoint
            )
        }
        let placements = (volume.placements ?? []).map(told)
        let move = volume.move.flatMap { move in
            move.to.isUnmade == true
                ? nil : NodeMove(from: move.from, to: told(move.to), joins: joins ? true : nil)
        }
        return NodeServiceAssignment(
            volume: volume.id,
            name: volume.name,
            byteCount: volume.byteCount,
            logicalBlockByteCount: volume.logicalBlockByteCount,
            durability: volume.durabilityMode,
            leaseEpoch: volume.leaseEpoch ?? 0,
            exportEpoch: served.exportEpoch,
            access: access ?? (served.readOnly ? .readOnly : .readWrite),
            writeQuorum: volume.writeQuorum ?? (placements.count / 2 + 1),
            placements: placements,
            move: move,
            session: served.session
        )
    }

    /// All nodes, by name.
    func nodesByName() async throws(ControlError) -> [String: NodeRecord] {
        let nodes = try await meta(await metadata.nodes())
        return Dictionary(nodes.map { ($0.name, $0) }) { first, _ in first }
    }

    /// Has the volume's primary serve it, or tells it of other placements or another size.
    ///
    /// - Parameters:
    ///   - volume: The volume, with the lease epoch that is meant.
    ///   - served: What its hosts may do.
    ///   - nodes: All nodes.
    ///   - access: Who may use it, when it is not what `served` says.
    ///   - joins: Whether both sets of replicas of its move are to count.
    ///   - deadline: When to wait no more.
    /// - Returns: What the node says of it.
    /// - Throws: The node's error. It may have heard all the same.
    @discardableResult
    func assign(
        _ volume: Versioned<VolumeRecord>,
        _ served: ServedRecord,
        _ nodes: [String: NodeRecord],
        access: NodeVolumeAccess? = nil,
        joins: Bool = false,
        until deadline: ContinuousClock.Instant? = nil
    ) async throws(ControlError) -> NodeServiceStatus {
        let name = volume.value.primary
        guard let record = nodes[name] else { throw .nodeNotFound(name) }
        let assignment = Self.assignment(
            volume.value,
            served,
            nodes,
            access: access,
            joins: joins
        )
        let node = try connect(record).carryingOut(operation(on: volume))
        let limit = ContinuousClock.now + patient(Self.serviceMillisecondsMax)
        let status = try await answered(by: name, until: min(limit, deadline ?? limit)) {
            () throws(ControlError) in
            var pause = Duration.milliseconds(20)
            while true {
                do throws(ControlError) {
                    return try await node.serve(assignment)
                } catch  where error.code == .unavailable && pause < .milliseconds(400) {
                    // It has not done it, so the lease is still nobody's. One that has just
                    // registered may not have heard of its session.
                    try? await Task.sleep(for: pause)
                    pause *= 2
                }
            }
        }
        serviceTable.note(status, on: name)
        serviceTable.noteSuccess(volume.value.id)
        return status
    }

    /// Asks a primary to serve a volume no more under an epoch, or any below.
    ///
    /// - Throws: The node's error. It may have stopped all the same.
    func stopServing(
        _ volume: Versioned<VolumeRecord>,
        on name: String,
        leaseEpoch: UInt64,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        guard leaseEpoch > 0 else { return }
        let node = try await nodeService(name).carryingOut(operation(on: volume))
        try await answered(by: name, until: deadline) { () throws(ControlError) in
            do throws(ControlError) {
                try await node.stopServing(volume.value.id, leaseEpoch: leaseEpoch)
            } catch  where error.code == .volumeNotFound || error.code == .outdated {
                // It serves it no more, or somebody later asked it to.
            }
        }
    }

    /// What a request to a node about a replicated volume is part of.
    func operation(on volume: Versioned<VolumeRecord>) -> NodeOperation {
        NodeOperation(term: term, revision: volume.revision, epochMax: APILimits.epochMax)
    }

    /// Has a new primary serve a volume whose record names it and its lease epoch already.
    ///
    /// - Parameters:
    ///   - volume: The volume.
    ///   - served: What its hosts may do then.
    ///   - old: The primary before, when it is another node.
    ///   - isForced: Whether the old one is not waited for: it may be dead, or frozen.
    ///   - deadline: When to wait no more.
    /// - Throws: The new node's error.
    func takeOver(
        _ volume: Versioned<VolumeRecord>,
        _ served: ServedRecord,
        from old: String?,
        isForced: Bool,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        if let old, old != volume.value.primary,
            try await meta(await metadata.liveNode(old)) != nil
        {
            let limit = ContinuousClock.now + patient(Self.stopMillisecondsMax)
            let leaseEpoch = (volume.value.leaseEpoch ?? 1) - 1
            let stopping = Task { [self] in
                do throws(ControlError) {
                    try await stopServing(volume, on: old, leaseEpoch: leaseEpoch, until: limit)
                } catch {
                    logger.info(
                        "an older primary did not answer; replicas fence it",
                        metadata: ["volume": "\(volume.value.name)", "node": "\(old)"]
                    )
                }
            }
            if !isForced { await stopping.value }
        }
        try await assign(volume, served, try await nodesByName(), until: deadline)
    }
}
