// The log store: a pure machine. Device requests out, device completions in; block requests in,
// completions out. Design, invariants and fault model: Docs/log-store.md.

public import BlockCore
public import StorageIO

/// How a store uses memory and its device.
public struct LogStoreConfiguration: Sendable, Hashable {
    /// Bytes of map pages kept in memory (`--map-memory`).
    public var mapMemoryByteCount: Int = 256 << 20
    /// Bytes of recently read blocks kept in memory (`--cache-memory`).
    public var cacheMemoryByteCount: Int = 64 << 20
    /// Block requests accepted at the same time; the front counts, more trap.
    public var requestCountMax: Int = 4096

    /// Creates the defaults.
    public init() {}
}

/// Why a store could not be opened or stopped working.
public enum StoreError: Error, Sendable, Hashable {
    /// The device holds no store.
    case notAStore
    /// The store was written by a newer version of this format.
    case versionTooNew(found: UInt32, supported: UInt32)
    /// The device holds another store than the one asked for.
    case wrongIdentity(found: StoreIdentity)
    /// The device is smaller than the store on it.
    case deviceTooSmall(need: UInt64, have: UInt64)
    /// Both superblocks are damaged, or a checkpoint page is.
    case corrupt(offset: UInt64)
    /// A device transfer failed while opening, or a write or flush failed later.
    case deviceError(errno: Int32)
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
        /// It stopped. Reads may go on; nothing is acknowledged any more.
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
    public private(set) var state: State = .opening

    /// Creates a store that ``open(now:)`` then reads from a device of `geometry`.
    public init(configuration: LogStoreConfiguration, geometry: DeviceGeometry) {
        deviceRequests = FixedRing(capacityMin: 8192)
        completions = FixedRing(capacityMin: configuration.requestCountMax * 2)
    }

    /// Begins opening; ``state`` becomes `ready` or `failed` in a later call.
    ///
    /// - Parameters:
    ///   - identity: The store expected on the device; nil accepts any.
    ///   - now: The current time.
    public func open(identity: StoreIdentity?, now: Instant) { fatalError() }

    /// Takes the outcome of a device request.
    public func onDeviceCompletion(_ completion: DeviceCompletion, now: Instant) { fatalError() }

    /// Accepts a block request; its end appears in ``completions``, possibly at once.
    public func submit(_ request: StoreRequest) { fatalError() }

    /// Accepts a configuration change; its end appears in ``commandCompletions``.
    public func submit(_ command: StoreCommand, token: UInt64) { fatalError() }

    /// Ends a turn of the owner's loop: sends what was batched, runs background work.
    ///
    /// - Returns: When to call again at the latest, or nil when nothing is due.
    public func onTurn(now: Instant) -> Instant? { fatalError() }

    /// Begins an orderly shutdown: no new requests; ends with a checkpoint and ``State/closed``.
    public func close() { fatalError() }

    // MARK: - Volumes and queries

    /// Opens a volume, or a snapshot of it (read-only), for requests.
    ///
    /// - Parameters:
    ///   - id: The volume.
    ///   - layer: A snapshot's layer, or nil for the volume itself.
    /// - Returns: nil when there is no such volume or snapshot, or too many are open.
    public func openVolume(_ id: VolumeID, layer: LayerID? = nil) -> VolumeHandle? { fatalError() }

    /// Gives a handle back; no request on it may be in flight.
    public func closeVolume(_ handle: VolumeHandle) { fatalError() }

    /// All volumes, by name.
    public func volumes() -> [VolumeSummary] { fatalError() }

    /// One volume.
    public func volume(_ id: VolumeID) -> VolumeSummary? { fatalError() }

    /// Where the store's bytes are.
    public var space: StoreSpace { fatalError() }
}
