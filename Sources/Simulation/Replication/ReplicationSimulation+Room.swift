// Stores without room: now and then while everything else goes wrong, and once when all is whole.

internal import BlockCore
internal import Replication

/// What clients meet at the end of some runs: stores that are full, then trims, then room.
struct RoomTrial {
    enum Phase {
        case none
        /// Stores are full; until it is sure that the primary has heard of it nothing is asked.
        case telling(until: UInt64)
        /// Writes are asked for, more than there is room for.
        case writing
        /// Everything is trimmed.
        case trimming
        case over
    }

    private(set) var phase: Phase
    /// Replicas that have little room, and how much of it at the beginning.
    private(set) var scarceCount = 0
    private(set) var roomAtStart = 0
    /// Epochs served when it began: a takeover writes again what it finds, whatever room there is.
    private var takeoverCount = 0
    private(set) var startedAt: UInt64 = 0
    /// Requests of the phase that were sent, and that ended.
    var sentCount = 0
    var endedCount = 0
    /// Blocks that were written and that some replica had nothing of.
    var newBlocks: Set<UInt64> = []
    /// Blocks that were written and that less than W replicas had room for or had already.
    var homelessBlocks: Set<UInt64> = []

    /// Writes asked for at once.
    static var writeCount: Int { 24 }
    /// What a write of one block counts of a store's room: with the map pages for it.
    static var blockCharge: Int { 6 }

    init(isWanted: Bool) { phase = isWanted ? .none : .over }

    var isOver: Bool { if case .over = phase { true } else { false } }
    var isUnderWay: Bool {
        switch phase {
        case .none, .over: false
        case .telling, .writing, .trimming: true
        }
    }

    mutating func begin(
        until: UInt64,
        at time: UInt64,
        scarceCount: Int,
        room: Int,
        takeoverCount: Int
    ) {
        phase = .telling(until: until)
        startedAt = time
        self.scarceCount = scarceCount
        roomAtStart = room
        self.takeoverCount = takeoverCount
    }

    mutating func go(to phase: Phase, at time: UInt64) {
        self.phase = phase
        startedAt = time
        sentCount = 0
        endedCount = 0
    }

    /// Whether what writes took can be told from what a takeover did.
    func isUndisturbed(_ takeoverCount: Int) -> Bool { self.takeoverCount == takeoverCount }

    /// A write is in a store's log.
    ///
    /// - Returns: What is wrong, or nil.
    func appended(_ disk: ReplicaDisk, _ index: Int) -> String? {
        guard case .writing = phase, let capacity = disk.capacity, disk.record.isComplete,
            disk.liveCount > capacity
        else { return nil }
        return "replica \(index) was sent a write that its store has no room for"
    }
}

extension ReplicationSimulation {
    // MARK: - Faults

    func scheduleFilling() {
        let interval = scenario.fillIntervalNanoseconds
        events.add(.fill, at: now + interval / 4 + roomRandom.below(interval * 3 / 2))
    }

    /// Something else takes a store's room, or that of all stores, for a while.
    func fillStore() {
        guard !isHealing else { return }
        scheduleFilling()
        let end = now + 1_000_000 + roomRandom.below(2 * scenario.faultNanosecondsMax)
        let isEverywhere = roomRandom.chance(perMille: 300)
        let chosen = roomRandom.below(instances.count)
        for slot in instances.indices where isEverywhere || slot == chosen {
            guard let disk = holder(slot).disk else { continue }
            disk.capacity = disk.liveCount + roomRandom.pick([0, 3, 12, 30])
            note(16, UInt64(slot), 0, "store \(slot) has room for \(disk.room.writeBlockCount)")
            events.add(.heal(.room(process: holders[slot])), at: end)
        }
    }

    // MARK: - At the end

    /// Goes on with what clients meet when stores are full.
    ///
    /// - Returns: Whether it is over.
    func advanceTrial(_ owner: SimulatedProcess, _ primary: PrimaryMachine) -> Bool {
        switch trial.phase {
        case .over: return true
        case .none:
            guard areEqual(primary) else { return false }
            beginTrial()
        case .telling(let until):
            guard now >= until else { return false }
            trial.go(to: .writing, at: now)
            for _ in 0..<RoomTrial.writeCount { scheduleClient(owner) }
        case .writing:
            guard trial.endedCount >= RoomTrial.writeCount else { return false }
            trial.go(to: .trimming, at: now)
            scheduleClient(owner)
        case .trimming:
            guard trial.endedCount >= trimCount else { return false }
            for slot in instances.indices {
                holder(slot).disk?.capacity = nil
                holder(slot).isDiskSlow = false
            }
            // What waited for room has the same time as what faults held up.
            healedAt = now
            trial.go(to: .over, at: now)
            return true
        }
        return false
    }

    private func beginTrial() {
        let policy = scenario.policy
        let blocking = policy.replicaCount - policy.writeQuorum + 1
        let scarceCount = roomRandom.pick([1, blocking, policy.replicaCount])
        let room = roomRandom.pick([0, 5, 7, 13])
        let first = roomRandom.below(instances.count)
        for index in 0..<scarceCount {
            guard let disk = holder((first + index) % instances.count).disk else { continue }
            disk.capacity = disk.liveCount + room
        }
        // A store that is slow besides has much on its way when others have it already.
        holder(first).isDiskSlow = roomRandom.chance(perMille: 500)
        note(17, UInt64(scarceCount), UInt64(room), "\(scarceCount) stores have room for \(room)")
        trial.begin(
            until: now + policy.grantNanoseconds + 4 * scenario.delayNanosecondsMax + 10_000_000,
            at: now,
            scarceCount: scarceCount,
            room: room,
            takeoverCount: report.takeoverCount
        )
    }

    private var blockCount: Int { scenario.hotBlockCount + scenario.wideBlockCount }
    /// Trims that give up everything: each of as many blocks as a request may have.
    private var trimCount: Int {
        (blockCount + scenario.requestBlockCountMax - 1) / scenario.requestBlockCountMax
    }

    /// The next request of the phase.
    func submitTrial(_ process: SimulatedProcess, _ primary: PrimaryMachine) {
        guard epochOwner[epoch] == process.index, primary.epoch.rawValue == epoch else { return }
        let isTrim: Bool
        switch trial.phase {
        case .writing where trial.sentCount < RoomTrial.writeCount: isTrim = false
        case .trimming where trial.sentCount < trimCount: isTrim = true
        case .none, .over, .telling, .writing, .trimming: return
        }
        let countMax = isTrim ? scenario.requestBlockCountMax : 1
        let first = isTrim ? trial.sentCount * countMax : roomRandom.below(blockCount)
        trial.sentCount += 1
        let range = BlockRange(
            first: UInt64(first),
            count: UInt32(min(countMax, blockCount - first))
        )
        let disks = allDisksInUse
        if disks.contains(where: { $0.newCount(range) > 0 }) { trial.newBlocks.insert(range.first) }
        let takingCount = disks.count { $0.capacity == nil || $0.newCount(range) == 0 }
        if takingCount < scenario.policy.writeQuorum { trial.homelessBlocks.insert(range.first) }
        let operation = ClientOperation(
            kind: .write,
            range: range,
            value: isTrim ? 0 : newValue(),
            isForced: false,
            start: takeStep(),
            sentAt: now
        )
        submit(operation, process, primary)
    }

    /// A client is answered: as the room that there is allows.
    func endTrial(_ operation: ClientOperation, _ result: ClientResult) {
        guard trial.isUnderWay, operation.kind == .write else { return }
        trial.endedCount += 1
        let policy = scenario.policy
        let isBlocked = trial.scarceCount > policy.replicaCount - policy.writeQuorum
        let isNew = trial.newBlocks.contains(operation.range.first)
        switch (trial.phase, result) {
        case (.writing, .noRoom) where !isBlocked:
            fail("a write was refused, though W stores have room")
        case (.writing, .noRoom) where !isNew:
            fail("a write was refused that takes no room")
        case (.writing, .written)
        where trial.homelessBlocks.contains(operation.range.first)
            && trial.roomAtStart < RoomTrial.blockCharge:
            fail("a write was taken, though less than W stores have room")
        case (.trimming, .noRoom): fail("a trim was refused where stores are full")
        default: break
        }
    }
}
