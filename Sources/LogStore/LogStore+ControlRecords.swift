// What a control record does to the catalogue: the same at run time and in replay.

internal import BlockCore
internal import LogFormat

extension LogStore {
    /// Changes the catalogue as a record says; the same at run time and in replay.
    ///
    /// - Returns: false when there is no frame for a new root page; to be called again when there
    ///   is one. At run time frames are reserved first.
    func applyControl(_ record: ControlRecord, batchSequence: UInt64) -> Bool {
        switch record {
        case .createVolume(let volume):
            addTop(of: volume, parent: .none)
            catalogue.setVolume(volume)
        case .cloneSnapshot(let volume, let parent):
            addTop(of: volume, parent: parent)
            catalogue.setVolume(volume)
        case .createSnapshot(let id, let name, let newTop, let sealSequence):
            guard var volume = catalogue.volumes[id],
                let slot = catalogue.slot(of: volume.topLayer)
            else { return true }
            catalogue.layers[slot].byteCount = volume.byteCount
            catalogue.layers[slot].sealSequence = sealSequence
            catalogue.setRole(slot, .snapshot, name: name)
            let sealed = volume.topLayer
            volume.topLayer = newTop
            let position = catalogue.layers[slot].streamPosition
            addTop(of: volume, parent: sealed, streamPosition: position)
            catalogue.setVolume(volume)
        case .rollback(let id, let layer, let newTop):
            guard var volume = catalogue.volumes[id],
                let old = catalogue.slot(of: volume.topLayer),
                let target = catalogue.slot(of: layer)
            else { return true }
            catalogue.setRole(old, .dropped)
            volume.topLayer = newTop
            volume.byteCount = catalogue.layers[target].byteCount
            let position = catalogue.layers[old].streamPosition
            addTop(of: volume, parent: layer, streamPosition: position)
            catalogue.setVolume(volume)
            layerJob.mayHaveWork = true
        case .deleteSnapshot(let layer):
            guard let slot = catalogue.slot(of: layer) else { return true }
            catalogue.setRole(slot, .unnamed)
            layerJob.mayHaveWork = true
        case .deleteVolume(let id):
            for slot in catalogue.layers(of: id) { catalogue.setRole(slot, .dropped) }
            catalogue.removeVolume(id)
            layerJob.mayHaveWork = true
        case .updateVolume(let volume):
            if let top = catalogue.slot(of: volume.topLayer) {
                let level = MapGeometry.rootLevel(byteCount: volume.byteCount)
                guard growRoot(top, to: level) else { return false }
            }
            catalogue.setVolume(volume)
        case .setReplica(let id, let record):
            guard var volume = catalogue.volumes[id] else { return true }
            volume.replica = record
            catalogue.setVolume(volume)
        case .removeLayer(let layer, let child):
            applyRemoval(layer, child: child, batchSequence: batchSequence)
        case .reclaimPage, .mergePage:
            preconditionFailure("page records are applied with their pages")
        }
        return true
    }

    /// The stream of a volume goes on in its new top layer.
    private func addTop(of volume: VolumeRecord, parent: LayerID, streamPosition: UInt64 = 0) {
        var level = MapGeometry.rootLevel(byteCount: volume.byteCount)
        if let slot = catalogue.slot(of: parent) {
            level = max(level, catalogue.layers[slot].rootLevel)
        }
        _ = catalogue.addLayer(
            LayerRecord(
                id: volume.topLayer,
                parent: parent,
                volume: volume.id,
                role: .top,
                name: [],
                byteCount: volume.byteCount,
                rootLevel: level,
                root: .absent,
                ownBlockCount: 0,
                sealSequence: 0,
                streamPosition: streamPosition
            )
        )
    }

    /// Frames that applying a record takes: one for each new root page.
    func growthFrameCount(_ record: ControlRecord) -> Int {
        guard case .updateVolume(let volume) = record,
            let slot = catalogue.slot(of: volume.topLayer)
        else { return 0 }
        let layer = catalogue.layers[slot]
        let level = MapGeometry.rootLevel(byteCount: volume.byteCount)
        guard level > layer.rootLevel, layer.root.isData || hasDirtyRoot(slot) else { return 0 }
        return Int(level - layer.rootLevel)
    }

    private func hasDirtyRoot(_ slot: Int) -> Bool {
        let level = catalogue.layers[slot].rootLevel
        let frame = map.find(PageKey(layer: slot, level: level, index: 0))
        return frame >= 0 && map.frames[frame].flags.contains(.dirty)
    }

    /// Puts new root pages on a layer's map until it covers `level`.
    ///
    /// - Returns: false when there was no frame for one; those below it stay, and the next call
    ///   goes on from there.
    private func growRoot(_ slot: Int, to level: UInt8) -> Bool {
        while catalogue.layers[slot].rootLevel < level {
            let newLevel = catalogue.layers[slot].rootLevel + 1
            let isDirty = hasDirtyRoot(slot)
            if isDirty || catalogue.layers[slot].root.isData {
                let frame = map.allocate(PageKey(layer: slot, level: newLevel, index: 0))
                guard frame >= 0 else { return false }
                map.page(frame).zero()
                map.page(frame).setMapEntry(catalogue.layers[slot].root, 0)
                catalogue.layers[slot].root = .absent
                catalogue.layers[slot].unlinkedPageCount += 1
                map.frames[frame].flags.insert(.unlinked)
                map.setDirty(frame)
                if isDirty { map.frames[frame].pinCount += 1 }
            }
            catalogue.layers[slot].rootLevel = newLevel
        }
        return true
    }
}
