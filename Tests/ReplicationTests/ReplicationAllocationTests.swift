import BlockCore
import CAllocationCounter
import Replication
import Testing

/// Writes, their acknowledgements and grants allocate nothing, once there is a primary.
@Suite(.enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"))
struct ReplicationAllocationTests {
    private let now = Instant(nanoseconds: 1_000_000_000)
    private let epoch = Epoch(1)

    private func message(_ body: ReplicaMessage.Body, _ slot: Int) -> ReplicaMessage {
        ReplicaMessage(
            instance: ReplicaInstance(UInt64(slot) + 1),
            incarnation: Incarnation(1),
            epoch: epoch,
            body: body
        )
    }

    /// A primary of three replicas that were never written.
    private func servingPrimary() throws -> PrimaryMachine {
        var policy = try #require(ReplicationPolicy(replicaCount: 3, writeQuorum: 2))
        policy.windowCountMax = 64
        let primary = PrimaryMachine(
            epoch: epoch,
            primary: PrimaryID(1),
            instances: (1...3).map { ReplicaInstance($0) },
            localSlot: nil,
            policy: policy,
            now: now
        )
        for slot in 0..<3 {
            primary.onLinkOpened(slot: slot, now: now)
            var record = ReplicaRecord.created(ReplicaInstance(UInt64(slot) + 1))
            record.promised = epoch
            let status = ReplicaStatus(record: record, applied: 0, durable: 0, committed: .zero)
            primary.onMessage(message(.sealed(status), slot), slot: slot, now: now)
        }
        for slot in 0..<3 {
            let opened = ReplicaMessage.Body.opened(isComplete: true, applied: 0, durable: 0)
            primary.onMessage(message(opened, slot), slot: slot, now: now)
        }
        for case .send(let slot, let asked) in primary.actions {
            guard case .scan(let token, _, _, _) = asked.body else { continue }
            let found = ReplicaMessage.Body.scanned(token: token, entries: [], next: nil)
            primary.onMessage(message(found, slot), slot: slot, now: now)
        }
        #expect(primary.isServing)
        primary.actions.removeAll(keepingCapacity: true)
        return primary
    }

    @Test("A primary's writes allocate nothing")
    func primary_writesAndAcknowledgements_allocateNothing() throws {
        let primary = try servingPrimary()
        var endedCount = 0
        let before = allocation_counter_thread_count()
        for token in 1...UInt64(500) {
            _ = primary.submitWrite(
                token: token,
                range: BlockRange(first: token, count: 1),
                payload: PayloadID(token),
                isForced: token % 8 == 0,
                now: now
            )
            let room = ReplicaRoom(
                writeBlockCount: 100 + UInt32(token % 2),
                trimBlockCount: 100,
                layerCount: 1
            )
            for slot in 0..<3 {
                // Little room, and less for one of them: its stream stops and goes on.
                let own = slot == 2 && token % 4 == 0 ? ReplicaRoom.none : room
                primary.onMessage(message(.room(own), slot), slot: slot, now: now)
                let progress = ReplicaMessage.Body.progress(applied: token, durable: token)
                primary.onMessage(message(progress, slot), slot: slot, now: now)
                primary.onMessage(message(.granted(sentAt: now), slot), slot: slot, now: now)
            }
            for index in primary.actions.indices {
                if case .complete = primary.actions[index] { endedCount += 1 }
            }
            primary.actions.removeAll(keepingCapacity: true)
        }
        let count = allocation_counter_thread_count() - before
        #expect(count == 0)
        #expect(endedCount == 500)
    }

    @Test("A replica's writes allocate nothing")
    func replica_writes_allocateNothing() throws {
        let policy = try #require(ReplicationPolicy(replicaCount: 3, writeQuorum: 2))
        let replica = ReplicaMachine(
            record: .created(ReplicaInstance(1)),
            streamed: 0,
            incarnation: Incarnation(1),
            policy: policy,
            isNew: true,
            now: now
        )
        func say(_ body: PrimaryMessage.Body) {
            let message = PrimaryMessage(
                instance: ReplicaInstance(1),
                epoch: epoch,
                primary: PrimaryID(1),
                body: body
            )
            replica.onMessage(message, from: LinkID(1), now: now)
        }
        say(.seal)
        replica.onPersisted(now: now)
        say(.open(lineage: Lineage.origin.continued(from: .zero), start: 1))
        replica.onPersisted(now: now)
        replica.actions.removeAll(keepingCapacity: true)
        let before = allocation_counter_thread_count()
        for counter in 1...UInt64(500) {
            let number = WriteNumber(epoch: epoch, counter: counter)
            let range = BlockRange(first: counter, count: 1)
            say(.write(number: number, range: range, payload: PayloadID(counter)))
            say(.renew(sentAt: now, committed: .zero))
            replica.room = ReplicaRoom(
                writeBlockCount: UInt32(counter),
                trimBlockCount: 9,
                layerCount: 1
            )
            replica.onAppended(now: now)
            say(.flush(through: counter))
            replica.onFlushed(now: now)
            replica.actions.removeAll(keepingCapacity: true)
        }
        let count = allocation_counter_thread_count() - before
        #expect(count == 0)
        #expect(replica.durable == 500)
    }
}
