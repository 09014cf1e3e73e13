// Volumes and layers in memory. The data path sees slots; names and ids stay on the cold side.

internal import BlockCore
internal import LogFormat

/// One layer, as the data path sees it.
struct Layer: BitwiseCopyable {
    var id = LayerID.none
    var isUsed = false
    /// A page of it could not be read: background work leaves it alone.
    var isStuck = false
    var role = LayerRole.top
    var rootLevel: UInt8 = 0
    /// Slot of the layer below, or -1.
    var parent: Int32 = -1
    /// Layers that stand on this one.
    var childCount: UInt32 = 0
    /// Pages in memory that their parents do not name yet.
    var unlinkedPageCount: UInt32 = 0
    /// The root page; absent for an empty layer or one whose root was never written.
    var root = MapEntry.absent
    var ownBlockCount: UInt64 = 0
    var volume = VolumeID.none
    var byteCount: UInt64 = 0
    var sealSequence: UInt64 = 0
}

/// An open volume or snapshot.
struct OpenVolume: BitwiseCopyable {
    var isUsed = false
    var isReadOnly = false
    var isWritethrough = false
    /// Whether the handle is of a snapshot rather than of the volume itself.
    var isSnapshot = false
    var blockMask: UInt64 = 511
    var layer: Int32 = -1
    var byteCount: UInt64 = 0
    var epoch: UInt64 = 0
    var volume = VolumeID.none
}

/// All volumes and layers of a store.
final class Catalogue {
    /// The most layers a store serves at once.
    let layerCountMax: Int
    /// The most handles open at once.
    let openVolumeCountMax: Int

    let layers: FixedArray<Layer>
    let open: FixedArray<OpenVolume>
    private(set) var volumes: [VolumeID: VolumeRecord] = [:]
    private(set) var volumeByName: [[UInt8]: VolumeID] = [:]
    private(set) var slotByLayer: [LayerID: Int] = [:]
    private(set) var snapshotNames: [LayerID: [UInt8]] = [:]
    private(set) var forwards: [LayerID: LayerForward] = [:]
    var nextLayerID: UInt64 = 1
    private var freeSlots: [Int] = []
    private var unusedSlot = 0

    init(layerCountMax: Int, openVolumeCountMax: Int) {
        self.layerCountMax = layerCountMax
        self.openVolumeCountMax = openVolumeCountMax
        layers = FixedArray(repeating: Layer(), count: layerCountMax)
        open = FixedArray(repeating: OpenVolume(), count: openVolumeCountMax)
    }

    // MARK: - Layers

    var layerCount: Int { slotByLayer.count }

    func slot(of id: LayerID) -> Int? { slotByLayer[id] }

    /// Adds a layer.
    ///
    /// - Precondition: there is room; commands check it first.
    func addLayer(_ record: LayerRecord) -> Int {
        let slot: Int
        if let reused = freeSlots.popLast() {
            slot = reused
        } else {
            precondition(unusedSlot < layerCountMax, "layer table full")
            slot = unusedSlot
            unusedSlot += 1
        }
        var layer = Layer()
        layer.id = record.id
        layer.isUsed = true
        layer.role = record.role
        layer.rootLevel = record.rootLevel
        layer.root = record.root
        layer.ownBlockCount = record.ownBlockCount
        layer.volume = record.volume
        layer.byteCount = record.byteCount
        layer.sealSequence = record.sealSequence
        if record.parent != .none, let parent = slotByLayer[record.parent] {
            layer.parent = Int32(parent)
            layers[parent].childCount += 1
        }
        layers[slot] = layer
        slotByLayer[record.id] = slot
        if record.role == .snapshot { snapshotNames[record.id] = record.name }
        nextLayerID = max(nextLayerID, record.id.rawValue + 1)
        return slot
    }

    /// Puts `slot` on `parent` instead of what it stood on.
    func setParent(_ slot: Int, _ parent: Int32) {
        let old = layers[slot].parent
        if old >= 0 { layers[Int(old)].childCount -= 1 }
        layers[slot].parent = parent
        if parent >= 0 { layers[Int(parent)].childCount += 1 }
    }

    func removeLayer(_ slot: Int) {
        precondition(layers[slot].isUsed && layers[slot].childCount == 0, "layer still in use")
        setParent(slot, -1)
        slotByLayer[layers[slot].id] = nil
        snapshotNames[layers[slot].id] = nil
        layers[slot].isUsed = false
        freeSlots.append(slot)
    }

    func setRole(_ slot: Int, _ role: LayerRole, name: [UInt8] = []) {
        layers[slot].role = role
        snapshotNames[layers[slot].id] = role == .snapshot ? name : nil
    }

    func addForward(_ forward: LayerForward) { forwards[forward.from] = forward }

    func pruneForwards(olderThan batchSequence: UInt64) {
        guard !forwards.isEmpty else { return }
        forwards = forwards.filter { $0.value.batchSequence >= batchSequence }
    }

    /// The record of a layer, for the manifest.
    func record(ofLayer slot: Int) -> LayerRecord {
        let layer = layers[slot]
        return LayerRecord(
            id: layer.id,
            parent: layer.parent >= 0 ? layers[Int(layer.parent)].id : .none,
            volume: layer.volume,
            role: layer.role,
            name: snapshotNames[layer.id] ?? [],
            byteCount: layer.byteCount,
            rootLevel: layer.rootLevel,
            root: layer.root,
            ownBlockCount: layer.ownBlockCount,
            sealSequence: layer.sealSequence
        )
    }

    /// Whether `slot` lies below `layer` in its stack.
    func isAncestor(_ slot: Int, of layer: Int) -> Bool {
        var current = layers[layer].parent
        while current >= 0 {
            if Int(current) == slot { return true }
            current = layers[Int(current)].parent
        }
        return false
    }

    /// The only child of a layer, or nil.
    func onlyChild(of slot: Int) -> Int? {
        guard layers[slot].childCount == 1 else { return nil }
        for child in slotByLayer.values where layers[child].parent == Int32(slot) { return child }
        return nil
    }

    func children(of slot: Int) -> [Int] {
        slotByLayer.values.filter { layers[$0].parent == Int32(slot) }
    }

    // MARK: - Volumes

    func volume(named name: [UInt8]) -> VolumeID? { volumeByName[name] }

    func setVolume(_ record: VolumeRecord) {
        if let old = volumes[record.id], old.name != record.name { volumeByName[old.name] = nil }
        volumes[record.id] = record
        volumeByName[record.name] = record.id
        guard let top = slotByLayer[record.topLayer] else { return }
        for index in 0..<openCountUsed where open[index].isUsed && open[index].volume == record.id {
            refresh(index, record, top: top)
        }
    }

    func removeVolume(_ id: VolumeID) {
        guard let record = volumes.removeValue(forKey: id) else { return }
        volumeByName[record.name] = nil
    }

    /// The snapshots of a volume, oldest first; after a rollback some may lie off its stack.
    func snapshots(of id: VolumeID) -> [Int] {
        slotByLayer.values
            .filter { layers[$0].volume == id && layers[$0].role == .snapshot }
            .sorted { layers[$0].sealSequence < layers[$1].sealSequence }
    }

    /// All layers made for a volume.
    func layers(of id: VolumeID) -> [Int] {
        slotByLayer.values.filter { layers[$0].volume == id }
    }

    // MARK: - Handles

    private var openCountUsed = 0

    var openCount: Int {
        var total = 0
        for index in 0..<openCountUsed where open[index].isUsed { total += 1 }
        return total
    }

    func isOpen(_ id: VolumeID) -> Bool {
        for index in 0..<openCountUsed where open[index].isUsed && open[index].volume == id {
            return true
        }
        return false
    }

    func isOpen(layer slot: Int) -> Bool {
        for index in 0..<openCountUsed
        where open[index].isUsed && open[index].layer == Int32(slot) {
            return true
        }
        return false
    }

    func openHandle(_ record: VolumeRecord, snapshot: Int?) -> VolumeHandle? {
        var index = 0
        while index < openCountUsed, open[index].isUsed { index += 1 }
        guard index < openVolumeCountMax, let top = slotByLayer[record.topLayer] else {
            return nil
        }
        openCountUsed = max(openCountUsed, index + 1)
        var handle = OpenVolume()
        handle.isUsed = true
        handle.volume = record.id
        if let snapshot {
            handle.isSnapshot = true
            handle.isReadOnly = true
            handle.layer = Int32(snapshot)
            handle.byteCount = layers[snapshot].byteCount
            handle.blockMask = UInt64(record.logicalBlockByteCount) - 1
        }
        open[index] = handle
        if snapshot == nil { refresh(index, record, top: top) }
        return VolumeHandle(UInt32(index))
    }

    func closeHandle(_ handle: VolumeHandle) {
        precondition(open[Int(handle.rawValue)].isUsed, "closed twice")
        open[Int(handle.rawValue)].isUsed = false
    }

    private func refresh(_ index: Int, _ record: VolumeRecord, top: Int) {
        guard !open[index].isSnapshot else { return }
        open[index].layer = Int32(top)
        open[index].byteCount = record.byteCount
        open[index].isWritethrough = record.durability == Durability.writethrough.rawValue
        open[index].blockMask = UInt64(record.logicalBlockByteCount) - 1
        open[index].epoch = record.epoch
    }
}
