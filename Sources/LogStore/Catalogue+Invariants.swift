// What the index of layers must say, worked out the slow way.

internal import BlockCore
internal import LogFormat

extension Catalogue {
    /// Looks for an index that does not say what the layers say.
    ///
    /// - Returns: What is broken, or nil.
    func brokenIndex() -> String? {
        var children: [Int: Set<Int>] = [:]
        var relatives: [VolumeID: Set<Int>] = [:]
        var namedCount = 0
        for (id, slot) in slotByLayer {
            let layer = layers[slot]
            guard layer.isUsed, layer.id == id else { return "layer slot \(slot) is not \(id)" }
            if layer.parent >= 0 { children[Int(layer.parent), default: []].insert(slot) }
            relatives[layer.volume, default: []].insert(slot)
            guard (snapshotNames[id] != nil) == (layer.role == .snapshot) else {
                return "layer slot \(slot) is \(layer.role), named \(snapshotNames[id] ?? [])"
            }
            guard let name = snapshotNames[id] else { continue }
            namedCount += 1
            guard snapshot(named: name, of: layer.volume) == id else {
                return "the snapshot in layer slot \(slot) is not found by its name"
            }
        }
        guard namedCount == snapshotNameCount else {
            return "\(namedCount) snapshots, \(snapshotNameCount) names"
        }
        for (volume, slots) in relatives where Set(layers(of: volume)) != slots {
            return "layers of volume \(volume): \(slots), listed \(layers(of: volume))"
        }
        for slot in slotByLayer.values {
            let expected = children[slot] ?? []
            guard Set(self.children(of: slot)) == expected,
                layers[slot].childCount == UInt32(expected.count)
            else {
                return """
                    children of layer slot \(slot): \(expected), listed \
                    \(self.children(of: slot)), counted \(layers[slot].childCount)
                    """
            }
            guard listedWork(slot) == work(for: slot) else {
                return "layer slot \(slot) is not listed for the work that it needs"
            }
        }
        return nil
    }
}
