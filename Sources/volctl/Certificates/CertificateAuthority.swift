// X.509 for the links between nodes: an authority of the cluster's own, and certificates of it.
//
// Keys are of P-256: what every TLS library has, and quick. Certificates have what
// Docs/replication.md, "Between nodes: TLS", wants of them and nothing else.
//
// Spec: RFC 5280, sections 4.1 and 4.2.

import COpenSSL

/// A certificate with its private key.
@safe
package final class CertifiedKey {
    // SAFETY: both are owned by this object, freed in `deinit`, never handed out.
    private let certificate: OpaquePointer
    private let key: OpaquePointer

    /// What a certificate is for.
    private struct Purpose {
        var commonName: String
        var days: Int32
        /// Numbers of extensions and their values, as `openssl.cnf` has them.
        var extensions: [(Int32, String)]
    }

    /// How long an authority is good for, in days: ten years.
    package static var authorityDays: Int32 { 3650 }
    /// How long a node's certificate is good for unless somebody says otherwise, in days: a year
    /// and a month, as authorities of the Web hold it.
    package static var nodeDays: Int { 397 }
    /// The longest that one may be good for, in days.
    package static var nodeDaysMax: Int { 3650 }
    /// Seconds that certificates are good for before they are made: clocks differ.
    private static var clockSecondsMax: Int { 3600 }
    /// The most bytes of a common name.
    ///
    /// Spec: RFC 5280, appendix A.1, ub-common-name.
    private static var commonNameByteCountMax: Int { 64 }

    /// Makes a new authority, which signs itself.
    package static func newAuthority() throws(CommandFailure) -> CertifiedKey {
        let purpose = Purpose(
            commonName: "Cairn cluster authority",
            days: authorityDays,
            extensions: [
                (NID_basic_constraints, "critical,CA:TRUE"),
                (NID_key_usage, "critical,keyCertSign,cRLSign"),
                (NID_subject_key_identifier, "hash"),
            ]
        )
        return try CertifiedKey(purpose, signedBy: nil)
    }

    /// Makes a key and a certificate for the node called `name`, signed by this authority.
    package func newNode(_ name: String, days: Int) throws(CommandFailure) -> CertifiedKey {
        let purpose = Purpose(
            commonName: name,
            days: Int32(clamping: days),
            extensions: [
                (NID_basic_constraints, "critical,CA:FALSE"),
                (NID_key_usage, "critical,digitalSignature"),
                (NID_ext_key_usage, "serverAuth,clientAuth"),
                (NID_subject_key_identifier, "hash"),
                (NID_authority_key_identifier, "keyid"),
                (NID_subject_alt_name, "DNS:\(name).node.cairn"),
            ]
        )
        return try CertifiedKey(purpose, signedBy: self)
    }

    private init(_ purpose: Purpose, signedBy issuer: CertifiedKey?) throws(CommandFailure) {
        // SAFETY: what was made is owned from here on, or freed where the rest fails.
        guard let certificate = unsafe X509_new() else { throw Self.failure() }
        guard let key = unsafe Self.newKey() else {
            unsafe X509_free(certificate)
            throw Self.failure()
        }
        unsafe self.certificate = certificate
        unsafe self.key = key
        guard fill(purpose, issuer), sign(by: issuer) else { throw Self.failure() }
    }

    /// Takes what was read.
    private init(_ certificate: OpaquePointer, _ key: OpaquePointer) {
        unsafe self.certificate = certificate
        unsafe self.key = key
    }

    deinit {
        // SAFETY: freed once.
        unsafe X509_free(certificate)
        unsafe EVP_PKEY_free(key)
    }

    // MARK: - Making

    private static func newKey() -> OpaquePointer? {
        // SAFETY: the context is freed on every path; the key is the caller's.
        guard let context = unsafe EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { return nil }
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard unsafe EVP_PKEY_keygen_init(context) == 1,
            unsafe EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            unsafe EVP_PKEY_generate(context, &key) == 1
        else { return nil }
        return unsafe key
    }

    private func fill(_ purpose: Purpose, _ issuer: CertifiedKey?) -> Bool {
        let commonName = Array(purpose.commonName.utf8.prefix(Self.commonNameByteCountMax))
        // SAFETY: the certificates live for the calls, which copy what they are given; the count
        // is the array's.
        guard unsafe X509_set_version(certificate, 2) == 1, setSerialNumber(),
            unsafe X509_gmtime_adj(X509_getm_notBefore(certificate), -Self.clockSecondsMax) != nil,
            unsafe X509_time_adj_ex(X509_getm_notAfter(certificate), purpose.days, 0, nil) != nil,
            unsafe X509_set_pubkey(certificate, key) == 1,
            let subject = unsafe X509_get_subject_name(certificate),
            unsafe X509_NAME_add_entry_by_txt(
                subject,
                "CN",
                MBSTRING_ASC,
                commonName,
                Int32(commonName.count),
                -1,
                0
            ) == 1,
            let issuerName = unsafe X509_get_subject_name(issuer?.certificate ?? certificate),
            unsafe X509_set_issuer_name(certificate, issuerName) == 1
        else { return false }
        return purpose.extensions.allSatisfy { add($0.0, $0.1, issuer) }
    }

    /// Sets 127 random bits, so that no two certificates of an authority are taken for one.
    private func setSerialNumber() -> Bool {
        // SAFETY: the number is freed on every path; the certificate lives for the calls.
        guard let number = unsafe BN_new() else { return false }
        defer { unsafe BN_free(number) }
        return unsafe BN_rand(number, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1
            && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
    }

    private func add(_ number: Int32, _ value: String, _ issuer: CertifiedKey?) -> Bool {
        var context = unsafe X509V3_CTX()
        // SAFETY: the context borrows the certificates for the call below; the extension is copied
        // into the certificate and freed.
        unsafe X509V3_set_ctx(
            &context,
            issuer?.certificate ?? certificate,
            certificate,
            nil,
            nil,
            0
        )
        guard let made = unsafe X509V3_EXT_nconf_nid(nil, &context, number, value) else {
            return false
        }
        defer { unsafe X509_EXTENSION_free(made) }
        return unsafe X509_add_ext(certificate, made, -1) == 1
    }

    private func sign(by issuer: CertifiedKey?) -> Bool {
        // SAFETY: both live for the call; EVP_sha256 is a constant of the library.
        unsafe X509_sign(certificate, issuer?.key ?? key, EVP_sha256()) > 0
    }

    // MARK: - PEM

    /// The certificate, in PEM.
    package func certificateText() throws(CommandFailure) -> [UInt8] {
        // SAFETY: the certificate lives for the call.
        try unsafe Self.written { sink in unsafe PEM_write_bio_X509(sink, certificate) }
    }

    /// The private key, in PEM and in the clear.
    package func keyText() throws(CommandFailure) -> [UInt8] {
        // SAFETY: the key lives for the call; no cipher means no passphrase.
        try unsafe Self.written { sink in
            unsafe PEM_write_bio_PrivateKey(sink, key, nil, nil, 0, nil, nil)
        }
    }

    /// Reads what ``certificateText()`` and ``keyText()`` gave; nil when it is something else, or the
    /// two do not belong together.
    package convenience init?(certificateText: [UInt8], keyText: [UInt8]) {
        ERR_clear_error()
        // SAFETY: the sinks borrow the arrays for the closures' calls; what was read is owned by
        // the object, or freed. Without a callback for passphrases the terminal would be asked.
        let certificate = unsafe Self.read(certificateText) { source in
            unsafe PEM_read_bio_X509(source, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let certificate = unsafe certificate else { return nil }
        let key = unsafe Self.read(keyText) { source in
            unsafe PEM_read_bio_PrivateKey(source, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let key = unsafe key else {
            unsafe X509_free(certificate)
            return nil
        }
        unsafe self.init(certificate, key)
        guard unsafe X509_check_private_key(certificate, key) == 1 else { return nil }
    }

    private static func written(
        _ write: (OpaquePointer) -> Int32
    ) throws(CommandFailure) -> [UInt8] {
        ERR_clear_error()
        // SAFETY: the sink is freed on every path; the counts are the array's.
        guard let sink = unsafe BIO_new(BIO_s_mem()) else { throw failure() }
        defer { unsafe BIO_free(sink) }
        guard unsafe write(sink) == 1 else { throw failure() }
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = unsafe BIO_read(sink, &chunk, Int32(chunk.count))
            guard count > 0 else { return text }
            text += chunk[..<Int(count)]
        }
    }

    private static func read(
        _ text: [UInt8],
        _ body: (OpaquePointer) -> OpaquePointer?
    ) -> OpaquePointer? {
        // SAFETY: the source borrows the array for `body`, and is freed before that ends.
        unsafe text.withUnsafeBytes { bytes in
            guard let source = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else {
                return nil
            }
            defer { unsafe BIO_free(source) }
            return unsafe body(source)
        }
    }

    private static func failure() -> CommandFailure {
        let code = ERR_get_error()
        ERR_clear_error()
        // SAFETY: a static string, or nil.
        let reason = unsafe ERR_reason_error_string(code).map { unsafe String(cString: $0) }
        return CommandFailure(
            "certificate_failed",
            "OpenSSL could not make a certificate: \(reason ?? "no reason given")."
        )
    }
}
