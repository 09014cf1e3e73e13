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
            epoch: 4,
            replica: [4, 5, 6, 7]
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
            .reclaimPage(layer: LayerID(3), level: 2, index: 1023),
            .mergePage(layer: LayerID(3), child: LayerID(4), level: 0, index: 99),
            .removeLayer(LayerID(3), child: LayerID(4)),
            .setReplica(volume: VolumeID(5), record: [9, 8, 7]),
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
                sealSequence: 5,
                streamPosition: 3 << 36 | 17
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

    @Test("Control records round-trip, and no truncation or mutation traps", arguments: 0..<11)
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
            manifest.volumes.map { $0.name.count + $0.descriptor.count + $0.replica.count }
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
                recordByteCount: UInt32(RecordHeader.byteCount + 8),
                promisedSequence: 6
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

    @Test("Records that do not add up to their header are refused though its checksum holds")
    func batchHeader_brokenRecords_refused() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            var random = SplitMix(state: 3)
            for round in 0..<1000 {
                let sound = Batch(&random)
                sound.encode(into: block)
                #expect(BatchHeader.decode(block) == sound.header, "round \(round)")
                for (number, damage) in Batch.damages.enumerated() {
                    var batch = sound
                    guard damage(&batch, &random) else { continue }
                    batch.encode(into: block)
                    #expect(BatchHeader.decode(block) == nil, "round \(round), damage \(number)")
                }
            }
        }
    }

    @Test("Only data and zeroes carry numbers from outside, and those are of 56 bits")
    func record_numbers_validated() {
        func isTaken(_ kind: RecordKind, _ flags: RecordFlags, _ sequence: UInt64) -> Bool {
            MemoryArena.withTemporary(byteCount: 4096) { block in
                let count: UInt32 = kind == .control || kind == .zero ? 0 : 1
                RecordHeader(
                    kind: kind,
                    flags: flags,
                    blockCount: count,
                    layer: LayerID(1),
                    firstBlock: 0,
                    sequence: sequence,
                    tailByteCount: count * RecordHeader.tailByteCountPerBlock(kind)
                ).encode(into: block, at: 0)
                return RecordHeader.decode(block, at: 0) != nil
            }
        }
        let most: UInt64 = (1 << 56) - 1
        for kind in [RecordKind.data, .zero] {
            #expect(isTaken(kind, .numbered, 1))
            #expect(isTaken(kind, [.numbered, .streamed, .staysAllocated], most))
            #expect(!isTaken(kind, .numbered, 0))
            #expect(!isTaken(kind, .numbered, most + 1))
            #expect(!isTaken(kind, .streamed, 1))
            #expect(!isTaken(kind, [], most))
        }
        for kind in [RecordKind.relocate, .mapPage, .manifest, .control] {
            #expect(isTaken(kind, [], 1))
            #expect(!isTaken(kind, .numbered, 1))
            #expect(!isTaken(kind, .streamed, 1))
            // A moved block keeps the number it came with.
            #expect(isTaken(kind, [], most) == (kind == .relocate))
        }
    }

    @Test("Control records of pages and layers that cannot be are refused")
    func controlRecord_impossible_refused() throws {
        let wrong: [ControlRecord] = [
            .reclaimPage(layer: LayerID(3), level: 5, index: 0),
            .reclaimPage(layer: LayerID(3), level: 2, index: 1024),
            .mergePage(layer: LayerID(3), child: LayerID(4), level: 0, index: 1 << 26),
            .mergePage(layer: LayerID(3), child: LayerID(4), level: .max, index: .max),
            .rollback(volume: VolumeID(1), layer: LayerID(2), newTop: LayerID(.max)),
            .createSnapshot(
                volume: VolumeID(1),
                name: [65],
                newTop: LayerID(1 << 63),
                sealSequence: 1
            ),
        ]
        for record in wrong {
            #expect(throws: LogFormatError.malformed) { try ControlRecord.decode(record.encode()) }
        }
    }

    @Test("Bytes that are no records are refused though their checksum holds")
    func batchHeader_garbage_refused() {
        MemoryArena.withTemporary(byteCount: 4096) { block in
            var random = SplitMix(state: 4)
            for round in 0..<20_000 {
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
                    recordCount: UInt32(1 + random.below(5)),
                    recordByteCount: UInt32(random.below(BatchHeader.recordByteCountMax + 1)),
                    promisedSequence: 6
                )
                header.encode(into: block)
                #expect(BatchHeader.decode(block) == nil, "round \(round)")
            }
        }
    }
}

/// A batch's header and records, each at a place of its own that damage does not move.
private struct Batch {
    struct Placed {
        var record: RecordHeader
        let offset: Int
        let tail: [UInt8]
        /// Written in the place of the record's kind.
        var kind: UInt8
    }

    var records: [Placed] = []
    var header: BatchHeader

    /// Makes up to eight records of all kinds, all of them in order.
    init(_ random: inout SplitMix) {
        var offset = BatchHeader.recordsOffset
        var payloadBlockCount: UInt32 = 0
        for _ in 0...random.below(8) {
            let record = Batch.record(&random)
            let tail = (0..<record.tailByteCount).map { _ in
                UInt8(truncatingIfNeeded: random.next())
            }
            records.append(
                Placed(record: record, offset: offset, tail: tail, kind: record.kind.rawValue)
            )
            offset += RecordHeader.byteCount + tail.count
            payloadBlockCount += record.payloadBlockCount
        }
        header = BatchHeader(
            identity: 5,
            incarnation: 6,
            sequence: 7,
            location: 8,
            payloadBlockCount: payloadBlockCount,
            recordCount: UInt32(records.count),
            recordByteCount: UInt32(offset - BatchHeader.recordsOffset),
            promisedSequence: 6
        )
    }

    private static func record(_ random: inout SplitMix) -> RecordHeader {
        let kinds: [RecordKind] = [.data, .zero, .relocate, .mapPage, .manifest, .control]
        let kind = kinds[random.below(kinds.count)]
        let blockCount: UInt32 =
            switch kind {
            case .mapPage: 1
            case .control: 0
            case .data, .zero, .relocate, .manifest: UInt32(1 + random.below(8))
            }
        let tailByteCount =
            kind == .control
            ? UInt32(random.below(100))
            : blockCount * RecordHeader.tailByteCountPerBlock(kind)
        return RecordHeader(
            kind: kind,
            blockCount: blockCount,
            layer: LayerID(random.next()),
            firstBlock: UInt64(random.below(1 << 18)) << 8,
            sequence: random.next() >> 10,
            tailByteCount: tailByteCount
        )
    }

    /// Writes it, with a right checksum whatever is wrong.
    func encode(into block: ByteRegion) {
        block.zero()
        for placed in records {
            placed.record.encode(into: block, at: placed.offset)
            block.store(placed.kind, at: placed.offset)
            block.copy(from: placed.tail, at: placed.offset + RecordHeader.byteCount)
        }
        header.encode(into: block)
    }

    /// Ways to be wrong; each says whether it is possible with this batch.
    static let damages: [@Sendable (inout Batch, inout SplitMix) -> Bool] = [
        // Counts that are not those of the records.
        { batch, random in
            batch.header.payloadBlockCount += UInt32(1 + random.below(300))
            return true
        },
        { batch, random in
            guard batch.header.payloadBlockCount > 0 else { return false }
            batch.header.payloadBlockCount -= 1
            return true
        },
        { batch, random in
            batch.header.recordCount += UInt32(1 + random.below(3))
            return true
        },
        { batch, random in
            batch.header.recordCount -= 1
            return true
        },
        { batch, random in
            batch.header.recordCount = .max
            return true
        },
        // Bytes behind the last record, and a last record that is cut off.
        { batch, random in
            let room = BatchHeader.recordByteCountMax - Int(batch.header.recordByteCount)
            batch.header.recordByteCount += UInt32(1 + random.below(room))
            return true
        },
        { batch, random in
            guard let last = batch.records.last else { return false }
            let byteCount = RecordHeader.byteCount + last.tail.count
            batch.header.recordByteCount -= UInt32(1 + random.below(byteCount))
            return true
        },
        { batch, random in
            batch.header.recordByteCount = UInt32(BatchHeader.recordByteCountMax + 1)
            return true
        },
        // A tail that reaches into the next record, or behind the end.
        { batch, random in
            let index = random.below(batch.records.count)
            let record = batch.records[index].record
            switch record.kind {
            case .control: batch.records[index].record.tailByteCount += 1
            case .data, .relocate, .manifest:
                batch.records[index].record.blockCount += 1
                batch.records[index].record.tailByteCount +=
                    RecordHeader.tailByteCountPerBlock(record.kind)
            case .zero, .mapPage: return false
            }
            return true
        },
        { batch, random in
            let index = random.below(batch.records.count)
            batch.records[index].record.tailByteCount = .max - UInt32(random.below(48))
            return true
        },
        // A tail that is not one for the record's blocks.
        { batch, random in
            let index = random.below(batch.records.count)
            guard batch.records[index].record.kind != .control else { return false }
            batch.records[index].record.tailByteCount += 4
            return true
        },
        // Blocks that lie in no leaf, or in two.
        { batch, random in
            let index = random.below(batch.records.count)
            switch batch.records[index].record.kind {
            case .manifest, .control: return false
            case .data, .zero, .relocate, .mapPage: break
            }
            batch.records[index].record.firstBlock =
                BlockGeometry.volumeByteCountMax >> UInt64(BlockGeometry.blockShift)
            return true
        },
        { batch, random in
            let index = random.below(batch.records.count)
            let record = batch.records[index].record
            switch record.kind {
            case .mapPage, .manifest, .control: return false
            case .data, .zero, .relocate: break
            }
            guard record.blockCount > 1 else { return false }
            batch.records[index].record.firstBlock += 257 - UInt64(record.blockCount)
            return true
        },
        // A kind that does not exist.
        { batch, random in
            let kinds: [UInt8] = [0, 7, 255]
            batch.records[random.below(batch.records.count)].kind = kinds[random.below(3)]
            return true
        },
    ]
}
