// One replica on its store: what its machine wants is done in the order that the machine counts on.
//
// Invariants
//   the writes of the stream enter the store's log one after the other: each is submitted when the
//   one before is in the log
//   a record is submitted when everything asked for before it is in the log; what was asked for
//   after it waits until it is durable
//   a payload is held from the message that brought it until its step has ended
// Faults: a store without room is tried again; one that has stopped ends the replica, which the
// primaries see as a lost connection.

internal import BlockCore
internal import LogStore
internal import Replication

/// A replica that this node holds; belongs to its store's reactor.
final class ReplicaHost {
    /// Who is at the other end of a link.
    enum Sink {
        /// A primary of the same reactor.
        case primary(PrimaryHost, slot: Int)
        /// A connection.
        case peer(PeerLink)
    }

    /// What the machine wants of the store, in order.
    struct Step: BitwiseCopyable {
        enum Kind: UInt8, BitwiseCopyable {
            case append, fill, repair, persist, flush, snapshot, skip, drop
        }
        var kind: Kind
        var number = WriteNumber.zero
        var range = BlockRange(first: 0, count: 0)
        var payload = PayloadID.zeroes
        /// Of a fill: whom to tell.
        var address: ReplyAddress?
        /// Of a snapshot that is taken or dropped: which, and whether the stream brought it.
        var mark: SnapshotMark?
        var isStreamed = false
    }

    /// A look at the store that needs no turn.
    struct Look: BitwiseCopyable {
        enum Kind: UInt8, BitwiseCopyable { case read, fetch, scan, weigh }
        var kind: Kind
        var range: BlockRange
        var view = ReplicaView.volume
        var above = WriteNumber.zero
        var address: ReplyAddress
        /// The snapshot that was opened for it.
        var handle: VolumeHandle?
    }

    /// Its place in the reactor's table.
    let index: Int32
    /// The volume that it is a replica of.
    let volume: VolumeID
    let host: StoreHost
    let handle: VolumeHandle
    let machine: ReplicaMachine
    /// The store's layer of each snapshot, by id.
    var layers: [UInt64: LayerID]
    /// Snapshots that were opened for looks which have ended.
    var handlesToClose: [VolumeHandle] = []
    var sinks: [LinkID: Sink] = [:]
    var steps = GrowingQueue<Step>()
    var records = GrowingQueue<ReplicaRecord>()
    /// The step that was submitted and has not ended, or waits for room.
    var current: Step?
    var looks = GrowingQueue<Look>()
    /// Requests at the store.
    var requestCount = 0
    /// Copies that were damaged and have been written anew, and how many of them were told of.
    var repairedCount: UInt64 = 0
    var toldRepairedCount: UInt64 = 0
    /// When more of them are told of at the earliest.
    var tellRepairedAt = Instant(nanoseconds: 0)
    /// When to try a step again that found no room.
    var retryAt: Instant?
    /// It stands in the queue of those with something to do.
    var isMarked = false
    /// Its store has stopped, or it is being taken away.
    var isEnded = false
    /// Told when it has ended and the store has nothing of it in work.
    var onIdle: [() -> Void] = []

    /// Requests at the store at the same time: reads of clients and of a resync.
    static let requestCountMax = 64
    /// How long to wait before a step that found no room is tried again.
    static let retryNanoseconds: UInt64 = 100_000_000

    init(
        index: Int32,
        volume: VolumeID,
        host: StoreHost,
        handle: VolumeHandle,
        record: ReplicaRecord,
        incarnation: Incarnation,
        startedAt: Instant
    ) {
        self.index = index
        self.volume = volume
        self.host = host
        self.handle = handle
        guard var policy = ReplicationPolicy(replicaCount: 1, writeQuorum: 1) else {
            preconditionFailure("one of one is a quorum")
        }
        let specification = host.store.specification(of: volume)
        policy.isWritethrough = specification?.durability == .writethrough
        let position = WriteNumber(rawValue: host.store.streamPosition(of: volume))
        let snapshots = host.store.volume(volume)?.replicaSnapshots ?? []
        layers = Dictionary(
            snapshots.map { ($0.mark.id, $0.layer) },
            uniquingKeysWith: { _, last in last }
        )
        machine = ReplicaMachine(
            record: record,
            streamed: position.epoch == record.accepted ? position.counter : 0,
            snapshots: snapshots.filter(\.isBelowVolume).map(\.mark),
            incarnation: incarnation,
            policy: policy,
            isNew: record.promised == Epoch(0),
            now: startedAt
        )
    }

    /// Has the machine know what the store has room for: nothing while a step waits for some.
    func noteRoom() {
        guard retryAt == nil else {
            machine.room = .none
            return
        }
        let left = host.store.numberedRoom
        machine.room = ReplicaRoom(
            writeBlockCount: left.writeBlockCount,
            trimBlockCount: left.trimBlockCount,
            layerCount: left.layerCount,
            sharerCount: max(host.replicaCount, 1)
        )
    }

    /// Whether the store has nothing of it in work.
    var isIdle: Bool { requestCount == 0 && (current == nil || retryAt != nil) }
}

extension Worker {
    // MARK: - Finding

    /// The replica of a volume that a store of this reactor holds, as `instance`.
    func replica(of volume: VolumeID, instance: ReplicaInstance) -> ReplicaHost? {
        if let found = replication.replicasByVolume[volume] {
            return found.machine.record.instance == instance && !found.isEnded ? found : nil
        }
        guard !isStopping else { return nil }
        for host in hosts where host.store.state == .ready {
            guard let specification = host.store.specification(of: volume),
                let record = ReplicaRecord(decoding: specification.replica)
            else { continue }
            guard record.instance == instance,
                let handle = host.store.openVolume(volume, layer: nil)
            else { return nil }
            let replica = ReplicaHost(
                index: Int32(replication.replicas.count),
                volume: volume,
                host: host,
                handle: handle,
                record: record,
                incarnation: Incarnation(UInt64.random(in: 1...UInt64.max)),
                startedAt: host.openedAt
            )
            host.replicaCount += 1
            replication.replicas.append(replica)
            replication.replicasByVolume[volume] = replica
            // It may begin with something to do.
            mark(replica)
            return replica
        }
        return nil
    }

    // MARK: - Messages

    /// Gives a replica a message of a primary.
    ///
    /// A payload in it is held once for the replica.
    func deliver(_ message: PrimaryMessage, to replica: ReplicaHost, from link: LinkID) {
        replica.noteRoom()
        replica.machine.onMessage(message, from: link, now: now)
        mark(replica)
    }

    /// Has a replica's actions carried out before the turn ends.
    func mark(_ replica: ReplicaHost) {
        guard !replica.isMarked else { return }
        replica.isMarked = true
        replication.markedReplicas.append(replica.index)
    }

    /// Carries out what the machine wants.
    func carryOut(_ replica: ReplicaHost) {
        let machine = replica.machine
        for index in 0..<machine.actions.count {
            switch machine.actions[index] {
            case .send(let link, let message): send(message, over: link, from: replica)
            case .append(let number, let range, let payload):
                replica.steps.append(
                    ReplicaHost.Step(kind: .append, number: number, range: range, payload: payload)
                )
            case .fill(let block, let number, let payload, let address):
                replica.steps.append(
                    ReplicaHost.Step(
                        kind: .fill,
                        number: number,
                        range: BlockRange(first: block, count: 1),
                        payload: payload,
                        address: address
                    )
                )
            case .persist(let record):
                replica.records.append(record)
                replica.steps.append(ReplicaHost.Step(kind: .persist))
            case .flush: replica.steps.append(ReplicaHost.Step(kind: .flush))
            case .release(let payload): replication.payloads.release(payload)
            case .repair(let block, let number, let payload):
                replica.steps.append(
                    ReplicaHost.Step(
                        kind: .repair,
                        number: number,
                        range: BlockRange(first: block, count: 1),
                        payload: payload
                    )
                )
            case .snapshot(let mark, let isStreamed):
                replica.steps.append(
                    ReplicaHost.Step(kind: .snapshot, mark: mark, isStreamed: isStreamed)
                )
            case .skip: replica.steps.append(ReplicaHost.Step(kind: .skip))
            case .dropSnapshot(let mark):
                replica.steps.append(ReplicaHost.Step(kind: .drop, mark: mark))
            case .read(let range, let address):
                replica.looks.append(ReplicaHost.Look(kind: .read, range: range, address: address))
            case .weigh(let range, let address):
                replica.looks.append(
                    ReplicaHost.Look(kind: .weigh, range: range, address: address)
                )
            case .fetch(let view, let block, let address):
                let range = BlockRange(first: block, count: 1)
                replica.looks.append(
                    ReplicaHost.Look(kind: .fetch, range: range, view: view, address: address)
                )
            case .scan(let view, let above, let from, let address):
                let range = BlockRange(first: from, count: 0)
                replica.looks.append(
                    ReplicaHost.Look(
                        kind: .scan,
                        range: range,
                        view: view,
                        above: above,
                        address: address
                    )
                )
            }
        }
        machine.actions.removeAll(keepingCapacity: true)
        look(replica)
        step(replica)
    }

    private func send(_ message: ReplicaMessage, over link: LinkID, from replica: ReplicaHost) {
        switch replica.sinks[link] {
        case .primary(let primary, let slot): deliver(message, to: primary, slot: slot)
        case .peer(let peer): send(message, over: peer)
        case nil: replication.payloads.release(message.body.payload)
        }
    }

    // MARK: - The end

    /// Ends a replica: its links are cut, and when the store has nothing of it in work the volume
    /// is closed.
    func end(_ replica: ReplicaHost, _ onIdle: (() -> Void)? = nil) {
        if let onIdle { replica.onIdle.append(onIdle) }
        if !replica.isEnded {
            replica.isEnded = true
            for (_, sink) in replica.sinks {
                switch sink {
                case .primary(let primary, let slot): loseLink(primary, slot)
                case .peer(let link): close(link)
                }
            }
            replica.sinks = [:]
            while let step = replica.steps.popFirst() {
                replication.payloads.release(step.payload)
            }
            while replica.looks.popFirst() != nil {}
            while replica.records.popFirst() != nil {}
        }
        finishEnd(replica)
    }

    func finishEnd(_ replica: ReplicaHost) {
        guard replica.isEnded, replica.isIdle else { return }
        closeViews(of: replica)
        if replication.replicasByVolume[replica.volume] === replica {
            replication.replicasByVolume[replica.volume] = nil
            replica.host.replicaCount -= 1
            replica.host.store.closeVolume(replica.handle)
        }
        let onIdle = replica.onIdle
        replica.onIdle = []
        for call in onIdle { call() }
    }
}
