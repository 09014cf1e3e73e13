// Reads credentials from files into an OpenSSL context, with an error that names the file.

internal import COpenSSL
internal import Glibc

/// One attempt to make a context; lives for the length of `TLSContext.init`.
@safe
struct TLSLoader: ~Copyable {
    // SAFETY: owned until `takeContext`; freed by deinit otherwise.
    private var context: OpaquePointer?
    private let role: TLSRole
    private let configuration: TLSConfiguration

    private(set) var keys: TLSPresharedKeys?
    private(set) var warnings: [TLSWarning] = []

    init(role: TLSRole, _ configuration: TLSConfiguration) throws(TLSError) {
        guard configuration.credentialsDirectory != nil || configuration.presharedKeysPath != nil
        else { throw .noCredentials }
        ERR_clear_error()
        // SAFETY: methods are static; the context has no other owner yet.
        let method =
            role == .server ? unsafe TLS_server_method() : unsafe TLS_client_method()
        guard let context = unsafe SSL_CTX_new(method) else { throw TLSLibrary.failure() }
        unsafe self.context = context
        self.role = role
        self.configuration = configuration
    }

    // SAFETY: OpenSSL takes nil for a context that was given up.
    deinit { unsafe SSL_CTX_free(context) }

    /// Gives the context up to the caller.
    mutating func takeContext() -> OpaquePointer {
        // SAFETY: the caller becomes the only owner.
        guard let taken = unsafe context else { preconditionFailure("the context was taken") }
        unsafe context = nil
        return unsafe taken
    }

    private var open: OpaquePointer {
        // SAFETY: borrowed by calls of this object only, which owns it.
        guard let context = unsafe context else { preconditionFailure("the context was taken") }
        return unsafe context
    }

    // MARK: - Steps

    mutating func load() throws(TLSError) {
        try setPolicy()
        if let directory = configuration.credentialsDirectory { try loadCertificates(directory) }
        if let path = configuration.presharedKeysPath { try loadPresharedKeys(path) }
    }

    private func setPolicy() throws(TLSError) {
        // SAFETY: the context is ours and nobody else's yet; OpenSSL copies every argument.
        unsafe cbl_tls_context_harden(open)
        unsafe cbl_tls_context_set_write_modes(open)
        if configuration.isForNodes { unsafe cbl_tls_context_set_version_min(open, TLS1_3_VERSION) }
        unsafe cbl_tls_context_set_certificate_bytes_max(
            open,
            configuration.limits.certificateByteCountMax
        )
        // OpenSSL wants a server to name its sessions when it verifies peers, even where none is
        // resumed: a pre-shared key is a resumption to it. A client must not name them.
        if role == .server, unsafe SSL_CTX_set_session_id_context(open, "cairn", 5) != 1 {
            throw TLSLibrary.failure()
        }
        // A key behind a passphrase must fail, not ask the terminal.
        unsafe SSL_CTX_set_default_passwd_cb(open) { _, _, _, _ in -1 }
        guard unsafe SSL_CTX_set_cipher_list(open, TLSLoader.suites12) == 1,
            unsafe SSL_CTX_set_ciphersuites(open, TLSLoader.suites13) == 1
        else { throw TLSLibrary.failure() }
    }

    /// TLS 1.2, all with forward secrecy and authenticated encryption.
    private static let suites12 = [
        "ECDHE+AESGCM", "ECDHE+CHACHA20", "DHE+AESGCM",
        "DHE-PSK-AES128-GCM-SHA256", "DHE-PSK-AES256-GCM-SHA384",
        "ECDHE-PSK-CHACHA20-POLY1305", "DHE-PSK-CHACHA20-POLY1305",
    ].joined(separator: ":")

    /// The suites of TLS 1.3; SHA-256 leads, because external keys are bound to that hash.
    private static let suites13 =
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

    // MARK: - X.509

    private mutating func loadCertificates(_ directory: String) throws(TLSError) {
        let prefix = configuration.isForNodes ? "node" : role == .server ? "server" : "client"
        let certificatePath = "\(directory)/\(prefix)-cert.pem"
        let keyPath = "\(directory)/\(prefix)-key.pem"
        if role == .server || configuration.isForNodes || TLSFile.exists(certificatePath) {
            try loadIdentity(certificatePath, keyPath)
        }
        guard configuration.verifyPeer || configuration.isForNodes else { return }
        let authorityPath = "\(directory)/ca-cert.pem"
        try loadAuthority(authorityPath)
        let revocationPath = "\(directory)/ca-crl.pem"
        if TLSFile.exists(revocationPath) { try loadRevocations(revocationPath) }
    }

    private mutating func loadIdentity(
        _ certificatePath: String,
        _ keyPath: String
    ) throws(TLSError) {
        _ = try TLSFile.checkReadable(certificatePath)
        // SAFETY: the context is ours; paths live for the calls.
        guard unsafe SSL_CTX_use_certificate_chain_file(open, certificatePath) == 1 else {
            throw .fileMalformed(path: certificatePath, reason: TLSLibrary.takeReason())
        }
        let certificate = unsafe SSL_CTX_get0_certificate(open)
        try unsafe checkDates(of: certificate, path: certificatePath)
        if let node = configuration.nodeName {
            let name = NodeCertificate.name(of: node)
            let flags = NodeCertificate.checkFlags
            guard unsafe X509_check_host(certificate, name, 0, flags, nil) == 1 else {
                throw .certificateNotFor(path: certificatePath, name: name)
            }
        }
        if try TLSFile.checkReadable(keyPath).isReadableByOthers {
            warnings.append(.secretReadableByOthers(path: keyPath))
        }
        guard unsafe SSL_CTX_use_PrivateKey_file(open, keyPath, SSL_FILETYPE_PEM) == 1 else {
            let code = ERR_peek_error()
            let reason = TLSLibrary.takeReason()
            guard ERR_GET_REASON(code) != X509_R_KEY_VALUES_MISMATCH,
                ERR_GET_REASON(code) != X509_R_KEY_TYPE_MISMATCH
            else { throw .keyMismatch(certificatePath: certificatePath, keyPath: keyPath) }
            throw .fileMalformed(path: keyPath, reason: reason)
        }
        guard unsafe SSL_CTX_check_private_key(open) == 1 else {
            throw .keyMismatch(certificatePath: certificatePath, keyPath: keyPath)
        }
    }

    private mutating func loadAuthority(_ path: String) throws(TLSError) {
        _ = try TLSFile.checkReadable(path)
        // SAFETY: the context is ours; the store's objects live as long as it does, and this object
        // is the only one to change it.
        guard unsafe SSL_CTX_load_verify_file(open, path) == 1,
            let names = unsafe SSL_load_client_CA_file(path)
        else { throw .fileMalformed(path: path, reason: TLSLibrary.takeReason()) }
        // The context owns the names from here on. They tell clients which certificate to show.
        unsafe SSL_CTX_set_client_CA_list(open, names)
        if let store = unsafe SSL_CTX_get_cert_store(open),
            let objects = unsafe X509_STORE_get0_objects(store),
            let first = unsafe OPENSSL_sk_value(objects, 0),
            let authority = unsafe X509_OBJECT_get0_X509(OpaquePointer(first))
        {
            try unsafe checkDates(of: authority, path: path)
        }
        unsafe SSL_CTX_set_verify(
            open,
            SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
            nil
        )
    }

    private func loadRevocations(_ path: String) throws(TLSError) {
        _ = try TLSFile.checkReadable(path)
        // SAFETY: the context is ours; the path lives for the call.
        guard unsafe SSL_CTX_load_verify_file(open, path) == 1 else {
            throw .fileMalformed(path: path, reason: TLSLibrary.takeReason())
        }
        unsafe cbl_tls_context_check_revocation(open)
    }

    private mutating func checkDates(
        of certificate: OpaquePointer?,
        path: String
    ) throws(TLSError) {
        // SAFETY: the context holds the certificate; the dates are parts of it.
        guard let certificate = unsafe certificate,
            let notBefore = unsafe X509_get0_notBefore(certificate),
            let notAfter = unsafe X509_get0_notAfter(certificate)
        else { throw .fileMalformed(path: path, reason: "no certificate with dates") }
        guard unsafe cbl_x509_compare_with_now(notAfter) > 0 else {
            throw .certificateExpired(path: path, notAfter: unsafe text(of: notAfter))
        }
        guard unsafe cbl_x509_compare_with_now(notBefore) < 0 else {
            throw .certificateNotYetValid(path: path, notBefore: unsafe text(of: notBefore))
        }
        var soon = time(nil) + TLSContext.expiryWarningSeconds
        if unsafe X509_cmp_time(notAfter, &soon) < 0 {
            warnings.append(
                .certificateExpiresSoon(path: path, notAfter: unsafe text(of: notAfter))
            )
        }
    }

    /// A date as OpenSSL prints it, for instance `Nov 21 10:27:00 2026 GMT`.
    private func text(of date: UnsafePointer<ASN1_TIME>) -> String {
        // SAFETY: the sink is freed on every path; the date lives for the call; the count is the
        // array's.
        guard let sink = unsafe BIO_new(BIO_s_mem()) else { return "an unprintable date" }
        defer { unsafe BIO_free(sink) }
        unsafe ASN1_TIME_print(sink, date)
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = unsafe BIO_read(sink, &bytes, 64)
        return String(decoding: bytes.prefix(max(0, Int(count))), as: UTF8.self)
    }

    // MARK: - Pre-shared keys

    private mutating func loadPresharedKeys(_ path: String) throws(TLSError) {
        if try TLSFile.checkReadable(path).isReadableByOthers {
            warnings.append(.secretReadableByOthers(path: path))
        }
        let keys = try TLSPresharedKeys(path: path, role: role)
        self.keys = keys
        // SAFETY: TLSContext keeps the keys for as long as any session can call back.
        unsafe cbl_tls_context_set_owner(open, Unmanaged.passUnretained(keys).toOpaque())
        switch role {
        case .server:
            if configuration.credentialsDirectory != nil && !configuration.verifyPeer {
                warnings.append(.keysWithoutVerification)
            }
            unsafe SSL_CTX_set_psk_server_callback(open) { session, user, key, byteCountMax in
                unsafe TLSPresharedKeys.answer(session, user, key, byteCountMax)
            }
        case .client:
            unsafe SSL_CTX_set_psk_client_callback(open) {
                session,
                _,
                user,
                userByteCountMax,
                key,
                keyByteCountMax in
                unsafe TLSPresharedKeys.offer(session, user, userByteCountMax, key, keyByteCountMax)
            }
        }
    }
}

/// What a file is, before OpenSSL looks into it.
struct TLSFile {
    /// Whether others than the owner and its group may read it.
    var isReadableByOthers: Bool

    // SAFETY: the path lives for the call.
    static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    /// Opens the file to see that it can be read.
    static func checkReadable(_ path: String) throws(TLSError) -> TLSFile {
        // SAFETY: the path lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            let code = errno
            throw code == ENOENT
                ? .fileMissing(path: path) : .fileUnreadable(path: path, errno: code)
        }
        defer { close(descriptor) }
        var status = stat()
        // SAFETY: the structure lives for the call.
        guard unsafe fstat(descriptor, &status) == 0 else {
            throw .fileUnreadable(path: path, errno: errno)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .fileMalformed(path: path, reason: "not a regular file")
        }
        return TLSFile(isReadableByOthers: status.st_mode & 0o007 != 0)
    }

    /// The file's bytes, at most `byteCountMax` of them.
    static func read(_ path: String, byteCountMax: Int) throws(TLSError) -> [UInt8] {
        // SAFETY: the path lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .fileUnreadable(path: path, errno: errno) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            // SAFETY: the count is the array's.
            let count = unsafe Glibc.read(descriptor, &chunk, chunk.count)
            guard count >= 0 else {
                guard errno == EINTR else { throw .fileUnreadable(path: path, errno: errno) }
                continue
            }
            guard count > 0 else { return bytes }
            bytes.append(contentsOf: chunk[..<count])
            guard bytes.count <= byteCountMax else {
                throw .fileMalformed(path: path, reason: "more than \(byteCountMax) bytes")
            }
        }
    }
}
