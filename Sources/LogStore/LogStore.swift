// The log store: a pure machine. Device requests out, device completions in; block requests in,
// completions out. Design, invariants and fault model: Docs/log-store.md.
//
// Invariants that the files of this module keep together:
//   durableThrough ≤ writtenThrough ≤ sealedThrough = openSequence − 1
//   the map after replaying batches 1…n equals the map when batch n was sealed
//   a request is acknowledged as durable only when its batch ≤ durableThrough
//   a block's location changes only by a record of the log; its bytes never change in place

public import BlockCore
internal import LogFormat
public import StorageIO

/// How a store uses memory and its device.
public struct LogStoreConfiguration: Sendable, Hashable {
    /// Bytes of map pages kept in memory (`--map-memory`).
    public var mapMemoryByteCount: Int = 256 << 20
    /// The least of it that is used whatever is asked for: with fewer pages the paths of the
    /// requests in flight would not fit.
    public static var mapMemoryByteCountMin: Int { 512 << 10 }
    /// Bytes of recently read blocks kept in memory (`--cache-memory`); 0 for none.
    public var cacheMemoryByteCount: Int = 64 << 20
    /// Block requests accepted at the same time; the front counts, more trap.
    public var requestCountMax: Int = 4096
    /// Layers a store may have: volumes, snapshots and what is being merged.
    public var layerCountMax: Int = 65_536
    /// Handles open at the same time.
    public var openVolumeCountMax: Int = 8192
    /// Bytes of log after which a checkpoint is taken.
    public var checkpointByteCount: UInt64 = 256 << 20
    /// Nanoseconds an acknowledged write may wait in memory for company.
    public var writebackNanoseconds: UInt64 = 2_000_000
    /// Whether a store opens that has lost batches which were durable, without what came after
    /// them (``StoreError/writesLost(offset:)``).
    public var acceptsLoss = false

    /// Creates the defaults.
    public init() {}
}

/// Why a store could not be opened or stopped working.
public enum StoreError: Error, Sendable, Hashable {
    /// The device holds no store.
    case notAStore
    /// The store was written by a newer version of this format.
    case versionTooNew(found: UInt32, supported: UInt32)
    /// The store was written by a version of this format that is not read any more.
    case versionTooOld(found: UInt32, supported: UInt32)
    /// The device holds another store than the one asked for.
    case wrongIdentity(found: StoreIdentity)
    /// The device is smaller than the store on it.
    case deviceTooSmall(need: UInt64, have: UInt64)
    /// Both superblocks are damaged, or a checkpoint page is.
    case corrupt(offset: UInt64)
    /// A batch of the log is missing that was durable, at this place or just before it: opening
    /// would take back what was promised, from there on.
    case writesLost(offset: UInt64)
    /// Opening needs more map memory: as much as the store had when it was last served.
    case mapMemoryTooSmall(need: Int, have: Int)
    /// There is no room for the checkpoint under way, and nothing that could make any.
    case noRoom
    /// A device transfer failed while opening, or a write or flush failed later.
    case deviceError(errno: Int32)
}

/// What a store did since it was opened; plain counts for the control plane to sample.
public struct StoreCounters: Sendable, Hashable, BitwiseCopyable {
    /// Batches sent to the device.
    public var batchCount: UInt64 = 0
    /// Bytes of batches, headers included.
    public var batchByteCount: UInt64 = 0
    /// Bytes of client data in them.
    public var dataByteCount: UInt64 = 0
    /// Bytes moved by the cleaner.
    public var cleanedByteCount: UInt64 = 0
    /// Map pages written.
    public var mapPageWriteCount: UInt64 = 0
    /// Map pages read.
    public var mapPageReadCount: UInt64 = 0
    /// Device flushes.
    public var flushCount: UInt64 = 0
    /// Batches written durably, without a flush of their own.
    public var durableBatchCount: UInt64 = 0
    /// Checkpoints completed.
    public var checkpointCount: UInt64 = 0
    /// Blocks whose checksum did not match.
    public var checksumErrorCount: UInt64 = 0
    /// Damaged blocks that were written anew.
    public var repairedBlockCount: UInt64 = 0
    /// Reads answered from memory.
    public var cacheHitCount: UInt64 = 0
    /// Segments cleaned.
    public var cleanedSegmentCount: UInt64 = 0
    /// Batches replayed when the store was opened.
    public var replayedBatchCount: UInt64 = 0
}

/// A log-structured store of layered volumes on one device.
///
/// One thread owns it. After every call the owner takes what is in ``deviceRequests`` and
/// executes it, and takes what is in ``completions`` and ``commandCompletions`` and hands it on.
public final class LogStore {
    /// Where the store is in its life.
    public enum State: Sendable, Hashable {
        /// Reading superblock, checkpoint and log.
        case opening
        /// Serving.
        case ready
        /// `close` was called; the last checkpoint is under way.
        case closing
        /// Everything is on the device; nothing is in flight.
        case closed
        /// It stopped: reads may go on, nothing is acknowledged any more.
        case failed(StoreError)
    }

    /// The end of a ``StoreCommand``.
    public struct CommandCompletion: Sendable {
        /// The caller's mark.
        public var token: UInt64
        /// What was made, or why not.
        public var result: Result<StoreCommandResult, StoreCommandError>
    }

    /// Transfers for the device; the owner drains it after every call.
    public let deviceRequests: FixedRing<DeviceRequest>
    /// Ended block requests; the owner drains it after every call.
    public let completions: FixedRing<StoreCompletion>
    /// Ended commands; the owner empties it after every call.
    public var commandCompletions: [CommandCompletion] = []
    /// Where the store is in its life.
    public internal(set) var state: State = .opening
    /// What it did so far.
    public internal(set) var counters = StoreCounters()
    /// The identity found on the device, once it was read.
    public internal(set) var identity: StoreIdentity?
    /// Where the log was damaged, in bytes, when the store was opened in spite of that without
    /// what was flushed behind (``LogStoreConfiguration/acceptsLoss``).
    public internal(set) var acceptedLossOffset: UInt64?
    /// The volume of the last request that ended with ``StoreStatus/mediaError``.
    public internal(set) var lastFailedVolume: VolumeID?

    let configuration: LogStoreConfiguration
    let geometry: DeviceGeometry
    let arena: MemoryArena
    let catalogue: Catalogue
    let map: MapCache
    let cache: BlockCache
    let ops: OperationTable
    let log: LogWriter
    let requests: FixedArray<RequestSlot>
    var freeRequest: Int32 = -1
    let runnable: FixedRing<Int32>
    let readWaiters: FixedRing<Int32>
    let writeWaiters: FixedRing<Int32>
    let durabilityWaiters: FixedRing<Int32>
    let scratch: ScratchPool
    /// One block for superblocks on their way, one for checksums of manifests.
    let superblockMemory: ByteRegion
    let statusWalks = StatusWalks()
    var resourcesChanged = false
    /// How far the store had come when nothing but reads was under way, and since when that is so.
    var restMark: (mark: UInt64, since: Instant)?
    /// A request stopped to let others run; the next turn should come at once.
    var hasDeferredWork = false
    /// A map page could not be read since this was last cleared.
    var sawFailedPage = false
    /// Why the last of them could not be: an errno, or 0 for a checksum.
    var pageErrno: Int32 = 0
    var requestsInFlight = 0

    // Set when the superblock has been read.
    var superblock: Superblock?
    var segments: SegmentTable
    var plan = SpacePlan.none
    /// The number of the last change that the store numbered itself.
    var writeSequence: UInt64 = 0
    /// Changes logged in this life that came with numbers of their own.
    var numberedChangeCount: UInt64 = 0
    /// A bug planted for a test.
    package var defect: StoreDefect?
    var now = Instant(nanoseconds: 0)

    var recovery: Recovery?
    var checkpoint = Checkpoint()
    var cleaner: Cleaner
    var layerJob = LayerJob()
    var commands: [PendingCommand] = []
    var durableCommands: [PendingCommand] = []
    // A shrink gives the volume's tail up through a request of its own.
    var trimRequest = -1
    var trimHandle: VolumeHandle?
    var trimStatus: StoreStatus?
    /// The volume that is being shrunk, which nobody may open before its new size holds: a write
    /// to what is given up already would show when the volume grows again.
    var shrinking = VolumeID.none

    /// Creates a store that ``open(identity:now:)`` then reads from a device of `geometry`.
    public init(configuration: LogStoreConfiguration, geometry: DeviceGeometry) {
        self.configuration = configuration
        self.geometry = geometry
        let limits = StoreLimits(configuration)
        arena = MemoryArena(byteCount: limits.arenaByteCount)
        catalogue = Catalogue(
            layerCountMax: configuration.layerCountMax,
            openVolumeCountMax: configuration.openVolumeCountMax
        )
        map = MapCache(count: limits.frameCount, arena: arena)
        cache = BlockCache(blockCount: limits.cacheBlockCount, arena: arena)
        ops = OperationTable(count: limits.operationCount)
        log = LogWriter(arena: arena)
        scratch = ScratchPool(count: limits.scratchBlockCount, arena: arena)
        superblockMemory = arena.allocate(byteCount: 8192)
        cleaner = Cleaner(buffer: arena.allocate(byteCount: StoreLimits.cleanerByteCount))
        requests = FixedArray(repeating: RequestSlot(), count: configuration.requestCountMax)
        runnable = FixedRing(capacityMin: configuration.requestCountMax + 1)
        readWaiters = FixedRing(capacityMin: configuration.requestCountMax + 1)
        writeWaiters = FixedRing(capacityMin: configuration.requestCountMax + 1)
        durabilityWaiters = FixedRing(capacityMin: configuration.requestCountMax + 1)
        deviceRequests = FixedRing(capacityMin: limits.operationCount + 8)
        completions = FixedRing(capacityMin: configuration.requestCountMax * 2)
        segments = SegmentTable(segmentCount: 1, segmentByteCount: 1 << 20)
        for index in stride(from: configuration.requestCountMax - 1, through: 0, by: -1) {
            requests[index].next = freeRequest
            freeRequest = Int32(index)
        }
    }

    /// The memory that device requests use, for registration with the kernel.
    public var deviceMemory: MemoryArena { arena }

    /// Begins opening; ``state`` becomes `ready` or `failed` in a later call.
    ///
    /// - Parameters:
    ///   - identity: The store expected on the device; nil accepts any.
    ///   - now: The current time.
    public func open(identity: StoreIdentity?, now: Instant) {
        precondition(recovery == nil && superblock == nil, "opened twice")
        self.now = now
        beginRecovery(expected: identity)
    }

    /// Takes the outcome of a device request.
    public func onDeviceCompletion(_ completion: DeviceCompletion, now: Instant) {
        self.now = now
        enter()
        finishOperation(completion)
        if case .opening = state { continueRecovery() }
        runRequests()
    }

    /// Accepts a block request; its end appears in ``completions``, possibly at once.
    ///
    /// - Precondition: fewer than `requestCountMax` requests are in flight.
    public func submit(_ request: StoreRequest) {
        enter()
        let slot = takeRequestSlot()
        begin(slot, request)
        runRequests()
    }

    /// Accepts a configuration change; its end appears in ``commandCompletions``.
    public func submit(_ command: StoreCommand, token: UInt64) {
        switch state {
        case .ready: commands.append(PendingCommand(command: command, token: token))
        case .opening, .closing, .closed, .failed:
            commandCompletions.append(
                CommandCompletion(token: token, result: .failure(.unavailable))
            )
        }
    }

    /// Ends a turn of the owner's loop: sends what was batched, runs background work.
    ///
    /// - Parameter now: The current time.
    /// - Returns: When to call again at the latest, or nil when nothing is due.
    public func onTurn(now: Instant) -> Instant? {
        self.now = now
        enter()
        switch state {
        case .opening:
            continueRecovery()
            return nil
        case .closed: return nil
        case .failed:
            failEverything()
            // Reads go on.
            resourcesChanged = true
            runRequests()
            defer { hasDeferredWork = false }
            return hasDeferredWork ? now : nil
        case .ready, .closing: break
        }
        resourcesChanged = true
        runRequests()
        runCommands()
        let isBusy = runBackground()
        runRequests()
        closeTurn()
        finishClosing()
        let isDeferred = hasDeferredWork
        hasDeferredWork = false
        if isBusy || isDeferred || isCheckpointWanted || refuseStuck() { return now }
        return nextDeadline()
    }

    private var isCheckpointWanted: Bool {
        guard checkpoint.isIdle else { return false }
        return checkpoint.isRequested || (checkpoint.isSpaceWanted && checkpointGivesSpace)
    }

    /// What every call begins with: completions that were taken name no memory any more.
    private func enter() {
        if completions.isEmpty { cache.allTaken() }
    }

    /// Begins an orderly shutdown: no new requests; ends with a checkpoint and ``State/closed``.
    public func close() {
        guard case .ready = state else { return }
        state = .closing
        checkpoint.isRequested = true
    }
}

/// Capacities that follow from a configuration.
struct StoreLimits {
    let frameCount: Int
    let cacheBlockCount: Int
    let operationCount: Int
    let scratchBlockCount: Int

    /// What the cleaner reads at a time.
    static var cleanerByteCount: Int { 2 << 20 }

    init(_ configuration: LogStoreConfiguration) {
        frameCount =
            max(configuration.mapMemoryByteCount, LogStoreConfiguration.mapMemoryByteCountMin)
            / 4096
        cacheBlockCount = max(configuration.cacheMemoryByteCount, 0) / 4096
        operationCount = min(2048, configuration.requestCountMax * 8 + 512)
        scratchBlockCount = 256
    }

    var arenaByteCount: Int {
        (frameCount + cacheBlockCount + scratchBlockCount + 64) * 4096
            + LogWriter.memoryByteCount + StoreLimits.cleanerByteCount + (2 << 20)
    }
}
