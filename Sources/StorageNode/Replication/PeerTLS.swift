// TLS on a link between nodes: what it is made with, what it holds, and how it fails.

internal import BlockCore
internal import COpenSSL
internal import Synchronization

/// The names in the certificates of nodes.
public enum NodeCertificate {
    /// What the DNS name of every node's certificate ends in, and no other's.
    public static var suffix: String { ".node.cairn" }

    /// The DNS name of a node's certificate.
    public static func name(of node: String) -> String { node + suffix }

    /// A name counts as a DNS name of its own only.
    static let checkFlags = UInt32(
        X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS
    )
}

/// The credentials of a node for its links, both ways; shared by all threads.
final class PeerCredentials: Sendable {
    /// One set of credentials, as its files were.
    private struct Contexts: Sendable {
        var accepting: TLSContext
        var dialling: TLSContext
    }

    private let contexts: Mutex<Contexts>

    /// Loads credentials.
    ///
    /// - Throws: ``TLSError``, which names the file.
    init(_ configuration: TLSConfiguration) throws(TLSError) {
        contexts = Mutex(try Self.load(configuration))
    }

    private static func load(_ configuration: TLSConfiguration) throws(TLSError) -> Contexts {
        let dialling = TLSRole.client(serverName: nil, presharedKeyUser: nil)
        return Contexts(
            accepting: try TLSContext(role: .server, configuration),
            dialling: try TLSContext(role: dialling, configuration)
        )
    }

    /// Takes the files as they are now, for the handshakes to come.
    ///
    /// - Throws: ``TLSError``; what was loaded before is kept.
    func reload(_ configuration: TLSConfiguration) throws(TLSError) {
        let loaded = try Self.load(configuration)
        contexts.withLock { $0 = loaded }
    }

    /// What should be put right about the credentials.
    var warnings: [TLSWarning] { contexts.withLock { $0.accepting.warnings } }

    /// Begins a session with whoever has connected; nil when memory runs out.
    func accept() -> TLSSession? {
        let context = contexts.withLock { $0.accepting }
        return try? context.makeSession(withNode: nil)
    }

    /// Begins a session with the node that is called `name`, and no other; nil when memory runs
    /// out.
    func dial(_ name: String) -> TLSSession? {
        let context = contexts.withLock { $0.dialling }
        return try? context.makeSession(withNode: name)
    }
}

/// The TLS side of one link; belongs to one reactor.
final class PeerTLS {
    /// Ciphertext that came and was not taken, and ciphertext on its way out, in bytes each: half of
    /// the largest frame, so that one takes two sends.
    static let bufferByteCount = 128 << 10
    /// Both.
    static let buffersByteCount = 2 * bufferByteCount

    let session: TLSSession
    private let incoming: ByteRegion
    private let outgoing: ByteRegion
    private var incomingStart = 0
    private var incomingEnd = 0
    /// Ciphertext is on its way out.
    var isSending = false
    /// The handshake is over.
    var isEstablished = false
    /// Input waits for ciphertext to go out.
    var isStalled = false
    private(set) var hasReceived = false
    /// The first bytes that came are a frame of a node without TLS.
    private(set) var isSpokenToInTheClear = false
    /// How far the batch under way has been encrypted.
    var regionIndex = 0
    var regionOffset = 0

    init(session: TLSSession, incoming: ByteRegion, outgoing: ByteRegion) {
        self.session = session
        self.incoming = incoming
        self.outgoing = outgoing
        isEstablished = session.state == .established
    }

    /// Whether nothing is held here of what came or goes: the session has all of it.
    var isEmpty: Bool {
        incomingStart == incomingEnd && !isSending && session.ciphertextPending == 0
    }

    /// Where ciphertext is received; empty while there is no room.
    func receiveTarget() -> ByteRegion {
        if incomingStart > 0 {
            let rest = incoming.slice(incomingStart, incomingEnd - incomingStart)
            incoming.copy(from: rest)
            incomingStart = 0
            incomingEnd = rest.byteCount
        }
        return incoming.suffix(from: incomingEnd)
    }

    /// Counts ciphertext as received.
    func didReceive(byteCount: Int) {
        incomingEnd += byteCount
        precondition(incomingEnd <= incoming.byteCount, "more received than there was room for")
        guard !hasReceived else { return }
        hasReceived = true
        isSpokenToInTheClear = PeerSpeech.isPlain(incoming.slice(0, incomingEnd))
    }

    /// Decrypts into `region`; what is consumed on the way makes room for more.
    func read(into region: ByteRegion) -> TLSResult {
        while true {
            let rest = incoming.slice(incomingStart, incomingEnd - incomingStart)
            let takenByteCount = session.receiveCiphertext(rest)
            incomingStart += takenByteCount
            if incomingStart == incomingEnd {
                incomingStart = 0
                incomingEnd = 0
            }
            let result = session.readPlaintext(into: region)
            guard result == .wantMore, takenByteCount > 0 else { return result }
        }
    }

    /// Encrypts regions until they end or there is no room; whether they have ended.
    func write(_ regions: Span<ByteRegion>) -> Bool {
        while regionIndex < regions.count {
            let rest = regions[regionIndex].suffix(from: regionOffset)
            let byteCount = session.writePlaintext(rest)
            guard byteCount > 0 else { return false }
            regionOffset += byteCount
            guard byteCount == rest.byteCount else { continue }
            regionIndex += 1
            regionOffset = 0
        }
        regionIndex = 0
        return true
    }

    /// Moves ciphertext that is to be sent behind `byteCount` bytes of it; 0 when there is none, or
    /// no room.
    func gather(behind byteCount: Int) -> Int {
        session.takeCiphertext(into: outgoing.suffix(from: byteCount))
    }

    /// The first bytes gathered.
    func gathered(byteCount: Int) -> ByteRegion { outgoing.slice(0, byteCount) }
}

/// What the first bytes of a connection say of who speaks.
enum PeerSpeech {
    /// What a node with TLS answers to a frame: the alert `protocol_version`.
    ///
    /// Spec: RFC 8446, sections 5.1 and 6.
    static let alert: [UInt8] = [0x15, 3, 3, 0, 2, 2, 70]

    /// Whether they are of a frame in the clear.
    static func isPlain(_ bytes: ByteRegion) -> Bool {
        bytes.byteCount >= 4 && bytes.load(0, as: UInt32.self) == 0x504E_5243
    }

    /// Whether they are of a TLS record: a handshake message or an alert.
    ///
    /// Spec: RFC 8446, section 5.1.
    static func isTLS(_ bytes: ByteRegion) -> Bool {
        guard bytes.byteCount >= 2 else { return false }
        return (0x15...0x16).contains(bytes.load(0, as: UInt8.self))
            && bytes.load(1, as: UInt8.self) == 3
    }
}

/// Why TLS between two nodes failed.
public enum PeerTLSFailure: Sendable, Hashable {
    /// The other side sends frames in the clear.
    case isPlain
    /// The other side wants TLS, and this node has no credentials.
    case isRequired
    /// The other side is at an address of a network, and this node has no credentials.
    case wouldBePlain
    /// The certificate that it showed is another node's.
    case isAnother(expected: String)
    /// The certificate that it showed is not a node's.
    case isNoNode
    /// It refuses the certificate that this node showed, or something else of it.
    case refused(reason: String)
    /// A check failed here.
    case failed(reason: String)
    /// It ended the connection instead of answering.
    case ended
    /// It did not finish its greeting in time.
    case isLate
}

extension PeerTLSFailure: CustomStringConvertible {
    /// What is wrong, in a line.
    public var description: String {
        switch self {
        case .isPlain: "it speaks without TLS"
        case .isRequired: "it speaks TLS, and this node has no credentials"
        case .wouldBePlain: "it is at an address of a network, and this node has no credentials"
        case .isAnother(let expected): "its certificate is not for \(expected)"
        case .isNoNode:
            "its certificate is not a node's: no DNS name in it ends in \(NodeCertificate.suffix)"
        case .refused(let reason): "it refuses this node: \(reason)"
        case .failed(let reason): reason
        case .ended: "it ended the connection in the handshake: does it speak TLS?"
        case .isLate: "it did not finish its greeting in time"
        }
    }
}

/// What was told of failed handshakes, so that the same is not told again and again.
///
/// Primaries try for ever, and whoever reaches the port may try as often as he likes.
struct PeerFailureWatch {
    private struct Key: Hashable {
        var other: String
        var failure: PeerTLSFailure
    }

    /// Between two lines with the same words.
    static let pauseNanoseconds: UInt64 = 60_000_000_000
    /// Different lines in such a time.
    static let lineCountMax = 64

    private var toldAt: [Key: Instant] = [:]

    /// Whether a failure is to be told now; it counts as told then.
    mutating func shallTell(_ failure: PeerTLSFailure, of other: String, now: Instant) -> Bool {
        let key = Key(other: other, failure: failure)
        if let last = toldAt[key], now < last.advanced(byNanoseconds: Self.pauseNanoseconds) {
            return false
        }
        if toldAt.count >= Self.lineCountMax {
            toldAt = toldAt.filter { now < $0.value.advanced(byNanoseconds: Self.pauseNanoseconds) }
        }
        guard toldAt.count < Self.lineCountMax else { return false }
        toldAt[key] = now
        return true
    }
}
