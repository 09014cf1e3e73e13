import BlockCore
import FuzzSupport
import PeerWire
import Replication
import Testing

@Suite("Frames of replication that are wrong") struct PeerRefusalTests {
    @Test("No changed byte goes unnoticed", arguments: PeerFrameKind.allCases)
    func frame_changedAnywhere_isRefused(_ kind: PeerFrameKind) {
        let bench = PeerBench()
        var random = FuzzRandom(seed: 21, stream: UInt64(kind.rawValue))
        for _ in 0..<8 {
            var bytes = bench.bytes(PeerSample(kind, random: &random))
            for offset in bytes.indices {
                let byte = bytes[offset]
                for change in [1, 0x80, 0xFF, UInt8(1 + random.below(255))] {
                    bytes[offset] = byte ^ change
                    #expect(throws: PeerWireError.self) { try bench.decode(bytes) }
                }
                bytes[offset] = byte
            }
        }
    }

    @Test("A frame that is cut says how much is missing", arguments: PeerFrameKind.allCases)
    func frame_truncated_saysWhatIsMissing(_ kind: PeerFrameKind) throws {
        let bench = PeerBench()
        var random = FuzzRandom(seed: 22, stream: UInt64(kind.rawValue))
        let bytes = bench.bytes(PeerSample(kind, random: &random))
        let headerByteCount = PeerLimits.headerByteCount
        for length in 0..<bytes.count {
            let whole = length < headerByteCount ? headerByteCount : bytes.count
            let expected = PeerWireError.needMoreBytes(missingByteCount: whole - length)
            #expect(throws: expected) {
                let header = try PeerFrameReader.header(bench.frame.slice(0, length))
                let body = bench.frame.slice(headerByteCount, length - headerByteCount)
                _ = try PeerFrameReader.frame(header, body: body, payload: PeerSample.payload)
            }
        }
    }

    @Test("A body of any other length is refused", arguments: PeerFrameKind.allCases)
    func body_ofAnotherLength_isRefused(_ kind: PeerFrameKind) throws {
        let bench = PeerBench()
        var random = FuzzRandom(seed: 23, stream: UInt64(kind.rawValue))
        let bytes = bench.bytes(PeerSample(kind, random: &random))
        let bodyByteCount = bytes.count - PeerLimits.headerByteCount
        for length in 0..<bodyByteCount {
            let refusal = bench.refusal(bytes.with(UInt32(length), at: 12))
            #expect(refusal != nil)
        }
        let longer = bench.refusal(bytes.with(UInt32(bodyByteCount + 4), at: 12))
        #expect(longer != nil)
        let absurd = bench.refusal(bytes.with(UInt32.max, at: 12))
        #expect(absurd == .bodyTooLong(byteCount: Int(UInt32.max)))
    }

    @Test("Headers that cannot be are refused")
    func header_absurd_isRefused() {
        let bench = PeerBench()
        let bytes = bench.bytes(.flush(through: 3))
        #expect(bench.refusal(bytes) == nil)
        #expect(bench.refusal(bytes.with(UInt8(0), at: 0)) == .badMagic)
        #expect(bench.refusal(bytes.with(UInt8(3), at: 4)) == .versionNotSpoken(3))
        #expect(bench.refusal(bytes.with(UInt8(1), at: 4)) == .versionNotSpoken(1))
        #expect(bench.refusal(bytes.with(UInt8(0), at: 4)) == .versionNotSpoken(0))
        #expect(bench.refusal(bytes.with(UInt8(0), at: 5)) == .unknownKind(0))
        #expect(bench.refusal(bytes.with(UInt8(0x7F), at: 5)) == .unknownKind(0x7F))
        for offset in [6, 7, 20, 21, 22, 23, 56, 63] {
            #expect(bench.refusal(bytes.with(UInt8(1), at: offset)) == .reservedNotZero)
        }
        // A flush has no payload, and no payload has half a block.
        let payload = PeerWireError.payloadTooLong(byteCount: 4096)
        #expect(bench.refusal(bytes.with(UInt32(4096), at: 16)) == payload)
        #expect(bench.refusal(bytes.with(UInt32(7), at: 16)) == .payloadNotWhole(byteCount: 7))
        let absurd = UInt32.max - 4095
        #expect(
            bench.refusal(bytes.with(absurd, at: 16)) == .payloadTooLong(byteCount: Int(absurd))
        )
        #expect(bench.refusal(bytes.with(UInt64(0), at: 24)) == .badVolume)
        #expect(bench.refusal(bytes.with(UInt64(0), at: 40)) == .badEpoch)
        #expect(bench.refusal(bytes.with(UInt64(1 << 20), at: 40)) == .badEpoch)
        #expect(bench.refusal(bytes.with(UInt64.max, at: 40)) == .badEpoch)
    }

    @Test("Fields of a primary that cannot be are refused")
    func primary_absurdFields_areRefused() {
        let bench = PeerBench()
        let range = BlockRange(first: 256, count: 2)
        let number = WriteNumber(epoch: Epoch(5), counter: 1)
        let write = bench.bytes(.write(number: number, range: range, payload: .zeroes))
        let blockCountMax = BlockRange.blockCountMax
        #expect(bench.refusal(write.with(UInt64(1 << 56), at: 64)) == .badNumber)
        #expect(bench.refusal(write.with(blockCountMax, at: 72)) == .badRange)
        #expect(bench.refusal(write.with(UInt64.max, at: 72)) == .badRange)
        #expect(bench.refusal(write.with(UInt32(0), at: 80)) == .badRange)
        #expect(bench.refusal(write.with(UInt32(257), at: 80)) == .badRange)
        #expect(bench.refusal(write.with(UInt32.max, at: 80)) == .badRange)
        // In two leaves.
        #expect(bench.refusal(write.with(UInt64(511), at: 72)) == .badRange)
        #expect(bench.refusal(write.with(UInt8(0), at: 84)) == .payloadNotOfRange)
        #expect(bench.refusal(write.with(UInt8(3), at: 84)) == .badCode(3))
        for offset in 85..<88 {
            #expect(bench.refusal(write.with(UInt8(1), at: offset)) == .reservedNotZero)
        }

        let flush = bench.bytes(.flush(through: 1))
        #expect(bench.refusal(flush.with(UInt64(1 << 36), at: 64)) == .badCounter)
        let renew = bench.bytes(.renew(sentAt: Instant(nanoseconds: 1), committed: number))
        #expect(bench.refusal(renew.with(UInt64.max, at: 72)) == .badNumber)
        let read = bench.bytes(.read(token: 1, range: range, floor: 1))
        #expect(bench.refusal(read.with(UInt32(65), at: 80)) == .badRange)
        #expect(bench.refusal(read.with(UInt32(1), at: 84)) == .reservedNotZero)
        #expect(bench.refusal(read.with(UInt64(1 << 36), at: 88)) == .badCounter)
        let scan = bench.bytes(.scan(token: 1, view: .volume, above: number, from: 0))
        #expect(bench.refusal(scan.with(UInt64(1 << 56), at: 80)) == .badNumber)
        #expect(bench.refusal(scan.with(blockCountMax, at: 88)) == .badBlock)
        let weigh = bench.bytes(.weigh(token: 1, range: range))
        #expect(bench.refusal(weigh) == nil)
        #expect(bench.refusal(weigh.with(UInt64(511), at: 72)) == .badRange)
        #expect(bench.refusal(weigh.with(UInt32(65), at: 80)) == .badRange)
        #expect(bench.refusal(weigh.with(UInt8(1), at: 84)) == .reservedNotZero)
        let fetch = bench.bytes(.fetch(token: 1, view: .volume, block: 1))
        #expect(bench.refusal(fetch.with(blockCountMax, at: 80)) == .badBlock)
        let mark = SnapshotMark(id: 9, number: number)
        let snapshot = bench.bytes(.snapshot(mark))
        #expect(bench.refusal(snapshot.with(UInt64(0), at: 64)) == .badSnapshot)
        #expect(bench.refusal(snapshot.with(UInt64(1 << 56), at: 72)) == .badNumber)
        let keep = bench.bytes(.keep(Incarnation(1), mark))
        #expect(bench.refusal(keep.with(UInt64(0), at: 72)) == .badSnapshot)
        let fill = bench.bytes(.fill(token: 1, block: 1, number: number, payload: .zeroes))
        #expect(bench.refusal(fill.with(blockCountMax, at: 72)) == .badBlock)
        #expect(bench.refusal(fill.with(UInt64(1 << 56), at: 80)) == .badNumber)
        #expect(bench.refusal(fill.with(UInt8(1), at: 92)) == .reservedNotZero)
        let repair = bench.bytes(.repair(block: 1, number: number, payload: .zeroes))
        #expect(bench.refusal(repair.with(blockCountMax, at: 64)) == .badBlock)
        #expect(bench.refusal(repair.with(UInt64(1 << 56), at: 72)) == .badNumber)
        #expect(bench.refusal(repair.with(UInt8(1), at: 84)) == .reservedNotZero)
    }

    @Test("Lineages that cannot be are refused")
    func lineage_absurd_isRefused() throws {
        let bench = PeerBench()
        let ends = [
            WriteNumber(epoch: Epoch(1), counter: 7), WriteNumber(epoch: Epoch(3), counter: 2),
        ]
        let lineage = try #require(Lineage(checking: ends, of: Epoch(5)))
        let open = bench.bytes(.open(lineage: lineage, start: 1))
        #expect(bench.refusal(open) == nil)
        #expect(bench.refusal(open.with(UInt64(0), at: 64)) == .badCounter)
        #expect(bench.refusal(open.with(UInt64(1 << 36), at: 64)) == .badCounter)
        #expect(bench.refusal(open.with(UInt32(65), at: 72)) == .tooManyEntries(count: 65))
        let absurd = PeerWireError.tooManyEntries(count: Int(UInt32.max))
        #expect(bench.refusal(open.with(UInt32.max, at: 72)) == absurd)
        #expect(bench.refusal(open.with(UInt32(1), at: 72)) == .bodyNotConsumed(byteCount: 8))
        #expect(bench.refusal(open.with(UInt32(3), at: 72)) == .bodyTooShort)
        #expect(bench.refusal(open.with(UInt32(1), at: 76)) == .reservedNotZero)
        #expect(bench.refusal(open.with(UInt64.max, at: 80)) == .badNumber)
        // Not below the epoch, not ascending.
        #expect(bench.refusal(open.with(UInt64(5 << 36), at: 88)) == .badLineage)
        #expect(bench.refusal(open.with(UInt64(1 << 36), at: 88)) == .badLineage)
    }

    @Test("Fields of a replica that cannot be are refused")
    func replica_absurdFields_areRefused() {
        let bench = PeerBench()
        let progress = bench.bytes(.progress(applied: 5, durable: 4))
        #expect(bench.refusal(progress.with(UInt64(6), at: 72)) == .badOrder)
        #expect(bench.refusal(progress.with(UInt64(1 << 36), at: 64)) == .badCounter)
        let opened = bench.bytes(.opened(isComplete: true, applied: 5, durable: 4))
        #expect(bench.refusal(opened.with(UInt8(2), at: 80)) == .badCode(2))
        #expect(bench.refusal(opened.with(UInt8(2), at: 81)) == .reservedNotZero)
        let refused = bench.bytes(.refused(promised: Epoch(9)))
        #expect(bench.refusal(refused.with(UInt64(1 << 20), at: 64)) == .badEpoch)
        let done = bench.bytes(.readDone(token: 1, payload: .zeroes, number: .zero))
        #expect(bench.refusal(done.with(UInt64(1 << 56), at: 72)) == .badNumber)
        #expect(bench.refusal(done.with(UInt8(9), at: 80)) == .badCode(9))
        let failed = bench.bytes(.readFailed(token: 1, block: 2))
        #expect(bench.refusal(failed.with(BlockRange.blockCountMax, at: 72)) == .badBlock)
        let unfetched = bench.bytes(.fetchFailed(token: 1, number: .zero))
        #expect(bench.refusal(unfetched.with(UInt64.max, at: 72)) == .badNumber)

        let weighed = bench.bytes(.weighed(token: 1, blockCount: 64))
        #expect(bench.refusal(weighed) == nil)
        #expect(bench.refusal(weighed.with(UInt32(65), at: 72)) == .badRange)
        #expect(bench.refusal(weighed.with(UInt8(1), at: 76)) == .reservedNotZero)
        let room = bench.bytes(.room(.plentiful))
        #expect(bench.refusal(room) == nil)
        #expect(bench.refusal(room.with(UInt32(65_537), at: 64)) == .badRoom)
        #expect(bench.refusal(room.with(UInt32.max, at: 68)) == .badRoom)
        #expect(bench.refusal(room.with(UInt32(1025), at: 72)) == .badRoom)
        #expect(bench.refusal(room.with(UInt8(1), at: 76)) == .reservedNotZero)

        let entries = [3, 5].map { ScanEntry(block: $0, number: .zero) }
        let scanned = bench.bytes(.scanned(token: 1, entries: entries, next: 6))
        #expect(bench.refusal(scanned) == nil)
        #expect(bench.refusal(scanned.with(UInt64(5), at: 72)) == .badOrder)
        #expect(bench.refusal(scanned.with(BlockRange.blockCountMax, at: 72)) == .badBlock)
        #expect(bench.refusal(scanned.with(UInt32(513), at: 80)) == .tooManyEntries(count: 513))
        #expect(bench.refusal(scanned.with(UInt32(3), at: 80)) == .bodyTooShort)
        // Where to go on, at the end.
        #expect(bench.refusal(scanned.with(UInt8(0), at: 84)) == .reservedNotZero)
        #expect(bench.refusal(scanned.with(UInt8(1), at: 85)) == .reservedNotZero)
        #expect(bench.refusal(scanned.with(UInt64(5), at: 88)) == .badOrder)
        #expect(bench.refusal(scanned.with(UInt64.max, at: 88)) == .badBlock)
        #expect(bench.refusal(scanned.with(UInt64.max, at: 96)) == .badNumber)
    }

    @Test("A status that cannot be is refused")
    func sealed_absurd_isRefused() {
        let bench = PeerBench()
        var record = ReplicaRecord.created(ReplicaInstance(8))
        record.promised = Epoch(5)
        record.accepted = Epoch(4)
        let status = ReplicaStatus(record: record, applied: 9, durable: 7, committed: .zero)
        let sealed = bench.bytes(.sealed(status))
        #expect(bench.refusal(sealed) == nil)
        #expect(bench.refusal(sealed.with(UInt64(1 << 20), at: 64)) == .badEpoch)
        #expect(bench.refusal(sealed.with(UInt64(6), at: 72)) == .badOrder)
        #expect(bench.refusal(sealed.with(UInt64.max, at: 80)) == .badNumber)
        #expect(bench.refusal(sealed.with(UInt64.max, at: 88)) == .badCounter)
        #expect(bench.refusal(sealed.with(UInt64(6), at: 96)) == .badOrder)
        #expect(bench.refusal(sealed.with(UInt64.max, at: 112)) == .badNumber)
        for offset in 120..<123 {
            #expect(bench.refusal(sealed.with(UInt8(2), at: offset)) == .badCode(2))
        }
        #expect(bench.refusal(sealed.with(UInt8(1), at: 123)) == .reservedNotZero)
        let absurd = PeerWireError.tooManyEntries(count: 65)
        #expect(bench.refusal(sealed.with(UInt32(65), at: 124)) == absurd)
        let most = PeerWireError.tooManyEntries(count: 961)
        #expect(bench.refusal(sealed.with(UInt32(961), at: 128)) == most)
    }

    @Test("The snapshots of a status are as many as there may be, and in order")
    func sealed_snapshots_areInOrder() {
        let bench = PeerBench()
        var record = ReplicaRecord.created(ReplicaInstance(8))
        record.promised = Epoch(5)
        record.accepted = Epoch(4)
        let marks = (1...UInt64(SnapshotMark.heldCountMax)).map {
            SnapshotMark(id: $0, number: WriteNumber(epoch: Epoch(3), counter: $0))
        }
        let status = ReplicaStatus(
            record: record,
            applied: 9,
            durable: 7,
            committed: .zero,
            snapshots: marks
        )
        let sealed = bench.bytes(.sealed(status))
        #expect(bench.refusal(sealed) == nil)
        // The second as old as the first; then one without an id.
        #expect(bench.refusal(sealed.with(marks[0].number.rawValue, at: 156)) == .badOrder)
        #expect(bench.refusal(sealed.with(UInt64(0), at: 132)) == .badSnapshot)
    }

    @Test("Greetings that cannot be are refused")
    func greetings_absurd_areRefused() {
        let bench = PeerBench()
        let hello = PeerHello(
            volume: VolumeID(1),
            instance: ReplicaInstance(2),
            process: PrimaryID(3),
            volumeByteCount: 1 << 30
        )
        func bytes(_ count: Int) -> [UInt8] { bench.frame.slice(0, count).array() }
        let asked = bytes(PeerFrameWriter.encode(hello, into: bench.frame))
        #expect(bench.refusal(asked) == nil)
        #expect(bench.refusal(asked.with(UInt64(1), at: 40)) == .badEpoch)
        for size in [0, 4095, (64 << 40) + 4096, UInt64.max] as [UInt64] {
            #expect(bench.refusal(asked.with(size, at: 64)) == .badVolumeByteCount)
        }
        #expect(bench.refusal(asked.with(UInt8(0), at: 72)) == .badCode(0))
        #expect(bench.refusal(asked.with(UInt8(1), at: 73)) == .reservedNotZero)
        let answer = PeerHelloAnswer(to: hello, refusal: .busy)
        let said = bytes(PeerFrameWriter.encode(answer, into: bench.frame))
        #expect(bench.refusal(said) == nil)
        #expect(bench.refusal(said.with(UInt8(5), at: 64)) == .badCode(5))
        #expect(bench.refusal(said.with(UInt8(0), at: 65)) == .badCode(0))
        #expect(bench.refusal(said.with(UInt8(1), at: 71)) == .reservedNotZero)
        // Who cannot read a hello does not know of which volume it was.
        #expect(bench.refusal(said.with(UInt64(0), at: 24)) == nil)
        #expect(bench.refusal(asked.with(UInt64(0), at: 24)) == .badVolume)
    }

    @Test("A payload of another size than its blocks is refused")
    func payload_ofAnotherSize_isRefused() {
        let bench = PeerBench()
        let message = PrimaryMessage(
            instance: ReplicaInstance(1),
            epoch: Epoch(1),
            primary: PrimaryID(1),
            body: .write(
                number: .zero,
                range: BlockRange(first: 0, count: 2),
                payload: PayloadID(5)
            )
        )
        let sums = PeerFrameWriter.blockChecksums(
            of: bench.payload.slice(0, 8192),
            into: bench.checksums
        )
        let count = PeerFrameWriter.encode(
            primary: message,
            volume: VolumeID(1),
            payloadByteCount: 8192,
            blockChecksums: sums,
            into: bench.frame
        )
        let bytes = bench.frame.slice(0, count).array()
        #expect(bench.refusal(bytes) == nil)
        #expect(bench.refusal(bytes.with(UInt32(4096), at: 16)) == .payloadNotOfRange)
        // More checksums than the fields leave room for.
        #expect(bench.refusal(bytes.with(UInt32(3 * 4096), at: 16)) == .bodyTooShort)
        #expect(bench.refusal(bytes.with(UInt32(0), at: 16)) == .payloadNotOfRange)
        #expect(bench.refusal(bytes.with(UInt32(1), at: 80)) == .payloadNotOfRange)
        let huge = UInt32(65 * 4096)
        let tooLong = PeerWireError.payloadTooLong(byteCount: Int(huge))
        #expect(bench.refusal(bytes.with(huge, at: 16)) == tooLong)
    }

    @Test("Every error says something else")
    func errors_all_haveWords() {
        let all: [PeerWireError] = [
            .needMoreBytes(missingByteCount: 1), .badMagic, .versionNotSpoken(2), .unknownKind(3),
            .reservedNotZero, .bodyTooLong(byteCount: 4), .bodyTooShort,
            .bodyNotConsumed(byteCount: 5), .payloadNotWhole(byteCount: 6),
            .payloadTooLong(byteCount: 7), .payloadNotOfRange, .badChecksum, .badVolume, .badEpoch,
            .badNumber, .badCounter, .badOrder, .badRange, .badBlock, .badVolumeByteCount,
            .badCode(8), .tooManyEntries(count: 9), .badLineage,
        ]
        #expect(Set(all.map(\.text)).count == all.count)
        #expect(!all.contains { $0.text.isEmpty })
    }
}
