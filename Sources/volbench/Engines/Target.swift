/// What is measured: an NBD export, a file or device, or nothing.
package enum Target: Equatable, Sendable {
    /// `nbd://HOST[:PORT]/EXPORT`
    case tcp(host: String, port: UInt16, export: String)
    /// `nbd+unix:///EXPORT?socket=PATH`
    case unix(path: String, export: String)
    /// A file or block device, opened with O_DIRECT.
    case file(path: String)
    /// `null:`: the generator alone.
    case null

    /// The engine that suits it.
    package var engineDefault: EngineKind {
        switch self {
        case .tcp, .unix: .nbd
        case .file: .uring
        case .null: .null
        }
    }

    /// The port of NBD, assigned by IANA.
    package static var portDefault: UInt16 { 10809 }

    /// Parses a target.
    ///
    /// Spec: NBD doc/uri.md. TLS and vsock are refused: TLS costs are measured with other tools.
    ///
    /// - Throws: ``BenchError`` that names the part that is wrong.
    package init(parsing text: String) throws(BenchError) {
        if text == "null:" {
            self = .null
        } else if let rest = text.stripping(prefix: "nbd+unix://") {
            self = try Target.parseUnix(rest, whole: text)
        } else if let rest = text.stripping(prefix: "nbd://") {
            self = try Target.parseTCP(rest, whole: text)
        } else if text.contains("://") {
            throw BenchError(
                text.hasPrefix("iscsi")
                    ? "\(text): iSCSI is not built yet; attach the volume over NBD"
                    : "\(text): the scheme is not nbd:// or nbd+unix://"
            )
        } else {
            self = .file(path: text)
        }
    }

    private static func parseUnix(_ rest: Substring, whole: String) throws(BenchError) -> Target {
        let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let path = parts[1].stripping(prefix: "socket="), !path.isEmpty
        else {
            throw BenchError("\(whole): a unix target ends in ?socket=PATH")
        }
        let export = parts[0].first == "/" ? parts[0].dropFirst() : parts[0]
        return .unix(path: try decode(path), export: try decode(export))
    }

    private static func parseTCP(_ rest: Substring, whole: String) throws(BenchError) -> Target {
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        var authority = parts[0]
        var host = authority
        var portText: Substring?
        if authority.first == "[" {
            guard let end = authority.firstIndex(of: "]") else {
                throw BenchError("\(whole): the address has no closing bracket")
            }
            host = authority[authority.index(after: authority.startIndex)..<end]
            authority = authority[authority.index(after: end)...]
            if authority.first == ":" { portText = authority.dropFirst() }
        } else if let colon = authority.lastIndex(of: ":") {
            host = authority[..<colon]
            portText = authority[authority.index(after: colon)...]
        }
        guard !host.isEmpty else { throw BenchError("\(whole): no host") }
        var port = portDefault
        if let portText {
            guard let number = UInt16(portText), number > 0 else {
                throw BenchError("\(whole): the port is not a number from 1 to 65535")
            }
            port = number
        }
        let export = parts.count > 1 ? try decode(parts[1]) : ""
        return .tcp(host: String(host), port: port, export: export)
    }

    /// Undoes percent-encoding.
    private static func decode(_ text: Substring) throws(BenchError) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(),
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)
            else { throw BenchError("\(text): % is not followed by two hex digits") }
            bytes.append(value)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension StringProtocol {
    /// What follows `prefix`, or nil when the text does not begin with it.
    func stripping(prefix: String) -> SubSequence? {
        hasPrefix(prefix) ? self[index(startIndex, offsetBy: prefix.count)...] : nil
    }
}
