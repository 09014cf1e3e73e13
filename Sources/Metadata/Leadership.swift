// One process at a time decides: the one whose key hangs on its lease.
//
// Invariants:
//   a change by a process that leads no more is refused by the store itself: each of its
//   transactions compares the key, so nothing depends on when anybody notices;
//   terms grow from leader to leader, also when their clocks disagree.

public import Foundation
public import Logging

/// Who leads, as the store has it.
public struct LeaderRecord: Codable, Sendable, Hashable {
    /// The process, for people: its host, its number and where it listens.
    public var name: String
    /// Since when.
    public var since: Date
}

/// The order of leaders.
private struct TermRecord: Codable {
    var term: UInt64
}

/// The right of this process to change a cluster's metadata.
public struct Leadership: Sendable {
    /// How long it outlives a leader that dies, in milliseconds.
    ///
    /// Half of what nodes have: those that have heard nothing meanwhile must find the next one
    /// before their own leases end, or all of them would count as down. etcd's own leader may
    /// change in the meantime, which takes it up to 3 s.
    public static var leaseMilliseconds: Int { 5_000 }

    /// The store, for this leader's changes only.
    public let store: any MetaStore
    /// Greater than that of all leaders before.
    public let term: UInt64
    private let base: any MetaStore
    private let lease: MetaLease
    private let key: String
    private let revision: MetaRevision

    /// What came of an attempt to lead.
    public enum Attempt: Sendable {
        /// This process leads.
        case leads(Leadership)
        /// Another one does.
        case follows(LeaderRecord)
    }

    /// Leads unless another process does.
    ///
    /// - Parameters:
    ///   - store: Where the metadata is.
    ///   - name: This process, for people.
    ///   - cluster: The cluster's name.
    ///   - leaseMilliseconds: For how long it leads without being heard of.
    /// - Returns: Who leads.
    /// - Throws: ``MetadataError``.
    public static func attempt(
        in store: any MetaStore,
        as name: String,
        cluster: String = "default",
        leaseMilliseconds: Int = Self.leaseMilliseconds
    ) async throws(MetadataError) -> Attempt {
        let keys = ClusterKeys(cluster: cluster)
        let reads: [MetaOperation] = [
            .get(keys.leader), .get(keys.term), .get(MetadataCopy.mark),
        ]
        let read = try await store.transact(MetaTransaction(success: reads))
        if let record = read.records[0].first {
            let holder = try? JSONDecoder().decode(LeaderRecord.self, from: record.value)
            return .follows(holder ?? LeaderRecord(name: "unknown", since: Date()))
        }
        guard read.records[2].isEmpty else { throw .copyIncomplete }
        let last = try read.records[1].first.map { (record) throws(MetadataError) in
            guard let last = try? JSONDecoder().decode(TermRecord.self, from: record.value) else {
                throw .recordInvalid(key: keys.term)
            }
            return last.term
        }
        let term = max(UInt64(max(0, Date().timeIntervalSince1970 * 1000)), (last ?? 0) + 1)
        var change = MetaChange()
        change.require(.absent(keys.leader))
        change.require(.absent(MetadataCopy.mark))
        if let record = read.records[1].first {
            change.require(.unchanged(keys.term, since: record.modifyRevision))
        } else {
            change.require(.absent(keys.term))
        }
        let lease = try await store.grantLease(milliseconds: leaseMilliseconds)
        let record = LeaderRecord(name: name, since: Date())
        try change.put(record, keys.leader, lease: lease)
        try change.put(TermRecord(term: term), keys.term)
        let result = try await store.transact(
            MetaTransaction(compares: change.compares, success: change.operations)
        )
        guard result.succeeded else {
            try? await store.revoke(lease)
            return .follows(LeaderRecord(name: "one that was faster", since: Date()))
        }
        return .leads(
            Leadership(
                store: LeaderMetaStore(base: store, key: keys.leader, revision: result.revision),
                term: term,
                base: store,
                lease: lease,
                key: keys.leader,
                revision: result.revision
            )
        )
    }

    /// Keeps leading until that has ended, or the task is cancelled.
    ///
    /// The key tells, not the lease: etcd 3.4 may keep alive what has ended.
    public func keep(logger: Logger) async {
        while !Task.isCancelled {
            do throws(MetadataError) {
                try await base.keepAlive(lease)
                guard try await isLeading() else { return }
            } catch .leaseNotFound {
                return
            } catch {
                // It may lead still, and cannot change anything if it does not.
                logger.warning("the lease was not kept alive", metadata: ["reason": "\(error)"])
            }
            try? await Task.sleep(for: .milliseconds(Self.leaseMilliseconds / 5))
        }
    }

    /// Whether this process leads.
    public func isLeading() async throws(MetadataError) -> Bool {
        let read = try await base.transact(MetaTransaction(success: [.get(key)]))
        return read.records[0].first?.modifyRevision == revision
    }

    /// Leads no more, so that another process may at once.
    public func resign() async {
        // It ends by itself otherwise.
        try? await base.revoke(lease)
    }
}

/// A store that takes changes while a key is what it was.
private struct LeaderMetaStore: MetaStore {
    let base: any MetaStore
    let key: String
    let revision: MetaRevision

    func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        guard !transaction.failure.contains(where: \.isChange) else {
            throw .transactionInvalid("changes for when a compare does not hold")
        }
        guard transaction.success.contains(where: \.isChange) else {
            return try await base.transact(transaction)
        }
        var guarded = transaction
        guarded.compares.append(.unchanged(key, since: revision))
        guarded.failure.append(.get(key))
        var result = try await base.transact(guarded)
        guard !result.succeeded else { return result }
        let leader = result.records.removeLast().first
        result.counts.removeLast()
        guard leader?.modifyRevision == revision else { throw .notLeader }
        return result
    }

    func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease {
        try await base.grantLease(milliseconds: milliseconds)
    }

    func keepAlive(_ lease: MetaLease) async throws(MetadataError) {
        try await base.keepAlive(lease)
    }

    func revoke(_ lease: MetaLease) async throws(MetadataError) { try await base.revoke(lease) }

    func watch(
        prefix: String,
        after revision: MetaRevision
    ) async throws(MetadataError) -> AsyncStream<MetaWatchBatch> {
        try await base.watch(prefix: prefix, after: revision)
    }

    func maintain() async throws(MetadataError) { try await base.maintain() }
}
