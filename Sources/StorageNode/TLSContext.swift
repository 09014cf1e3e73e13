// The credentials of one side, loaded and checked once; sessions are made from it.
//
// TLS 1.2 and 1.3. Every suite has forward secrecy and an authenticated cipher. No resumption, no
// tickets, no renegotiation, no compression, no early data: a block server's connections live for
// days, so a handshake costs nothing and every one of these has had its attack.
//
// Spec: NBD proto.md, "TLS support"; RFC 8446; RFC 5246; RFC 4279 and 5489 (pre-shared keys).

internal import BlockCore
internal import COpenSSL

/// The credentials of one side of TLS; shared by all threads.
@safe
public final class TLSContext: @unchecked Sendable {
    // SAFETY (Sendable): everything is set in init; OpenSSL counts references atomically and
    // documents SSL_new on a shared, unchanging context as safe.
    private let context: OpaquePointer
    private let keys: TLSPresharedKeys?
    private let role: TLSRole
    private let limits: TLSLimits

    /// Whether the other side must prove itself with a certificate (or a pre-shared key).
    public let verifiesPeer: Bool

    /// What should be put right about the credentials.
    public let warnings: [TLSWarning]

    /// A certificate that expires this soon is warned about: 14 days.
    public static var expiryWarningSeconds: Int { 14 * 86_400 }

    /// Loads and checks credentials.
    ///
    /// - Parameters:
    ///   - role: The side that sessions will take.
    ///   - configuration: Where credentials are, and limits.
    /// - Throws: ``TLSError``, naming the file and OpenSSL's reason.
    public init(role: TLSRole, _ configuration: TLSConfiguration) throws(TLSError) {
        var loader = try TLSLoader(role: role, configuration)
        try loader.load()
        // SAFETY: the loader gives its reference up.
        unsafe context = loader.takeContext()
        keys = loader.keys
        warnings = loader.warnings
        verifiesPeer = configuration.verifyPeer || configuration.isForNodes
        limits = configuration.limits
        self.role = role
    }

    // SAFETY: the only reference that the class holds; sessions hold their own.
    deinit { unsafe SSL_CTX_free(context) }

    /// Starts a session; for a client, its first message is ready after the first
    /// ``TLSSession/readPlaintext(into:)``.
    ///
    /// - Throws: ``TLSError/library(reason:)`` when memory runs out.
    public func makeSession() throws(TLSError) -> TLSSession { try makeSession(expecting: nil) }

    /// Starts a session with another node of the cluster.
    ///
    /// - Parameter node: The node's name; nil for any node. The handshake fails when the other side's
    ///   certificate has no such DNS name.
    /// - Returns: The session.
    /// - Throws: ``TLSError/library(reason:)`` when memory runs out.
    public func makeSession(withNode node: String?) throws(TLSError) -> TLSSession {
        // A name that begins with a dot stands for all that end in it.
        let name = node.map { NodeCertificate.name(of: $0) } ?? NodeCertificate.suffix
        return try makeSession(expecting: name)
    }

    private func makeSession(expecting name: String?) throws(TLSError) -> TLSSession {
        ERR_clear_error()
        // SAFETY: each object is freed on the path that does not hand it on.
        guard let session = unsafe SSL_new(context) else { throw TLSLibrary.failure() }
        if let name {
            unsafe SSL_set_hostflags(session, NodeCertificate.checkFlags)
            guard unsafe SSL_set1_host(session, name) == 1 else {
                unsafe SSL_free(session)
                throw TLSLibrary.failure()
            }
        }
        var inner: OpaquePointer?
        var network: OpaquePointer?
        let byteCount = max(limits.ciphertextByteCount, TLSLimits.recordByteCountMax)
        _ = unsafe BIO_new_bio_pair(&inner, byteCount, &network, byteCount)
        guard let inner = unsafe inner, let network = unsafe network else {
            unsafe SSL_free(session)
            throw TLSLibrary.failure()
        }
        // The session owns `inner` from here on, once for both directions.
        unsafe SSL_set_bio(session, inner, inner)
        switch role {
        case .server:
            unsafe SSL_set_accept_state(session)
        case .client(let serverName, _):
            unsafe SSL_set_connect_state(session)
            if let serverName {
                unsafe cbl_tls_session_set_server_name(session, serverName)
                _ = unsafe SSL_set1_host(session, serverName)
            }
        }
        return unsafe TLSSession(
            context: self,
            session: session,
            network: network,
            inner: inner
        )
    }
}

// MARK: - OpenSSL's errors

/// OpenSSL's thread-local error queue, as text.
enum TLSLibrary {
    /// The oldest queued error as an error of ours; empties the queue.
    static func failure() -> TLSError { .library(reason: takeReason()) }

    /// The oldest queued error's reason; empties the queue.
    static func takeReason() -> String {
        let code = ERR_get_error()
        ERR_clear_error()
        return reason(code)
    }

    /// OpenSSL's words for a packed error.
    static func reason(_ code: UInt) -> String {
        guard code != 0 else { return "no reason given" }
        // SAFETY: a static string, or nil for codes that are errno values.
        if let text = unsafe ERR_reason_error_string(code) { return unsafe String(cString: text) }
        return "error \(code)"
    }

    /// Whether the error says that the transport ended without close_notify.
    static func isUnexpectedEnd(_ code: UInt) -> Bool {
        ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING
    }
}
