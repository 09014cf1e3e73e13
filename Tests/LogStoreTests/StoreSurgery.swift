// Planting single defects into a closed store: everything that names what was changed follows, so
// that only the defect is wrong.

import BlockCore
import LogFormat
import Testing

/// A store's bytes, opened up.
struct StoreSurgery {
    let image: ByteRegion

    /// The superblock in force.
    func superblock() throws -> Superblock {
        let all = Superblock.slotOffsets.compactMap {
            try? Superblock.decode(image.slice(Int($0), 4096))
        }
        return try #require(all.max { $0.generation < $1.generation })
    }

    func manifest() throws -> Manifest {
        let superblock = try superblock()
        var bytes: [UInt8] = []
        for extent in superblock.manifestExtents {
            bytes += image.slice(Int(extent.location) * 4096, Int(extent.blockCount) * 4096).array()
        }
        return try Manifest.decode(
            Array(bytes[..<Int(superblock.manifestByteCount)]),
            segmentCount: superblock.segmentCount
        )
    }

    /// Changes the manifest, which must stay as long as it is, in its place.
    func changeManifest(_ change: (inout Manifest) throws -> Void) throws {
        var superblock = try superblock()
        var manifest = try manifest()
        try change(&manifest)
        let bytes = manifest.encode()
        try #require(bytes.count == Int(superblock.manifestByteCount))
        var done = 0
        for extent in superblock.manifestExtents {
            let count = min(bytes.count - done, Int(extent.blockCount) * 4096)
            image.copy(from: Array(bytes[done..<(done + count)]), at: Int(extent.location) * 4096)
            done += count
            for block in 0..<UInt64(extent.blockCount) { try reseal(extent.location + block) }
        }
        superblock.manifestCRC = MemoryArena.withTemporary(byteCount: bytes.count) { region in
            region.copy(from: bytes)
            return region.crc32c()
        }
        for slot in Superblock.slots(generation: superblock.generation) {
            superblock.encode(into: image.slice(Int(Superblock.slotOffsets[slot]), 4096))
        }
    }

    // MARK: - Map

    /// Where a page of a layer is.
    func page(_ layer: LayerRecord, level: UInt8, index: UInt64) throws -> MapEntry {
        guard level < layer.rootLevel else { return layer.root }
        let above = try page(layer, level: level + 1, index: index >> 8)
        try #require(above.isData)
        return image.slice(Int(above.location) * 4096, 4096).mapEntry(Int(index & 255))
    }

    func entry(_ layer: LayerRecord, block: UInt64) throws -> MapEntry {
        let leaf = try page(layer, level: 0, index: block >> 8)
        return image.slice(Int(leaf.location) * 4096, 4096).mapEntry(Int(block & 255))
    }

    /// Changes where a block is said to be, and all checksums above.
    func setEntry(_ entry: MapEntry, _ layer: LayerRecord, block: UInt64) throws {
        var entry = entry
        var index = block
        for level in 0...layer.rootLevel {
            var link = try page(layer, level: level, index: index >> 8)
            let region = image.slice(Int(link.location) * 4096, 4096)
            region.setMapEntry(entry, Int(index & 255))
            try reseal(link.location)
            link = MapEntry(location: link.location, crc: region.crc32c(), sequence: 0)
            entry = link
            index >>= 8
        }
        try changeManifest { manifest in
            let place = try #require(manifest.layers.firstIndex { $0.id == layer.id })
            manifest.layers[place].root = entry
        }
    }

    // MARK: - Log

    /// Calls `change` with the header block that has the record of a block, where its record
    /// begins in it, and the block's number in the record; then seals the header again.
    func changeRecord(
        _ location: UInt64,
        _ change: (_ header: ByteRegion, _ record: Int, _ position: Int) -> Void
    ) throws {
        let superblock = try superblock()
        let blockCount = UInt64(superblock.segmentByteCount / 4096)
        var place = location - (location - 256) % blockCount
        while true {
            let block = image.slice(Int(place) * 4096, 4096)
            let header = try #require(BatchHeader.decode(block))
            guard location > place + UInt64(header.payloadBlockCount) else {
                for record in header.records(in: block) {
                    let position = Int(location - place) - 1 - record.payloadIndex
                    guard position >= 0, position < Int(record.header.payloadBlockCount) else {
                        continue
                    }
                    let begin = BatchHeader.recordsOffset + record.tailOffset
                    change(block, begin - RecordHeader.byteCount, position)
                }
                header.encode(into: block)
                return
            }
            place += 1 + UInt64(header.payloadBlockCount)
        }
    }

    /// Has the record of a block name the checksum that it has now.
    private func reseal(_ location: UInt64) throws {
        let crc = image.slice(Int(location) * 4096, 4096).crc32c()
        try changeRecord(location) { header, record, position in
            guard let kind = RecordKind(rawValue: header.load(record, as: UInt8.self)) else {
                return
            }
            let stride = Int(RecordHeader.tailByteCountPerBlock(kind))
            header.store(crc, at: record + RecordHeader.byteCount + position * stride)
        }
    }

    /// The header of the batch that a block belongs to, in blocks.
    func header(of location: UInt64) throws -> UInt64 {
        var found: UInt64 = 0
        try changeRecord(location) { header, _, _ in
            found = header.load(32, as: UInt64.self)
        }
        return found
    }

    /// Changes a bit.
    func flip(_ offset: Int) {
        image.store(image.load(offset, as: UInt8.self) ^ 4, at: offset)
    }
}
