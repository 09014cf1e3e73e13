// What a running node tells of itself.

public import BlockCore
public import LogStore
public import Reactor

extension StorageNode {
    /// Where a store's bytes are.
    public func space(store: Int = 0) async -> StoreSpace {
        await onStore(store) { _, host, done in done(host.store.space) }
    }

    /// How full a store is, and whether that is too much.
    public func room(store: Int = 0) async -> RoomReport {
        await onStore(store) { worker, host, done in
            let space = host.store.space
            let usedPercent = RoomWatch.usedPercent(
                liveByteCount: space.liveByteCount,
                capacityByteCount: space.capacityByteCount
            )
            done(RoomReport(usedPercent: usedPercent, state: host.room.state(now: worker.now)))
        }
    }

    /// What a store could not serve.
    public func failures(store: Int = 0) async -> FailureReport {
        await onStore(store) { _, host, done in
            var report = FailureReport(
                isStopped: false,
                requestCount: host.failures.totalCount,
                volume: host.failedVolumeName
            )
            if case .failed = host.store.state { report.isStopped = true }
            done(report)
        }
    }

    /// What a store did so far.
    public func storeCounters(store: Int = 0) async -> StoreCounters {
        await onStore(store) { _, host, done in done(host.store.counters) }
    }

    /// A store's identity.
    public func identity(store: Int = 0) async -> StoreIdentity? {
        await onStore(store) { _, host, done in done(host.store.identity) }
    }

    /// What all reactors counted.
    public func counters() async -> NodeCounters {
        var sum = NodeCounters()
        for worker in workers {
            sum += await withCheckedContinuation { continuation in
                worker.control.run { continuation.resume(returning: $0.counters) }
            }
        }
        return sum
    }

    /// What the reactors' engines counted, one by one.
    public func reactorCounters() async -> [ReactorCounters] {
        var all: [ReactorCounters] = []
        for worker in workers {
            all.append(
                await withCheckedContinuation { continuation in
                    worker.control.run { continuation.resume(returning: $0.reactor.counters) }
                }
            )
        }
        return all
    }
}
