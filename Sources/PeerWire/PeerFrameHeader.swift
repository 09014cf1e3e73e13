// The header in front of everything that a primary and a replica's node say to each other.
//
// Invariants:
//   what decodes encodes to the same bytes: no field has two spellings, and unused ones are zero
//   nothing is believed before its checksum matches, but the two counts that say how much to read,
//     and those have limits
//   no bytes make it trap; wrong arguments of our own do
//
// Not checked here: that blocks lie within the volume at hand (see ``PeerFrame/endBlock``), and
// that a message makes sense to the machine that it is for: that is the machine's to judge.
//
// Specification: Docs/replication.md, "On the wire".

public import BlockCore
public import Replication

/// Versions of the wire format.
public enum PeerWireVersion {
    /// The first one.
    public static var first: UInt8 { 1 }
    /// Replicas say what their stores have room for.
    public static var room: UInt8 { 2 }
    /// The one that is spoken.
    public static var current: UInt8 { room }
}

/// Limits of a frame; what is beyond one closes the connection.
public enum PeerLimits {
    /// Bytes of a header.
    public static var headerByteCount: Int { 64 }
    /// Bytes of a body (16 KiB): room for a scan's entries and a payload's checksums.
    public static var bodyByteCountMax: Int { 16 << 10 }
    /// Bytes of header and body together: what a sender's buffer for them has to hold.
    public static var frameByteCountMax: Int { headerByteCount + bodyByteCountMax }
    /// Blocks of a payload.
    public static var payloadBlockCountMax: Int { 64 }
    /// Bytes of a payload (256 KiB).
    public static var payloadByteCountMax: Int {
        payloadBlockCountMax * BlockGeometry.blockByteCount
    }
    /// Blocks of a leaf of the map: a write lies within one, so that it is one record of the log.
    public static var leafBlockCount: UInt64 { 256 }
    /// Entries of an answer to a scan; twice what a policy asks for unless told otherwise.
    public static var scanEntryCountMax: Int { 512 }
}

/// What a frame says; the numbers are the wire's.
public enum PeerFrameKind: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// ``PeerHello``
    case hello = 0x01
    /// ``PeerHelloAnswer``
    case helloAnswer = 0x02

    /// `PrimaryMessage.Body.seal`
    case seal = 0x10
    /// `PrimaryMessage.Body.open`
    case open = 0x11
    /// `PrimaryMessage.Body.write`
    case write = 0x12
    /// `PrimaryMessage.Body.flush`
    case flush = 0x13
    /// `PrimaryMessage.Body.renew`
    case renew = 0x14
    /// `PrimaryMessage.Body.complete`
    case complete = 0x15
    /// `PrimaryMessage.Body.recall`
    case recall = 0x16
    /// `PrimaryMessage.Body.read`
    case read = 0x17
    /// `PrimaryMessage.Body.scan`
    case scan = 0x18
    /// `PrimaryMessage.Body.fetch`
    case fetch = 0x19
    /// `PrimaryMessage.Body.fill`
    case fill = 0x1A
    /// `PrimaryMessage.Body.release`
    case release = 0x1B
    /// `PrimaryMessage.Body.repair`
    case repair = 0x1C
    /// `PrimaryMessage.Body.snapshot`
    case snapshot = 0x1D
    /// `PrimaryMessage.Body.keep`
    case keep = 0x1E
    /// `PrimaryMessage.Body.weigh`
    case weigh = 0x1F

    /// `ReplicaMessage.Body.sealed`
    case sealed = 0x20
    /// `ReplicaMessage.Body.refused`
    case refused = 0x21
    /// `ReplicaMessage.Body.opened`
    case opened = 0x22
    /// `ReplicaMessage.Body.progress`
    case progress = 0x23
    /// `ReplicaMessage.Body.granted`
    case granted = 0x24
    /// `ReplicaMessage.Body.completed`
    case completed = 0x25
    /// `ReplicaMessage.Body.readDone`
    case readDone = 0x26
    /// `ReplicaMessage.Body.readRefused`
    case readRefused = 0x27
    /// `ReplicaMessage.Body.scanned`
    case scanned = 0x28
    /// `ReplicaMessage.Body.fetched`
    case fetched = 0x29
    /// `ReplicaMessage.Body.filled`
    case filled = 0x2A
    /// `ReplicaMessage.Body.readFailed`
    case readFailed = 0x2B
    /// `ReplicaMessage.Body.fetchFailed`
    case fetchFailed = 0x2C
    /// `ReplicaMessage.Body.kept`
    case kept = 0x2D
    /// `ReplicaMessage.Body.viewMissing`
    case viewMissing = 0x2E
    /// `ReplicaMessage.Body.room`
    case room = 0x2F
    /// `ReplicaMessage.Body.fillRefused`
    case fillRefused = 0x30
    /// `ReplicaMessage.Body.weighed`
    case weighed = 0x31

    /// Whether it begins a connection, or answers that.
    public var isGreeting: Bool { rawValue < 0x10 }

    /// Blocks that may follow it.
    public var payloadBlockCountMax: Int {
        switch self {
        case .write, .readDone: PeerLimits.payloadBlockCountMax
        case .fill, .fetched, .repair: 1
        default: 0
        }
    }
}

/// The header of a frame.
///
/// Layout: 64 bytes, little-endian, no padding.
///
/// | offset | size | field            | unit                                            |
/// |--------|------|------------------|-------------------------------------------------|
/// | 0      | 4    | magic            | "CRNP"                                          |
/// | 4      | 1    | version          | ``PeerWireVersion``                             |
/// | 5      | 1    | kind             | ``PeerFrameKind``                               |
/// | 6      | 2    | reserved         | 0                                               |
/// | 8      | 4    | checksum         | CRC-32C of bytes 0–7 and 12–63, then the body   |
/// | 12     | 4    | bodyByteCount    | bytes behind the header                         |
/// | 16     | 4    | payloadByteCount | bytes behind the body, whole blocks             |
/// | 20     | 4    | reserved         | 0                                               |
/// | 24     | 8    | volume           | id                                              |
/// | 32     | 8    | instance         | of the replica spoken to, or speaking           |
/// | 40     | 8    | epoch            | the primary's; 0 in greetings                   |
/// | 48     | 8    | process          | the primary's, or the replica's incarnation     |
/// | 56     | 8    | reserved         | 0                                               |
public struct PeerFrameHeader: Sendable, Hashable, BitwiseCopyable {
    /// First four bytes, ASCII `CRNP`.
    public static var magic: UInt32 { 0x504E_5243 }

    /// What the frame says.
    public let kind: PeerFrameKind
    /// Bytes of the body, which follows the header.
    public let bodyByteCount: Int
    /// Bytes of the payload, which follows the body.
    public let payloadByteCount: Int
    /// The volume.
    public let volume: VolumeID
    /// The replica spoken to, or speaking.
    public let instance: ReplicaInstance
    /// The epoch under which it is said.
    public let epoch: Epoch
    /// The primary's process, or the replica's incarnation.
    public let process: UInt64

    /// The checksum as it stands there, and that of the header itself.
    let checksum: UInt32
    let headerChecksum: UInt32

    /// Blocks of the payload.
    public var payloadBlockCount: Int { payloadByteCount / BlockGeometry.blockByteCount }

    /// Bytes of the payload's checksums, which are the end of the body.
    var checksumsByteCount: Int { payloadBlockCount * MemoryLayout<UInt32>.size }

    /// Decodes the header at the start of `bytes`; what follows it is ignored.
    ///
    /// - Throws: ``PeerWireError``. Nothing is consumed, and nothing but the counts may be relied
    ///   on before ``PeerFrameReader/frame(_:body:payload:)`` has checked the whole.
    public static func decode(_ bytes: ByteRegion) throws(PeerWireError) -> PeerFrameHeader {
        guard bytes.byteCount >= PeerLimits.headerByteCount else {
            throw .needMoreBytes(missingByteCount: PeerLimits.headerByteCount - bytes.byteCount)
        }
        guard bytes.load(0, as: UInt32.self) == magic else { throw .badMagic }
        let version = bytes.load(4, as: UInt8.self)
        guard version == PeerWireVersion.current else { throw .versionNotSpoken(version) }
        let code = bytes.load(5, as: UInt8.self)
        guard let kind = PeerFrameKind(rawValue: code) else { throw .unknownKind(code) }
        guard bytes.load(6, as: UInt16.self) == 0, bytes.load(20, as: UInt32.self) == 0,
            bytes.load(56, as: UInt64.self) == 0
        else { throw .reservedNotZero }
        let header = PeerFrameHeader(kind, bytes)
        try header.check()
        return header
    }

    private init(_ kind: PeerFrameKind, _ bytes: ByteRegion) {
        self.kind = kind
        bodyByteCount = Int(bytes.load(12, as: UInt32.self))
        payloadByteCount = Int(bytes.load(16, as: UInt32.self))
        volume = VolumeID(bytes.load(24, as: UInt64.self))
        instance = ReplicaInstance(bytes.load(32, as: UInt64.self))
        epoch = Epoch(bytes.load(40, as: UInt64.self))
        process = bytes.load(48, as: UInt64.self)
        checksum = bytes.load(8, as: UInt32.self)
        headerChecksum = PeerFrameHeader.checksum(of: bytes)
    }

    private func check() throws(PeerWireError) {
        guard bodyByteCount <= PeerLimits.bodyByteCountMax else {
            throw .bodyTooLong(byteCount: bodyByteCount)
        }
        guard payloadByteCount % BlockGeometry.blockByteCount == 0 else {
            throw .payloadNotWhole(byteCount: payloadByteCount)
        }
        guard payloadBlockCount <= kind.payloadBlockCountMax else {
            throw .payloadTooLong(byteCount: payloadByteCount)
        }
        guard bodyByteCount >= checksumsByteCount else { throw .bodyTooShort }
        let isInRange = epoch.rawValue > 0 && epoch <= WriteNumber.epochMax
        guard kind.isGreeting ? epoch.rawValue == 0 : isInRange else { throw .badEpoch }
        // A refusal may not know of which volume it was asked.
        guard volume != .none || kind == .helloAnswer else { throw .badVolume }
    }

    /// The checksum of a header without the field that it stands in; the body's goes on from it.
    static func checksum(of bytes: ByteRegion) -> UInt32 {
        let start = bytes.slice(0, 8).crc32c()
        return bytes.slice(12, PeerLimits.headerByteCount - 12).crc32c(seed: start)
    }
}
