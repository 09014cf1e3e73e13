// Replicated volumes that a node serves.

public import BlockCore
internal import Reactor
internal import Replication

extension StorageNode {
    /// Serves a volume as its primary, or goes on serving it under what has changed.
    ///
    /// Idempotent for the same lease epoch. The takeover goes on after it returns: clients may
    /// connect, and wait until enough replicas are there.
    ///
    /// - Parameter assignment: The volume, its epochs and its replicas.
    /// - Returns: Where it is now.
    /// - Throws: ``ServiceError``; what was served before still is.
    public func serve(
        _ assignment: ServiceAssignment
    ) async throws(ServiceError) -> ServiceStatus {
        try assignment.check()
        let index = await workerServing(assignment.volume) ?? worker(for: assignment)
        let result: Result<ServiceStatus, ServiceError> = await onWorker(index) { worker, done in
            done(worker.serve(assignment))
        }
        return try result.get()
    }

    /// Gives a volume back: its connections are closed, what was acknowledged is made durable, and
    /// replicas are told that nobody reads any more.
    ///
    /// Done also when the volume is not served here, or under a higher epoch.
    public func stopServing(_ volume: VolumeID, leaseEpoch: Epoch) async {
        for index in workers.indices {
            let _: Bool = await onWorker(index) { worker, done in
                worker.stopServing(volume, leaseEpoch: leaseEpoch) { done(true) }
            }
        }
    }

    /// What the node serves, by volume id.
    public func services() async -> [ServiceStatus] {
        var all: [ServiceStatus] = []
        for index in workers.indices {
            all += await onWorker(index) { worker, done in done(worker.serviceStatuses()) }
        }
        return all.sorted { $0.assignment.volume.rawValue < $1.assignment.volume.rawValue }
    }

    /// Takes the credentials of links to other nodes as their files are now, for the handshakes to
    /// come; links that are up go on.
    ///
    /// - Returns: What should be put right about them.
    /// - Throws: ``TLSError``, naming the file; what was loaded before is kept.
    @discardableResult
    public func reloadPeerCredentials() throws(TLSError) -> [TLSWarning] {
        guard let credentials = shared.peerCredentials, let tls = shared.configuration.peerTLS
        else { return [] }
        try credentials.reload(tls)
        return credentials.warnings
    }

    func workerServing(_ volume: VolumeID) async -> Int? {
        for index in workers.indices {
            let isServing: Bool = await onWorker(index) { worker, done in
                done(worker.serviceStatuses().contains { $0.assignment.volume == volume })
            }
            if isServing { return index }
        }
        return nil
    }

    /// The reactor for a new service: that of the replica here, whose reads then go nowhere else.
    private func worker(for assignment: ServiceAssignment) -> Int {
        if let store = store(of: assignment.volume) { return storeWorker(store) }
        return Int(assignment.volume.rawValue % UInt64(workers.count))
    }

    func onWorker<Result: Sendable>(
        _ index: Int,
        _ body: @escaping @Sendable (Worker, @escaping (Result) -> Void) -> Void
    ) async -> Result {
        await withCheckedContinuation { continuation in
            workers[index].control.run { worker in
                body(worker) { continuation.resume(returning: $0) }
            }
        }
    }
}

extension ServiceAssignment {
    /// Refuses what cannot be served.
    fileprivate func check() throws(ServiceError) {
        guard leaseEpoch.rawValue > 0, leaseEpoch <= WriteNumber.epochMax else {
            throw .invalid("a lease epoch from 1 to \(WriteNumber.epochMax.rawValue)")
        }
        let policy = ReplicationPolicy(replicaCount: placements.count, writeQuorum: writeQuorum)
        guard policy != nil else {
            throw .invalid(
                "1 to \(ReplicationPolicy.replicaCountMax) replicas, more than half of them in a quorum"
            )
        }
        let instances = placements.map(\.instance) + (move.map { [$0.to.instance] } ?? [])
        guard Set(instances).count == instances.count, !instances.contains(ReplicaInstance(0))
        else {
            throw .invalid("replicas that are different ones")
        }
        guard move.map({ move in placements.contains { $0.instance == move.from } }) ?? true else {
            throw .invalid("a move of one of its replicas")
        }
        guard byteCount > 0, byteCount <= BlockGeometry.volumeByteCountMax,
            byteCount % UInt64(BlockGeometry.blockByteCount) == 0,
            logicalBlockByteCount == 512 || logicalBlockByteCount == 4096
        else { throw .invalid("a size in blocks of 4096 bytes, and sectors of 512 or 4096") }
    }
}
