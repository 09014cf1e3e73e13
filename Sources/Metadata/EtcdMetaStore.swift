// The metadata store of many machines: etcd through its JSON gateway.
//
// Invariants:
//   a transaction takes effect once, however often it was sent: see EtcdMetaStore+Transaction;
//   one that was answered as not done is never done later;
//   a watch gives each change once, in order, across members that die, hang or are cut off.
//
// What makes an answered transaction durable: a majority of etcd's members has it on its disks.
//
// Fault model: members die, freeze, come back and are cut off; answers are lost. Reads are
// linearizable as far as etcd's are; those of 3.4 may be stale after a pause (etcd issue 20418), so
// decisions are made by compares. Leases are not trusted: one may end early (12528, 15247), which
// costs a needless failover and never two writers.
//
// Not verified here: etcd 3.5 and later; authentication by user and password.

import Foundation
public import Logging
import Synchronization

/// A metadata store in an etcd cluster, which several processes may use.
public final class EtcdMetaStore: MetaStore {
    let client: EtcdClient
    let configuration: EtcdConfiguration
    let session = Mutex(EtcdSession())
    let watches = Mutex(EtcdWatchTable())
    let logger: Logger
    /// The records of one page of a range.
    static var pageCountMax: Int { 1_000 }

    /// Makes a store; ``requireMembers()`` tells whether there is one.
    ///
    /// - Parameters:
    ///   - configuration: Where etcd is.
    ///   - logger: Where to log.
    /// - Throws: ``MetadataError/databaseUnusable(path:detail:)`` when a file for TLS is no good.
    public init(_ configuration: EtcdConfiguration, logger: Logger) throws(MetadataError) {
        self.configuration = configuration
        self.logger = logger
        client = try EtcdClient(configuration)
    }

    /// Asks etcd for something harmless, which takes a majority of its members.
    ///
    /// - Throws: ``MetadataError/unavailable(_:)``.
    public func requireMembers() async throws(MetadataError) {
        _ = try await transact(MetaTransaction(success: [.count(prefix: "/")]))
    }

    /// Ends all watches and the session.
    public func close() async {
        watches.withLock { table in
            table.isClosed = true
            for task in table.tasks.values { task.cancel() }
        }
        let lease = session.withLock { session in
            defer { session = EtcdSession() }
            return session.lease
        }
        // It would end by itself.
        if let lease { try? await revoke(lease) }
        await client.close()
    }

    // MARK: - Leases

    /// Makes a lease; etcd counts in whole seconds, and not below some.
    public func grantLease(milliseconds: Int) async throws(MetadataError) -> MetaLease {
        let id = Int64.random(in: 1...Int64(1) << 53 - 1)
        let body = Data(#"{"ID":"\#(id)","TTL":"\#((milliseconds + 999) / 1000)"}"#.utf8)
        return try await client.repeating { (current) throws(EtcdFailure) in
            do throws(EtcdFailure) {
                let _: EtcdLeaseAnswer = try await client.exchange(
                    "/v3/lease/grant",
                    body,
                    current
                )
            } catch {
                // Nobody but ourselves has drawn this number.
                guard case .refused(9, _) = error, current.mayHaveHappened else { throw error }
            }
            return MetaLease(id)
        }
    }

    /// Keeps a lease alive.
    public func keepAlive(_ lease: MetaLease) async throws(MetadataError) {
        let answer: EtcdKeepAliveAnswer = try await client.ask(
            "/v3/lease/keepalive",
            Data(#"{"ID":"\#(lease.rawValue)"}"#.utf8)
        )
        if let error = answer.error {
            throw .unavailable(error.message ?? "a lease was not kept alive")
        }
        guard let seconds = answer.result?.seconds?.value, seconds > 0 else {
            throw .leaseNotFound
        }
    }

    /// Ends a lease and deletes its keys.
    public func revoke(_ lease: MetaLease) async throws(MetadataError) {
        let body = Data(#"{"ID":"\#(lease.rawValue)"}"#.utf8)
        try await client.repeating { (current) throws(EtcdFailure) in
            do throws(EtcdFailure) {
                let _: EtcdLeaseAnswer = try await client.exchange(
                    "/v3/lease/revoke",
                    body,
                    current
                )
            } catch {
                guard case .refused(5, _) = error, current.mayHaveHappened else { throw error }
            }
        }
    }

    /// Keeps the session alive; etcd itself ends leases.
    public func maintain() async throws(MetadataError) {
        let lease: MetaLease? = session.withLock { session in
            let interval = Duration.seconds(configuration.sessionSeconds) / 10
            guard let lease = session.lease, session.keptAt + interval < .now else { return nil }
            session.keptAt = .now
            return lease
        }
        guard let lease else { return }
        do throws(MetadataError) {
            try await keepAlive(lease)
        } catch .leaseNotFound {
            // The next transaction begins another one.
            endSession(lease)
        }
    }

    // MARK: - Keys

    /// A key as etcd has it.
    func stored(_ key: String) -> Data { Data((configuration.namespace + key).utf8) }

    /// The first key after all keys with a prefix, which is ASCII.
    func end(ofPrefix prefix: String) -> Data {
        var bytes = stored(prefix)
        guard let last = bytes.popLast() else { return Data([0]) }
        bytes.append(last + 1)
        return bytes
    }

    /// A record as our callers have it.
    func record(_ kv: EtcdKeyValue) -> MetaRecord {
        MetaRecord(
            key: key(kv.key),
            value: kv.value ?? Data(),
            createRevision: MetaRevision(kv.createRevision?.value ?? 0),
            modifyRevision: kv.modified,
            lease: kv.lease.map { MetaLease($0.value) }
        )
    }

    /// A key without the namespace.
    func key(_ stored: Data) -> String {
        String(decoding: stored.dropFirst(configuration.namespace.utf8.count), as: UTF8.self)
    }
}
