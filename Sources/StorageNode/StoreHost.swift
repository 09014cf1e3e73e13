// One store on its reactor: the device behind it and the volumes that connections have open.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import StorageIO

/// What a connection opens: a volume or one of its snapshots, in one store of the node.
struct ExportKey: Hashable, BitwiseCopyable, Sendable {
    var storeIndex: Int32
    var volume: VolumeID
    /// The snapshot's layer, or none for the volume itself.
    var layer: LayerID
    /// The epoch under which the volume itself was given away.
    ///
    /// Under each it is another export, so whoever opened it under an earlier one has lost it.
    /// 0 for snapshots, which never change.
    var epoch: UInt64

    init(storeIndex: Int32, volume: VolumeID, layer: LayerID = .none, epoch: UInt64 = 0) {
        self.storeIndex = storeIndex
        self.volume = volume
        self.layer = layer
        self.epoch = epoch
    }
}

/// A store, its device, and who uses what of it; belongs to one reactor.
final class StoreHost {
    /// A volume that connections have open.
    struct OpenExport {
        var handle: VolumeHandle
        /// Connections that have it open, of all reactors.
        var connectionCount: Int
    }

    /// What a volume exports.
    struct VolumeExports {
        var summary: VolumeSummary
        var entries: [ExportEntry]
    }

    /// Somebody who waits until nobody uses something.
    struct DrainWait {
        var exports: Withdrawal
        var isEnded: () -> Void
    }

    /// The store's index in the node.
    let index: Int32
    /// Its place among the stores of its worker.
    let place: Int
    let path: String
    let device: Device
    let deviceHandle: DeviceHandle
    let store: LogStore
    /// The volume of the last request that failed, while it exists.
    var failedVolumeName: String? {
        failures.volume.flatMap { store.specification(of: $0)?.name }
    }
    /// When `onTurn` wants to be called again.
    var deadline: Instant?
    /// Requests submitted and not completed; at most `admittedCountMax`.
    var requestCount = 0
    let admittedCountMax: Int
    /// Device transfers submitted whose ends it has not been told.
    var deviceOperationCount = 0
    /// Requests that wait to be submitted, in order.
    let waiting: FixedRing<StoreRequest>
    /// Requests of replicas submitted and not completed, and those that wait for that.
    var replicaRequestCount = 0
    /// Replicas that are in use: among them what is left of the store is shared out.
    var replicaCount = 0
    let replicaRequestCountMax: Int
    var waitingReplicaRequests = GrowingQueue<StoreRequest>()
    private(set) var opened: [ExportKey: OpenExport] = [:]
    private var waits: [DrainWait] = []
    var commands: [UInt64: (Result<StoreCommandResult, StoreCommandError>) -> Void] = [:]
    private var nextCommandToken: UInt64 = 1
    var lastState: LogStore.State = .opening
    var openedAt: Instant
    /// Told when the store is ready (nil) or has failed.
    var openWaiters: [(StoreError?) -> Void] = []
    private var withdrawals = WithdrawalTable()
    var room: RoomWatch
    /// Requests that ended with `mediaError` while the store was ready.
    var failures = FailureWatch()
    /// What the store's volumes export, as last worked out.
    private var exports: [VolumeID: VolumeExports] = [:]
    private let naming: ExportNaming

    init(
        index: Int32,
        place: Int,
        path: String,
        device: Device,
        handle: DeviceHandle,
        store: LogStore,
        naming: ExportNaming,
        admittedCountMax: Int,
        waitingCountMax: Int,
        replicaRequestCountMax: Int,
        scarceRoomPercent: Int
    ) {
        self.index = index
        self.place = place
        self.path = path
        self.device = device
        self.deviceHandle = handle
        self.store = store
        self.naming = naming
        room = RoomWatch(scarcePercent: scarceRoomPercent)
        self.admittedCountMax = admittedCountMax
        self.replicaRequestCountMax = replicaRequestCountMax
        waiting = FixedRing(capacityMin: max(waitingCountMax, 1))
        openedAt = Instant(nanoseconds: 0)
    }

    /// Opens an export for one more connection; nil when it is gone or too many are open.
    ///
    /// The catalogue that the client chose from may be older than what the store says now.
    func open(_ key: ExportKey) -> VolumeHandle? {
        guard !isWithdrawn(key), let specification = store.specification(of: key.volume),
            key.layer != .none
                || specification.access != .none && key.epoch == specification.epoch
        else { return nil }
        if let found = opened[key] {
            opened[key]?.connectionCount += 1
            return found.handle
        }
        let layer = key.layer == .none ? nil : key.layer
        guard let handle = store.openVolume(key.volume, layer: layer) else { return nil }
        opened[key] = OpenExport(handle: handle, connectionCount: 1)
        return handle
    }

    /// Takes one connection off an export; it has no request in flight.
    func close(_ key: ExportKey) {
        guard let found = opened[key] else { preconditionFailure("closing what is not open") }
        guard found.connectionCount == 1 else {
            opened[key]?.connectionCount -= 1
            return
        }
        store.closeVolume(found.handle)
        opened[key] = nil
        endWaits()
    }

    /// The number of connections that use any of `exports`.
    func connectionCount(of exports: Withdrawal) -> Int {
        opened.reduce(0) { count, entry in
            exports.covers(entry.key) ? count + entry.value.connectionCount : count
        }
    }

    /// Whether there may be something to tell of its room or of failures.
    var needsWatch: Bool {
        // A write may find that the file system has no space for it.
        if deviceOperationCount > 0 || room.isWaiting || failures.count > 0 { return true }
        guard store.state == .ready else { return false }
        return !opened.isEmpty || room.needsLook(liveByteCount: store.space.liveByteCount)
    }

    // MARK: - Taking away

    /// Lets nobody open any of `exports` until as many calls of ``restore(_:)``.
    func withdraw(_ exports: Withdrawal) { withdrawals.withdraw(exports) }

    /// Ends one withdrawal.
    func restore(_ exports: Withdrawal) { withdrawals.restore(exports) }

    /// Whether an export is being taken away.
    func isWithdrawn(_ key: ExportKey) -> Bool {
        withdrawals.isWithdrawn(key.volume, layer: key.layer)
    }

    // MARK: - Exports

    /// What the store's volumes export, by name.
    var exportsByName: [VolumeExports] {
        exports.values.sorted { $0.summary.specification.name < $1.summary.specification.name }
    }

    /// Works out what every volume exports.
    func refreshExports() {
        exports = [:]
        for summary in store.volumes() { setExports(of: summary) }
    }

    /// Works out what one volume exports: a command changes that of its own volume only.
    func refreshExports(of volume: VolumeID) {
        guard let summary = store.volume(volume) else {
            exports[volume] = nil
            return
        }
        setExports(of: summary)
    }

    private func setExports(of summary: VolumeSummary) {
        exports[summary.specification.id] = VolumeExports(
            summary: summary,
            entries: ExportCatalog.entries(of: summary, storeIndex: index, naming: naming)
        )
    }

    /// The volume whose snapshot `layer` is.
    func volume(ofSnapshot layer: LayerID) -> VolumeID? {
        store.volume(ofSnapshot: layer)
    }

    /// Calls `isEnded` as soon as no connection uses any of `exports`, possibly at once.
    func whenUnused(_ exports: Withdrawal, _ isEnded: @escaping () -> Void) {
        waits.append(DrainWait(exports: exports, isEnded: isEnded))
        endWaits()
    }

    private func endWaits() {
        guard !waits.isEmpty else { return }
        let ended = waits.filter { connectionCount(of: $0.exports) == 0 }
        guard !ended.isEmpty else { return }
        waits.removeAll { connectionCount(of: $0.exports) == 0 }
        for wait in ended { wait.isEnded() }
    }

    // MARK: - Commands

    /// Submits a command whose end calls `completion` on this thread.
    func submit(
        _ command: StoreCommand,
        _ completion: @escaping (Result<StoreCommandResult, StoreCommandError>) -> Void
    ) {
        guard store.state == .ready else { return completion(.failure(.unavailable)) }
        let token = nextCommandToken
        nextCommandToken += 1
        commands[token] = completion
        store.submit(command, token: token)
    }
}
