// What reactors tell each other.

internal import BlockCore
internal import LogStore
internal import PeerWire
internal import Reactor
internal import Replication

/// A message from one reactor of a node to another.
///
/// A request travels with its buffer: from `request` to `completion` the store's reactor owns
/// the memory, before and after the connection's.
struct HopMessage: BitwiseCopyable, Sendable {
    enum Kind: UInt8, BitwiseCopyable {
        /// A new connection, `descriptor`.
        case adopt
        /// A connection wants to open `key`.
        case attach
        /// The answer: `handle`, when `isOpened`.
        case attached
        /// A connection is done with `key`.
        case detach
        /// A request for the store of `key`.
        case request
        /// Its end.
        case completion
        /// A replica's connection, `descriptor`, which began with `hello`.
        case adoptPeer
    }

    var kind: Kind
    /// The sender's index.
    var worker: Int32
    /// The connection, as a ``Token`` of its place and generation.
    var connection: UInt64 = 0
    var descriptor: Int32 = -1
    var key = ExportKey(storeIndex: -1, volume: .none)
    var handle = VolumeHandle(0)
    var isOpened = false
    var request = StoreRequest(
        kind: .flush,
        volume: VolumeHandle(0),
        offset: 0,
        byteCount: 0,
        token: 0
    )
    var completion = StoreCompletion(token: 0, status: .ok)
    var hello = PeerHello(
        volume: .none,
        instance: ReplicaInstance(0),
        process: PrimaryID(0),
        volumeByteCount: 0
    )
    /// The connection's TLS, as ``TLSSession/passed()`` gave it; 0 for none.
    var session: UInt = 0
    /// Reactors that do not have the replica.
    var triedCount: Int32 = 0

    init(_ kind: Kind, worker: Int32) {
        self.kind = kind
        self.worker = worker
    }
}

/// Requests of other reactors at a store of this one.
///
/// Sized for everything that the others can have in work, so it is never full; what was never in
/// use has touched no memory.
final class RemoteTable {
    struct Entry: BitwiseCopyable {
        var worker: Int32 = -1
        var token: UInt64 = 0
        var region = ByteRegion.empty
        var next: Int32 = -1
    }

    private let entries: SparseTable<Entry>
    private let freeHead: FixedArray<Int32>

    init(count: Int) {
        entries = SparseTable(capacity: count)
        freeHead = FixedArray(repeating: -1, count: 1)
    }

    func take(worker: Int32, token: UInt64, region: ByteRegion) -> Int32 {
        let entry = Entry(worker: worker, token: token, region: region)
        let index = freeHead[0]
        guard index >= 0 else { return Int32(entries.append(entry)) }
        freeHead[0] = entries[Int(index)].next
        entries[Int(index)] = entry
        return index
    }

    func release(_ index: Int32) -> Entry {
        let entry = entries[Int(index)]
        precondition(entry.worker >= 0, "a remote request that ended twice")
        entries[Int(index)] = Entry(next: freeHead[0])
        freeHead[0] = index
        return entry
    }
}
