// Values of the command line that only a node reads.

public import ArgumentParser
import BlockCore
import ControlAPI
import LogStore
import ProgramMain
public import Reactor
public import StorageNode

// The library's choices as options.
extension Preallocation: ExpressibleByArgument {}
extension EngineChoice: ExpressibleByArgument {}
extension TLSPolicy: ExpressibleByArgument {}

extension ByteSize {
    /// Refuses map memory with which no store works.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    func requireMapMemory() throws {
        let least = ByteSize(byteCount: UInt64(LogStoreConfiguration.mapMemoryByteCountMin))
        guard byteCount < least.byteCount else { return }
        throw ValidationError(
            "--map-memory \(self) is too little to work with; it takes \(least) or more."
        )
    }
}

/// Where something is over TCP: `HOST:PORT`.
struct HostPort: Sendable, CustomStringConvertible {
    var host: String
    var port: UInt16

    /// The spelling that ``argument(_:)`` reads.
    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Whether it stands for every address of the machine, so that nobody can connect to it.
    var isWildcard: Bool {
        var rest = host.lowercased()[...]
        if rest.hasPrefix("::ffff:") { rest = rest.dropFirst("::ffff:".count) }
        return rest.allSatisfy { "0.:".contains($0) }
    }

    /// Reads `HOST:PORT`, the host in brackets when it is an IPv6 address.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    static func argument(_ text: String) throws -> HostPort {
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...])
        else {
            throw ValidationError(
                "'\(text)' is not HOST:PORT, such as 127.0.0.1:10809; a port is 0 to 65535"
            )
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        return HostPort(host: String(host), port: port)
    }

    /// Reads the `HOST:PORT` that others are to connect to.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    static func advertised(_ text: String) throws -> HostPort {
        let address = try argument(text)
        guard address.port > 0, !address.isWildcard, (try? APIEndpoint("\(address)")) != nil else {
            throw ValidationError(
                "'\(text)' is no address to connect to; give HOST:PORT, such as 192.0.2.7:10809"
            )
        }
        return address
    }
}

/// A volume to make: `NAME=SIZE`.
struct StandaloneVolume: Sendable {
    var name: String
    var byteCount: UInt64

    /// Reads `NAME=SIZE`.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    static func argument(_ text: String) throws -> StandaloneVolume {
        guard let equals = text.lastIndex(of: "=") else {
            throw ValidationError("'\(text)' is not NAME=SIZE, such as disk=4GiB")
        }
        let name = String(text[..<equals])
        let size = try ByteSize.argument(String(text[text.index(after: equals)...]))
        try Usage.require(name, of: "volume")
        try Usage.require(volumeSize: size)
        return StandaloneVolume(name: name, byteCount: size.byteCount)
    }
}

extension StoreIdentity {
    /// 32 hex digits.
    var hexText: String {
        [high, low].map { half in
            let digits = String(half, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }

    /// Reads what ``hexText`` writes, in either case.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    static func argument(_ text: String) throws -> StoreIdentity {
        let isHex = text.utf8.count == 32 && text.allSatisfy { $0.isASCII && $0.isHexDigit }
        guard isHex,
            let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else {
            throw ValidationError(
                "'\(text)' is not the identity of a store, 32 hex digits; 'volnode check PATH "
                    + "--json' says which store is at a path"
            )
        }
        return StoreIdentity(high: high, low: low)
    }
}

extension ByteSize {
    /// Refuses a store's size that is not whole blocks.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    static func storeArgument(_ text: String) throws -> ByteSize {
        let size = try argument(text)
        let granule = UInt64(BlockGeometry.blockByteCount)
        guard size.byteCount > 0, size.byteCount.isMultiple(of: granule) else {
            throw ValidationError(
                "a store has a positive multiple of \(granule) bytes; choose a size such as 8GiB"
            )
        }
        return size
    }
}
