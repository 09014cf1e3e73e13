// What a frame can say.

public import BlockCore
public import Replication

/// A frame, decoded.
public enum PeerFrame: Sendable, Hashable {
    /// The first frame of a connection.
    case hello(PeerHello)
    /// The answer to it.
    case helloAnswer(PeerHelloAnswer)
    /// From a primary.
    case primary(PrimaryMessage)
    /// From a replica.
    case replica(ReplicaMessage)

    /// The first block behind all that it names; 0 when it names none.
    ///
    /// A frame that decodes names blocks of the largest volume: whoever knows how large the
    /// volume at hand is takes nothing beyond its end.
    public var endBlock: UInt64 {
        switch self {
        case .hello, .helloAnswer: 0
        case .primary(let message): message.body.endBlock
        case .replica(let message): message.body.endBlock
        }
    }
}

/// A primary's introduction to the node of a replica: the first frame of a connection.
public struct PeerHello: Sendable, Hashable, BitwiseCopyable {
    /// The volume.
    public var volume: VolumeID
    /// The replica that is to be spoken to.
    public var instance: ReplicaInstance
    /// The primary's process.
    public var process: PrimaryID
    /// Bytes of the volume.
    public var volumeByteCount: UInt64
    /// The highest version that the primary speaks; this connection is in the header's.
    public var version: UInt8

    /// Creates a hello.
    public init(
        volume: VolumeID,
        instance: ReplicaInstance,
        process: PrimaryID,
        volumeByteCount: UInt64,
        version: UInt8 = PeerWireVersion.current
    ) {
        self.volume = volume
        self.instance = instance
        self.process = process
        self.volumeByteCount = volumeByteCount
        self.version = version
    }
}

/// What a node says to a hello.
public struct PeerHelloAnswer: Sendable, Hashable, BitwiseCopyable {
    /// The volume of the hello; none when the hello could not be read.
    public var volume: VolumeID
    /// The replica of the hello.
    public var instance: ReplicaInstance
    /// The process of the hello.
    public var process: PrimaryID
    /// The highest version that the node speaks.
    public var version: UInt8
    /// Why not, or nil when the replica is at hand.
    public var refusal: PeerRefusal?

    /// Creates an answer to a hello.
    public init(to hello: PeerHello, refusal: PeerRefusal? = nil) {
        self.init(
            volume: hello.volume,
            instance: hello.instance,
            process: hello.process,
            refusal: refusal
        )
    }

    /// Creates an answer; one without a hello is of ``PeerRefusal/versionNotSpoken``.
    public init(
        volume: VolumeID,
        instance: ReplicaInstance,
        process: PrimaryID,
        version: UInt8 = PeerWireVersion.current,
        refusal: PeerRefusal?
    ) {
        self.volume = volume
        self.instance = instance
        self.process = process
        self.version = version
        self.refusal = refusal
    }
}

/// Why a node does not take a hello; the numbers are the wire's, and 0 is that it does.
public enum PeerRefusal: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// No volume of the node has this id.
    case unknownVolume = 1
    /// The node has the volume, and not this replica of it.
    case unknownInstance = 2
    /// The node speaks another version.
    case versionNotSpoken = 3
    /// The node has no room for the connection now, or is not ready: to be tried again.
    case busy = 4
}

extension PrimaryMessage.Body {
    /// The first block behind all that it names; 0 when it names none.
    ///
    /// - Precondition: what it names is within the largest volume, as everything decoded is.
    public var endBlock: UInt64 {
        switch self {
        case .write(_, let range, _), .read(_, let range, _), .weigh(_, let range):
            range.first + UInt64(range.count)
        case .scan(_, _, _, let block), .fetch(_, _, let block), .fill(_, let block, _, _),
            .repair(let block, _, _):
            block + 1
        case .seal, .open, .flush, .renew, .complete, .recall, .release, .snapshot, .keep: 0
        }
    }
}

extension ReplicaMessage.Body {
    /// The first block behind all that it names; 0 when it names none.
    ///
    /// - Precondition: what it names is within the largest volume, as everything decoded is.
    public var endBlock: UInt64 {
        switch self {
        // Where to go on lies behind all entries.
        case .scanned(_, let entries, let next): (next ?? entries.last?.block).map { $0 + 1 } ?? 0
        case .readFailed(_, let block): block + 1
        default: 0
        }
    }
}
