// One TLS connection over a fixed pair of buffers: ciphertext in, plaintext out, and back.
//
// Sans-I/O: the ring moves the ciphertext, this machine never sees a socket. Memory is bounded:
// 2 x `TLSLimits.ciphertextByteCount` for the pair, and OpenSSL's own record buffers (about 34 KiB),
// allocated when the session starts or with its first records. A peer that does not read, or sends
// without end, fills its buffer and then `receiveCiphertext` or `writePlaintext` takes nothing more.
//
// How a driver uses it, on any event:
//
//     receiveCiphertext(what the socket gave)     keep what was not consumed, offer it again
//     readPlaintext, until it is not `.bytes`     `.wantDrain`: takeCiphertext, then again
//     writePlaintext(replies)                     keep what was not accepted, offer it again
//     takeCiphertext, until 0                     send it; also after `.failed`: it holds the alert
//
// Bytes that a client sent after its STARTTLS option and before the reply belong to the handshake:
// give them to `receiveCiphertext`, never to the protocol (plaintext injection, CVE-2021-3416 class).
//
// Not verified here: timing side channels (OpenSSL's business), and the time that a handshake may
// take (the driver's timer).

public import BlockCore
internal import COpenSSL

/// What ``TLSSession/readPlaintext(into:)`` found.
@frozen
public enum TLSResult: Equatable, Sendable, BitwiseCopyable {
    /// So many bytes of plaintext are at the start of the region; there may be more.
    case bytes(Int)
    /// Nothing more until the peer sends more.
    case wantMore
    /// Nothing more until ciphertext is taken: the answer to a handshake message does not fit.
    case wantDrain
    /// The peer ended the stream properly (close_notify).
    case closed
    /// The session is dead: ``TLSSession/failure`` says why. Send what is left, then close.
    case failed
}

/// Where a session stands.
@frozen
public enum TLSState: Equatable, Sendable, BitwiseCopyable {
    /// The handshake is not finished; plaintext is neither given nor taken.
    case handshaking
    /// Plaintext flows.
    case established
    /// The peer ended its stream; replies may still be sent.
    case closed
    /// Nothing flows any more.
    case failed
}

/// Why a session died.
@frozen
public struct TLSFailure: Equatable, Sendable, BitwiseCopyable {
    /// OpenSSL's packed error; 0 when there was none.
    public var code: UInt
    /// X.509 verification's result; 0 when it succeeded or did not take place.
    public var verifyResult: Int
    /// Whether the transport ended in the middle: nothing wrong with the bytes that came.
    public var isTruncation: Bool
}

/// One TLS connection; belongs to one thread.
@safe
public final class TLSSession {
    // SAFETY: `session` owns the inner BIO; `network` is the outer one. Both are created in init
    // and freed in deinit only. The context outlives the session because the session keeps it.
    private let session: OpaquePointer
    private let network: OpaquePointer
    private let inner: OpaquePointer
    private let context: TLSContext
    private var isPeerClosed = false
    private var isShutDown = false
    private var claimedUser: String?

    /// Why the session died; nil while it lives.
    public private(set) var failure: TLSFailure?

    init(context: TLSContext, session: OpaquePointer, network: OpaquePointer, inner: OpaquePointer)
    {
        self.context = context
        unsafe self.session = session
        unsafe self.network = network
        unsafe self.inner = inner
        // SAFETY: the session calls back only from within this object's own calls.
        unsafe cbl_tls_session_set_owner(session, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        // SAFETY: freed once; the session frees its own half of the pair.
        unsafe SSL_free(session)
        unsafe BIO_free(network)
    }

    /// Where the session stands.
    public var state: TLSState {
        if failure != nil { return .failed }
        if isPeerClosed { return .closed }
        // SAFETY: the session lives until deinit.
        return unsafe SSL_is_init_finished(session) == 1 ? .established : .handshaking
    }

    // MARK: - Ciphertext

    /// Takes bytes that the socket gave.
    ///
    /// - Parameter region: Ciphertext, borrowed for the call.
    /// - Returns: How many bytes were consumed; fewer than offered when the buffer is full, until
    ///   ``readPlaintext(into:)`` makes room.
    public func receiveCiphertext(_ region: ByteRegion) -> Int {
        guard failure == nil, !region.isEmpty else { return region.byteCount }
        // SAFETY: the region is valid for the call; the count is clamped to it.
        let count = unsafe BIO_write(network, region.address, clamped(region.byteCount))
        return max(0, Int(count))
    }

    /// How many bytes ``receiveCiphertext(_:)`` would consume now.
    public var ciphertextRoom: Int {
        // SAFETY: the pair lives until deinit.
        unsafe cbl_bio_room(network)
    }

    /// Tells that the socket gave its last byte.
    ///
    /// A stream that ends without close_notify then fails with ``TLSFailure/isTruncation``.
    public func transportEnded() {
        // SAFETY: the pair lives until deinit.
        unsafe cbl_bio_end(network)
    }

    /// Moves ciphertext for the socket to the start of `region`.
    ///
    /// - Returns: How many bytes were moved; 0 when there is nothing to send.
    public func takeCiphertext(into region: ByteRegion) -> Int {
        guard !region.isEmpty else { return 0 }
        // SAFETY: the region is valid for the call; the count is clamped to it.
        let count = unsafe BIO_read(network, region.address, clamped(region.byteCount))
        return max(0, Int(count))
    }

    /// How many bytes wait to be taken.
    public var ciphertextPending: Int {
        // SAFETY: the pair lives until deinit.
        unsafe cbl_bio_pending(network)
    }

    // MARK: - Plaintext

    /// Advances the handshake, then moves received plaintext to the start of `region`.
    ///
    /// - Precondition: `region` is not empty.
    public func readPlaintext(into region: ByteRegion) -> TLSResult {
        if failure != nil { return .failed }
        if isPeerClosed { return .closed }
        ERR_clear_error()
        // SAFETY: the region is valid for the call; the count is clamped to it.
        let count = unsafe SSL_read(session, region.address, clamped(region.byteCount))
        guard count <= 0 else { return .bytes(Int(count)) }
        return unfinished(count)
    }

    /// Takes plaintext to be sent, as much as there is room for.
    ///
    /// - Returns: How many bytes were accepted: 0 during the handshake, when ciphertext has to be
    ///   taken first, and after a failure or a shutdown.
    public func writePlaintext(_ region: ByteRegion) -> Int {
        guard failure == nil, !isShutDown, state != .handshaking else { return 0 }
        var acceptedByteCount = 0
        while acceptedByteCount < region.byteCount {
            // A record goes into the pair whole or not at all: OpenSSL would otherwise hold its
            // rest and insist on the same bytes next time.
            // SAFETY: the pair lives until deinit.
            let room = unsafe cbl_bio_room(inner) - TLSSession.recordOverheadByteCountMax
            let left = region.byteCount - acceptedByteCount
            let chunkByteCount = min(left, TLSSession.recordPayloadByteCountMax, room)
            // A sliver costs a whole record: wait for more room unless it is all there is.
            guard chunkByteCount > 0, chunkByteCount == left || chunkByteCount >= 4096 else {
                break
            }
            let chunk = region.slice(acceptedByteCount, chunkByteCount)
            ERR_clear_error()
            // SAFETY: the chunk is valid for the call and shorter than Int32.max.
            let count = unsafe SSL_write(session, chunk.address, Int32(chunkByteCount))
            guard count > 0 else {
                _ = unfinished(count)
                break
            }
            acceptedByteCount += Int(count)
        }
        return acceptedByteCount
    }

    /// Ends our half of the stream (close_notify); take and send the ciphertext, then close.
    public func shutdown() {
        guard failure == nil, !isShutDown, state != .handshaking else { return }
        isShutDown = true
        ERR_clear_error()
        // SAFETY: the session lives until deinit. An alert that does not fit is not sent: the peer
        // that left its buffer full is not reading anyway.
        _ = unsafe SSL_shutdown(session)
    }

    // MARK: - For logs

    /// Who the peer is, proved by the handshake; nil when it proved nothing.
    ///
    /// The user of the pre-shared key, or the subject of the verified certificate.
    public var peerName: String? {
        // A name given during the handshake is a claim, not a proof.
        // SAFETY: the session lives until deinit; the strings are copied before they can go.
        guard unsafe SSL_is_init_finished(session) == 1 else { return nil }
        if let user = unsafe SSL_get_psk_identity(session) { return unsafe String(cString: user) }
        // TLS 1.3 does not keep the user; nothing but a key proves a session without certificates
        // here, because there is no resumption.
        if unsafe SSL_session_reused(session) == 1, let claimedUser { return claimedUser }
        guard let certificate = unsafe SSL_get0_peer_certificate(session),
            unsafe SSL_get_verify_result(session) == Int(X509_V_OK),
            context.verifiesPeer,
            let name = unsafe X509_get_subject_name(certificate),
            let text = unsafe X509_NAME_oneline(name, nil, 0)
        else { return nil }
        defer { unsafe CRYPTO_free(text, nil, 0) }
        return unsafe String(cString: text)
    }

    /// Version and cipher suite, for instance `TLSv1.3 TLS_AES_128_GCM_SHA256`.
    public var parameters: String {
        // SAFETY: the session lives until deinit; OpenSSL's names are static.
        guard let version = unsafe SSL_get_version(session),
            let cipher = unsafe SSL_get_current_cipher(session),
            let name = unsafe SSL_CIPHER_get_name(cipher)
        else { return "none" }
        return unsafe "\(String(cString: version)) \(String(cString: name))"
    }

    // MARK: - Private

    /// The session object behind an OpenSSL session, during one of its own calls.
    @unsafe
    static func of(_ session: OpaquePointer?) -> TLSSession? {
        // SAFETY: set in init; callbacks happen only within calls on the object itself.
        guard let session = unsafe session, let owner = unsafe cbl_tls_session_owner(session) else {
            return nil
        }
        return unsafe Unmanaged<TLSSession>.fromOpaque(owner).takeUnretainedValue()
    }

    /// Keeps the user that the peer claims to be; it counts only once the handshake has proved it.
    func noteClaimedUser(_ user: [UInt8]) {
        claimedUser = String(decoding: user, as: UTF8.self)
    }

    /// Record header, explicit nonce, tag, content type and padding, with room to spare.
    private static let recordOverheadByteCountMax = 128
    private static let recordPayloadByteCountMax = 16 << 10

    private func clamped(_ byteCount: Int) -> Int32 { Int32(min(byteCount, 1 << 30)) }

    /// What a call that moved nothing means.
    private func unfinished(_ count: Int32) -> TLSResult {
        // SAFETY: the session lives until deinit.
        switch unsafe SSL_get_error(session, count) {
        case SSL_ERROR_WANT_READ:
            return .wantMore
        case SSL_ERROR_WANT_WRITE:
            return .wantDrain
        case SSL_ERROR_ZERO_RETURN:
            isPeerClosed = true
            return .closed
        default:
            let code = ERR_peek_error()
            // SAFETY: as above.
            failure = unsafe TLSFailure(
                code: code,
                verifyResult: SSL_get_verify_result(session),
                isTruncation: code == 0 || TLSLibrary.isUnexpectedEnd(code)
            )
            ERR_clear_error()
            return .failed
        }
    }
}

extension TLSFailure {
    /// What the other side said when it ended the session, for people; nil when it ended here.
    ///
    /// OpenSSL counts alerts as errors from 1000 on.
    public var alert: String? {
        (1000..<1256).contains(ERR_GET_REASON(code)) ? TLSLibrary.reason(code) : nil
    }

    /// Whether the other side's certificate is good, and for another name.
    public var isOtherName: Bool { verifyResult == Int(X509_V_ERR_HOSTNAME_MISMATCH) }
}

extension TLSFailure: CustomStringConvertible {
    /// OpenSSL's reason, for logs.
    public var description: String {
        if isTruncation { return "the connection ended in the middle of the TLS stream" }
        let reason = TLSLibrary.reason(code)
        guard verifyResult != Int(X509_V_OK), verifyResult != Int(X509_V_ERR_UNSPECIFIED),
            // SAFETY: static strings.
            let text = unsafe X509_verify_cert_error_string(verifyResult)
        else { return reason }
        return unsafe "\(reason): \(String(cString: text))"
    }
}
