// A storage node: reactors, stores and an NBD front put together.
//
// The data path runs on the reactors' own threads. What is here is the control side: it starts
// and stops them, and talks to them by handing work over (ControlQueue).

public import BlockCore
public import LogStore
public import Reactor
internal import StorageIO
internal import Synchronization

/// A running node.
///
/// Made by ``start(_:sink:)``, ended by ``stop()``. Safe to use from any task or thread.
public final class StorageNode: Sendable {
    let shared: NodeShared
    let workers: [Worker]
    private let storeWorkers: [Int]
    private let directory: Mutex<StoreDirectory>
    private let threads: Mutex<WorkerThreads>

    /// The addresses that clients reach it at, with the ports that the system chose.
    public let listeners: [ListenAddress]
    /// The addresses that initiators reach it at.
    public let iscsiListeners: [ListenAddress]
    /// The engine of each reactor, and why.
    public let engines: [EngineReport]
    /// Where other nodes reach its replicas; nil when it does not listen for them.
    public let peerListener: ListenAddress?
    /// The stores' paths.
    public let storePaths: [String]

    private init(_ parts: consuming NodeParts) {
        shared = parts.shared
        workers = parts.workers
        storeWorkers = parts.storeWorkers
        listeners = parts.listeners
        iscsiListeners = parts.iscsiListeners
        peerListener = parts.peerListener
        engines = parts.workers.map(\.reactor.report)
        storePaths = parts.shared.configuration.stores.map(\.path)
        let storeCount = storePaths.count
        directory = Mutex(
            StoreDirectory(
                // Behind the stores, what each reactor serves of other nodes' too.
                exports: Array(repeating: [], count: storeCount + parts.workers.count),
                volumes: Array(repeating: [], count: storeCount + parts.workers.count)
            )
        )
        threads = Mutex(WorkerThreads())
    }

    // MARK: - Life

    /// Opens devices and listeners, starts the reactors and waits until every store is ready.
    ///
    /// - Parameters:
    ///   - configuration: What it is started with.
    ///   - sink: Takes events, on the reactors' threads; must not block.
    /// - Returns: The node, serving.
    /// - Throws: ``NodeError``; nothing stays open.
    public static func start(
        _ configuration: NodeConfiguration,
        sink: @escaping NodeEventSink
    ) async throws(NodeError) -> StorageNode {
        let node = StorageNode(try await parts(configuration, sink: sink))
        try node.run()
        for (index, path) in node.storePaths.enumerated() {
            if let error = await node.storeOpened(index) {
                await node.stop()
                throw .store(path: path, error)
            }
        }
        for worker in node.workers { worker.control.run { $0.beginAccepting() } }
        return node
    }

    /// How long an earlier process may take to let go of a device or an address, in
    /// milliseconds: one that was killed is torn down by the kernel in the background.
    private static let releaseMillisecondsMax = 3000
    private static let releasePollMilliseconds = 50

    private static func parts(
        _ configuration: NodeConfiguration,
        sink: @escaping NodeEventSink
    ) async throws(NodeError) -> NodeParts {
        var waitedMilliseconds = 0
        // Later attempts may fail for what this process itself still holds of earlier ones.
        var first: NodeError?
        while true {
            do throws(NodeError) {
                return try NodeParts(configuration, sink: sink)
            } catch {
                guard error.mayPass, waitedMilliseconds < releaseMillisecondsMax else {
                    throw first ?? error
                }
                if first == nil { first = error }
            }
            waitedMilliseconds += releasePollMilliseconds
            try? await Task.sleep(for: .milliseconds(releasePollMilliseconds))
        }
    }

    private func run() throws(NodeError) {
        for worker in workers {
            worker.publisher = { [weak self] store, entries, volumes in
                self?.publish(store: Int(store), entries, volumes)
            }
            shared.sink(.reactorStarted(index: Int(worker.index), worker.reactor.report))
        }
        do throws(ThreadError) {
            for worker in workers {
                let thread = RunningThread(
                    try ReactorThread.start(name: "cairn-\(worker.index)") { worker.run() }
                )
                threads.withLock { $0.running.append(thread) }
            }
        } catch {
            // Those that run end before they have done anything.
            for worker in workers { worker.control.run { $0.isFinished = true } }
            throw .thread(errno: error.errno)
        }
    }

    private func storeOpened(_ store: Int) async -> StoreError? {
        await withCheckedContinuation { continuation in
            workers[storeWorkers[store]].control.run { worker in
                guard let host = worker.hostsByStore[store] else { return }
                switch host.store.state {
                case .failed(let error): continuation.resume(returning: error)
                case .opening: host.openWaiters.append { continuation.resume(returning: $0) }
                case .ready, .closing, .closed: continuation.resume(returning: nil)
                }
            }
        }
    }

    /// Stops in order; once only, later calls return at once.
    ///
    /// Afterwards devices and addresses are free, and nothing else may be called.
    ///
    /// No new connections; what is in work is answered; the stores write their last checkpoint;
    /// the threads end. Bounded by ``NodeLimits/shutdownSeconds`` and the time that the stores'
    /// last writes take.
    public func stop() async {
        guard threads.withLock({ $0.beginStopping() }) else { return }
        for worker in workers {
            await withCheckedContinuation { continuation in
                worker.control.run { $0.beginStopping { continuation.resume() } }
            }
        }
        for worker in workers {
            await withCheckedContinuation { continuation in
                worker.control.run { worker in
                    worker.onStoresClosed = { continuation.resume() }
                    worker.closeStores()
                }
            }
        }
        for worker in workers { worker.control.run { $0.isFinished = true } }
        let running = threads.withLock { $0.running }
        for thread in running { thread.join() }
    }

    // MARK: - Volumes

    /// Carries out a configuration change; durable when it returns.
    ///
    /// Taking a volume or snapshot away (deletion, access `none`) sees its connections off first;
    /// rollback is refused while there are any.
    ///
    /// - Parameters:
    ///   - command: What to change.
    ///   - store: The store that a new volume goes to, or that holds the snapshot: each store
    ///     numbers its layers by itself. For everything else the volume says.
    /// - Returns: What was made.
    /// - Throws: ``StoreCommandError``; nothing was changed.
    public func perform(
        _ command: StoreCommand,
        store: Int? = nil
    ) async throws(StoreCommandError) -> StoreCommandResult {
        let index = if let store { store } else { try self.store(of: command) }
        let result: CommandResult = await onStore(index) { worker, host, done in
            worker.perform(command, on: host, done)
        }
        return try result.get()
    }

    /// The store that a command goes to when the caller has not said.
    private func store(of command: StoreCommand) throws(StoreCommandError) -> Int {
        switch command {
        case .createVolume: return 0
        case .createSnapshot(let id, _), .rollback(let id, _), .deleteVolume(let id),
            .resizeVolume(let id, _), .setReplica(let id, _):
            guard let store = store(of: id) else { throw .volumeNotFound }
            return store
        case .updateVolume(let specification):
            guard let store = store(of: specification.id) else { throw .volumeNotFound }
            return store
        case .cloneSnapshot, .deleteSnapshot:
            // A layer's number says nothing of its store.
            guard storePaths.count == 1 else { throw .snapshotNotFound }
            return 0
        }
    }

    /// The store that holds a volume, or nil.
    public func store(of volume: VolumeID) -> Int? {
        directory.withLock { directory in
            directory.volumes.firstIndex { $0.contains(volume) }
        }
    }

    /// The reactor that a store lives on.
    func storeWorker(_ store: Int) -> Int { storeWorkers[store] }

    /// Whether every store serves; what one that does not holds is unknown, not absent.
    public func areStoresReady() async -> Bool {
        for store in storePaths.indices {
            let isReady: Bool = await onStore(store) { _, host, done in
                done(host.store.state == .ready)
            }
            if !isReady { return false }
        }
        return true
    }

    /// All volumes of all stores, by name within each.
    public func volumes() async -> [VolumeSummary] {
        var all: [VolumeSummary] = []
        for store in storePaths.indices { all += await volumes(store: store) }
        return all
    }

    /// All volumes of one store, by name; none while it does not serve.
    public func volumes(store: Int) async -> [VolumeSummary] {
        await onStore(store) { _, host, done in
            done(host.store.state == .ready ? host.store.volumes() : [])
        }
    }

    /// One volume, or nil when no store has it.
    public func volume(_ id: VolumeID) async -> VolumeSummary? {
        for store in storePaths.indices {
            let found: VolumeSummary? = await onStore(store) { _, host, done in
                done(host.store.state == .ready ? host.store.volume(id) : nil)
            }
            if let found { return found }
        }
        return nil
    }

    /// The number of connections to a volume and its snapshots.
    public func connectionCount(of volume: VolumeID) async -> Int {
        var count = 0
        for store in storePaths.indices {
            count += await onStore(store) { _, host, done in
                done(host.connectionCount(of: .volume(volume)))
            }
        }
        return count
    }

    // MARK: - For tests

    /// What `body` returns on the thread of a reactor.
    package func valueOnReactor(
        _ index: Int,
        _ body: @escaping @Sendable () -> UInt64
    ) async -> UInt64 {
        await withCheckedContinuation { continuation in
            workers[index].control.run { _ in continuation.resume(returning: body()) }
        }
    }

    /// Whether all buffers but the chunks of `connectionCount` connections are free.
    package func isPoolWhole(connectionCount: Int) async -> Bool {
        var heldByteCount = 0
        for worker in workers {
            heldByteCount += await withCheckedContinuation { continuation in
                worker.control.run {
                    continuation.resume(returning: $0.pool.byteCount - $0.pool.freeByteCount)
                }
            }
        }
        let chunkByteCount = NodeLimits.receiveByteCount + 2 * NodeLimits.transmitByteCount
        return heldByteCount <= connectionCount * chunkByteCount
    }

    // MARK: - Private

    /// Has `body` run on the thread of a store, which calls its last argument once.
    func onStore<Result: Sendable>(
        _ store: Int,
        _ body: @escaping @Sendable (Worker, StoreHost, @escaping (Result) -> Void) -> Void
    ) async -> Result {
        precondition(storePaths.indices.contains(store), "no such store")
        return await withCheckedContinuation { continuation in
            workers[storeWorkers[store]].control.run { worker in
                guard let host = worker.hostsByStore[store] else {
                    preconditionFailure("a store on another worker")
                }
                body(worker, host) { continuation.resume(returning: $0) }
            }
        }
    }

    /// Takes a store's exports and gives all workers the new catalogue.
    private func publish(store: Int, _ entries: [ExportEntry], _ volumes: [VolumeSummary]) {
        let catalog = directory.withLock { directory in
            directory.exports[store] = entries
            directory.volumes[store] = Set(volumes.map(\.specification.id))
            let catalog = ExportCatalog(
                directory.exports,
                naming: shared.configuration.exportNaming
            )
            // Queued under the lock, so that no worker gets two catalogues in the wrong order.
            for worker in workers { worker.control.run { $0.onCatalog(catalog) } }
            return catalog
        }
        shared.sink(.exportsChanged(count: catalog.entries.count))
    }
}

extension NodeError {
    /// Whether it may be an earlier process that is still going.
    fileprivate var mayPass: Bool {
        switch self {
        case .device(_, .locked), .listener(_, .addressInUse): true
        default: false
        }
    }
}

/// What the control side knows of the stores.
private struct StoreDirectory {
    var exports: [[ExportEntry]]
    var volumes: [Set<VolumeID>]
}

/// The threads of a node's workers.
private struct WorkerThreads {
    var running: [RunningThread] = []
    private var isStopping = false

    /// Whether this is the first call.
    mutating func beginStopping() -> Bool {
        guard !isStopping else { return false }
        isStopping = true
        return true
    }
}

/// A thread that can be waited for once.
private final class RunningThread: Sendable {
    private let thread: Mutex<ReactorThread?>

    init(_ thread: consuming sending ReactorThread) { self.thread = Mutex(consume thread) }

    func join() {
        guard let thread = thread.withLock({ $0.take() }) else { return }
        thread.join()
    }
}
