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
    /// Of a top layer: the number of the last streamed record of its volume.
    var streamPosition: UInt64 = 0

    /// Counts a block less; the number came from the device and may have been wrong.
    mutating func dropOwnBlock() { ownBlockCount -= min(1, ownBlockCount) }
}

/// An open volume or snapshot.
struct OpenVolume: BitwiseCopyable {
    var isUsed = false
    var isReadOnly = false
    var isWritethrough = false
    /// Whether the handle is of a snapshot rather than of the volume itself.
    var isSnapshot = false
    /// Whether the volume is a replica, of which reads say the numbers of what they found.
    var isReplica = false
    var blockMask: UInt64 = 511
    var layer: Int32 = -1
    var byteCount: UInt64 = 0
    var epoch: UInt64 = 0
    var volume = VolumeID.none
}

/// All volumes and layers of a store.
///
/// Parents, roles and volumes of layers change here only: ``LayerIndex`` follows each change.
final class Catalogue {
    /// Layers that commands leave free, so that what is under way never finds the table full.
    static let layerReserveCount = 8
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
    /// Bytes of all names, descriptors and replica records.
    private var textByteCount = 0
    private let index: LayerIndex
    private var freeSlots: [Int] = []
    private var unusedSlot = 0

    init(layerCountMax: Int, openVolumeCountMax: Int) {
        self.layerCountMax = layerCountMax
        self.openVolumeCountMax = openVolumeCountMax
        layers = FixedArray(repeating: Layer(), count: layerCountMax)
        open = FixedArray(repeating: OpenVolume(), count: openVolumeCountMax)
        index = LayerIndex(layerCountMax: layerCountMax)
    }

    /// Bytes that a manifest takes for it, at most.
    var recordByteCount: Int {
        textByteCount + volumes.count * VolumeRecord.fixedByteCount
            + layerCount * LayerRecord.fixedByteCount + forwards.count * LayerForward.byteCount
    }

    // MARK: - Layers

    var layerCount: Int { slotByLayer.count }

    /// Whether a command may add a layer.
    var hasRoomForLayer: Bool { layerCount < layerCountMax - Catalogue.layerReserveCount }

    /// Layers that commands may add.
    var leftLayerCount: Int { max(layerCountMax - Catalogue.layerReserveCount - layerCount, 0) }

    func slot(of id: LayerID) -> Int? { slotByLayer[id] }

    /// Adds a layer.
    ///
    /// - Precondition: there is room: commands ask ``hasRoomForLayer`` first.
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
        layer.streamPosition = record.streamPosition
        layers[slot] = layer
        slotByLayer[record.id] = slot
        index.addLayer(slot, of: record.volume)
        if record.role == .snapshot { setName(slot, record.name) }
        if record.parent != .none, let parent = slotByLayer[record.parent] {
            setParent(slot, Int32(parent))
        }
        refreshWork(slot)
        nextLayerID = max(nextLayerID, record.id.rawValue + 1)
        return slot
    }

    /// Puts `slot` on `parent` instead of what it stood on.
    func setParent(_ slot: Int, _ parent: Int32) {
        let old = layers[slot].parent
        if old >= 0 {
            layers[Int(old)].childCount -= 1
            index.removeChild(slot, from: Int(old))
        }
        layers[slot].parent = parent
        if parent >= 0 {
            layers[Int(parent)].childCount += 1
            index.addChild(slot, to: Int(parent))
        }
        refreshWork(Int(old))
        refreshWork(Int(parent))
    }

    func removeLayer(_ slot: Int) {
        precondition(layers[slot].isUsed && layers[slot].childCount == 0, "layer still in use")
        setParent(slot, -1)
        setName(slot, nil)
        index.removeLayer(slot, of: layers[slot].volume)
        slotByLayer[layers[slot].id] = nil
        layers[slot].isUsed = false
        refreshWork(slot)
        freeSlots.append(slot)
    }

    func setRole(_ slot: Int, _ role: LayerRole, name: [UInt8] = []) {
        layers[slot].role = role
        setName(slot, role == .snapshot ? name : nil)
        refreshWork(slot)
        refreshWork(Int(layers[slot].parent))
    }

    /// Has background work leave a layer alone from now on.
    func setStuck(_ slot: Int) {
        layers[slot].isStuck = true
        refreshWork(slot)
    }

    private func setName(_ slot: Int, _ name: [UInt8]?) {
        let layer = layers[slot]
        if let old = snapshotNames[layer.id] {
            index.removeName(old, of: layer.volume, layer: layer.id)
        }
        textByteCount += (name?.count ?? 0) - (snapshotNames[layer.id]?.count ?? 0)
        snapshotNames[layer.id] = name
        if let name { index.addName(name, of: layer.volume, layer: layer.id) }
    }

    /// Lists a layer for background work, or no longer, after it or its children changed.
    private func refreshWork(_ slot: Int) {
        guard slot >= 0 else { return }
        index.setWork(slot, work(for: slot))
    }

    /// What background work can do to a layer now: give it back, or merge it into its only child.
    func work(for slot: Int) -> LayerWork? {
        let layer = layers[slot]
        guard layer.isUsed, !layer.isStuck else { return nil }
        switch layer.role {
        case .top, .snapshot: return nil
        case .dropped: return layer.childCount == 0 ? .release : nil
        case .unnamed:
            guard layer.childCount > 0 else { return .release }
            guard let child = onlyChild(of: slot) else { return nil }
            return layers[child].role != .dropped ? .merge : nil
        }
    }

    /// The layer to be given back next, or nil.
    var nextRelease: Int? { index.nextRelease }

    /// The layer to be merged next, or nil.
    var nextMerge: Int? { index.nextMerge }

    /// The work that a layer is listed for.
    func listedWork(_ slot: Int) -> LayerWork? { index.work(slot) }

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
            sealSequence: layer.sealSequence,
            streamPosition: layer.streamPosition
        )
    }

    /// Whether `slot` lies below `layer` in its stack.
    func isAncestor(_ slot: Int, of layer: Int) -> Bool {
        var current = layers[layer].parent
        while current >= 0 {
            index.stepCount += 1
            if Int(current) == slot { return true }
            current = layers[Int(current)].parent
        }
        return false
    }

    /// A layer and all it stands on, from the top down.
    func stack(of layer: Int) -> [Int] {
        var slots: [Int] = []
        var current = Int32(layer)
        while current >= 0 {
            slots.append(Int(current))
            current = layers[Int(current)].parent
        }
        index.stepCount += UInt64(slots.count)
        return slots
    }

    /// The only child of a layer, or nil.
    func onlyChild(of slot: Int) -> Int? {
        layers[slot].childCount == 1 ? index.firstChild(of: slot) : nil
    }

    func children(of slot: Int) -> [Int] { index.children(of: slot) }

    /// Layers looked at so far by whatever walks over several.
    var stepCount: UInt64 { index.stepCount }

    // MARK: - Volumes

    func volume(named name: [UInt8]) -> VolumeID? { volumeByName[name] }

    func setVolume(_ record: VolumeRecord) {
        if let old = volumes[record.id], old.name != record.name { volumeByName[old.name] = nil }
        textByteCount += record.textByteCount - (volumes[record.id]?.textByteCount ?? 0)
        volumes[record.id] = record
        volumeByName[record.name] = record.id
        guard let top = slotByLayer[record.topLayer] else { return }
        for index in 0..<openCountUsed where open[index].isUsed && open[index].volume == record.id {
            open[index].isReplica = !record.replica.isEmpty
            refresh(index, record, top: top)
        }
    }

    func removeVolume(_ id: VolumeID) {
        guard let record = volumes.removeValue(forKey: id) else { return }
        textByteCount -= record.textByteCount
        volumeByName[record.name] = nil
    }

    /// The snapshots among a volume's layers, oldest first; after a rollback some may lie off its
    /// stack.
    func snapshots(among own: [Int]) -> [Int] {
        own.filter { layers[$0].role == .snapshot }
            .sorted { layers[$0].sealSequence < layers[$1].sealSequence }
    }

    /// The layer of a volume's snapshot `name`, or nil.
    func snapshot(named name: [UInt8], of id: VolumeID) -> LayerID? {
        index.snapshotByName[SnapshotName(volume: id, name: name)]
    }

    var snapshotNameCount: Int { index.snapshotByName.count }

    /// All layers made for a volume.
    func layers(of id: VolumeID) -> [Int] { index.layers(of: id) }

    // MARK: - Handles

    private var openCountUsed = 0

    var openCount: Int {
        var total = 0
        for index in 0..<openCountUsed where open[index].isUsed { total += 1 }
        return total
    }

    /// Whether clients have something open that `matches`.
    func isOpen(_ matches: (OpenVolume) -> Bool) -> Bool {
        (0..<openCountUsed).contains { open[$0].isUsed && matches(open[$0]) }
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
        handle.isReplica = !record.replica.isEmpty
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
