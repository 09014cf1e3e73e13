// The bodies of messages, as they are read. Each is written in the same order in
// `PeerFrameWriter+Bodies.swift`.

internal import BlockCore
internal import Replication

extension PeerFrameReader {
    static func primaryBody(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader,
        _ name: PayloadID
    ) throws(PeerWireError) -> PrimaryMessage.Body {
        switch header.kind {
        case .seal: return .seal
        case .release: return .release
        case .open:
            let start = try fields.takeCounter(atLeast: 1)
            let count = try fields.take(UInt32.self)
            try fields.takeReserved(4)
            return .open(
                lineage: try fields.takeLineage(count: count, of: header.epoch),
                start: start
            )
        case .write:
            let number = try fields.takeNumber()
            let range = try fields.takeRange(countMax: Int(PeerLimits.leafBlockCount))
            guard PeerFrameWriter.isOneLeaf(range) else { throw .badRange }
            let payload = try fields.takePayload(of: header, name: name)
            let blockCount = header.payloadBlockCount
            guard blockCount == 0 || blockCount == range.count else { throw .payloadNotOfRange }
            return .write(number: number, range: range, payload: payload)
        case .flush: return .flush(through: try fields.takeCounter())
        case .renew:
            return .renew(
                sentAt: try fields.takeInstant(),
                committed: try fields.takeNumber()
            )
        case .complete: return .complete(Incarnation(try fields.take(UInt64.self)))
        case .recall: return .recall(Incarnation(try fields.take(UInt64.self)))
        case .read:
            let token = try fields.take(UInt64.self)
            let range = try fields.takeRange(countMax: PeerLimits.payloadBlockCountMax)
            try fields.takeReserved(4)
            return .read(token: token, range: range, floor: try fields.takeCounter())
        case .weigh:
            let token = try fields.take(UInt64.self)
            let range = try fields.takeRange(countMax: PeerLimits.payloadBlockCountMax)
            guard PeerFrameWriter.isOneLeaf(range) else { throw .badRange }
            try fields.takeReserved(4)
            return .weigh(token: token, range: range)
        case .snapshot: return .snapshot(try fields.takeMark())
        case .keep:
            let life = Incarnation(try fields.take(UInt64.self))
            return .keep(life, try fields.takeMark())
        case .scan:
            return .scan(
                token: try fields.take(UInt64.self),
                view: try fields.takeView(),
                above: try fields.takeNumber(),
                from: try fields.takeBlock()
            )
        case .fetch:
            return .fetch(
                token: try fields.take(UInt64.self),
                view: try fields.takeView(),
                block: try fields.takeBlock()
            )
        case .fill:
            let token = try fields.take(UInt64.self)
            let block = try fields.takeBlock()
            let number = try fields.takeNumber()
            let payload = try fields.takePayload(of: header, name: name)
            try fields.takeReserved(4)
            return .fill(token: token, block: block, number: number, payload: payload)
        case .repair:
            let block = try fields.takeBlock()
            let number = try fields.takeNumber()
            let payload = try fields.takePayload(of: header, name: name)
            try fields.takeReserved(4)
            return .repair(block: block, number: number, payload: payload)
        default: throw .unknownKind(header.kind.rawValue)
        }
    }

    static func replicaBody(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader,
        _ name: PayloadID
    ) throws(PeerWireError) -> ReplicaMessage.Body {
        switch header.kind {
        case .sealed: return .sealed(try status(header, &fields))
        case .refused: return .refused(promised: try fields.takeEpoch())
        case .opened:
            let counters = try takeCounters(&fields)
            let isComplete = try fields.takeFlag()
            try fields.takeReserved(7)
            return .opened(
                isComplete: isComplete,
                applied: counters.applied,
                durable: counters.durable
            )
        case .progress:
            let counters = try takeCounters(&fields)
            return .progress(applied: counters.applied, durable: counters.durable)
        case .granted: return .granted(sentAt: try fields.takeInstant())
        case .completed: return .completed
        case .kept: return .kept(try fields.takeNumber())
        case .viewMissing: return .viewMissing(token: try fields.take(UInt64.self))
        case .readDone, .fetched:
            let token = try fields.take(UInt64.self)
            let number = try fields.takeNumber()
            let payload = try fields.takePayload(of: header, name: name)
            try fields.takeReserved(4)
            return header.kind == .readDone
                ? .readDone(token: token, payload: payload, number: number)
                : .fetched(token: token, payload: payload, number: number)
        case .readRefused: return .readRefused(token: try fields.take(UInt64.self))
        case .weighed:
            let token = try fields.take(UInt64.self)
            let blockCount = try fields.take(UInt32.self)
            try fields.takeReserved(4)
            guard blockCount <= UInt32(PeerLimits.payloadBlockCountMax) else { throw .badRange }
            return .weighed(token: token, blockCount: blockCount)
        case .fillRefused: return .fillRefused(token: try fields.take(UInt64.self))
        case .room:
            let room = ReplicaRoom(
                writeBlockCount: try fields.take(UInt32.self),
                trimBlockCount: try fields.take(UInt32.self),
                layerCount: try fields.take(UInt32.self)
            )
            try fields.takeReserved(4)
            guard room.isTold else { throw .badRoom }
            return .room(room)
        case .filled: return .filled(token: try fields.take(UInt64.self))
        case .readFailed:
            return .readFailed(token: try fields.take(UInt64.self), block: try fields.takeBlock())
        case .fetchFailed:
            return .fetchFailed(
                token: try fields.take(UInt64.self),
                number: try fields.takeNumber()
            )
        case .scanned: return try scanned(&fields)
        default: throw .unknownKind(header.kind.rawValue)
        }
    }

    private static func takeCounters(
        _ fields: inout BodyReader
    ) throws(PeerWireError) -> (applied: UInt64, durable: UInt64) {
        let applied = try fields.takeCounter()
        let durable = try fields.takeCounter()
        guard durable <= applied else { throw .badOrder }
        return (applied, durable)
    }

    private static func status(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader
    ) throws(PeerWireError) -> ReplicaStatus {
        var record = ReplicaRecord.created(header.instance)
        record.promised = try fields.takeEpoch()
        record.accepted = try fields.takeEpoch()
        guard record.accepted <= record.promised else { throw .badOrder }
        record.common = try fields.takeNumber()
        record.streamed = try fields.takeCounter()
        let counters = try takeCounters(&fields)
        let committed = try fields.takeNumber()
        record.isComplete = try fields.takeFlag()
        record.remembers = try fields.takeFlag()
        record.isBlank = try fields.takeFlag()
        try fields.takeReserved(1)
        let stepCount = try fields.take(UInt32.self)
        let snapshotCount = try fields.take(UInt32.self)
        record.lineage = try fields.takeLineage(count: stepCount, of: record.accepted)
        return ReplicaStatus(
            record: record,
            applied: counters.applied,
            durable: counters.durable,
            committed: committed,
            snapshots: try fields.takeMarks(count: snapshotCount)
        )
    }

    private static func scanned(
        _ fields: inout BodyReader
    ) throws(PeerWireError) -> ReplicaMessage.Body {
        let token = try fields.take(UInt64.self)
        let next = try fields.takeBlock()
        let count = try fields.take(UInt32.self)
        let hasNext = try fields.takeFlag()
        try fields.takeReserved(3)
        guard count <= PeerLimits.scanEntryCountMax else {
            throw .tooManyEntries(count: Int(count))
        }
        guard hasNext || next == 0 else { throw .reservedNotZero }
        var entries: [ScanEntry] = []
        entries.reserveCapacity(Int(count))
        var floor: UInt64 = 0
        for _ in 0..<count {
            let entry = ScanEntry(block: try fields.takeBlock(), number: try fields.takeNumber())
            guard entry.block >= floor else { throw .badOrder }
            floor = entry.block + 1
            entries.append(entry)
        }
        guard !hasNext || next >= floor else { throw .badOrder }
        return .scanned(token: token, entries: entries, next: hasNext ? next : nil)
    }
}
