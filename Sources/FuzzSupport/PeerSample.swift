// Frames of replication that could be sent: what tests and the fuzzer start from.

public import BlockCore
public import PeerWire
public import Replication

/// A frame with random contents, all of them within the format's limits.
public struct PeerSample: Sendable, Hashable {
    /// What it says.
    public var frame: PeerFrame
    /// Of which volume.
    public var volume: VolumeID
    /// Blocks of its payload.
    public var payloadBlockCount: Int

    /// What a payload with bytes is called.
    public static var payload: PayloadID { PayloadID(7) }

    /// Makes up a frame of a kind.
    public init(_ kind: PeerFrameKind, random: inout FuzzRandom) {
        var contents = PeerContents(random: random)
        volume = VolumeID(max(contents.any(), 1))
        frame = contents.frame(kind, volume)
        payloadBlockCount = contents.payloadBlockCount
        random = contents.random
    }

    /// Encodes the frame, and checksums made of its payload's blocks.
    ///
    /// - Parameters:
    ///   - payload: The bytes of which its payload is the first part.
    ///   - bytes: Where to; ``PeerLimits/frameByteCountMax`` bytes.
    ///   - scratch: Room for the checksums: 4 bytes a block.
    /// - Returns: The bytes used.
    public func encode(payload: ByteRegion, into bytes: ByteRegion, scratch: ByteRegion) -> Int {
        let payloadByteCount = payloadBlockCount * BlockGeometry.blockByteCount
        let checksums = PeerFrameWriter.blockChecksums(
            of: payload.slice(0, payloadByteCount),
            into: scratch
        )
        return PeerSample.encode(frame, volume, checksums, into: bytes)
    }

    /// Encodes any frame; it has as many blocks of payload as it has checksums.
    public static func encode(
        _ frame: PeerFrame,
        _ volume: VolumeID,
        _ checksums: ByteRegion,
        into bytes: ByteRegion
    ) -> Int {
        let payloadByteCount = checksums.byteCount / 4 * BlockGeometry.blockByteCount
        switch frame {
        case .hello(let hello): return PeerFrameWriter.encode(hello, into: bytes)
        case .helloAnswer(let answer): return PeerFrameWriter.encode(answer, into: bytes)
        case .primary(let message):
            return PeerFrameWriter.encode(
                primary: message,
                volume: volume,
                payloadByteCount: payloadByteCount,
                blockChecksums: checksums,
                into: bytes
            )
        case .replica(let message):
            return PeerFrameWriter.encode(
                replica: message,
                volume: volume,
                payloadByteCount: payloadByteCount,
                blockChecksums: checksums,
                into: bytes
            )
        }
    }
}

/// Random fields, with a liking for the ends of their ranges.
private struct PeerContents {
    var random: FuzzRandom
    var payloadBlockCount = 0

    init(random: FuzzRandom) { self.random = random }

    // MARK: - Frames

    mutating func frame(_ kind: PeerFrameKind, _ volume: VolumeID) -> PeerFrame {
        let instance = ReplicaInstance(any())
        let process = any()
        switch kind {
        case .hello:
            let size = below(BlockRange.blockCountMax) + 1
            return .hello(
                PeerHello(
                    volume: volume,
                    instance: instance,
                    process: PrimaryID(process),
                    volumeByteCount: size << BlockGeometry.blockShift,
                    version: UInt8(2 + below(254))
                )
            )
        case .helloAnswer:
            return .helloAnswer(
                PeerHelloAnswer(
                    volume: volume,
                    instance: instance,
                    process: PrimaryID(process),
                    version: UInt8(2 + below(254)),
                    refusal: PeerRefusal(rawValue: UInt8(below(5)))
                )
            )
        default: break
        }
        let epoch = Epoch(1 + below(WriteNumber.epochMax.rawValue))
        if let body = primaryBody(kind, epoch) {
            let primary = PrimaryID(process)
            return .primary(
                PrimaryMessage(instance: instance, epoch: epoch, primary: primary, body: body)
            )
        }
        return .replica(
            ReplicaMessage(
                instance: instance,
                incarnation: Incarnation(process),
                epoch: epoch,
                body: replicaBody(kind, instance)
            )
        )
    }

    private mutating func primaryBody(
        _ kind: PeerFrameKind,
        _ epoch: Epoch
    ) -> PrimaryMessage.Body? {
        switch kind {
        case .seal: return .seal
        case .open: return .open(lineage: lineage(of: epoch), start: max(counter(), 1))
        case .write:
            let payload = payload(blockCountMax: 64)
            let countMax = payload.hasBytes ? payloadBlockCount : 1 + Int(below(256))
            let leaf = below(BlockRange.blockCountMax / 256) * 256
            let first = leaf + below(UInt64(257 - countMax))
            let range = BlockRange(first: first, count: UInt32(countMax))
            return .write(number: number(), range: range, payload: payload)
        case .flush: return .flush(through: counter())
        case .renew: return .renew(sentAt: Instant(nanoseconds: any()), committed: number())
        case .complete: return .complete(Incarnation(any()))
        case .recall: return .recall(Incarnation(any()))
        case .read:
            let count = 1 + below(64)
            let first = below(BlockRange.blockCountMax - count + 1)
            let range = BlockRange(first: first, count: UInt32(count))
            return .read(token: any(), range: range, floor: counter())
        case .scan: return .scan(token: any(), view: view(), above: number(), from: block())
        case .fetch: return .fetch(token: any(), view: view(), block: block())
        case .fill:
            let payload = payload(blockCountMax: 1)
            return .fill(token: any(), block: block(), number: number(), payload: payload)
        case .release: return .release
        case .weigh:
            let count = 1 + below(64)
            let leaf = below(BlockRange.blockCountMax / 256) * 256
            let range = BlockRange(first: leaf + below(257 - count), count: UInt32(count))
            return .weigh(token: any(), range: range)
        case .snapshot: return .snapshot(mark(beyond: 0))
        case .keep: return .keep(Incarnation(any()), mark(beyond: 0))
        case .repair:
            let payload = payload(blockCountMax: 1)
            return .repair(block: block(), number: number(), payload: payload)
        default: return nil
        }
    }

    private mutating func replicaBody(
        _ kind: PeerFrameKind,
        _ instance: ReplicaInstance
    ) -> ReplicaMessage.Body {
        let applied = counter()
        let durable = below(applied + 1)
        switch kind {
        case .sealed: return .sealed(status(instance, applied, durable))
        case .refused: return .refused(promised: Epoch(below(1 << 20)))
        case .opened:
            return .opened(isComplete: random.oneIn(2), applied: applied, durable: durable)
        case .progress: return .progress(applied: applied, durable: durable)
        case .granted: return .granted(sentAt: Instant(nanoseconds: any()))
        case .completed: return .completed
        case .readDone:
            let payload = payload(blockCountMax: 64)
            return .readDone(token: any(), payload: payload, number: number())
        case .readRefused: return .readRefused(token: any())
        case .scanned: return scanned()
        case .fetched:
            let payload = payload(blockCountMax: 1)
            return .fetched(token: any(), payload: payload, number: number())
        case .filled: return .filled(token: any())
        case .weighed: return .weighed(token: any(), blockCount: UInt32(below(65)))
        case .fillRefused: return .fillRefused(token: any())
        case .room:
            let most = ReplicaRoom.plentiful
            return .room(
                ReplicaRoom(
                    writeBlockCount: UInt32(below(UInt64(most.writeBlockCount) + 1)),
                    trimBlockCount: UInt32(below(UInt64(most.trimBlockCount) + 1)),
                    layerCount: UInt32(below(UInt64(most.layerCount) + 1))
                )
            )
        case .readFailed: return .readFailed(token: any(), block: block())
        case .fetchFailed: return .fetchFailed(token: any(), number: number())
        case .kept: return .kept(number())
        case .viewMissing: return .viewMissing(token: any())
        default: preconditionFailure("not of a replica")
        }
    }

    private mutating func status(
        _ instance: ReplicaInstance,
        _ applied: UInt64,
        _ durable: UInt64
    ) -> ReplicaStatus {
        var record = ReplicaRecord.created(instance)
        record.promised = Epoch(below(1 << 20))
        record.accepted = Epoch(below(record.promised.rawValue + 1))
        record.common = number()
        record.streamed = counter()
        record.lineage = lineage(of: record.accepted)
        record.isComplete = random.oneIn(2)
        record.remembers = random.oneIn(2)
        record.isBlank = random.oneIn(2)
        return ReplicaStatus(
            record: record,
            applied: applied,
            durable: durable,
            committed: number(),
            snapshots: snapshots()
        )
    }

    private mutating func snapshots() -> [SnapshotMark] {
        let count = random.oneIn(4) ? SnapshotMark.heldCountMax : Int(below(4))
        var marks: [SnapshotMark] = []
        for _ in 0..<count { marks.append(mark(beyond: marks.last?.number.rawValue ?? 0)) }
        return marks
    }

    /// A snapshot with a number shortly above another.
    private mutating func mark(beyond number: UInt64) -> SnapshotMark {
        SnapshotMark(
            id: max(any(), 1),
            number: WriteNumber(rawValue: number + 1 + below(1 << 20))
        )
    }

    private mutating func view() -> ReplicaView {
        random.oneIn(2) ? .volume : .snapshot(max(any(), 1))
    }

    private mutating func scanned() -> ReplicaMessage.Body {
        let count = random.oneIn(4) ? PeerLimits.scanEntryCountMax : Int(below(40))
        var entries: [ScanEntry] = []
        var block = below(1 << 30)
        for _ in 0..<count {
            entries.append(ScanEntry(block: block, number: number()))
            block += 1 + below(1 << 20)
        }
        return .scanned(token: any(), entries: entries, next: random.oneIn(2) ? block : nil)
    }

    // MARK: - Fields

    mutating func any() -> UInt64 {
        random.oneIn(8) ? (random.oneIn(2) ? .max : 0) : random.next()
    }

    /// A number below `bound`; often the least or the last one.
    private mutating func below(_ bound: UInt64) -> UInt64 {
        random.oneIn(8) ? (random.oneIn(2) ? 0 : bound - 1) : random.next() % bound
    }

    private mutating func counter() -> UInt64 { below(WriteNumber.counterMax + 1) }

    private mutating func block() -> UInt64 { below(BlockRange.blockCountMax) }

    private mutating func number() -> WriteNumber { WriteNumber(rawValue: below(1 << 56)) }

    private mutating func lineage(of epoch: Epoch) -> Lineage {
        var ends: [WriteNumber] = []
        let countMax = random.oneIn(4) ? Lineage.stepCountMax : Int(below(8))
        var past = below(epoch.rawValue + 1)
        while past < epoch.rawValue, ends.count < countMax {
            ends.append(WriteNumber(epoch: Epoch(past), counter: counter()))
            past += 1 + below(1 << 10)
        }
        return Lineage(checking: ends, of: epoch) ?? .origin
    }

    private mutating func payload(blockCountMax: UInt64) -> PayloadID {
        payloadBlockCount = 0
        if random.oneIn(4) { return random.oneIn(2) ? .zeroes : .allocatedZeroes }
        payloadBlockCount = 1 + Int(below(blockCountMax))
        return PeerSample.payload
    }
}
