import BlockCore
import LogFormat
import Testing

/// Deterministic numbers for mutations.
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

@Suite struct LogFormatTests {
    static var superblock: Superblock {
        Superblock(
            identity: StoreIdentity(high: 0x1122, low: 0x3344),
            generation: 7,
            deviceByteCount: 1 << 30,
            segmentByteCount: 4 << 20,
            segmentCount: 200,
            incarnation: 3,
            openCount: 4,
            batchSequence: 99,
            manifestExtents: [BlockExtent(location: 256, blockCount: 3)],
            manifestByteCount: 9000,
            manifestCRC: 0xDEAD_BEEF
        )
    }

    static var volume: VolumeRecord {
        VolumeRecord(
            id: VolumeID(5),
            name: Array("disk".utf8),
            byteCount: 1 << 30,
            logicalBlockByteCount: 512,
            durability: 1,
            access: 2,
            descriptor: [1, 2, 3],
            topLayer: LayerID(9),
            epoch: 4
        )
    }

    static var controls: [ControlRecord] {
        [
            .createVolume(volume),
            .createSnapshot(
                volume: VolumeID(5),
                name: Array("s1".utf8),
                newTop: LayerID(10),
                sealSequence: 77
            ),
            .cloneSnapshot(volume, parent: LayerID(3)),
            .rollback(volume: VolumeID(5), layer: LayerID(3), newTop: LayerID(11)),
            .deleteSnapshot(layer: LayerID(3)),
            .deleteVolume(VolumeID(5)),
            .updateVolume(volume),
            .reclaimPage(layer: LayerID(3), level: 2, index: 1234),
            .mergePage(layer: LayerID(3), child: LayerID(4), level: 0, index: 99),
            .removeLayer(LayerID(3), child: LayerID(4)),
        ]
    }

    static var manifest: Manifest {
        var manifest = Manifest()
        manifest.volumes = [volume]
        manifest.layers = [
            LayerRecord(
                id: LayerID(9),
                parent: LayerID(3),
                volume: VolumeID(5),
                role: .snapshot,
                name: Array("s1".utf8),
                byteCount: 1 << 30,
                rootLevel: 2,
                root: MapEntry(location: 4096, crc: 77, sequence: 0),
                ownBlockCount: 12,
                sealSequence: 5
            )
        ]
        manifest.forwards = [LayerForward(from: LayerID(1), into: LayerID(9), batchSequence: 8)]
        manifest.usage = [
            // As many as a segment of the largest size has.
            SegmentUsage(liveBlockCount: 1 << 16, content: .manifest, lastBatchSequence: 6),
            SegmentUsage(liveBlockCount: 0, lastBatchSequence: 0),
        ]
        manifest.replayStarts = [ReplayStart(segment: 1, blockOffset: 12)]
        manifest.nextLayerID = 12
        manifest.writeSequence = 1000
        manifest.dirtyPageCountMax = 64
        return manifest
    }

    @Test("A map entry keeps its fields at their extremes")
    func mapEntry_extremes_roundTrip() {
        for location in [0, 1, 16, (1 << 40) - 1] as [UInt64] {
            for crc in [0, 1, UInt32.max] {
                for sequence in [0, 1, 1 << 24, (1 << 56) - 1] as [UInt64] {
                    let entry = MapEntry(location: location, crc: crc, sequence: sequence)
                    #expect(entry.location == location)
                    #expect(entry.crc == crc)
                    #expect(entry.sequence == sequence)
                }
            }
        }
    }

    @Test("A superblock round-trips, and every single-bit flip is noticed")
    func superblock_bitFlips_noticed() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            Self.superblock.encode(into: block)
            #expect((try? Superblock.decode(block)) == Self.superblock)
            for bit in 0..<(4096 * 8) {
                let byte = block.load(bit / 8, as: UInt8.self)
                block.store(byte ^ (1 << UInt8(bit % 8)), at: bit / 8)
                #expect(throws: LogFormatError.self) { try Superblock.decode(block) }
                block.store(byte, at: bit / 8)
            }
        }
    }

    @Test("A superblock whose fields contradict each other is refused though its checksum holds")
    func superblock_impossibleGeometry_malformed() {
        var wrong: [Superblock] = []
        var copy = Self.superblock
        copy.segmentCount = 0
        wrong.append(copy)
        copy = Self.superblock
        copy.segmentCount = UInt32.max
        wrong.append(copy)
        copy = Self.superblock
        copy.segmentByteCount = 4097
        wrong.append(copy)
        copy = Self.superblock
        copy.manifestExtents = [BlockExtent(location: 1, blockCount: 3)]
        wrong.append(copy)
        copy = Self.superblock
        copy.manifestByteCount = 3 * 4096 + 1
        wrong.append(copy)
        MemoryArena.withTemporary(byteCount: 4096) { block in
            for superblock in wrong {
                superblock.encode(into: block)
                #expect(throws: LogFormatError.malformed) { try Superblock.decode(block) }
            }
        }
    }

    @Test("Control records round-trip, and no truncation or mutation traps", arguments: 0..<10)
    func control_mutations_neverTrap(index: Int) throws {
        let record = Self.controls[index]
        let bytes = record.encode()
        #expect(try ControlRecord.decode(bytes) == record)
        for count in 0..<bytes.count {
            #expect(throws: LogFormatError.self) {
                try ControlRecord.decode(Array(bytes[0..<count]))
            }
        }
        var random = SplitMix(state: UInt64(index))
        for _ in 0..<2000 {
            var mutated = bytes
            for _ in 0...random.below(3) {
                mutated[random.below(mutated.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = try? ControlRecord.decode(mutated)
        }
    }

    @Test("A manifest round-trips, and no truncation or mutation traps")
    func manifest_mutations_neverTrap() throws {
        let bytes = Self.manifest.encode()
        #expect(try Manifest.decode(bytes, segmentCount: 2) == Self.manifest)
        #expect(throws: LogFormatError.malformed) { try Manifest.decode(bytes, segmentCount: 3) }
        for count in 0..<bytes.count {
            #expect(throws: LogFormatError.self) {
                try Manifest.decode(Array(bytes[0..<count]), segmentCount: 2)
            }
        }
        var random = SplitMix(state: 7)
        for _ in 0..<20_000 {
            var mutated = bytes
            for _ in 0...random.below(4) {
                mutated[random.below(mutated.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = try? Manifest.decode(mutated, segmentCount: 2)
        }
    }

    @Test("What the store reserves for a manifest is what it takes, item by item")
    func manifest_byteCounts_addUp() {
        let manifest = Self.manifest
        let texts =
            manifest.volumes.map { $0.name.count + $0.descriptor.count }
            + manifest.layers.map(\.name.count)
        let byteCount =
            Manifest.fixedByteCount
            + manifest.volumes.count * VolumeRecord.fixedByteCount
            + manifest.layers.count * LayerRecord.fixedByteCount
            + manifest.forwards.count * LayerForward.byteCount
            + manifest.usage.count * SegmentUsage.byteCount
            + manifest.replayStarts.count * ReplayStart.byteCount
        #expect(manifest.encode().count == byteCount + texts.reduce(0, +))
    }

    @Test("A batch header round-trips, and every single-bit flip is noticed")
    func batchHeader_bitFlips_noticed() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            block.zero()
            let record = RecordHeader(
                kind: .data,
                blockCount: 2,
                layer: LayerID(3),
                firstBlock: 77,
                epoch: 1,
                sequence: 9,
                shard: 0,
                tailByteCount: 8
            )
            record.encode(into: block, at: BatchHeader.recordsOffset)
            let header = BatchHeader(
                identity: 5,
                incarnation: 6,
                sequence: 7,
                location: 8,
                payloadBlockCount: 2,
                recordCount: 1,
                recordByteCount: UInt32(RecordHeader.byteCount + 8)
            )
            header.encode(into: block)
            #expect(BatchHeader.decode(block) == header)
            #expect(RecordHeader.decode(block, at: BatchHeader.recordsOffset) == record)
            for bit in 0..<(4096 * 8) {
                let byte = block.load(bit / 8, as: UInt8.self)
                block.store(byte ^ (1 << UInt8(bit % 8)), at: bit / 8)
                #expect(BatchHeader.decode(block) == nil)
                block.store(byte, at: bit / 8)
            }
        }
    }

    @Test("Records that do not fit their header are refused though its checksum holds")
    func batchHeader_brokenRecords_refused() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            var random = SplitMix(state: 3)
            for _ in 0..<20_000 {
                for offset in stride(from: 0, to: 4096, by: 8) {
                    if offset > 256 { break }
                    block.store(random.next(), at: offset)
                }
                let header = BatchHeader(
                    identity: 5,
                    incarnation: 6,
                    sequence: 7,
                    location: 8,
                    payloadBlockCount: UInt32(random.below(300)),
                    recordCount: UInt32(random.below(5)),
                    recordByteCount: UInt32(random.below(BatchHeader.recordByteCountMax + 1))
                )
                header.encode(into: block)
                if let decoded = BatchHeader.decode(block) {
                    // Only a batch without records can pass by chance.
                    #expect(decoded.recordCount == 0 || decoded.payloadBlockCount < 300)
                }
            }
        }
    }
}
