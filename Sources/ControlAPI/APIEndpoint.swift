// Where an API is: a TCP port or a unix socket.

import Foundation

/// The address of an API.
public enum APIEndpoint: Sendable, Hashable, CustomStringConvertible {
    /// A TCP port of a host name or address.
    case tcp(host: String, port: Int)
    /// A unix socket.
    case unix(path: String)

    /// The longest path that a unix socket can have, in bytes: `sun_path` less its final NUL.
    public static var unixPathByteCountMax: Int { 107 }

    /// Reads `http://HOST:PORT`, `HOST:PORT`, `unix:PATH` or, as an HTTP client spells it,
    /// `http+unix:PATH`.
    ///
    /// - Throws: ``ControlError/Code/invalidArgument`` with what is wrong.
    public init(_ text: String) throws(ControlError) {
        for prefix in ["http+unix://", "http+unix:", "unix://", "unix:"]
        where text.hasPrefix(prefix) {
            self = .unix(path: try Self.checked(unixPath: String(text.dropFirst(prefix.count))))
            return
        }
        var rest = text[...]
        if rest.hasPrefix("http://") { rest = rest.dropFirst("http://".count) }
        while rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let colon = rest.lastIndex(of: ":") else { throw Self.malformed(text) }
        var host = rest[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard
            let port = UInt16(rest[rest.index(after: colon)...]), !host.isEmpty,
            host.utf8.count <= 253,
            host.utf8.allSatisfy({ byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte)
                    || (0x61...0x7A).contains(byte) || byte == 0x2D || byte == 0x2E || byte == 0x3A
            })
        else { throw Self.malformed(text) }
        self = .tcp(host: String(host), port: Int(port))
    }

    private static func checked(unixPath path: String) throws(ControlError) -> String {
        guard path.hasPrefix("/") else {
            throw ControlError(
                .invalidArgument,
                "The socket path \(ValidName.quoted(path)) is not absolute."
            )
        }
        guard path.utf8.count <= unixPathByteCountMax, !path.utf8.contains(0) else {
            throw ControlError(
                .invalidArgument,
                "The socket path has \(path.utf8.count) bytes; a unix socket's has at most "
                    + "\(unixPathByteCountMax).",
                help: "Use a shorter directory."
            )
        }
        return path
    }

    private static func malformed(_ text: String) -> ControlError {
        ControlError(
            .invalidArgument,
            "\(ValidName.quoted(text)) is not an endpoint.",
            help: "Write http://HOST:PORT or unix:/PATH."
        )
    }

    /// The spelling that ``init(_:)`` reads.
    public var description: String {
        switch self {
        case .tcp(let host, let port):
            host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// The URL of a path of the API, as the HTTP client takes it.
    func url(path: String) -> String {
        switch self {
        case .tcp:
            return "\(self)\(path)"
        case .unix(let socket):
            let host = socket.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
            return "http+unix://\(host)\(path)"
        }
    }
}
