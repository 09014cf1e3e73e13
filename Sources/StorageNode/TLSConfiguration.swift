// What a TLS context is made from, and what can be wrong with it.

/// The credentials and limits of a ``TLSContext``.
///
/// X.509 credentials, pre-shared keys, or both: a client chooses. At least one must be given.
public struct TLSConfiguration: Sendable, Hashable {
    /// The directory with PEM files named as QEMU names them.
    ///
    /// A server needs `server-cert.pem` and `server-key.pem`, and `ca-cert.pem` when it verifies
    /// clients. A client needs `ca-cert.pem` when it verifies the server, and `client-cert.pem`
    /// with `client-key.pem` when the server verifies it. `ca-crl.pem` is used when present.
    public var credentialsDirectory: String?
    /// Whether the other side must show a certificate of our authority.
    ///
    /// Pre-shared keys prove both sides whatever this says. A server with certificates that does
    /// not verify lets everyone in, encrypted.
    public var verifyPeer: Bool
    /// Whether both sides are nodes of a cluster.
    ///
    /// Either side then has `node-cert.pem` and `node-key.pem`, verifies the other by `ca-cert.pem`
    /// whatever else is said, and speaks TLS 1.3 only.
    public var isForNodes = false
    /// The node that the certificate must be for, when both sides are nodes; nil checks no name.
    public var nodeName: String?
    /// The path of a file of pre-shared keys, in GnuTLS's `psk.txt` format.
    public var presharedKeysPath: String?
    /// What one session may hold.
    public var limits: TLSLimits

    /// Creates a configuration.
    public init(
        credentialsDirectory: String? = nil,
        verifyPeer: Bool = true,
        presharedKeysPath: String? = nil,
        limits: TLSLimits = TLSLimits()
    ) {
        self.credentialsDirectory = credentialsDirectory
        self.verifyPeer = verifyPeer
        self.presharedKeysPath = presharedKeysPath
        self.limits = limits
    }
}

extension TLSConfiguration {
    /// The credentials of a node for its links to others.
    ///
    /// - Parameters:
    ///   - credentialsDirectory: The directory of the files.
    ///   - name: The node's name, which its certificate must have; nil checks no name.
    /// - Returns: A configuration for ``TLSContext``, on either side.
    public static func nodes(
        credentialsDirectory: String,
        name: String? = nil
    ) -> TLSConfiguration {
        var configuration = TLSConfiguration(credentialsDirectory: credentialsDirectory)
        configuration.isForNodes = true
        configuration.nodeName = name
        return configuration
    }
}

/// What one ``TLSSession`` may hold, decided when it starts.
public struct TLSLimits: Sendable, Hashable {
    /// Ciphertext held in each direction, in bytes; at least ``recordByteCountMax``.
    ///
    /// The default holds two full records, so that one can be filled while another is drained.
    public var ciphertextByteCount: Int
    /// The longest certificate chain accepted, in bytes; in the field they have 2 to 8 KiB.
    public var certificateByteCountMax: Int

    /// The longest record on the wire, in bytes.
    ///
    /// 5 of header, 16 KiB of payload, 2 KiB of expansion; TLS 1.3 needs less.
    /// Spec: RFC 5246, section 6.2.3.
    public static var recordByteCountMax: Int { 5 + (16 << 10) + (2 << 10) }

    /// Creates limits.
    public init(
        ciphertextByteCount: Int = 2 * TLSLimits.recordByteCountMax,
        certificateByteCountMax: Int = 64 << 10
    ) {
        self.ciphertextByteCount = ciphertextByteCount
        self.certificateByteCountMax = certificateByteCountMax
    }
}

/// Which side of a connection a context is for.
public enum TLSRole: Sendable, Hashable {
    /// Accepts handshakes.
    case server
    /// Starts handshakes. The server's certificate must be for `serverName` when that is given;
    /// `presharedKeyUser` chooses a line of the key file.
    case client(serverName: String?, presharedKeyUser: String?)
}

/// Why a ``TLSContext`` could not be made.
///
/// Texts are for people: the programs print them.
public enum TLSError: Error, Sendable, Hashable {
    /// Neither certificates nor pre-shared keys are configured.
    case noCredentials
    /// The file does not exist.
    case fileMissing(path: String)
    /// The file exists but cannot be read.
    case fileUnreadable(path: String, errno: Int32)
    /// The file is not what its name says.
    case fileMalformed(path: String, reason: String)
    /// The private key does not belong to the certificate.
    case keyMismatch(certificatePath: String, keyPath: String)
    /// The certificate's time has passed.
    case certificateExpired(path: String, notAfter: String)
    /// The certificate's time has not come: one of the two clocks is wrong.
    case certificateNotYetValid(path: String, notBefore: String)
    /// The certificate is for another node, or for none.
    case certificateNotFor(path: String, name: String)
    /// A line of the key file is not `user:hexadecimal key`.
    case presharedKeyMalformed(path: String, line: Int)
    /// The key file has no keys, or not the one that a client asks for.
    case presharedKeyMissing(path: String)
    /// OpenSSL refused something that only a broken installation makes it refuse.
    case library(reason: String)
}

extension TLSError: CustomStringConvertible {
    /// One line that says what is wrong and what to do.
    public var description: String {
        switch self {
        case .noCredentials:
            "TLS needs a directory of certificates or a file of pre-shared keys"
        case .fileMissing(let path):
            "TLS file \(path) does not exist"
        case .fileUnreadable(let path, let errno):
            "TLS file \(path) cannot be read (errno \(errno)): check its owner and permissions"
        case .fileMalformed(let path, let reason):
            "TLS file \(path) cannot be used: \(reason)"
        case .keyMismatch(let certificatePath, let keyPath):
            "TLS key \(keyPath) does not belong to certificate \(certificatePath)"
        case .certificateExpired(let path, let notAfter):
            "TLS certificate \(path) expired on \(notAfter): issue a new one"
        case .certificateNotYetValid(let path, let notBefore):
            "TLS certificate \(path) is valid from \(notBefore) only: check this machine's clock"
        case .certificateNotFor(let path, let name):
            "TLS certificate \(path) is not for this node: it has no DNS name \(name)"
        case .presharedKeyMalformed(let path, let line):
            "TLS key file \(path), line \(line): expected user:hexadecimal-key, as psktool writes"
        case .presharedKeyMissing(let path):
            "TLS key file \(path) does not hold the key asked for"
        case .library(let reason):
            "OpenSSL failed: \(reason)"
        }
    }
}

/// Something about the credentials that works but should be put right.
public enum TLSWarning: Sendable, Hashable, CustomStringConvertible {
    /// Others than the owner and its group may read a file that holds secrets.
    case secretReadableByOthers(path: String)
    /// The certificate expires within ``TLSContext/expiryWarningSeconds``.
    case certificateExpiresSoon(path: String, notAfter: String)
    /// Clients are not verified although pre-shared keys are configured: the keys keep nobody out.
    case keysWithoutVerification

    /// One line that says what is wrong and what to do.
    public var description: String {
        switch self {
        case .secretReadableByOthers(let path):
            "TLS file \(path) holds a secret that others can read: chmod 0600 it"
        case .certificateExpiresSoon(let path, let notAfter):
            "TLS certificate \(path) expires on \(notAfter)"
        case .keysWithoutVerification:
            "clients need neither a key nor a certificate: turn peer verification on"
        }
    }
}
