import BlockCore
import LogFormat
import LogStore
import StorageIO
import TestSupport
import Testing

/// One defect for each thing that a check can find, found through what `volnode check` runs, and
/// nothing else found with it.
@Suite(.background) struct StoreDefectTests {
    /// A closed store and what a defect is planted in.
    struct Patient {
        let bench: StoreBench
        let surgery: StoreSurgery
        /// The layer that all blocks are in.
        let layer: LayerRecord
        var unreadable: Set<UInt64> = []
        var byteCount: UInt64

        /// Where a block is.
        func entry(_ block: UInt64) throws -> MapEntry {
            try surgery.entry(layer, block: block)
        }

        func offset(_ block: UInt64) throws -> UInt64 { try entry(block).location * 4096 }

        func segment(_ entry: MapEntry) -> Int { Int(entry.location - 256) / 64 }

        /// Has a block's entry say something else; the segment it was in counts one less.
        func move(_ block: UInt64, to entry: MapEntry) throws {
            let old = segment(try self.entry(block))
            try surgery.setEntry(entry, layer, block: block)
            try surgery.changeManifest { $0.usage[old].liveBlockCount -= 1 }
        }

        func check() -> StoreCheckReport {
            let image = bench.arena.region
            let unreadable = unreadable
            var check = StoreCheck(
                geometry: DeviceGeometry(byteCount: byteCount),
                configuration: bench.configuration
            ) { offset, region in
                let end = offset + UInt64(region.byteCount)
                if unreadable.contains(where: { $0 >= offset && $0 < end }) { return 5 }
                region.copy(from: image.slice(Int(offset), region.byteCount))
                return 0
            }
            return check.run()
        }
    }

    private static var byteCount: Int { 24 << 20 }
    private static var batchBlockCount: Int { 16 }
    private static var batchCount: Int { 40 }

    /// A volume of which each MiB was written in 16 batches of 16 blocks, closed, opened and closed
    /// again: what the check opens finds nothing behind the checkpoint but a manifest.
    private func makePatient() throws -> Patient {
        let bench = try StoreBench(byteCount: Self.byteCount, segmentByteCount: 256 << 10)
        let volume = try bench.volume(1, byteCount: 8 << 20)
        for batch in 0..<Self.batchCount {
            let bytes = StoreBench.pattern(batch, Self.batchBlockCount * 4096)
            let status = try bench.write(
                volume,
                at: UInt64(batch * bytes.count),
                bytes,
                flags: .forceUnitAccess
            )
            try #require(status == .ok)
        }
        try close(bench)
        try bench.crash()
        try close(bench)
        let surgery = StoreSurgery(image: bench.arena.region)
        return Patient(
            bench: bench,
            surgery: surgery,
            layer: try #require(try surgery.manifest().layers.first),
            byteCount: UInt64(Self.byteCount)
        )
    }

    private func close(_ bench: StoreBench) throws {
        bench.store.close()
        bench.pump { bench.store.state == .closed }
    }

    @Test("A store without a defect has no problems, and all of it was looked at")
    func check_wholeStore_nothing() throws {
        let report = try makePatient().check()
        #expect(report.problems == [])
        #expect(report.notes == [])
        #expect(report.blockCount == UInt64(Self.batchBlockCount * Self.batchCount))
        #expect(report.pageCount == 4)
        #expect(report.headerCount >= UInt64(Self.batchCount))
    }

    /// A defect, and what must be found.
    typealias Defect = @Sendable (inout Patient) throws -> [StoreProblem]

    struct NamedDefect: Sendable, CustomTestStringConvertible {
        let name: String
        let plant: Defect

        init(_ name: String, _ plant: @escaping Defect) {
            self.name = name
            self.plant = plant
        }

        var testDescription: String { name }
    }

    @Test("Each defect is found where it is, and nothing else", arguments: defects)
    func check_defect_found(_ defect: NamedDefect) throws {
        var patient = try makePatient()
        let expected = try defect.plant(&patient)
        let report = patient.check()
        #expect(report.problems == expected)
        #expect(report.problemCount == expected.count)
    }

    static let defects: [NamedDefect] = roots + maps + blocks + log

    private static let roots = [
        NamedDefect("unusable") { patient in
            for offset in Superblock.slotOffsets { patient.surgery.flip(Int(offset) + 60) }
            return [.unusable(.corrupt(offset: 0))]
        },
        NamedDefect("cannotOpen: cut off behind the last live block") { patient in
            patient.byteCount -= 4096
            return [
                .cannotOpen(
                    .deviceTooSmall(need: UInt64(byteCount), have: UInt64(byteCount) - 4096)
                )
            ]
        },
        NamedDefect("superblockDamaged: a copy of each generation") { patient in
            for offset in [32_768, 65_536] { patient.surgery.flip(offset + 60) }
            return [.superblockDamaged(offset: 32_768), .superblockDamaged(offset: 65_536)]
        },
        NamedDefect("superblockDamaged: something else in its place") { patient in
            patient.surgery.flip(98_304)
            return [.superblockDamaged(offset: 98_304)]
        },
        NamedDefect("unreadable: a copy of the superblock") { patient in
            patient.unreadable = [65_536]
            return [.unreadable(offset: 65_536, errno: 5)]
        },
        NamedDefect("manifestDamaged") { patient in
            let extent = try #require(try patient.surgery.superblock().manifestExtents.first)
            let offset = extent.location * 4096
            patient.surgery.flip(Int(offset) + 20)
            return [.manifestDamaged(offset: offset), .cannotOpen(.corrupt(offset: offset))]
        },
    ]

    private static let maps = [
        NamedDefect("danglingLayer") { patient in
            try patient.surgery.changeManifest { $0.volumes[0].topLayer = LayerID(999) }
            return [.danglingLayer(id: 999)]
        },
        NamedDefect("pageDamaged") { patient in
            let leaf = try patient.surgery.page(patient.layer, level: 0, index: 1)
            patient.surgery.flip(Int(leaf.location) * 4096 + 16)
            let offset = leaf.location * 4096
            let layer = patient.layer.id.rawValue
            return [.pageDamaged(layer: layer, level: 0, index: 1, offset: offset)]
        },
        NamedDefect("unreadable: a map page") { patient in
            let leaf = try patient.surgery.page(patient.layer, level: 0, index: 1)
            patient.unreadable = [leaf.location * 4096]
            return [.unreadable(offset: leaf.location * 4096, errno: 5)]
        },
        NamedDefect("badLocation") { patient in
            try patient.move(40, to: MapEntry(location: 1 << 30, crc: 1, sequence: 1))
            let layer = patient.layer.id.rawValue
            return [.badLocation(layer: layer, block: 40, location: 1 << 30)]
        },
        NamedDefect("claimedTwice: the rest of the run is verified") { patient in
            try patient.move(40, to: try patient.entry(3))
            patient.surgery.flip(Int(try patient.offset(42)))
            let layer = patient.layer.id.rawValue
            return [
                .claimedTwice(layer: layer, block: 40, offset: try patient.offset(3)),
                .blockDamaged(layer: layer, block: 42, offset: try patient.offset(42)),
            ]
        },
        NamedDefect("claimedTwice: by the manifest of a store that cannot be opened") { patient in
            let extent = try #require(try patient.surgery.superblock().manifestExtents.first)
            let entry = MapEntry(location: extent.location, crc: 1, sequence: 1)
            try patient.move(40, to: entry)
            patient.byteCount -= 4096
            let layer = patient.layer.id.rawValue
            let offset = extent.location * 4096
            let need = UInt64(byteCount)
            return [
                .cannotOpen(.deviceTooSmall(need: need, have: need - 4096)),
                .claimedTwice(layer: layer, block: 40, offset: offset),
                .blockDamaged(layer: layer, block: 40, offset: offset),
            ]
        },
        NamedDefect("usageWrong: a leak") { patient in
            let segment = patient.segment(try patient.entry(40))
            var recorded: UInt32 = 0
            try patient.surgery.changeManifest {
                $0.usage[segment].liveBlockCount += 1
                recorded = $0.usage[segment].liveBlockCount
            }
            return [.usageWrong(segment: segment, recorded: recorded, found: recorded - 1)]
        },
        NamedDefect("layerCountWrong") { patient in
            try patient.surgery.changeManifest { $0.layers[0].ownBlockCount += 1 }
            let count = patient.layer.ownBlockCount
            let layer = patient.layer.id.rawValue
            return [.layerCountWrong(layer: layer, recorded: count + 1, found: count)]
        },
    ]

    private static let blocks = [
        NamedDefect("blockDamaged: two of a run") { patient in
            let layer = patient.layer.id.rawValue
            return try ([33, 47] as [UInt64]).map { block in
                let offset = try patient.offset(block)
                patient.surgery.flip(Int(offset) + 100)
                return .blockDamaged(layer: layer, block: block, offset: offset)
            }
        },
        NamedDefect("unreadable: a block of a run, of which another is damaged") { patient in
            let offset = try patient.offset(36)
            let damaged = try patient.offset(44)
            patient.unreadable = [offset]
            patient.surgery.flip(Int(damaged))
            let layer = patient.layer.id.rawValue
            return [
                .unreadable(offset: offset, errno: 5),
                .blockDamaged(layer: layer, block: 44, offset: damaged),
            ]
        },
    ]

    private static let log = [
        NamedDefect("headerDamaged: the batches behind it are verified") { patient in
            let header = try patient.surgery.header(of: try patient.entry(40).location)
            patient.surgery.flip(Int(header) * 4096 + 70)
            return [.headerDamaged(offset: header * 4096)]
        },
        NamedDefect("unreadable: a header") { patient in
            let header = try patient.surgery.header(of: try patient.entry(40).location)
            patient.unreadable = [header * 4096]
            return [.unreadable(offset: header * 4096, errno: 5)]
        },
        NamedDefect("blockNotInLog: the record names another checksum") { patient in
            let location = try patient.entry(40).location
            try patient.surgery.changeRecord(location) { header, record, position in
                header.store(1 as UInt32, at: record + RecordHeader.byteCount + position * 4)
            }
            let layer = patient.layer.id.rawValue
            return [.blockNotInLog(layer: layer, block: 40, offset: location * 4096)]
        },
        NamedDefect("blockNotInLog: the record names other blocks") { patient in
            let location = try patient.entry(32).location
            try patient.surgery.changeRecord(location) { header, record, _ in
                header.store(64 as UInt64, at: record + 16)
            }
            let layer = patient.layer.id.rawValue
            return try (32..<48 as Range<UInt64>).map { block in
                let offset = try patient.offset(block)
                return .blockNotInLog(layer: layer, block: block, offset: offset)
            }
        },
        NamedDefect("blockNotInLog: the record names another layer") { patient in
            let location = try patient.entry(32).location
            try patient.surgery.changeRecord(location) { header, record, _ in
                header.store(77 as UInt64, at: record + 8)
            }
            let layer = patient.layer.id.rawValue
            return try (32..<48 as Range<UInt64>).map { block in
                let offset = try patient.offset(block)
                return .blockNotInLog(layer: layer, block: block, offset: offset)
            }
        },
        NamedDefect("blockNotInLog: the map names another write") { patient in
            let entry = try patient.entry(40)
            let other = MapEntry(location: entry.location, crc: entry.crc, sequence: 9999)
            try patient.surgery.setEntry(other, patient.layer, block: 40)
            let layer = patient.layer.id.rawValue
            return [.blockNotInLog(layer: layer, block: 40, offset: entry.location * 4096)]
        },
        NamedDefect("pageNotInLog") { patient in
            let leaf = try patient.surgery.page(patient.layer, level: 0, index: 1)
            try patient.surgery.changeRecord(leaf.location) { header, record, _ in
                header.store(2 as UInt64, at: record + 16)
            }
            let offset = leaf.location * 4096
            let layer = patient.layer.id.rawValue
            return [.pageNotInLog(layer: layer, level: 0, index: 1, offset: offset)]
        },
    ]
}
