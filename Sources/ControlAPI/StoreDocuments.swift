// What a node tells of its stores: where their bytes are, how much room they have, what failed.

/// How much room a store has, as its node judges it.
public enum StoreRoom: String, Sendable, Hashable, Codable, CaseIterable, Comparable {
    /// Enough.
    case ample
    /// Little: operators are told.
    case scarce
    /// It has refused writes within the last minute.
    case refusing
    /// Writes wait: the file system that the store's file lies on has no space for it.
    case waiting

    /// Less room is greater.
    public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }

    private var rank: Int {
        switch self {
        case .ample: 0
        case .scarce: 1
        case .refusing: 2
        case .waiting: 3
        }
    }
}

/// Where a store's bytes are, or those of all stores of a node.
public struct StoreSpaceUsage: Sendable, Hashable, Codable {
    /// Bytes of the device used for data and maps.
    public var capacityByteCount: UInt64
    /// Bytes of live blocks and map pages.
    public var liveByteCount: UInt64
    /// Bytes that new data can take before writes fail.
    public var availableByteCount: UInt64
    /// Bytes dead but not yet cleaned.
    public var garbageByteCount: UInt64
    /// How much of the fullest store is used, in percent; absent from nodes that do not tell.
    public var fullestPercent: Int?
    /// The room in the store that has least, as the node judges it; absent likewise.
    public var room: StoreRoom?

    /// Creates an account.
    public init(
        capacityByteCount: UInt64,
        liveByteCount: UInt64,
        availableByteCount: UInt64,
        garbageByteCount: UInt64,
        fullestPercent: Int? = nil,
        room: StoreRoom? = nil
    ) {
        self.capacityByteCount = capacityByteCount
        self.liveByteCount = liveByteCount
        self.availableByteCount = availableByteCount
        self.garbageByteCount = garbageByteCount
        self.fullestPercent = fullestPercent
        self.room = room
    }

    /// The account of all stores of a node: bytes are added, of the rest the worst one counts, so
    /// that a full store is seen beside an empty one.
    public init(stores: [StoreSpaceUsage]) {
        self.init(
            capacityByteCount: stores.reduce(0) { $0 + $1.capacityByteCount },
            liveByteCount: stores.reduce(0) { $0 + $1.liveByteCount },
            availableByteCount: stores.reduce(0) { $0 + $1.availableByteCount },
            garbageByteCount: stores.reduce(0) { $0 + $1.garbageByteCount },
            fullestPercent: stores.map(\.usedPercent).max(),
            room: stores.compactMap(\.room).max()
        )
    }

    /// How much is used, in percent, cut; of the fullest store where the node tells of it.
    public var usedPercent: Int {
        if let fullestPercent { return min(max(fullestPercent, 0), 100) }
        guard capacityByteCount > 0 else { return 0 }
        guard liveByteCount < capacityByteCount else { return 100 }
        // Compared before it is converted, since others write these numbers; and cut to 99, since
        // the quotient of large ones may be rounded up to one.
        return min(Int(Double(liveByteCount) / Double(capacityByteCount) * 100), 99)
    }
}

/// What a store could not serve since its node was started, or the stores of a node.
public struct StoreFailures: Sendable, Hashable, Codable {
    /// Whether it has stopped, one of them at least: writes to its volumes fail, and so do new
    /// connections; those that are open can still read.
    public var stopped: Bool
    /// Requests that failed because blocks are damaged or cannot be read.
    public var requestCount: UInt64
    /// The volume of the last of those, while it exists.
    public var volume: String?

    /// Creates an account.
    public init(stopped: Bool = false, requestCount: UInt64 = 0, volume: String? = nil) {
        self.stopped = stopped
        self.requestCount = requestCount
        self.volume = volume
    }

    /// Leaves out what a service would refuse.
    fileprivate mutating func limit() {
        requestCount = min(requestCount, APILimits.failedRequestCountMax)
        volume = volume.flatMap { ValidName.check($0) ? $0 : nil }
    }

    /// The account of all stores of a node; the volume is that of the last store that tells of one.
    public init(stores: [NodeStore]) {
        let failures = stores.compactMap(\.failures)
        self.init(
            stopped: failures.contains(where: \.stopped),
            requestCount: failures.reduce(0) { $0 + $1.requestCount },
            volume: failures.compactMap(\.volume).last
        )
    }
}

/// One store of a node.
public struct NodeStore: Sendable, Hashable, Codable {
    /// Its file or device, as the node was started with; of a long one, its end.
    public var path: String
    /// Its identity, 32 hex digits; absent while it is not open.
    public var identity: String?
    /// Where its bytes are.
    public var space: StoreSpaceUsage
    /// What it could not serve; absent from nodes that do not tell.
    public var failures: StoreFailures?

    /// Creates a store's document.
    public init(
        path: String,
        identity: String?,
        space: StoreSpaceUsage,
        failures: StoreFailures? = nil
    ) {
        self.path = path
        self.identity = identity
        self.space = space
        self.failures = failures
    }

    /// What a node tells of its stores: the first ones, and of long paths the end, so that it stays
    /// within the limits of a request and is heard.
    public static func told(_ stores: [NodeStore]) -> [NodeStore] {
        stores.prefix(APILimits.nodeStoreCountMax).map { store in
            var store = store
            var path = Substring(store.path)
            while path.utf8.count > APILimits.endpointByteCountMax { path.removeFirst() }
            store.path = String(path)
            store.failures?.limit()
            return store
        }
    }
}
