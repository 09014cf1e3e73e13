import BlockCore
import Replication
import Testing

private typealias Bench = PrimaryBench

@Suite("Primary: snapshots") struct PrimarySnapshotTests {
    private func snapshot(_ bench: Bench, _ token: UInt64, id: UInt64) -> [PrimaryAction] {
        #expect(bench.primary.submitSnapshot(token: token, id: id, now: bench.now))
        return bench.take()
    }

    private func mark(_ actions: [PrimaryAction], to slot: Int) -> SnapshotMark? {
        for body in bodies(actions, to: slot) { if case .snapshot(let mark) = body { return mark } }
        return nil
    }

    @Test("A snapshot has its place among the writes, and is told when W replicas have it durably")
    func snapshot_inTheStream_isHardened() throws {
        let bench = try Bench()
        try bench.serve()
        #expect(bodies(bench.write(1), to: 0).count == 1)
        let number = WriteNumber(epoch: Bench.epoch, counter: 2)
        let asked = snapshot(bench, 2, id: 9)
        for slot in 0..<3 {
            #expect(mark(asked, to: slot) == SnapshotMark(id: 9, number: number))
        }
        _ = bench.write(3)
        for slot in 0..<2 { bench.say(slot, .progress(applied: 2, durable: 1)) }
        bench.say(0, .progress(applied: 3, durable: 1))
        #expect(ended(bench.say(1, .progress(applied: 3, durable: 1))) == [3])
        bench.say(0, .progress(applied: 3, durable: 2))
        let actions = bench.say(1, .progress(applied: 3, durable: 2))
        #expect(actions.contains(.complete(token: 2, .written(number))))
    }

    @Test("Asked for twice it is taken once, and both are told its number")
    func snapshot_again_isTheSame() throws {
        let bench = try Bench()
        try bench.serve()
        _ = bench.write(1)
        _ = snapshot(bench, 2, id: 9)
        _ = snapshot(bench, 3, id: 9)
        for slot in 0..<2 { bench.say(slot, .progress(applied: 1, durable: 1)) }
        bench.say(0, .progress(applied: 2, durable: 2))
        let actions = bench.say(1, .progress(applied: 2, durable: 2))
        let number = WriteNumber(epoch: Bench.epoch, counter: 2)
        #expect(actions.contains(.complete(token: 2, .written(number))))
        #expect(actions.contains(.complete(token: 3, .written(number))))
        #expect(snapshot(bench, 4, id: 9).contains(.complete(token: 4, .written(number))))
        #expect(bench.primary.snapshots.count == 1)
    }

    @Test("Names say which snapshot, and nothing else is one")
    func mark_name_isReadBack() {
        let mark = SnapshotMark(id: 0xAB, number: WriteNumber(epoch: Epoch(3), counter: 7))
        #expect(SnapshotMark(name: mark.name) == mark)
        let names = [
            "", "-", mark.name + "0", mark.name.uppercased(), "base",
            "0000000000000000-00003000000007", "00000000000000ab-00003000000000",
            "+0000000000000ab-00003000000007",
        ]
        for name in names { #expect(SnapshotMark(name: name) == nil, "\(name)") }
    }
}

@Suite("Replica: snapshots") struct ReplicaSnapshotTests {
    private static let instance = ReplicaInstance(11)
    private static let link = LinkID(1)

    private func replica(
        _ snapshots: [SnapshotMark] = [],
        change: (inout ReplicaRecord) -> Void
    ) throws -> ReplicaMachine {
        var record = ReplicaRecord.created(Self.instance)
        change(&record)
        return ReplicaMachine(
            record: record,
            streamed: record.streamed,
            snapshots: snapshots,
            incarnation: Incarnation(5),
            policy: try #require(ReplicationPolicy(replicaCount: 3, writeQuorum: 2)),
            isNew: false,
            now: Instant(nanoseconds: 0)
        )
    }

    private func say(
        _ replica: ReplicaMachine,
        _ body: PrimaryMessage.Body,
        over link: LinkID = ReplicaSnapshotTests.link
    ) -> [ReplicaAction] {
        let message = PrimaryMessage(
            instance: Self.instance,
            epoch: Epoch(2),
            primary: PrimaryID(1),
            body: body
        )
        replica.actions.removeAll()
        replica.onMessage(message, from: link, now: Instant(nanoseconds: 0))
        return replica.actions
    }

    private func number(_ counter: UInt64) -> WriteNumber {
        WriteNumber(epoch: Epoch(2), counter: counter)
    }

    @Test("A snapshot beyond the log's end, which a crash left, is dropped")
    func start_withSnapshotBeyondTheEnd_dropsIt() throws {
        let marks = [
            SnapshotMark(id: 1, number: number(3)), SnapshotMark(id: 2, number: number(9)),
        ]
        let replica = try replica(marks) {
            $0.promised = Epoch(2)
            $0.accepted = Epoch(2)
            $0.streamed = 8
        }
        #expect(replica.actions == [.dropSnapshot(marks[1])])
        #expect(replica.snapshots == [marks[0]])
        #expect(replica.isWhole(marks[0]))
        #expect(!replica.isWhole(marks[1]))
    }

    @Test("One that is not complete takes none in its stream, and keeps what it is told to")
    func incomplete_keepsOneByOne() throws {
        let replica = try replica {
            $0.promised = Epoch(2)
            $0.accepted = Epoch(2)
            $0.isComplete = false
        }
        let mark = SnapshotMark(id: 1, number: number(1))
        #expect(say(replica, .keep(Incarnation(5), mark)).isEmpty)
        let lineage = try #require(Lineage(checking: [.zero], of: Epoch(2)))
        _ = say(replica, .open(lineage: lineage, start: 1))
        #expect(say(replica, .snapshot(mark)) == [.skip])
        let kept = SnapshotMark(id: 2, number: number(2))
        #expect(say(replica, .keep(Incarnation(4), kept)).isEmpty)
        let actions = say(replica, .keep(Incarnation(5), kept))
        #expect(actions.first == .snapshot(kept, isStreamed: false))
        #expect(replica.record.common == kept.number)
        #expect(say(replica, .keep(Incarnation(5), kept)).isEmpty)
        replica.actions.removeAll()
        replica.onPersisted(now: Instant(nanoseconds: 0))
        let said = replica.actions.contains {
            if case .send(_, let message) = $0 { message.body == .kept(kept.number) } else { false }
        }
        #expect(said)
    }

    @Test("What an earlier link still brings is no fill, no snapshot to keep, and completes nobody")
    func earlierLink_isIgnored() throws {
        let replica = try replica {
            $0.promised = Epoch(2)
            $0.accepted = Epoch(2)
            $0.isComplete = false
        }
        let lineage = try #require(Lineage(checking: [.zero], of: Epoch(2)))
        _ = say(replica, .open(lineage: lineage, start: 1), over: LinkID(1))
        _ = say(replica, .open(lineage: lineage, start: 1), over: LinkID(2))
        let payload = PayloadID(7)
        let mark = SnapshotMark(id: 1, number: number(1))
        let fill = PrimaryMessage.Body.fill(
            token: 3,
            block: 0,
            number: number(1),
            payload: payload
        )
        #expect(say(replica, fill, over: LinkID(1)) == [.release(payload)])
        #expect(say(replica, .keep(Incarnation(5), mark), over: LinkID(1)).isEmpty)
        #expect(say(replica, .complete(Incarnation(5)), over: LinkID(1)).isEmpty)
        #expect(!replica.record.isComplete && replica.snapshots.isEmpty)
        let taken = say(replica, fill, over: LinkID(2))
        #expect(taken.contains { if case .fill = $0 { true } else { false } })
        #expect(!say(replica, .keep(Incarnation(5), mark), over: LinkID(2)).isEmpty)
        #expect(!say(replica, .complete(Incarnation(5)), over: LinkID(2)).isEmpty)
    }

    @Test("What is to be looked at in a snapshot that is not there is refused")
    func look_inMissingSnapshot_isRefused() throws {
        let replica = try replica {
            $0.promised = Epoch(2)
            $0.accepted = Epoch(2)
        }
        for body: PrimaryMessage.Body in [
            .fetch(token: 3, view: .snapshot(5), block: 0),
            .scan(token: 3, view: .snapshot(5), above: .zero, from: 0),
        ] {
            guard case .send(_, let message)? = say(replica, body).first else {
                Issue.record("nothing is said")
                continue
            }
            #expect(message.body == .viewMissing(token: 3))
        }
    }
}
