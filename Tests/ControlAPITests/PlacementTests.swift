// The choice of nodes for replicas, by its properties.

import ControlPlane
import Testing

@Suite struct PlacementTests {
    /// Nodes in random domains with random room.
    private func candidates(
        _ generator: inout some RandomNumberGenerator
    ) -> [PlacementCandidate] {
        let count = Int.random(in: 1...12, using: &generator)
        return (0..<count).map { index in
            PlacementCandidate(
                name: "n\(index)",
                zone: ["a", "b", "c", nil].randomElement(using: &generator) ?? nil,
                rack: ["r", "s", nil].randomElement(using: &generator) ?? nil,
                host: "h\(Int.random(in: 0..<6, using: &generator))",
                availableByteCount: .random(in: 0...4, using: &generator),
                volumeCount: .random(in: 0...3, using: &generator)
            )
        }
    }

    @Test("Nodes are distinct, the wanted one is first, and no zone is shared without need")
    func choose_random_keepsProperties() {
        for seed in UInt64(1)...2000 {
            var generator = SeededGenerator(state: seed)
            let all = candidates(&generator)
            let count = Int.random(in: 1...5, using: &generator)
            let first =
                Bool.random(using: &generator) ? all.randomElement(using: &generator)?.name : nil
            let names = PlacementChoice.choose(count, among: all, first: first)
            #expect(names.count == min(count, all.count), "seed=\(seed)")
            #expect(Set(names).count == names.count, "seed=\(seed)")
            if let first { #expect(names.first == first, "seed=\(seed)") }
            let zones = names.map { name in all.first(where: { $0.name == name })?.zone }
            let zoneCount = Set(all.map(\.zone)).count
            #expect(Set(zones).count == min(names.count, zoneCount), "seed=\(seed)")
            // Whatever the order in which the nodes are told.
            let shuffled = PlacementChoice.choose(count, among: all.reversed(), first: first)
            #expect(shuffled == names, "seed=\(seed)")
        }
    }

    @Test("In one zone racks come before machines, and machines before room")
    func choose_oneZone_prefersRacks() {
        func node(
            _ name: String,
            _ rack: String,
            _ host: String,
            _ room: UInt64
        )
            -> PlacementCandidate
        {
            PlacementCandidate(name: name, rack: rack, host: host, availableByteCount: room)
        }
        let all = [
            node("a", "r1", "h1", 9), node("b", "r1", "h2", 8), node("c", "r1", "h1", 7),
            node("d", "r2", "h3", 1),
        ]
        #expect(PlacementChoice.choose(4, among: all) == ["a", "d", "b", "c"])
        #expect(PlacementChoice.choose(1, among: all, beside: [all[3], all[0]]) == ["b"])
    }
}
