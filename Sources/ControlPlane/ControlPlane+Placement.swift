// Where new volumes go.

import ControlAPI
import Metadata

extension ControlPlane {
    /// The nodes for a new volume.
    ///
    /// - Parameters:
    ///   - wanted: The node that gets the first replica, or all of it.
    ///   - replicaCount: How many replicas were asked for; nil for three where there are three
    ///     nodes that take some, else one.
    /// - Returns: The nodes; one for a volume that is not replicated.
    /// - Throws: ``ControlError`` when there are not as many.
    func place(
        on wanted: String?,
        replicaCount: Int?
    ) async throws(ControlError) -> [String] {
        let all = try await nodes()
        let records = try await nodesByName()
        let takers = all.filter { records[$0.name]?.peerEndpoint != nil }
        let count = replicaCount ?? (takers.count >= 3 ? 3 : 1)
        guard (1...APILimits.replicaCountMax).contains(count) else {
            throw ControlError(
                .invalidArgument,
                "A volume has 1 to \(APILimits.replicaCountMax) replicas, not \(count)."
            )
        }
        guard count > 1 else { return [try Self.place(on: wanted, all)] }
        if let wanted { _ = try Self.place(on: wanted, all) }
        let open = takers.filter { $0.state == .up && !$0.draining }
        if let wanted, !open.contains(where: { $0.name == wanted }) {
            throw ControlError(
                .unavailable,
                "The node '\(wanted)' takes no replicas: it was started without --listen-peer."
            )
        }
        guard open.count >= count else { throw .tooFewNodes(count, open.count, all.count) }
        let roomy = open.filter { $0.space?.availableByteCount != 0 || $0.name == wanted }
        let names = PlacementChoice.choose(
            count,
            among: roomy.map { Self.candidate($0, records[$0.name]) },
            first: wanted
        )
        guard names.count == count else {
            throw ControlError(
                .noSpace,
                "\(counted(names.count, "node")) of \(open.count) has room, "
                    + "\(count) replicas were asked for.",
                help: "Delete volumes or snapshots, or add nodes."
            )
        }
        return names
    }

    /// The node for a replica that takes a lost one's place.
    ///
    /// - Parameters:
    ///   - present: The nodes of the other replicas.
    ///   - lost: The node of the lost one.
    /// - Returns: A node that is up and has none of them.
    /// - Throws: ``ControlError`` when there is none.
    func placeReplacement(
        beside present: [String],
        instead lost: String
    ) async throws(ControlError) -> String {
        let all = try await nodes()
        let records = try await nodesByName()
        let open = all.filter { node in
            node.state == .up && !node.draining && node.name != lost
                && records[node.name]?.peerEndpoint != nil
                && node.space?.availableByteCount != 0
        }
        let choice = PlacementChoice.choose(
            1,
            among: open.map { Self.candidate($0, records[$0.name]) },
            beside: all.filter { present.contains($0.name) }.map {
                Self.candidate($0, records[$0.name])
            }
        )
        guard let name = choice.first else {
            throw ControlError(.unavailable, "No other node that is up takes a replica.")
        }
        return name
    }

    private static func candidate(_ node: Node, _ record: NodeRecord?) -> PlacementCandidate {
        PlacementCandidate(
            name: node.name,
            zone: record?.failureDomain?.zone,
            rack: record?.failureDomain?.rack,
            host: record?.failureDomain?.host ?? record?.machineID,
            availableByteCount: node.space?.availableByteCount ?? 0,
            volumeCount: node.volumeCount
        )
    }

    /// The node for a volume that is not replicated: the wanted one, or the one with most room.
    private static func place(on wanted: String?, _ all: [Node]) throws(ControlError) -> String {
        if let wanted {
            guard let node = all.first(where: { $0.name == wanted }) else {
                throw .nodeNotFound(wanted)
            }
            guard node.state == .up else { throw .nodeDown(wanted) }
            guard !node.draining else { throw .nodeDraining(wanted) }
            return wanted
        }
        let up = all.filter { $0.state == .up }
        guard !up.isEmpty else {
            throw ControlError(
                .unavailable,
                all.isEmpty ? "The cluster has no nodes." : "No node is up.",
                help: "Start one: 'volctl dev up', or 'volnode run --meta ENDPOINT …'."
            )
        }
        let open = up.filter { !$0.draining }
        guard !open.isEmpty else {
            throw ControlError(
                .unavailable,
                "All nodes that are up are draining.",
                help: "'volctl node drain NODE --undo' takes one back in."
            )
        }
        let candidates = open.map { candidate($0, nil) }
        let best = PlacementChoice.choose(1, among: candidates).first
        guard let best, open.first(where: { $0.name == best })?.space?.availableByteCount != 0
        else {
            throw ControlError(
                .noSpace,
                "All nodes are full.",
                help: "Delete volumes or snapshots, or add a node."
            )
        }
        return best
    }
}

extension ControlError {
    fileprivate static func nodeDown(_ name: String) -> Self {
        ControlError(
            .unavailable,
            "The node '\(name)' is down.",
            help: "Start it, or leave --node out."
        )
    }

    fileprivate static func nodeDraining(_ name: String) -> Self {
        ControlError(
            .unavailable,
            "The node '\(name)' is draining and takes no new volumes.",
            help: "'volctl node drain \(name) --undo' takes it back in; or leave --node out."
        )
    }

    fileprivate static func tooFewNodes(
        _ replicaCount: Int,
        _ openCount: Int,
        _ allCount: Int
    ) -> Self {
        ControlError(
            .unavailable,
            "\(replicaCount) replicas need \(replicaCount) nodes that are up, not draining, and "
                + "started with --listen-peer; \(openCount) of \(allCount) are.",
            help: openCount == 0
                ? "See 'volctl node list'; '--replicas 1' keeps one copy."
                : "See 'volctl node list'; '--replicas \(openCount)' asks for fewer."
        )
    }
}
