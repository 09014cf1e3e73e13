// Values of the command line that every program reads alike. What breaks a rule of theirs is wrong
// usage, and the message says how the value is written.

import ArgumentParser
package import ControlAPI

/// Checks of the command line that need nothing but the command line.
package enum Usage {
    /// Refuses what is no name.
    package static func require(_ name: String?, of what: String) throws {
        guard let name else { return }
        try check { () throws(ControlError) in try ValidName.require(name, of: what) }
    }

    /// Refuses an empty `--data`, which an unset variable of a script gives: it would mean the
    /// directory that the script happens to be in.
    package static func require(directory: String?) throws {
        guard directory?.isEmpty == true else { return }
        throw ValidationError("--data takes a directory, not an empty text.")
    }

    /// Refuses what is no size of a volume.
    package static func require(volumeSize size: ByteSize?) throws {
        guard let size else { return }
        try check { () throws(ControlError) in
            try ValidSize.require(volumeByteCount: size.byteCount)
        }
    }

    /// Reads a whole number; that it lies in `range` is for the command to check.
    ///
    /// - Returns: What reads it; it throws `ValidationError`, which is wrong usage and names the
    ///   range.
    package static func number<Number: FixedWidthInteger & Sendable>(
        _ range: ClosedRange<Number>
    ) -> @Sendable (String) throws -> Number {
        let limits =
            range.upperBound == .max
            ? "\(range.lowerBound) or more" : "\(range.lowerBound) to \(range.upperBound)"
        return { text in
            if let number = Number(text) { return number }
            let isLarge = !text.isEmpty && text.allSatisfy { $0.isASCII && $0.isNumber }
            throw ValidationError(
                isLarge
                    ? "it takes \(range.lowerBound) to \(range.upperBound), and that is far more"
                    : "it takes \(limits), and that is no whole number"
            )
        }
    }

    /// Turns a broken rule of the API into wrong usage.
    ///
    /// - Throws: `ValidationError`.
    package static func check<Value>(
        _ rule: () throws(ControlError) -> Value
    ) throws -> Value {
        do throws(ControlError) {
            return try rule()
        } catch {
            throw ValidationError(
                [error.detail, error.help].compactMap { $0 }.joined(separator: " ")
            )
        }
    }
}

extension ByteSize {
    /// Reads a size of the command line.
    ///
    /// - Throws: `ValidationError`, which is wrong usage and says how a size is written.
    package static func argument(_ text: String) throws -> ByteSize {
        do {
            return try ByteSize(parsing: text)
        } catch {
            throw ValidationError(error.description)
        }
    }

    /// Reads the size of a volume: what is no size of any kind is told the limit of volumes.
    ///
    /// - Throws: `ValidationError`; a size that breaks the other rules of volumes is refused by
    ///   ``Usage/require(volumeSize:)``.
    package static func volumeArgument(_ text: String) throws -> ByteSize {
        do {
            return try ByteSize(parsing: text)
        } catch .tooLarge {
            let limit = ByteSize(byteCount: APILimits.volumeByteCountMax)
            throw ValidationError("'\(text)' is too large; a volume has at most \(limit)")
        } catch {
            throw ValidationError(error.description)
        }
    }
}

extension ControlEndpoints {
    /// Reads a list of endpoints of the command line.
    ///
    /// - Throws: `ValidationError`, which is wrong usage and says how they are written.
    package static func argument(_ text: String) throws -> ControlEndpoints {
        try Usage.check { () throws(ControlError) in try ControlEndpoints(text) }
    }
}

extension APIEndpoint {
    /// Reads an endpoint of the command line.
    ///
    /// - Throws: `ValidationError`, which is wrong usage and says how an endpoint is written.
    package static func argument(_ text: String) throws -> APIEndpoint {
        try Usage.check { () throws(ControlError) in try APIEndpoint(text) }
    }

    /// Reads a TCP endpoint of the command line.
    ///
    /// - Throws: `ValidationError`, also for a unix socket.
    package static func tcpArgument(_ text: String) throws -> APIEndpoint {
        let endpoint = try? argument(text)
        guard case .tcp? = endpoint, let endpoint else {
            throw ValidationError(
                "'\(text)' is not HOST:PORT, such as 127.0.0.1:7400; a port is 0 to 65535"
            )
        }
        return endpoint
    }
}
