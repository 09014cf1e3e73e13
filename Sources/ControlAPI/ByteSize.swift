// Sizes as people write and read them: 10GiB, 512MiB, 1T, 4096.

/// Why a text is not a size.
package enum ByteSizeError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No digits where a number should be.
    case notANumber(String)
    /// A unit nobody knows.
    case unknownUnit(String, number: String)
    /// A decimal unit: 10GB could mean 10^10 bytes or 10 GiB, and a guess loses data.
    case ambiguousUnit(String, number: String)
    /// A fraction.
    case notWhole(String)
    /// A space in it.
    case spaced(String)
    /// A number of another base than ten.
    case hexadecimal(String)
    /// More bytes than 2^63 - 1.
    case tooLarge(String)

    package var description: String {
        switch self {
        case .notANumber(let text) where text.hasPrefix("-"):
            "'\(text)' is negative; a size is a number and a unit, such as 10GiB, 512MiB or 1T"
        case .notANumber(let text):
            "'\(text)' is not a size; write a number and a unit, such as 10GiB, 512MiB or 1T"
        case .unknownUnit(let unit, let number):
            "'\(unit)' is not a unit; use B, KiB, MiB, GiB, TiB or PiB, such as \(number)GiB"
        case .ambiguousUnit(let unit, let number):
            "'\(unit)' may mean powers of 1000 or of 1024; write \(number)\(unit.prefix(1).uppercased())iB"
        case .notWhole(let text):
            "'\(text)' is not a whole number of a unit; use a smaller one, such as 1536MiB for 1.5GiB"
        case .spaced(let text):
            "'\(text)' has a space in it; write \(Self.unspaced(text) ?? "it as one word, such as 10GiB")"
        case .hexadecimal(let text):
            "'\(text)' is not decimal; write \(Self.decimal(text) ?? "a number and a unit, such as 10GiB")"
        case .tooLarge(let text):
            "'\(text)' is too large; no size is more than 8388607TiB"
        }
    }
}

extension ByteSizeError {
    private static func unspaced(_ text: String) -> String? {
        let word = text.filter { !$0.isWhitespace }
        return (try? ByteSize(parsing: word)).map { _ in word }
    }

    private static func decimal(_ text: String) -> String? {
        UInt64(text.dropFirst(2), radix: 16).map { "\($0)" }
    }
}

/// A number of bytes that reads and prints in binary units.
package struct ByteSize: Hashable, Sendable, Comparable {
    /// The number of bytes.
    package var byteCount: UInt64

    /// Creates a size of `byteCount` bytes.
    package init(byteCount: UInt64) { self.byteCount = byteCount }

    /// Reads a size; a number without a unit counts bytes, `K`, `M`, `G`, `T`, `P` are binary.
    ///
    /// - Throws: ``ByteSizeError``, whose text tells how to write it.
    package init(parsing text: String) throws(ByteSizeError) {
        guard !text.contains(where: \.isWhitespace) else { throw .spaced(text) }
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let unit = String(text.dropFirst(digits.count))
        guard !digits.isEmpty else { throw .notANumber(text) }
        guard let first = unit.first else {
            self = try Self(digits: digits, shift: 0, text: text)
            return
        }
        guard digits != "0" || first.lowercased() != "x" else { throw .hexadecimal(text) }
        guard first != ".", first != "," else { throw .notWhole(text) }
        guard let shift = Self.unitShifts[unit.lowercased()] else {
            let decimal = unit.count == 2 && unit.lowercased().hasSuffix("b")
            guard decimal, Self.unitShifts[String(unit.prefix(1)).lowercased()] != nil else {
                throw .unknownUnit(unit, number: String(digits))
            }
            throw .ambiguousUnit(unit, number: String(digits))
        }
        self = try Self(digits: digits, shift: shift, text: text)
    }

    private init(digits: Substring, shift: UInt64, text: String) throws(ByteSizeError) {
        guard let number = UInt64(digits) else { throw .tooLarge(text) }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow, bytes <= UInt64(Int64.max) else { throw .tooLarge(text) }
        byteCount = bytes
    }

    package static func < (left: ByteSize, right: ByteSize) -> Bool {
        left.byteCount < right.byteCount
    }

    private static let unitShifts: [String: UInt64] = [
        "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30, "t": 40, "tib": 40,
        "p": 50, "pib": 50,
    ]
}

extension ByteSize: CustomStringConvertible {
    /// The shortest text: exact when it is a whole number of a unit, else one decimal.
    package var description: String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        var exponent = 0
        while exponent < units.count - 1, byteCount >= 1024 << UInt64(10 * exponent) {
            exponent += 1
        }
        let unit = UInt64(1) << UInt64(10 * exponent)
        let whole = byteCount / unit
        let remainder = byteCount % unit
        guard remainder > 0 else { return "\(whole)\(units[exponent])" }
        // Tenths are cut, not rounded: a size is never shown larger than it is.
        return "\(whole).\(remainder / (unit / 1024) * 10 / 1024)\(units[exponent])"
    }
}

extension ByteSize {
    /// The size as an argument that gives exactly it back.
    package var argumentText: String {
        (try? ByteSize(parsing: description)) == self ? description : "\(byteCount)"
    }

    /// The exact size for messages: in a unit where it is a whole number of one, else in bytes.
    package var exactText: String {
        argumentText == description ? description : "\(byteCount) bytes"
    }
}
