// Which nodes get the replicas of a volume: a pure choice, tested by its properties.

/// A node that may get a replica.
package struct PlacementCandidate: Sendable, Hashable {
    /// Its name.
    package var name: String
    /// Its zone; nodes that do not tell count as one zone, and so on.
    package var zone: String?
    /// Its rack.
    package var rack: String?
    /// Its machine.
    package var host: String?
    /// Bytes that it has room for.
    package var availableByteCount: UInt64
    /// The number of volumes that lie on it.
    package var volumeCount: Int

    /// Creates a candidate.
    package init(
        name: String,
        zone: String? = nil,
        rack: String? = nil,
        host: String? = nil,
        availableByteCount: UInt64,
        volumeCount: Int = 0
    ) {
        self.name = name
        self.zone = zone
        self.rack = rack
        self.host = host
        self.availableByteCount = availableByteCount
        self.volumeCount = volumeCount
    }
}

/// Chooses nodes for replicas.
package enum PlacementChoice {
    /// Chooses distinct nodes: first such that share the fewest zones, then racks, then machines
    /// with those chosen before, then those with most room.
    ///
    /// - Parameters:
    ///   - count: How many.
    ///   - candidates: The nodes that may be chosen, by distinct names.
    ///   - present: Nodes that have replicas already; they are not chosen.
    ///   - first: One that is chosen in any case, before all others.
    /// - Returns: The names, in the order of choice; fewer than `count` when there are not as many.
    package static func choose(
        _ count: Int,
        among candidates: [PlacementCandidate],
        beside present: [PlacementCandidate] = [],
        first: String? = nil
    ) -> [String] {
        var chosen = present
        let taken = Set(present.map(\.name))
        var rest = candidates.filter { !taken.contains($0.name) }
        var names: [String] = []
        while names.count < count, !rest.isEmpty {
            let wanted = names.isEmpty ? rest.firstIndex { $0.name == first } : nil
            let index = wanted ?? rest.indices.min { precedes(rest[$0], rest[$1], chosen) } ?? 0
            let node = rest.remove(at: index)
            chosen.append(node)
            names.append(node.name)
        }
        return names
    }

    private static func precedes(
        _ left: PlacementCandidate,
        _ right: PlacementCandidate,
        _ chosen: [PlacementCandidate]
    ) -> Bool {
        let leftShared = shared(left, chosen)
        let rightShared = shared(right, chosen)
        guard leftShared == rightShared else {
            return leftShared.lexicographicallyPrecedes(rightShared)
        }
        // Equal room: the one with fewer volumes, then by name, so that tests can tell.
        return (right.availableByteCount, left.volumeCount, left.name)
            < (left.availableByteCount, right.volumeCount, right.name)
    }

    /// How many of those chosen share the node's zone, rack and machine.
    private static func shared(
        _ node: PlacementCandidate,
        _ chosen: [PlacementCandidate]
    ) -> [Int] {
        let inZone = chosen.filter { $0.zone == node.zone }
        let inRack = inZone.filter { $0.rack == node.rack }
        return [inZone.count, inRack.count, chosen.count { $0.host == node.host }]
    }
}
