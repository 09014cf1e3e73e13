// How many replicas, how many of them make a write safe, and the limits of its machines.

/// What a volume asks of its replication, and what its machines may use.
public struct ReplicationPolicy: Sendable, Hashable {
    /// Replicas of each block (N).
    public var replicaCount: Int
    /// Replicas that must have a write before it is committed (W).
    public var writeQuorum: Int
    /// Whether only what is durable counts: writes are acknowledged, and seen, when W have them
    /// durable.
    public var isWritethrough = false

    /// Nanoseconds for which a replica, by its own clock, does not answer a seal of another
    /// process.
    ///
    /// As long as a takeover takes at least; measured pauses of processes stay below.
    public var grantNanoseconds: UInt64 = 600_000_000
    /// How much the rates of two clocks may differ, in thousandths.
    public var clockRateErrorPerMille: UInt64 = 100
    /// Nanoseconds without another answer after which a takeover counts on replicas that forgot
    /// what was not durable.
    public var amnesiaNanoseconds: UInt64 = 10_000_000_000
    /// Nanoseconds without any complete replica at hand, and enough others, after which a primary
    /// leaves its epoch so that the next one chooses its source anew.
    public var stuckNanoseconds: UInt64 = 3_000_000_000
    /// Nanoseconds without an answer after which a read is sent to another replica too; 0 for
    /// never.
    ///
    /// Far above what a read takes, or all would be read twice when there is much to do; far below
    /// the second after which a link is given up.
    public var hedgeNanoseconds: UInt64 = 20_000_000

    /// Nanoseconds that a replica's stream waits for room in its store before the replica is opened
    /// where the stream is then: as long as a cleaner needs to make some.
    public var roomPatienceNanoseconds: UInt64 = 2_000_000_000
    /// Nanoseconds before a replica without room is given again what it had none for: that reads all
    /// it lacks.
    public var roomRetryNanoseconds: UInt64 = 10_000_000_000

    /// Writes that a primary keeps for its replicas; rounded up to a power of two.
    public var windowCountMax = 16_384
    /// Bytes of payload in them (64 MiB).
    public var windowByteCountMax = 64 << 20
    /// Blocks that go to a replica although it has not answered for what it was sent before.
    ///
    /// Fewer wait for the answer. 0 or 1 for never waiting.
    public var gatheredBlockCount: UInt32 = 8
    /// Requests of clients accepted at the same time.
    public var requestCountMax = 1024
    /// Blocks fetched at the same time for renewal and resync: enough to hide a round trip, few
    /// enough that clients do not notice.
    public var fetchCountMax = 32
    /// Entries of one answer to a scan.
    public var scanCountMax = 256
    /// Blocks of one request.
    public var requestBlockCountMax: UInt32 = 8192

    /// A bug planted for the simulation to find; nil outside it.
    package var defect: ReplicationDefect?

    /// The most replicas a block may have.
    public static var replicaCountMax: Int { 5 }

    /// Creates a policy; nil when two quorums of writes would not share a replica.
    public init?(replicaCount: Int, writeQuorum: Int) {
        guard (1...ReplicationPolicy.replicaCountMax).contains(replicaCount),
            writeQuorum <= replicaCount, 2 * writeQuorum > replicaCount
        else { return nil }
        self.replicaCount = replicaCount
        self.writeQuorum = writeQuorum
    }

    /// Replicas that a takeover must hear: at least one of every W (N − W + 1).
    public var sealQuorum: Int { replicaCount - writeQuorum + 1 }

    /// For how long a primary may rely on a grant, by its own clock from when it asked.
    var reliableGrantNanoseconds: UInt64 {
        grantNanoseconds / 1000 * (1000 - clockRateErrorPerMille)
    }
}

/// Bugs that the simulation must find (Docs/FAULT_MODEL.md).
package enum ReplicationDefect: String, Sendable, Hashable, CaseIterable {
    /// The source's tail is not written again, and those who lack it count as complete.
    case tailNotRenewed = "tail-not-renewed"
    /// A replica that forgot counts in a takeover like any other.
    case amnesiacCounted = "amnesiac-counted"
    /// A replica answers a seal before its promise is durable.
    case promiseNotPersisted = "promise-not-persisted"
    /// Reads are answered without grants.
    case readsWithoutGrant = "reads-without-grant"
    /// A replica answers a seal although it granted.
    case grantNotKept = "grant-not-kept"
    /// Blocks that no later epoch knows of stay where they are.
    case straysNotRewritten = "strays-not-rewritten"
    /// A stray is rewritten with what was read before a client wrote the block.
    case staleRewrite = "stale-rewrite"
    /// Old blocks replace newer ones.
    case fillNotCompared = "fill-not-compared"
    /// One replica fewer makes a commit.
    case commitWithOneLess = "commit-with-one-less"
    /// Replicas that are not complete count for commits.
    case incompleteCounted = "incomplete-counted"
    /// Reads show what is not committed yet.
    case uncommittedRead = "uncommitted-read"
    /// Reads are sent to replicas that have not applied everything committed.
    case readBehind = "read-behind"
    /// Refusals are ignored at replicas: any epoch may write.
    case lowerEpochAccepted = "lower-epoch-accepted"
    /// Flushes are acknowledged when everything is committed.
    case flushNotHardened = "flush-not-hardened"
    /// The source is whoever answered first.
    case anySource = "any-source"
    /// A new replica in the place of a lost one counts in a takeover before it was filled.
    case blankCounted = "blank-counted"
    /// A read waits for the replica that it was sent to, however long that takes.
    case neverHedged = "never-hedged"
    /// A read that is late is sent to whoever is complete, however far behind.
    case hedgeBehind = "hedge-behind"
    /// A replica that is being filled for a move counts.
    case learnerCounted = "learner-counted"
    /// Of the two sets that count during a move, the new one is not asked.
    case joinIgnored = "join-ignored"
    /// A move is ready as soon as both sets count, whatever the new one has.
    case joinNotAwaited = "join-not-awaited"
    /// Payloads of answers that come too late are kept.
    case latePayloadKept = "late-payload-kept"
    /// A copy that is damaged is repaired with whatever another replica has of the block.
    case repairNotCompared = "repair-not-compared"
    /// A snapshot is acknowledged before it is committed.
    case snapshotNotAwaited = "snapshot-not-awaited"
    /// Replicas that are not complete take snapshots in their stream.
    case snapshotsNotStaged = "snapshots-not-staged"
    /// Blocks that the lineage does not have stay in the snapshots that a replica is given.
    case straysInSnapshots = "strays-in-snapshots"
    /// Snapshots that were taken in vain stay.
    case vainSnapshotsKept = "vain-snapshots-kept"
    /// Writes are numbered and sent whether there is room for them or not.
    case roomIgnored = "room-ignored"
    /// What is on its way to a replica is not counted: its room is given out again.
    case roomUsedTwice = "room-used-twice"
    /// A write without room is taken for one of blocks that all have already.
    case overwritesAssumed = "overwrites-assumed"
    /// A replica becomes complete without the blocks that it had no room for.
    case leftOutForgotten = "left-out-forgotten"
    /// What was on its way to a replica that is lost counts as on its way for ever.
    case budgetLeaked = "budget-leaked"
}
