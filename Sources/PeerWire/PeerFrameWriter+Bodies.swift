// The bodies of messages, as they are written. Each is read in the same order in
// `PeerFrameReader+Bodies.swift`.

internal import BlockCore
internal import Replication

extension PeerFrameWriter {
    static func put(
        _ message: PrimaryMessage.Body,
        into body: inout BodyWriter,
        payloadByteCount: Int
    ) {
        switch message {
        case .seal, .release: break
        case .open(let lineage, let start):
            precondition(start > 0, "counters begin at 1")
            body.put(counter: start)
            body.put(UInt32(lineage.ends.count))
            body.putReserved(4)
            body.put(lineage)
        case .write(let number, let range, let payload):
            precondition(isOneLeaf(range), "a write in two leaves")
            precondition(
                payloadByteCount == (payload.hasBytes ? range.byteCount : 0),
                "a payload of another size than its blocks"
            )
            body.put(number)
            body.put(range)
            body.put(payload, hasBytes: payloadByteCount > 0)
        case .flush(let through): body.put(counter: through)
        case .renew(let sentAt, let committed):
            body.put(sentAt.nanoseconds)
            body.put(committed)
        case .complete(let life), .recall(let life): body.put(life.rawValue)
        case .read(let token, let range, let floor):
            precondition(range.count <= PeerLimits.payloadBlockCountMax, "a read of many blocks")
            body.put(token)
            body.put(range)
            body.putReserved(4)
            body.put(counter: floor)
        case .weigh(let token, let range):
            precondition(
                isOneLeaf(range) && range.count <= PeerLimits.payloadBlockCountMax,
                "a write of many blocks, or in two leaves"
            )
            body.put(token)
            body.put(range)
            body.putReserved(4)
        case .snapshot(let mark): body.put(mark)
        case .keep(let life, let mark):
            body.put(life.rawValue)
            body.put(mark)
        case .scan(let token, let view, let above, let from):
            body.put(token)
            body.put(view)
            body.put(above)
            body.put(block: from)
        case .fetch(let token, let view, let block):
            body.put(token)
            body.put(view)
            body.put(block: block)
        case .fill(let token, let block, let number, let payload):
            body.put(token)
            body.put(block: block)
            body.put(number)
            body.put(payload, hasBytes: payloadByteCount > 0)
            body.putReserved(4)
        case .repair(let block, let number, let payload):
            body.put(block: block)
            body.put(number)
            body.put(payload, hasBytes: payloadByteCount > 0)
            body.putReserved(4)
        }
    }

    static func put(_ message: ReplicaMessage.Body, into body: inout BodyWriter, hasBytes: Bool) {
        switch message {
        case .sealed(let status): put(status, into: &body)
        case .refused(let promised): put(promised, into: &body)
        case .opened(let isComplete, let applied, let durable):
            put(applied: applied, durable: durable, into: &body)
            body.put(isComplete)
            body.putReserved(7)
        case .progress(let applied, let durable):
            put(applied: applied, durable: durable, into: &body)
        case .weighed(let token, let blockCount):
            precondition(
                blockCount <= PeerLimits.payloadBlockCountMax,
                "more blocks than a write has"
            )
            body.put(token)
            body.put(blockCount)
            body.putReserved(4)
        case .room(let room):
            body.put(room.writeBlockCount)
            body.put(room.trimBlockCount)
            body.put(room.layerCount)
            body.putReserved(4)
        case .granted(let sentAt): body.put(sentAt.nanoseconds)
        case .completed: break
        case .kept(let number): body.put(number)
        case .readDone(let token, let payload, let number),
            .fetched(let token, let payload, let number):
            body.put(token)
            body.put(number)
            body.put(payload, hasBytes: hasBytes)
            body.putReserved(4)
        case .readRefused(let token), .filled(let token), .viewMissing(let token),
            .fillRefused(let token):
            body.put(token)
        case .readFailed(let token, let block):
            body.put(token)
            body.put(block: block)
        case .fetchFailed(let token, let number):
            body.put(token)
            body.put(number)
        case .scanned(let token, let entries, let next):
            precondition(entries.count <= PeerLimits.scanEntryCountMax, "too many entries")
            body.put(token)
            body.put(block: next ?? 0)
            body.put(UInt32(entries.count))
            body.put(next != nil)
            body.putReserved(3)
            var floor: UInt64 = 0
            for entry in entries {
                precondition(entry.block >= floor, "entries ascend")
                floor = entry.block + 1
                body.put(block: entry.block)
                body.put(entry.number)
            }
            precondition(next.map { $0 >= floor } ?? true, "a scan goes on behind its entries")
        }
    }

    private static func put(_ status: ReplicaStatus, into body: inout BodyWriter) {
        let record = status.record
        precondition(record.accepted <= record.promised, "what is followed is promised")
        put(record.promised, into: &body)
        put(record.accepted, into: &body)
        body.put(record.common)
        body.put(counter: record.streamed)
        put(applied: status.applied, durable: status.durable, into: &body)
        body.put(status.committed)
        body.put(record.isComplete)
        body.put(record.remembers)
        body.put(record.isBlank)
        body.putReserved(1)
        body.put(UInt32(record.lineage.ends.count))
        body.put(UInt32(status.snapshots.count))
        body.put(record.lineage)
        precondition(SnapshotMark.areValid(status.snapshots), "snapshots out of order")
        for mark in status.snapshots { body.put(mark) }
    }

    private static func put(_ epoch: Epoch, into body: inout BodyWriter) {
        precondition(epoch <= WriteNumber.epochMax, "an epoch that cannot exist")
        body.put(epoch.rawValue)
    }

    private static func put(applied: UInt64, durable: UInt64, into body: inout BodyWriter) {
        precondition(durable <= applied, "durable beyond applied")
        body.put(counter: applied)
        body.put(counter: durable)
    }

    /// Whether a write lies in one leaf of the map, as all do.
    static func isOneLeaf(_ range: BlockRange) -> Bool {
        let leaf = PeerLimits.leafBlockCount
        return range.isValid && range.first % leaf + UInt64(range.count) <= leaf
    }
}

extension PeerFrameKind {
    init(_ body: PrimaryMessage.Body) {
        switch body {
        case .seal: self = .seal
        case .open: self = .open
        case .write: self = .write
        case .snapshot: self = .snapshot
        case .keep: self = .keep
        case .weigh: self = .weigh
        case .flush: self = .flush
        case .renew: self = .renew
        case .complete: self = .complete
        case .recall: self = .recall
        case .read: self = .read
        case .scan: self = .scan
        case .fetch: self = .fetch
        case .fill: self = .fill
        case .release: self = .release
        case .repair: self = .repair
        }
    }

    init(_ body: ReplicaMessage.Body) {
        switch body {
        case .sealed: self = .sealed
        case .refused: self = .refused
        case .opened: self = .opened
        case .progress: self = .progress
        case .granted: self = .granted
        case .completed: self = .completed
        case .kept: self = .kept
        case .viewMissing: self = .viewMissing
        case .readDone: self = .readDone
        case .readRefused: self = .readRefused
        case .scanned: self = .scanned
        case .fetched: self = .fetched
        case .filled: self = .filled
        case .fillRefused: self = .fillRefused
        case .weighed: self = .weighed
        case .room: self = .room
        case .readFailed: self = .readFailed
        case .fetchFailed: self = .fetchFailed
        }
    }
}
