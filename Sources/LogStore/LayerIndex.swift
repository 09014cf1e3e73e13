// Who stands on whom, whose layers are whose, and which layers wait to be merged or given back:
// kept with every change, so that no command looks through layers it is not about.

internal import BlockCore
internal import LogFormat

/// A snapshot by the name that its volume's user gave it.
struct SnapshotName: Hashable {
    var volume: VolumeID
    var name: [UInt8]
}

/// What background work does to a layer.
enum LayerWork: UInt8, BitwiseCopyable {
    /// Nothing stands on it: its blocks are given back.
    case release
    /// One layer stands on it, and takes its blocks.
    case merge
}

/// The lists that all layers of a catalogue are in.
final class LayerIndex {
    private let siblings: SlotLinks
    private let childLists: FixedArray<SlotList>
    private let relatives: SlotLinks
    private var volumeLists: [VolumeID: SlotList] = [:]
    private let workers: SlotLinks
    private let works: FixedArray<LayerWork>
    private var releases = SlotList()
    private var merges = SlotList()
    private(set) var snapshotByName: [SnapshotName: LayerID] = [:]
    /// Layers looked at by anything that walks; what tests bound instead of time.
    var stepCount: UInt64 = 0

    init(layerCountMax: Int) {
        siblings = SlotLinks(count: layerCountMax)
        childLists = FixedArray(repeating: SlotList(), count: layerCountMax)
        relatives = SlotLinks(count: layerCountMax)
        workers = SlotLinks(count: layerCountMax)
        works = FixedArray(repeating: .release, count: layerCountMax)
    }

    // MARK: - Children

    func addChild(_ slot: Int, to parent: Int) { siblings.append(slot, to: &childLists[parent]) }

    func removeChild(_ slot: Int, from parent: Int) {
        siblings.remove(slot, from: &childLists[parent])
    }

    /// The child that joined first, or nil.
    func firstChild(of slot: Int) -> Int? {
        let first = childLists[slot].first
        return first < 0 ? nil : Int(first)
    }

    func children(of slot: Int) -> [Int] { walk(childLists[slot], siblings) }

    // MARK: - Volumes

    func addLayer(_ slot: Int, of volume: VolumeID) {
        relatives.append(slot, to: &volumeLists[volume, default: SlotList()])
    }

    func removeLayer(_ slot: Int, of volume: VolumeID) {
        guard var list = volumeLists[volume] else {
            preconditionFailure("a layer of a volume without layers")
        }
        relatives.remove(slot, from: &list)
        volumeLists[volume] = list.isEmpty ? nil : list
    }

    func layers(of volume: VolumeID) -> [Int] {
        guard let list = volumeLists[volume] else { return [] }
        return walk(list, relatives)
    }

    // MARK: - Names

    func addName(_ name: [UInt8], of volume: VolumeID, layer: LayerID) {
        snapshotByName[SnapshotName(volume: volume, name: name)] = layer
    }

    func removeName(_ name: [UInt8], of volume: VolumeID, layer: LayerID) {
        let key = SnapshotName(volume: volume, name: name)
        if snapshotByName[key] == layer { snapshotByName[key] = nil }
    }

    // MARK: - Work

    /// Of the layers to be given back the one that has waited longest, or nil.
    var nextRelease: Int? { releases.isEmpty ? nil : Int(releases.first) }

    /// Of the layers to be merged the one that has waited longest, or nil.
    var nextMerge: Int? { merges.isEmpty ? nil : Int(merges.first) }

    func work(_ slot: Int) -> LayerWork? { workers.isListed(slot) ? works[slot] : nil }

    func setWork(_ slot: Int, _ work: LayerWork?) {
        guard self.work(slot) != work else { return }
        switch self.work(slot) {
        case .release: workers.remove(slot, from: &releases)
        case .merge: workers.remove(slot, from: &merges)
        case nil: break
        }
        guard let work else { return }
        works[slot] = work
        switch work {
        case .release: workers.append(slot, to: &releases)
        case .merge: workers.append(slot, to: &merges)
        }
    }

    private func walk(_ list: SlotList, _ links: borrowing SlotLinks) -> [Int] {
        var slots: [Int] = []
        var slot = list.first
        while slot >= 0 {
            slots.append(Int(slot))
            slot = links.next(Int(slot))
        }
        stepCount += UInt64(slots.count)
        return slots
    }
}
