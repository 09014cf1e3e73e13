import BlockCore
import Replication
import Testing

/// A primary whose replicas are played by the test.
struct PrimaryBench {
    let policy: ReplicationPolicy
    let primary: PrimaryMachine
    var now = Instant(nanoseconds: 1_000_000_000)
    static let epoch = Epoch(5)

    init(
        replicas: Int = 3,
        quorum: Int = 2,
        windowByteCount: Int = 64 << 20,
        localSlot: Int? = nil,
        budget: ResyncBudget = ResyncBudget(),
        change: (inout ReplicationPolicy) -> Void = { _ in }
    ) throws {
        var policy = try #require(
            ReplicationPolicy(replicaCount: replicas, writeQuorum: quorum)
        )
        policy.requestCountMax = 16
        policy.windowCountMax = 8
        policy.windowByteCountMax = windowByteCount
        change(&policy)
        self.policy = policy
        primary = PrimaryMachine(
            epoch: PrimaryBench.epoch,
            primary: PrimaryID(1),
            instances: (0..<replicas).map { ReplicaInstance(UInt64($0) + 100) },
            localSlot: localSlot,
            policy: policy,
            budget: budget,
            now: now
        )
        for slot in 0..<replicas { primary.onLinkOpened(slot: slot, now: now) }
        primary.actions.removeAll()
    }

    /// What a replica says, and what the primary wants then.
    @discardableResult
    func say(
        _ slot: Int,
        _ body: ReplicaMessage.Body,
        epoch: Epoch = PrimaryBench.epoch,
        life: UInt64 = 1
    ) -> [PrimaryAction] {
        let message = ReplicaMessage(
            instance: ReplicaInstance(UInt64(slot) + 100),
            incarnation: Incarnation(life),
            epoch: epoch,
            body: body
        )
        primary.onMessage(message, slot: slot, now: now)
        return take()
    }

    func take() -> [PrimaryAction] {
        defer { primary.actions.removeAll() }
        return primary.actions
    }

    /// What a replica says that follows `accepted` up to `applied`.
    func sealed(
        _ slot: Int,
        accepted: UInt64 = 3,
        applied: UInt64 = 10,
        committed: UInt64? = 10,
        change: (inout ReplicaRecord) -> Void = { _ in }
    ) throws -> ReplicaMessage.Body {
        var record = ReplicaRecord.created(ReplicaInstance(UInt64(slot) + 100))
        record.promised = PrimaryBench.epoch
        record.accepted = Epoch(accepted)
        record.lineage = try #require(Lineage(checking: [.zero], of: Epoch(accepted)))
        change(&record)
        let number = committed.map { WriteNumber(epoch: Epoch(accepted), counter: $0) } ?? .zero
        return .sealed(
            ReplicaStatus(record: record, applied: applied, durable: applied, committed: number)
        )
    }

    /// Takes over from replicas that are all the same, up to serving.
    func serve() throws {
        for slot in 0..<policy.replicaCount { say(slot, try sealed(slot)) }
        for slot in 0..<policy.replicaCount {
            let actions = say(slot, .opened(isComplete: true, applied: 0, durable: 0))
            for case .send(let asked, let message) in actions {
                guard case .scan(let token, _, _, _) = message.body else { continue }
                say(asked, .scanned(token: token, entries: [], next: nil))
            }
        }
        #expect(primary.isServing)
    }

    /// Lets time pass.
    mutating func wait(milliseconds: UInt64) -> [PrimaryAction] {
        now = now.advanced(byNanoseconds: milliseconds * 1_000_000)
        primary.onTick(now: now)
        return take()
    }

    func write(_ token: UInt64, block: UInt64 = 0, isForced: Bool = false) -> [PrimaryAction] {
        let isTaken = primary.submitWrite(
            token: token,
            range: BlockRange(first: block, count: 1),
            payload: PayloadID(token),
            isForced: isForced,
            now: now
        )
        #expect(isTaken)
        return take()
    }
}

func ended(_ actions: [PrimaryAction]) -> [UInt64] {
    actions.compactMap { if case .complete(let token, _) = $0 { token } else { nil } }
}

func bodies(_ actions: [PrimaryAction], to slot: Int) -> [PrimaryMessage.Body] {
    actions.compactMap {
        if case .send(slot, let message) = $0 { message.body } else { nil }
    }
}

func lineage(_ actions: [PrimaryAction], to slot: Int) -> Lineage? {
    for body in bodies(actions, to: slot) {
        if case .open(let lineage, _) = body { return lineage }
    }
    return nil
}
