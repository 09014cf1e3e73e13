import BlockCore
import Replication
import Testing

private typealias Bench = PrimaryBench

extension ReplicaRoom {
    /// Room for so many blocks of writes, and for any trims and snapshots.
    fileprivate static func writes(_ count: UInt32) -> ReplicaRoom {
        var room = ReplicaRoom.plentiful
        room.writeBlockCount = count
        return room
    }
}

/// Docs/replication.md, "Room".
@Suite("Primary: room") struct PrimaryRoomTests {
    private func writes(_ actions: [PrimaryAction], to slot: Int) -> [UInt64] {
        bodies(actions, to: slot).compactMap {
            if case .write(let number, _, _) = $0 { number.counter } else { nil }
        }
    }

    /// What the primary wants once every replica it asks has said how much a write would take.
    private func weighed(
        _ actions: [PrimaryAction],
        _ bench: Bench,
        blockCount: UInt32
    ) -> [PrimaryAction] {
        var result: [PrimaryAction] = []
        for case .send(let slot, let message) in actions {
            guard case .weigh(let token, _) = message.body else { continue }
            result += bench.say(slot, .weighed(token: token, blockCount: blockCount))
        }
        return result
    }

    @Test("A write of blocks that W replicas have needs no room; no answer of before counts")
    func write_overwriting_isTaken() throws {
        let bench = try Bench()
        try bench.serve()
        for slot in 0..<3 { bench.say(slot, .room(.writes(0))) }
        let asked = bench.write(7)
        #expect(asked.count == 3 && writes(asked, to: 0).isEmpty)
        let taken = weighed(asked, bench, blockCount: 0)
        #expect((0..<3).count { writes(taken, to: $0) == [1] } == 2)
        // Not while that is on its way, and not by an answer to the question before.
        #expect(bench.write(8).isEmpty)
        #expect(weighed(asked, bench, blockCount: 0).isEmpty)
        var again: [PrimaryAction] = []
        for slot in 0..<2 { again += bench.say(slot, .progress(applied: 1, durable: 0)) }
        #expect(ended(again) == [7])
        #expect(ended(weighed(again, bench, blockCount: 1)) == [8])
    }

    private func trim(_ bench: Bench, _ token: UInt64) -> [PrimaryAction] {
        let range = BlockRange(first: 0, count: 64)
        let isTaken = bench.primary.submitWrite(
            token: token,
            range: range,
            payload: .zeroes,
            isForced: false,
            now: bench.now
        )
        #expect(isTaken)
        return bench.take()
    }

    @Test("A write that less than W replicas have room for is refused, and sent to nobody")
    func write_noRoom_isRefused() throws {
        let bench = try Bench()
        try bench.serve()
        bench.say(0, .room(.writes(5)))
        #expect(!bench.primary.isOutOfRoom)
        bench.say(2, .room(.writes(5)))
        #expect(bench.primary.isOutOfRoom)
        let actions = weighed(bench.write(7), bench, blockCount: 1)
        #expect(actions == [.release(PayloadID(7)), .complete(token: 7, .noRoom)])
        #expect(bench.primary.nextNumber.counter == 1)
        // One block and the pages of a path.
        bench.say(0, .room(.writes(6)))
        #expect(!bench.primary.isOutOfRoom)
        let written = bench.write(8)
        #expect(writes(written, to: 0) == [1] && writes(written, to: 1) == [1])
        #expect(writes(written, to: 2).isEmpty)
    }

    @Test("A replica without room holds nobody up, and gets what it lacks when it has some")
    func write_oneWithoutRoom_isSentLater() throws {
        let bench = try Bench()
        try bench.serve()
        bench.say(1, .room(.writes(0)))
        let actions = bench.write(7)
        #expect(writes(actions, to: 0) == [1] && writes(actions, to: 2) == [1])
        #expect(writes(actions, to: 1).isEmpty)
        #expect(bench.primary.peerSummaries.map(\.lacksRoom) == [false, true, false])
        bench.say(0, .progress(applied: 1, durable: 0))
        #expect(ended(bench.say(2, .progress(applied: 1, durable: 0))) == [7])
        #expect(writes(bench.say(1, .room(.writes(5))), to: 1).isEmpty)
        #expect(writes(bench.say(1, .room(.writes(6))), to: 1) == [1])
        #expect(bench.primary.peerSummaries.map(\.behindCount) == [0, 1, 0])
    }

    @Test("What is on its way counts: the next write waits, and is then sent or refused")
    func write_roomOnItsWay_waits() throws {
        for (left, isRefused) in [(UInt32(6), false), (5, true)] {
            let bench = try Bench()
            try bench.serve()
            for slot in 0..<3 { bench.say(slot, .room(.writes(11))) }
            #expect(writes(bench.write(21), to: 0) == [1])
            #expect(bench.write(22).isEmpty)
            var actions: [PrimaryAction] = []
            for slot in 0..<2 {
                actions += bench.say(slot, .room(.writes(left)))
                actions += bench.say(slot, .progress(applied: 1, durable: 0))
            }
            if isRefused { actions += weighed(actions, bench, blockCount: 1) }
            #expect(actions.contains(.complete(token: 22, .noRoom)) == isRefused)
            #expect(writes(actions, to: 0) == (isRefused ? [] : [2]))
        }
    }

    @Test("Trims go where writes do not, down to their own limit")
    func trim_noRoomForWrites_isSent() throws {
        let bench = try Bench()
        try bench.serve()
        let scarce = ReplicaRoom(writeBlockCount: 0, trimBlockCount: 5, layerCount: 0)
        for slot in 0..<3 { bench.say(slot, .room(scarce)) }
        #expect(writes(trim(bench, 1), to: 1) == [1])
        for slot in 0..<3 { bench.say(slot, .room(.none)) }
        for slot in 0..<3 { bench.say(slot, .progress(applied: 1, durable: 0)) }
        #expect(trim(bench, 2) == [.complete(token: 2, .noRoom)])
    }

    @Test("A snapshot asks for a layer, and is told that there is none")
    func snapshot_noLayers_isRefused() throws {
        let bench = try Bench()
        try bench.serve()
        var room = ReplicaRoom.plentiful
        room.layerCount = 0
        for slot in 0..<2 { bench.say(slot, .room(room)) }
        #expect(bench.primary.submitSnapshot(token: 1, id: 9, now: bench.now))
        #expect(bench.take() == [.complete(token: 1, .noRoom)])
        #expect(bench.primary.snapshots.isEmpty)
        room.layerCount = 1
        bench.say(1, .room(room))
        #expect(bench.primary.submitSnapshot(token: 2, id: 9, now: bench.now))
        let mark = SnapshotMark(id: 9, number: WriteNumber(epoch: Bench.epoch, counter: 1))
        let actions = bench.take()
        #expect(bodies(actions, to: 1) == [.snapshot(mark), .flush(through: 1)])
        // Who has no layer is not sent it.
        #expect(bodies(actions, to: 0).isEmpty)
    }

    @Test("Who waits for room for long is opened where the stream is then")
    func replica_withoutRoom_isPassedBy() throws {
        var bench = try Bench()
        try bench.serve()
        bench.say(0, .room(.writes(0)))
        _ = bench.write(1)
        for slot in 1..<3 { bench.say(slot, .progress(applied: 1, durable: 1)) }
        #expect(!bodies(bench.wait(milliseconds: 100), to: 0).contains(.seal))
        let patience = bench.policy.roomPatienceNanoseconds / 1_000_000
        #expect(bodies(bench.wait(milliseconds: patience), to: 0).contains(.seal))
        let status = try bench.sealed(0, accepted: 5, applied: 0, committed: nil) { record in
            record.lineage = Lineage.origin.continued(
                from: WriteNumber(epoch: Epoch(3), counter: 10)
            )
        }
        let opened = bodies(bench.say(0, status), to: 0)
        let starts = opened.compactMap {
            if case .open(_, let start) = $0 { start } else { nil }
        }
        #expect(starts == [2])
    }

    @Test("While less than W replicas are there a write waits, without a number")
    func write_tooFewThere_hasNoNumber() throws {
        let bench = try Bench()
        try bench.serve()
        for slot in 1..<3 { bench.primary.onLinkClosed(slot: slot, now: bench.now) }
        #expect(bench.write(1).isEmpty)
        #expect(bench.primary.nextNumber.counter == 1)
    }

    @Test("Another replica in a slot, and another link, are taken to have room until they speak")
    func replica_another_isAskedAnew() throws {
        let bench = try Bench()
        try bench.serve()
        for slot in 0..<3 { bench.say(slot, .room(.none)) }
        #expect(bench.primary.isOutOfRoom)
        bench.primary.onLinkOpened(slot: 0, now: bench.now)
        #expect(bench.primary.peerSummaries.map(\.lacksRoom) == [false, true, true])
    }
}

@Suite("Replica: room") struct ReplicaRoomTests {
    private static let instance = ReplicaInstance(11)
    private let now = Instant(nanoseconds: 1_000_000_000)

    private func replica() throws -> ReplicaMachine {
        let policy = try #require(ReplicationPolicy(replicaCount: 3, writeQuorum: 2))
        return ReplicaMachine(
            record: .created(Self.instance),
            streamed: 0,
            incarnation: Incarnation(5),
            policy: policy,
            isNew: true,
            now: now
        )
    }

    private func say(
        _ body: PrimaryMessage.Body,
        _ replica: ReplicaMachine,
        _ link: UInt64
    ) -> [ReplicaMessage.Body] {
        let message = PrimaryMessage(
            instance: Self.instance,
            epoch: Epoch(1),
            primary: PrimaryID(1),
            body: body
        )
        replica.onMessage(message, from: LinkID(link), now: now)
        return take(replica)
    }

    private func take(_ replica: ReplicaMachine) -> [ReplicaMessage.Body] {
        defer { replica.actions.removeAll() }
        return replica.actions.compactMap {
            if case .send(_, let message) = $0 { message.body } else { nil }
        }
    }

    private func write(_ counter: UInt64) -> PrimaryMessage.Body {
        .write(
            number: WriteNumber(epoch: Epoch(1), counter: counter),
            range: BlockRange(first: 0, count: 1),
            payload: .zeroes
        )
    }

    private func open(_ replica: ReplicaMachine, _ link: UInt64) -> [ReplicaMessage.Body] {
        _ = say(.seal, replica, link)
        replica.onPersisted(now: now)
        replica.actions.removeAll()
        let lineage = Lineage.origin.continued(from: .zero)
        let answers = say(.open(lineage: lineage, start: replica.applied + 1), replica, link)
        replica.onPersisted(now: now)
        return answers + take(replica)
    }

    @Test("Room is told before the progress that took it, and only when it is not plentiful")
    func progress_scarce_followsRoom() throws {
        let replica = try replica()
        #expect(open(replica, 1) == [.opened(isComplete: true, applied: 0, durable: 0)])
        _ = say(write(1), replica, 1)
        replica.onAppended(now: now)
        #expect(take(replica) == [.progress(applied: 1, durable: 0)])
        _ = say(write(2), replica, 1)
        replica.room = .none
        replica.onAppended(now: now)
        #expect(take(replica) == [.room(.none), .progress(applied: 2, durable: 0)])
        let renew = PrimaryMessage.Body.renew(sentAt: now, committed: .zero)
        #expect(say(renew, replica, 1) == [.granted(sentAt: now)])
        // What others give up is told with the next grant.
        replica.room = .plentiful
        #expect(say(renew, replica, 1) == [.room(.plentiful), .granted(sentAt: now)])
    }

    @Test("Over another link it is told again, before the replica is counted on")
    func link_another_isTold() throws {
        let replica = try replica()
        replica.room = .none
        let opened = ReplicaMessage.Body.opened(isComplete: true, applied: 0, durable: 0)
        #expect(open(replica, 1) == [.room(.none), opened])
        #expect(open(replica, 2) == [.room(.none), opened])
        replica.room = .plentiful
        #expect(open(replica, 3) == [.room(.plentiful), opened])
    }

    @Test("An old block without room is refused, and not taken for filled")
    func fill_noRoom_isRefused() throws {
        let replica = try replica()
        _ = open(replica, 1)
        let message = PrimaryMessage(
            instance: Self.instance,
            epoch: Epoch(1),
            primary: PrimaryID(1),
            body: .fetch(token: 77, view: .volume, block: 0)
        )
        replica.onMessage(message, from: LinkID(1), now: now)
        guard case .fetch(_, _, let address)? = replica.actions.last else {
            Issue.record("nothing is fetched")
            return
        }
        replica.actions.removeAll()
        replica.onFillRefused(address)
        #expect(take(replica) == [.fillRefused(token: 77)])
    }
}
