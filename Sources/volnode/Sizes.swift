// Sizes and addresses as people write them.

import ArgumentParser
import StorageNode

/// A number of bytes on the command line: `8GiB`, `512MiB`, `1T`, `4096`.
struct SizeArgument: ExpressibleByArgument {
    var byteCount: UInt64

    private static let shifts: [String: UInt64] = [
        "": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30, "t": 40,
        "tib": 40,
    ]

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        let unit = argument.dropFirst(digits.count).lowercased()
        guard let number = UInt64(digits), let shift = Self.shifts[unit] else { return nil }
        let (byteCount, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow, byteCount <= UInt64(Int64.max) else { return nil }
        self.byteCount = byteCount
    }

    init(byteCount: UInt64) { self.byteCount = byteCount }

    var defaultValueDescription: String {
        byteCount % (1 << 30) == 0 ? "\(byteCount >> 30)GiB" : "\(byteCount >> 20)MiB"
    }
}

/// `HOST:PORT` on the command line.
struct HostPortArgument: ExpressibleByArgument {
    var host: String
    var port: UInt16

    init?(argument: String) {
        guard let colon = argument.lastIndex(of: ":") else { return nil }
        var host = argument[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard let port = UInt16(argument[argument.index(after: colon)...]) else { return nil }
        self.host = String(host)
        self.port = port
    }
}

/// `NAME=SIZE` on the command line.
struct VolumeArgument: ExpressibleByArgument {
    var name: String
    var byteCount: UInt64

    init?(argument: String) {
        guard let equals = argument.lastIndex(of: "="),
            let size = SizeArgument(argument: String(argument[argument.index(after: equals)...]))
        else { return nil }
        name = String(argument[..<equals])
        byteCount = size.byteCount
        guard !name.isEmpty else { return nil }
    }
}
