// Whose the bytes of a volume are: its own, or other volumes' too.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Where a volume's bytes are.
    ///
    /// A layer is shared when the stack of another volume goes through it: it belongs to the volume
    /// that this one is a clone of, or a clone of this one stands on it. All others would come back
    /// with the volume: those of snapshots that a rollback left beside the stack too.
    ///
    /// - Parameters:
    ///   - record: The volume.
    ///   - own: The layers made for it.
    ///   - stack: Those that it is read through.
    ///   - clonedSnapshots: Those of its snapshots that other volumes are clones of.
    /// - Returns: Where they are.
    /// - Complexity: O(layers, and the children of those without a name).
    func volumeSpace(
        _ record: VolumeRecord,
        own: [Int],
        stack: [Int],
        clonedSnapshots: [Int]
    ) -> VolumeSpace {
        let shared = sharedLayers(own, clonedSnapshots)
        var space = VolumeSpace(logicalByteCount: record.byteCount)
        for slot in own {
            let byteCount = catalogue.layers[slot].ownBlockCount * 4096
            space.writtenByteCount += byteCount
            if shared.contains(slot) {
                space.sharedByteCount += byteCount
            } else {
                space.exclusiveByteCount += byteCount
                space.reclaimableByteCount += reclaimableByteCount(slot)
            }
        }
        for slot in stack where catalogue.layers[slot].volume != record.id {
            let byteCount = catalogue.layers[slot].ownBlockCount * 4096
            space.writtenByteCount += byteCount
            space.sharedByteCount += byteCount
        }
        return space
    }

    /// Those of a volume's layers that stacks of other volumes go through: its cloned snapshots,
    /// the layers whose snapshot is gone but not the clone, and all below.
    private func sharedLayers(_ own: [Int], _ clonedSnapshots: [Int]) -> Set<Int> {
        let nameless = own.filter { slot in
            catalogue.layers[slot].role == .unnamed
                && catalogue.children(of: slot).contains { child in
                    let layer = catalogue.layers[child]
                    return layer.role != .dropped && layer.volume != catalogue.layers[slot].volume
                }
        }
        var shared: Set<Int> = []
        for slot in clonedSnapshots + nameless {
            var below = slot
            while below >= 0, shared.insert(below).inserted {
                below = Int(catalogue.layers[below].parent)
            }
        }
        return shared
    }

    /// What background work will give back of a layer: all when nothing needs it; when it is merged
    /// into the one layer that stands on it, what that one hides, which is at most what it holds.
    private func reclaimableByteCount(_ slot: Int) -> UInt64 {
        let layer = catalogue.layers[slot]
        switch layer.role {
        case .top, .snapshot: return 0
        case .dropped: return layer.ownBlockCount * 4096
        case .unnamed:
            let children = catalogue.children(of: slot).filter {
                catalogue.layers[$0].role != .dropped
            }
            guard let child = children.first else { return layer.ownBlockCount * 4096 }
            guard children.count == 1 else { return 0 }
            return min(layer.ownBlockCount, catalogue.layers[child].ownBlockCount) * 4096
        }
    }
}
