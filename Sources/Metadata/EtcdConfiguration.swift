// Where an etcd cluster is, and how long to wait for it.

/// Where an etcd cluster is, and how long to wait for it.
public struct EtcdConfiguration: Sendable, Hashable {
    /// Its members: `http://HOST:PORT` or `https://HOST:PORT`.
    public var endpoints: [String]
    /// What all keys begin with; empty, or `/NAME`.
    public var namespace = ""
    /// Files for TLS.
    public var transportSecurity = TransportSecurity()
    /// How long one member may take to answer, in milliseconds.
    ///
    /// Then the next one is asked. A cluster that has lost its leader needs 1 s to 2 s for another one.
    public var tryMillisecondsMax: Int64 = 2_000
    /// How long to ask members in turn, in milliseconds.
    public var totalMillisecondsMax: Int64 = 10_000
    /// How long a watch may be silent, in milliseconds, before another member is asked.
    ///
    /// One that is frozen keeps its connections. More than etcd's interval of progress notices, which is
    /// 10 minutes unless `--experimental-watch-progress-notify-interval` says otherwise; with that
    /// a quiet watch is merely begun anew each time.
    public var watchSilenceMillisecondsMax: Int64 = 5_000
    /// How long what recognises our own transactions outlives this process, in seconds; far more
    /// than ``totalMillisecondsMax``.
    public var sessionSeconds: Int64 = 600

    /// Files for TLS, in PEM.
    public struct TransportSecurity: Sendable, Hashable {
        /// Who signed the members' certificates; nil for those that the system trusts.
        public var authorityPath: String?
        /// Our own certificate, with those between it and the authority.
        public var certificatePath: String?
        /// Its key.
        public var privateKeyPath: String?

        /// No files.
        public init() {}
    }

    /// Reads `etcd://HOST:PORT[,HOST:PORT...][/NAMESPACE]`, or `etcds://` for TLS.
    ///
    /// - Returns: Nil when that is not what it is.
    public init?(_ text: String) {
        let scheme: String
        var rest: Substring
        if text.hasPrefix("etcd://") {
            (scheme, rest) = ("http", text.dropFirst(7))
        } else if text.hasPrefix("etcds://") {
            (scheme, rest) = ("https", text.dropFirst(8))
        } else {
            return nil
        }
        if let slash = rest.firstIndex(of: "/") {
            let name = rest[slash...]
            rest = rest[..<slash]
            if name.count > 1 {
                let isPlain = name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
                guard isPlain, !name.hasSuffix("/") else { return nil }
                namespace = String(name)
            }
        }
        endpoints = []
        for part in rest.split(separator: ",", omittingEmptySubsequences: false) {
            guard let colon = part.lastIndex(of: ":") else { return nil }
            let host = part[..<colon]
            let isHost = host.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte & 0xDF)
                    || "-._[]:%".utf8.contains(byte)
            }
            guard !host.isEmpty, isHost, let port = UInt16(part[part.index(after: colon)...]),
                port > 0
            else { return nil }
            endpoints.append("\(scheme)://\(host):\(port)")
        }
    }
}
