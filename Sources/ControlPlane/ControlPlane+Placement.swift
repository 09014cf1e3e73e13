// Where new volumes go.

import ControlAPI
import Metadata

extension ControlPlane {
    /// The node for a new volume: the wanted one, or the one with most room.
    func place(on wanted: String?) async throws(ControlError) -> String {
        let all = try await nodes()
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
        // Equal room: the one with fewer volumes, then by name, so that tests can tell.
        let best = open.max { left, right in
            let leftRoom = left.space?.availableByteCount ?? 0
            let rightRoom = right.space?.availableByteCount ?? 0
            return (leftRoom, right.volumeCount, right.name)
                < (rightRoom, left.volumeCount, left.name)
        }
        guard let best, best.space?.availableByteCount != 0 else {
            throw ControlError(
                .noSpace,
                "All nodes are full.",
                help: "Delete volumes or snapshots, or add a node."
            )
        }
        return best.name
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
}
