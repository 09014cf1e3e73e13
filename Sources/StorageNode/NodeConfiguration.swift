// What a node is started with, and why it may refuse to start.

public import BlockCore
public import LogStore
public import Reactor

/// Where a node listens for NBD clients.
public enum ListenAddress: Sendable, Hashable, CustomStringConvertible {
    /// TCP; an empty host is every address, port 0 lets the system choose.
    case tcp(host: String, port: UInt16)
    /// A unix socket.
    case unix(path: String)

    /// The address as people write it.
    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): path
        }
    }
}

/// Whether clients may, must or cannot use TLS.
public enum TLSPolicy: String, Sendable, Hashable, CaseIterable {
    /// STARTTLS is refused.
    case off
    /// A client chooses.
    case allow
    /// Nothing but STARTTLS is answered before TLS.
    case require
}

/// A store that a node serves.
public struct StoreConfiguration: Sendable {
    /// The file or block device.
    public var path: String
    /// The store that must be on it; nil accepts any.
    public var identity: StoreIdentity?
    /// Its memory and limits; `requestCountMax` is set by the node.
    public var log: LogStoreConfiguration
    /// How the device is opened.
    public var device: DeviceOptions

    /// Memory beside maps and cache, in bytes: the log's batches, the cleaner's buffer, slots and
    /// tables (14 MiB measured), and that the memory begins at a huge page.
    private static var fixedByteCount: Int { 24 << 20 }

    /// What the store maps when it is opened, in bytes: at least what it then has.
    public var memoryByteCount: Int {
        Self.fixedByteCount
            .addingSaturated(log.mapMemoryByteCount)
            .addingSaturated(log.cacheMemoryByteCount)
    }

    /// Creates a configuration.
    public init(
        path: String,
        identity: StoreIdentity? = nil,
        log: LogStoreConfiguration = LogStoreConfiguration(),
        device: DeviceOptions = DeviceOptions()
    ) {
        self.path = path
        self.identity = identity
        self.log = log
        self.device = device
    }
}

/// What a node is started with.
public struct NodeConfiguration: Sendable {
    /// The stores, in the order of `StorageNode`'s store indices.
    public var stores: [StoreConfiguration]
    /// Where to listen.
    public var listeners: [ListenAddress]
    /// Where to listen for iSCSI initiators.
    public var iscsiListeners: [ListenAddress] = []
    /// Where initiators are told that the node is, if not where it listens.
    public var iscsiAdvertised: [ListenAddress] = []
    /// Who may use what over iSCSI.
    public var iscsiAccess = ISCSIAccess.everybody
    /// Whether initiators are told that they may eject volumes, as trays of their own.
    public var hasRemovableUnits = false
    /// Where other nodes' primaries reach the replicas here; nil for a node without.
    public var peerListener: ListenAddress?
    /// The credentials of links between nodes, which are under TLS then; nil for links without.
    public var peerTLS: TLSConfiguration?
    /// Whether replicas at an address that is not this machine's own may be reached without TLS.
    public var allowsPlainPeers = false
    /// Bytes for the payloads of replicated writes, per reactor; costs nothing until it is used.
    public var replicationMemoryByteCount = 256 << 20
    /// The number of reactor threads; at least 1, at most ``reactorCountMax``.
    public var reactorCount = 1
    /// The engine and limits of each reactor.
    public var reactor = ReactorOptions()
    /// Bytes for requests and replies, over all reactors.
    public var bufferMemoryByteCount = 128 << 20
    /// How volumes are named for clients.
    public var exportNaming = ExportNaming.plain
    /// Whether connections are spread over all reactors instead of living with their store.
    public var spreadsConnections = false
    /// Whether clients use TLS.
    public var tlsPolicy: TLSPolicy = .off
    /// The credentials, unless TLS is off.
    public var tls: TLSConfiguration?
    /// The limits.
    public var limits = NodeLimits()

    /// The most reactors: their number travels in eight bits of each token.
    public static var reactorCountMax: Int { 128 }
    /// The least buffer memory of one reactor: some chunks and the largest part.
    public static var bufferMemoryByteCountMin: Int { 4 << 20 }

    /// Operations that each reactor needs room for: what was asked for, at least what all
    /// connections and as many device transfers as there may be can have in flight together.
    var operationCountMax: Int {
        let listenerCount =
            listeners.count + iscsiListeners.count + (peerListener == nil ? 0 : 1)
        let initiatorCount = iscsiListeners.isEmpty ? 0 : limits.iscsiConnectionCountMax
        let socketCount =
            limits.socketOperationCountMax(listenerCount: listenerCount)
            + 3 * (limits.peerLinkCountMax + initiatorCount)
        return max(reactor.operationCountMax, socketCount + limits.deviceOperationCount)
    }

    /// Memory beside its buffers that a reactor has, in bytes: its operations' vectors (17 MiB with
    /// the default limits), slots, the first connections' memory, and its thread's stack.
    private static var reactorByteCount: Int { 40 << 20 }

    /// What the node maps at start, in bytes: at least what it then has, by some MiB more.
    public var memoryByteCount: Int {
        let reactorByteCount = Self.reactorByteCount.addingSaturated(replicationMemoryByteCount)
        let reactors = bufferMemoryByteCount.addingSaturated(reactorCount * reactorByteCount)
        return stores.reduce(reactors) { sum, store in
            sum.addingSaturated(store.memoryByteCount)
        }
    }

    /// Creates a configuration.
    public init(stores: [StoreConfiguration], listeners: [ListenAddress]) {
        self.stores = stores
        self.listeners = listeners
    }
}

/// Why a node did not start.
public enum NodeError: Error, Sendable, Hashable {
    /// A number of the configuration is outside its limits.
    case configuration(String)
    /// The device cannot be opened.
    case device(path: String, DeviceError)
    /// Two paths hold the same store: one is a copy of the other.
    case sameStore(path: String, copyPath: String)
    /// What is on the device cannot be served.
    case store(path: String, StoreError)
    /// The address cannot be listened on.
    case listener(ListenAddress, SocketError)
    /// The engine does not start.
    case reactor(ReactorError)
    /// The system refused a thread.
    case thread(errno: Int32)
    /// The system refuses the memory that is needed at start.
    case memory(byteCount: Int)
    /// The TLS credentials cannot be used.
    case tls(TLSError)
    /// The credentials of links between nodes cannot be used.
    case peerTLS(TLSError)
}

/// What happened in a node, for its program's log; never one per request.
public enum NodeEvent: Sendable {
    /// A reactor runs, on which engine and why.
    case reactorStarted(index: Int, EngineReport)
    /// A store is open.
    case storeReady(path: String, milliseconds: UInt64)
    /// A store was opened without flushed writes that its log has lost, as it was told to.
    case lossAccepted(path: String, offset: UInt64)
    /// A store stopped; its volumes answer errors.
    case storeFailed(path: String, StoreError)
    /// A connection was refused because all are taken; at most one event per second.
    case connectionsRefused(count: UInt64)
    /// Accepting failed with this errno; it is tried again within a second.
    case acceptFailed(errno: Int32)
    /// A TLS handshake failed.
    case tlsFailed(TLSFailure)
    /// What works but should be put right.
    case tlsWarning(TLSWarning)
    /// A store has become this full, in percent: at a limit (``NodeLimits/scarceRoomPercent``), once.
    case roomScarce(path: String, usedPercent: Int)
    /// A store that was so full has room again.
    case roomAmple(path: String, usedPercent: Int)
    /// Requests were refused because a store is full; at most one event per minute.
    case writesRefused(path: String, count: UInt64)
    /// Requests ended with an error because blocks are damaged or cannot be read; at most one event
    /// per minute.
    ///
    /// The volume is that of the last one.
    case requestsFailed(path: String, volume: String?, count: UInt64)
    /// Writes wait: the file system that a store's file lies on is full, or a quota is used up.
    ///
    /// Told at once and then once a minute, with how long they have.
    case writesWait(path: String, seconds: UInt64)
    /// They go on, after so long.
    case writesGoOn(path: String, seconds: UInt64)
    /// The exports changed.
    case exportsChanged(count: Int)
    /// A served volume has come this far, or fallen back.
    case serviceChanged(volume: String, state: ServiceState)
    /// The stores of replicas on these nodes have no room for a served volume, and of no others;
    /// and writes are refused for that, or not.
    case serviceRoomChanged(volume: String, nodes: [String], refusesWrites: Bool)
    /// A served volume stopped, and would go on under another epoch.
    case serviceStopped(volume: String, reason: String)
    /// Another process has a volume that was served here.
    case serviceDeposed(volume: String)
    /// A replica ended because its store refused to go on.
    case replicaFailed(volume: VolumeID, path: String)
    /// Damaged blocks of a replica were written anew, from other replicas; at most one event per
    /// minute and replica.
    case blocksRepaired(volume: VolumeID, path: String, count: UInt64)
    /// TLS with another node failed; the same is told at most once a minute.
    ///
    /// `peer` is the node that was dialled, or the address that a connection came from.
    case peerTLSFailed(peer: String, isDialled: Bool, PeerTLSFailure)
    /// The other end of a replica's connection broke the protocol.
    case peerViolation(volume: VolumeID, reason: String)
}

/// Takes a node's events; called on its reactor threads, so it must not block.
public typealias NodeEventSink = @Sendable (NodeEvent) -> Void

extension Int {
    /// The sum with a count of bytes, at most more than anybody has.
    fileprivate func addingSaturated(_ byteCount: Int) -> Int {
        let limit = 1 << 62
        let more = byteCount < 0 ? 0 : byteCount
        return self >= limit - more ? limit : self + more
    }
}

extension NodeEvent {
    /// Whether it changes what the metadata service is told of served volumes.
    public var isAboutServices: Bool {
        switch self {
        case .serviceChanged, .serviceStopped, .serviceDeposed, .serviceRoomChanged: true
        default: false
        }
    }
}
